"""Taking in a run's records: idempotent by (run, writer, seq), in one transaction with the new high-water mark.

The lines are stored as they came (store/journals.py); what is shown of them is an index (indexing.py). Two things make
a batch more than an appendix. Lines may fill a gap that another copy of the run had declared lost: then a line behind
them that is known already must prove that it is the same journal. And a copy that was continued on another machine
becomes a branch, a writer of its own that shares its beginning with the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
import zstandard
from sqlalchemy.engine import Connection

from flightlog.journal.order import parents_of
from flightlog.journal.record import Line, check
from flightlog.journal.scan import parsed
from flightlog.protocol.digest import JournalDigest
from flightlog.protocol.messages import MAX_BATCH, MAX_SPAN, Ranges, WriterState, branch_name

from .errors import ApiError, malformed
from .indexing import RunIndex
from .store import journals
from .store.objects import Objects
from .store.schema import runs, writers

_EMPTY = JournalDigest().upto(0)


@dataclass(frozen=True, slots=True)
class Batch:
    """A stretch of a writer's journal as a client sends it.

    Attributes:
        first: the seq it begins with (a lost one, perhaps).
        before: the digest of all lines before that; None where the first line is one that is here and shows it.
        lines: the lines' bytes.
        lost: the ranges that no copy the client has can read.
        base: for the first batch of a branch, the writer that it shares the lines before `first` with.
    """

    first: int
    before: str | None
    lines: bytes
    lost: Ranges
    base: str | None = None


def decompress(body: bytes, limit: int = MAX_BATCH) -> bytes:
    """Undo the zstd of a request's body, to a bounded size. Raises ApiError."""
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(body, read_across_frames=True)
    try:
        content = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise malformed(f"The body is not zstd: {error}") from None
    if len(content) > limit:
        raise ApiError(413, "too_large", f"A batch has at most {limit} bytes of lines; send smaller ones.")
    return content


def parse(lines: bytes) -> list[Line]:
    """Check the lines of a batch. Raises ApiError naming the first that is not sound or out of order."""
    checked: list[Line] = []
    last = 0
    for number, raw in enumerate(journals.split(lines), 1):
        line = check(raw)
        if line is None or line.seq <= last:
            raise malformed(f"Line {number} of the batch is not a sound record in its place.")
        checked.append(line)
        last = line.seq
    return checked


def store(connection: Connection, objects: Objects, run: Any, writer_name: str, batch: Batch) -> WriterState:
    """Store a batch and return what is here of the writer then.

    Lines that are here already are compared, not stored again; those that were declared lost are put in their place.

    Raises:
        ApiError: 409 `expected` for a hole, 409 `diverged` where the bytes before or in it are not those that are here,
            409 `unproven` where lines would fill a gap and nothing shows that they belong there.
    """
    connection.execute(sa.select(runs.c.id).where(runs.c.id == run.id).with_for_update())
    found = parse(batch.lines)
    last = _check_shape(batch, found)
    writer = _row(connection, run.id, writer_name) or _begin(connection, objects, run.id, writer_name, batch, found)
    if batch.first > writer.last_seq + 1:
        raise ApiError(409, "expected", f"Seq {writer.last_seq + 1} is expected next.", expected=writer.last_seq + 1)
    _check_before(connection, objects, writer, batch, found)
    filling = _compare(connection, objects, writer, found)
    fresh = found[bisect_right(found, writer.last_seq, key=_seq) :]
    if filling:
        _fill(connection, objects, run, writer, filling)
        writer = _known(connection, writer.id)
    if last > writer.last_seq:
        _append(connection, objects, run, writer, batch, fresh, last)
        writer = _known(connection, writer.id)
    return _state(connection, writer)


def _diverged(writer_name: str) -> ApiError:
    return ApiError(409, "diverged", f"Writer {writer_name} is here with other bytes under the same numbers.")


def _check_shape(batch: Batch, found: Sequence[Line]) -> int:
    """Return the last seq of a batch, whose lines and lost ranges must follow each other without a hole."""
    spans = sorted([*_stretches(found), *batch.lost])
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


def _check_before(connection: Connection, objects: Objects, writer: Any, batch: Batch, found: Sequence[Line]) -> None:
    """Raise `diverged` unless a batch follows what is here; without `before` its first line has to show it."""
    upto = batch.first - 1
    if batch.before is None:
        # Two copies that went apart never write the same line again: the clock is in it.
        shown = next(journals.lines(connection, objects, writer, batch.first, batch.first), None)
        if shown is None or not found or found[0].seq != batch.first:
            raise malformed("Without `before` a batch begins with a line that is here.")
        if shown.raw != found[0].raw:
            raise _diverged(writer.name)
        return
    known = writer.digest if upto == writer.last_seq else None
    if (known or journals.digest_upto(connection, objects, writer, upto).upto(upto)) != batch.before:
        raise _diverged(writer.name)


def _compare(connection: Connection, objects: Objects, writer: Any, found: Sequence[Line]) -> list[Line]:
    """Hold those lines of a batch that are of known seqs against what is here.

    Returns:
        Those that fill gaps.

    Raises:
        ApiError: `diverged` where a line is here with other bytes; `unproven` where gaps would be filled with no line
            behind them that is the same.
    """
    known = found[: bisect_right(found, writer.last_seq, key=_seq)]
    gaps = [line for line in known if any(a <= line.seq <= b for a, b in writer.lost)] if writer.lost else []
    same = 0
    for first, last in _stretches(known):
        here = {line.seq: line.raw for line in journals.lines(connection, objects, writer, first, last)}
        for line in known:
            if first <= line.seq <= last and line.seq in here:
                if here[line.seq] != line.raw:
                    raise _diverged(writer.name)
                same = line.seq
    if gaps and same < gaps[-1].seq:
        text = "Lines for a gap come with a line behind them that is here: without it they may be another journal's."
        raise ApiError(409, "unproven", text)
    return gaps


def _stretches(lines: Sequence[Line]) -> Iterator[tuple[int, int]]:
    """Yield the (first, last) seqs of lines that follow each other without a hole."""
    if lines and lines[-1].seq - lines[0].seq == len(lines) - 1:
        yield lines[0].seq, lines[-1].seq
        return
    start = 0
    for at in range(1, len(lines) + 1):
        if at == len(lines) or lines[at].seq != lines[at - 1].seq + 1:
            yield lines[start].seq, lines[at - 1].seq
            start = at


_seq = attrgetter("seq")


def _append(
    connection: Connection, objects: Objects, run: Any, writer: Any, batch: Batch, fresh: Sequence[Line], last: int
) -> None:
    digest = journals.digest_upto(connection, objects, writer, writer.last_seq)
    journals.add_to_digest(digest, fresh)
    grown = journals.append(connection, writer.id, fresh) if fresh else 0
    before = writer.last_seq
    facts = {
        "last_seq": last,
        "blocks": b"".join(digest.complete_blocks(last)),
        "digest": digest.upto(last),
        "lost": [*writer.lost, *([max(a, before + 1), b] for a, b in batch.lost if b > before)],
        "loose": writer.loose + grown,
        "parents": _parents(fresh) or writer.parents,
    }
    changed = writers.update().where(writers.c.id == writer.id).values(facts).returning(writers)
    RunIndex(connection, objects, run.id).append(connection.execute(changed).one(), before, fresh)


def _fill(connection: Connection, objects: Objects, run: Any, writer: Any, filling: Sequence[Line]) -> None:
    """Put lines into gaps of a writer; the digests of all that share them are made anew."""
    grown = journals.put_into_gaps(connection, objects, writer.id, filling)
    seqs = [line.seq for line in filling]
    facts = {
        "lost": without(writer.lost, seqs),
        "loose": writer.loose + grown,
        "parents": _parents(filling) or writer.parents,
    }
    connection.execute(writers.update().where(writers.c.id == writer.id).values(facts))
    sharing = [(writer.id, seqs)]
    while sharing:
        row_id, shared = sharing.pop()
        row = _known(connection, row_id)
        blocks, digest = journals.digest_anew(connection, objects, row, shared)
        connection.execute(writers.update().where(writers.c.id == row_id).values(blocks=blocks, digest=digest))
        for branch in connection.execute(sa.select(writers).where(writers.c.base_id == row_id)).all():
            if inside := [seq for seq in shared if seq <= branch.base_seq]:
                sharing.append((branch.id, inside))
    RunIndex(connection, objects, run.id).fill(_known(connection, writer.id), filling)


def _parents(lines: Sequence[Line]) -> dict[str, int]:
    """Return the parents that a writer's first record names, if it is among these lines."""
    record = parsed(lines[0]) if lines and lines[0].seq == 1 and lines[0].kind == "run" else None
    return parents_of(record.data) if record else {}


def without(ranges: Iterable[Sequence[int]], seqs: Iterable[int]) -> list[list[int]]:
    """Return ranges of seqs without some of them, both in order."""
    left: list[list[int]] = []
    waiting = list(seqs)
    at = 0
    for a, b in ranges:
        while at < len(waiting) and waiting[at] <= b:
            if waiting[at] > a:
                left.append([a, waiting[at] - 1])
            a = max(a, waiting[at] + 1)
            at += 1
        if a <= b:
            left.append([a, b])
    return left


# -- writers -----------------------------------------------------------------------------------------------------------


def _row(connection: Connection, run_id: int, name: str) -> Any:
    return connection.execute(sa.select(writers).where(writers.c.run_id == run_id, writers.c.name == name)).first()


def _known(connection: Connection, writer_id: int) -> Any:
    return connection.execute(sa.select(writers).where(writers.c.id == writer_id)).one()


def _begin(
    connection: Connection, objects: Objects, run_id: int, name: str, batch: Batch, found: Sequence[Line]
) -> Any:
    """Make a writer's row, and return it."""
    facts: dict[str, Any] = {"last_seq": 0, "blocks": b"", "digest": _EMPTY, "parents": {}}
    if batch.base is not None:
        facts = _branch(connection, objects, run_id, name, batch, found)
    elif "~" in name:
        raise malformed(f"The writer {name} would be a branch; its first batch names its base.")
    nothing = {"lost": [], "floor": 0.0, "depth": 0, "at": 0.0}
    made = writers.insert().values(run_id=run_id, name=name, **nothing, **facts).returning(writers)
    return connection.execute(made).one()


def _branch(
    connection: Connection, objects: Objects, run_id: int, name: str, batch: Batch, found: Sequence[Line]
) -> dict[str, Any]:
    """Return the facts of a writer that begins as a branch of another. Raises ApiError unless it has to be one."""
    shared = batch.first - 1
    base = _row(connection, run_id, str(batch.base))
    if base is None or shared < 1 or base.last_seq <= shared or len(journals.origins(connection, base)) > _MOST:
        raise malformed(f"{batch.base} is no writer that a branch could leave at seq {shared}.")
    if not found or found[0].seq != batch.first or name != branch_name(base.name, found[0].raw):
        raise malformed(f"A branch of {base.name} is named after its first line.")
    digest = journals.digest_upto(connection, objects, base, shared)
    other = next(journals.lines(connection, objects, base, batch.first, batch.first), None)
    if digest.upto(shared) != batch.before or other is None:
        raise _diverged(base.name)
    if other.raw == found[0].raw:
        raise malformed(f"{base.name} has this line; a branch begins with the first that is another.")
    blocks = b"".join(digest.complete_blocks(shared))
    place = {"base_id": base.id, "base_seq": shared, "parents": {base.name: shared}}
    return {"last_seq": shared, "blocks": blocks, "digest": batch.before, **place}


_MOST = journals.MAX_BRANCHES


def writer_states(connection: Connection, run_id: int) -> dict[str, WriterState]:
    """Return what is here of each of a run's writers."""
    rows = connection.execute(sa.select(writers).where(writers.c.run_id == run_id)).all()
    return {row.name: _state(connection, row) for row in rows}


def _state(connection: Connection, writer: Any) -> WriterState:
    lost = [(a, b) for a, b in writer.lost]
    if writer.base_id is None:
        return WriterState(int(writer.last_seq), writer.digest, lost)
    base = _known(connection, writer.base_id)
    shared = int(writer.base_seq)
    inherited = [(a, min(b, shared)) for a, b in _state(connection, base).lost if a <= shared]
    return WriterState(int(writer.last_seq), writer.digest, [*inherited, *lost], (base.name, shared))


def digests_at(connection: Connection, objects: Objects, writer: Any, seqs: Sequence[int]) -> dict[int, str]:
    """Return the digests of a writer's lines up to each of these seqs, as far as it goes."""
    inside = [seq for seq in seqs if seq <= writer.last_seq]
    return {seq: journals.digest_upto(connection, objects, writer, seq).upto(seq) for seq in inside}


def writer_row(connection: Connection, run_id: int, name: str) -> Any:
    """Return a writer's row; None where the run has no such writer."""
    return _row(connection, run_id, name)


def lines_of_run(connection: Connection, objects: Objects, run_id: int) -> Iterator[tuple[str, Line]]:
    """Yield (writer, line) of all that is stored of a run, writer by writer, a row of them in memory at a time."""
    query = sa.select(writers).where(writers.c.run_id == run_id).order_by(writers.c.name)
    for writer in connection.execute(query).all():
        for line in journals.own_lines(connection, objects, writer):
            yield writer.name, line
