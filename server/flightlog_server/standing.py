"""How a run stands (its state, config and summary), kept up with whatever order its writers' records arrive in.

Writers of one run are delivered one after the other, and bit by bit, although their records belong between each other.
So every value remembers the rank of the record that set it, and the few records that begin and end writers are kept and
folded anew. The outcome is that of flightlog.journal.fold over all records in order (flightlog.journal.order).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flightlog.journal.fold import Fold
from flightlog.journal.record import Record

# When a record happened, comparable across writers: its time, the depth of its writer's parents, its writer, its seq.
Rank = list[Any]
_SETS = {"log": "summary", "summary": "summary", "config": "config"}
# Which of their data is kept of the records that begin and end writers or rename the run; None: all.
_TURNING = {"run": None, "finish": ("state", "closes_run"), "edit": ("name", "notes", "group", "job_type", "tags")}


@dataclass(slots=True)
class Clock:
    """A writer's place in the order: none of its next records counts as older than `at`."""

    at: float = 0.0
    depth: int = 0


@dataclass(slots=True)
class Standing:
    """What a run's records add up to.

    `set_by` holds the rank of the record that set each value of `config` and `summary`, `turns` the records that begin
    and end writers as [rank, time, kind, data].
    """

    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    records: int = 0
    updated_at: float = 0.0
    set_by: dict[str, dict[str, Rank]] = field(default_factory=lambda: {"config": {}, "summary": {}})
    turns: list[list[Any]] = field(default_factory=list)

    def add(self, writer: str, clock: Clock, records: Iterable[Record]) -> None:
        """Take the next records of a writer, and move its clock."""
        fresh: dict[str, tuple[dict[str, Any], dict[str, Rank]]] = {"config": ({}, {}), "summary": ({}, {})}
        for record in records:
            clock.at = max(clock.at, record.t)
            rank = [clock.at, clock.depth, writer, record.seq]
            self.updated_at = max(self.updated_at, record.t)
            if record.step is not None and record.kind in ("log", "media"):
                self.step = max(self.step, record.step + 1)
            part, data = _SETS.get(record.kind), record.data
            if record.kind in _TURNING:
                part, data = "config", self._turn(rank, record)
            if part is not None:
                fresh[part][0].update(data)
                fresh[part][1].update(dict.fromkeys(data, rank))
        for part, (values, ranks) in fresh.items():
            self._set(part, values, ranks)

    def _set(self, part: str, values: Mapping[str, Any], ranks: Mapping[str, Rank]) -> None:
        target, set_by = getattr(self, part), self.set_by[part]
        for key, rank in ranks.items():
            if key not in set_by or rank >= set_by[key]:
                target[key], set_by[key] = values[key], rank

    def _turn(self, rank: Rank, record: Record) -> dict[str, Any]:
        """Keep a record that begins or ends a writer; return the config that it sets."""
        data = dict(record.data)
        config = data.pop("config", None)
        wanted = _TURNING[record.kind]
        kept = data if wanted is None else {k: v for k, v in data.items() if k in wanted}
        self.turns.append([rank, record.t, record.kind, kept])
        return config if record.kind == "run" and isinstance(config, dict) else {}

    def fold(self) -> Fold:
        """Return what the records that begin and end writers say, in order: identity, tags, state, and the times."""
        fold = Fold()
        for (_, _, writer, seq), t, kind, data in sorted(self.turns, key=lambda turn: turn[0]):
            fold.add(writer, Record(seq, t, kind, None, data, b""))
        return fold
