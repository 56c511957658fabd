"""Keeper: what a run does with artifacts and saved files. A run makes one when it first needs it, and a fork its own.

`log` takes at the call what it can and leaves the rest to a thread (batch.py); when a version's files and its manifest
are durable, its `log` record is written. What is under way when the process dies was announced by a `begin` record, so
that readers can say what is incomplete. docs/artifacts.md has the records.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import NotFound, UsageError
from ..journal.reader import open_regular, writer_folders
from ..journal.record import Record
from ..journal.values import encode_values, text
from ..mappings import as_mapping
from ..protocol.manifest import MAX_MANIFEST, Manifest, Reference
from ..protocol.names import checked_name
from ..rundir import RunDir, atomic_write, readable
from ..terminal import say, warn_once
from . import lineage
from .artifact import Artifact, checked_policy
from .batch import Batch, Damaged, Shared, empty
from .catalog import COPYING, Catalog, Version, catalogs
from .copier import Copier
from .links import Links
from .retention import Rule, checked_rule, superseded
from .saving import Saving
from .sources import Source, sources_at
from .versions import ArtifactVersion, checked_aliases, give_back, name_from_path, next_version, parse_name

MAX_WAITING = 64
MAX_NAMED = 100
_SAY_AFTER = 2.0
_REMEDY = "Save each under a new path, or write beside and rename, or call .wait() on what log_artifact returns before."

Append = Callable[[str, dict[str, Any]], object]
Fetch = Callable[[str, str, str, str | None], ArtifactVersion | None]


@dataclass(slots=True)
class _Order:
    """What `log` was asked for, checked."""

    name: str
    type: str
    description: str | None
    metadata: dict[str, Any]
    aliases: tuple[str, ...]
    rule: Rule | None


@dataclass(slots=True)
class _Job:
    """A version on its way into the run.

    Attributes:
        number: in the order of calls. begun: the version's name at the call. files: the run's `files/` then.
        made_of: what was logged; it lives as long, for the files that an Artifact itself has written.
        announced: a `begin` record was written. kept: a record names it or is about to, so nothing is taken back.
    """

    number: int
    order: _Order
    batch: Batch
    handle: ArtifactVersion
    begun: str
    files: Path
    made_of: object
    announced: bool = False
    kept: bool = False


@dataclass(slots=True)
class _Books:
    """What the keeper knows of the versions that are in the run; changed under its lock only.

    `taken` is by (name, alias) the number of the last call that got it: a large version that becomes whole after a
    later, small one must not take `latest` back.
    """

    catalog: Catalog = field(default_factory=Catalog)
    read: bool = False
    taken: dict[tuple[str, str], int] = field(default_factory=dict)
    condemned: list[Path] = field(default_factory=list)


class Keeper:
    """Keeps artifacts and files for one run in one process.

    Args:
        where: returns the run directory, which may be another one later. run_id, project: whose it is.
        append: writes a record, given its kind and data; from any thread. Raises UsageError once the run has ended.
        flush: makes the records written so far durable; False where the disk refuses.
        summary: the run's summary, where `keep_best` finds a metric that the metadata lacks.
        alone: whether the run has this one directory only: it is not continued, and no other node's.
        workspace: whose versions are meant on a server; None for all that one may see.

    Attributes:
        elsewhere: asked for (project, name, alias or version, workspace or None) by `use` when nothing on this disk
            answers to it.
    """

    def __init__(
        self,
        where: Callable[[], RunDir],
        run_id: str,
        project: str,
        append: Append,
        flush: Callable[[], bool],
        summary: Mapping[str, Any] | None = None,
        alone: bool = True,
        workspace: str | None = None,
        elsewhere: Fetch | None = None,
    ) -> None:
        self._workspace = workspace
        self.elsewhere = elsewhere
        self._where = where
        self._run_id = run_id
        self._project = project
        self._append = append
        self._flush = flush
        self._summary = summary if summary is not None else {}
        self._alone = alone
        self._lock = threading.RLock()
        self._copier = Copier()
        self._books = _Books()
        self._shared = Shared()
        self._links = Links()
        self._saving = Saving(where, append)
        self._calls = itertools.count(1)
        self._waiting: dict[int, _Job] = {}
        self._put_off: deque[Callable[[], object]] = deque()
        self._elsewhere_in_run: dict[str, list[str]] = {}

    @property
    def _rundir(self) -> RunDir:
        return self._where()

    @contextlib.contextmanager
    def _books_locked(self) -> Iterator[None]:
        """Hold the lock; when the last block of this thread has ended, do what signal handlers have put off."""
        try:
            with self._lock:
                yield
        finally:
            while self._put_off and not self._is_mine():
                self._put_off.popleft()()

    def _is_mine(self) -> bool:
        """Tell whether this very thread holds the lock: a signal handler has interrupted it then."""
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]

    def when_free(self, action: Callable[[], object]) -> None:
        """Call a function now; or, from a signal handler that has struck in the midst of our own work, after that.

        A version that is half in the books could not be waited for.
        """
        if self._is_mine():
            self._put_off.append(action)
        else:
            action()

    # -- keeping -------------------------------------------------------------------------------------------------------

    def log(
        self,
        what: str | os.PathLike[str] | Artifact,
        name: str | None = None,
        type: str | None = None,
        aliases: str | Iterable[str] | None = (),
        metadata: Mapping[str, Any] | None = None,
        description: str | None = None,
        policy: str = "auto",
        keep_last: int | None = None,
        keep_best: tuple[str, str] | tuple[str, str, int] | None = None,
    ) -> ArtifactVersion | None:
        """Keep a file, a folder or an Artifact as the next version of an artifact; see `Run.log_artifact`.

        Returns:
            The version, at once; None where nothing could be kept (a warning says why).

        Raises:
            UsageError: an argument cannot be used.
        """
        order = self._understand(what, name, type, aliases, metadata, description, keep_last, keep_best)
        way = checked_policy(policy)
        if len(self._waiting) >= MAX_WAITING:
            warn_once(f"artifact {order.name}", f"artifact {order.name!r} is not kept: {MAX_WAITING} others still wait")
            return None
        try:
            sources, references = self._contents(what, way)
            version = self._begin(order, Batch(sources, references), what)
            if isinstance(what, Artifact):
                what.logged = version
            return version
        except (OSError, ValueError) as error:  # ValueError: a NUL in a path
            warn_once(f"artifact {order.name}", f"artifact {order.name!r} is not kept: {error}")
            return None

    def _understand(
        self,
        what: object,
        name: str | None,
        type: str | None,
        aliases: str | Iterable[str] | None,
        metadata: object,
        description: str | None,
        keep_last: object,
        keep_best: object,
    ) -> _Order:
        made = what if isinstance(what, Artifact) else None
        if made is None and not isinstance(what, str | os.PathLike):
            raise UsageError(f"log_artifact() takes a path or an Artifact, not {what.__class__.__name__}")
        if what == "":
            raise UsageError("log_artifact(''): an empty path; a file or folder is needed")
        chosen = name if name is not None else made.name if made else name_from_path(Path(str(what)))
        kind = type if type is not None else made.type if made else self._type_of(chosen)
        rule = checked_rule(keep_last, keep_best)
        facts = {**(made.metadata if made else {}), **as_mapping("metadata=", metadata)}
        if rule and rule.best and rule.metric not in facts and rule.metric in self._summary:
            facts[rule.metric] = self._summary[rule.metric]
        words = description if description is not None else made.description if made else None
        return _Order(
            checked_name("artifact", chosen),
            checked_name("artifact type", kind),
            None if words is None else text(words),
            _plain(facts),
            checked_aliases(aliases),
            rule,
        )

    def _type_of(self, name: str) -> str:
        """Return what an artifact was last logged as."""
        with self._books_locked():
            return next((v.type for v in reversed(self._books.catalog.versions.values()) if v.name == name), "artifact")

    def _contents(self, what: str | os.PathLike[str] | Artifact, policy: str) -> tuple[list[Source], list[Reference]]:
        without = self._rundir.path.parent
        if isinstance(what, Artifact):
            return what.contents(policy, without)
        return sources_at(Path(what), policy, without=without), []

    def _begin(self, order: _Order, batch: Batch, made_of: object) -> ArtifactVersion | None:
        """Take what is taken at the call, and see to the rest. Raises OSError; nothing is left then."""
        files = self._rundir.files
        home = files / "artifacts" / order.name
        version, folder = next_version(home, self._other_versions(order.name), apart=not self._alone)
        handle = self._handle(order, version, folder, batch)
        job = _Job(next(self._calls), order, batch, handle, version, files, made_of)
        try:
            batch.take(folder)
            if batch.is_small:
                self._complete(job)
            else:
                self._leave_to_the_thread(job)
        except BaseException:
            if not job.kept:
                self._waiting.pop(job.number, None)
                batch.discard()
                give_back(folder, home)
            raise
        return handle

    def _handle(self, order: _Order, version: str, folder: Path, batch: Batch) -> ArtifactVersion:
        return ArtifactVersion(
            order.name,
            version,
            folder,
            type=order.type,
            project=self._project,
            made_by=self._run_id,
            size=batch.size,
            aliases=order.aliases,
            metadata=order.metadata,
            description=order.description,
            wait=self._copier.wait,
        )

    def _leave_to_the_thread(self, job: _Job) -> None:
        with self._books_locked():
            self._waiting[job.number] = job
            self._write(
                {
                    "action": "begin",
                    "name": job.order.name,
                    "type": job.order.type,
                    "version": job.begun,
                    "size": job.batch.size,
                    "files": len(job.batch.parts),
                    "aliases": list(job.order.aliases),
                }
            )
            job.announced = job.kept = True
            self._copier.submit(lambda: self._complete_later(job))

    def _complete_later(self, job: _Job) -> None:
        try:
            self._complete(job)
        except Exception as error:
            if job.handle.state == COPYING:
                self._give_up(job, error)
            if not isinstance(error, OSError):
                raise
        finally:
            self._waiting.pop(job.number, None)

    def _complete(self, job: _Job) -> None:
        """Bring a version to its end: all bytes hashed and durable, then the manifest, then the record."""
        batch, order = job.batch, job.order
        batch.complete()
        batch.share(self._shared)
        batch.make_durable()
        manifest = Manifest(order.name, order.type, batch.entries, order.metadata, batch.references, order.description)
        if self._rundir.files != job.files:
            raise OSError(f"the run has moved from {job.files.parent} to {self._rundir.path} meanwhile")
        with self._books_locked():
            self._read_books()
            version, folder = job.begun, job.handle.path
            same = self._same(order.name, manifest.digest)
            if same is not None:
                batch.discard()
                give_back(folder, job.files / "artifacts" / order.name)
                version, folder = same.version, (self._rundir.files / same.manifest).parent
            else:
                atomic_write(folder / "manifest.json", manifest.to_json())
                self._shared.add((p.target, p.facts) for p in batch.parts if p.facts and p.taken and not p.linked)
                self._links.add(batch.linked, job.handle)
            self._record(job, manifest, version, folder)
        if order.rule is not None:
            self._apply(order.name, order.rule)

    def _same(self, name: str, digest: str) -> Version | None:
        """Return the version that has this very content already."""
        for version in reversed(self._books.catalog.named(name)):
            if version.digest == digest and (self._rundir.files / version.manifest).is_file():
                return version
        return None

    def _record(self, job: _Job, manifest: Manifest, version: str, folder: Path) -> None:
        order, taken = job.order, self._books.taken
        aliases = tuple(a for a in order.aliases if taken.get((order.name, a), 0) < job.number)
        taken.update({(order.name, a): job.number for a in aliases})
        data: dict[str, Any] = {
            "action": "log",
            "name": order.name,
            "type": order.type,
            "version": version,
            "digest": manifest.digest,
            "size": manifest.size,
            "files": len(manifest.files),
            "aliases": list(aliases),
            "metadata": order.metadata,
            "manifest": (folder / "manifest.json").relative_to(self._rundir.files).as_posix(),
        }
        if order.description is not None:
            data["description"] = order.description
        if job.announced and version != job.begun:
            data["begun"] = job.begun
        job.kept = True
        self._write(data)
        job.handle.settle(version, folder, manifest.digest, aliases)

    def _write(self, data: dict[str, Any]) -> None:
        self._append("artifact", data)
        self._books.catalog.add("", Record(0, time.time(), "artifact", None, data, b""))

    def _give_up(self, job: _Job, error: Exception) -> None:
        job.batch.discard()
        files = error.files if isinstance(error, Damaged) else []
        try:
            self._damaged(job.order.name, job.begun, str(error), files)
        finally:
            job.handle.give_up(str(error))  # last: who waits for it finds it said and recorded

    def _damaged(self, name: str, version: str, reason: str, files: list[str], remedy: str = _REMEDY) -> None:
        warn_once(f"damaged artifact {name}", f"artifact {name}:{version} is damaged and not kept: {reason}. {remedy}")
        with self._books_locked():
            self._write(
                {
                    "action": "damaged",
                    "name": name,
                    "version": version,
                    "reason": text(reason)[:2000],
                    "files": files[:MAX_NAMED],
                }
            )

    def _read_books(self) -> None:
        """Read, the first time, what other writers have kept in this run directory."""
        if not self._books.read:
            self._books.read = True
            if not self._alone or len(writer_folders(self._rundir.journal)) > 1:
                with contextlib.suppress(OSError):  # without, the same content may become another version; no harm
                    self._books.catalog = Catalog.read(self._rundir)

    def _other_versions(self, name: str) -> list[str]:
        """Return the versions of an artifact that the run has in other directories: it was continued, or moved."""
        if not self._alone and name not in self._elsewhere_in_run:
            root = self._rundir.path.parent
            found = [catalog for _, run_id, _, catalog in catalogs(root, name) if run_id == self._run_id]
            self._elsewhere_in_run[name] = [v for c in found for known, v in c.versions if known == name]
        with self._books_locked():
            own = [version for known, version in self._books.catalog.versions if known == name]
        return [*self._elsewhere_in_run.get(name, []), *own]

    # -- letting go ----------------------------------------------------------------------------------------------------

    def _apply(self, name: str, rule: Rule) -> None:
        """Let go what a rule lets go: the records now, the files on the thread, once the records are durable."""
        with self._books_locked():
            catalog = self._books.catalog
            held = {version for (known, _), version in catalog.aliases.items() if known == name}
            self._condemn(superseded(self._here(name), rule, held))
            some = bool(self._books.condemned)
        if some:
            self._copier.submit(self._sweep)

    def _here(self, name: str) -> list[Version]:
        return [v for v in self._books.catalog.named(name) if (self._rundir.files / v.manifest).is_file()]

    def _condemn(self, versions: Iterable[Version]) -> None:
        """Record that versions are let go. Their files follow by `_sweep`."""
        for version in versions:
            folder = (self._rundir.files / version.manifest).parent
            self._write(
                {
                    "action": "pruned",
                    "name": version.name,
                    "version": version.version,
                    "digest": version.digest,
                    "manifest": version.manifest,
                }
            )
            self._links.forget(folder)
            self._books.condemned.append(folder)

    def _sweep(self) -> None:
        """Delete what has been let go. Without durable records a power cut would make damage of it."""
        with self._books_locked():
            condemned, self._books.condemned = self._books.condemned, []
        if condemned and not self._flush():
            self._books.condemned += condemned
            return
        for folder in condemned:
            empty(folder)

    # -- versions by name, for who decides himself what stays ----------------------------------------------------------

    def kept(self, name: str) -> list[tuple[Version, tuple[str, ...]]]:
        """Return an artifact's versions that are whole and here, each with its aliases, as they were last logged."""
        with self._books_locked():
            self._read_books()
            return [(version, self._books.catalog.aliases_of(version)) for version in self._here(name)]

    def let_go(self, name: str, versions: Callable[[], Iterable[str]]) -> None:
        """Let versions of an artifact go, whatever aliases they have, once all that was logged before is whole.

        Args:
            name: the artifact. versions: asked then for their names; others than those that are here are passed over.
        """

        def go() -> None:
            with self._books_locked():
                self._read_books()
                wanted = set(versions())
                self._condemn(v for v in self._here(name) if v.version in wanted)
            self._sweep()

        self._copier.submit(go)

    def retag(self, name: str, version: Callable[[], str], aliases: Sequence[str]) -> None:
        """Give a version that is here already more aliases, once all that was logged before is whole.

        Args:
            name: the artifact. version: asked then which. aliases: taken from the version that has them.

        Raises:
            UsageError: one cannot be an alias.
        """
        given = [alias for alias in checked_aliases(aliases) if alias != "latest" or "latest" in aliases]
        number = next(self._calls)

        def go() -> None:
            with self._books_locked():
                self._read_books()
                found = next((v for v in self._here(name) if v.version == version()), None)
                fresh = [a for a in given if self._books.taken.get((name, a), 0) < number]
                if found is None or not fresh:
                    return
                self._books.taken.update({(name, a): number for a in fresh})
                with open_regular(self._rundir.files / found.manifest) as file:
                    manifest = Manifest.from_json(file.read(MAX_MANIFEST + 1))
                data = {
                    "action": "log",
                    "name": name,
                    "type": found.type,
                    "version": found.version,
                    "digest": found.digest,
                    "size": found.size,
                    "files": len(manifest.files),
                    "aliases": fresh,
                    "metadata": found.metadata,
                    "manifest": found.manifest,
                }
                if manifest.description is not None:
                    data["description"] = manifest.description
                self._write(data)

        self._copier.submit(go)

    # -- using ---------------------------------------------------------------------------------------------------------

    def use(self, name: str, type: str | None = None) -> ArtifactVersion:
        """Return a version that this or an earlier run has logged, and record that this run used it.

        Args:
            name: "name:alias", "name:v3" or "project/name:alias"; without ":…" the latest.
            type: what it must be.

        Raises:
            UsageError: it is not named so, or is of another type.
            NotFound: there is none. DamagedError: there is one, and it cannot be read.
        """
        project, artifact, which, workspace = parse_name(name, self._project)
        self._copier.wait(lambda: all(job.order.name != artifact for job in list(self._waiting.values())))
        if any(name == artifact for name, _ in list(self._books.catalog.versions)):
            self._flush()  # a record that still waits in this process cannot be read
        found = lineage.find(self._rundir.path.parent, project, artifact, which)
        if found is None:
            found = self._from_elsewhere(project, artifact, which, workspace or self._workspace)
        if type is not None and found.type != type:
            raise UsageError(f"use_artifact({name!r}): it is of type {found.type!r}, not {type!r}")
        with self._books_locked():
            self._write(
                {
                    "action": "use",
                    "project": found.project,
                    "name": found.name,
                    "version": found.version,
                    "digest": found.digest,
                    "type": found.type,
                    "run": found.made_by,
                }
            )
        return found

    def _from_elsewhere(self, project: str, name: str, which: str, workspace: str | None) -> ArtifactVersion:
        """Return what a server has. Raises NotFound, naming both places that were looked at."""
        root = self._rundir.path.parent
        here = f"there is no artifact {project}/{name}:{which} below {root}"
        try:
            found = self.elsewhere(project, name, which, workspace) if self.elsewhere is not None else None
        except NotFound as error:
            raise NotFound(f"{here}, and {error}") from None
        if found is None:
            raise NotFound(here)
        return found

    def save(
        self,
        pattern: str | os.PathLike[str],
        base_path: str | os.PathLike[str] | None = None,
        policy: str = "live",
    ) -> list[Path]:
        """Keep files as they are, under `files/saved/`; see `Run.save`.

        Raises:
            UsageError: the pattern leads out of `base_path`, or the policy is none.
        """
        paths, large = self._saving.save(pattern, base_path, policy)
        for job in large:
            self._copier.submit(job)
        return paths

    def save_strays(self) -> None:
        """Keep what a script has put into the run directory itself under `files/saved/`."""
        for job in self._saving.save_strays():
            self._copier.submit(job)

    # -- the end -------------------------------------------------------------------------------------------------------

    def finish(self, timeout: float | None = None) -> bool:
        """Wait until everything is in the run, whole and its own; what was linked is copied now.

        Called before the run's last record, and again without harm.

        Args:
            timeout: in seconds; None for as long as it takes.

        Returns:
            False where the time was not enough: what is missing then is named by a warning.
        """
        if self._is_mine():  # a signal handler that did not ask `when_free`: what it waits for may wait for it
            timeout = 0.0
        if not (self._copier.is_used or self._saving.is_waiting or self._links.any or self._books.condemned):
            return True
        settled: list[bool] = []
        self._copier.submit(lambda: self._settle(settled))  # behind all that is under way
        if not self._copier.wait(lambda: bool(settled), _SAY_AFTER if timeout is None else timeout):
            if timeout is not None:
                names = ", ".join(f"{j.order.name}:{j.begun}" for j in list(self._waiting.values())[:10])
                warn_once("artifacts incomplete", f"not copied in {timeout:.0f} s, and incomplete: {names or 'files'}")
                return False
            self._say_what_is_waited_for()
            self._copier.wait(lambda: bool(settled))
        self._copier.close()
        return True

    def _settle(self, settled: list[bool]) -> None:
        """Do what is left for the end; one file's failure costs that file. `settled` is no longer empty afterwards."""
        try:
            for task in (*self._saving.last(), *self._links.owned(self._damaged_link), self._sweep):
                try:
                    task()
                except OSError as error:
                    warn_once("artifacts at the end", f"not all artifacts could be made the run's own: {error}")
        finally:
            settled.append(True)

    def _damaged_link(self, handle: ArtifactVersion, path: str) -> None:
        reason = f"{path} was declared write-once, and has been written to"
        self._damaged(handle.name, handle.version, reason, [path], 'policy="copy" keeps files that are written again.')
        handle.give_up(reason)

    def _say_what_is_waited_for(self) -> None:
        jobs = list(self._waiting.values())
        size = sum(job.batch.size for job in jobs)
        say(f"waiting until all artifacts are in {self._rundir.path} ({len(jobs)} to go, {size / 1e9:.1f} GB).")


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as it is recorded; what has no form in JSON costs a warning each."""
    encoded, bad = encode_values(facts)
    for key, why in bad.items():
        warn_once(f"value artifact metadata {key}", f"artifact metadata: {key} is left out: {why}.")
    kept: dict[str, Any] = readable(encoded.values)
    return kept
