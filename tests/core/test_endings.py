"""How a process ends without finish(): the run says truthfully how, and the process ends as it would have."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Journal, Script, environment

JournalOf = Callable[[Path], Journal]

LOGGING = """
import signal, sys, time
import flightlog
{before}
run = flightlog.init("ends", dir="flightlog")
{after}
print("ready", flush=True)
n = 0
while True:
    run.log({{"n": n}})
    n += 1
    {pause}
"""


def terminated(folder: Path, *, before: str = "", after: str = "", pause: str = "", wait: float = 0.1) -> int:
    """Run a logging script, send SIGTERM, and return its status."""
    source = LOGGING.format(before=before, after=after, pause=pause)
    process = subprocess.Popen(
        [sys.executable, "-c", source], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    time.sleep(wait)
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=30)
    finally:
        process.kill()
        process.stdout.close()


def state(folder: Path, journal: JournalOf) -> str:
    """What journal and latest.spec agree on."""
    from flightlog.rundir import read_spec

    found = journal(folder / "flightlog")
    assert found.sound
    assert found.logged("n") == list(range(len(found.logged("n"))))
    assert read_spec((folder / "flightlog" / "latest").resolve() / "latest.spec")["state"] == found.fold.state
    return found.fold.state


def test_sigterm_ends_the_run_as_preempted(tmp_path: Path, journal: JournalOf) -> None:
    """The run is preempted, flushed and closed, and the process dies of the signal as it would have."""
    assert terminated(tmp_path, pause="time.sleep(0.001)") == -signal.SIGTERM
    assert state(tmp_path, journal) == "preempted"
    assert journal(tmp_path / "flightlog").fold.exit_code == 143


def test_sigterm_in_the_midst_of_writing(tmp_path: Path, journal: JournalOf, dice: random.Random) -> None:
    """In a loop that does nothing but log, the signal nearly always strikes within log(): nothing tears or hangs."""
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert terminated(folder, wait=dice.uniform(0.0, 0.1)) == -signal.SIGTERM
        assert state(folder, journal) == "preempted"


def test_the_scripts_own_handler_still_runs(tmp_path: Path, journal: JournalOf) -> None:
    """A handler from before init logs a last value and exits with its own status; the run was preempted still."""
    handler = """
def stop(number, frame):
    run.log({"last": 1})
    print("own handler", file=open("told", "w"))
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
"""
    assert terminated(tmp_path, before=handler, pause="time.sleep(0.001)") == 7
    assert (tmp_path / "told").read_text() == "own handler\n"
    assert state(tmp_path, journal) == "preempted"
    assert journal(tmp_path / "flightlog").logged("last") == [1]


def test_a_script_that_ignores_sigterm_goes_on(tmp_path: Path, journal: JournalOf) -> None:
    """An ignored signal stays ignored: init does not install a handler over it."""
    source = (
        "import os, signal, flightlog\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "with flightlog.init('ends', dir='flightlog') as run:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    run.log({'n': 0})"
    )
    subprocess.run([sys.executable, "-c", source], cwd=tmp_path, env=environment(), check=True, capture_output=True)
    assert state(tmp_path, journal) == "finished"


def test_a_terminated_child_does_not_end_its_parents_run(script: Script, tmp_path: Path, journal: JournalOf) -> None:
    """A worker that was forked, has logged and is terminated dies of it; the run goes on and finishes."""
    script(
        """
        import multiprocessing, os, time
        import flightlog

        def work(ready):
            run.log({"child": 1})
            ready.set()
            time.sleep(60)

        context = multiprocessing.get_context("fork")
        run = flightlog.init("ends", dir="flightlog")
        ready = context.Event()
        child = context.Process(target=work, args=(ready,))
        child.start()
        ready.wait(20)
        child.terminate()
        child.join(20)
        assert child.exitcode == -15, child.exitcode
        run.log({"n": 0})
        """.replace("\n        ", "\n")
    )
    assert state(tmp_path, journal) == "finished"
    assert journal(tmp_path / "flightlog").logged("child") == [1]


@pytest.mark.parametrize(
    ("ending", "status", "expected", "code"),
    [
        ("sys.exit(3)", 3, "failed", 3),
        ("sys.exit('no data')", 1, "failed", 1),
        ("sys.exit()", 0, "finished", 0),
        ("sys.exit(0)", 0, "finished", 0),
        ("raise RuntimeError('boom')", 1, "failed", 1),
        ("raise KeyboardInterrupt", None, "failed", 1),
        ("pass", 0, "finished", 0),
        ("try: sys.exit(3)\nexcept SystemExit: run.log({'n': 0})", 0, "finished", 0),
    ],
)
def test_the_state_follows_how_the_script_ended(
    script: Script, tmp_path: Path, journal: JournalOf, ending: str, status: int | None, expected: str, code: int
) -> None:
    """An exit status or an exception makes a failed run; an exit that was caught, after which it went on, does not."""
    script(f"import sys, flightlog\nrun = flightlog.init('ends', dir='flightlog')\n{ending}\n", expect=status)
    assert state(tmp_path, journal) == expected
    assert journal(tmp_path / "flightlog").fold.exit_code == code


def test_exit_and_quit_are_ends_like_sys_exit(script: Callable[..., Any], tmp_path: Path) -> None:
    """The builtins that site.py brings: their status is the run's; sys.exit of another thread is none."""
    script("import flightlog\nflightlog.init()\nexit(4)\n", expect=4, FLIGHTLOG_DIR="one")
    script(
        "import flightlog, sys, threading\nflightlog.init()\n"
        "thread = threading.Thread(target=sys.exit, args=(5,)); thread.start(); thread.join()\n",
        FLIGHTLOG_DIR="two",
    )
    states = [json.loads((tmp_path / name / "latest.spec").read_bytes())["state"] for name in ("one", "two")]
    assert states == ["failed", "finished"]
