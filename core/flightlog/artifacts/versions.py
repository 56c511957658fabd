"""ArtifactVersion: the handle of a version, as `log_artifact` and `use_artifact` return it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ..beneath import open_beneath
from ..errors import DamagedError, NotFound, UsageError
from ..journal.reader import open_regular
from ..protocol.manifest import MAX_MANIFEST, FileEntry, Manifest, Reference, is_safe_path
from ..protocol.names import checked_name, name_fault, random_name
from ..terminal import warn_once
from . import copying
from .catalog import COPYING, DAMAGED, LOGGED, PRUNED

_VERSION = re.compile(r"v[0-9]{1,9}")


class ArtifactVersion:
    """A version of an artifact: logged by this run, or found by `use_artifact`.

    `log_artifact` returns it at once; large files are still being copied then, and `state` is "copying".

    Attributes:
        name, type, description, metadata: who it is.
        project, made_by: the project, and the id of the run that logged it.
        size: the bytes of all its files.
    """

    def __init__(
        self,
        name: str,
        version: str,
        path: Path,
        *,
        type: str,
        project: str,
        made_by: str,
        size: int,
        aliases: tuple[str, ...],
        metadata: dict[str, Any],
        description: str | None = None,
        digest: str = "",
        wait: Callable[[Callable[[], bool], float | None], bool] | None = None,
    ) -> None:
        self.name = name
        self.type = type
        self.project = project
        self.made_by = made_by
        self.size = size
        self.metadata = metadata
        self.description = description
        self._version = version
        self._path = path
        self._aliases = aliases
        self._digest = digest
        self._state = LOGGED if digest else COPYING
        self._reason = ""
        self._wait = wait
        self._pid = os.getpid()

    @property
    def version(self) -> str:
        """v0, v1 …, as this run counts. While it is being copied, the number it was begun with.

        Content that the run has already turns out to be the version that it was the first time.
        """
        return self._version

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases it was given, `latest` first."""
        return self._aliases

    @property
    def state(self) -> str:
        """copying, logged, damaged (see `reason`), or pruned: a rule has let its files go."""
        if self._state == LOGGED and not (self._path / "manifest.json").exists():
            return PRUNED
        return self._state

    @property
    def reason(self) -> str:
        """Why it is damaged; "" where it is not."""
        return self._reason

    @property
    def path(self) -> Path:
        """Its folder inside the run directory."""
        return self._path

    @property
    def files(self) -> Path:
        """The folder that holds its files. They are the run's own: read them, or `download()` them to change them."""
        return self._path / "files"

    @property
    def digest(self) -> str:
        """Its identity, over the path, size and SHA-256 of its files; waits for it. "" where it is damaged."""
        self.wait()
        return self._digest

    @property
    def manifest(self) -> Manifest:
        """What it is made of; waits for it.

        Raises:
            NotFound: its files were let go. DamagedError: it is damaged.
        """
        self._must_be_whole()
        where = self._path / "manifest.json"
        try:
            with open_regular(where) as file:
                manifest = Manifest.from_json(file.read(MAX_MANIFEST + 1))
        except (OSError, ValueError) as error:
            raise DamagedError(f"{where}: {error}") from None
        if manifest.digest != self._digest:
            raise DamagedError(f"{where} is not the manifest that was recorded")
        return manifest

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """Path, size and SHA-256 of its files; waits, and raises as `manifest`."""
        return self.manifest.files

    @property
    def references(self) -> tuple[Reference, ...]:
        """What of it lies elsewhere; waits, and raises as `manifest`."""
        return self.manifest.references

    def wait(self, timeout: float | None = None) -> ArtifactVersion:
        """Wait until it has been copied, or was found damaged; `state` says which.

        Args:
            timeout: in seconds; when they have passed, `state` is still "copying".

        Raises:
            UsageError: another process is copying it, of which this one is a fork.
        """
        if self._state == COPYING and self._wait is not None:
            if os.getpid() != self._pid:
                raise UsageError(f"{self}: process {self._pid} is copying it; wait there")
            self._wait(lambda: self._state != COPYING, timeout)
        return self

    def verify(self) -> None:
        """Read all its files, and compare them with its manifest.

        Raises:
            DamagedError: one is missing, or not what was logged: the first is named. NotFound: it was let go.
        """
        for entry in self.entries:
            try:
                with open_beneath(self.files, entry.path) as file:
                    found = copying.hashed_file(file)
            except OSError as error:
                raise DamagedError(f"{self}: {self.files / entry.path}: {error.strerror or error}") from None
            if found != (entry.size, entry.sha256):
                raise DamagedError(f"{self}: {self.files / entry.path} is not what was logged")

    def get(self, name: str) -> Any:
        """Return a Table, Image or other medium that `Artifact.add` put in under a name; None where there is none.

        Raises as `file` does; DamagedError also where a table is none.
        """
        from .contained import read_media

        return read_media(name, [entry.path for entry in self.entries], self.file)

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def get_path(self, name: str) -> ArtifactFile:
        """Return one of its files by name: `version.get_path("model.pt").download()`. Raises as `file` does."""
        return ArtifactFile(self, self._entry(name))

    def get_entry(self, name: str) -> ArtifactFile:
        """Return the same as `get_path`."""
        return self.get_path(name)

    def download(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        **others: object,
    ) -> Path:
        """Put a copy of its files below a folder, made if need be, and return that. What stood there is replaced.

        What it refers to is copied too where it is a file on this machine; the rest is named in one warning.

        Args:
            folder: without it, `artifacts/<name>-<version>` in the working directory. `root` means the same.
            others: what wandb's takes besides, which has no meaning here.

        Raises:
            DamagedError: a file is not what was logged; the others have been copied up to there.
            NotFound: it was let go. OSError: the folder cannot be written.
        """
        manifest = self.manifest
        place = self._target(folder if root is None else root)
        for entry in manifest.files:
            self._fetch(entry, place)
        self._fetch_references(manifest, place)
        return place

    def download_file(self, name: str, folder: str | os.PathLike[str] | None = None) -> Path:
        """Put a copy of one of its files below a folder, as `download` does, and return its path."""
        entry = self._entry(name)
        place = self._target(folder)
        path = self.file(name)
        with open_regular(path.resolve()) as file:
            copying.fetch(file, entry, _inside(place, entry.path))
        return place / entry.path

    def _target(self, folder: str | os.PathLike[str] | None) -> Path:
        place = Path("artifacts", f"{self.name}-{self.version}") if folder is None else Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _fetch_references(self, manifest: Manifest, place: Path) -> None:
        elsewhere = [r for r in manifest.references if not _fetch_local(r, place)]
        if elsewhere:
            uris = ", ".join(r.uri for r in elsewhere[:3])
            warn_once(f"reference {self}", f"{self}: {len(elsewhere)} parts are only referred to, and stay at {uris}")

    def _fetch(self, entry: FileEntry, place: Path) -> None:
        try:
            file = open_beneath(self.files, entry.path)
        except OSError as error:
            raise DamagedError(f"{self}: {self.files / entry.path}: {error.strerror or error}") from None
        with file:
            copying.fetch(file, entry, _inside(place, entry.path))

    def file(self, name: str | None = None) -> Path:
        """Return the path of one of its files, to be read: `torch.load(version.file())`.

        Args:
            name: which; without it, the only one.

        Raises:
            UsageError: it has several. NotFound: it has none of that name. DamagedError: it is damaged.
        """
        return self.files / self._entry(name).path

    def _entry(self, name: str | None) -> FileEntry:
        entries = {entry.path: entry for entry in self.entries}
        if name is None and len(entries) != 1:
            raise UsageError(f"{self} has {len(entries)} files; file(name) says which")
        found = next(iter(entries.values())) if name is None else entries.get(name)
        if found is None:
            raise NotFound(f"{self} has no file {name!r}")
        return found

    def _must_be_whole(self) -> None:
        self.wait()
        if self.state == DAMAGED:
            raise DamagedError(f"{self} is damaged: {self._reason}")
        if self.state == PRUNED:
            raise NotFound(f"{self}: its files were let go (keep_last=, keep_best=), or deleted")

    def settle(self, version: str, path: Path, digest: str, aliases: tuple[str, ...]) -> None:
        """Say that it is whole, and which version it turned out to be; the recorder does so."""
        self._version, self._path, self._digest, self._aliases = version, path, digest, aliases
        self._state = LOGGED

    def give_up(self, reason: str) -> None:
        """Say that it is damaged; the recorder does so."""
        self._reason = reason
        self._state = DAMAGED

    def __str__(self) -> str:
        return f"artifact {self.name}:{self.version}"

    def __repr__(self) -> str:
        return f"<flightlog artifact {self.project}/{self.name}:{self.version}, {self.type}, {self.state}>"


class ArtifactFile:
    """One file of a version.

    Attributes:
        path: its name inside the artifact. size: in bytes. sha256: of its content; `digest` is the same.
    """

    def __init__(self, version: ArtifactVersion, entry: FileEntry) -> None:
        self._version = version
        self.path = entry.path
        self.size = entry.size
        self.sha256 = self.digest = entry.sha256

    def download(self, root: str | os.PathLike[str] | None = None, **others: object) -> str:
        """Put a copy of it below a folder, and return its path; raises as `ArtifactVersion.download` does.

        Args:
            root: the folder; without it, `artifacts/<name>-<version>` in the working directory.
            others: what wandb's takes besides, which has no meaning here.
        """
        return str(self._version.download_file(self.path, root))

    def local_path(self) -> str:
        """Return where it lies in the run, to be read."""
        return str(self._version.file(self.path))


def _inside(folder: Path, path: str) -> Path:
    """Return where a file goes below a folder. Raises DamagedError where a link there leads out."""
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.parent.resolve().is_relative_to(folder.resolve()):
        raise DamagedError(f"{place.parent} leads out of {folder}; it is not written to")
    return place


def _fetch_local(there: Reference, place: Path) -> bool:
    """Copy what a file: address names; False where it names no file here, or nothing that could be checked."""
    address = urlsplit(there.uri)
    if address.scheme != "file" or address.netloc not in ("", "localhost") or not (there.sha256 and there.size >= 0):
        return False
    source = Path(unquote(address.path))
    if not source.is_file() or not is_safe_path(there.path):
        return False
    with open(source, "rb") as file:
        copying.fetch(file, FileEntry(there.path, there.size, there.sha256), _inside(place, there.path))
    return True


def checked_aliases(aliases: object) -> tuple[str, ...]:
    """Return aliases without repetition, `latest` first. Raises UsageError where one cannot be an alias."""
    if aliases is None:
        aliases = ()
    if not isinstance(aliases, str | Iterable):
        raise UsageError(f"aliases={aliases!r}: a name, or several")
    given = [aliases] if isinstance(aliases, str) else list(aliases)
    for alias in given:
        checked_name("alias", alias)
        if _VERSION.fullmatch(alias):
            raise UsageError(f"alias {alias!r}: v0, v1 … are the versions' own names")
    return tuple(dict.fromkeys(["latest", *given]))


def name_from_path(path: Path) -> str:
    """Return an artifact name for a file or folder that was logged without one."""
    try:
        stem = path.resolve().stem
    except (OSError, ValueError, RuntimeError):  # a NUL, links in a circle: there is nothing at it, which is said later
        stem = ""
    name = re.sub(r"[^\w.+ -]", "_", stem).strip().lstrip(".~-")[:100]
    return name if name_fault(name) is None else "artifact"


class Name(NamedTuple):
    """What `use_artifact` is asked for; `which` is an alias or a version, `workspace` matters on a server only."""

    project: str
    artifact: str
    which: str
    workspace: str | None


def parse_name(name: object, project: str) -> Name:
    """Read "name", "name:alias", "project/name:alias" or "workspace/project/name:alias".

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(name, str) and name.count("/") <= 2:
        *before, last = name.split("/")
        artifact, colon, which = last.partition(":")
        found = Name(
            before[-1] if before else project,
            artifact,
            which if colon else "latest",
            before[0] if len(before) == 2 else None,
        )
        if all(name_fault(part) is None for part in (*found[:3], *before)):
            return found
    raise UsageError(f'use_artifact({name!r}): it is named as "name:alias" or "project/name:alias"')


def next_version(home: Path, others: Iterable[str], *, apart: bool) -> tuple[str, Path]:
    """Take the number of an artifact's next version; return its name and its folder, made and empty.

    Args:
        home: the folder of the artifact's versions. others: versions that the run has in other directories.
        apart: the run may have other directories that cannot be seen from here, with a version of this number: the
            folder gets a name that no other has, so that they can lie side by side on a server.

    Raises:
        OSError: it cannot be made.
    """
    home.mkdir(parents=True, exist_ok=True)
    names = [*(p.name for p in home.iterdir()), *others]
    number = max((int(name[1:]) for name in names if _VERSION.fullmatch(name)), default=-1) + 1
    while True:  # another writer of the same run may take a number at the same moment
        folder = home / f"v{number}"
        try:
            folder.mkdir()
            break
        except FileExistsError:
            number += 1
    inner = folder / random_name(40) if apart else folder
    inner.mkdir(exist_ok=True)
    return folder.name, inner


def give_back(folder: Path, home: Path) -> None:
    """Delete a version's empty folder, and with it its number, which no record names."""
    with contextlib.suppress(OSError):
        for each in (folder, *folder.parents):
            if each == home:
                return
            each.rmdir()
