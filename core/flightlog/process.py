"""Telling processes apart: a pid alone is given again, and means another process in another container."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol


def at_child_exit(action: Callable[[], object]) -> None:
    """Call a function when this process ends as a child of `multiprocessing`, which knows no atexit."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, action, exitpriority=10)


class ForkAware(Protocol):
    """What must know that it is a forked child's copy now: locks that it holds may be held for ever."""

    def after_fork(self) -> None:
        """Called in the child, before anything else runs there."""


_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def tell_of_forks(what: ForkAware) -> None:
    """Call `what.after_fork()` in every child that is forked from now on, as long as `what` lives."""
    _aware.add(what)


def _after_fork() -> None:
    for what in list(_aware):
        what.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def hostname() -> str:
    """Return this machine's name, as socket.gethostname() does."""
    return os.uname().nodename  # the module `socket` costs 4 ms of import


def own_start() -> float | None:
    """Return when this process started, in UTC seconds; None where the system does not say."""
    # /proc directly: psutil costs 15 ms of import, and its create_time() is this very sum. proc(5), field 22.
    try:
        after_name = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_bytes().splitlines() if line.startswith(b"btime"))
        return int(boot.split()[1]) + int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def birth_of(pid: int) -> list[str]:
    """Return what tells a process from all others that had or will have its number on this machine; as far as known."""
    found = []
    with contextlib.suppress(OSError):
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError, IndexError):
        found.append(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode())
    return found


def start_of(pid: int) -> float | None:
    """Return when a process of this machine started, which tells it from a later one with its number; None if none."""
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return float(process.create_time())
    return None


def pid_namespace() -> str | None:
    """Return which table of processes a pid of this process belongs to: containers have their own. None: not known."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


_importing = threading.RLock()


@contextlib.contextmanager
def unforked() -> Iterator[None]:
    """Import in here, on a background thread: a fork waits until it is through.

    A child that was copied in the midst of an import inherits the module's lock, held by a thread that it does not
    have, and would wait for it forever.
    """
    with _importing:
        yield


def _let_import_end() -> None:
    if _importing.acquire(timeout=1.0):
        _importing.release()


def _free_in_child() -> None:
    global _importing
    _importing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_let_import_end, after_in_child=_free_in_child)
