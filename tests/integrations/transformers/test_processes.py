"""The Trainer's callback in processes that are killed, terminated and started again, alone and several at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from flightlog import current
from flightlog.reading import Api
from flightlog.reading.views import ArtifactView, RunView

from ...server.tools import Server, environment
from .models import job as job_here

# It loads the optimizer onto the device of the processes, which accelerate calls "cpu:0": torch knows no such place.
two_can_resume = pytest.mark.skipif(
    int(version("transformers").split(".")[0]) < 5, reason="transformers before 5 resumes no two processes without GPUs"
)

JOB = Path(__file__).with_name("job.py")
Runs = Callable[[], list[RunView]]
Versions = Callable[[RunView], dict[int, ArtifactView]]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A flightlog server."""
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()


def start(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start the job in the test's folder."""
    surroundings = {name: value for name, value in os.environ.items() if name.startswith(("FLIGHTLOG_", "_FLIGHTLOG_"))}
    return subprocess.Popen(
        [sys.executable, *launcher, str(JOB), *map(str, arguments)],
        env=environment(Path.home(), **surroundings, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str], expected: int) -> str:
    """Wait for a process, and return what it has said."""
    try:
        said, _ = process.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == expected, said
    return said


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Wait until the run in a folder has logged a step."""
    for _ in range(1000):
        assert process.poll() is None, process.communicate()
        if folder.is_dir() and any(view.step > step for view in Api(folder).runs()):
            return
        time.sleep(0.1)
    raise AssertionError(f"step {step} was not reached")


def steps(view: RunView) -> dict[int, float]:
    """Return the loss of each step."""
    return {row["_step"]: row["loss"] for row in view.history(["loss"])}


def test_a_job_that_is_killed_and_terminated_is_one_run_here_and_on_a_server(
    tmp_path: Path, runs: Runs, versions: Versions, server: Server
) -> None:
    """SIGKILL, again, SIGTERM, again to the end: one run, one curve without a gap, told truthfully at each time."""
    folder = tmp_path / "flightlog"
    job = start(12, 0.2)
    wait_for_step(job, folder, 4)
    job.kill()
    end(job, -signal.SIGKILL)
    (killed,) = runs()
    before = steps(killed)

    job = start(12, 0.2)
    wait_for_step(job, folder, 7)
    job.send_signal(signal.SIGTERM)
    end(job, -signal.SIGTERM)
    (preempted,) = runs()
    assert (preempted.id, preempted.state) == (killed.id, "preempted")

    job_here(12)
    current.finish()
    (view,) = runs()
    assert (view.id, view.state) == (killed.id, "finished")
    assert list(steps(view)) == list(range(1, 13))
    assert {step: steps(view)[step] for step in (1, 2, 3)} == {step: before[step] for step in (1, 2, 3)}
    assert view.summary["final_loss"] == view.summary["eval_loss"]
    assert set(versions(view)) == {12}

    said = server.sync(folder, home=Path.home(), key=server.key)
    assert said.code == 0, said
    api = Api(server.url, api_key=server.key)
    there = api.run(view.id)
    assert there.history() == view.history()
    assert (there.state, there.config, there.summary) == (view.state, view.config, view.summary)
    copied = api.artifact(f"digits/model-{view.id}:latest").download(tmp_path / "copy")
    for path in (tmp_path / "out" / "checkpoint-12").iterdir():
        assert (copied / path.name).read_bytes() == path.read_bytes()


@two_can_resume
def test_two_processes_continue_one_run(tmp_path: Path, runs: Runs, versions: Versions) -> None:
    """Under torchrun both go on with the run that one process began; the first writes the metrics, each itself."""
    job_here(3)
    current.finish()
    end(start(6, 0, launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")), 0)
    (view,) = runs()
    assert list(steps(view)) == list(range(1, 7)) and view.state == "finished"
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {file.path for file in versions(view)[6].files}
    began = [record.data for _, record in view._records(["run"])]
    assert sorted(data.get("rank", 0) for data in began) == [0, 0, 1]
    assert len({writer for writer, _ in view._records(["log"])}) == 2, "one before, one now"


@pytest.mark.slow
@two_can_resume
def test_two_processes_begin_one_run_and_continue_it(runs: Runs, versions: Versions) -> None:
    """Under torchrun, twice: the ranks agree on the run without a checkpoint, and go on with it from one."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    end(start(6, 0, launcher=torchrun), 0)
    (first,) = runs()
    assert list(steps(first)) == list(range(1, 7)) and first.state == "finished"
    end(start(9, 0, launcher=torchrun), 0)
    (view,) = runs()
    assert view.id == first.id
    assert list(steps(view)) == list(range(1, 10)) and view.state == "finished"
    assert set(versions(view)) == {9}
    began = [record.data for _, record in view._records(["run"])]
    assert sorted(data.get("rank", 0) for data in began) == [0, 0, 1, 1]
    assert len({writer for writer, _ in view._records(["log"])}) == 2, "the first process of each job, and no other"
