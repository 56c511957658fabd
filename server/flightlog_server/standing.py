"""How a run stands (its state, config and summary), kept up with whatever order its writers' records arrive in.

Writers of one run are delivered one after the other, and bit by bit, although their records belong between each other.
So every value remembers the rank of the record that set it, and the few records that begin and end writers, or say how
others are to be seen, are kept and folded anew. The outcome is that of flightlog.journal.fold over all records in order
(flightlog.journal.order).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from flightlog.journal.define import Definitions, Tally, from_data
from flightlog.journal.fold import Fold
from flightlog.journal.record import Record
from flightlog.journal.rewind import Rewinds, rewound_to

# When a record happened, comparable across writers: its time, the depth of its writer's parents, its writer, its seq.
Rank = list[Any]
_SETS = {"log": "summary", "summary": "summary", "config": "config"}
GUIDES = ("define", "rewind")
# What is kept of the records that begin and end writers, rename the run, or say how others are to be seen; None: all.
_TURNING = {
    "run": None,
    "finish": ("state", "closes_run", "rank"),
    "edit": ("name", "notes", "group", "job_type", "tags"),
    "preempting": (),
    "define": None,
    "rewind": None,
}


@dataclass(slots=True)
class Clock:
    """A writer's place in the order: none of its next records counts as older than `at`."""

    at: float = 0.0
    depth: int = 0

    def next(self, writer: str, record: Record) -> Rank:
        """Move on to the writer's next record, and return its rank."""
        self.at = max(self.at, record.t)
        return [self.at, self.depth, writer, record.seq]


@dataclass(slots=True)
class Standing:
    """What a run's records add up to.

    `set_by` holds the rank of the record that set each value of `config` and `summary`, `tallies` what is counted of
    metrics whose summary is not just the last value as [rank of the latest, tally], `turns` the records that begin and
    end writers, or say how others are to be seen, as [rank, time, kind, data].
    """

    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    records: int = 0
    updated_at: float = 0.0
    set_by: dict[str, dict[str, Rank]] = field(default_factory=lambda: {"config": {}, "summary": {}})
    turns: list[list[Any]] = field(default_factory=list)
    tallies: dict[str, list[Any]] = field(default_factory=dict)

    def kept(self) -> dict[str, Any]:
        """Return what must be kept of it besides what is shown."""
        return {"set_by": self.set_by, "turns": self.turns, "tallies": self.tallies}

    def guides(self) -> tuple[Definitions, Rewinds]:
        """Return what is said of metrics and of earlier steps, as flightlog.journal.scan gathers it."""
        return gathered(self.said())

    def said(self) -> list[Said]:
        """Return the records among the turns that say how others are to be seen."""
        return [(rank, kind, data) for rank, _, kind, data in self.turns if kind in GUIDES]

    def add(
        self,
        writer: str,
        clock: Clock,
        records: Iterable[Record],
        guides: tuple[Definitions, Rewinds] | None = None,
    ) -> None:
        """Take the next records of a writer, and move its clock.

        Args:
            writer: its name.
            clock: its place in the order.
            records: the records.
            guides: how they are to be seen; what `guides()` gives, without them.
        """
        definitions, rewinds = guides or self.guides()
        if not definitions and not rewinds:
            records = self._add_logs(writer, clock, list(records))
        fresh: dict[str, tuple[dict[str, Any], dict[str, Rank]]] = {"config": ({}, {}), "summary": ({}, {})}
        counted: set[str] = set()
        for record in records:
            rank = clock.next(writer, record)
            if rewinds.hide(writer, record):
                if record.kind == "rewind":  # what it hides stays hidden
                    self._turn(rank, record)
                continue
            self.updated_at = max(self.updated_at, record.t)
            self._step(record)
            part, data = _SETS.get(record.kind), record.data
            if record.kind in _TURNING:
                part, data = "config", self._turn(rank, record)
            if record.kind == "log" and definitions:
                data = self._count(definitions, rank, data, counted)
            if part is not None:
                fresh[part][0].update(data)
                fresh[part][1].update(dict.fromkeys(data, rank))
        for part, (values, ranks) in fresh.items():
            self._set(part, values, ranks)
        for metric in counted:
            self._show_tally(metric, definitions)

    def _add_logs(self, writer: str, clock: Clock, records: list[Record]) -> Iterator[Record]:
        """Take log records whose values simply replace each other; yield the others, the clock being at each.

        Of a batch only the last value of each metric counts: the others are not even looked at.
        """
        values: dict[str, Any] = {}
        ranks: dict[str, Rank] = {}
        times = list(accumulate((record.t for record in records), max, initial=clock.at))
        for at, record in zip(reversed(times), reversed(records), strict=False):
            if record.kind == "log" and not record.data.keys() <= values.keys():
                for key in record.data.keys() - values.keys():
                    values[key], ranks[key] = record.data[key], [at, clock.depth, writer, record.seq]
        logs = [record for record in records if record.kind == "log"]
        if logs:
            self._set("summary", values, ranks)
            self.updated_at = max(self.updated_at, max(record.t for record in logs))
            self.step = max(self.step, max((record.step + 1 for record in logs if record.step is not None), default=0))
        for at, record in zip(times, records, strict=False):
            if record.kind != "log":
                clock.at = at
                yield record
        clock.at = times[-1]

    def _step(self, record: Record) -> None:
        if record.kind == "rewind":
            step = rewound_to(record.data)
            self.step = max(self.step, step + 1) if step is not None else self.step
        elif record.step is not None and record.kind in ("log", "media"):
            self.step = max(self.step, record.step + 1)

    def _count(
        self, definitions: Definitions, rank: Rank, data: Mapping[str, Any], counted: set[str]
    ) -> dict[str, Any]:
        """Count those metrics whose summary is not just the last value, and return the others."""
        plain = {}
        for metric, value in data.items():
            definition = definitions.of(metric)
            if definition is None or not definition.aggregates:
                plain[metric] = value
                continue
            counted.add(metric)
            latest, values = self.tallies.get(metric) or [rank, Tally().to_list()]
            tally = Tally(*values)
            before = tally.last
            tally.take(value)
            if rank < latest:
                tally.last = before
            self.tallies[metric] = [max(rank, latest), tally.to_list()]
        return plain

    def _show_tally(self, metric: str, definitions: Definitions) -> None:
        definition = definitions.of(metric)
        rank, values = self.tallies[metric]
        if definition is not None:
            for key, value in Tally(*values).summary(metric, definition).items():
                if self.set_by["summary"].get(key, rank) <= rank:
                    self.summary[key], self.set_by["summary"][key] = value, rank

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


# A record that says how others are to be seen: its rank, kind and data.
Said = tuple[Rank, str, Mapping[str, Any]]


def said_by(writer: str, clock: Clock, records: Iterable[Record]) -> list[Said]:
    """Return what the next records of a writer say of how others are to be seen; moves its clock past them all."""
    records = list(records)
    if all(record.kind not in GUIDES for record in records):
        clock.at = max([clock.at, *(record.t for record in records)])
        return []
    ranked = ((clock.next(writer, record), record) for record in records)
    return [(rank, record.kind, record.data) for rank, record in ranked if record.kind in GUIDES]


def gathered(said: Iterable[Said]) -> tuple[Definitions, Rewinds]:
    """Return the definitions and rewinds of a run from all the records that say them, whatever order they come in."""
    definitions, rewinds = Definitions(), Rewinds()
    for _, kind, data in sorted(said, key=lambda each: each[0]):
        if kind == "rewind":
            rewinds.add(data)
        elif kind == "define" and (definition := from_data(data)):
            definitions.add(definition)
    return definitions, rewinds
