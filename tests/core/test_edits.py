"""What a run is called can be set anew while it runs; it is in the journal, not in memory only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import flightlog

from .conftest import Journal, Script

JournalOf = Callable[[Path], Journal]


def test_name_notes_tags_group_and_job_type_can_be_set(journal: JournalOf) -> None:
    """The journal, latest.spec, the reader and a resumed run know the new ones."""
    with flightlog.init("edited", id="edited", name="first", tags=["old"]) as run:
        run.name, run.notes, run.group, run.job_type = "second", "a note", "a group", "eval"
        run.tags = ["new", "new", "other"]  # type: ignore[assignment]
        assert (run.name, run.tags) == ("second", ("new", "other"))
    spec = run.rundir.read_spec()
    assert (spec["name"], spec["notes"], spec["tags"]) == ("second", "a note", ["new", "other"])
    read = flightlog.Api(run.dir).run("edited")
    assert (read.name, read.notes, read.group, read.job_type) == ("second", "a note", "a group", "eval")
    assert read.tags == ("new", "other")
    with flightlog.init("edited", id="edited") as again:
        assert (again.name, again.notes, again.tags) == ("second", "a note", ("new", "other"))


def test_assigning_config_reaches_the_run(script: Script, tmp_path: Path, journal: JournalOf) -> None:
    """`wandb.config = {…}` and `wandb.summary = {…}` are recorded; before init they say what to do."""
    script(
        "import flightlog as wandb\n"
        "try: wandb.config = {'lr': 1}\n"
        "except wandb.UsageError as e: assert 'init' in str(e)\n"
        "else: raise SystemExit(9)\n"
        "wandb.init()\nwandb.config = {'lr': 0.5}\nwandb.summary = {'best': 1}\nassert wandb.config.lr == 0.5\n"
    )
    fold = journal(tmp_path / "flightlog").fold
    assert fold.config == {"lr": 0.5} and fold.summary == {"best": 1}


def test_a_finished_run_cannot_be_renamed() -> None:
    """Setting a name after finish() is misuse."""
    run = flightlog.init()
    run.finish()
    with pytest.raises(flightlog.UsageError, match="finished"):
        run.name = "too late"


def test_an_integer_beyond_every_float_costs_its_key(journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """10**400 would make its whole record unreadable: it is left out with a warning, its neighbours are kept."""
    with flightlog.init(config={"huge": 10**400, "lr": 1}) as run:
        run.log({"a": 10**400, "loss": 0.5, "b": 2**1000})
        run.summary["x"] = -(10**400)
    found = journal(run.dir)
    assert found.logged("loss") == [0.5] and found.logged("b") == [float(2**1000)] and found.logged("a") == []
    assert found.fold.config == {"lr": 1} and "x" not in found.fold.summary
    assert capfd.readouterr().err.count("larger than any float") == 3


def test_what_is_said_cannot_act_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """A run's name with escape sequences is printed without them."""
    flightlog.init(name="\x1b]0;owned\x07\r\n").finish()
    said = capfd.readouterr().err
    assert "owned" in said and "\x1b" not in said and "\x07" not in said and "\r" not in said
