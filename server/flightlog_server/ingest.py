"""Taking in a run's records: idempotent by (run, writer, seq), in one transaction with the new high-water mark.

The lines are stored as they came; what is read from them (the run's row, the metric index, its media) is an index that
can be made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
import zstandard
from sqlalchemy.engine import Connection

from flightlog.journal.define import Definitions
from flightlog.journal.order import parents_of
from flightlog.journal.record import Line, Record, check
from flightlog.journal.rewind import Rewinds
from flightlog.journal.scan import parsed
from flightlog.journal.values import spell
from flightlog.protocol.digest import BLOCK, JournalDigest
from flightlog.protocol.messages import MAX_BATCH, MAX_SPAN, Ranges, WriterState

from .errors import ApiError, malformed
from .metrics.index import add_records
from .standing import Clock, Said, Standing, gathered, said_by
from .store.database import insert_new
from .store.schema import batches, events, media, runs, writers

_HASH = 32
_EVENTS = ("alert",)


@dataclass(frozen=True, slots=True)
class Batch:
    """A stretch of a writer's journal as a client sends it.

    `first` is the seq it begins with (a lost one, perhaps), `before` the digest of all lines before that, `lost` the
    ranges that no copy the client has can read.
    """

    first: int
    before: str
    lines: bytes
    lost: Ranges


def decompress(body: bytes) -> bytes:
    """Undo the zstd of a request's body, to a bounded size. Raises ApiError."""
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(body, read_across_frames=True)
    try:
        lines = reader.read(MAX_BATCH + 1)
    except zstandard.ZstdError as error:
        raise malformed(f"The body is not zstd: {error}") from None
    if len(lines) > MAX_BATCH:
        raise ApiError(413, "too_large", f"A batch has at most {MAX_BATCH} bytes of lines; send smaller ones.")
    return lines


def parse(lines: bytes) -> list[Line]:
    """Check the lines of a batch. Raises ApiError naming the first that is not sound or out of order."""
    checked: list[Line] = []
    for number, raw in enumerate(_split(lines), 1):
        line = check(raw)
        if line is None or (checked and line.seq <= checked[-1].seq):
            raise malformed(f"Line {number} of the batch is not a sound record in its place.")
        checked.append(line)
    return checked


def _split(lines: bytes) -> list[bytes]:
    return [part + b"\n" for part in lines.removesuffix(b"\n").split(b"\n")] if lines else []


def store(connection: Connection, run: Any, writer_name: str, batch: Batch) -> WriterState:
    """Store a batch and return what is here of the writer then.

    Lines that are here already are compared, not stored again.

    Raises:
        ApiError: 409 `expected` for a hole, 409 `diverged` where the bytes before or in it are not those that are here.
    """
    writer = _writer(connection, run.id, writer_name)
    found = parse(batch.lines)
    last = _check_shape(batch, found)
    if batch.first > writer.last_seq + 1:
        raise ApiError(409, "expected", f"Seq {writer.last_seq + 1} is expected next.", expected=writer.last_seq + 1)
    if digest_upto(connection, writer, batch.first - 1).upto(batch.first - 1) != batch.before:
        raise _diverged(writer_name)
    _compare_known(connection, writer, batch, found)
    fresh = [line for line in found if line.seq > writer.last_seq]
    if last > writer.last_seq:
        _append(connection, run, writer, batch, fresh, last)
        writer = _writer(connection, run.id, writer_name)
    return _state(connection, writer)


def _diverged(writer_name: str) -> ApiError:
    return ApiError(409, "diverged", f"Writer {writer_name} is here with other bytes under the same numbers.")


def _check_shape(batch: Batch, found: Sequence[Line]) -> int:
    """Return the last seq of a batch, whose lines and lost ranges must follow each other without a hole."""
    spans = sorted([*((line.seq, line.seq) for line in found), *batch.lost])
    expected = batch.first
    for a, b in spans:
        if a != expected:
            raise malformed(f"Seq {expected} is neither in the batch nor declared lost.")
        expected = b + 1
    if not spans:
        raise malformed("The batch is empty.")
    if expected - batch.first > MAX_SPAN:
        raise malformed(f"A batch spans at most {MAX_SPAN} seqs, lost ones included.")
    return expected - 1


def _compare_known(connection: Connection, writer: Any, batch: Batch, found: Sequence[Line]) -> None:
    """Raise `diverged` unless those lines of the batch that are here already are the same."""
    upto = max((line.seq for line in found if line.seq <= writer.last_seq), default=0)
    if not upto:
        return
    here = {line.seq: line.raw for line in stored_lines(connection, writer.id, batch.first, upto)}
    if any(line.seq in here and here[line.seq] != line.raw for line in found if line.seq <= upto):
        raise _diverged(writer.name)


def _append(connection: Connection, run: Any, writer: Any, batch: Batch, fresh: Sequence[Line], last: int) -> None:
    digest = digest_upto(connection, writer, writer.last_seq)
    for line in fresh:
        digest.add(line.seq, line.raw)
    first = writer.last_seq + 1
    if fresh:
        raw = b"".join(line.raw for line in fresh)
        connection.execute(
            batches.insert().values(
                writer_id=writer.id,
                first_seq=first,
                last_seq=last,
                lines=zstandard.ZstdCompressor(level=3).compress(raw),
            )
        )
    whole = digest.complete_blocks(last)
    lost = [*writer.lost, *([max(a, first), b] for a, b in batch.lost if b >= first)]
    records = _records(fresh)
    parents = next((parents_of(r.data) for r in records if r.kind == "run" and r.seq == 1), writer.parents)
    connection.execute(
        writers.update()
        .where(writers.c.id == writer.id)
        .values(last_seq=last, blocks=b"".join(whole), lost=lost, parents=parents)
    )
    _index(connection, run, writer, records, len(fresh), _place(connection, run.id, writer, parents))


def _records(lines: Sequence[Line]) -> list[Record]:
    return [record for line in lines if (record := parsed(line)) is not None]


def _stand_anew(connection: Connection, run_id: int, guides: tuple[Definitions, Rewinds]) -> Standing:
    """Read all records of a run again, whose writers' places are known: new ones change how they are to be seen."""
    standing = Standing()
    for row in connection.execute(sa.select(writers).where(writers.c.run_id == run_id, writers.c.last_seq > 0)).all():
        clock = Clock(row.floor, row.depth)
        standing.add(row.name, clock, _read(connection, row), guides)
        connection.execute(writers.update().where(writers.c.id == row.id).values(at=clock.at))
    return standing


def _order_anew(connection: Connection, run_id: int) -> list[Said]:
    """Give all writers of a run their places again; return what they say of how records are to be seen."""
    rows = connection.execute(sa.select(writers).where(writers.c.run_id == run_id, writers.c.last_seq > 0)).all()
    waiting = {row.name: row for row in rows}
    known: dict[str, Any] = {}
    said: list[Said] = []
    while waiting:
        ready = [row for row in waiting.values() if not any(p in waiting for p in row.parents if p != row.name)]
        for row in ready or list(waiting.values()):
            clock = _behind(connection, row.parents, known) if ready else Clock()  # parents in a circle do not count
            place = {"floor": clock.at, "depth": clock.depth}
            said += said_by(row.name, clock, _read(connection, row))
            place["at"] = clock.at
            connection.execute(writers.update().where(writers.c.id == row.id).values(place))
            known[row.name] = connection.execute(sa.select(writers).where(writers.c.id == row.id)).one()
            del waiting[row.name]
    return said


def _read(connection: Connection, writer: Any) -> Iterator[Record]:
    """Yield a writer's records, a batch of them at a time."""
    query = sa.select(batches.c.lines).where(batches.c.writer_id == writer.id).order_by(batches.c.first_seq)
    for (blob,) in connection.execute(query):
        lines = (check(raw) for raw in _split(zstandard.ZstdDecompressor().decompress(blob)))
        yield from _records([line for line in lines if line is not None])


def _place(connection: Connection, run_id: int, writer: Any, parents: dict[str, int]) -> Clock | None:
    """Return a writer's place in the order before this batch; None where the batch changes that of others."""
    others = connection.execute(sa.select(writers).where(writers.c.run_id == run_id, writers.c.id != writer.id)).all()
    if any(other.parents.get(writer.name, 0) > writer.last_seq for other in others):
        return None  # what they had seen of this writer arrives only now
    if writer.last_seq or not parents:
        return Clock(writer.at, writer.depth)
    known = {other.name: other for other in others if other.last_seq}
    clock = _behind(connection, parents, known)
    connection.execute(writers.update().where(writers.c.id == writer.id).values(floor=clock.at, depth=clock.depth))
    return clock


def _behind(connection: Connection, parents: dict[str, int], known: dict[str, Any]) -> Clock:
    """Return the place of a writer that begins: behind what it has seen of its parents."""
    seen = [(_time_at(connection, known[p], seq), known[p].depth + 1, p) for p, seq in parents.items() if p in known]
    at, depth, _ = max(seen, default=(0.0, 0, ""))
    return Clock(at, depth)


def _time_at(connection: Connection, writer: Any, seq: int) -> float:
    if seq >= writer.last_seq:
        return float(writer.at)
    times = [line.t for line in stored_lines(connection, writer.id, 1, seq)]
    return max([float(writer.floor), *times])


def _index(
    connection: Connection, run: Any, writer: Any, records: Sequence[Record], count: int, clock: Clock | None
) -> None:
    """Bring what is shown of the run up to these records."""
    row = connection.execute(sa.select(runs).where(runs.c.id == run.id)).one()
    standing = Standing(row.config, row.summary, row.step, row.records, row.updated_at, **row.standing)
    news = [] if clock is None else said_by(writer.name, replace(clock), records)
    guides = gathered(_order_anew(connection, run.id) if clock is None else [*standing.said(), *news])
    if clock is None or (news and row.records):
        standing = _stand_anew(connection, run.id, guides)
    else:
        standing.add(writer.name, clock, records, guides)
        connection.execute(writers.update().where(writers.c.id == writer.id).values(at=clock.at))
    _hide(connection, run.id, guides[1])
    fold = standing.fold()
    identity = fold.identity
    connection.execute(
        runs.update()
        .where(runs.c.id == run.id)
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
                runs.c.definitions: [definition.data() for definition in guides[0]],
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
    add_records(connection, run.id, writer.id, [r for r in records if r.kind == "log"])
    rows = [
        {
            "run_id": run.id,
            "writer": writer.name,
            "seq": r.seq,
            "step": r.step,
            "timestamp": r.t,
            "entries": spell(r.data),
        }
        for r in records
        if r.kind == "media"
    ]
    insert_new(connection, media, rows)
    shown = [r for r in records if r.kind in _EVENTS]
    named = {"run_id": run.id, "writer": writer.name}
    insert_new(
        connection,
        events,
        [{**named, "seq": r.seq, "kind": r.kind, "timestamp": r.t, "data": spell(r.data)} for r in shown],
    )


def _hide(connection: Connection, run_id: int, rewinds: Rewinds) -> None:
    """Note with each writer which of its records a rewind hides."""
    if rewinds:
        for row in connection.execute(sa.select(writers).where(writers.c.run_id == run_id)).all():
            hidden = [list(pair) for pair in rewinds.of(row.name)]
            if hidden != row.hidden:
                connection.execute(writers.update().where(writers.c.id == row.id).values(hidden=hidden))


def _text(value: object) -> str | None:
    return value[:10_000] if isinstance(value, str) and value else None


def _words(value: object) -> list[str] | None:
    return [str(word) for word in value] if isinstance(value, list) else None


def _writer(connection: Connection, run_id: int, name: str) -> Any:
    query = sa.select(writers).where(writers.c.run_id == run_id, writers.c.name == name)
    row = connection.execute(query).first()
    if row is None:
        nothing = {"last_seq": 0, "blocks": b"", "lost": [], "parents": {}, "floor": 0.0, "depth": 0, "at": 0.0}
        connection.execute(writers.insert().values(run_id=run_id, name=name, **nothing))
        row = connection.execute(query).one()
    return row


def stored_lines(connection: Connection, writer_id: int, first: int, last: int) -> list[Line]:
    """Return the stored lines of a writer from seq `first` to `last`."""
    query = (
        sa.select(batches.c.lines)
        .where(batches.c.writer_id == writer_id, batches.c.last_seq >= first, batches.c.first_seq <= last)
        .order_by(batches.c.first_seq)
    )
    found = []
    for (blob,) in connection.execute(query):
        for raw in _split(zstandard.ZstdDecompressor().decompress(blob)):
            line = check(raw)
            if line is not None and first <= line.seq <= last:
                found.append(line)
    return found


def lines_of_run(connection: Connection, run_id: int) -> Iterator[tuple[str, Line]]:
    """Yield (writer, line) of all that is stored of a run, writer by writer, a batch of them in memory at a time."""
    query = (
        sa.select(writers.c.name, batches.c.writer_id, batches.c.first_seq)
        .join(batches, batches.c.writer_id == writers.c.id)
        .where(writers.c.run_id == run_id)
        .order_by(writers.c.name, batches.c.first_seq)
    )
    for name, writer_id, first_seq in connection.execute(query).all():
        stored = sa.select(batches.c.lines).where(batches.c.writer_id == writer_id, batches.c.first_seq == first_seq)
        blob = connection.execute(stored).scalar_one()
        for raw in _split(zstandard.ZstdDecompressor().decompress(blob)):
            if line := check(raw):
                yield name, line


def digest_upto(connection: Connection, writer: Any, seq: int) -> JournalDigest:
    """Return the digest of a writer's lines up to `seq`, ready for the lines that follow."""
    whole = min(seq // BLOCK, len(writer.blocks) // _HASH)
    digest = JournalDigest([writer.blocks[i * _HASH : (i + 1) * _HASH] for i in range(whole)])
    if seq > whole * BLOCK:
        for line in stored_lines(connection, writer.id, whole * BLOCK + 1, seq):
            digest.add(line.seq, line.raw)
    return digest


def writer_states(connection: Connection, run_id: int) -> dict[str, WriterState]:
    """Return what is here of each of a run's writers."""
    states = {}
    for row in connection.execute(sa.select(writers).where(writers.c.run_id == run_id)):
        states[row.name] = _state(connection, row)
    return states


def _state(connection: Connection, writer: Any) -> WriterState:
    digest = digest_upto(connection, writer, writer.last_seq).upto(writer.last_seq)
    return WriterState(int(writer.last_seq), digest, [(a, b) for a, b in writer.lost])
