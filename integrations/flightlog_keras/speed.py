"""How fast a `fit` goes, as far as its hooks show it.

With asynchronous dispatch the end of a batch is told by another thread, at some later time; the beginning of the next
one tells it then. Waiting for data lies between the two on the torch backend; on jax and tensorflow the compiled step
fetches its own data, and nothing tells the one from the other.
"""

from __future__ import annotations

import threading
import time

import keras

from flightlog.throughput import PREFIX, Throughput

_EVERY = 50


class Speed:
    """Turns the hooks of batches into rates.

    Attributes:
        per_call: how many batches a hook stands for.
        seconds: how long the batches of this epoch have taken together.
    """

    def __init__(self) -> None:
        self._meter = Throughput()
        self._shows_data = keras.backend.backend() == "torch"
        self._thread = 0
        self._is_open = False
        self.per_call = 1
        self._ready: dict[str, float] | None = None
        self._since: float | None = None
        self.seconds = 0.0

    def begin_epoch(self, per_call: int) -> None:
        """An epoch begins, whose hooks come once for so many batches."""
        self.per_call = max(1, per_call)
        self.seconds = 0.0
        self._is_open = False
        self._since = time.perf_counter()
        self._meter.start()

    def begin(self) -> None:
        """A batch is about to be worked on."""
        self._thread = threading.get_ident()
        if self._is_open:
            self._shows_data = False
            self._meter.step_done()
        if self._meter.steps * self.per_call >= _EVERY:
            self._ready = self._read()
        self._meter.batch_ready()
        self._is_open = True

    def end(self) -> None:
        """The batch is done, maybe told by another thread."""
        if self._is_open and threading.get_ident() == self._thread:
            self._meter.step_done()
            self._is_open = False

    def take(self) -> dict[str, float]:
        """Return rates, if it is time for them."""
        ready, self._ready = self._ready, None
        return ready or {}

    @property
    def is_running(self) -> bool:
        """Whether the batches of an epoch are being worked on."""
        return self._since is not None

    def end_epoch(self) -> None:
        """The epoch's batches are through; a validation that follows does not count."""
        if self._since is None:
            return
        if self._is_open:
            self._meter.step_done()
            self._is_open = False
        self.seconds = time.perf_counter() - self._since
        self._since = None
        self._meter.pause()

    def rest(self, samples: int | None) -> dict[str, float]:
        """Return the rates since they were last taken, and of the whole epoch how many samples a second it took."""
        values = {**self.take(), **self._read()}
        if samples and self.seconds > 0:
            values[f"{PREFIX}samples_per_second"] = samples / self.seconds
        return values

    def _read(self) -> dict[str, float]:
        values = self._meter.read()
        if not values:
            return {}
        if not self._shows_data:
            values.pop(f"{PREFIX}data_seconds", None)
        values[f"{PREFIX}steps_per_second"] *= self.per_call
        for name in (f"{PREFIX}step_seconds", f"{PREFIX}data_seconds"):
            if name in values:
                values[name] /= self.per_call
        return values
