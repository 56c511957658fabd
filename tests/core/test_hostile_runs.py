"""Run directories that nobody sane has made: they cost themselves at most, never the other runs, nor their reader."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flightlog
from flightlog import Api, rundir
from flightlog.errors import FlightlogError
from flightlog.journal import record
from flightlog.journal.rewind import Rewinds
from flightlog.rundir import RunDir
from flightlog.verify import verify

from .conftest import Script, environment

T0 = 1_700_000_000.0


def write(run: Path, writer: str, *said: tuple[str, float, bytes]) -> None:
    """Write a writer's journal: of each record its kind, its time after T0, and its body."""
    folder = run / "files" / "journal" / writer
    folder.mkdir(parents=True)
    lines = (record.encode(seq, T0 + t, kind, body) for seq, (kind, t, body) in enumerate(said, 1))
    (folder / "000001.jsonl").write_bytes(b"".join(lines))


def run(**more: Any) -> bytes:
    return record.body(orjson.dumps({"id": "r", "project": "p", **more}))


def log(step: int, **values: Any) -> bytes:
    return record.body(orjson.dumps(values), step)


def define(**what: Any) -> bytes:
    return record.body(orjson.dumps(what))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder with one sound run, `good`."""
    with flightlog.init("p", id="good", dir=tmp_path / "runs") as made:
        made.log({"a": 1.0})
    return tmp_path / "runs"


# -- many writers ------------------------------------------------------------------------------------------------------


def test_more_writers_than_files_may_be_open(tmp_path: Path, script: Script) -> None:
    """300 ranks are read, verified and resumed by a process that may open 64 files."""
    place = tmp_path / "runs" / "run-20260101-000000-r"
    for n in range(300):
        first = run(launch="L", rank=n, ranks=300, parents={"w000": 1} if n else {})
        write(place, f"w{n:03d}", ("run", n * 1e-4, first), *(("log", 1.0 + i, log(i, **{f"m{n}": i})) for i in (0, 1)))
    done = script("""
import resource, flightlog
from flightlog.rundir import RunDir
from flightlog.verify import verify
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
(found,) = flightlog.Api("runs").runs()
rows = found.history()
verdict = verify(RunDir(next(__import__("pathlib").Path("runs").glob("run-*"))), repair=True)
run = flightlog.init("p", id="r", dir="runs", resume="must")
print(len(rows), sum(len(row) - 2 for row in rows), verdict.sound, verdict.repaired, run.step, len(run.summary))
run.finish()
""")
    assert done.stdout.split() == ["2", "600", "True", "True", "2", "300"], done.stdout


# -- the order of what says how others are to be seen ------------------------------------------------------------------


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_the_later_definition_is_that_of_the_later_job(tmp_path: Path, names: str) -> None:
    """A job whose clock was two hours ahead does not win over the job that went on from it."""
    first, second = names
    place = tmp_path / "run-20260101-000000-r"
    write(
        place, first,
        ("run", 7200.0, run()),
        ("define", 7200.1, define(name="loss", summary=["min"], step_metric="epoch")),
        ("log", 7201.0, log(0, loss=3)),
        ("log", 7202.0, log(1, loss=1)),
    )  # fmt: skip
    write(
        place, second,
        ("run", 60.0, run(parents={first: 4})),
        ("define", 60.1, define(name="loss", summary=["max"], step_metric="batch")),
        ("log", 61.0, log(2, loss=2)),
    )  # fmt: skip
    found = Api(tmp_path).run("r")
    assert found.definitions == ({"name": "loss", "summary": ["max"], "step_metric": "batch"},)
    assert found.summary["loss"] == 3


def test_definitions_are_ordered_by_those_in_between_too(tmp_path: Path) -> None:
    """Two jobs define, one between them does not: that the last is later is known from the one between."""
    place = tmp_path / "run-20260101-000000-r"
    write(place, "c", ("run", 9000.0, run()), ("define", 9000.1, define(name="x", goal="minimize")))
    write(place, "b", ("run", 4000.0, run(parents={"c": 2})), ("log", 4001.0, log(0, x=1)))
    write(place, "a", ("run", 10.0, run(parents={"b": 2})), ("define", 10.1, define(name="x", goal="maximize")))
    assert Api(tmp_path).run("r").definitions == ({"name": "x", "goal": "maximize"},)


def test_a_clock_set_back_does_not_reorder_one_jobs_definitions(tmp_path: Path) -> None:
    """Within a writer the later definition is the one behind, whatever the clock said."""
    place = tmp_path / "run-20260101-000000-r"
    said = [("define", 50.0, define(name="x", goal="minimize")), ("define", 10.0, define(name="x", goal="maximize"))]
    write(place, "a", ("run", 0.0, run()), *said)
    assert Api(tmp_path).run("r").definitions == ({"name": "x", "goal": "maximize"},)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(-2, 9)), max_size=12))
def test_what_several_rewinds_hide_is_what_each_hides(pairs: list[tuple[int, int]]) -> None:
    """However they overlap, and in whatever order they come."""
    rewinds = Rewinds()
    for seq, step in pairs:
        rewinds.add({"step": step, "writers": {"w": seq}})
    for seq in range(1, 11):
        for step in range(-3, 11):
            assert rewinds.hide_at("w", seq, step) == any(seq <= upto and step > n for upto, n in pairs)
    assert {*rewinds.of("w")} <= {*pairs} and not rewinds.hide_at("w", 1, None) and not rewinds.hide_at("v", 1, 9)


def test_tens_of_thousands_of_rewinds_are_read(tmp_path: Path) -> None:
    """Each hides something that no other does; the next costs no more for those that were there."""
    place = tmp_path / "run-20260101-000000-r"
    many = (("rewind", 1.0, define(step=n, writers={"w": n + 1})) for n in range(30_000))
    write(place, "w", ("run", 0.0, run()), ("log", 0.5, log(1, a=1)), *many)
    write(place, "v", ("run", 2.0, run(parents={"w": 9})), ("log", 2.5, log(7, a=2)))
    assert [row["_step"] for row in Api(tmp_path).run("r").history()] == [1, 7]


# -- values that are none ----------------------------------------------------------------------------------------------

NONSENSE: list[Any] = [None, True, -1, 10**18, 2**63, 1e308, "x", [], {}, [[]], {"a": []}, [{}], "\x1b[31m"]
NONSENSE.append(json.loads("[" * 300 + "]" * 300))
KEYS = (
    *("id", "project", "workspace", "name", "group", "tags", "state", "started_at", "updated_at", "host", "pid"),
    *("pid_namespace", "process_started_at", "command", "config", "summary", "definitions", "tallies", "step"),
    *("writers", "seen", "unheard_of"),
)


def outcomes(place: Path, directory: RunDir) -> list[str]:
    """Read a folder and a run directory in all ways. Returns the ids found; only errors of our own may come."""
    found = []
    for view in Api(place).runs():
        found.append(view.id)
        assert str(view) and view.history() is not None and view.media() is not None and view.alerts() is not None
    with pytest.raises(FlightlogError):
        Api(place).artifact("p/nothing:latest")
    verify(directory)
    verify(directory, repair=True)
    return found


@pytest.mark.parametrize("key", KEYS)
def test_nonsense_in_latest_spec_costs_no_other_run(good: Path, key: str) -> None:
    """Whatever stands under any name of it: both runs are listed, and it is verified and repaired without an error."""
    with flightlog.init("p", id="odd", dir=good) as made:
        made.log({"a": 2.0})
    spec = json.loads(made.rundir.spec_path.read_text())
    for path in made.rundir.journal.rglob("*.jsonl"):
        path.write_bytes(b"".join(x for x in path.read_bytes().splitlines(True) if b'"finish"' not in x))
    for value in NONSENSE:
        made.rundir.spec_path.write_text(json.dumps({**spec, "state": "running", key: value}))
        found = outcomes(good, made.rundir)
        assert len(found) == 2 and "good" in found, value
        orjson.loads(made.rundir.spec_path.read_bytes())


@pytest.mark.parametrize("key", ["host", "pid", "process_started_at", "command", "name", "tags", "launch", "config"])
def test_nonsense_in_a_run_record_costs_no_other_run(good: Path, key: str) -> None:
    """A journal whose first record lies about its types is read as far as it makes sense."""
    for n, value in enumerate(NONSENSE):
        place = good / f"run-20270101-0000{n:02d}-r"
        host = {"host": rundir.hostname(), "pid": os.getpid(), "process_started_at": 0.0}
        write(place, "w", ("run", 0.0, run(**{**host, key: value}) if n < 13 else run()), ("log", 1.0, log(0, a=1)))
        assert sorted(outcomes(good, RunDir(place))) == ["good", "r"], value
        shutil.rmtree(place)


@pytest.mark.parametrize("step", [2**63 - 1, 2**63, 2**64 - 1, -(2**63) - 1, 10**30])
def test_a_step_beyond_64_bits_is_in_no_view(tmp_path: Path, step: int) -> None:
    """Such a record is kept, and counts; the run's step and history are those of the others."""
    place = tmp_path / "run-20260101-000000-r"
    odd = b'"step":%d,"data":{"a":7}' % step
    write(
        place, "w",
        ("run", 0.0, run()), ("log", 1.0, log(4, a=1)), ("log", 2.0, odd), ("media", 3.0, odd),
        ("rewind", 4.0, b'"data":{"step":%d,"writers":{"w":9}}' % step), ("log", 5.0, log(2**63 - 2, b=1)),
    )  # fmt: skip
    verdict = verify(RunDir(place), repair=True)
    assert verdict.repaired and verdict.sound and sum(r.records for r in verdict.writers.values()) == 6
    found = Api(tmp_path).run("r")
    assert found.step == 2**63 - 1 and [row["_step"] for row in found.history()] == [4, 2**63 - 2]
    assert orjson.loads((place / "latest.spec").read_bytes())["step"] == 2**63 - 1


@pytest.mark.parametrize("depth", [60, 70, 300, 1000])
def test_data_that_nests_without_end_is_in_no_view(tmp_path: Path, depth: int) -> None:
    """64 levels are shown; what is deeper could not be written again, and stays in the journal."""
    place = tmp_path / "run-20260101-000000-r"
    deep = b'"data":{"deep":' + b"[" * depth + b"]" * depth + b',"a":1}'
    write(place, "w", ("run", 0.0, run()), ("config", 1.0, deep), ("config", 2.0, define(b=[[1]] * 100)))
    assert verify(RunDir(place), repair=True).repaired
    assert Api(tmp_path).run("r").config.keys() == ({"deep", "a", "b"} if depth < 64 else {"b"})


def test_aliases_that_are_no_list_cost_nothing(good: Path) -> None:
    """An artifact record with a number for its aliases is a version without an alias."""
    Path("weights").write_bytes(b"w")
    with flightlog.init("p", id="maker", dir=good) as made:
        made.log_artifact("weights", name="model")
    (path,) = made.rundir.journal.rglob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    told = next(data for raw in lines if (data := json.loads(raw)["data"]).get("action") == "log")
    body = record.body(orjson.dumps({**told, "version": "v7", "aliases": 5}))
    path.write_bytes(b"".join(lines) + record.encode(len(lines) + 1, T0 + 1e9, "artifact", body))
    assert Api(good).artifact("p/model:v7").digest == Api(good).artifact("p/model:latest").digest


# -- what cannot be read -----------------------------------------------------------------------------------------------


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user of this machine may look into, with two runs."""
    place = Path(tempfile.mkdtemp(prefix="flightlog-test-"))
    place.chmod(0o755)
    for name in ("mine", "theirs"):
        with flightlog.init("p", id=name, dir=place / "runs") as made:
            made.log({"a": 1.0})
    yield place / "runs"
    shutil.rmtree(place)


@pytest.mark.parametrize("what", ["files", "files/journal", "files/journal/*", "files/journal/*/000001.jsonl"])
def test_a_journal_of_another_user_costs_only_itself(shared: Path, script: Script, what: str) -> None:
    """Without the right to read it, the other runs are listed, and verify names what cannot be read."""
    source = """
import os, sys
from pathlib import Path
import psutil
import flightlog
from flightlog.rundir import RunDir
from flightlog.verify import verify
place, what = Path(sys.argv[1]), sys.argv[2]
theirs = RunDir(next(place.glob("run-*-theirs")))
def look():
    views = flightlog.Api(place).runs()
    return sorted(v.id for v in views if v.history()), verify(theirs).faults
assert look() == (["mine", "theirs"], []), look()  # and all modules are imported, as long as they can be
hidden = next(theirs.path.glob(what))
hidden.chmod(0)
if os.getuid() == 0:
    os.seteuid(65534)
views, faults = look()
if os.getuid() == 0:
    os.seteuid(0)
hidden.chmod(0o755)
assert views == ["mine"], views
assert any(str(hidden) in f and "Permission denied" in f for f in faults), faults
"""
    done = script(source, str(shared), what)
    if what in ("files", "files/journal"):
        assert "Permission denied" in done.stderr and "theirs" in done.stderr


@pytest.mark.parametrize("name", ["CACHEDIR.TAG", ".gitignore", "latest.spec", "latest", "files", ".delivered"])
@pytest.mark.parametrize("kind", ["pipe", "zero", "nowhere"])
def test_what_never_ends_or_begins_is_not_waited_for(
    tmp_path: Path, good: Path, script: Script, name: str, kind: str
) -> None:
    """A pipe nobody writes to, an endless device, a link to nowhere in a root: runs are recorded, and read."""
    path = good / name
    if path.is_symlink() or path.is_file():
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "zero" else tmp_path / "victim")
    done = script(
        "import flightlog\nwith flightlog.init('p', id='new', dir='runs') as run: run.log({'a': 1})\n"
        "print(sorted(r.id for r in flightlog.Api('runs').runs()), flightlog.Api(run.dir).run('new').step)"
    )
    assert "'new'] 1" in done.stdout and "good" in done.stdout
    assert not (tmp_path / "victim").exists(), "a link was followed to make a file elsewhere"


def test_pipes_within_a_run_are_not_waited_for(good: Path) -> None:
    """A latest.spec or segment that is a pipe is a fault with a name."""
    directory = RunDir(next(good.glob("run-*-good")))
    directory.spec_path.unlink()
    os.mkfifo(directory.spec_path)
    (path,) = directory.journal.rglob("*.jsonl")
    os.mkfifo(path.with_name("000002.jsonl"))
    assert [v.id for v in Api(good).runs()] == ["good"]
    assert any("latest.spec" in fault for fault in verify(directory).faults)


# -- runs without a record ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b'{"seq":1,"t":17'])
def test_a_run_killed_before_its_first_record_is_no_damage(tmp_path: Path, content: bytes | None) -> None:
    """Nothing was acknowledged, so nothing is missing: a note, and exit status 0."""
    directory = rundir.create(rundir.prepare_root(tmp_path / "runs"), "early", T0)
    if content is not None:
        (directory.journal / "w").mkdir()
        (directory.journal / "w" / "000001.jsonl").write_bytes(content)
    verdict = verify(directory, repair=True)
    assert verdict.sound and not verdict.repaired and "nothing was recorded yet" in verdict.notes[0]
    done = subprocess.run(
        [sys.executable, "-m", "flightlog", "verify", "runs"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "nothing was recorded yet" in done.stdout
    assert Api(tmp_path).runs() == []


def test_a_segment_that_is_larger_than_a_record_is_no_beginning(tmp_path: Path) -> None:
    """Zeros where two megabytes of records were: damage."""
    directory = rundir.create(rundir.prepare_root(tmp_path / "runs"), "zeros", T0)
    (directory.journal / "w").mkdir()
    (directory.journal / "w" / "000001.jsonl").write_bytes(bytes(2 << 20))
    assert not verify(directory).sound


def test_a_run_that_has_lost_its_journal_is_damage(good: Path) -> None:
    """Where latest.spec or a file shows that something had been recorded, an empty journal is no beginning."""
    directory = RunDir(next(good.glob("run-*-good")))
    shutil.rmtree(next(directory.journal.iterdir()))
    assert not verify(directory).sound
    directory.spec_path.unlink()
    (directory.files / "media").mkdir()
    assert not verify(directory).sound
