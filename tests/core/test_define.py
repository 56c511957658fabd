"""define_metric, alerts and preemption: what is said of metrics and runs, and what readers make of it."""

from __future__ import annotations

import datetime
import math
import random
import signal
import statistics
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flightlog
from flightlog import Api, UsageError
from flightlog.journal.define import Definition, Definitions, from_data
from flightlog.journal.writer import Writer

from .conftest import Script

JournalOf = Callable[[Path], Any]
VALUES = [3.0, 1.0, math.nan, 4.0, math.inf, 2.0]


def logged(values: list[Any] = VALUES, **definition: Any) -> dict[str, Any]:
    """Define "m", log the values, and return the summary, which a reader must find as well."""
    run = flightlog.init()
    run.define_metric("m", **definition)
    for value in values:
        run.log({"m": value})
    found = run.summary.as_dict()
    run.finish()
    read = Api(".").run(run.id).summary
    assert repr(read) == repr(found)
    assert flightlog.init(id=run.id).summary.as_dict().keys() == found.keys()
    flightlog.finish()
    return found


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ({}, {"m": 2.0}),
        ({"summary": "last"}, {"m": 2.0}),
        ({"summary": "min"}, {"m": 1.0}),
        ({"summary": "max"}, {"m": 4.0}),
        ({"summary": "mean"}, {"m": 2.5}),
        ({"summary": "best", "goal": "minimize"}, {"m": 1.0}),
        ({"summary": "best", "goal": "maximize"}, {"m": 4.0}),
        ({"summary": "none"}, {}),
        ({"summary": "min,max"}, {"m": 2.0, "m.min": 1.0, "m.max": 4.0}),
        ({"summary": ["mean", "last"]}, {"m": 2.0, "m.mean": 2.5}),
        ({"summary": "copy"}, {"m": 2.0}),
    ],
)
def test_which_value_stands_in_the_summary(definition: dict[str, Any], expected: dict[str, Any]) -> None:
    """One kind under the metric's own name, several beside each other; NaN and infinity count for none of them."""
    assert logged(**definition) == expected


def test_values_that_are_no_numbers_count_as_the_last() -> None:
    """A text or a boolean is neither the least nor the greatest."""
    assert logged(["a", 3, True, np.float32(5.0), "b"], summary="min,max") == {"m": "b", "m.min": 3, "m.max": 5.0}


def test_a_pattern_counts_for_all_that_fit() -> None:
    """The more exact definition wins over a pattern, and the later of two patterns."""
    run = flightlog.init()
    run.define_metric("val/*", summary="max")
    run.define_metric("val/loss", summary="min")
    for value in (2.0, 1.0, 3.0):
        run.log({"val/loss": value, "val/acc": value, "train/loss": value})
    assert run.summary == {"val/loss": 1.0, "val/acc": 3.0, "train/loss": 3.0}
    run.define_metric("*/acc", summary="mean")
    assert run.summary["val/acc"] == 2.0
    run.finish()
    assert Api(".").runs()[0].summary == {"val/loss": 1.0, "val/acc": 2.0, "train/loss": 3.0}


def test_a_definition_counts_for_what_was_logged_before(journal: JournalOf) -> None:
    """Said late, it is of the whole run all the same."""
    run = flightlog.init()
    for value in (5.0, 1.0, 3.0):
        run.log({"loss": value})
    run.define_metric("loss", summary="min")
    assert run.summary["loss"] == 1.0
    run.log({"loss": 2.0})
    assert run.summary["loss"] == 1.0
    run.finish()
    assert Api(".").runs()[0].summary == {"loss": 1.0} and run.rundir.read_spec()["summary"] == {"loss": 1.0}


def test_a_resumed_run_goes_on_counting(dice: random.Random) -> None:
    """Means and extremes go on over every attempt of a run, though each says its definitions again."""
    values = [dice.uniform(-5, 5) for _ in range(30)]
    for start in range(0, 30, 10):
        run = flightlog.init(id="job")
        run.define_metric("m", summary="mean,min,max")
        for value in values[start : start + 10]:
            run.log({"m": value})
        run.finish()
    summary = Api(".").runs()[0].summary
    assert summary["m.mean"] == pytest.approx(statistics.fmean(values))
    assert (summary["m.min"], summary["m.max"], summary["m"]) == (min(values), max(values), values[-1])
    assert run.summary.as_dict() == summary


def test_what_is_set_by_hand_stays_until_the_next_value() -> None:
    """`run.summary[...] = …` counts, as for any metric, until it is logged again."""
    run = flightlog.init()
    run.define_metric("m", summary="min")
    run.log({"m": 3.0})
    run.summary["m"] = 99.0
    run.summary["best_epoch"] = 7
    assert run.summary == {"m": 99.0, "best_epoch": 7}
    run.finish()
    assert Api(".").runs()[0].summary == {"m": 99.0, "best_epoch": 7}


def test_definitions_that_say_one_thing_after_the_other(journal: JournalOf) -> None:
    """What a later definition of the same name leaves open stays; saying the same again writes nothing."""
    run = flightlog.init()
    epoch = run.define_metric("epoch")
    run.define_metric("val/*", step_metric=epoch)
    whole = run.define_metric("val/*", summary="max", goal="max")
    assert whole == Definition("val/*", "epoch", ("max",), "maximize")
    run.define_metric("val/*", summary="max")
    flightlog.define_metric("hidden", hidden=True)
    run.finish()
    assert [r.data for r in journal(run.dir).of("define")] == [
        {"name": "epoch"},
        {"name": "val/*", "step_metric": "epoch"},
        {"name": "val/*", "step_metric": "epoch", "summary": ["max"], "goal": "maximize"},
        {"name": "hidden", "hidden": True},
    ]
    assert run.rundir.read_spec()["definitions"][0]["name"] == "val/*"


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""},
        {"name": 3},
        {"name": "m", "summary": "median"},
        {"name": "m", "summary": "best"},
        {"name": "m", "summary": 5},
        {"name": "m", "goal": "up"},
        {"name": "m", "step_metric": ""},
        {"name": "m", "step_metric": 4},
        {"name": "m" * 2000},
    ],
)
def test_definitions_that_make_no_sense(arguments: dict[str, Any]) -> None:
    """Misuse raises, naming what it does not understand."""
    with pytest.raises(UsageError, match="define_metric"):
        flightlog.init().define_metric(**arguments)


def test_arguments_of_weights_and_biases(capfd: pytest.CaptureFixture[str]) -> None:
    """`step_sync` and `overwrite` are ignored with a word; what nobody knows is an error."""
    run = flightlog.init()
    run.define_metric("m", step_metric="epoch", step_sync=True)
    assert "define_metric(step_sync=) has no counterpart" in capfd.readouterr().err
    with pytest.raises(TypeError, match="nonsense"):
        run.define_metric("m", nonsense=1)


def test_hostile_definitions() -> None:
    """Records that another program wrote: what is malformed is left out, and their number is bounded."""
    assert from_data({"name": 3}) is None and from_data({}) is None
    found = from_data({"name": "m", "summary": ["min", "evil", 3], "goal": 7, "step_metric": [], "hidden": "yes"})
    assert found == Definition("m", None, ("min",))
    many = Definitions(Definition(f"m{i}") for i in range(20_000))
    assert len(list(many)) == 10_000 and Definitions([Definition("[" * 1000 + "*" * 100)]).of("x" * 1000) is None


def test_a_definition_that_changes_counts_anew() -> None:
    """From min to last, from two kinds to one, over values set by hand: live and read agree."""
    run = flightlog.init()
    run.summary["best"] = 0.9
    run.define_metric("a", summary="min")
    run.define_metric("b", summary="min,max")
    for value in (1, 5):
        run.log({"a": value, "b": value})
    run.define_metric("a", summary="last")
    run.define_metric("b", summary="mean")
    run.define_metric("*", summary="min")
    assert run.summary == {"best": 0.9, "a": 5, "b": 3.0}
    run.finish()
    assert Api(".").runs()[0].summary == {"best": 0.9, "a": 5, "b": 3.0} == run.rundir.read_spec()["summary"]


def test_threads_that_log_while_a_metric_is_defined(dice: random.Random) -> None:
    """Each value counts once, whether it came before, during or after the definition; and nobody waits for it."""
    run = flightlog.init()
    values = [[dice.randrange(1000) for _ in range(1500)] for _ in range(3)]
    for value in range(2000):
        run.log({"m": value})

    def work(mine: list[int]) -> None:
        for value in mine:
            run.log({"m": value})

    threads = [threading.Thread(target=work, args=(mine,)) for mine in values]
    for thread in threads:
        thread.start()
    run.define_metric("m", summary="mean")
    assert run.summary["m"] > 0
    for thread in threads:
        thread.join()
    logged = [*range(2000), *(value for mine in values for value in mine)]
    assert run.summary["m"] == pytest.approx(sum(logged) / len(logged))
    run.finish()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("change", ["define", "rewind"])
def test_a_record_under_way_while_the_summary_is_made_anew(
    moment: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is in the middle of log(), its record not written or just written, loses and doubles nothing."""
    run = flightlog.init()
    for value in (1, 2, 3):
        run.log({"m": value})
    append_log = Writer.append_log

    def change_it() -> None:
        if change == "define":
            run.define_metric("m", summary="mean")
        else:
            run.rewind(1)
        assert run.summary["m"]

    def slow(self: Writer, *arguments: Any) -> bool | None:
        monkeypatch.setattr(Writer, "append_log", append_log)
        if moment == "before":
            change_it()
        done = append_log(self, *arguments)
        if moment == "after":
            change_it()
        return done

    monkeypatch.setattr(Writer, "append_log", slow)
    thread = threading.Thread(target=run.log, args=({"m": 8, "n": 5},))
    thread.start()
    thread.join()
    live = run.summary.as_dict()
    run.finish()
    read = Api(".").run(run.id).summary
    assert live == read == run.rundir.read_spec()["summary"]
    if change == "define":
        assert live == {"m": 3.5, "n": 5}


# -- alerts ------------------------------------------------------------------------------------------------------------


def test_alerts_are_recorded_and_said(journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """Level, title and text; the same title too soon is passed over."""
    run = flightlog.init()
    run.alert("loss is NaN", "at step 7", level="WARN")
    run.alert("loss is NaN", "at step 8", level=flightlog.AlertLevel.WARN)
    run.alert("other", level="error", wait_duration=datetime.timedelta(minutes=1))
    run.alert("other", "again", wait_duration=0)
    flightlog.alert(title="warning", text="t", level="warning")
    run.finish()
    assert [(r.data["level"], r.data["title"], r.data["text"]) for r in journal(run.dir).of("alert")] == [
        ("WARN", "loss is NaN", "at step 7"), ("ERROR", "other", ""), ("INFO", "other", "again"),
        ("WARN", "warning", "t"),
    ]  # fmt: skip
    assert "alert [WARN] loss is NaN: at step 7\n" in capfd.readouterr().err
    with pytest.raises(UsageError, match="none of INFO, WARN, ERROR"):
        flightlog.init().alert("x", level="loud")


# -- preemption --------------------------------------------------------------------------------------------------------


def test_a_marked_run_that_is_killed_was_preempted(script: Script, tmp_path: Path) -> None:
    """After `mark_preempting`, SIGKILL means that the machine was taken; a run that finishes has finished."""
    source = "import flightlog, os, sys\nrun = flightlog.init()\nrun.mark_preempting()\n"
    script(source + "os.kill(os.getpid(), 9)", expect=-9)
    (killed,) = Api(tmp_path).runs()
    assert killed.state == "preempted"
    script(source, FLIGHTLOG_DIR="other")
    assert Api(tmp_path / "other").runs()[0].state == "finished"
    script("import flightlog; flightlog.init()", FLIGHTLOG_RUN_ID=killed.id)
    assert Api(tmp_path / "flightlog").runs()[0].state == "finished"


def test_sigterm_with_a_handler_that_takes_too_long(script: Script, tmp_path: Path) -> None:
    """The script's handler is still at work when SIGKILL comes: the run says preempted, and is on the disk."""
    script(
        "import flightlog, os, signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), 9))\n"
        "run = flightlog.init()\nrun.log({'x': 1})\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n",
        expect=-signal.SIGKILL,
    )
    (run,) = Api(tmp_path).runs()
    assert run.state == "preempted" and run.history()[0]["x"] == 1


def test_a_disabled_run_takes_everything() -> None:
    """mode="disabled": every call of a script works and leaves nothing behind."""
    run = flightlog.init(mode="disabled")
    flightlog.define_metric("m", summary="min")
    flightlog.alert("title")
    flightlog.mark_preempting()
    run.rewind(3)
    run.spool()
    run.log({"m": 3})
    assert run.summary["m"] == 3 and run.step == 1 and run.size == 0
    flightlog.finish()
    assert list(Path().iterdir()) == []
