"""Bytes into the run: by reflink, by hard link, or copied and hashed in one go.

A reflink (FICLONE) shares the extents of a file until one side is written to: btrfs, XFS, bcachefs, some NFS and CIFS.
A copy keeps holes as holes, and goes to the disk piece by piece, so that the journal's fdatasync never waits for
gigabytes that it has nothing to do with.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from ..errors import DamagedError
from ..journal.writer import fsync_folder
from ..protocol.manifest import FileEntry
from ..stamp import Stamp
from .held import Changed, Held

BLOCK = 1 << 20
SYNC_BYTES = 64 << 20
_ZEROS = bytes(BLOCK)
_TRIES = 3
# ioctl_ficlone(2): _IOW(0x94, 9, int)
_FICLONE = 0x40049409
# What link(2) answers where it cannot, for these two files or at all; another way may do.
_CANNOT_LINK = frozenset((errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS))

Hashed = tuple[int, str]


def snapshot(held: Held) -> bytes:
    """Return a small file's content as it is now, whoever is writing to it.

    Of a file that others append to, what stood there when it was opened.

    Raises:
        Changed: it is being written over, three times in a row.
        OSError: it cannot be read.
    """
    held.hold()
    for _ in range(_TRIES):
        held.hold()
        content = _read(held.fd, held.size)
        with contextlib.suppress(Changed):
            held.check(held.fd)
            return content
        if held.size and len(content) == held.size and _read(held.fd, held.size) == content:
            return content
    raise Changed(f"{held.path} is being written to")


def _read(fd: int, size: int) -> bytes:
    """Read `size` bytes; a file that says it has none, as those of /proc do, up to a block."""
    parts, at = [], 0
    while at < (size or BLOCK) and (part := os.pread(fd, (size or BLOCK) - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def write(target: Path, content: bytes) -> Hashed:
    """Write a new file; return its size and SHA-256. It is not synced. Raises OSError."""
    with open(target, "xb", buffering=0) as file:
        _write_all(file, content)
    return len(content), hashlib.sha256(content).hexdigest()


def _write_all(file: BinaryIO, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def clone(held: Held, target: Path) -> bool:
    """Make `target` a reflink of a file as it was seen; False, and no file, where the file system cannot.

    Raises:
        Changed: the file is not what it was. OSError: it cannot be opened, or `target` not made.
    """
    with open(target, "xb") as file:
        try:
            with held.opened() as fd:
                done = reflink(fd, file.fileno())
        except BaseException:
            target.unlink()
            raise
    if not done:
        target.unlink()
    return done


def reflink(source: int, target: int) -> bool:
    """Let one open file share the other's bytes; False where the file systems cannot."""
    try:
        import fcntl
    except ImportError:  # not POSIX
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def link(held: Held, target: Path) -> bool:
    """Make `target` another name of the very file that was seen; False where that cannot be done here.

    Raises:
        Changed: another file stands at its path, or it has been written to. OSError: `target` cannot be made.
    """
    with held.opened() as fd:
        try:
            try:  # by descriptor (open(2), O_TMPFILE): neither a link nor a rename leads to another file
                os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=fd, follow_symlinks=True)
            except (FileNotFoundError, NotImplementedError):
                os.link(os.path.realpath(held.path), target)
        except FileNotFoundError:
            return False  # it has no name any more; its bytes can still be copied
        except OSError as error:
            if error.errno in _CANNOT_LINK:
                return False
            raise
        facts = target.lstat()
        if not Stamp.of(facts).is_of_same_file(held.stamp):
            target.unlink()
            raise Changed(f"{held.path} was replaced by another file")
    return True


def copy(held: Held, target: Path, *, sync: bool = True) -> Hashed:
    """Copy a file as it was seen; return size and SHA-256 of what was copied.

    Args:
        held: the file. target: a new file. sync: make it durable, too.

    Raises:
        Changed: the file has been written to before the copy was complete. OSError: reading or writing failed.
        Nothing is left at `target` then.
    """
    try:
        with open(target, "xb", buffering=0) as writing, held.opened() as fd:
            found = _copy(fd, writing, held.size)
            if sync:
                os.fsync(writing.fileno())
            return found
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def _copy(fd: int, writing: BinaryIO, size: int) -> Hashed:
    whole, at, synced = hashlib.sha256(), 0, 0
    while at < size and (block := os.pread(fd, min(BLOCK, size - at), at)):
        whole.update(block)
        if block == _ZEROS:
            writing.seek(len(block), os.SEEK_CUR)
        else:
            _write_all(writing, block)
        at += len(block)
        if at - synced >= SYNC_BYTES:
            _to_disk(writing.fileno(), synced, at - synced)
            synced = at
    writing.truncate(at)
    return at, whole.hexdigest()


def _to_disk(fd: int, offset: int, size: int) -> None:
    """Sync what has been copied, and let it not push the training's own data out of the memory."""
    os.fsync(fd)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)


def hashed(path: Path) -> Hashed:
    """Return size and SHA-256 of a file. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return hashed_file(file)


def hashed_file(file: BinaryIO) -> Hashed:
    """Return size and SHA-256 of an open file, from its beginning. Raises OSError."""
    whole, at = hashlib.sha256(), 0
    while block := os.pread(file.fileno(), BLOCK, at):
        whole.update(block)
        at += len(block)
    return at, whole.hexdigest()


def hashed_in_place(held: Held) -> Hashed:
    """Return size and SHA-256 of a file as it was seen, without copying it. Raises Changed and OSError."""
    with held.opened() as fd, open(fd, "rb", buffering=0, closefd=False) as file:
        return hashed_file(file)


def fsync(path: Path) -> None:
    """Make a file's bytes durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_folders(paths: list[Path], top: Path) -> None:
    """Make the names of files below a version's folder `top` durable, down from the run's `files/`. Raises OSError."""
    folders = {folder for path in paths for folder in path.parents if folder.is_relative_to(top)}
    for folder in folders | {top, *top.parents[:4]}:
        fsync_folder(folder)


def fetch(source: BinaryIO, entry: FileEntry, place: Path) -> None:
    """Put a copy of an open file at `place`, by reflink where possible, and only if it is what `entry` says.

    Raises:
        DamagedError: it is not. OSError: it cannot be written. What stood at `place` then still does.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=".download.", dir=place.parent)
    try:
        with open(fd, "wb", buffering=0) as file:
            if reflink(source.fileno(), fd):
                found = hashed(Path(temporary))
            else:
                found = _copy(source.fileno(), file, entry.size + 1)  # one more would show that it has grown
        if found != (entry.size, entry.sha256):
            raise DamagedError(f"{entry.path} is not what was recorded; it is not put at {place}")
        os.chmod(temporary, 0o644)  # what mkstemp made private is an ordinary file
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
