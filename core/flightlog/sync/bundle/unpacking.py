"""Unpacking: a bundle of anybody's made into run directories, inside a folder that is gone afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from ... import rundir
from ...errors import DamagedError, NotFound
from ...journal.reader import open_regular
from ...rundir import SPEC, RunDir
from ..local import Identity, identify
from . import index
from .scratch import PLACE, temporary_folder
from .tar import BLOCK, Advance, Member, TarReader

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_PACKERS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip"}


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
    with temporary_folder(path) as place:
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
    return next(parent for parent in runs[0].path.parents if parent.name == PLACE)


def _unpack(path: Path, place: Path, bounds: Bounds, advance: Advance) -> None:
    with _reader(path) as (archive, size):
        unpacking = _Unpacking(path, place, bounds, size)
        listed: bytes | None = None
        for member in archive.members():
            if member.name == index.INDEX:
                if listed is not None or member.size > index.MAX_INDEX:
                    raise DamagedError(f"{path}: {index.INDEX}: stands there twice, or is beyond all bounds")
                listed = b"".join(iter(archive.read, b""))
                continue
            unpacking.take(member, archive, advance)
    if listed is not None:
        _compare(path, place, index.read(path, listed))


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


def _compare(path: Path, place: Path, runs: list[dict[str, Any]]) -> None:
    """Hold what was unpacked against the list. Raises DamagedError."""
    for run in runs:
        files = size = 0
        for folder, _, names in os.walk(place / run["folder"]):
            files += len(names)
            size += sum((Path(folder) / name).lstat().st_size for name in names)
        if (files, size) != (run["files"], run["bytes"]):
            raise DamagedError(
                f"{path}: {run['folder']} has {files:,} files of {size:,} bytes; {index.INDEX} says "
                f"{run['files']:,} of {run['bytes']:,}: pack it again"
            )


def identities(path: Path) -> list[Identity]:
    """Return who the runs of a bundle are: from its list, or, where it has none, by unpacking it.

    Raises:
        DamagedError, NotFound, OSError: as `unpacked` does.
    """
    with _reader(path) as (archive, _):
        first = next(archive.members(), None)
        if first is not None and first.name == index.INDEX and first.size <= index.MAX_INDEX:
            runs = index.read(path, b"".join(iter(archive.read, b"")))
            return [index.identity_of(run) for run in runs]
    with unpacked(path) as found:
        return [identify(directory) for directory in found]
