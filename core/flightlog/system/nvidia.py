"""NVIDIA GPUs: load, memory, temperature, power, clocks, throttling, buses, errors, and the run's own share of it.

Every GPU has a list of readings, one call to the driver each. A reading that this GPU, driver or user cannot have is
struck from the list the first time; the others go on. That is how old drivers, consumer cards and slices are served by
one code. What each call means is in NVIDIA's reference, https://docs.nvidia.com/deploy/nvml-api/.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from . import nvml as library
from .nvml import LOST, NOT_FOUND, UNINITIALIZED, UNSUPPORTED, Gpu
from .probe import Probe, Rate

_PATIENCE = 5
_MAX_EVENTS = 64
_MAX_XIDS_TOLD = 16
_ALL_LINKS = 0xFFFFFFFF
# nvmlClocksEventReasons; what is left out (idle, clocks that the user set) is no throttling.
_THROTTLES = {
    "swPowerCap": 0x04,
    "hwSlowdown": 0x08,
    "syncBoost": 0x10,
    "swThermal": 0x20,
    "hwThermal": 0x40,
    "hwPowerBrake": 0x80,
}
# nvmlFieldValue_t: field, scope, timestamp, latency, nvmlValueType_t, nvmlReturn_t, and a union of eight bytes. Taken
# apart here, since the binding's structures take 1 us per attribute, and there are 28 of them per GPU.
_FIELD_VALUE = struct.Struct("=IIqqII8s")
_VALUES = tuple(struct.Struct(f"={letter}") for letter in "dIQQqiH")


@dataclass(frozen=True, slots=True)
class _Field:
    """A value of NVML's field API, many of which are read in one call: `per_second` for counters."""

    name: str
    number: int
    scope: int = 0
    scale: float = 1.0
    per_second: bool = False


# nvmlFieldValueEnums. Counts of errors are since the driver was loaded; the links' are in KiB, the bus's in bytes.
_FIELDS = (
    _Field("correctedMemoryErrors", 3),
    _Field("uncorrectedMemoryErrors", 4),
    _Field("memoryTemp", 82),
    _Field("nvlinkTxBytes", 138, _ALL_LINKS, 1024, per_second=True),
    _Field("nvlinkRxBytes", 139, _ALL_LINKS, 1024, per_second=True),
    _Field("pcieTxBytes", 197, per_second=True),
    _Field("pcieRxBytes", 198, per_second=True),
)


class NvidiaProbe(Probe):
    """The GPUs that the run sees.

    Args:
        pids: returns the processes of the run.
        note: takes a line for the run: a GPU was lost, or reports an error.
    """

    def __init__(self, pids: Callable[[], Collection[int]], note: Callable[[str], None]) -> None:
        self._nvml = library.load()
        self._pids = pids
        self._note = note
        self._wanted: str | None = None
        self._devices: list[_Device] = []
        self._xids: _Xids | None = None
        self._look()

    def sample(self) -> dict[str, float]:
        try:
            if library.wanted() != self._wanted:  # a script may set it just before it imports its framework
                self._look()
            return self._read_all()
        except self._nvml.NVMLError as error:
            if error.value != UNINITIALIZED:
                raise
        # The training shut the library down once too often, and us with it.
        self._nvml.nvmlInit()
        self._look()
        return self._read_all()

    def close(self) -> None:
        if self._xids is not None:
            self._xids.close()
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _look(self) -> None:
        """Find the GPUs that the run sees, and begin anew with them."""
        self._wanted = library.wanted()
        seen = library.visible(library.gpus(self._nvml, self._lose), self._wanted)
        self._devices = [device for gpu in seen for device in self._devices_of(gpu)]
        if self._xids is not None:
            self._xids.close()
        self._xids = _Xids(self._nvml, seen, self._note)

    def _devices_of(self, gpu: Gpu) -> list[_Device]:
        whole = _Device(self._nvml, gpu.handle, f"{gpu.index}", self._pids)
        return [whole, *(_Device(self._nvml, m.handle, f"{gpu.index}.mig.{m.index}", self._pids) for m in gpu.migs)]

    def _read_all(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for device in list(self._devices):
            try:
                values.update(device.sample())
            except self._nvml.NVMLError as error:
                if error.value not in LOST:
                    raise
                self._devices.remove(device)
                self._lose(device.name, error)
        if self._xids is not None:
            values.update(self._xids.poll())
        return values

    def _lose(self, name: int | str, error: Exception) -> None:
        self._note(f"GPU {name} is lost ({error}); its metrics end here")


class _Device:
    """One GPU, or a slice of one, and what can be read of it."""

    def __init__(self, nvml: Any, handle: Any, name: str, pids: Callable[[], Collection[int]]) -> None:
        self.name = name
        self._nvml = nvml
        self._handle = handle
        self._pids = pids
        self._fields = list(_FIELDS)
        self._rates: dict[str, Rate] = {}
        self._own: set[int] = set()
        self._memory_total = 0
        self._watts: float | None = None
        self._seen_until = int(time.time() * 1e6)
        self._failures: dict[Callable[[], dict[str, float]], int] = dict.fromkeys(self._readings(), 0)

    def sample(self) -> dict[str, float]:
        """Return what the device says. Raises NVMLError where it is lost, or the library was shut down."""
        values: dict[str, float] = {}
        for reading in list(self._failures):
            try:
                values.update(reading())
                self._failures[reading] = 0
            except self._nvml.NVMLError as error:
                self._failed(reading, error)
            except AttributeError:  # a binding older than this call
                del self._failures[reading]
        return values

    def _readings(self) -> tuple[Callable[[], dict[str, float]], ...]:
        return (
            self._utilization,
            self._memory,
            self._temperature,
            self._power,
            self._power_limit,
            lambda: {self._key("smClock"): self._clock("SM")},
            lambda: {self._key("memoryClock"): self._clock("MEM")},
            lambda: {self._key("graphicsClock"): self._clock("GRAPHICS")},
            self._throttling,
            self._field_values,
            self._bus,
            self._own_memory,
            self._own_utilization,
        )

    def _failed(self, reading: Callable[[], dict[str, float]], error: Any) -> None:
        if error.value in LOST or error.value == UNINITIALIZED:
            raise error
        self._failures[reading] += 1
        if error.value in UNSUPPORTED or self._failures[reading] >= _PATIENCE:
            del self._failures[reading]

    def _key(self, name: str) -> str:
        return f"gpu.{self.name}.{name}"

    def _utilization(self) -> dict[str, float]:
        rates = self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
        return {self._key("gpu"): rates.gpu, self._key("memory"): rates.memory}

    def _memory(self) -> dict[str, float]:
        memory = self._either(
            lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=self._nvml.nvmlMemory_v2),
            lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle),  # counts what the driver reserves as used
        )
        self._memory_total = memory.total
        values = {self._key("memoryAllocatedBytes"): memory.used}
        if memory.total:
            values[self._key("memoryAllocated")] = 100 * memory.used / memory.total
        return values

    def _temperature(self) -> dict[str, float]:
        celsius = self._nvml.nvmlDeviceGetTemperature(self._handle, self._nvml.NVML_TEMPERATURE_GPU)
        return {self._key("temp"): celsius}

    def _power(self) -> dict[str, float]:
        self._watts = None
        self._watts = watts = self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000
        return {self._key("powerWatts"): watts}

    def _power_limit(self) -> dict[str, float]:
        limit = self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle) / 1000
        values = {self._key("enforcedPowerLimitWatts"): limit}
        if limit and self._watts is not None:
            values[self._key("powerPercent")] = 100 * self._watts / limit
        return values

    def _clock(self, domain: str) -> float:
        return float(self._nvml.nvmlDeviceGetClockInfo(self._handle, getattr(self._nvml, f"NVML_CLOCK_{domain}")))

    def _throttling(self) -> dict[str, float]:
        reasons = self._either(
            lambda: self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle),
            lambda: self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle),  # before release 535
        )
        return {self._key(f"throttle.{name}"): float(bool(reasons & bit)) for name, bit in _THROTTLES.items()}

    def _field_values(self) -> dict[str, float]:
        if not self._fields:
            return {}
        answers = bytes(self._nvml.nvmlDeviceGetFieldValues(self._handle, [(f.number, f.scope) for f in self._fields]))
        values: dict[str, float] = {}
        for field, (*_, kind, code, union) in list(zip(self._fields, _FIELD_VALUE.iter_unpack(answers), strict=True)):
            if code in UNSUPPORTED:
                self._fields.remove(field)
            elif code == 0 and kind < len(_VALUES):
                value = self._field(field, _VALUES[kind].unpack_from(union)[0])
                if value is not None:
                    values[self._key(field.name)] = value
        return values

    def _field(self, field: _Field, value: float) -> float | None:
        if field.per_second:
            return self._rates.setdefault(field.name, Rate())(field.scale * value)
        return field.scale * value

    def _bus(self) -> dict[str, float]:
        """Read the bus where it is not counted: the driver watches it for 20 ms each way. In KB/s."""
        if any(field.name == "pcieTxBytes" for field in self._fields) and self._field_values in self._failures:
            return {}
        sent, received = self._nvml.NVML_PCIE_UTIL_TX_BYTES, self._nvml.NVML_PCIE_UTIL_RX_BYTES
        return {
            self._key("pcieTxBytes"): 1000 * self._nvml.nvmlDeviceGetPcieThroughput(self._handle, sent),
            self._key("pcieRxBytes"): 1000 * self._nvml.nvmlDeviceGetPcieThroughput(self._handle, received),
        }

    def _own_memory(self) -> dict[str, float]:
        pids = self._pids()
        self._own.clear()
        processes = self._either(  # by version: the binding refuses the name without one under an older driver
            lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses_v3(self._handle),
            lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses_v2(self._handle),  # before release 510
        )
        own = [process for process in processes if process.pid in pids]
        self._own = {process.pid for process in own}
        if not own:
            return {}
        used = sum(process.usedGpuMemory or 0 for process in own)
        values = {self._key_of_own("memoryAllocatedBytes"): float(used)}
        if self._memory_total:
            values[self._key_of_own("memoryAllocated")] = 100 * used / self._memory_total
        return values

    def _own_utilization(self) -> dict[str, float]:
        if not self._own:
            return {}
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(self._handle, self._seen_until)
        except self._nvml.NVMLError as error:
            if error.value != NOT_FOUND:  # what it says where nothing ran on the GPU
                raise
            samples = []
        self._seen_until = max((s.timeStamp for s in samples), default=self._seen_until)
        by_pid: dict[int, list[float]] = {}
        for sample in samples:
            if sample.pid in self._own:
                by_pid.setdefault(sample.pid, []).append(sample.smUtil)
        return {self._key_of_own("gpu"): min(100.0, sum(sum(s) / len(s) for s in by_pid.values()))}

    def _key_of_own(self, name: str) -> str:
        return f"gpu.process.{self.name}.{name}"

    def _either(self, call: Callable[[], Any], older: Callable[[], Any]) -> Any:
        """Return what a call gives, or where driver or binding do not have it, what the older one gives."""
        try:
            return call()
        except AttributeError:
            return older()
        except self._nvml.NVMLError as error:
            if error.value not in UNSUPPORTED:
                raise
            return older()


class _Xids:
    """Errors that the driver reports as they happen, by NVIDIA's "Xid" numbers. Needs no privileges.

    https://docs.nvidia.com/deploy/xid-errors/
    """

    def __init__(self, nvml: Any, gpus: list[Gpu], note: Callable[[str], None]) -> None:
        self._nvml = nvml
        self._note = note
        self._told: set[tuple[int, int]] = set()
        self._counts: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._by_handle: dict[int | None, int] = {}
        self._events: Any = None
        with contextlib.suppress(nvml.NVMLError, AttributeError):
            self._events = nvml.nvmlEventSetCreate()
        for gpu in gpus if self._events is not None else ():
            with contextlib.suppress(nvml.NVMLError, AttributeError):
                nvml.nvmlDeviceRegisterEvents(gpu.handle, nvml.nvmlEventTypeXidCriticalError, self._events)
                self._by_handle[_address(gpu.handle)] = gpu.index
                self._counts[gpu.index] = 0

    def poll(self) -> dict[str, float]:
        """Return how many errors each GPU has reported since the run began, and the number of the last."""
        with contextlib.suppress(self._nvml.NVMLError):  # a time-out says that there is nothing more
            for _ in range(_MAX_EVENTS if self._counts else 0):
                self._count(self._nvml.nvmlEventSetWait(self._events, 0))
        values = {f"gpu.{index}.xidErrors": float(count) for index, count in self._counts.items()}
        return {**values, **{f"gpu.{index}.xid": float(xid) for index, xid in self._last.items()}}

    def close(self) -> None:
        if self._events is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlEventSetFree(self._events)
        self._counts.clear()

    def _count(self, event: Any) -> None:
        index = self._by_handle.get(_address(event.device))
        if index is None or not event.eventType & self._nvml.nvmlEventTypeXidCriticalError:
            return
        xid = int(event.eventData)
        self._counts[index] += 1
        self._last[index] = xid
        if (index, xid) not in self._told and len(self._told) < _MAX_XIDS_TOLD:
            self._told.add((index, xid))
            self._note(f"GPU {index} reports error Xid {xid} (https://docs.nvidia.com/deploy/xid-errors/)")


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
