"""The one order of several writers' records, and what they add up to."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.journal import record
from flightlog.journal.fold import Fold
from flightlog.journal.order import merge, parents_of
from flightlog.journal.record import Line, check


def line(seq: int, t: float, kind: str = "log", data: Mapping[str, Any] | None = None, step: int | None = None) -> Line:
    found = check(record.encode(seq, t, kind, record.body(orjson.dumps(data or {}), step)))
    assert found is not None
    return found


def order(writers: Mapping[str, list[float]], parents: Mapping[str, Mapping[str, int]] | None = None) -> list[str]:
    """Merge writers given by their times; return "a1", "b1" …"""
    streams = {name: [line(i, t) for i, t in enumerate(times, 1)] for name, times in writers.items()}
    return [f"{name}{found.seq}" for name, found in merge(streams, parents or {})]


def test_without_parents_the_clock_decides_then_the_name() -> None:
    """Writers that knew nothing of each other are ordered by time, and equal times by name."""
    assert order({"a": [1, 4, 5], "b": [2, 3, 5]}) == ["a1", "b1", "b2", "a2", "a3", "b3"]


def test_parents_come_before_the_clock() -> None:
    """A resumer on a node whose clock is behind still comes after what it had seen."""
    assert order({"a": [100, 101, 102], "b": [1, 2]}, {"b": {"a": 3}}) == ["a1", "a2", "a3", "b1", "b2"]
    # What a writes after b had looked is in no order to b but the clock's.
    assert order({"a": [100, 101, 200], "b": [1, 150, 250]}, {"b": {"a": 2}}) == ["a1", "a2", "b1", "b2", "a3", "b3"]


def test_a_clock_that_goes_back_keeps_a_writers_order() -> None:
    """Within a writer seq decides, whatever its clock did."""
    assert order({"a": [10, 5, 1, 20], "b": [6, 15]}) == ["b1", "a1", "a2", "a3", "b2", "a4"]


def test_chains_and_forks_of_parents() -> None:
    """Three generations and two children of one parent: each after its own parents."""
    found = order({"d": [1], "c": [2], "b": [3], "a": [4, 5]}, {"b": {"a": 1}, "c": {"b": 1, "a": 2}, "d": {"c": 1}})
    assert found.index("a1") < found.index("b1") < found.index("c1") < found.index("d1")
    assert found.index("a2") < found.index("c1")


@pytest.mark.parametrize(
    "parents",
    [
        {"a": {"b": 1}, "b": {"a": 1}},
        {"a": {"a": 2}},
        {"a": {"nobody": 5}},
        {"a": {"b": 99}},
        {"a": {"b": 1}, "b": {"c": 1}, "c": {"a": 1}},
    ],
)
def test_impossible_parents_lose_nothing(parents: dict[str, dict[str, int]]) -> None:
    """Parents in a circle, of oneself, unknown, or beyond the end: every record is yielded once."""
    writers = {"a": [1.0, 2.0], "b": [1.5], "c": []}
    assert sorted(order(writers, parents)) == ["a1", "a2", "b1"]


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.lists(st.floats(0, 100), max_size=6)),
    st.dictionaries(
        st.sampled_from("abcdef"), st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 8), max_size=3), max_size=6
    ),
)
def test_merging_is_total_and_keeps_each_writers_order(
    writers: dict[str, list[float]], parents: dict[str, dict[str, int]]
) -> None:
    """Whatever the times and parents, each record comes once, in its writer's order, the same way each time."""
    found = order(writers, parents)
    assert sorted(found) == sorted(f"{w}{i}" for w, times in writers.items() for i in range(1, len(times) + 1))
    for name in writers:
        own = [x for x in found if x[0] == name]
        assert own == sorted(own, key=lambda x: int(x[1:]))
    assert found == order(dict(reversed(writers.items())), parents)


@given(st.lists(st.lists(st.floats(0, 100), min_size=1, max_size=5), min_size=2, max_size=6), st.data())
def test_parents_always_precede(times: list[list[float]], data: st.DataObject) -> None:
    """With parents that are possible, all that a writer had seen comes before its first record."""
    names = [chr(ord("z") - i) for i in range(len(times))]  # names against the order, so that they do not help
    parents: dict[str, dict[str, int]] = {}
    for i, name in enumerate(names):
        known = data.draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else []
        parents[name] = {p: data.draw(st.integers(1, len(times[names.index(p)]))) for p in known}
    found = order(dict(zip(names, times, strict=True)), parents)
    for name, needs in parents.items():
        for parent, seq in needs.items():
            assert found.index(f"{parent}{seq}") < found.index(f"{name}1")


def test_a_thousand_empty_ancestors() -> None:
    """A long chain of resumed jobs that wrote nothing readable is no reason to fail."""
    names = [f"w{i:04d}" for i in range(2000)]
    streams = {name: [line(1, 1.0)] if name == names[-1] else [] for name in names}
    parents = {b: {a: 1} for a, b in itertools.pairwise(names)}
    assert [name for name, _ in merge(streams, parents)] == [names[-1]]


class Counted(int):
    """A seq that counts how often it is compared."""

    times = 0

    def __ge__(self, other: int) -> bool:
        Counted.times += 1
        return int(self) >= other


def test_a_record_costs_no_more_for_a_thousand_that_wait() -> None:
    """A parent's record is compared with what is needed of it next, not with all that anybody needs of it."""
    streams = {"parent": [line(seq, float(seq))._replace(seq=Counted(seq)) for seq in range(1, 2001)]}
    streams |= {f"child{n:04d}": [line(1, 0.0)] for n in range(1000)}
    parents = {f"child{n:04d}": {"parent": 2 * n + 1} for n in range(1000)}
    Counted.times = 0
    found = [f"{name}{found.seq}" for name, found in merge(streams, parents)]
    assert found[:5] == ["parent1", "child00001", "parent2", "parent3", "child00011"] and len(found) == 3000
    assert Counted.times < 10_000


def ranks(times: Mapping[str, list[float]], parents: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The order as docs/format.md says it, the plain way: by (clock, depth, writer), each writer behind its parents."""

    def place(name: str) -> tuple[float, int]:
        behind = [(*clock(p, min(seq, len(times[p]))), p) for p, seq in parents.get(name, {}).items()]
        at, depth, _ = max(behind, default=(0.0, -1, ""))
        return at, depth + 1

    def clock(name: str, seq: int) -> tuple[float, int]:
        floor, depth = place(name)
        return max(floor, *times[name][:seq]), depth

    found = [(*clock(name, seq), name, seq) for name in times for seq in range(1, len(times[name]) + 1)]
    return [f"{name}{seq}" for _, _, name, seq in sorted(found)]


@given(st.lists(st.lists(st.integers(0, 6).map(float), min_size=1, max_size=5), min_size=1, max_size=5), st.data())
def test_the_order_is_the_documented_one(times: list[list[float]], data: st.DataObject) -> None:
    """Reading several journals at once gives what sorting all of their records would."""
    names = data.draw(st.permutations("vwxyz"))[: len(times)]
    parents: dict[str, dict[str, int]] = {}
    for i, name in enumerate(names):
        known = data.draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else []
        parents[name] = {p: data.draw(st.integers(1, 7)) for p in known}
    writers = dict(zip(names, times, strict=True))
    assert order(writers, parents) == ranks(writers, parents)


def test_malformed_parents_do_not_count() -> None:
    """Only a mapping of names to positive integers names parents."""
    assert parents_of({"parents": {"a": 1, "b": 0, "c": True, "d": "1", "e": -4, "f": 2.0}}) == {"a": 1}
    assert parents_of({"parents": [1]}) == parents_of({}) == {}


# -- the fold ----------------------------------------------------------------------------------------------------------


def fold(*records: tuple[Any, ...]) -> Fold:
    made = Fold()
    for writer, seq, t, kind, data, *step in records:
        made.add(writer, line(seq, t, kind, data, *step).record())
    return made


RUN = ("main", 1, 1.0, "run", {"id": "r1", "project": "p", "name": "first", "tags": ["a"]})


def test_a_run_adds_up() -> None:
    """Identity, config, summary, step and counts from the records of one writer."""
    found = fold(
        RUN,
        ("main", 2, 2.0, "config", {"lr": 0.1, "bs": 8}),
        ("main", 3, 3.0, "log", {"loss": 3}, 0),
        ("main", 4, 4.0, "config", {"lr": 0.2}),
        ("main", 5, 5.0, "log", {"loss": 2, "acc": 1}, 7),
        ("main", 6, 6.0, "log", {"acc": 2}, 3),
        ("main", 7, 7.0, "summary", {"best": 9}),
        ("main", 8, 8.0, "media", {"img": {}}, 9),
    )
    assert (found.id, found.project, found.identity["name"], found.tags) == ("r1", "p", "first", ["a"])
    assert found.config == {"lr": 0.2, "bs": 8}
    assert found.summary == {"loss": 2, "acc": 2, "best": 9}
    assert (found.step, found.records, found.state) == (10, 8, "running")
    assert (found.started_at, found.updated_at, found.finished_at) == (1.0, 8.0, None)


@pytest.mark.parametrize(
    ("data", "state"),
    [
        ({"state": "finished"}, "finished"),
        ({"state": "failed", "exit_code": 3}, "failed"),
        ({"state": "preempted"}, "preempted"),
        ({"state": "no such state"}, "finished"),
        ({"state": "failed", "closes_run": False}, "running"),
    ],
)
def test_finish_records_close_the_run_or_only_their_writer(data: dict[str, Any], state: str) -> None:
    """The state is what the last closing record says; a child's end closes nothing."""
    assert fold(RUN, ("main", 2, 2.0, "finish", data)).state == state


def test_a_fork_childs_life_does_not_touch_the_runs_state() -> None:
    """A child that begins late, logs after the end, or ends: the run stays as its main writer closed it."""
    child = ("child", 1, 3.0, "run", {"id": "r1", "parents": {"main": 1}})
    end = ("main", 2, 4.0, "finish", {"state": "failed", "exit_code": 1})
    late = ("child", 2, 5.0, "log", {"x": 1}, 0)
    over = ("child", 3, 6.0, "finish", {"state": "finished", "closes_run": False})
    for records in ([child, end, late, over], [end, child, late, over]):
        found = fold(RUN, *records)
        assert (found.state, found.exit_code, found.finished_at) == ("failed", 1, 4.0)
        assert found.summary == {"x": 1}


def test_resuming_reopens() -> None:
    """A writer that had seen the end, or that began after it, makes the run running again."""
    end = ("main", 2, 4.0, "finish", {"state": "failed", "exit_code": 1, "error": {"type": "E"}})
    seen = fold(RUN, end, ("second", 1, 2.0, "run", {"id": "r1", "parents": {"main": 2}, "name": "again"}))
    assert (seen.state, seen.exit_code, seen.error, seen.finished_at) == ("running", None, None, None)
    assert seen.identity["name"] == "again"
    assert fold(RUN, end, ("second", 1, 5.0, "run", {"id": "r1"})).state == "running"
    assert fold(RUN, end, ("rank1", 1, 3.0, "run", {"id": "r1"})).state == "failed"


def test_the_fold_of_a_merge_does_not_depend_on_where_files_lay(dice: random.Random) -> None:
    """However the folders are listed, the same records give the same run."""
    streams = {
        name: [line(1, t0, "run", {"id": "r", "parents": up})]
        + [line(i, t0 + i, "log", {"x": f"{name}{i}"}, i) for i in range(2, 6)]
        for name, t0, up in [("a", 10.0, {}), ("b", 5.0, {"a": 3}), ("c", 1.0, {"b": 2})]
    }
    parents = {"b": {"a": 3}, "c": {"b": 2}}
    seen = set()
    for names in itertools.permutations(streams):
        made = Fold()
        for writer, found in merge({n: streams[n] for n in names}, parents):
            made.add(writer, found.record())
        seen.add(str((made.summary, made.step, made.state)))
    assert len(seen) == 1
