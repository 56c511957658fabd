"""A file as it was seen at the call, and the descriptor that keeps it from vanishing.

Between `log_artifact` and the end of a copy in the background a training goes on: it rotates its checkpoints away, or
writes the next one over the same path. An open descriptor outlives the first; the second shows in the size or the time
of the last change, or, where that was set back, in the inode's own change time (stamp.py).

Linux stamps a change with the time of the last timer tick, up to 10 ms ago (kernels before 6.13; fs/inode.c,
current_time). A file changed twice within one tick would look unchanged, so `settle` waits until the tick has passed,
as git does for its index ("racy git", Documentation/technical/racy-git.txt).
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..stamp import Stamp

TICK_SECONDS = 0.02
MAX_DESCRIPTORS = 256
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

_open_here: set[int] = set()


class Changed(OSError):
    """A file is no longer what it was when it was logged."""


@dataclass(slots=True)
class Held:
    """A regular file as it was seen.

    Attributes:
        path: where it was. stamp: which file it is, its size and times.
        fd: a descriptor of it, -1 while none is open.
    """

    path: str
    stamp: Stamp
    fd: int = -1

    @classmethod
    def see(cls, path: str) -> Held:
        """Look at a file, through links. Raises OSError where there is none, or it is no regular file."""
        return cls(path, _stamp(path, -1))

    @property
    def size(self) -> int:
        """In bytes."""
        return self.stamp.size

    @property
    def mtime_ns(self) -> int:
        """When its content last changed."""
        return self.stamp.mtime

    @property
    def dev(self) -> int:
        """The device that it is on."""
        return self.stamp.dev

    def hold(self) -> None:
        """Open it, and take what it is now for what it was. Raises OSError."""
        if self.fd < 0:
            self.fd = os.open(self.path, _OPEN)
            _open_here.add(self.fd)
        self.look_again()

    def look_again(self) -> None:
        """Take what it is now for what it was. Raises OSError."""
        self.stamp = _stamp(self.path, self.fd)

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Give a descriptor of this very file as it was seen, and see to it that it has not changed at the end either.

        Raises:
            Changed: it has changed, or another file stands at its path.
            OSError: it cannot be opened.
        """
        try:
            fd = os.open(self.path, _OPEN) if self.fd < 0 else self.fd
        except FileNotFoundError:
            raise Changed(f"{self.path} was deleted before it could be copied") from None
        try:
            self.check(fd)
            yield fd
            self.check(fd)
        finally:
            if fd != self.fd:
                os.close(fd)

    def check(self, fd: int) -> None:
        """Raise Changed where the file behind a descriptor is not this one as it was seen."""
        now = Stamp.of(os.fstat(fd))
        if not now.is_of_same_file(self.stamp):
            raise Changed(f"{self.path} was replaced by another file before it could be copied")
        if self.stamp.is_written_by(now, self.path):
            raise Changed(f"{self.path} was written to before it had been copied")

    def release(self) -> None:
        """Close the descriptor, if one is open."""
        fd, self.fd = self.fd, -1
        if fd in _open_here:  # not so in a forked child, where it is closed already
            _open_here.discard(fd)
            os.close(fd)


def _stamp(path: str, fd: int) -> Stamp:
    """Return the stamp of a regular file, by its descriptor where one is open. Raises OSError."""
    facts = os.fstat(fd) if fd >= 0 else os.stat(path)  # noqa: PTH116  # a hundred thousand of them
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(f"{path} is not a regular file")
    return Stamp.of(facts)


def settle(files: Iterable[Held]) -> None:
    """Wait until a change from now on will show in the files' times (see above), 20 ms at most.

    Raises:
        OSError: one of them has gone meanwhile.
    """
    now, tick = time.time_ns(), int(TICK_SECONDS * 1e9)
    fresh = [f for f in files if 0 <= now - f.mtime_ns < tick]
    if fresh:
        time.sleep((tick - (now - max(f.mtime_ns for f in fresh))) / 1e9)
        for file in fresh:
            file.look_again()


def spare_descriptors() -> int:
    """Return how many more files may be held open: a quarter of what the process may have, 256 at most."""
    try:
        import resource
    except ImportError:  # not POSIX
        most = 512
    else:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = 1 << 20 if most == resource.RLIM_INFINITY else most
    return max(0, min(MAX_DESCRIPTORS, most // 4) - len(_open_here))


def _close_in_child() -> None:
    """A child lives long, a data loader's say: it must not keep the bytes of deleted checkpoints on the disk."""
    for fd in list(_open_here):
        with contextlib.suppress(OSError):
            os.close(fd)
    _open_here.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
