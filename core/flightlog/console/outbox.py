"""Lines on their way into the journal, and how much of it they may take.

A program that prints without end must not fill a disk. Lines wait here, the newest of them; a bucket of bytes says how
many may leave. When it is empty lines go on arriving and the oldest ones give way: they are counted, and the next
record of their stream says how many it were.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from .screen import Line

RATE = 64 << 10
BURST = 256 << 10
RUN_LIMIT = 10 << 20
# Beyond RUN_LIMIT: the newest lines once in an hour or so, 1.4 MB a day.
TRICKLE = 16
# What waits beyond what may leave at once; and what one record holds at most, so that it fits into a line of a journal.
MAX_WAITING = 64 << 10
MAX_RECORD = 64 << 10
_OVERHEAD = 32
STREAMS = ("stdout", "stderr")


class Outbox:
    """Lines that wait, within bounds. Not for two threads at once.

    Args:
        now: a monotonic time in seconds, as for the other methods.
    """

    def __init__(self, now: float) -> None:
        self._lines: OrderedDict[int, tuple[str, str]] = OrderedDict()
        self._size = 0
        self._dropped: dict[str, int] = dict.fromkeys(STREAMS, 0)
        self._allowance = float(BURST)
        self._spent = 0
        self._asked = now

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, stream: str, lines: list[Line]) -> None:
        """Put lines behind those that wait; a line that waits already is replaced."""
        for number, text in lines:
            earlier = self._lines.get(number)
            if earlier is not None:
                self._size -= _cost(earlier[1])
            self._lines[number] = (stream, text)
            self._size += _cost(text)
        room = MAX_WAITING + max(0.0, self._allowance)
        while self._size > room and len(self._lines) > 1:
            _, (stream, text) = self._lines.popitem(last=False)
            self._size -= _cost(text)
            self._dropped[stream] += 1

    def drop(self, stream: str, lines: int) -> None:
        """Count lines that were left out before they came here."""
        self._dropped[stream] += lines

    def take(self, now: float, *, everything: bool = False) -> list[dict[str, Any]]:
        """Return what may leave now as the data of records, each of one stream.

        Args:
            now: see above.
            everything: what waits leaves in any case; for the end of a run.
        """
        self._refill(now)
        if not self._lines or (self._allowance <= 0 and not everything):
            return []
        self._allowance -= self._size
        self._spent += self._size
        taken, self._lines, self._size = self._lines, OrderedDict(), 0
        return [record for stream in STREAMS for record in self._records(stream, taken)]

    def _records(self, stream: str, taken: Mapping[int, tuple[str, str]]) -> list[dict[str, Any]]:
        batches: list[list[list[Any]]] = []
        size = MAX_RECORD
        for number, (of, text) in taken.items():
            if of != stream:
                continue
            size += _cost(text)
            if size > MAX_RECORD:
                batches.append([])
                size = _cost(text)
            batches[-1].append([number, text])
        return [self._record(stream, lines) for lines in batches]

    def _record(self, stream: str, lines: list[list[Any]]) -> dict[str, Any]:
        data: dict[str, Any] = {"stream": stream, "lines": lines}
        if self._dropped[stream]:
            data["dropped"] = self._dropped[stream]
            self._dropped[stream] = 0
        return data

    def _refill(self, now: float) -> None:
        rate = RATE if self._spent < RUN_LIMIT else TRICKLE
        self._allowance = min(float(BURST), self._allowance + rate * max(0.0, now - self._asked))
        if rate == TRICKLE:
            self._allowance = min(self._allowance, 1.0)  # what was saved up earlier ends with the limit
        self._asked = now


def _cost(text: str) -> int:
    return len(text) + _OVERHEAD
