"""The sampler: asks every source every few seconds, on a thread of its own, and hands on one set of values.

What may hang (a GPU driver, the file system of a dead server) has a further thread: when it does not answer, the others
go on without it, the run gets one line, and its values come back if the source does. All threads are daemons, and none
exists in a forked child.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

from ..errors import UsageError
from ..terminal import guarded, warn_once
from .cgroup import Cgroup
from .feed import GRACE_SECONDS, LAST_GRACE_SECONDS, Feed, feed
from .probe import Source
from .sources import default_sources

INTERVAL = 5.0
SHORTEST_INTERVAL = 0.1
# The first sample waits until the script has got past its start, which need not share the interpreter with our imports.
_FIRST_SECONDS = 0.1
# So close after a sample the last one would say nothing new.
_LAST_SECONDS = 0.2
# What a sample may cost in processor time: a thousandth of a core at the default interval. One that costs more (very
# many processors, GPUs or threads) is taken less often in proportion, up to once a minute.
_BUDGET_SECONDS = 0.005
_LONGEST_PAUSE = 60.0


class Sampler:
    """Samples the machine in the background.

    Args:
        emit: takes the values of one sample by metric name. Called on the sampler's thread.
        note: takes one line for the run about a source that is missing, broken or hanging. Called on any thread.
        interval: seconds between samples, at least 0.1; 0 samples nothing.
        prefix: put before every name, such as "node.3.".
        folder: a folder whose file system is reported besides that of `/`: the run directory.
        per_core: report each processor, too.
        pid: the process whose tree counts as the run's; this process without it.
        cgroup: the control groups whose limits hold; this process's without it.
        sources: what to sample, instead of the default.

    Raises:
        UsageError: the interval is no number of seconds.
    """

    def __init__(
        self,
        emit: Callable[[dict[str, float]], None],
        note: Callable[[str], None],
        interval: float = INTERVAL,
        *,
        prefix: str = "",
        folder: str | os.PathLike[str] | None = None,
        per_core: bool = False,
        pid: int | None = None,
        cgroup: Cgroup | None = None,
        sources: Sequence[Source] | None = None,
    ) -> None:
        self._emit = emit
        self._note = note
        self._interval = checked_interval(interval)
        self._prefix = prefix
        self._folder = folder
        self._per_core = per_core
        self._root_pid = pid
        self._cgroup = cgroup
        self._sources = sources
        self._pid = os.getpid()
        self._loop: _Loop | None = None

    def start(self) -> None:
        """Begin to sample, in a tenth of a second. Does nothing where it has begun, or the interval is 0."""
        if self._interval == 0 or self._here() is not None:
            return
        self._pid = os.getpid()
        loop = _Loop(self._emit, self._note, self._interval, self._prefix, self._its_sources)
        if loop.start():
            self._loop = loop

    def stop(self, timeout: float = 2.0) -> None:
        """Take a last sample and end. Returns when that is done, or after `timeout` seconds; nothing is emitted after.

        A run shorter than a tenth of a second has no sample. In a forked child of the process that started it, this
        does nothing.
        """
        loop, self._loop = self._here(), None
        if loop is not None:
            loop.stop(timeout)

    def _here(self) -> _Loop | None:
        """Return what samples, None in a child that was forked from the process that has its thread."""
        return self._loop if self._pid == os.getpid() else None

    def _its_sources(self, tell: Callable[[str], None]) -> Sequence[Source]:
        if self._sources is not None:
            return self._sources
        root = self._root_pid or os.getpid()
        return default_sources(tell, root, self._cgroup or Cgroup(), folder=self._folder, per_core=self._per_core)


class _Loop:
    """One sampling, from its start to its stop; `sources` is called on its thread."""

    def __init__(
        self,
        emit: Callable[[dict[str, float]], None],
        note: Callable[[str], None],
        interval: float,
        prefix: str,
        sources: Callable[[Callable[[str], None]], Sequence[Source]],
    ) -> None:
        self._emit = emit
        self._note = note
        self._interval = interval
        self._prefix = prefix
        self._sources = sources
        self._over = False
        self._feeds: list[Feed] = []
        # A signal handler may end the run at any moment: unlike an Event, this can be put to in the midst of a put.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="flightlog-system", daemon=True)

    def start(self) -> bool:
        """Begin; return whether that was possible."""
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads for this user, or the interpreter is shutting down
            warn_once("system", f"there are no system metrics: flightlog's thread cannot be started ({error}).")
            return False
        return True

    def stop(self, timeout: float) -> None:
        """Take a last sample and end; leave the thread to itself where that takes longer than `timeout`."""
        self._bell.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        self._over = True

    def _run(self) -> None:
        if self._rings(_FIRST_SECONDS):
            return
        with guarded("system metrics"):
            self._feeds = [feed(source, self._tell) for source in self._sources(self._tell)]
            self._sample_until_stopped()
        for one in self._feeds:
            one.close()

    def _sample_until_stopped(self) -> None:
        while self._sample(GRACE_SECONDS):
            sampled = time.monotonic()
            if self._rings(self._pause()):
                if time.monotonic() - sampled > _LAST_SECONDS:
                    self._sample(LAST_GRACE_SECONDS)
                return

    def _rings(self, seconds: float) -> bool:
        """Wait, and return whether the sampling is to end."""
        try:
            self._bell.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def _pause(self) -> float:
        cost = sum(one.cost for one in self._feeds)
        stretched = self._interval * max(1.0, cost / _BUDGET_SECONDS)
        return max(self._interval, min(stretched, _LONGEST_PAUSE))

    def _sample(self, grace: float) -> bool:
        """Ask every source and emit what they say. Returns whether anybody still listens."""
        for one in self._feeds:
            one.ask()
        values: dict[str, float] = {}
        until = time.monotonic() + grace
        for one in self._feeds:
            values.update(one.take(until))
        named = {self._prefix + name: _rounded(value) for name, value in values.items() if math.isfinite(value)}
        if not named or self._over:
            return not self._over
        try:
            with guarded("system metrics"):
                self._emit(named)
        except UsageError:  # the run has ended meanwhile
            return False
        return True

    def _tell(self, line: str) -> None:
        if not self._over:
            with contextlib.suppress(UsageError), guarded("system metrics"):
                self._note(f"system metrics: {line}")


def checked_interval(interval: float) -> float:
    """Return an interval in seconds, 0 for none. Raises UsageError where it is negative, too short or no number."""
    try:
        seconds = float(interval)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"system_interval={interval!r} is no number of seconds") from None
    if seconds == 0 or SHORTEST_INTERVAL <= seconds < threading.TIMEOUT_MAX:
        return seconds
    raise UsageError(f"system_interval={interval!r}: at least {SHORTEST_INTERVAL} seconds, or 0 for no system metrics")


def _rounded(value: float) -> float:
    """Return a value with three decimals, which is more than any source knows, and half the bytes in the journal."""
    return round(float(value), 3)
