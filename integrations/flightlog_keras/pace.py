"""Which batches are recorded: each one, every n-th, or as many as take next to nothing of the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from flightlog.errors import UsageError

# Of the time, what records of quick batches may take; with the hooks themselves it stays below 1 %.
SHARE: Final = 0.004
# What a record took while the machine was busy with other things says nothing of the next one.
LONGEST_PAUSE: Final = 0.1

Every = int | Literal["auto"] | None


class Pace:
    """Says which batches are due.

    Args:
        every: how many batches from one record to the next; "auto" for each, as far as records take no more than
            `SHARE` of the time; None for none.
        clock: returns seconds.

    Raises:
        UsageError: `every` is none of these.
    """

    def __init__(self, every: Every, clock: Callable[[], float] = time.perf_counter) -> None:
        if every not in (None, "auto") and (type(every) is not int or every < 1):
            raise UsageError(f'log_every={every!r}: a number of batches from 1, "auto" or None')
        self._every = every
        self._clock = clock
        self._next = 0.0

    def is_due(self, done: int, per_call: int) -> bool:
        """Tell whether batches are to be recorded.

        Args:
            done: how many batches of the epoch are done, these included.
            per_call: how many batches these are.
        """
        if self._every is None:
            return False
        if isinstance(self._every, int):
            return done % self._every < per_call
        return self.is_first(done, per_call) or self._clock() >= self._next

    def is_first(self, done: int, per_call: int) -> bool:
        """Tell by their number whether these are the epoch's first that are recorded: hooks may come out of order."""
        every = self._every if isinstance(self._every, int) else per_call
        return done < max(every, per_call) + per_call

    @contextmanager
    def recording(self) -> Iterator[None]:
        """What the block takes says when the next record is due."""
        began = self._clock()
        yield
        now = self._clock()
        self._next = now + min((now - began) / SHARE, LONGEST_PAUSE)
