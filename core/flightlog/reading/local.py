"""Reading run directories on this disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .. import rundir
from ..beneath import open_beneath
from ..errors import DamagedError, NotFound
from ..journal.fold import Fold
from ..journal.scan import RunJournal
from ..protocol.manifest import MAX_MANIFEST, Manifest
from ..rundir import RunDir
from ..terminal import warn_once
from .views import ArtifactView, Row, RunView

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Found:
    """A run: all its directories below the source, and what its records add up to."""

    directories: tuple[RunDir, ...]
    fold: Fold

    @property
    def journal(self) -> RunJournal:
        return RunJournal([d.journal for d in self.directories])


class LocalSource:
    """The runs at or below a folder."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise NotFound(f"{folder} is no folder; give the `flightlog` folder, a run directory or a server's address")
        self._folder = folder.resolve()

    def runs(self, project: str | None) -> list[RunView]:
        found = [self._view(f) for f in self._all() if project is None or f.fold.project == project]
        return sorted(found, key=lambda r: (r.started_at or 0.0, r.id), reverse=True)

    def run(self, run_id: str, project: str | None) -> RunView:
        for found in self._all():
            if found.fold.id == run_id and project in (None, found.fold.project):
                return self._view(found)
        raise NotFound(f"there is no run {run_id} below {self._folder}")

    def artifact(self, project: str, name: str, which: str) -> ArtifactView:
        """Return the version: of several runs' the newest that has the alias (or the version's own name)."""
        newest: tuple[float, ArtifactView] | None = None
        for found in self._all():
            if found.fold.project == project:
                for at, view in self._versions(found, name):
                    if (which in view.aliases or which == view.version) and (newest is None or at >= newest[0]):
                        newest = (at, view)
        if newest is None:
            raise NotFound(f"there is no artifact {project}/{name}:{which} below {self._folder}")
        return newest[1]

    def _all(self) -> list[_Found]:
        by_id: dict[tuple[str, str | None], list[RunDir]] = {}
        for directory in rundir.discover(self._folder):
            key = _who(directory)
            if key is not None:
                by_id.setdefault(key, []).append(directory)
        return [found for key, directories in by_id.items() if (found := _read(directories, *key))]

    def _view(self, found: _Found) -> RunView:
        fold, identity = found.fold, found.fold.identity
        command = identity.get("command")
        return RunView(
            id=str(fold.id),
            project=str(fold.project),
            workspace=identity.get("workspace"),
            name=str(identity.get("name") or fold.id),
            state=_state(found),
            group=identity.get("group"),
            job_type=identity.get("job_type"),
            tags=tuple(fold.tags),
            notes=identity.get("notes"),
            host=identity.get("host"),
            command=tuple(str(w) for w in command) if isinstance(command, list) else (),
            config=dict(fold.config),
            summary=dict(fold.summary),
            step=fold.step,
            records=fold.records,
            started_at=fold.started_at,
            updated_at=fold.updated_at or None,
            finished_at=fold.finished_at,
            definitions=tuple(definition.data() for definition in fold.summaries.definitions),
            _history=lambda metrics: _history(found, metrics),
            _media=lambda: list(_media(found)),
            _alerts=lambda: _alerts(found),
            _records=lambda kinds: found.journal.records(frozenset(kinds)),
            _open=lambda path: _open(found, path),
        )

    def _versions(self, found: _Found, name: str) -> Iterator[tuple[float, ArtifactView]]:
        taken: dict[str, str] = {}
        views: list[tuple[float, dict[str, Any], Manifest]] = []
        for _, record in found.journal.records(frozenset({"artifact"})):
            data = record.data
            if data.get("action") != "log" or data.get("name") != name or not isinstance(data.get("manifest"), str):
                continue
            try:
                with _open(found, data["manifest"]) as parts:
                    manifest = Manifest.from_json(_bounded(parts, MAX_MANIFEST))
            except (NotFound, ValueError, OSError):
                continue
            aliases = data.get("aliases")
            for alias in aliases if isinstance(aliases, list) else []:
                taken[str(alias)] = str(data["manifest"])
            views.append((record.t, data, manifest))
        for at, data, manifest in views:
            root = str(data["manifest"]).removesuffix("manifest.json") + "files/"
            yield (
                at,
                ArtifactView(
                    name=manifest.name,
                    version=str(data.get("version")),
                    type=manifest.type,
                    aliases=tuple(sorted(a for a, m in taken.items() if m == data["manifest"])),
                    metadata=manifest.metadata,
                    digest=manifest.digest,
                    size=manifest.size,
                    run=str(found.fold.id),
                    project=str(found.fold.project),
                    files=manifest.files,
                    description=manifest.description,
                    references=manifest.references,
                    _open=lambda path, root=root: _open(found, root + path),  # type: ignore[misc]
                ),
            )


def _who(directory: RunDir) -> tuple[str, str | None] | None:
    """Return a run's id and project, from latest.spec or else from the journal; None where neither says them."""
    try:
        spec = directory.read_spec()
    except DamagedError:
        fold = RunJournal([directory.journal]).fold()
        return (fold.id, fold.project) if fold.id is not None else None
    return spec["id"], spec.get("project")


def _read(directories: Sequence[RunDir], run_id: str, project: str | None) -> _Found | None:
    """Return a run, as far as it can be read; None where nothing of it can. What cannot be is warned of."""
    journal = RunJournal([d.journal for d in directories])
    fold = journal.fold()
    for fault in journal.faults:
        warn_once(f"unreadable {fault.path}", f"{fault}; of run {run_id} this is left out.")
    if journal.faults and not fold.records:
        return None
    fold.id, fold.project = fold.id or run_id, fold.project or project
    return _Found(tuple(directories), fold)


def _state(found: _Found) -> str:
    if found.fold.state != "running":
        return found.fold.state
    for directory in found.directories:
        spec: dict[str, Any] = {}
        with contextlib.suppress(DamagedError):
            spec = directory.read_spec()
        if rundir.is_alive(directory, spec):
            return "running"
    return "preempted" if found.fold.preempting else "crashed"


def _history(found: _Found, metrics: Sequence[str] | None) -> Iterator[Row]:
    wanted = None if metrics is None else {*metrics} - {"_step", "_timestamp"}
    rows: dict[int, Row] = {}
    for _, record in found.journal.records(frozenset({"log"})):
        data = record.data if wanted is None else {k: v for k, v in record.data.items() if k in wanted}
        step = record.step or 0
        row = rows.setdefault(step, {})
        row.update(data)
        row["_step"], row["_timestamp"] = step, record.t
    for step in sorted(rows):
        row = rows[step]
        if wanted is not None and len(row) == 2:
            continue
        yield {"_step": row.pop("_step"), "_timestamp": row.pop("_timestamp"), **row}


def _media(found: _Found) -> Iterator[dict[str, Any]]:
    records = [r for _, r in found.journal.records(frozenset({"media"}))]
    for record in sorted(records, key=lambda r: (r.step or 0, r.t)):
        for key, value in record.data.items():
            for entry in value if isinstance(value, list) else [value]:
                if isinstance(entry, dict) and entry.get("type") != "part":
                    yield {**entry, "key": key, "step": record.step, "timestamp": record.t}


def _alerts(found: _Found) -> list[dict[str, Any]]:
    records = (record for _, record in found.journal.records(frozenset({"alert"})))
    return sorted(({**r.data, "timestamp": r.t} for r in records), key=lambda alert: alert["timestamp"])


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _bounded(parts: Iterator[bytes], most: int) -> bytes:
    """Return these bytes. Raises ValueError where they are too many."""
    whole = bytearray()
    for part in parts:
        whole += part
        if len(whole) > most:
            raise ValueError(f"more than {most} bytes")
    return bytes(whole)


@contextlib.contextmanager
def _open(found: _Found, path: str) -> Iterator[Iterator[bytes]]:
    for directory in found.directories:
        try:
            file = open_beneath(directory.files, path)
        except (OSError, ValueError):
            continue
        with file:
            yield _blocks(file)
            return
    raise NotFound(f"run {found.fold.id} has no file {path}")
