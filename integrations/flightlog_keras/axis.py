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
        self._per_step = 1
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
        self._per_step = int(getattr(getattr(model, "optimizer", None), "gradient_accumulation_steps", None) or 1)

    def at(self, batch: int) -> int:
        """Return the step after a batch of this epoch, and take it for the last one."""
        step = self._base + (batch + 1) // self._per_step
        self.step = max(self.step, step)
        return step

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
