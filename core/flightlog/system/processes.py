"""The run's own processes: the one that records and all that descend from it (data loaders, ranks, compilers).

On Linux they are read from /proc (proc(5)): psutil finds children by reading every process of the machine, which takes
25 ms on a login node with two thousand of them; here it is 10 us per thread of the run. Elsewhere psutil serves.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .cgroup import Limits
from .probe import MEGABYTE, Probe, Rate, names_in, read_file

MAX_PROCESSES = 512
_MAX_THREADS = 4096
# Looking through all threads for new processes may take one part in 10,000 of a core: with few threads that is at every
# sample, with a hundred every ten seconds. The main thread's are looked for at every sample.
_SCAN_SHARE = 1 / 10_000
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process, or several together, use.

    Attributes:
        cpu_seconds: processor time so far, with that of children that have ended and been waited for.
        rss: resident memory in bytes; what processes share counts for each of them.
        threads: how many threads there are.
    """

    cpu_seconds: float
    rss: int
    threads: int


class ProcessTree:
    """A process and its descendants, at most 512.

    Args:
        pid: the process at the root.

    Attributes:
        pids: those found last; any thread may read it.
    """

    def __init__(self, pid: int) -> None:
        self.pids: frozenset[int] = frozenset((pid,))
        self._root = pid
        self._find: Callable[[int], list[int]] = _from_psutil
        self._read: Callable[[int], Usage | None] = _use_from_psutil
        self._next_scan = 0.0
        if Path(f"/proc/{pid}/task/{pid}/children").exists():
            self._find, self._read = _from_proc, _use_from_proc

    def usage(self) -> list[Usage]:
        """Return what each process of the tree uses; those that have ended are left out."""
        if time.monotonic() >= self._next_scan or self._has_new_children():
            began = time.thread_time()
            self.pids = frozenset((self._root, *self._find(self._root)))
            self._next_scan = time.monotonic() + (time.thread_time() - began) / _SCAN_SHARE
        return [use for pid in self.pids if (use := self._read(pid)) is not None]

    def _has_new_children(self) -> bool:
        """Look whether the main thread, which begins most, has begun a process since the last scan. One file."""
        return not self.pids.issuperset(_children_of(self._root, str(self._root))[: MAX_PROCESSES // 2])


class ProcessProbe(Probe):
    """Processor time, memory and threads of the run's processes, against what they may use."""

    def __init__(self, tree: ProcessTree, limits: Limits) -> None:
        import psutil

        self._tree = tree
        self._limits = limits
        self._machine = float(psutil.virtual_memory().total)
        self._rate = Rate()
        self._rate(self._cpu_seconds(tree.usage()))

    def sample(self) -> dict[str, float]:
        uses = self._tree.usage()
        rss = sum(use.rss for use in uses)
        values: dict[str, float] = {
            "proc.count": len(uses),
            "proc.cpu.threads": sum(use.threads for use in uses),
            "proc.memory.rssMB": rss / MEGABYTE,
            "proc.memory.percent": 100 * rss / self._limits.memory(self._machine),
        }
        busy = self._rate(self._cpu_seconds(uses))
        if busy is not None:
            values["cpu"] = 100 * busy / self._limits.cpus()
        return values

    @staticmethod
    def _cpu_seconds(uses: list[Usage]) -> float:
        return sum(use.cpu_seconds for use in uses)


def _from_proc(root: int) -> list[int]:
    """Return a process's descendants: each thread has a file that lists the children it began."""
    found: dict[int, None] = {root: None}
    queue = [root]
    threads = 0
    while queue and len(found) < MAX_PROCESSES:
        pid = queue.pop()
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for thread in names_in(f"/proc/{pid}/task")[: _MAX_THREADS - threads]:
                threads += 1
                children = _children_of(pid, thread)
                queue += [child for child in children if child not in found]
                found.update(dict.fromkeys(children))
    return list(found)[1:MAX_PROCESSES]


def _children_of(pid: int, thread: str) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in read_file(f"/proc/{pid}/task/{thread}/children").split()]
    return []


def _use_from_proc(pid: int) -> Usage | None:
    try:
        fields = read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    # proc(5) numbers fields from 1, and two come before: utime stime cutime cstime 14-17, num_threads 20, rss 24.
    if len(fields) < 22 or fields[0] == b"Z":
        return None
    return Usage(sum(map(int, fields[11:15])) / _TICKS, int(fields[21]) * _PAGE, int(fields[17]))


def _from_psutil(root: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(root).children(recursive=True)[: MAX_PROCESSES - 1]]
    except psutil.Error:
        return []


def _use_from_psutil(pid: int) -> Usage | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return Usage(sum(process.cpu_times()[:4]), process.memory_info().rss, process.num_threads())
    except psutil.Error:
        return None
