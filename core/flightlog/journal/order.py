"""The one order of the records of several writers.

A writer's first record names its parents {writer: last seq seen}: everything up to there came before it. Beyond that
the clock decides, then the writer's name. Since clocks of different nodes differ, a writer's records never count as
older than the parents' records that it had seen.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from .record import Line

L = TypeVar("L")


def parents_of(data: Mapping[str, object]) -> dict[str, int]:
    """Return the parents named in the data of a `run` record; what is malformed does not count."""
    found = data.get("parents")
    if not isinstance(found, dict):
        return {}
    return {str(name): seq for name, seq in found.items() if type(seq) is int and seq > 0}


class _Waiting:
    """The writers that have not begun, each until its parents have come to where it had seen them.

    What is needed of a parent is a heap, so that a record costs no more for however many wait for later ones.

    Attributes:
        names: those that have not begun, and how many parents each waits for.
    """

    def __init__(self, names: Iterable[str], parents: Mapping[str, Mapping[str, int]]) -> None:
        known = set(names)
        self.names: dict[str, int] = {}
        self._needed: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for name in known:
            needs = {p: seq for p, seq in parents.get(name, {}).items() if p in known and p != name}
            self.names[name] = len(needs)
            for parent, seq in needs.items():
                self._needed[parent].append((seq, name))
        for heap in self._needed.values():
            heapq.heapify(heap)

    def free(self) -> list[str]:
        """Return those that wait for nothing from the outset."""
        return self._leave([name for name, count in self.names.items() if not count])

    def passed(self, parent: str, seq: int | None) -> list[str]:
        """A writer has come to `seq` (None: to its end). Return those that wait for nothing now."""
        heap = self._needed.get(parent)
        ready = []
        while heap and (seq is None or heap[0][0] <= seq):
            _, child = heapq.heappop(heap)
            if child in self.names:
                self.names[child] -= 1
                if not self.names[child]:
                    ready.append(child)
        return self._leave(ready)

    def all(self) -> list[str]:
        """Let all go, whatever they wait for."""
        return self._leave(list(self.names))

    def _leave(self, names: list[str]) -> list[str]:
        for name in names:
            del self.names[name]
        return names


def merge(
    writers: Mapping[str, Iterable[Line]], parents: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[str, Line]]:
    """Yield (writer, line) of all writers in order.

    Args:
        writers: by name, a writer's lines in order of seq.
        parents: by name, the parents of those that have any. Parents that are not among `writers` do not count.
    """
    streams = {name: iter(lines) for name, lines in writers.items()}
    waiting = _Waiting(streams, parents)
    heap: list[tuple[float, int, str, Line]] = []

    def advance(name: str, floor: float, depth: int) -> bool:
        line = next(streams[name], None)
        if line is not None:
            heapq.heappush(heap, (max(line.t, floor), depth, name, line))
        return line is not None

    def start(ready: list[str], floor: float, depth: int) -> None:
        """Start writers; one that turns out to be empty may free others at once."""
        while ready:
            empty = [name for name in sorted(ready) if not advance(name, floor, depth)]
            ready = [child for name in empty for child in waiting.passed(name, None)]
            depth += 1

    start(waiting.free(), 0.0, 0)
    while heap or waiting.names:
        if not heap:  # parents in a circle: damaged or hostile, but no reason to read nothing
            start(waiting.all(), 0.0, 0)
            continue
        at, depth, name, line = heapq.heappop(heap)
        yield name, line
        if waiting.names:
            start(waiting.passed(name, line.seq), at, depth + 1)
        elif not heap:  # the last one, or the only one
            yield from ((name, line) for line in streams[name])
        if not advance(name, at, depth) and waiting.names:
            start(waiting.passed(name, None), at, depth + 1)
