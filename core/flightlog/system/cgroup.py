"""What the job may use of the machine: limits that Slurm, Kubernetes and the like set by Linux control groups.

A limit of the group or of any group above it binds, so each is looked up from the process's own group to the root, and
the smallest counts. Version 1 has a tree of folders per controller, version 2 one for all; files and their meaning:
https://docs.kernel.org/admin-guide/cgroup-v2.html and https://docs.kernel.org/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .probe import names_in, read_file

_REFRESH_SECONDS = 60.0
_MAX_DEPTH = 64
_MAX_CPUS = 8192
_MAX_THREADS = 64
# Version 1 spells "no limit" as the largest number of pages that fits.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class Bounded:
    """An amount that is limited: bytes of memory, or seconds of processor time per second."""

    limit: float
    folder: str


class Cgroup:
    """The control groups that a process is in.

    Args:
        root: where the control groups are mounted.
        membership: the file that tells the process's groups.
    """

    def __init__(self, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> None:
        self._root = root
        self._groups = _groups(membership)
        self._memory = self._find("memory")
        self._cpu = self._find("cpu")
        self._cpuset = self._find("cpuset")
        self._memory_bound = _Remembered(lambda: _smallest(self._memory, _memory_limit))
        self._swap_bound = _Remembered(lambda: _smallest(self._memory, _swap_limit))
        self._cpu_bound = _Remembered(lambda: _smallest(self._cpu, _cpu_limit))

    def memory_limit(self) -> float | None:
        """Return how many bytes of memory the job may use; None where nothing limits it."""
        bound = self._memory_bound()
        return bound.limit if bound else None

    def memory_used(self) -> float | None:
        """Return how many bytes of that limit are used and cannot simply be dropped, as Kubernetes counts them.

        Pages of files that were not used lately are the first that the kernel gives up, before anything is killed.
        """
        bound = self._memory_bound()
        if bound is None:
            return None
        used = _first_number(bound.folder, "memory.current", "memory.usage_in_bytes")
        if used is None:
            return None
        facts = _table(bound.folder, "memory.stat")
        return max(0.0, used - facts.get("total_inactive_file", facts.get("inactive_file", 0)))

    def swap(self) -> tuple[float, float] | None:
        """Return how many bytes of swap the job uses, and may use; None where nothing limits it (or version 1)."""
        bound = self._swap_bound()
        used = _number(bound.folder, "memory.swap.current") if bound else None
        return (used, bound.limit) if bound and used is not None else None

    def cpu_limit(self) -> float | None:
        """Return how many processors' time the job may use, a fraction perhaps; None where nothing limits it."""
        bound = self._cpu_bound()
        return bound.limit if bound else None

    def cpu_seconds(self) -> float | None:
        """Return the processor time that all processes under that limit have used, in seconds."""
        bound = self._cpu_bound()
        if bound is None:
            return None
        used = _table(bound.folder, "cpu.stat").get("usage_usec")
        if used is not None:
            return used / 1e6
        used = _number(self._accounting_of(bound.folder), "cpuacct.usage")
        return used / 1e9 if used is not None else None

    def cpuset(self) -> frozenset[int]:
        """Return the numbers of the processors that the job may run on; empty where the control groups do not say."""
        for folder in self._cpuset:
            for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
                with contextlib.suppress(OSError, ValueError):
                    cpus = parse_cpus(_text(folder, name))
                    if cpus:
                        return cpus
        return frozenset()

    def _find(self, controller: str) -> list[str]:
        """Return the folders of the process's group and of those above it, innermost first."""
        for names, path in self._groups:
            if controller in names:
                mounts = [self._root / ",".join(names), self._root / controller]
                return next((_upwards(mount, path) for mount in mounts if mount.is_dir()), [])
        unified = next((path for names, path in self._groups if not names), None)
        return _upwards(self._root, unified) if unified is not None else []

    def _accounting_of(self, folder: str) -> str:
        """Return the folder of version 1 that counts the processor time of the group whose limit is in `folder`."""
        if Path(folder, "cpuacct.usage").exists():
            return folder
        depth = self._cpu[::-1].index(folder)
        return dict(enumerate(self._find("cpuacct")[::-1])).get(depth, folder)


class Limits:
    """What a process may use: its control groups' limits, and the processors it is bound to.

    Args:
        pid: the process.
        cgroup: its control groups.
    """

    def __init__(self, pid: int, cgroup: Cgroup) -> None:
        self.cgroup = cgroup
        self._pid = pid
        self._allowed: frozenset[int] = frozenset()
        self._until = 0.0

    def allowed(self) -> frozenset[int]:
        """Return the numbers of the processors that the process may run on; empty where that is not known."""
        if time.monotonic() >= self._until:
            bound, group = _affinity(self._pid), self.cgroup.cpuset()
            self._allowed = (bound & group) or group or bound
            self._until = time.monotonic() + _REFRESH_SECONDS
        return self._allowed

    def cpus(self) -> float:
        """Return how many processors' time the process may use."""
        count = float(len(self.allowed()) or os.cpu_count() or 1)
        limit = self.cgroup.cpu_limit()
        return min(count, limit) if limit else count

    def memory(self, machine: float) -> float:
        """Return how many bytes of memory the process may use, on a machine that has `machine` bytes."""
        limit = self.cgroup.memory_limit()
        return min(limit, machine) if limit else machine


def parse_cpus(text: str) -> frozenset[int]:
    """Return the numbers that a kernel's list such as "0-3,8" names. Raises ValueError where it is none."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        low, high = int(first or 0), int(last or first or -1)
        if not 0 <= low < _MAX_CPUS or high >= _MAX_CPUS:
            raise ValueError(f"no list of processors: {text[:80]!r}")
        cpus.update(range(low, high + 1))
    return frozenset(cpus)


class _Remembered:
    """A limit, looked up anew once a minute: an administrator can change it under a running job."""

    def __init__(self, look_up: Callable[[], Bounded | None]) -> None:
        self._look_up = look_up
        self._found: Bounded | None = None
        self._until = 0.0

    def __call__(self) -> Bounded | None:
        if time.monotonic() >= self._until:
            self._found = self._look_up()
            self._until = time.monotonic() + _REFRESH_SECONDS
        return self._found


def _affinity(pid: int) -> frozenset[int]:
    """Return the processors that any thread of a process may run on: OpenMP binds each of its threads to one."""
    cpus: set[int] = set()
    with contextlib.suppress(OSError, AttributeError):
        for thread in names_in(f"/proc/{pid}/task")[:_MAX_THREADS]:
            with contextlib.suppress(ProcessLookupError):
                cpus |= os.sched_getaffinity(int(thread))
    return frozenset(cpus)


def _groups(membership: Path) -> list[tuple[list[str], str]]:
    """Return a process's groups: the controllers (none for version 2) and the path, a line of its file each."""
    with contextlib.suppress(OSError):
        lines = read_file(os.fspath(membership)).decode(errors="replace").splitlines()
        fields = [line.split(":", 2) for line in lines[:_MAX_DEPTH]]
        return [(f[1].split(",") if f[1] else [], f[2]) for f in fields if len(f) == 3]
    return []


def _upwards(mount: Path, path: str) -> list[str]:
    """Return a group's folder and those above it up to the mount.

    Where the path is not found below the mount, a container sees its own group as the root of the tree.
    """
    inside = PurePosixPath(path.lstrip("/"))
    if ".." in inside.parts or len(inside.parts) > _MAX_DEPTH or not (mount / inside).is_dir():
        return [os.fspath(mount)]
    return [os.fspath(mount / part) for part in (inside, *inside.parents)][: len(inside.parts) + 1]


def _smallest(folders: list[str], limit_of: Callable[[str], float | None]) -> Bounded | None:
    found = [Bounded(limit, folder) for folder in folders if (limit := limit_of(folder)) and limit > 0]
    return min(found, key=lambda bound: bound.limit, default=None)


def _memory_limit(folder: str) -> float | None:
    limit = _first_number(folder, "memory.max", "memory.limit_in_bytes")
    return limit if limit is not None and limit < _NO_LIMIT else None


def _swap_limit(folder: str) -> float | None:
    return _number(folder, "memory.swap.max")


def _cpu_limit(folder: str) -> float | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        quota, period = _text(folder, "cpu.max").split()[:2]
        return int(quota) / int(period) if quota != "max" and int(period) > 0 else None
    quota_us, period_us = _number(folder, "cpu.cfs_quota_us"), _number(folder, "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 and period_us > 0 else None


def _text(folder: str, name: str) -> str:
    return read_file(f"{folder}/{name}").decode("ascii", "replace")


def _number(folder: str, name: str) -> float | None:
    """Return the number in a file; None where there is no such file, or it says "max"."""
    with contextlib.suppress(OSError, ValueError):
        return float(int(_text(folder, name)))
    return None


def _first_number(folder: str, *names: str) -> float | None:
    return next((number for name in names if (number := _number(folder, name)) is not None), None)


def _table(folder: str, name: str) -> dict[str, float]:
    """Return a file of lines "key number"."""
    with contextlib.suppress(OSError, ValueError):
        pairs = [line.split() for line in _text(folder, name).splitlines()]
        return {pair[0]: float(int(pair[1])) for pair in pairs if len(pair) == 2}
    return {}
