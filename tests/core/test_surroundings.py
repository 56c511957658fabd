"""A run with its surroundings, as `init` records them by itself: console, machine, provenance, in one directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog import Api
from flightlog.errors import SettingsError
from flightlog.rundir import RunDir
from flightlog.verify import verify

from .conftest import Script

JournalOf = Callable[[Path], Any]
ALL = {"FLIGHTLOG_CONSOLE": "wrap", "FLIGHTLOG_SYSTEM_INTERVAL": "5", "FLIGHTLOG_PROVENANCE": "true"}
TRAIN = """
import flightlog, sys, time
run = flightlog.init(config={"lr": 1, "api_key": "sk-" + "a" * 40}, **json_arguments)
print("epoch 1"); print("careful", file=sys.stderr)
run.log({"x": 1})
time.sleep(0.4)
assert run.config.api_key.startswith("sk-")
"""


def train(arguments: str = "{}") -> str:
    return TRAIN.replace("json_arguments", arguments)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository around the script, with a commit and a change that is in none."""
    (tmp_path / "model.py").write_text("layers = 1\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "model.py"], ["commit", "-qm", "first"]):
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "model.py").write_text("layers = 2\n")
    return tmp_path


def test_a_run_holds_its_surroundings(script: Script, repository: Path) -> None:
    """Everything is in the run directory, sound, and read back by the same Api; no secret is in any of it."""
    script(train(), "--password", "hunter2hunter2", **ALL, MY_TOKEN="t0ps3cr3t-value", SLURM_JOB_NAME="night")
    (run,) = Api(repository / "flightlog").runs()
    assert run.console()[0].startswith("flightlog: run ") and run.console()[1:] == ["epoch 1", "careful"]
    assert run.console("stdout") == ["epoch 1"]
    rows = run.system()
    assert {"memory_percent", "proc.memory.rssMB"} <= {name for row in rows for name in row}
    assert rows[0]["_host"] == os.uname().nodename
    origin = run.provenance()
    assert origin["git"]["branch"] == "main" and origin["env"]["SLURM_JOB_NAME"] == "night"
    assert any(package.lower().startswith("orjson") for package in origin["packages"])
    assert b"layers = 2" in run.file(next(f["path"] for f in origin["files"] if f["path"].endswith(".patch")))
    assert any(f["path"].endswith("script.py") for f in origin["files"])
    (place,) = (repository / "flightlog").glob("run-*")
    verdict = verify(RunDir(place))
    assert verdict.sound, verdict.faults
    whole = b"".join(p.read_bytes() for p in place.rglob("*") if p.is_file())
    for secret in (b"hunter2hunter2", b"t0ps3cr3t-value", b"sk-" + b"a" * 40):
        assert secret not in whole.replace(b'"sk-" + "a" * 40', b"")
    spec = json.loads((place / "latest.spec").read_bytes())
    assert spec["config"]["api_key"] == "[redacted]" and len(spec["writers"]) == 2


def test_what_may_be_shown_is_shown(script: Script, tmp_path: Path) -> None:
    """`allow_secrets` names what only sounds like one."""
    script(train("{'allow_secrets': ['api_key'], 'console': 'off', 'system_interval': 0}"))
    assert Api(tmp_path / "flightlog").runs()[0].config["api_key"] == "sk-" + "a" * 40


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("raise ValueError('broken')", 1),
        ("sys.exit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("import os, signal; os.kill(os.getpid(), 9)", -9),
    ],
)
def test_the_last_lines_before_an_end_are_there(script: Script, tmp_path: Path, end: str, code: int) -> None:
    """An exception's traceback, what was printed before SIGTERM or SIGKILL: the console has it."""
    script(train() + "print('the last line')\n" + end + "\n", expect=code, **ALL)
    (run,) = Api(tmp_path / "flightlog").runs()
    lines = run.console()
    assert "the last line" in lines
    assert (code == 1) == (lines[-1] == "ValueError: broken")
    assert run.state == {1: "failed", 3: "failed", -15: "preempted", -9: "crashed"}[code]


def test_every_rank_has_a_console_and_every_node_a_sample(script: Script, tmp_path: Path) -> None:
    """Two ranks of one node: both print into the run, one of them samples the machine and keeps the code."""
    for rank in ("0", "1"):
        names = {"SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}
        script(train() + "print('rank', run.rank)\n", **ALL, **names, SLURM_PROCID=rank, SLURM_LOCALID=rank)
    (run,) = Api(tmp_path / "flightlog").runs()
    assert [line for line in run.console() if line.startswith("rank")] == ["rank 0", "rank 1"]
    assert len({f["path"] for f in run.provenance()["files"]}) == 1
    found = [r for _, r in run._records(["provenance"])]
    assert len(found) == 1


def test_children_leave_the_surroundings_to_their_parent(script: Script, tmp_path: Path, journal: JournalOf) -> None:
    """A forked worker that logs and ends has neither sampler nor console, and the parent's go on."""
    script(
        "import warnings; warnings.simplefilter('ignore')\n" + train() + "import os\n"
        "if os.fork() == 0:\n    run.log({'child': 1}); print('child'); sys.stdout.flush(); os._exit(0)\n"
        "os.wait(); print('parent goes on')\n",
        **ALL,
    )
    (run,) = Api(tmp_path / "flightlog").runs()
    assert run.console()[-1] == "parent goes on" and run.state == "finished"
    assert journal(tmp_path / "flightlog").logged("child") == [1] and len(run.system()) >= 1


def test_finish_is_quick_and_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """After finish nothing of the recorder runs any more, and the streams are what they were."""
    import sys
    import threading

    for name, value in ALL.items():
        monkeypatch.setenv(name, value)
    before = (sys.stdout, sys.stderr, sys.stdout.write)
    run = flightlog.init()
    run.finish()
    assert (sys.stdout, sys.stderr, sys.stdout.write) == before
    assert [t.name for t in threading.enumerate() if t.name.startswith("flightlog")] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("console", "loud"), ("system_interval", "often"), ("system_interval", "0.01"), ("save_code", 3)],
)
def test_settings_that_make_no_sense(name: str, value: Any) -> None:
    """Each is named with what it could be."""
    with pytest.raises(SettingsError, match=name):
        flightlog.init(**{name: value})
