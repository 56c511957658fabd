"""NVIDIA's management library: loading it, its errors, and which GPUs the run may see.

The library (libnvidia-ml.so.1) comes with the driver, its Python binding is nvidia-ml-py (`import pynvml`). Numbers
are NVML's own, https://docs.nvidia.com/deploy/nvml-api/; a GPU is counted as nvidia-smi counts, whatever
CUDA_VISIBLE_DEVICES makes of it, so that two jobs on one machine speak of the same GPU by the same name.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..process import unforked
from .probe import Unavailable

MAX_GPUS = 64
MAX_MIGS = 16
LIBRARY = "libnvidia-ml.so.1"

# nvmlReturn_t
UNINITIALIZED = 1
NOT_FOUND = 6
# This device, driver or user will never get an answer; asking again only costs.
UNSUPPORTED = frozenset((2, 3, 4, 13, 22, 25, 26))
# The GPU fell off the bus, or must be reset before it speaks again.
LOST = frozenset((15, 16, 28))


@dataclass(frozen=True, slots=True)
class Mig:
    """A slice of a GPU (Multi-Instance GPU): `gi` and `ci` are its GPU and compute instance."""

    handle: Any
    index: int
    uuid: str
    gi: int
    ci: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU and its slices, if it is divided."""

    handle: Any
    index: int
    uuid: str
    migs: tuple[Mig, ...] = ()


def load() -> Any:
    """Load and initialize the library, and return its binding; `nvmlShutdown` ends it. It may block for seconds.

    Raises:
        Unavailable: there is no driver, no binding, or the driver does not answer.
    """
    if sys.platform == "linux":  # before the import, which takes 30 ms: most machines without a driver are Linux
        try:
            ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise Unavailable(f"no NVIDIA driver ({error})") from None
    try:
        with unforked():
            pynvml = importlib.import_module("pynvml")
    except ImportError:
        raise Unavailable(
            "there is an NVIDIA driver, but no nvidia-ml-py to ask it; run: pip install nvidia-ml-py"
        ) from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise Unavailable(f"the NVIDIA driver does not answer: {error}") from None
    return pynvml


def gpus(nvml: Any, lost: Callable[[int, Exception], None] | None = None) -> list[Gpu]:
    """Return the machine's GPUs, at most 64; those that do not answer are left out.

    Args:
        nvml: what `load` returned.
        lost: told of each that does not answer.
    """
    found = []
    for index in range(min(int(nvml.nvmlDeviceGetCount()), MAX_GPUS)):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            if lost is not None and error.value in LOST:
                lost(index, error)
            continue
        found.append(Gpu(handle, index, _uuid(nvml, handle), _migs(nvml, handle)))
    return found


def visible(found: Sequence[Gpu], wanted: str | None) -> list[Gpu]:
    """Return the GPUs, each with the slices, that a program with this CUDA_VISIBLE_DEVICES uses.

    The rules are CUDA's: numbers, or UUIDs of GPUs or slices that may be cut short while they stay unique; what comes
    after the first that names nothing is not seen; with one named twice, nothing is. A number means the GPU in the
    order of the bus, as PyTorch takes it, too; CUDA itself puts faster GPUs first unless CUDA_DEVICE_ORDER=PCI_BUS_ID.
    https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-environment-variables

    Args:
        found: all GPUs.
        wanted: the variable's value, None where it is not set.
    """
    if wanted is None:
        return list(found)
    chosen: list[tuple[int, int | None]] = []
    for word in wanted.split(",")[: MAX_GPUS * MAX_MIGS]:
        match = _named(found, word.strip())
        if match is None:
            break
        if match in chosen:
            return []
        chosen.append(match)
    return [_with_chosen(gpu, chosen) for gpu in found if any(index == gpu.index for index, _ in chosen)]


def _with_chosen(gpu: Gpu, chosen: list[tuple[int, int | None]]) -> Gpu:
    """Return a GPU with the slices that were chosen by name, or with all where it was chosen itself."""
    if (gpu.index, None) in chosen:
        return gpu
    migs = tuple(mig for mig in gpu.migs if (gpu.index, mig.index) in chosen)
    return Gpu(gpu.handle, gpu.index, gpu.uuid, migs)


def _named(found: Sequence[Gpu], word: str) -> tuple[int, int | None] | None:
    """Return the GPU, and the slice or None, that a word of CUDA_VISIBLE_DEVICES names; None where it names none."""
    if word.isascii() and word.isdigit():
        return next(((gpu.index, None) for gpu in found if gpu.index == int(word[:9])), None)
    if word.startswith("GPU-") and len(word) > 4:
        return _only([(gpu.index, None) for gpu in found if gpu.uuid.startswith(word)])
    if word.startswith("MIG-GPU-"):
        return _only([(g.index, m.index) for g in found for m in g.migs if f"MIG-{g.uuid}/{m.gi}/{m.ci}" == word])
    if word.startswith("MIG-") and len(word) > 4:
        return _only([(gpu.index, mig.index) for gpu in found for mig in gpu.migs if mig.uuid.startswith(word)])
    return None


def _only(matches: Sequence[tuple[int, int | None]]) -> tuple[int, int | None] | None:
    return matches[0] if len(matches) == 1 else None


def wanted() -> str | None:
    """Return CUDA_VISIBLE_DEVICES, None where it is not set."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def text_of(value: Any) -> str:
    """Return what the binding gives as a text: bytes in its older versions."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _uuid(nvml: Any, handle: Any) -> str:
    try:
        return text_of(nvml.nvmlDeviceGetUUID(handle))
    except nvml.NVMLError:
        return ""


def _migs(nvml: Any, handle: Any) -> tuple[Mig, ...]:
    try:
        if nvml.nvmlDeviceGetMigMode(handle)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return ()
        most = min(int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)), MAX_MIGS)
    except (nvml.NVMLError, AttributeError):  # a GPU, a driver or a binding that does not know of slices
        return ()
    return tuple(mig for index in range(most) if (mig := _mig(nvml, handle, index)) is not None)


def _mig(nvml: Any, handle: Any, index: int) -> Mig | None:
    try:
        mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        gi, ci = nvml.nvmlDeviceGetGpuInstanceId(mig), nvml.nvmlDeviceGetComputeInstanceId(mig)
    except nvml.NVMLError:  # no slice of this number
        return None
    return Mig(mig, index, _uuid(nvml, mig), gi, ci)
