"""What reading gives: runs and artifact versions, whichever source they come from."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..errors import DamagedError, NotFound, RetryableError
from ..journal.record import Record
from ..protocol.manifest import FileEntry, Reference, is_safe_path
from . import surroundings

Row = dict[str, Any]
OpenFile = Callable[[str], "contextlib.AbstractContextManager[Iterator[bytes]]"]
# Given the first file's place in the manifest and how many follow it: their bytes, one file after the other.
OpenSeveral = Callable[[int, int], "contextlib.AbstractContextManager[Iterator[bytes]]"]

THREADS = 4
_TOGETHER = 500
_TOGETHER_BYTES = 8 << 20
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as it is read.

    Attributes:
        id, project, workspace, name, group, job_type, tags, notes, host, command: who it is.
        state: running, finished, failed, preempted or crashed.
        config: its hyper-parameters. summary: the latest value of every metric.
        step: the step after the last one logged. records: how many records it has.
        started_at, updated_at, finished_at: UTC seconds; None where not known (yet).
        definitions: what `define_metric` said: dicts of name, step_metric, summary, goal, hidden.
    """

    id: str
    project: str
    workspace: str | None
    name: str
    state: str
    group: str | None
    job_type: str | None
    tags: tuple[str, ...]
    notes: str | None
    host: str | None
    command: tuple[str, ...]
    config: dict[str, Any]
    summary: dict[str, Any]
    step: int
    records: int
    started_at: float | None
    updated_at: float | None
    finished_at: float | None
    definitions: tuple[dict[str, Any], ...]
    _history: Callable[[Sequence[str] | None], Iterator[Row]] = field(repr=False)
    _media: Callable[[], list[dict[str, Any]]] = field(repr=False)
    _alerts: Callable[[], list[dict[str, Any]]] = field(repr=False)
    _records: Callable[[Sequence[str]], Iterable[tuple[str, Record]]] = field(repr=False)
    _open: OpenFile = field(repr=False)

    def history(self, metrics: Sequence[str] | None = None) -> list[Row]:
        """Return what was logged: one dict per step, in order of step.

        Args:
            metrics: only these, and only steps at which one of them was logged; None for all.

        Returns:
            Rows with `_step`, `_timestamp` (UTC seconds of the row's last record) and the metrics logged at that step.
            Where a metric was logged twice at a step, the later value.
        """
        return list(self._history(metrics))

    def scan_history(self, metrics: Sequence[str] | None = None) -> Iterator[Row]:
        """As `history`, row by row, for runs that do not fit into memory."""
        return self._history(metrics)

    def media(self) -> list[dict[str, Any]]:
        """Return the media logged: key, step, timestamp, type, path, size, sha256 and what its kind adds."""
        return self._media()

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts: title, text, level and timestamp of each, in order of time."""
        return self._alerts()

    def console(self, stream: str | None = None) -> list[str]:
        """Return what was printed, as lines, with their colours; `stream` is "stdout", "stderr" or None for both."""
        return surroundings.console(self._records(["console"]), stream)

    def system(self) -> list[dict[str, Any]]:
        """Return the machine's metrics: rows of `_timestamp`, `_host` and the values by name (docs/system.md)."""
        return surroundings.system(self._records(["run", "system"]))

    def provenance(self) -> dict[str, Any]:
        """Return where the program comes from (docs/provenance.md): command, git, packages, hardware …"""
        return surroundings.provenance(self._records(["run", "provenance"]))

    def file(self, path: str) -> bytes:
        """Return the bytes of one of the run's files, named as in `media()`. Raises NotFound."""
        with self._open(path) as parts:
            return b"".join(parts)


@dataclass(frozen=True, slots=True)
class ArtifactView:
    """An artifact version as it is read.

    Attributes:
        name, version, type, aliases, metadata, description: who it is.
        digest: its identity, over path, size and SHA-256 of its files. size: of all files together, in bytes.
        run: the id of the run that logged it. project: that of the run.
        files: its files. references: what of it lies elsewhere.
    """

    name: str
    version: str
    type: str
    aliases: tuple[str, ...]
    metadata: dict[str, Any]
    digest: str
    size: int
    run: str
    project: str
    files: tuple[FileEntry, ...]
    _open: OpenFile = field(repr=False)
    description: str | None = None
    references: tuple[Reference, ...] = ()
    _open_several: OpenSeveral | None = field(default=None, repr=False)

    def download(self, folder: str | os.PathLike[str]) -> Path:
        """Write the version's files below a folder, made if need be, and return it. Files that are there are replaced.

        What it refers to is not fetched. From a server small files come together, and four requests run at a time.

        Raises:
            DamagedError: a file is not what its manifest says; nothing of it is left behind.
            OSError: it cannot be written.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        if self._open_several is None:
            for entry in self.files:
                self._fetch(entry, target)
        else:
            self._fetch_at_once(self._open_several, target)
        return target

    def download_file(self, path: str, folder: str | os.PathLike[str]) -> Path:
        """Write one of the version's files below a folder, as `download` does, and return where it is.

        Raises:
            NotFound: the version has no such file. DamagedError, OSError: as for `download`.
        """
        entry = next((entry for entry in self.files if entry.path == path), None)
        if entry is None:
            raise NotFound(f"artifact {self.name}:{self.version} has no file {path!r}")
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        self._fetch(entry, target)
        return target / path

    def _fetch_at_once(self, several: OpenSeveral, target: Path) -> None:
        """Fetch all files in a bounded number of threads; after the first error no more is begun."""
        from concurrent.futures import ThreadPoolExecutor

        stopping = threading.Event()

        def fetch(group: range) -> None:
            if stopping.is_set():
                return
            try:
                self._fetch_stretch(group, several, target)
            except BaseException:
                stopping.set()
                raise

        with ThreadPoolExecutor(THREADS) as pool:
            tasks = [pool.submit(fetch, group) for group in _groups(self.files)]
        for task in tasks:
            task.result()

    def _fetch_stretch(self, group: range, several: OpenSeveral, target: Path) -> None:
        """Fetch files that follow one another in the manifest, again where the connection breaks."""
        for attempt in range(_ATTEMPTS):
            try:
                self._fetch_group(group, several, target)
                return
            except RetryableError:
                if attempt == _ATTEMPTS - 1:
                    raise

    def _fetch_group(self, group: range, several: OpenSeveral, target: Path) -> None:
        """Fetch them by one request; a single one, by its path."""
        if len(group) == 1:
            self._fetch(self.files[group[0]], target)
            return
        with several(group.start, len(group)) as parts:
            pieces = _Pieces(parts)
            for at in group:
                self._write(self.files[at], _taking(pieces, self.files[at].size), target)

    def _fetch(self, entry: FileEntry, target: Path) -> None:
        self._write(entry, lambda: self._open(entry.path), target)

    def _write(
        self, entry: FileEntry, opened: Callable[[], contextlib.AbstractContextManager[Iterator[bytes]]], target: Path
    ) -> None:
        if not is_safe_path(entry.path):
            raise DamagedError(f"artifact {self.name}:{self.version} names {entry.path!r}, which is no path inside it")
        place = target / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.parent.resolve().is_relative_to(target.resolve()):
            raise DamagedError(f"{place.parent} leads out of {target}; it is not written to")
        fd, temporary = tempfile.mkstemp(prefix=".download.", dir=place.parent)
        try:
            with os.fdopen(fd, "wb") as file, opened() as parts:
                self._copy(entry, parts, file)
            os.chmod(temporary, 0o644)  # what mkstemp made private is an ordinary file
            os.replace(temporary, place)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _copy(self, entry: FileEntry, parts: Iterator[bytes], file: IO[bytes]) -> None:
        whole, size = hashlib.sha256(), 0
        for part in parts:
            size += len(part)
            if size > entry.size:
                break
            whole.update(part)
            file.write(part)
        if (size, whole.hexdigest()) != (entry.size, entry.sha256):
            raise DamagedError(f"artifact {self.name}:{self.version}: {entry.path} is not what the manifest says")


class _Pieces:
    """A stream of bytes that is taken apart into files of known sizes."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._left = b""

    def take(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes; fewer where the stream ends before."""
        while size > 0:
            part = self._left or next(self._parts, b"")
            if not part:
                return
            self._left = part[size:]
            size -= min(size, len(part))
            yield part[: len(part) - len(self._left)]


def _taking(pieces: _Pieces, size: int) -> Callable[[], contextlib.AbstractContextManager[Iterator[bytes]]]:
    return lambda: contextlib.nullcontext(pieces.take(size))


def _groups(files: Sequence[FileEntry]) -> Iterator[range]:
    """Divide files into stretches of small ones that are fetched together, and large ones by themselves."""
    start = size = 0
    for at, entry in enumerate(files):
        if at > start and (size + entry.size > _TOGETHER_BYTES or at - start >= _TOGETHER):
            yield range(start, at)
            start, size = at, 0
        size += entry.size
    if start < len(files):
        yield range(start, len(files))
