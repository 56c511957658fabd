"""Bytes on their way into a run: held in memory where they are few, by an open descriptor where they are many.

What a path names can change, move or vanish between the making of a media value and `log()`. Small files are read at
once. A large one is held open, so that deletion and rotation do not reach it, and copied when it is logged; what was
written into it in the meantime is seen by its size and time, and refused: never half of one and half of another.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

from ..errors import UsageError
from ..journal.reader import open_regular
from ..stamp import Stamp

IN_MEMORY = 8 << 20
MAX_HELD = 64
_BLOCK = 1 << 20

# Without a lock: it is emptied by the garbage collector, which may strike in the midst of anything.
_held: set[int] = set()


class HeldFile:
    """A file too large for memory, as it was when this was made.

    At most 64 descriptors are held at a time, so that a table of a thousand videos does not take them from the
    training; beyond that the file is opened anew when it is copied, and must still be the same one.

    Attributes:
        size: its length in bytes.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self._stamp = Stamp.of(os.fstat(fd))
        self.size = self._stamp.size
        self._path = path
        self._fd = _hold(self, fd)

    def __deepcopy__(self, memo: object) -> HeldFile:
        return self  # the descriptor is this one's to close

    def head(self, count: int) -> bytes:
        """Return the first `count` bytes. Raises OSError."""
        with self._descriptor() as fd:
            return os.pread(fd, count, 0)

    def blocks(self) -> Iterator[bytes]:
        """Yield the content.

        Raises:
            OSError: it cannot be read, or is no longer the file it was.
        """
        with self._descriptor() as fd:
            at = 0
            while at < self.size and (block := os.pread(fd, min(_BLOCK, self.size - at), at)):
                yield block
                at += len(block)
            now = Stamp.of(os.fstat(fd))
            if at != self.size or not now.is_of_same_file(self._stamp) or self._stamp.is_written_by(now, self._path):
                raise self._changed()

    @contextlib.contextmanager
    def _descriptor(self) -> Iterator[int]:
        if self._fd is not None:
            yield self._fd
            return
        with open_regular(self._path) as file:
            if not Stamp.of(os.fstat(file.fileno())).is_of_same_file(self._stamp):
                raise self._changed()
            yield file.fileno()

    def _changed(self) -> OSError:
        return OSError(f"{self._path} has changed since it was given; log a file once it is complete")


Payload = bytes | HeldFile


def _hold(owner: HeldFile, fd: int) -> int | None:
    """Return a descriptor of our own that closes with its owner; None where enough are held already."""
    if len(_held) >= MAX_HELD:
        return None
    try:
        copy = os.dup(fd)
    except OSError:  # too many open files: the training needs them more
        return None
    _held.add(copy)
    weakref.finalize(owner, _release, copy)
    return copy


def _release(fd: int) -> None:
    _held.discard(fd)
    with contextlib.suppress(OSError):
        os.close(fd)


def head(payload: Payload, count: int) -> bytes:
    """Return the first `count` bytes of a payload. Raises OSError."""
    return payload[:count] if isinstance(payload, bytes) else payload.head(count)


def read_file(path: Path, most: int, what: str) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises:
        OSError: it is missing, no regular file, or cannot be read.
        UsageError: it is larger, or changes while it is read; `what` is what the text calls it.
    """
    with open_regular(path.resolve()) as file:
        before = Stamp.of(os.fstat(file.fileno()))
        check_size(before.size, most, what)
        content = file.read(before.size + 1)
        after = Stamp.of(os.fstat(file.fileno()))
    if len(content) != before.size or before.is_written_by(after, path):
        raise UsageError(f"{what}: it changes while it is read; log a file once it is complete")
    return content


def take_file(path: Path, most: int, what: str) -> Payload:
    """Return a file of at most `most` bytes as it is now: read where it is small, held open where it is large.

    Raises:
        OSError: it is missing, no regular file, or cannot be read.
        UsageError: it is larger, or changes while it is read; `what` is what the text calls it.
    """
    path = path.resolve()
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        check_size(size, most, what)
        if size > IN_MEMORY:
            return HeldFile(path, file.fileno())
    return read_file(path, most, what)


def check_size(size: int, most: int, what: str) -> None:
    """Raise UsageError where `size` bytes are more than `most`."""
    if size > most:
        raise UsageError(f"{what}: {size:,} bytes are more than {most >> 20} MiB; log it as an artifact")
