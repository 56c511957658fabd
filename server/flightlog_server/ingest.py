"""Taking in a run's records: idempotent by (run, writer, seq), in one transaction with the new high-water mark.

The lines are stored as they came; what is read from them (the run's row, the metric index, its media) is an index that
can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import zstandard
from sqlalchemy.engine import Connection

from flightlog.journal.fold import Fold
from flightlog.journal.order import parents_of
from flightlog.journal.record import Line, Record, check
from flightlog.protocol.digest import BLOCK, JournalDigest
from flightlog.protocol.messages import MAX_BATCH, Ranges, WriterState

from .errors import ApiError, malformed
from .metrics.index import add_records
from .store.database import insert_new
from .store.schema import batches, media, runs, writers

_HASH = 32


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


def store(connection: Connection, run: Any, writer_name: str, batch: Batch) -> int:
    """Store a batch and return the seq that is expected next.

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
    return max(int(writer.last_seq), last) + 1


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
    _index(connection, run, writer, records, len(fresh))


def _records(lines: Sequence[Line]) -> list[Record]:
    records = []
    for line in lines:
        try:
            records.append(line.record())
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # kept and passed on, but no view can use it
    return records


def _index(connection: Connection, run: Any, writer: Any, records: Sequence[Record], count: int) -> None:
    """Bring what is shown of the run up to these records."""
    row = connection.execute(sa.select(runs).where(runs.c.id == run.id)).one()
    fold = Fold(
        tags=list(row.tags),
        state=row.state,
        started_at=row.started_at,
        finished_at=row.finished_at,
        updated_at=row.updated_at,
        config=dict(row.config),
        summary=dict(row.summary),
        step=row.step,
        records=row.records,
        closing=(row.closing[0], row.closing[1]) if row.closing else None,
    )
    for record in records:
        fold.add(writer.name, record)
    identity = fold.identity
    connection.execute(
        runs.update()
        .where(runs.c.id == run.id)
        .values(
            {
                runs.c.name: _text(identity.get("name")) or row.name,
                runs.c.group: _text(identity.get("group")) or row.group,
                runs.c.job_type: _text(identity.get("job_type")) or row.job_type,
                runs.c.notes: _text(identity.get("notes")) or row.notes,
                runs.c.host: _text(identity.get("host")) or row.host,
                runs.c.command: identity.get("command", row.command),
                runs.c.tags: fold.tags,
                runs.c.state: fold.state,
                runs.c.started_at: fold.started_at,
                runs.c.finished_at: fold.finished_at,
                runs.c.closing: list(fold.closing or ()),
                runs.c.updated_at: fold.updated_at,
                runs.c.config: _json(fold.config),
                runs.c.summary: _json(fold.summary),
                runs.c.step: fold.step,
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
            "entries": _json(r.data),
        }
        for r in records
        if r.kind == "media"
    ]
    insert_new(connection, media, rows)


def _text(value: object) -> str | None:
    return value[:10_000] if isinstance(value, str) and value else None


def _json(value: Any) -> Any:
    """Return values fit for a JSON column: NaN and the infinities as the texts that stand for them."""
    from flightlog.journal.values import spell

    return spell(value)


def _writer(connection: Connection, run_id: int, name: str) -> Any:
    query = sa.select(writers).where(writers.c.run_id == run_id, writers.c.name == name)
    row = connection.execute(query).first()
    if row is None:
        connection.execute(
            writers.insert().values(run_id=run_id, name=name, last_seq=0, blocks=b"", lost=[], parents={})
        )
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
        digest = digest_upto(connection, row, row.last_seq).upto(row.last_seq)
        states[row.name] = WriterState(row.last_seq, digest, [(a, b) for a, b in row.lost])
    return states
