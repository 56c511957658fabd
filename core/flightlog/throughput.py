"""How fast a training goes: steps, samples and tokens a second, and how long it waits for data.

Measured from what a loop passes by: the next batch is asked for, the batch is there, its step is done. Nothing here
looks at a device, so a loop that only queues work is as fast as it queues; over a window of steps that is how fast the
device works it off.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from .run import Run

PREFIX = "perf/"
_MAX_DEPTH = 4
_MAX_ITEMS = 8
# What text models call their input: its elements are the tokens.
_TOKEN_KEYS = ("input_ids", "tokens", "token_ids")
_T = TypeVar("_T")


class Throughput:
    """Counts steps and the time they take; `read` gives the rates since it was last called.

    Args:
        scale: how many processes do the same beside this one, itself included: samples and tokens are multiplied.
        clock: returns seconds.

    Attributes:
        scale: likewise; it may be set anew.
        steps: how many steps since the last `read`.
    """

    def __init__(self, scale: int = 1, clock: Callable[[], float] = time.perf_counter) -> None:
        self.scale = scale
        self._clock = clock
        self._since: float | None = None  # since when the next batch is waited for; None while nobody is
        self._began = 0.0
        self._forget()

    def _forget(self) -> None:
        self.steps = 0
        self._busy = self._waited = 0.0
        self._samples = self._tokens = 0

    def start(self) -> None:
        """The first batch is asked for now, or the next one after a pause."""
        self._since = self._clock()

    def pause(self) -> None:
        """What follows (a validation, a checkpoint) is no part of the training's time, up to `start` or a batch."""
        self._since = None

    def batch_ready(self) -> None:
        """The batch is there; what has passed since the last step, or `start`, was waiting for it."""
        now = self._clock()
        if self._since is not None:
            self._waited += now - self._since
            self._busy += now - self._since
        self._began = now

    def step_done(self, samples: int | None = None, tokens: int | None = None) -> None:
        """The batch's step is done, and the next batch is asked for.

        Args:
            samples, tokens: how many the batch had in this process, where that is known.
        """
        now = self._clock()
        self._busy += now - self._began
        self._since = now
        self.steps += 1
        self._samples += samples or 0
        self._tokens += tokens or 0

    def read(self) -> dict[str, float]:
        """Return the rates since the last call, as metrics; nothing where there was no step.

        Returns:
            "perf/steps_per_second", "perf/step_seconds" (the mean), "perf/data_seconds" (of that, waiting for the
            batch) and, where they are known, "perf/samples_per_second" and "perf/tokens_per_second".
        """
        steps, busy = self.steps, self._busy
        if not steps or busy <= 0:
            return {}
        values = {
            f"{PREFIX}steps_per_second": steps / busy,
            f"{PREFIX}step_seconds": busy / steps,
            f"{PREFIX}data_seconds": self._waited / steps,
        }
        if self._samples:
            values[f"{PREFIX}samples_per_second"] = self._samples * self.scale / busy
        if self._tokens:
            values[f"{PREFIX}tokens_per_second"] = self._tokens * self.scale / busy
        self._forget()
        return values


def batch_size(batch: object) -> int | None:
    """Return how many samples a batch has: the first dimension of the first array in it; None where it has none."""
    try:
        shape = _first_shape(batch, 0)
    except Exception:  # a batch may be anything, and its own code raise anything
        return None
    if shape is not None:
        return int(shape[0]) if len(shape) else 1
    return len(batch) if isinstance(batch, list) else None


def token_count(batch: Any) -> int | None:
    """Return how many tokens a batch has, padding included: the elements of its "input_ids"; None without those."""
    for key in _TOKEN_KEYS if isinstance(batch, Mapping) else ():
        with contextlib.suppress(Exception):  # no mapping, no such key, no array: whatever a batch's own code raises
            return math.prod(int(n) for n in batch[key].shape)
    return None


def _first_shape(value: Any, depth: int) -> tuple[int, ...] | None:
    shape = getattr(value, "shape", None)
    if shape is not None:
        try:
            return tuple(int(n) for n in shape)
        except (TypeError, ValueError):  # a dimension that is not known
            return None
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        inner: Iterable[Any] = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    else:
        return None
    for number, item in enumerate(inner):
        found = _first_shape(item, depth + 1)
        if found is not None or number >= _MAX_ITEMS:
            return found
    return None


class Tracked(Generic[_T]):
    """A loader's batches, passed on as they come; see `Run.track`."""

    def __init__(
        self, run: Run, loader: Iterable[_T], epoch: int | None = None, every: int = 50, meter: Throughput | None = None
    ) -> None:
        self._run = run
        self._loader = loader
        self._epoch = epoch
        self._every = max(1, every)
        self._meter = meter or Throughput()

    def __len__(self) -> int:
        if isinstance(self._loader, Sized):
            return len(self._loader)
        raise TypeError(f"{type(self._loader).__name__} has no len()")

    def __iter__(self) -> Iterator[_T]:
        meter, begun = self._meter, self._run.step
        meter.start()
        try:
            for batch in self._loader:
                meter.batch_ready()
                samples, tokens = batch_size(batch), token_count(batch)
                yield batch
                meter.step_done(samples, tokens)
                if meter.steps >= self._every:
                    self._record(begun)
        finally:  # also of a loop that is left by `break`
            self._record(begun)

    def _record(self, begun: int) -> None:
        """Record the rates at the step that the script last logged: its own next step is none of our business.

        Args:
            begun: the run's next step as the loop began. If it still is, what was logged last belongs to something
                else, such as the epoch before, and the rates go with what will be logged behind the loop.
        """
        values: dict[str, Any] = self._meter.read()
        run = self._run
        if values and run.rank == 0 and run.state == "running":
            if self._epoch is not None:
                values["epoch"] = self._epoch
            run.log(values, step=run.step - 1 if run.step > begun else begun, commit=False)
        self._meter.start()
