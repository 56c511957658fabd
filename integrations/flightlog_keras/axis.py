"""The step that a training's records stand at: how often the optimizer has updated the weights.

Keras keeps that number on the device, and with the weights in a checkpoint. It is read once an epoch, where Keras has
brought everything to the host anyway; in between the batches are counted.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

import keras


def number(value: Any) -> float:
    """Return a scalar variable or tensor of any backend as a number."""
    array: Any = keras.ops.convert_to_numpy(value)
    return float(array)


def iterations(model: Any) -> int | None:
    """Return how many updates a model's optimizer has made; None where that cannot be told."""
    with contextlib.suppress(Exception):  # no optimizer, one of the user's own, or a state that lies elsewhere just now
        return int(number(model.optimizer.iterations))
    return None


class Axis:
    """Counts the steps of a run over one `fit` after another.

    Attributes:
        step: the last one.
    """

    def __init__(self) -> None:
        self.step = 0
        self._optimizer: weakref.ref[Any] | None = None
        # Step `_base` is where the optimizer's own count is, or was, `_updates`.
        self._base = 0
        self._updates = 0
        # An update takes the gradients of `_per_step` batches; of `_batches` the optimizer had, as the epoch began.
        self._per_step = 1
        self._batches = 0
        self._is_used = True

    def begin(self, model: Any, known: int | None) -> bool:
        """A `fit` begins.

        Args:
            model: what is trained, with its state as it is restored.
            known: the step that this state was saved at, where a checkpoint tells it.

        Returns:
            Whether it goes on from an earlier step than the one that was reached.
        """
        optimizer, before = getattr(model, "optimizer", None), self.step
        same = self._optimizer is not None and optimizer is not None and self._optimizer() is optimizer
        updates = iterations(model) or 0
        if known is not None:
            self.step = known
        elif (same or self._optimizer is None) and self._is_used:
            self.step = max(0, self._base + updates - self._updates)
        if not same:
            self._is_used = True
        self._base, self._updates = self.step, updates
        self._optimizer = None if optimizer is None else weakref.ref(optimizer)
        return self.step < before

    def begin_epoch(self, model: Any) -> None:
        """An epoch begins: batches are counted from here."""
        optimizer = getattr(model, "optimizer", None)
        counting: Any = getattr(optimizer, "inner_optimizer", None) or optimizer  # the one whose loss is scaled
        self._per_step = int(getattr(counting, "gradient_accumulation_steps", None) or 1)
        self._batches = self._updates * self._per_step
        if self._per_step > 1:  # an update may span two epochs; only its own variable tells how far it is
            with contextlib.suppress(Exception):
                self._batches = int(number(counting._iterations))

    def at(self, batch: int) -> int:
        """Return the step after a batch of this epoch, and take it for the last one."""
        begun = self._batches % self._per_step
        step = self._base + (begun + batch + 1) // self._per_step
        self.step = max(self.step, step)
        return step

    def batches_at(self, batch: int) -> int:
        """Return how many batches the optimizer has had after one of this epoch: what schedules go by."""
        return self._batches + (batch + 1 if self._is_used else 0)

    def end_epoch(self, model: Any) -> None:
        """All batches of the epoch are through: the optimizer's own count is right, if it is used at all."""
        self.step, updates = self.now(model)
        if updates is not None:
            self._is_used = updates != self._updates or self._per_step > 1
            self._updates = updates
        self._base = self.step

    def now(self, model: Any) -> tuple[int, int | None]:
        """Return the step that a model has come to, and its optimizer's count, where its state lies at hand."""
        updates = iterations(model)
        if updates is None or (updates == self._updates and self._per_step == 1):
            return self.step, updates
        return max(0, self._base + updates - self._updates), updates
