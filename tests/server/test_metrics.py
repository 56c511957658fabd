"""The metric index against plain Python: whatever is logged, in whatever order, chart and history say the same."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import IO, Any

import numpy as np
import orjson
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection

from flightlog.journal.record import body as record_body
from flightlog.journal.record import decode, encode
from flightlog.journal.values import Encoded, nonfinite_paths
from flightlog_server.ingest import Batch, store
from flightlog_server.metrics import codec, index, query
from flightlog_server.store import schema
from flightlog_server.store.database import Database
from flightlog_server.store.migrate import migrate
from flightlog_server.store.objects import Staged

from .tools import EMPTY, T0

BOUNDED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
INT64 = st.integers(-(2**63), 2**63 - 1)
STEPS = st.integers(-5, 12) | st.integers(-(2**63), 2**63 - 2)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**63), 2**64 - 1) | st.booleans()
VALUES = (
    NUMBERS | st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.lists(NUMBERS, max_size=2)
)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same, with NaN equal to itself and True not equal to 1."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


@given(st.lists(st.tuples(INT64, VALUES), min_size=1, max_size=40), st.integers(1, 2**60))
@BOUNDED
def test_a_chunk_gives_back_what_it_was_given(rows: list[tuple[int, Any]], first: int) -> None:
    """encode and decode, for every mixture of types and for steps at the borders of 64 bits."""
    steps, values = [s for s, _ in rows], [v for _, v in rows]
    columns = codec.from_values(list(range(first, first + len(rows))), steps, values)
    back = codec.decode(codec.encode(columns))
    assert back.steps.tolist() == steps and back.seqs.tolist() == list(range(first, first + len(rows)))
    assert same(back.to_list(), values)
    halves = [columns.sliced(slice(0, len(rows) // 2)), columns.sliced(slice(len(rows) // 2, None))]
    joined = codec.concatenate([codec.decode(codec.encode(h)) for h in halves if len(h)])
    assert same(joined.to_list(), values) and joined.steps.tolist() == steps


@pytest.mark.parametrize("values", [[1, 2.5], [2**53 + 1, 0.5], [True, 1], [1.0, "x"], [2**63, 1], [float("nan"), 1]])
def test_types_that_meet_in_one_series_stay_what_they_were(values: list[Any]) -> None:
    """Integers that a float cannot hold stay exact, and a boolean stays one."""
    assert same(codec.decode(codec.encode(codec.from_values([1, 2], [1, 2], values))).to_list(), values)


def test_a_chunk_of_another_version_is_refused() -> None:
    """A reader never guesses."""
    chunk = codec.encode(codec.from_values([1], [1], [1.0]))
    with pytest.raises(ValueError, match="version 9"):
        codec.decode(b"\x09" + chunk[1:])


# -- a database with one run -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A migrated database of its own, without a server around it."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('db') / 'flightlog.db'}")
    migrate(database)
    yield database
    database.close()


class _Undo(Exception):
    """Ends a transaction without keeping it."""


@contextmanager
def new_run(database: Database) -> Iterator[tuple[Connection, Any]]:
    """An empty run in a transaction that is undone afterwards."""
    try:
        with database.write() as connection:
            facts: dict[str, Any] = {"name": "a", "created_at": 0.0}
            user = connection.execute(
                schema.users.insert().values(**facts, is_admin=False).returning(schema.users.c.id)
            )
            owner = user.scalar_one()
            home = connection.execute(
                schema.workspaces.insert().values(name="a", kind="personal").returning(schema.workspaces.c.id)
            ).scalar_one()
            project = connection.execute(
                schema.projects.insert().values(**facts, workspace_id=home).returning(schema.projects.c.id)
            ).scalar_one()
            run = connection.execute(
                schema.runs.insert()
                .values(
                    workspace_id=home,
                    project_id=project,
                    origin_project="a",
                    run_id="r",
                    name="r",
                    owner_id=owner,
                    tags=[],
                    state="running",
                    alive=True,
                    config={},
                    summary={},
                    step=0,
                    records=0,
                    created_at=0.0,
                    updated_at=0.0,
                    standing={},
                    version=0,
                )
                .returning(schema.runs)
            ).one()
            yield connection, run
            raise _Undo
    except _Undo:
        pass


class Nothing:
    """Objects where nothing is stored: what these tests deliver is too little to leave SQL."""

    def stage(self) -> AbstractContextManager[Staged]:
        raise AssertionError

    def put(self, key: str, content: IO[bytes]) -> None:
        raise AssertionError(key)

    def read(self, key: str, offset: int, size: int) -> bytes:
        raise AssertionError(key)

    def delete(self, key: str) -> None:
        raise AssertionError(key)

    def list(self) -> Iterator[tuple[str, float]]:
        raise AssertionError


Logged = tuple[int, dict[str, Any]]


def ingest(connection: Connection, run: Any, logged: list[Logged], writer: str = "w", pieces: int = 3) -> None:
    """Deliver records as a client does, in several batches."""
    from flightlog.protocol.digest import JournalDigest

    lines = []
    for seq, (step, data) in enumerate(logged, 1):
        encoded = Encoded(data, nonfinite_paths(data))
        lines.append(encode(seq, T0 + seq, "log", record_body(encoded.json(), step, encoded.nonfinite)))
    digest, first = JournalDigest(), 1
    size = max(1, -(-len(lines) // pieces))
    for start in range(0, len(lines), size):
        part = lines[start : start + size]
        batch = Batch(first, digest.upto(first - 1) if first > 1 else EMPTY, b"".join(part), [])
        store(connection, Nothing(), run, writer, batch)
        for raw in part:
            digest.add(first, raw)
            first += 1


def by_step(logged: list[Logged], metric: str) -> dict[int, Any]:
    """What the latest record of each step says of a metric, in order of step."""
    found = {step: data[metric] for step, data in logged if metric in data}
    return dict(sorted(found.items()))


def over_the_wire(answer: dict[str, Any]) -> Any:
    """An answer as a client gets it: through strict JSON."""
    return orjson.loads(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))


def restored(part: dict[str, Any]) -> list[Any]:
    """Values with the numbers that JSON lacks put back."""
    values = list(part["values"])
    for place, word in part["nonfinite"].items():
        assert values[int(place)] is None
        values[int(place)] = float(word.replace("Infinity", "inf"))
    return values


LOGGED = st.lists(
    st.tuples(STEPS, st.dictionaries(st.sampled_from(["a", "b", "c/d"]), NUMBERS, min_size=0, max_size=3)), max_size=40
)


@given(LOGGED, st.integers(1, 8), st.none() | STEPS, st.none() | STEPS)
@BOUNDED
def test_a_series_is_what_was_logged_or_its_envelope(
    database: Database, logged: list[Logged], points: int, low: int | None, high: int | None
) -> None:
    """`series` against brute force: the window, the latest per step, and least and greatest of every range."""
    with new_run(database) as (connection, run):
        ingest(connection, run, logged)
        answer = over_the_wire(query.line(connection, run.id, "a", points, low, high))
    inside = {
        s: float(v)
        for s, v in by_step(logged, "a").items()
        if (low is None or s >= low) and (high is None or s <= high)
    }
    steps, values = list(inside), list(inside.values())
    assert answer["count"] == len(steps)
    if len(steps) <= points:
        assert not answer["reduced"] and answer["steps"] == steps and same(restored(answer), values)
        return
    assert answer["reduced"]
    cuts = [(i * len(steps)) // points for i in range(points + 1)]
    parts = [slice(a, b) for a, b in pairwise(cuts)]
    assert answer["steps"] == [steps[p][-1] for p in parts]
    assert same(restored(answer), [values[p][-1] for p in parts])
    for name, pick in (("low", min), ("high", max)):
        expected = [pick((v for v in values[p] if math.isfinite(v)), default=None) for p in parts]
        assert same(answer[name], expected)


@given(LOGGED, st.integers(1, 7), st.none() | st.lists(st.sampled_from(["a", "b", "x"]), min_size=1, max_size=3))
@BOUNDED
def test_history_page_by_page_is_every_row_once(
    database: Database, logged: list[Logged], limit: int, names: list[str] | None
) -> None:
    """`history` against brute force: all pages together are the rows, in order of step, none twice, none missing."""
    rows: list[dict[str, Any]] = []
    with new_run(database) as (connection, run):
        ingest(connection, run, logged)
        after: int | None = None
        for _ in range(len(logged) + 2):
            page = over_the_wire(query.rows(connection, run.id, after, limit, names))
            assert len(page["steps"]) <= limit
            part: list[dict[str, Any]] = [
                {"_step": s, "_timestamp": t} for s, t in zip(page["steps"], page["timestamps"], strict=True)
            ]
            for name, column in page["metrics"].items():
                for at, value in zip(column["rows"], restored(column), strict=True):
                    part[at][name] = value
            rows.extend(part)
            after = page["next"]
            if after is None:
                break
        else:
            raise AssertionError("there is no end")
    expected: dict[int, dict[str, Any]] = {}
    for seq, (step, data) in enumerate(logged, 1):
        row = expected.setdefault(step, {"_step": step})
        row.update({k: v for k, v in data.items() if names is None or k in names}, _timestamp=T0 + seq)
    wanted = [expected[s] for s in sorted(expected) if names is None or len(expected[s]) > 2]
    assert len(rows) == len(wanted)
    for row, want in zip(rows, wanted, strict=True):
        assert row.keys() == want.keys() and all(same(row[k], want[k]) for k in want), (row, want)


@given(LOGGED, LOGGED)
@BOUNDED
def test_statistics_count_everything(database: Database, one: list[Logged], two: list[Logged]) -> None:
    """`metrics` over two writers: count, least, greatest of the finite values, each as it was logged."""
    with new_run(database) as (connection, run):
        ingest(connection, run, one, "w1")
        ingest(connection, run, two, "w2")
        shown = {m["name"]: m for m in query.metrics(connection, run.id)}
    everything: dict[str, list[Any]] = {}
    for _, data in [*one, *two]:
        for name, value in data.items():
            everything.setdefault(name, []).append(value)
    assert shown.keys() == everything.keys()
    for name, values in everything.items():
        finite = [float(v) for v in values if math.isfinite(v)]
        assert shown[name]["count"] == len(values) and shown[name]["numeric"] is True
        assert shown[name]["min"] == min(finite, default=None) and shown[name]["max"] == max(finite, default=None)


def test_series_longer_than_a_chunk_and_out_of_order(database: Database) -> None:
    """Several chunks whose steps overlap: unsorted steps, each twice, the later record winning."""
    count = 2 * index.CHUNK + 100
    order = np.random.default_rng(20261123).permutation(count)
    logged: list[Logged] = [(int(s), {"a": float(s)}) for s in order] + [(int(s), {"a": -1.0 * int(s)}) for s in order]
    with new_run(database) as (connection, run):
        ingest(connection, run, logged, pieces=7)
        whole = query.line(connection, run.id, "a", 100_000)
        part = query.line(connection, run.id, "a", 100_000, 5000, 5010)
        chunks = connection.execute(sa.select(sa.func.count()).select_from(schema.series_chunks)).scalar_one()
    assert whole["steps"].tolist() == list(range(count))
    assert whole["values"].tolist() == [-1.0 * s for s in range(count)]
    assert part["steps"].tolist() == list(range(5000, 5011)) and part["count"] == 11
    assert chunks == 2 * (-(-2 * count // index.CHUNK)), "one series and its timestamps, no chunk begun too early"


def test_the_same_record_twice_is_indexed_once(database: Database) -> None:
    """Replaying a batch changes neither rows nor counts."""
    logged: list[Logged] = [(s, {"a": float(s)}) for s in range(50)]
    with new_run(database) as (connection, run):
        ingest(connection, run, logged)
        before = query.metrics(connection, run.id)
        ingest(connection, run, logged, pieces=1)
        assert query.metrics(connection, run.id) == before
        assert query.line(connection, run.id, "a", 1000)["count"] == 50


def test_a_record_is_what_the_reader_reads(database: Database) -> None:
    """The helper above writes what a journal holds."""
    encoded = Encoded({"a": math.nan}, ["a"])
    raw = encode(1, T0, "log", record_body(encoded.json(), 3, encoded.nonfinite))
    assert same(decode(raw).data["a"], math.nan) and decode(raw).step == 3


def test_a_text_among_numbers_is_no_point_of_the_line() -> None:
    """A chart leaves out the step at which a metric was a text or nothing; NaN stays, as what it is."""
    mixed = query._numbers(codec.from_values([1, 2, 3, 4], [0, 1, 2, 3], [0.5, "warming up", float("nan"), None]))
    assert mixed.steps.tolist() == [0, 2]
    assert mixed.floats()[0] == 0.5 and np.isnan(mixed.floats()[1])
