"""Rewinds: a training that goes on from an earlier step hides what was logged beyond it, and keeps it.

A `rewind` record names a step, and the writers it applies to with the last seq of each. Records of theirs up to there
that belong to a later step are in no view; they stay in the journal, and are delivered like all others.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any

from .record import Record

# One less than an integer of 64 bits: the run's own step is one more.
_STEP_END = (1 << 63) - 1


def is_step(value: object) -> bool:
    """Tell whether a value that a record gives as a step is one that views can hold."""
    return type(value) is int and -(1 << 63) <= value < _STEP_END


def rewound_to(data: Mapping[str, Any]) -> int | None:
    """Return the last step that counts after a `rewind` record with this data; None where it is malformed."""
    step = data.get("step")
    return step if is_step(step) else None


class Rewinds:
    """What the rewinds of a run hide."""

    def __init__(self) -> None:
        # By writer, seqs and steps, both ascending: of two pairs one of which hides all that the other does, only that
        # one is kept, so of the others the first that reaches up to a record hides the most of it.
        self._of: dict[str, tuple[list[int], list[int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, data: Mapping[str, Any]) -> None:
        """Take the data of a `rewind` record; what is malformed hides nothing."""
        step, writers = rewound_to(data), data.get("writers")
        if step is None or not isinstance(writers, dict):
            return
        for name, seq in writers.items():
            if type(seq) is int and seq > 0:
                self._add(str(name), seq, step)

    def _add(self, writer: str, seq: int, step: int) -> None:
        seqs, steps = self._of.setdefault(writer, ([], []))
        at = bisect_left(seqs, seq)
        if at < len(seqs) and steps[at] <= step:
            return
        end = bisect_right(seqs, seq)
        begin = bisect_left(steps, step, 0, end)
        seqs[begin:end], steps[begin:end] = [seq], [step]

    def of(self, writer: str) -> list[tuple[int, int]]:
        """Return pairs (seq, step): of this writer, records up to `seq` are hidden if they are of a later step."""
        return list(zip(*self._of.get(writer, ([], [])), strict=True))

    def hide(self, writer: str, record: Record) -> bool:
        """Tell whether a record is hidden; so is a rewind, if a later one goes further back."""
        step = rewound_to(record.data) if record.kind == "rewind" else record.step
        return self.hide_at(writer, record.seq, step)

    def hide_at(self, writer: str, seq: int, step: int | None) -> bool:
        """Tell whether a writer's record of this seq and step is hidden."""
        if step is None or writer not in self._of:
            return False
        seqs, steps = self._of[writer]
        at = bisect_left(seqs, seq)
        return at < len(seqs) and step > steps[at]
