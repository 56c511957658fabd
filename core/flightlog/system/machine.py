"""The machine's own sources: processors, memory, load, disks and network, read through psutil.

Where control groups limit the job, the limit is what the percentages are of: a container with 4 of 96 processors that
uses all of them is at 100 %.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from .cgroup import Limits
from .probe import GIGABYTE, MEGABYTE, Probe, Rate, Unavailable

MAX_CORES = 512
_MAX_MOUNT = 200


class CpuProbe(Probe):
    """How busy the processors are that the job may use, and the load averages.

    Args:
        limits: what the job may use.
        per_core: report each processor, too.
    """

    def __init__(self, limits: Limits, per_core: bool = False) -> None:
        self._limits = limits
        self._per_core = per_core
        self._quota = Rate()
        self._busy = _Busy()
        self._cores: dict[int, _Busy] = {}
        self.sample()

    def sample(self) -> dict[str, float]:
        values: dict[str, float] = {}
        total = self._of_quota() if self._limits.cgroup.cpu_limit() else self._of_processors()
        if total is not None:
            values["cpu_percent"] = total
        if self._per_core:
            values.update(self._of_each_core())
        if hasattr(os, "getloadavg"):
            values.update(zip(("load.1m", "load.5m", "load.15m"), os.getloadavg(), strict=True))
        return values

    def _of_quota(self) -> float | None:
        seconds = self._limits.cgroup.cpu_seconds()
        rate = self._quota(seconds) if seconds is not None else None
        return 100 * rate / self._limits.cpus() if rate is not None else None

    def _of_processors(self) -> float | None:
        import psutil

        allowed = self._limits.allowed()
        if not allowed or len(allowed) == os.cpu_count():
            return self._busy(*_busy_and_total(psutil.cpu_times()))
        times = [_busy_and_total(t) for i, t in enumerate(psutil.cpu_times(percpu=True)) if i in allowed]
        return self._busy(sum(busy for busy, _ in times), sum(total for _, total in times))

    def _of_each_core(self) -> dict[str, float]:
        import psutil

        values: dict[str, float] = {}
        for core, times in enumerate(psutil.cpu_times(percpu=True)[:MAX_CORES]):
            percent = self._cores.setdefault(core, _Busy())(*_busy_and_total(times))
            if percent is not None:
                values[f"cpu.{core}.cpu_percent"] = percent
        return values


class _Busy:
    """The busy part of the time since the last call. (psutil's own cpu_percent() shares its memory with the user's.)"""

    def __init__(self) -> None:
        self._before: tuple[float, float] | None = None

    def __call__(self, busy: float, total: float) -> float | None:
        before = self._before
        if before is not None and total - before[1] < 0.05:
            return None
        self._before = busy, total
        return min(100.0, max(0.0, 100 * (busy - before[0]) / (total - before[1]))) if before is not None else None


def _busy_and_total(times: Any) -> tuple[float, float]:
    """Return busy and total seconds of a processor. Guests' time is part of user and nice already (proc_stat(5))."""
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


class MemoryProbe(Probe):
    """Memory and swap in use, of what the job may use."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.sample()

    def sample(self) -> dict[str, float]:
        import psutil

        machine = psutil.virtual_memory()
        total = self._limits.memory(machine.total)
        used = self._limits.cgroup.memory_used() if total < machine.total else None
        if used is None:
            total, used = machine.total, machine.total - machine.available
        values = {
            "memory_percent": 100 * used / total,
            "proc.memory.availableMB": max(0.0, min(total - used, machine.available)) / MEGABYTE,
        }
        swap_used, swap_total = self._limits.cgroup.swap() or self._swap_of_machine()
        if swap_total:
            values["swap_percent"] = 100 * swap_used / swap_total
        return values

    @staticmethod
    def _swap_of_machine() -> tuple[float, float]:
        import psutil

        swap = psutil.swap_memory()
        return swap.used, swap.total


class DiskIoProbe(Probe):
    """What the machine's disks have read and written since the run began. Network file systems are not among them."""

    def __init__(self) -> None:
        self._start = self._counters()

    def sample(self) -> dict[str, float]:
        read, written = self._counters()
        return {
            "disk.in": max(0, read - self._start[0]) / MEGABYTE,
            "disk.out": max(0, written - self._start[1]) / MEGABYTE,
        }

    @staticmethod
    def _counters() -> tuple[int, int]:
        import psutil

        counters = psutil.disk_io_counters(nowrap=False)
        if counters is None:
            raise Unavailable("the system shows no disks")
        return counters.read_bytes, counters.write_bytes


class NetworkProbe(Probe):
    """What the machine (or the container) has sent and received since the run began, but for loopback."""

    def __init__(self) -> None:
        self._start = self._counters()

    def sample(self) -> dict[str, float]:
        sent, received = self._counters()
        return {"network.sent": max(0, sent - self._start[0]), "network.recv": max(0, received - self._start[1])}

    @staticmethod
    def _counters() -> tuple[int, int]:
        import psutil

        nics = [n for name, n in psutil.net_io_counters(pernic=True, nowrap=False).items() if not _is_loopback(name)]
        return sum(n.bytes_sent for n in nics), sum(n.bytes_recv for n in nics)


def _is_loopback(name: str) -> bool:
    return name in ("lo", "lo0") or name.startswith("Loopback")


class DiskUsageProbe(Probe):
    """How full the file systems are that matter. A network file system whose server is gone blocks this call.

    Args:
        paths: any path on each file system; what lies on one file system is reported once.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self._mounts = list(dict.fromkeys(_mount_of(path) for path in paths))

    def sample(self) -> dict[str, float]:
        import psutil

        values: dict[str, float] = {}
        for mount in self._mounts:
            try:
                usage = psutil.disk_usage(mount)
            except OSError:
                if mount == self._mounts[-1] and not values:
                    raise
                continue
            name = os.fsencode(mount).decode(errors="replace")[:_MAX_MOUNT]
            values[f"disk.{name}.usagePercent"] = usage.percent
            values[f"disk.{name}.usageGB"] = usage.used / GIGABYTE
        return values


def _mount_of(path: str | os.PathLike[str]) -> str:
    place = os.path.realpath(path)
    while not os.path.ismount(place) and (above := os.path.dirname(place)) != place:  # noqa: PTH120
        place = above
    return place
