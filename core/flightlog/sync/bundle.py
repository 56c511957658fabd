"""Bundles: one tar of run directories, for machines that never see a network (docs/bundles.md).

The same runs make the same bundle, byte for byte. Its first member is a list of what follows. Whoever unpacks one may
not know who made it: nothing is ever made outside of the folder, and whatever is unreasonable is refused.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import orjson
import zstandard

from .. import rundir
from ..beneath import open_beneath
from ..contents import Named, named_files
from ..errors import DamagedError, FlightlogError, NotFound
from ..journal.reader import WriterReport, open_regular, read_writer, writer_folders
from ..journal.writer import fsync_folder
from ..protocol.manifest import is_safe_path
from ..protocol.names import name_fault, random_name
from ..rundir import MAX_SPEC, SPEC, RunDir
from .local import Identity, identify
from .tar import BLOCK, Member, TarReader, ending, header, padding

INDEX = "flightlog-bundle.json"
FORMAT = 1
_COPY = 1 << 20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_PACKERS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip"}
_MAX_INDEX = 64 << 20
_LEVEL = 3
_PLACE = "unpacked-runs"

Advance = Callable[[int], None]


# -- packing -----------------------------------------------------------------------------------------------------------


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
        spec = file.read(MAX_SPEC + 1)
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
    if name_fault(wish) is not None or wish in (INDEX, "files"):
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
    index = {"format": FORMAT, "kind": "flightlog-bundle", "runs": [_shown(run) for run in runs]}
    content = orjson.dumps(index, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    archive.add_bytes(INDEX, content)
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


def _shown(run: PackedRun) -> dict[str, Any]:
    return {
        "folder": run.folder,
        "id": run.identity.id,
        "project": run.identity.project,
        "workspace": run.identity.workspace,
        "name": run.identity.name,
        "files": len(run.files),
        "bytes": run.bytes,
    }


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


# -- unpacking ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a bundle may come to.

    Attributes:
        entries: the most files and folders. names: the most bytes of all their paths.
        depth: the most folders one inside the other.
        ratio, base: of a compressed one, the most bytes: `base`, and `ratio` times its own size.
        reserve: bytes that stay free on the disk.
    """

    entries: int = 2_000_000
    names: int = 256 << 20
    depth: int = 64
    ratio: int = 200
    base: int = 4 << 30
    reserve: int = 64 << 20


def is_bundle(path: Path) -> bool:
    """Tell whether a path is to be taken for a bundle: a file that is no latest.spec and is, or is called, a tar."""
    if not os.path.isfile(path) or path.name == SPEC:  # noqa: PTH113  # Path.is_file may raise
        return False
    if {".tar", ".tzst", ".tgz"}.intersection(path.suffixes):
        return True  # also those of a kind that is not read, which is told when it is opened
    with contextlib.suppress(OSError), open_regular(path) as file:
        return file.read(BLOCK)[257:262] == b"ustar"
    return False


@contextlib.contextmanager
def _reader(path: Path) -> Iterator[tuple[TarReader, int | None]]:
    """Give a bundle's reader, and its size on the disk where it is compressed."""
    with open_regular(path) as file:
        head = file.read(8)
        file.seek(0)
        for magic, what in _PACKERS.items():
            if head.startswith(magic):
                raise DamagedError(f"{path} is compressed with {what}; only tar and tar.zst are read: unpack it first")
        if not head.startswith(_ZSTD_MAGIC):
            yield TarReader(file, str(path)), None
            return
        size = os.fstat(file.fileno()).st_size
        try:
            with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False) as stream:
                yield TarReader(cast("IO[bytes]", stream), str(path)), size
        except zstandard.ZstdError as error:
            raise DamagedError(f"{path} cannot be decompressed: {error}; copy it again") from None


@contextlib.contextmanager
def unpacked(path: Path, bounds: Bounds | None = None, advance: Advance = lambda size: None) -> Iterator[list[RunDir]]:
    """Unpack a bundle into a folder that is gone afterwards, and give the run directories in it.

    The folder is made in $TMPDIR, or without that beside the bundle, or in the system's temporary folder.

    Args:
        path: the bundle. bounds: what it may come to.
        advance: told the bytes of content as they are unpacked.

    Raises:
        DamagedError: the bundle is cut off, damaged, or holds what a bundle may not hold; nothing of it is used.
        NotFound: there is no run in it.
        OSError: it cannot be read, or there is no room for it.
    """
    with _temporary_folder(path) as folder:
        place = folder / _PLACE
        place.mkdir()
        limits = bounds or Bounds()
        _unpack(path, place, limits, advance)
        found = list(rundir.discover(place, limits.depth, limits.entries))
        if not found:
            raise NotFound(f"{path} holds no run")
        for directory in found:  # what it says that a server has, is somebody's word
            directory.sync_path.unlink(missing_ok=True)
        yield found


def place_of(runs: Sequence[RunDir]) -> Path:
    """Return the folder that `unpacked` has put these runs into."""
    return next(parent for parent in runs[0].path.parents if parent.name == _PLACE)


def _unpack(path: Path, place: Path, bounds: Bounds, advance: Advance) -> None:
    with _reader(path) as (archive, size):
        unpacking = _Unpacking(path, place, bounds, size)
        index: bytes | None = None
        for member in archive.members():
            if member.name == INDEX:
                if index is not None or member.size > _MAX_INDEX:
                    raise DamagedError(f"{path}: {INDEX}: stands there twice, or is beyond all bounds")
                index = b"".join(iter(archive.read, b""))
                continue
            unpacking.take(member, archive, advance)
    if index is not None:
        _compare(path, place, _read_index(path, index))


class _Unpacking:
    """Makes the files of one bundle in a fresh folder that holds no links, so that no path leads out of it."""

    def __init__(self, path: Path, place: Path, bounds: Bounds, compressed_size: int | None) -> None:
        self._path = path
        self._place = place
        self._bounds = bounds
        self._room = None if compressed_size is None else bounds.base + bounds.ratio * compressed_size
        self._folders: set[str] = {""}
        self._entries = self._names = 0
        self._bytes = 0

    def take(self, member: Member, archive: TarReader, advance: Advance) -> None:
        """Unpack a member. Raises DamagedError, OSError."""
        if member.name.count("/") >= self._bounds.depth:
            raise self._fault(member, f"lies deeper than {self._bounds.depth} folders")
        if member.is_folder:
            if member.name != ".":
                self._make_folder(member, member.name)
            return
        self._make_folder(member, member.name.rpartition("/")[0])
        self._count(member, member.name)
        self._bytes += member.size
        if self._room is not None and self._bytes > self._room:
            why = f"with it, the bundle unpacks to more than {self._room:,} bytes, far more than its size suggests"
            raise self._fault(member, f"{why}; decompress it yourself if you trust it (zstd -d)")
        if member.size > shutil.disk_usage(self._place).free - self._bounds.reserve:
            raise self._fault(member, f"there is no room for it in {self._place.parent.parent}; set TMPDIR")
        self._write(member, archive, advance)

    def _write(self, member: Member, archive: TarReader, advance: Advance) -> None:
        target = self._place / member.name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            fd = os.open(target, flags, 0o600)
        except OSError as error:
            raise self._refused(member, error) from None
        with os.fdopen(fd, "wb") as file:
            while block := archive.read():
                file.write(block)
                advance(len(block))
        # By the time of its last growth a run is known to be alive, or not.
        os.utime(target, (member.mtime, member.mtime))

    def _make_folder(self, member: Member, path: str) -> None:
        if path in self._folders:
            return
        self._make_folder(member, path.rpartition("/")[0])
        self._count(member, path)
        try:
            (self._place / path).mkdir(mode=0o700)
        except OSError as error:
            raise self._refused(member, error) from None
        self._folders.add(path)

    def _count(self, member: Member, path: str) -> None:
        self._entries += 1
        self._names += len(path)
        if self._entries > self._bounds.entries or self._names > self._bounds.names:
            raise self._fault(member, f"with it, the bundle holds more than {self._bounds.entries:,} files and folders")

    def _refused(self, member: Member, error: OSError) -> Exception:
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            return self._fault(member, "stands there twice, or is both a file and a folder")
        return error

    def _fault(self, member: Member, why: str) -> DamagedError:
        return DamagedError(f"{self._path}: {member.name[:300]}: {why}")


def _read_index(path: Path, content: bytes) -> list[dict[str, Any]]:
    """Return the runs that a bundle's list names. Raises DamagedError."""
    try:
        index = orjson.loads(content)
        if not (
            isinstance(index, dict) and index.get("kind") == "flightlog-bundle" and isinstance(index["runs"], list)
        ):
            raise ValueError("it is no list of runs")
        if index.get("format") != FORMAT:
            raise DamagedError(f"{path} is a bundle of format {index.get('format')!r}; update flightlog")
        for run in index["runs"]:
            if any(name_fault(run[key]) is not None for key in ("folder", "id", "project")):
                raise ValueError("a run in it has a name that cannot be")
            if type(run["files"]) is not int or type(run["bytes"]) is not int:
                raise ValueError("a run in it has no size")
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path}: {INDEX} makes no sense: {error}") from None
    found: list[dict[str, Any]] = index["runs"]
    return found


def _compare(path: Path, place: Path, runs: list[dict[str, Any]]) -> None:
    """Hold what was unpacked against the list. Raises DamagedError."""
    for run in runs:
        files = size = 0
        for folder, _, names in os.walk(place / run["folder"]):
            files += len(names)
            size += sum((Path(folder) / name).lstat().st_size for name in names)
        if (files, size) != (run["files"], run["bytes"]):
            raise DamagedError(
                f"{path}: {run['folder']} has {files:,} files of {size:,} bytes; {INDEX} says {run['files']:,} of "
                f"{run['bytes']:,}: pack it again"
            )


@contextlib.contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Give a folder that is removed afterwards; those that killed processes have left are removed first."""
    beside = path.absolute().parent
    places = [Path(tempfile.gettempdir())] if os.environ.get("TMPDIR") else [beside, Path(tempfile.gettempdir())]
    prefix = f".{path.name[:60]}.unpacked-"
    for place in places:
        _sweep(place, prefix)
        try:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        except OSError:
            if place is places[-1]:
                raise
            continue
        with (folder / "lock").open("xb") as lock:
            _locked(lock.fileno())
            try:
                yield folder
            finally:
                _remove(folder)
        return


def _sweep(place: Path, prefix: str) -> None:
    """Remove the folders of processes that were killed: those whose lock nobody holds."""
    with contextlib.suppress(OSError):
        for folder in place.iterdir():
            if not folder.name.startswith(prefix) or folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            with contextlib.suppress(OSError):
                lock = os.open(folder / "lock", os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
                if _locked(lock):
                    _remove(folder)
                os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a temporary folder, its lock last: where this is interrupted, too, the next sweep finds it."""
    shutil.rmtree(folder / _PLACE, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _locked(fd: int) -> bool:
    """Take a lock that ends with its process; False where another holds it, or there are none here."""
    try:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def identities(path: Path) -> list[Identity]:
    """Return who the runs of a bundle are: from its list, or, where it has none, by unpacking it.

    Raises:
        DamagedError, NotFound, OSError: as `unpacked` does.
    """
    with _reader(path) as (archive, _):
        first = next(archive.members(), None)
        if first is not None and first.name == INDEX and first.size <= _MAX_INDEX:
            runs = _read_index(path, b"".join(iter(archive.read, b"")))
            return [_identity(run) for run in runs]
    with unpacked(path) as found:
        return [identify(directory) for directory in found]


def _identity(run: dict[str, Any]) -> Identity:
    workspace = run.get("workspace")
    return Identity(
        id=run["id"],
        project=run["project"],
        workspace=workspace if name_fault(workspace) is None else None,
        name=str(run.get("name") or run["id"])[:200],
        state="finished",
        started_at=0.0,
    )
