"""What is shown of a run, brought up to records that have come: an index over the lines, which can be made again.

Records of several writers arrive in any order. Where what has come only follows what is there it is added to; where it
changes how others are to be seen, or their order, all records of the run are read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from flightlog.journal.define import Definitions
from flightlog.journal.record import Line, Record
from flightlog.journal.rewind import Rewinds
from flightlog.journal.scan import parsed
from flightlog.journal.values import spell

from .metrics.index import add_records, forget
from .standing import Clock, Said, Standing, gathered, said_by
from .store import journals
from .store.database import insert_new
from .store.objects import Objects
from .store.schema import events, media, runs, writers

_EVENTS = ("alert",)
_TOGETHER = 50_000


class RunIndex:
    """The index of one run, within a transaction.

    Args:
        connection: the transaction, which has the run's row to itself.
        objects: where journals lie that are no longer in SQL.
        run_id: the run's row.
    """

    def __init__(self, connection: Connection, objects: Objects, run_id: int) -> None:
        self._connection = connection
        self._objects = objects
        self._run_id = run_id

    def append(self, writer: Any, before: int, lines: Sequence[Line]) -> None:
        """Take note of lines that now stand at the end of a writer.

        Args:
            writer: its row, with them.
            before: the last seq that it had without them.
            lines: what has come.
        """
        records = records_of(lines)
        self._bring_up(writer, records, len(lines), self._place(writer, before))
        add_records(self._connection, self._run_id, writer.id, [r for r in records if r.kind == "log"])
        self._list(writer, records)

    def fill(self, writer: Any, lines: Sequence[Line]) -> None:
        """Take note of lines that now stand between others of a writer, whose row this is with them."""
        records = records_of(lines)
        self._bring_up(writer, records, len(lines), None)
        if any(record.kind == "log" for record in records):
            forget(self._connection, writer.id)
            together: list[Record] = []
            for record in self._read(writer):
                if record.kind == "log":
                    together.append(record)
                if len(together) == _TOGETHER:
                    add_records(self._connection, self._run_id, writer.id, together)
                    together = []
            add_records(self._connection, self._run_id, writer.id, together)
        self._list(writer, records)

    def _writers(self) -> Sequence[Any]:
        """Return the rows of the run's writers that have records."""
        query = sa.select(writers).where(writers.c.run_id == self._run_id, writers.c.last_seq > 0)
        return self._connection.execute(query).all()

    def _read(self, writer: Any) -> Iterator[Record]:
        """Yield the records that are a writer's alone, a row of them in memory at a time."""
        for line in journals.own_lines(self._connection, self._objects, writer):
            record = parsed(line)
            if record is not None:
                yield record

    def _note(self, writer_id: int, **facts: Any) -> None:
        self._connection.execute(writers.update().where(writers.c.id == writer_id).values(facts))

    # -- order ---------------------------------------------------------------------------------------------------------

    def _place(self, writer: Any, before: int) -> Clock | None:
        """Return a writer's place in the order before what comes; None where that changes the place of others."""
        others = {row.name: row for row in self._writers() if row.id != writer.id}
        if any(other.parents.get(writer.name, 0) > before for other in others.values()):
            return None  # what they had seen of this writer arrives only now
        first = before == (writer.base_seq if writer.base_id is not None else 0)
        if not first or not writer.parents:
            return Clock(writer.at, writer.depth)
        clock = self._behind(writer.parents, others)
        self._note(writer.id, floor=clock.at, depth=clock.depth)
        return clock

    def _behind(self, parents: dict[str, int], known: dict[str, Any]) -> Clock:
        """Return the place of a writer that begins: behind what it has seen of its parents."""
        seen = [(self._time_at(known[p], seq), known[p].depth + 1, p) for p, seq in parents.items() if p in known]
        at, depth, _ = max(seen, default=(0.0, 0, ""))
        return Clock(at, depth)

    def _time_at(self, writer: Any, seq: int) -> float:
        if seq >= writer.last_seq:
            return float(writer.at)
        lines = journals.lines(self._connection, self._objects, writer, 1, seq)
        return max([float(writer.floor), *(line.t for line in lines)])

    def _order_anew(self) -> list[Said]:
        """Give all writers their places again; return what they say of how records are to be seen."""
        waiting = {row.name: row for row in self._writers()}
        known: dict[str, Any] = {}
        said: list[Said] = []
        while waiting:
            ready = [row for row in waiting.values() if not any(p in waiting for p in row.parents if p != row.name)]
            for row in ready or list(waiting.values()):
                clock = self._behind(row.parents, known) if ready else Clock()  # parents in a circle do not count
                place = {"floor": clock.at, "depth": clock.depth}
                said += said_by(row.name, clock, self._read(row))
                self._note(row.id, **place, at=clock.at)
                query = sa.select(writers).where(writers.c.id == row.id)
                known[row.name] = self._connection.execute(query).one()
                del waiting[row.name]
        return said

    # -- how the run stands --------------------------------------------------------------------------------------------

    def _stand_anew(self, guides: tuple[Definitions, Rewinds]) -> Standing:
        """Read all records again, whose writers' places are known: new ones change how they are to be seen."""
        standing = Standing()
        for row in self._writers():
            clock = Clock(row.floor, row.depth)
            standing.add(row.name, clock, self._read(row), guides)
            self._note(row.id, at=clock.at)
        return standing

    def _bring_up(self, writer: Any, records: Sequence[Record], count: int, clock: Clock | None) -> None:
        """Bring how the run stands up to a writer's records, from its place `clock` on (None: all is seen anew)."""
        row = self._connection.execute(sa.select(runs).where(runs.c.id == self._run_id)).one()
        standing = Standing(row.config, row.summary, row.step, row.records, row.updated_at, **row.standing)
        news = [] if clock is None else said_by(writer.name, replace(clock), records)
        guides = gathered(self._order_anew() if clock is None else [*standing.said(), *news])
        if clock is None or (news and row.records):
            standing = self._stand_anew(guides)
        else:
            standing.add(writer.name, clock, records, guides)
            self._note(writer.id, at=clock.at)
        self._hide(guides[1])
        self._show(row, standing, guides[0], count)

    def _show(self, row: Any, standing: Standing, definitions: Definitions, count: int) -> None:
        fold = standing.fold()
        identity = fold.identity
        self._connection.execute(
            runs.update()
            .where(runs.c.id == self._run_id)
            .values(
                {
                    runs.c.name: _text(identity.get("name")) or row.name,
                    runs.c.group: _text(identity.get("group")),
                    runs.c.job_type: _text(identity.get("job_type")),
                    runs.c.notes: _text(identity.get("notes")),
                    runs.c.host: _text(identity.get("host")),
                    runs.c.command: _words(identity.get("command")),
                    runs.c.tags: fold.tags,
                    runs.c.state: fold.state,
                    runs.c.preempting: fold.preempting,
                    runs.c.definitions: [definition.data() for definition in definitions],
                    runs.c.started_at: fold.started_at,
                    runs.c.finished_at: fold.finished_at,
                    runs.c.standing: standing.kept(),
                    runs.c.updated_at: standing.updated_at,
                    runs.c.config: standing.config,
                    runs.c.summary: standing.summary,
                    runs.c.step: standing.step,
                    runs.c.records: row.records + count,
                    runs.c.version: row.version + 1,
                }
            )
        )

    def _hide(self, rewinds: Rewinds) -> None:
        """Note with each writer which of its records a rewind hides."""
        if rewinds:
            query = sa.select(writers).where(writers.c.run_id == self._run_id)
            for row in self._connection.execute(query).all():
                hidden = [list(pair) for pair in rewinds.of(row.name)]
                if hidden != row.hidden:
                    self._note(row.id, hidden=hidden)

    # -- what is shown one by one --------------------------------------------------------------------------------------

    def _list(self, writer: Any, records: Sequence[Record]) -> None:
        """Take note of media and events."""
        named = {"run_id": self._run_id, "writer": writer.name}
        rows = [
            {**named, "seq": r.seq, "step": r.step, "timestamp": r.t, "entries": spell(r.data)}
            for r in records
            if r.kind == "media"
        ]
        insert_new(self._connection, media, rows)
        shown = [r for r in records if r.kind in _EVENTS]
        rows = [{**named, "seq": r.seq, "kind": r.kind, "timestamp": r.t, "data": spell(r.data)} for r in shown]
        insert_new(self._connection, events, rows)


def records_of(lines: Iterable[Line]) -> list[Record]:
    """Return those records of lines that a view can use."""
    return [record for line in lines if (record := parsed(line)) is not None]


def _text(value: object) -> str | None:
    return value[:10_000] if isinstance(value, str) and value else None


def _words(value: object) -> list[str] | None:
    return [str(word) for word in value] if isinstance(value, list) else None
