"""Writing the metric index: a batch's values go to the last chunk of their series, or begin a new one when it is full.

The timestamps of log records are a series of their own, `_timestamp`, so that a metric's chunk needs no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from flightlog.journal.record import Record

from ..store.database import upsert
from ..store.schema import series, series_chunks
from .codec import Columns, concatenate, decode, encode, from_values

CHUNK = 8192
TIMESTAMP = "_timestamp"
_OURS = (TIMESTAMP, "_step")  # columns of every row; a metric that calls itself so is not indexed
_VARIABLES = 500  # names in one question: SQLite takes 32,766, older ones 999


def add_records(connection: Connection, run_id: int, writer_id: int, records: Iterable[Record]) -> None:
    """Put the log records of a batch, in order of seq, into the index."""
    columns = _by_metric(records)
    known = _known(connection, writer_id, list(columns))
    new = [name for name in columns if name not in known]
    if new:
        rows = [{"run_id": run_id, "writer_id": writer_id, "name": name, "count": 0, "numeric": False} for name in new]
        connection.execute(series.insert(), rows)
        known.update(_known(connection, writer_id, new))
    tails = _tails(connection, [known[name].id for name in columns if known[name].count % CHUNK])
    chunk_rows: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    for name, added in columns.items():
        row = known[name]
        chunk_rows.extend(_chunks(row.id, tails.get(row.id), added))
        facts.append({"of": row.id, **_statistics(row, added)})
    if facts:
        connection.execute(series.update().where(series.c.id == sa.bindparam("of")), facts)
    upsert(connection, series_chunks, chunk_rows)


def forget(connection: Connection, writer_id: int) -> None:
    """Take a writer's values out of the index: they are to be put in anew, in another order."""
    of_writer = sa.select(series.c.id).where(series.c.writer_id == writer_id)
    connection.execute(series_chunks.delete().where(series_chunks.c.series_id.in_(of_writer)))
    connection.execute(series.delete().where(series.c.writer_id == writer_id))


def _by_metric(records: Iterable[Record]) -> dict[str, Columns]:
    seqs: dict[str, list[int]] = {}
    steps: dict[str, list[int]] = {}
    values: dict[str, list[Any]] = {}
    for record in records:
        step = record.step if record.step is not None else 0
        for name, value in (*record.data.items(), (TIMESTAMP, record.t)):
            if name in _OURS and value is not record.t:
                continue
            if name in seqs:
                seqs[name].append(record.seq)
                steps[name].append(step)
                values[name].append(value)
            else:
                seqs[name], steps[name], values[name] = [record.seq], [step], [value]
    return {name: from_values(seqs[name], steps[name], values[name]) for name in seqs}


def _known(connection: Connection, writer_id: int, names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for start in range(0, len(names), _VARIABLES):
        query = sa.select(series).where(
            series.c.writer_id == writer_id, series.c.name.in_(names[start : start + _VARIABLES])
        )
        found.update({row.name: row for row in connection.execute(query)})
    return found


def _tails(connection: Connection, ids: list[int]) -> dict[int, Columns]:
    """Return the last, unfilled chunk of each of these series."""
    tails: dict[int, Columns] = {}
    for start in range(0, len(ids), _VARIABLES):
        newest = (
            sa.select(series_chunks.c.series_id, sa.func.max(series_chunks.c.first_seq).label("first_seq"))
            .where(series_chunks.c.series_id.in_(ids[start : start + _VARIABLES]))
            .group_by(series_chunks.c.series_id)
            .subquery()
        )
        query = sa.select(series_chunks.c.series_id, series_chunks.c.columns).join(
            newest,
            sa.and_(series_chunks.c.series_id == newest.c.series_id, series_chunks.c.first_seq == newest.c.first_seq),
        )
        tails.update({row.series_id: decode(row.columns) for row in connection.execute(query)})
    return tails


def _chunks(series_id: int, tail: Columns | None, added: Columns) -> list[dict[str, Any]]:
    whole = concatenate([tail, added]) if tail is not None else added
    rows = []
    for start in range(0, len(whole), CHUNK):
        part = whole.sliced(slice(start, start + CHUNK))
        rows.append(
            {
                "series_id": series_id,
                "first_seq": int(part.seqs[0]),
                "count": len(part),
                "min_step": int(part.steps.min()),
                "max_step": int(part.steps.max()),
                "columns": encode(part),
            }
        )
    return rows


def _statistics(before: Any, added: Columns) -> dict[str, Any]:
    numbers = added.floats()
    finite = numbers[np.isfinite(numbers)]
    numeric = isinstance(added.values, np.ndarray) or any(isinstance(v, int | float) for v in added.values)
    facts = {"count": before.count + len(added), "numeric": bool(before.numeric or numeric)}
    facts.update(low=before.low, high=before.high, last=before.last)
    if len(finite):
        low, high = float(finite.min()), float(finite.max())
        facts["low"] = low if before.low is None else min(low, before.low)
        facts["high"] = high if before.high is None else max(high, before.high)
        facts["last"] = float(finite[-1])
    return facts
