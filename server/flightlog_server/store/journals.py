"""The lines of writers, as they came: where they lie, and how they are added, read and put into gaps.

A row of `batches` holds a stretch of a writer's lines, zstd, all of one digest block (flightlog.protocol.digest), so
that a block's bytes are its rows one after the other. They stand in SQL at first; store/folding.py moves them to
objects. What a row holds is known by `first_seq` and `last_seq`: those of its first and its last line. Seqs between
them, or between rows, that no line has are lost.

A *branch* is a writer that shares its beginning with another, its base: the copy of a run that was continued on two
machines. It has rows only for what comes after `base_seq`; the lines up to there are read from the base.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
import zstandard
from sqlalchemy.engine import Connection

from flightlog.journal.record import Line, check
from flightlog.protocol.digest import BLOCK, JournalDigest

from .objects import Objects
from .schema import batches, writers

ROW_BYTES = 4 << 20
_SMALL_ROW = 16 << 10
MAX_BRANCHES = 8  # a branch of a branch of a branch …
_HASH = 32


def split(lines: bytes) -> list[bytes]:
    """Return the lines that are in a body or row, each with its newline."""
    return [part + b"\n" for part in lines.removesuffix(b"\n").split(b"\n")] if lines else []


def rows_of(lines: Sequence[Line]) -> Iterator[tuple[int, int, bytes]]:
    """Cut lines, in order of seq, into rows: (first seq, last seq, bytes)."""
    seqs = [line.seq for line in lines]
    start = 0
    while start < len(lines):
        end = bisect_right(seqs, -(-seqs[start] // BLOCK) * BLOCK, start)
        size = 0
        for at in range(start, end):
            size += len(lines[at].raw)
            if size > ROW_BYTES and at > start:
                end = at
                break
        yield seqs[start], seqs[end - 1], b"".join([line.raw for line in lines[start:end]])
        start = end


def insert(connection: Connection, writer_id: int, stretches: Iterable[tuple[int, int, bytes]]) -> int:
    """Store stretches of a writer's lines; return how many bytes they take."""
    compressor = zstandard.ZstdCompressor(level=3)
    rows: list[dict[str, Any]] = []
    for first, last, content in stretches:
        blob = compressor.compress(content)
        rows.append({"writer_id": writer_id, "first_seq": first, "last_seq": last, "lines": blob, "size": len(blob)})
    if rows:
        connection.execute(batches.insert(), rows)
    return sum(len(row["lines"]) for row in rows)


def append(connection: Connection, writer_id: int, fresh: Sequence[Line]) -> int:
    """Store lines behind all others of a writer; return how many bytes the rows in SQL have grown by."""
    stretches = list(rows_of(fresh))
    key = batches.c.writer_id == writer_id
    latest = sa.select(batches).where(key, batches.c.first_seq >= fresh[0].seq - BLOCK)
    tail = (
        connection.execute(latest.order_by(batches.c.first_seq.desc()).limit(1)).first() if fresh[0].seq > 1 else None
    )
    grown = 0
    if tail is not None and tail.lines is not None and tail.size < _SMALL_ROW:
        first, last, content = stretches[0]
        if (tail.first_seq - 1) // BLOCK == (first - 1) // BLOCK and len(content) < ROW_BYTES:
            # What a run that is followed live sends every second would else be a row each.
            before = zstandard.ZstdDecompressor().decompress(tail.lines)
            stretches[0] = (tail.first_seq, last, before + content)
            connection.execute(batches.delete().where(key, batches.c.first_seq == tail.first_seq))
            grown -= tail.size
    return grown + insert(connection, writer_id, stretches)


def content_of(objects: Objects, row: Any) -> bytes:
    """Return the lines of a row, wherever they lie."""
    blob = row.lines if row.lines is not None else objects.read(row.object, row.offset, row.size)
    return zstandard.ZstdDecompressor().decompress(blob)


def _rows(connection: Connection, writer_id: int, first: int, last: int) -> Iterator[Any]:
    """Yield the rows that hold lines of the seqs first..last, in order, a few in memory at a time."""
    query = sa.select(batches).where(*_within(writer_id, first, last)).order_by(batches.c.first_seq)
    with connection.execute(query.execution_options(yield_per=8)) as found:  # closed, should nobody read to its end
        yield from found


def _within(writer_id: int, first: int, last: int) -> tuple[Any, ...]:
    return batches.c.writer_id == writer_id, batches.c.last_seq >= first, batches.c.first_seq <= last


def origins(connection: Connection, writer: Any) -> list[tuple[int, int, int]]:
    """Return where a writer's lines come from: (the id of the writer that has them, first seq, last seq), in order."""
    found: list[tuple[int, int, int]] = []
    end = int(writer.last_seq)
    row = writer
    for _ in range(MAX_BRANCHES + 1):
        found.append((row.id, (row.base_seq if row.base_id is not None else 0) + 1, end))
        if row.base_id is None:
            break
        end = min(end, int(row.base_seq))
        row = connection.execute(sa.select(writers).where(writers.c.id == row.base_id)).one()
    return found[::-1]


def contents(
    connection: Connection, objects: Objects, writer: Any, first: int, last: int
) -> Iterator[tuple[int, int, bytes]]:
    """Yield (first seq, last seq, bytes) of a writer's lines with the seqs first..last, those of its bases included."""
    for writer_id, low, high in origins(connection, writer):
        low, high = max(low, first), min(high, last)
        if low > high:
            continue
        for row in _rows(connection, writer_id, low, high):
            content = content_of(objects, row)
            if low <= row.first_seq and row.last_seq <= high:
                yield row.first_seq, row.last_seq, content
                continue
            inside = [line for line in _checked(content) if low <= line.seq <= high]
            if inside:
                yield inside[0].seq, inside[-1].seq, b"".join(line.raw for line in inside)


def _checked(content: bytes) -> list[Line]:
    return [line for raw in split(content) if (line := check(raw)) is not None]


def lines(connection: Connection, objects: Objects, writer: Any, first: int, last: int) -> Iterator[Line]:
    """Yield a writer's lines with the seqs first..last, those of its bases included; a row in memory at a time."""
    for _, _, content in contents(connection, objects, writer, first, last):
        yield from _checked(content)


def own_lines(connection: Connection, objects: Objects, writer: Any) -> Iterator[Line]:
    """Yield the lines that are this writer's alone: of a branch, those behind its base's."""
    begin = (writer.base_seq if writer.base_id is not None else 0) + 1
    return lines(connection, objects, writer, begin, writer.last_seq)


def put_into_gaps(connection: Connection, objects: Objects, writer_id: int, fresh: Sequence[Line]) -> int:
    """Store lines, in order of seq, between others of the same writer; return as `append` does."""
    waiting = list(fresh)
    grown = 0
    for first, last in _spans(connection, writer_id, fresh):
        inside = [line for line in waiting if first < line.seq < last]
        if not inside:
            continue
        key = (batches.c.writer_id == writer_id, batches.c.first_seq == first)
        row = connection.execute(sa.select(batches).where(*key)).one()
        together = sorted([*_checked(content_of(objects, row)), *inside], key=lambda line: line.seq)
        connection.execute(batches.delete().where(*key))
        grown -= row.size if row.lines is not None else 0
        grown += insert(connection, writer_id, rows_of(together))
        waiting = [line for line in waiting if not first < line.seq < last]
    ends = [last for _, last in _spans(connection, writer_id, fresh)]
    for stretch in _between(waiting, ends):
        grown += insert(connection, writer_id, rows_of(stretch))
    return grown


def _spans(connection: Connection, writer_id: int, fresh: Sequence[Line]) -> list[tuple[int, int]]:
    query = sa.select(batches.c.first_seq, batches.c.last_seq).order_by(batches.c.first_seq)
    found = connection.execute(query.where(*_within(writer_id, fresh[0].seq, fresh[-1].seq))).all()
    return [(first, last) for first, last in found]


def _between(waiting: Sequence[Line], ends: Sequence[int]) -> Iterator[list[Line]]:
    """Group lines by the gap between two rows that they belong into; `ends` are the rows' last seqs."""
    groups: dict[int, list[Line]] = {}
    for line in waiting:
        groups.setdefault(bisect_right(ends, line.seq), []).append(line)
    yield from groups.values()


# -- digests -----------------------------------------------------------------------------------------------------------


def digest_upto(connection: Connection, objects: Objects, writer: Any, seq: int) -> JournalDigest:
    """Return the digest of a writer's lines up to `seq`, ready for the lines that follow."""
    whole = min(seq // BLOCK, len(writer.blocks) // _HASH)
    digest = JournalDigest([writer.blocks[i * _HASH : (i + 1) * _HASH] for i in range(whole)])
    for first, _, content in contents(connection, objects, writer, whole * BLOCK + 1, seq):
        digest.add(first, content)
    return digest


def add_to_digest(digest: JournalDigest, fresh: Sequence[Line]) -> None:
    """Take lines, in order of seq, into a digest: a block of them at a time."""
    for first, _, content in rows_of(fresh):
        digest.add(first, content)


def digest_anew(connection: Connection, objects: Objects, writer: Any, seqs: Iterable[int]) -> tuple[bytes, str]:
    """Return a writer's complete blocks and its digest, where lines with these seqs have been put into gaps."""
    blocks = bytearray(writer.blocks)
    for block in sorted({(seq - 1) // BLOCK for seq in seqs}):
        at = block * _HASH
        if at < len(blocks):
            anew = JournalDigest()
            low = block * BLOCK
            for first, _, content in contents(connection, objects, writer, low + 1, low + BLOCK):
                anew.add(first - low, content)
            blocks[at : at + _HASH] = anew.complete_blocks(BLOCK)[0]
    whole = len(blocks) // _HASH
    digest = JournalDigest([bytes(blocks[i * _HASH : (i + 1) * _HASH]) for i in range(whole)])
    for first, _, content in contents(connection, objects, writer, whole * BLOCK + 1, writer.last_seq):
        digest.add(first, content)
    return bytes(blocks), digest.upto(writer.last_seq)
