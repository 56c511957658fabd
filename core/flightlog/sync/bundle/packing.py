"""Packing: what of a run goes into a bundle, and the bundle written."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, cast

import zstandard

from ...beneath import open_beneath
from ...contents import Named, named_files
from ...errors import FlightlogError
from ...journal.reader import WriterReport, open_regular, read_upto, read_writer, writer_folders
from ...journal.writer import fsync_folder
from ...protocol.manifest import is_safe_path
from ...protocol.names import name_fault, random_name
from ...rundir import MAX_SPEC, SPEC, RunDir
from ..local import Identity, identify
from . import index
from .tar import Advance, ending, header, padding

_COPY = 1 << 20
_LEVEL = 3


@dataclass(slots=True)
class PackedRun:
    """A run that goes into a bundle.

    Attributes:
        directory: the run directory. identity: who it is.
        folder: its folder in the bundle.
        files: by path relative to the run directory, the bytes that are taken of it, fixed when it was looked at, so
            that a run which is still being written makes a sound bundle.
        hashes: by path, the SHA-256 that a record states.
        faults: what of it is damaged or missing, a sentence each.
    """

    directory: RunDir
    identity: Identity
    folder: str
    files: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    spec: bytes | None = None

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


def look(directory: RunDir, taken: set[str]) -> PackedRun:
    """Return what of a run goes into a bundle: latest.spec, the journal as far as it is, and the files it names.

    Args:
        directory: the run directory.
        taken: the folders that the bundle has already; this run's is added.

    Raises:
        DamagedError: neither latest.spec nor the journal says which run this is.
        OSError: it cannot be looked into.
    """
    run = PackedRun(directory, identify(directory), _folder_for(directory, taken))
    with contextlib.suppress(OSError), open_regular(directory.spec_path) as file:
        spec = read_upto(file, MAX_SPEC + 1)
        if len(spec) <= MAX_SPEC:
            run.spec, run.files[SPEC] = spec, len(spec)
    named = Named()
    sizes = directory.journal_sizes()
    for folder in writer_folders(directory.journal):
        if not is_safe_path(f"files/journal/{folder.name}"):
            run.faults.append(f"{folder} has a name that no writer has; it is left out")
            continue
        report = WriterReport(folder.name)
        for line in read_writer(folder, report, sizes.get(folder.name, {})):
            named.add(line)
        run.faults.extend(str(damage) for damage in report.damage)
        run.files.update({f"files/journal/{folder.name}/{name}": n for name, n in sizes.get(folder.name, {}).items()})
    entries, _, faults = named_files(directory, named)
    run.faults.extend(faults)
    for path, entry in entries.items():
        try:
            with open_beneath(directory.files, path) as file:
                size = os.fstat(file.fileno()).st_size
        except OSError as error:
            run.faults.append(f"{directory.files / path}: {error.strerror or error}")
            continue
        if size != entry.size:
            run.faults.append(f"{directory.files / path} is not what was recorded: it has changed since")
            continue
        run.files[f"files/{path}"], run.hashes[f"files/{path}"] = size, entry.sha256
    return run


def _folder_for(directory: RunDir, taken: set[str]) -> str:
    """Return a name for a run's folder in the bundle: its own, unless that is taken or not known to all systems."""
    wish = directory.path.name
    if name_fault(wish) is not None or wish in (index.INDEX, "files"):
        wish = f"run-{hashlib.sha256(os.fsencode(directory.path)).hexdigest()[:12]}"
    name, number = wish, 2
    while name in taken:
        name, number = f"{wish}.{number}", number + 1
    taken.add(name)
    return name


def write(runs: Sequence[PackedRun], out: IO[bytes], advance: Advance = lambda size: None) -> None:
    """Write a bundle of these runs. Memory does not grow with them.

    A file that has become shorter since it was looked at is filled up with zeros, and one that no longer is what was
    recorded goes in as it is; both become faults of their run, and whoever delivers the bundle finds them as well.

    Args:
        runs: the runs, as `look` has returned them.
        out: where to; it need not be seekable.
        advance: told the bytes of content as they are written.

    Raises:
        OSError: it cannot be written.
    """
    archive = _Writer(out, advance)
    entries = [index.entry(run.identity, run.folder, len(run.files), run.bytes) for run in runs]
    archive.add_bytes(index.INDEX, index.dump(entries))
    for run in runs:
        for path in sorted(run.files, key=_order):
            if path == SPEC:
                assert run.spec is not None
                archive.add_bytes(f"{run.folder}/{path}", run.spec)
            else:
                _write_file(run, path, archive)
    archive.end()


def _order(path: str) -> tuple[int, bytes]:
    rank = 0 if path == SPEC else 1 if path.startswith("files/journal/") else 2
    return rank, path.encode("utf-8", "surrogateescape")


def _write_file(run: PackedRun, path: str, archive: _Writer) -> None:
    where = run.directory.path / path
    size, whole, written = run.files[path], hashlib.sha256(), 0
    try:
        file: BinaryIO | None = open_beneath(run.directory.path, path)
    except OSError as error:
        file = None
        run.faults.append(f"{where}: {error.strerror or error}")
    mtime = os.fstat(file.fileno()).st_mtime if file else 0.0
    archive.begin(f"{run.folder}/{path}", size, mtime)
    with file or contextlib.nullcontext():
        while file and written < size:
            try:
                block = file.read(min(_COPY, size - written))
            except OSError as error:
                run.faults.append(f"{where}: {error.strerror or error}")
                break
            if not block:
                run.faults.append(f"{where} has become shorter while it was packed")
                break
            whole.update(block)
            archive.put(block)
            written += len(block)
    while written < size:
        block = bytes(min(_COPY, size - written))
        archive.put(block)
        written += len(block)
        whole.update(block)
    archive.close(size)
    wanted = run.hashes.get(path)
    if file and wanted is not None and whole.hexdigest() != wanted:
        run.faults.append(f"{where} is not what was recorded: it has changed since")


class _Writer:
    """Writes the members of a tar one after the other."""

    def __init__(self, out: IO[bytes], advance: Advance) -> None:
        self._out = out
        self._advance = advance
        self._size = 0

    def add_bytes(self, name: str, content: bytes) -> None:
        self.begin(name, len(content), 0.0)
        self.put(content)
        self.close(len(content))

    def begin(self, name: str, size: int, mtime: float) -> None:
        self._write(header(name, size, mtime))

    def put(self, block: bytes) -> None:
        self._write(block)
        self._advance(len(block))

    def close(self, size: int) -> None:
        self._write(padding(size))

    def end(self) -> None:
        self._write(ending(self._size))

    def _write(self, block: bytes) -> None:
        self._out.write(block)
        self._size += len(block)


@contextlib.contextmanager
def opened_for_writing(path: Path, *, replace: bool = False) -> Iterator[IO[bytes]]:
    """Give a file that stands at `path` only once it is whole and on the disk; compressed where its name ends in .zst.

    A pipe or device that stands there already is written to as it is.

    Args:
        path: where it goes.
        replace: it may take the place of a file that is there.

    Raises:
        FlightlogError: a file is there already. OSError: it cannot be written; nothing is left behind.
    """
    if path.exists() and not path.is_file():
        with open(path, "wb") as pipe, compressed(pipe, path.name) as out:
            yield out
        return
    if path.exists() and not replace:
        raise FlightlogError(f"{path} is there already; --force replaces it")
    temporary = path.parent / f".{path.name[:100]}.{random_name(40)}"
    try:
        with open(temporary, "xb") as file:
            with compressed(file, path.name) as out:
                yield out
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    with contextlib.suppress(OSError):
        fsync_folder(path.parent)


@contextlib.contextmanager
def compressed(out: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Give a stream that goes into `out`, compressed where the name ends in .zst."""
    if not name.endswith(".zst"):
        yield out
        return
    with zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).stream_writer(out, closefd=False) as packed:
        yield cast("IO[bytes]", packed)
