"""Continuing a run: requeued jobs on several nodes, rewinds, and what is left after cleaning."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

import flightlog
from flightlog import Api, UsageError
from flightlog.errors import ResumeError, SettingsError
from flightlog.journal import record
from flightlog.journal.rewind import Rewinds
from flightlog.journal.scan import RunJournal
from flightlog.resume import delivered_place

from .conftest import Script

JournalOf = Callable[[Path], Any]

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

JOB = """
import flightlog, os, sys, time
offset = float(os.environ.get("CLOCK", "0"))
now = time.time
time.time = lambda: now() + offset
first, last = int(sys.argv[1]), int(sys.argv[2])
run = flightlog.init(config={"lr": 0.1})
assert run.step == first, (run.step, first)
for step in range(first, last):
    run.log({"loss": step})
if len(sys.argv) > 3:
    os.kill(os.getpid(), 9)
"""


def losses(place: Path) -> list[tuple[int, float]]:
    (run,) = Api(place).runs()
    return [(row["_step"], row["loss"]) for row in run.history()]


def test_a_requeued_job_reads_as_one_run(script: Script, tmp_path: Path) -> None:
    """Killed twice and begun again with the same id, on nodes whose clocks differ by hours: one run, one curve."""
    for number, (first, last, clock) in enumerate([(0, 5, 0), (5, 9, -7200), (9, 12, 7200)]):
        killed = ["kill"] if number < 2 else []
        script(
            JOB, str(first), str(last), *killed, expect=-9 if killed else 0, FLIGHTLOG_RUN_ID="job", CLOCK=str(clock)
        )
    (run,) = Api(tmp_path).runs()
    assert losses(tmp_path) == [(step, step) for step in range(12)]
    assert run.state == "finished" and run.summary["loss"] == 11 and run.config == {"lr": 0.1}
    assert run.step == 12


def test_several_directories_are_one_run(script: Script, tmp_path: Path) -> None:
    """Each attempt on a node's own disk, brought together later: one run whose curve is whole."""
    for number in range(3):
        node = tmp_path / f"node{number}"
        source = JOB.replace("assert run.step == first, (run.step, first)\n", "").replace(
            'run.log({"loss": step})', 'run.log({"loss": step}, step=step)'
        )
        script(
            source, str(number * 4), str(number * 4 + 4), FLIGHTLOG_RUN_ID="job", FLIGHTLOG_DIR=str(node / "flightlog")
        )
    assert losses(tmp_path) == [(step, step) for step in range(12)]


def test_a_rewind_hides_later_steps_and_keeps_them(journal: JournalOf) -> None:
    """`resume_from=N`: views end at N and go on from there; every record is still in the journal."""
    run = flightlog.init(id="job", config={"lr": 1})
    for step in range(10):
        run.log({"loss": 100 - step, "old": step})
    run.finish()
    again = flightlog.init(id="job", resume_from=4)
    assert again.resumed and again.step == 5
    assert again.summary["loss"] == 96 and again.summary["old"] == 4
    for step in range(5, 8):
        again.log({"loss": 50 - step})
    assert again.step == 8
    again.finish()
    (view,) = Api(".").runs()
    assert [(row["_step"], row["loss"]) for row in view.history()] == [
        (0, 100), (1, 99), (2, 98), (3, 97), (4, 96), (5, 45), (6, 44), (7, 43),
    ]  # fmt: skip
    assert [row.get("old") for row in view.history()] == [0, 1, 2, 3, 4, None, None, None]
    assert view.summary == {"loss": 43, "old": 4} and view.step == 8 and view.config == {"lr": 1}
    assert journal(again.dir).logged("old") == list(range(10)) and journal(again.dir).sound
    assert view.records == len(journal(again.dir).records)


def test_rewinding_in_the_middle_of_a_run(journal: JournalOf) -> None:
    """`run.rewind(N)` of a training that goes back to a checkpoint without ending."""
    run = flightlog.init()
    for step in range(6):
        run.log({"x": step})
    run.log({"picture": flightlog.Text("late")}, step=5)
    run.rewind(2)
    assert run.step == 3 and run.summary["x"] == 2
    run.log({"x": 30})
    run.finish()
    (view,) = Api(".").runs()
    assert [(row["_step"], row["x"]) for row in view.history()] == [(0, 0), (1, 1), (2, 2), (3, 30)]
    assert view.media() == []


def test_rewinds_add_up() -> None:
    """Rewound to 6, on to 9, and rewound to 3 afterwards: only what no rewind hides is seen."""
    run = flightlog.init(id="job")
    for step in range(10):
        run.log({"x": step})
    run.finish()
    run = flightlog.init(id="job", resume_from="6")
    for _ in range(3):
        run.log({"x": 60})
    run.finish()
    run = flightlog.init(resume_from="job?_step=3")
    run.log({"x": 300})
    run.finish()
    (view,) = Api(".").runs()
    assert [row["x"] for row in view.history()] == [0, 1, 2, 3, 300]


def test_a_rewind_that_a_later_one_covers_counts_no_more() -> None:
    """To 10, back to 8 and on, back to 3: the run's step is that of the last training, also for whoever resumes it."""
    run = flightlog.init(id="job")
    for step in range(11):
        run.log({"x": step})
    run.finish()
    for back, more in ((8, 4), (3, 2)):
        run = flightlog.init(id="job", resume_from=back)
        for _ in range(more):
            run.log({"x": back})
        run.finish()
    assert run.step == 6
    (view,) = Api(".").runs()
    assert view.step == 6 and [row["_step"] for row in view.history()] == [0, 1, 2, 3, 4, 5]
    again = flightlog.init(id="job", resume="must")
    assert again.step == 6
    again.finish()


def test_a_rewind_beyond_what_was_logged() -> None:
    """A checkpoint of a step that was never logged: the counter goes there, nothing is hidden."""
    run = flightlog.init(id="job")
    run.log({"x": 1})
    run.finish()
    run = flightlog.init(id="job", resume_from=100)
    assert run.step == 101
    run.finish()
    (view,) = Api(".").runs()
    assert view.step == 101 and len(view.history()) == 1


def test_where_nothing_is_known_a_rewind_still_counts(journal: JournalOf) -> None:
    """On another node, without the earlier directories: the step is that of `resume_from`, as the journal says."""
    run = flightlog.init(id="job", resume_from=41)
    assert not run.resumed and run.step == 42
    run.log({"x": 1})
    run.finish()
    assert [r.data["step"] for r in journal(run.dir).of("rewind")] == [41]


@pytest.mark.parametrize("value", ["x", "?_step=", "job?_step=x", 1.5, -2, 2**70])
def test_steps_that_are_none(value: Any) -> None:
    """What `resume_from` cannot be, said in one line."""
    with pytest.raises((SettingsError, UsageError)):
        flightlog.init(id="job", resume_from=value)


def test_a_rewind_needs_to_know_the_run() -> None:
    """Without an id there is nothing to go back in."""
    with pytest.raises(ResumeError, match="needs the id"):
        flightlog.init(resume_from=3)


def test_malformed_rewinds_hide_nothing() -> None:
    """What another program, or an attacker, may have written."""
    rewinds = Rewinds()
    for data in ({}, {"step": "3", "writers": {"a": 9}}, {"step": 3, "writers": []}, {"step": 3, "writers": {"a": "9"}},
                 {"step": True, "writers": {"a": 9}}):  # fmt: skip
        rewinds.add(data)
    assert not rewinds


def test_of_many_rewinds_few_are_kept(dice: random.Random) -> None:
    """Whatever the rewinds, what they hide is what each of them alone would, and the pairs kept stay few."""
    given = [(dice.randrange(1, 30), dice.randrange(30)) for _ in range(200)]
    rewinds = Rewinds()
    for seq, step in given:
        rewinds.add({"step": step, "writers": {"w": seq}})
    assert len(rewinds.of("w")) <= 30
    for seq, step in itertools.product(range(1, 31), range(31)):
        found = rewinds.hide("w", record.Record(seq, 0.0, "log", step, {}, b""))
        assert found == any(seq <= s and step > n for s, n in given)


def test_auto_takes_the_id_that_is_given(script: Script, tmp_path: Path) -> None:
    """resume="auto" looks for a run only where none is named."""
    script("import flightlog, os; flightlog.init(id='a').log({'x': 1}); os.kill(os.getpid(), 9)", expect=-9)
    script("import flightlog; run = flightlog.init(id='b', resume='auto'); assert not run.resumed; run.log({'x': 2})")
    script("import flightlog; run = flightlog.init(resume='auto'); print(run.id)", FLIGHTLOG_PROJECT="other")
    assert {run.id: len(run.history()) for run in Api(tmp_path).runs() if run.history()} == {"a": 1, "b": 1}


def test_the_same_id_in_another_project_is_another_run() -> None:
    """A run is its project and its id; without a project the id alone finds it."""
    first = flightlog.init("A", id="baseline")
    first.log({"x": 1})
    first.finish()
    second = flightlog.init("B", id="baseline")
    assert not second.resumed and second.project == "B"
    second.finish()
    with pytest.raises(ResumeError, match="of project C"):
        flightlog.init("C", id="baseline", resume="must")
    clean(first)
    clean(second)
    assert flightlog.init("B", id="baseline").step == 0
    assert flightlog.init("A", id="baseline").step == 1
    flightlog.finish()


def test_a_spooled_run_is_known_on_the_next_node(script: Script, tmp_path: Path) -> None:
    """FLIGHTLOG_SPOOL_TO is where a requeued job finds what it did on another node's disk."""
    train = "import flightlog; run = flightlog.init(id='job')\nprint(run.resumed, run.step)\nrun.log({'x': 1})\n"
    for node in ("node1", "node2"):
        done = script(train, FLIGHTLOG_DIR=node, FLIGHTLOG_SPOOL_TO="shared")
    assert done.stdout.split() == ["True", "1"]
    (run,) = Api(tmp_path / "shared").runs()
    assert [row["_step"] for row in run.history()] == [0, 1]


def test_a_rewind_counts_for_children_too(journal: JournalOf) -> None:
    """What a forked child of this process has logged beyond the step is hidden as well."""
    run = flightlog.init()
    for step in range(5):
        run.log({"x": step})
    pid = os.fork()
    if pid == 0:
        run.log({"child": 1}, step=4)
        run.finish()
        os._exit(0)
    os.waitpid(pid, 0)
    run.rewind(2)
    assert run.summary == {"x": 2}
    run.finish()
    (view,) = Api(".").runs()
    assert [row["_step"] for row in view.history()] == [0, 1, 2]


# -- after cleaning ----------------------------------------------------------------------------------------------------


def clean(run: flightlog.Run) -> None:
    """Leave of a run what `sync --clean` does; that the command does so is shown with the server."""
    (run.dir.parent / ".delivered").mkdir(exist_ok=True)
    spec = json.loads(run.rundir.spec_path.read_bytes())
    delivered_place(run.dir.parent, run.id, run.project).write_bytes(orjson.dumps(spec))
    shutil.rmtree(run.dir)


def test_a_job_requeued_after_cleaning_names_its_parents(journal: JournalOf) -> None:
    """Step, config and summary go on, and the new journal says behind which records it comes."""
    first = flightlog.init(id="job", config={"lr": 1})
    first.define_metric("loss", summary="mean")
    for loss in (1.0, 2.0, 3.0):
        first.log({"loss": loss})
    first.finish()
    writer, seq = first.position
    clean(first)
    second = flightlog.init(id="job")
    assert second.resumed and second.step == 3 and second.summary["loss"] == 2.0 and second.config["lr"] == 1
    second.log({"loss": 6.0})
    assert second.summary["loss"] == 3.0
    second.finish()
    assert journal(second.dir).of("run")[0].data["parents"] == {writer: seq}
    spec = second.rundir.read_spec()
    assert spec["seen"] == {writer: seq} and list(spec["writers"]) == [second.position[0]]
    third = flightlog.init(id="job", resume_from=1)
    assert third.step == 2
    third.finish()
    hidden = journal(third.dir).of("rewind")[0].data
    assert hidden["step"] == 1 and hidden["writers"].keys() >= {writer, second.position[0]}


def test_a_directory_and_what_cleaning_left_of_another_add_up() -> None:
    """Cleaned once, then killed between init and the first log: the third attempt still knows the first."""
    first = flightlog.init(id="job", config={"lr": 1}, tags=["a"])
    first.log({"loss": 1.0}, step=50)
    first.finish()
    clean(first)
    flightlog.init(id="job").finish()
    third = flightlog.init(id="job")
    assert third.step == 51 and third.config["lr"] == 1 and third.summary["loss"] == 1.0 and third.tags == ("a",)
    third.finish()


# -- config ------------------------------------------------------------------------------------------------------------


def test_a_continued_config_that_changes_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    """A requeued job with another learning rate is recorded, with one warning; `allow_val_change` says it is meant."""
    flightlog.init(id="job", config={"lr": 1, "depth": 2}).finish()
    flightlog.init(id="job", config={"lr": 1, "depth": 2}).finish()
    assert "changes" not in capfd.readouterr().err
    flightlog.init(id="job", config={"lr": 2}, allow_val_change=True).finish()
    assert "changes" not in capfd.readouterr().err
    run = flightlog.init(id="job", config={"lr": 3})
    assert "config.lr changes from 2 to 3" in capfd.readouterr().err
    assert run.config == {"lr": 3, "depth": 2}
    run.finish()
    assert Api(".").runs()[0].config == {"lr": 3, "depth": 2}


# -- guides are found wherever they are --------------------------------------------------------------------------------


def test_guides_across_the_bounds_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewind is found wherever it lies in the file, also where a block of reading ends in its midst."""
    from flightlog.journal import scan

    folder = tmp_path / "journal" / "w"
    folder.mkdir(parents=True)
    lines = [record.encode(n, 1.0, "log", record.body(b'{"x":1}', n)) for n in range(1, 9)]
    lines.append(record.encode(9, 1.0, "rewind", record.body(b'{"step":2,"writers":{"w":8}}')))
    (folder / "000001.jsonl").write_bytes(b"".join(lines))
    for block in range(1, 80):
        monkeypatch.setattr(scan, "_SCAN_BLOCK", block)
        found = RunJournal([tmp_path / "journal"])
        assert [r.step for _, r in found.records(frozenset({"log"}))] == [1, 2]
