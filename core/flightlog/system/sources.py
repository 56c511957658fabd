"""What is sampled unless one says otherwise. Everything heavy is imported here, on the sampler's thread."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..process import unforked
from .cgroup import Cgroup, Limits
from .probe import Probe, Source
from .processes import ProcessProbe, ProcessTree


def default_sources(
    tell: Callable[[str], None],
    pid: int,
    cgroup: Cgroup,
    *,
    folder: str | os.PathLike[str] | None = None,
    per_core: bool = False,
) -> list[Source]:
    """Return the machine's sources and NVIDIA's.

    Args:
        tell: takes a line for the run, such as that a GPU was lost.
        pid: the process whose tree counts as the run's.
        cgroup: the control groups whose limits hold.
        folder: a folder whose file system is reported besides that of `/`.
        per_core: report each processor, too.
    """
    with unforked():
        import psutil  # noqa: F401

    from . import machine

    tree = ProcessTree(pid)
    limits = Limits(pid, cgroup)
    mounts = ["/"] if folder is None else ["/", folder]
    return [
        Source("nvidia", lambda: _nvidia(tree, tell), may_hang=True),
        Source("disk usage", lambda: machine.DiskUsageProbe(mounts), may_hang=True),
        Source("processes", lambda: ProcessProbe(tree, limits)),
        Source("cpu", lambda: machine.CpuProbe(limits, per_core)),
        Source("memory", lambda: machine.MemoryProbe(limits)),
        Source("disk i/o", machine.DiskIoProbe),
        Source("network", machine.NetworkProbe),
    ]


def _nvidia(tree: ProcessTree, tell: Callable[[str], None]) -> Probe:
    from .nvidia import NvidiaProbe

    return NvidiaProbe(lambda: tree.pids, tell)
