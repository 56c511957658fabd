"""What a source of system metrics looks like, and what the probes share: rates of counters, files of the kernel.

A probe opens its source in its constructor and is used by one thread only.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

MEGABYTE = 1 << 20
GIGABYTE = 1 << 30
# Over a shorter time a rate says more of the clock's ticks (10 ms for processors) than of the machine.
_SHORTEST = 0.05
_MAX_FILE = 1 << 20


class Unavailable(Exception):
    """This source is not to be had here; the text says why, and how it could be."""


class Probe(ABC):
    """One source of system metrics."""

    @abstractmethod
    def sample(self) -> dict[str, float]:
        """Return what the source says now, by metric name (docs/system.md). Rates are missing the first time.

        Raises:
            Unavailable: the source is gone for good.
            Exception: whatever reading it raises; the sampler asks again the next time, and gives up after a few.
        """

    def close(self) -> None:
        """Let go of the source."""
        return


@dataclass(frozen=True, slots=True)
class Source:
    """Something to sample.

    Attributes:
        name: what it is called in the run's line when it fails.
        open: makes its probe, on the thread that will use it.
        may_hang: give it a thread of its own.
    """

    name: str
    open: Callable[[], Probe]
    may_hang: bool = False


class Rate:
    """The speed of something that only ever grows."""

    def __init__(self) -> None:
        self._value: float | None = None
        self._at = 0.0

    def __call__(self, value: float) -> float | None:
        """Return the growth per second since the last call.

        Returns:
            None the first time, after less than 50 ms, and where the counter went backwards (it wrapped, or was reset).
        """
        now = time.monotonic()
        before, span = self._value, now - self._at
        if before is not None and span < _SHORTEST:
            return None
        self._value, self._at = value, now
        if before is None or value < before:
            return None
        return (value - before) / span


def read_file(path: str) -> bytes:
    """Return a small file of /proc or /sys. A third of the time that open() takes. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(fd, 1 << 16)]
        while parts[-1] and sum(map(len, parts)) < _MAX_FILE:
            parts.append(os.read(fd, 1 << 16))
        return b"".join(parts)
    finally:
        os.close(fd)


def names_in(folder: str) -> list[str]:
    """Return the names in a folder of /proc. Raises OSError."""
    return os.listdir(folder)  # noqa: PTH208 (a Path for each of a thousand threads would take longer than all else)
