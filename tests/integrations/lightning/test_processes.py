"""Trainings that are killed, terminated, requeued; and those of several processes."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog.journal.scan import RunJournal
from flightlog.reading import Api
from flightlog.reading.views import RunView
from flightlog.rundir import discover

from ...server.tools import ROOMS, Server
from .test_fit import column

# Each starts several processes that import a framework: on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(600)
OnlyRun = Callable[[], RunView]
HERE = Path(__file__).parent
EXAMPLES = HERE.parents[2] / "examples"


def start(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script of Python, as a user would."""
    paths = os.pathsep.join([*ROOMS, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **variables},
    )  # fmt: skip
    assert "Traceback" not in done.stderr or "SIGTERMException" in done.stderr, done.stderr
    return done


def here(monkeypatch: pytest.MonkeyPatch, script: Path, *words: str | Path) -> None:
    """Run a script in this process, which has imported the framework already; its run ends with it."""
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
    before = list(sys.path)
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.path[:] = before
        flightlog.finish()


def test_killed_terminated_and_resumed_it_is_one_curve_also_on_the_server(
    tmp_path: Path, only_run: OnlyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL loses no logged step; SIGTERM lets the framework save a last checkpoint; resuming makes it whole."""
    script = HERE / "train_line.py"
    assert start(script, tmp_path, "SIGKILL", "11").returncode == -signal.SIGKILL
    view = only_run()
    assert view.state == "crashed" and list(column(view, "train_loss")) == list(range(11))  # 11 is logged after it
    assert start(script, tmp_path, "SIGTERM", "13").returncode == 0  # Lightning exits as if nothing had been
    again = only_run()
    assert again.id == view.id and again.state == "preempted"
    assert (tmp_path / "c" / "rescued.ckpt").exists()
    assert list(column(again, "train_loss")) == list(range(14))
    here(monkeypatch, script, tmp_path)
    whole = only_run()
    assert whole.state == "finished" and list(column(whole, "train_loss")) == list(range(24))

    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server").start()
    try:
        key = server.create_user("ada")
        (tmp_path / "home").mkdir()
        said = server.sync(tmp_path / "flightlog", home=tmp_path / "home", key=key)
        assert said.code == 0, said
        (there,) = Api(server.url, api_key=key).runs()
        assert list(there.history()) == list(whole.history())
        assert (there.state, there.config, there.summary) == (whole.state, whole.config, whole.summary)
        for alias in ("latest", "best"):
            name = f"signals/model-{whole.id}:{alias}"
            ours, theirs = Api("flightlog").artifact(name), Api(server.url, api_key=key).artifact(name)
            assert ours.digest == theirs.digest
    finally:
        server.stop()


def test_a_requeued_job_is_one_run(tmp_path: Path, only_run: OnlyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's SIGUSR1 and SIGTERM end the job as preempted; started again, the example goes on in the same run."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"  # there is no Slurm here: this says what it was asked
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "digits", "SLURM_PROCID": "0"}
    slurm |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1"}
    code = (
        "import os, pathlib, runpy, signal, sys, threading, time\n"
        "def logged():\n"
        "    return sum(p.read_bytes().count(b'train/loss') for p in pathlib.Path('flightlog').rglob('*.jsonl'))\n"
        "def slurm():\n"
        "    while logged() < 5: time.sleep(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    while not os.path.exists('asked'): time.sleep(0.02)\n"
        "    time.sleep(0.3)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=slurm, daemon=True).start()\n"
        "sys.argv = ['train.py', '--epochs=50', '--seconds-per-step=0.05']\n"
        f"runpy.run_path({str(EXAMPLES / 'slurm_requeue' / 'train.py')!r}, run_name='__main__')\n"
    )
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = start("-c", code, PATH=path, **slurm)
    assert done.returncode == 0 and (tmp_path / "asked").read_text() == "requeue 77\n", done.stderr
    first = only_run()
    assert first.state == "preempted" and "preempting" in {r.kind for _, r in first._records(["preempting"])}
    saved = json.loads(next((tmp_path / "flightlog").glob("*/latest.spec")).read_text())["step"]

    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    here(monkeypatch, EXAMPLES / "slurm_requeue" / "train.py", "--epochs=3", "--seconds-per-step=0")
    again = only_run()
    steps = list(column(again, "train/loss"))
    assert again.id == first.id and again.state == "finished" and again.name == "requeued"
    assert steps == list(range(63)) and saved >= 5


def writers(folder: Path) -> dict[int, dict[str, Any]]:
    """Return by rank the first record of each writer of a run, and under "kinds" what kinds of records it wrote."""
    journal = RunJournal([d.journal for d in discover(folder / "flightlog")])
    found: dict[int, dict[str, Any]] = {}
    for writer, record in journal.records(hidden=True):
        first = journal.beginnings[writer].data if writer in journal.beginnings else {}
        if "rank" in first:
            found.setdefault(first["rank"], {**first, "kinds": set()})["kinds"].add(record.kind)
    return found


def test_the_ranks_that_torchrun_started_are_one_run(tmp_path: Path, only_run: OnlyRun) -> None:
    """Two processes of the example record one run: metrics by the first, the machine once, each its end."""
    script = EXAMPLES / "ddp_two_processes.py"
    done = start(
        "-m", "torch.distributed.run", "--nproc-per-node=2", script, "--epochs=1", FLIGHTLOG_SYSTEM_INTERVAL="1",
        FLIGHTLOG_CONSOLE="wrap",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    view = only_run()
    assert view.state == "finished" and len(column(view, "test/loss")) == 1
    steps = list(column(view, "train/loss"))
    assert steps == sorted(set(steps)) and steps
    found = writers(tmp_path)
    assert found.keys() == {0, 1} and all(first["ranks"] == 2 for first in found.values())
    assert "log" in found[0]["kinds"] and "log" not in found[1]["kinds"]
    assert "system" not in found[1]["kinds"]
    assert done.stderr.count("deliver it with") == 1
    printed = " ".join(view.console())
    assert "process 0 of 2 is through" in printed and "process 1 of 2 is through" in printed


def test_spawned_processes_are_one_run_with_the_one_that_spawned_them(tmp_path: Path, only_run: OnlyRun) -> None:
    """With ddp_spawn the first child writes the metrics; what the parent records afterwards goes to the same run."""
    done = start(HERE / "spawn_line.py")
    assert done.returncode == 0, done.stderr
    view = only_run()
    assert view.state == "finished" and view.summary["after"] == 1.0 and view.config["said"] == "early"
    assert list(column(view, "train_loss")) == [0, 1, 2, 3]
    assert writers(tmp_path).keys() == {0, 1}
    assert Api("flightlog").artifact(f"spawn/model-{view.id}:latest").metadata["step"] == 4


def test_the_example_trains_tests_and_goes_on(
    tmp_path: Path, only_run: OnlyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """examples/lightning_digits.py learns, and goes on from its last checkpoint as one run."""
    script = EXAMPLES / "lightning_digits.py"
    here(monkeypatch, script, "--epochs=2")
    first = only_run()
    last = next((tmp_path / "lightning_logs").rglob("last.ckpt"))
    here(monkeypatch, script, "--epochs=3", "--resume", last)
    view = only_run()
    assert view.id == first.id and view.state == "finished"
    assert set(column(view, "val/loss")) == {20, 41, 62} and view.summary["test/accuracy"] > 0.8
    best = Api("flightlog").artifact(f"digits/model-{view.id}:best")
    assert best.metadata["val/loss"] == pytest.approx(min(column(view, "val/loss").values()))
