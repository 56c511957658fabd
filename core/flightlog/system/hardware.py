"""What the machine is made of, once per run: processors, memory and GPUs, for the run's provenance."""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import threading
from typing import TYPE_CHECKING, Any

from ..process import unforked
from .cgroup import Cgroup, Limits
from .probe import Unavailable, read_file

if TYPE_CHECKING:
    from .nvml import Gpu


def hardware(timeout: float = 5.0) -> dict[str, Any]:
    """Return what the machine is made of. Takes milliseconds without a GPU, seconds where a driver sleeps.

    Args:
        timeout: how many seconds the NVIDIA driver may take; after that the rest is returned without GPUs.

    Returns:
        `cpu` (the model), `cpu_count` (cores), `cpu_count_logical`, `cpus_allowed` (what the job may use of them, a
        fraction perhaps), `memory_total` and, where one is set, `memory_limit` (bytes), and `gpus`: those that the
        run sees, {index, name, uuid, memory (bytes), driver, cuda}. What is not known is left out; `gpus_missing` says
        why GPUs could not be asked.
    """
    limits = Limits(os.getpid(), Cgroup())
    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cpu_count_logical": os.cpu_count(),
        "cpus_allowed": limits.cpus(),
        "memory_limit": limits.cgroup.memory_limit(),
        **_from_psutil(),
    }
    found = _gpus_within(timeout)
    if isinstance(found, str):
        facts["gpus_missing"] = found
    facts["gpus"] = [] if isinstance(found, str) else found
    return {name: value for name, value in facts.items() if value is not None}


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in read_file("/proc/cpuinfo").decode(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in ("model name", "cpu model", "hardware"):
                return value.strip()[:200]
    return platform.machine()  # platform.processor() would start a process


def _from_psutil() -> dict[str, Any]:
    with unforked():
        import psutil

    facts: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # what odd containers show of /proc makes psutil raise all kinds of errors
        facts["cpu_count"] = psutil.cpu_count(logical=False)
    with contextlib.suppress(Exception):
        facts["memory_total"] = psutil.virtual_memory().total
    return facts


def _gpus_within(timeout: float) -> list[dict[str, Any]] | str:
    """Ask the driver on a thread of its own; return the GPUs, or why there is no answer."""
    answers: queue.SimpleQueue[list[dict[str, Any]] | str] = queue.SimpleQueue()
    try:
        threading.Thread(target=lambda: answers.put(_gpus()), name="flightlog-hardware", daemon=True).start()
        return answers.get(timeout=timeout)
    except queue.Empty:
        return f"the NVIDIA driver gave no answer within {timeout:g} s"
    except RuntimeError as error:  # no more threads for this user
        return str(error)


def _gpus() -> list[dict[str, Any]] | str:
    from . import nvml as library

    try:
        nvml = library.load()
    except Unavailable as why:
        return str(why)
    except Exception as error:  # a module by the binding's name that is another one
        return f"{type(error).__name__}: {error}"
    try:
        seen = library.visible(library.gpus(nvml), library.wanted())
        return [_described(nvml, gpu) for gpu in seen]
    except Exception as error:
        return f"the NVIDIA driver failed: {error}"
    finally:
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()


def _described(nvml: Any, gpu: Gpu) -> dict[str, Any]:
    from .nvml import text_of

    facts: dict[str, Any] = {"index": gpu.index, "uuid": gpu.uuid}
    with contextlib.suppress(nvml.NVMLError):
        facts["name"] = text_of(nvml.nvmlDeviceGetName(gpu.handle))
    with contextlib.suppress(nvml.NVMLError):
        facts["memory"] = int(nvml.nvmlDeviceGetMemoryInfo(gpu.handle).total)
    with contextlib.suppress(nvml.NVMLError):
        facts["driver"] = text_of(nvml.nvmlSystemGetDriverVersion())
    with contextlib.suppress(nvml.NVMLError):
        version = int(nvml.nvmlSystemGetCudaDriverVersion())
        facts["cuda"] = f"{version // 1000}.{version % 1000 // 10}"
    return facts
