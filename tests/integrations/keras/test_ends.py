"""How a training ended is told as it was; what was killed goes on; and all of it arrives at a server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest

import flightlog
from flightlog.journal.scan import RunJournal
from flightlog.reading.views import RunView
from flightlog.rundir import discover

from ...server.tools import Server, environment
from .test_fit import rows

SCRIPT = Path(__file__).with_name("ends.py")
pytestmark = pytest.mark.timeout(600)  # the first test waits for all the processes
BEFORE = ("interrupted", "caught", "tried-again", "another", "exit", "terminated", "killed", "resumed")
CASES = ("uncaught", *BEFORE)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all cases have run, each in a folder of its own; torch bears being forked."""
    folder = tmp_path_factory.mktemp("ends")
    can_fork = keras.backend.backend() == "torch"
    own = {
        "FLIGHTLOG_MODE": "offline", "FLIGHTLOG_SYSTEM_INTERVAL": "0", "FLIGHTLOG_PROVENANCE": "false",
        "KERAS_BACKEND": keras.backend.backend(), "_FLIGHTLOG_RAISE": "1",
    }  # fmt: skip
    for names in [CASES] if can_fork else [(name,) for name in CASES]:
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *names], cwd=folder, env=environment(folder, **own), capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        (folder / f"{names[0]}.said").write_text(done.stdout + done.stderr)
    return folder


def only(folder: Path) -> RunView:
    (view,) = flightlog.Api(folder / "flightlog").runs()
    return view


def error(folder: Path) -> dict[str, Any]:
    """Return the exception that the run's end tells of."""
    journal = RunJournal([d.journal for d in discover(folder / "flightlog")])
    *_, last = [record.data for _, record in journal.records(frozenset({"finish"}), hidden=True)]
    found: dict[str, Any] = last["error"]
    return found


def test_an_exception_is_a_failure(ended: Path) -> None:
    """Uncaught, it is the run's end, with its traceback; an interrupt likewise."""
    assert only(ended / "uncaught").state == only(ended / "interrupted").state == "failed"
    assert error(ended / "uncaught")["message"] == "no room" and "in fail" in error(ended / "uncaught")["traceback"]
    assert error(ended / "interrupted")["type"] == "KeyboardInterrupt"


def test_an_exception_that_the_script_caught_is_a_failure_too(ended: Path) -> None:
    """The script went on and ended well, its training did not."""
    assert only(ended / "caught").state == "failed"
    assert error(ended / "caught")["type"] == "FitLeft" and "epoch 3, at step 20" in error(ended / "caught")["message"]


def test_what_was_tried_again_and_came_through_has_not_failed(ended: Path) -> None:
    """One run, its steps as if nothing had happened."""
    view = only(ended / "tried-again")
    assert view.state == "finished" and list(rows(view, "batch/loss")) == list(range(1, 33))


def test_a_training_that_was_left_for_another_has_failed(ended: Path) -> None:
    """A second callback with a run of its own: the first run says what became of it."""
    states = {view.id: view.state for view in flightlog.Api(ended / "another" / "flightlog").runs()}
    assert states == {"first": "failed", "second": "finished"}


def test_leaving_by_exit_is_no_end_of_a_training(ended: Path) -> None:
    """After sys.exit(0) within a fit the training is not through, whatever the process says."""
    assert only(ended / "exit").state == "failed"
    assert error(ended / "exit")["type"] == "FitLeft"


def test_sigterm_is_a_preemption(ended: Path) -> None:
    """The batch system takes the machine away: preempted, with all that was logged."""
    view = only(ended / "terminated")
    assert view.state == "preempted" and max(rows(view, "batch/loss")) == 20


def test_a_killed_training_goes_on_and_arrives_at_a_server_as_one_run(ended: Path, tmp_path: Path) -> None:
    """Killed in its third epoch and begun again: one run, the same here and there, checkpoints included."""
    place = ended / "killed"
    here = only(place)
    assert here.state == "finished" and list(rows(here, "epoch").values()) == [1, 2, 3, 4]
    assert list(rows(here, "batch/loss")) == list(range(1, 33))
    (folder := tmp_path / "server").mkdir()
    server = Server(folder).start()
    try:
        key = server.create_user("ada")
        said = server.sync(place / "flightlog", home=tmp_path, key=key)
        assert said.code == 0, said
        (there,) = flightlog.Api(server.url, api_key=key).runs()
        assert there.history() == here.history()
        assert (there.state, there.summary, there.config) == (here.state, here.summary, here.config)
        stored = flightlog.Api(server.url, api_key=key).artifact("ends/m:best").download(tmp_path / "best")
    finally:
        server.stop()
    (file,) = stored.glob("*.keras")
    assert file.read_bytes() == (place / "c" / file.name).read_bytes()


def test_the_processes_ended_as_they_should(ended: Path) -> None:
    """The recorder does not change how a process ends."""
    if keras.backend.backend() != "torch":
        pytest.skip("they were not forked")
    said = (ended / "uncaught.said").read_text()
    codes = dict(line.split() for line in said.splitlines() if line.split()[:1] and line.split()[0] in BEFORE)
    assert {name: int(code) for name, code in codes.items()} == {
        "interrupted": signal.SIGINT, "caught": 0, "tried-again": 0, "another": 0, "exit": 0,
        "terminated": signal.SIGTERM, "killed": signal.SIGKILL, "resumed": 0,
    }, said  # fmt: skip
    assert os.WIFSIGNALED(int(codes["killed"]))
