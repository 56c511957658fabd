"""The one order of the records of several writers.

A writer's first record names its parents {writer: last seq seen}: everything up to there came before it. Beyond that
the clock decides, then the writer's name. Since clocks of different nodes differ, a writer's records never count as
older than the parents' records that it had seen.
"""

from __future__ import annotations

import heapq
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


def merge(
    writers: Mapping[str, Iterable[Line]], parents: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[str, Line]]:
    """Yield (writer, line) of all writers in order.

    Args:
        writers: by name, a writer's lines in order of seq.
        parents: by name, the parents of those that have any. Parents that are not among `writers` do not count.
    """
    streams = {name: iter(lines) for name, lines in writers.items()}
    waiting = {
        name: {p: seq for p, seq in parents.get(name, {}).items() if p in streams and p != name} for name in streams
    }
    heap: list[tuple[float, int, str, Line]] = []
    started: set[str] = set()

    def advance(name: str, floor: float, depth: int) -> bool:
        line = next(streams[name], None)
        if line is not None:
            heapq.heappush(heap, (max(line.t, floor), depth, name, line))
        return line is not None

    def start(floor: float, depth: int) -> None:
        """Start all that wait for nothing; one that turns out to be empty may free others at once."""
        while ready := sorted(name for name in streams.keys() - started if not waiting[name]):
            started.update(ready)
            for name in ready:
                if not advance(name, floor, depth):
                    release(name, None)
            depth += 1

    def release(name: str, seq: int | None) -> bool:
        """A writer has come to `seq` (None: to its end): nobody waits for that any more. Returns True if one did."""
        freed = False
        for needs in waiting.values():
            if name in needs and (seq is None or seq >= needs[name]):
                del needs[name]
                freed = True
        return freed

    def passed(name: str, seq: int | None, at: float, depth: int) -> None:
        if release(name, seq):
            start(at, depth + 1)

    start(0.0, 0)
    while heap or started != streams.keys():
        if not heap:  # parents in a circle: damaged or hostile, but no reason to read nothing
            for needs in waiting.values():
                needs.clear()
            start(0.0, 0)
            continue
        at, depth, name, line = heapq.heappop(heap)
        yield name, line
        if len(started) < len(streams):
            passed(name, line.seq, at, depth)
        if not advance(name, at, depth):
            passed(name, None, at, depth)
