"""Reading the metric index: one metric for a chart, or all of a run as rows.

Records of several writers come in one order: parents, then the clock, then the writer's name (the same as
flightlog.journal.order, here on columns). Where a metric has two values at one step, the later record wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from flightlog.journal.values import nonfinite_paths, spell

from ..store.schema import series, series_chunks, writers
from .codec import Columns, Floats, Ints, concatenate, decode
from .index import TIMESTAMP


def metrics(connection: Connection, run_id: int) -> list[dict[str, Any]]:
    """Return what metrics a run has, with their count and range, in order of name."""
    query = (
        sa.select(
            series.c.name,
            sa.func.sum(series.c.count),
            sa.func.max(sa.cast(series.c.numeric, sa.Integer)),
            sa.func.min(series.c.low),
            sa.func.max(series.c.high),
        )
        .where(series.c.run_id == run_id, series.c.name != TIMESTAMP)
        .group_by(series.c.name)
        .order_by(series.c.name)
    )
    last = dict(
        connection.execute(
            sa.select(series.c.name, series.c.last).where(series.c.run_id == run_id).order_by(series.c.writer_id)
        ).all()
    )
    listed = [
        {"name": name, "count": int(count), "numeric": bool(numeric), "min": low, "max": high, "last": last[name]}
        for name, count, numeric, low, high in connection.execute(query)
    ]
    return _without_hidden(connection, run_id, listed) if _hidden(connection, run_id) else listed


def _without_hidden(connection: Connection, run_id: int, listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count again what is seen of each metric where a rewind hides some of it."""
    loaded = _load(connection, run_id, None, None, None)
    order = _ordered(connection, run_id, loaded.get(TIMESTAMP, {}))
    seen = []
    for metric in listed:
        by_writer = loaded.get(metric["name"])
        if by_writer:
            numbers = _later_wins(by_writer, order).floats()
            finite = numbers[np.isfinite(numbers)]
            facts = {"min": finite.min(), "max": finite.max(), "last": finite[-1]} if len(finite) else {}
            count = sum(map(len, by_writer.values()))
            seen.append({**metric, "count": count, "min": None, "max": None, "last": None, **facts})
    return seen


@dataclass(slots=True)
class _Order:
    """When each log record of a run happened, comparable across writers: by writer, its seqs and their times."""

    seqs: dict[int, Ints]
    times: dict[int, Floats]
    depth: dict[int, int]
    names: dict[int, str]

    def of(self, writer: int, seqs: Ints) -> Floats:
        return self.times[writer][np.searchsorted(self.seqs[writer], seqs)]


def _order(connection: Connection, run_id: int, timestamps: dict[int, Columns]) -> _Order:
    order = _Order({}, {}, {}, {})
    query = sa.select(writers.c.id, writers.c.name, writers.c.floor, writers.c.depth).where(writers.c.run_id == run_id)
    for row in connection.execute(query):
        own = timestamps.get(row.id)
        if own is not None:
            order.names[row.id], order.depth[row.id], order.seqs[row.id] = row.name, row.depth, own.seqs
            order.times[row.id] = np.maximum(np.maximum.accumulate(own.floats()), row.floor)
    return order


def _load(
    connection: Connection, run_id: int, names: Sequence[str] | None, low: int | None, high: int | None
) -> dict[str, dict[int, Columns]]:
    """Return, by metric and writer, the values whose chunks touch the steps low..high."""
    query = (
        sa.select(series.c.name, series.c.writer_id, series_chunks.c.columns)
        .join(series_chunks, series_chunks.c.series_id == series.c.id)
        .where(series.c.run_id == run_id)
        .order_by(series.c.id, series_chunks.c.first_seq)
    )
    if names is not None:
        query = query.where(series.c.name.in_(names))
    if low is not None:
        query = query.where(series_chunks.c.max_step >= low)
    if high is not None:
        query = query.where(series_chunks.c.min_step <= high)
    parts: dict[tuple[str, int], list[Columns]] = {}
    for name, writer, blob in connection.execute(query):
        parts.setdefault((name, writer), []).append(decode(blob))
    hidden = _hidden(connection, run_id)
    found: dict[str, dict[int, Columns]] = {}
    for (name, writer), chunks in parts.items():
        columns = _seen(concatenate(chunks), hidden.get(writer, ()))
        if len(columns):
            found.setdefault(name, {})[writer] = columns
    return found


def _hidden(connection: Connection, run_id: int) -> dict[int, list[tuple[int, int]]]:
    """Return, of those writers of which a rewind hides something, the (seq, step) up to and beyond which it does."""
    query = sa.select(writers.c.id, writers.c.hidden).where(writers.c.run_id == run_id)
    return {row.id: [(seq, step) for seq, step in row.hidden] for row in connection.execute(query) if row.hidden}


def _seen(columns: Columns, hidden: Sequence[tuple[int, int]]) -> Columns:
    inside = np.ones(len(columns), dtype=bool)
    for seq, step in hidden:
        inside &= (columns.seqs > seq) | (columns.steps <= step)
    return columns if inside.all() else _chosen(columns, inside)


def _window(columns: Columns, low: int | None, high: int | None) -> Columns:
    if low is None and high is None:
        return columns
    inside = np.ones(len(columns), dtype=bool)
    if low is not None:
        inside &= columns.steps >= low
    if high is not None:
        inside &= columns.steps <= high
    return _chosen(columns, inside)


def _chosen(columns: Columns, inside: Any) -> Columns:
    """Return those values of which a mask of the same length says so."""
    values = columns.values
    kept: Any = (
        values[inside] if isinstance(values, np.ndarray) else [v for v, k in zip(values, inside, strict=True) if k]
    )
    return Columns(columns.seqs[inside], columns.steps[inside], kept)


def _later_wins(by_writer: dict[int, Columns], order: _Order | None) -> Columns:
    """Return one value per step, in order of step: of several at one step, the one of the latest record."""
    if order is None:
        (columns,) = by_writer.values()
        ranks: list[Any] = [columns.seqs]
    else:
        columns = concatenate(list(by_writer.values()))
        sizes = [len(c) for c in by_writer.values()]
        names = sorted(order.names.values())
        ranks = [
            columns.seqs,
            np.repeat([names.index(order.names[w]) for w in by_writer], sizes),
            np.repeat([order.depth[w] for w in by_writer], sizes),
            np.concatenate([order.of(w, c.seqs) for w, c in by_writer.items()]),
        ]
    at = np.lexsort((*ranks, columns.steps))
    steps = columns.steps[at]
    last = np.append(steps[1:] != steps[:-1], True) if len(steps) else np.empty(0, bool)
    chosen = at[last]
    values = columns.values
    kept: Any = values[chosen] if isinstance(values, np.ndarray) else [values[i] for i in chosen]
    return Columns(columns.seqs[chosen], columns.steps[chosen], kept)


def _ordered(connection: Connection, run_id: int, by_writer: dict[int, Columns]) -> _Order | None:
    """Return the order of the writers' records, None where there is only one writer."""
    if len(by_writer) < 2:
        return None
    return _order(connection, run_id, _load(connection, run_id, [TIMESTAMP], None, None)[TIMESTAMP])


def line(
    connection: Connection, run_id: int, metric: str, points: int, low: int | None = None, high: int | None = None
) -> dict[str, Any]:
    """Return one metric as a chart draws it: as logged, or reduced to `points` ranges with their least and greatest.

    Args:
        run_id: the run's row.
        metric: the metric's name.
        points: the most values to return.
        low, high: the first and last step of the window; None for no bound.
    """
    by_writer = _load(connection, run_id, [metric], low, high).get(metric, {})
    if not by_writer:
        return {"metric": metric, "count": 0, "reduced": False, "steps": [], "values": [], "nonfinite": {}}
    order = _ordered(connection, run_id, by_writer)
    columns = _later_wins({w: _window(c, low, high) for w, c in by_writer.items()}, order)
    columns = _numbers(columns)
    numbers = columns.floats()
    answer: dict[str, Any] = {"metric": metric, "count": len(columns), "reduced": len(columns) > points}
    if not answer["reduced"]:
        return {**answer, "steps": columns.steps, **_json_values(numbers)}
    starts = (np.arange(points) * len(numbers)) // points
    ends = np.append(starts[1:], len(numbers)) - 1
    finite = np.isfinite(numbers)
    lows = np.minimum.reduceat(np.where(finite, numbers, np.inf), starts)
    highs = np.maximum.reduceat(np.where(finite, numbers, -np.inf), starts)
    none = ~np.logical_or.reduceat(finite, starts)
    lows[none] = highs[none] = np.nan
    return {
        **answer,
        "steps": columns.steps[ends],
        **_json_values(numbers[ends]),
        "low": _json_values(lows)["values"],
        "high": _json_values(highs)["values"],
    }


def _numbers(columns: Columns) -> Columns:
    """Return what a chart can draw: texts, None and lists are logged values, but no points of a line."""
    if isinstance(columns.values, np.ndarray):
        return columns
    kept = [i for i, value in enumerate(columns.values) if isinstance(value, int | float)]
    return Columns(columns.seqs[kept], columns.steps[kept], [columns.values[i] for i in kept])


def _json_values(numbers: Floats) -> dict[str, Any]:
    """Return numbers for JSON: null where one is not finite, and which it is by index."""
    odd = np.flatnonzero(~np.isfinite(numbers))
    # orjson writes numpy's NaN and infinities as null, which is what is wanted.
    return {"values": numbers, "nonfinite": {str(i): _spelling(float(numbers[i])) for i in odd.tolist()}}


def _spelling(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def rows(
    connection: Connection, run_id: int, after: int | None, limit: int, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return a page of a run's history: one row per step, as columns.

    Args:
        run_id: the run's row.
        after: begin behind this step; None for the beginning.
        limit: the most rows to return.
        names: only these metrics; None for all.
    """
    low = None if after is None else after + 1
    wanted = None if names is None else [*names, TIMESTAMP]
    stamps = _load(connection, run_id, [TIMESTAMP], low, None).get(TIMESTAMP, {})
    if not stamps:
        return {"steps": [], "timestamps": [], "metrics": {}, "next": None}
    steps = np.unique(np.concatenate([_window(c, low, None).steps for c in stamps.values()]))
    more = len(steps) > limit
    steps = steps[:limit]
    if not len(steps):
        return {"steps": [], "timestamps": [], "metrics": {}, "next": None}
    high = int(steps[-1])
    loaded = _load(connection, run_id, wanted, low, high)
    order = _ordered(connection, run_id, stamps)
    columns: dict[str, Any] = {}
    timestamps: list[Any] = []
    for name, by_writer in loaded.items():
        merged = _later_wins({w: _window(c, low, high) for w, c in by_writer.items()}, order)
        at = np.searchsorted(steps, merged.steps)
        if name == TIMESTAMP:
            timestamps = merged.to_list()
        elif len(merged):
            columns[name] = {"rows": at, **_json_list(merged)}
    if names is not None:  # rows in which none of the wanted metrics has a value are not asked for
        return _without_empty_rows(steps, timestamps, columns, high if more else None)
    return {"steps": steps, "timestamps": timestamps, "metrics": columns, "next": high if more else None}


def _json_list(columns: Columns) -> dict[str, Any]:
    if isinstance(columns.values, np.ndarray):
        if columns.values.dtype.kind == "f":
            return _json_values(columns.values.astype(np.float64))
        return {"values": columns.values, "nonfinite": {}}
    odd = {str(i): _spelling(v) for i, v in enumerate(columns.values) if type(v) is float and not math.isfinite(v)}
    # Inside of a list the text stands in its place, and its path says that it is a number.
    inner = {path: "inside" for path in nonfinite_paths(columns.values) if path not in odd}
    values = [None if str(i) in odd else spell(v) for i, v in enumerate(columns.values)]
    return {"values": values, "nonfinite": {**odd, **inner}}


def _without_empty_rows(
    steps: Ints, timestamps: list[Any], columns: dict[str, Any], after: int | None
) -> dict[str, Any]:
    used = np.zeros(len(steps), dtype=bool)
    for column in columns.values():
        used[column["rows"]] = True
    place = np.cumsum(used) - 1
    for column in columns.values():
        column["rows"] = place[column["rows"]]
    kept = [t for t, u in zip(timestamps, used.tolist(), strict=True) if u]
    return {"steps": steps[used], "timestamps": kept, "metrics": columns, "next": after}
