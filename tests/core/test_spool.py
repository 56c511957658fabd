"""FLIGHTLOG_SPOOL_TO: from a node's own disk to a shared one, at the end and when the time runs out."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

import flightlog
from flightlog import Api
from flightlog.rundir import RunDir
from flightlog.spool import spool

from .conftest import Script

TRAIN = """
import flightlog, os, signal
run = flightlog.init(config={"lr": 1})
for n in range(50): run.log({"n": n})
run.log({"text": flightlog.Text("kept " * 100)})
"""


def contents(place: Path) -> dict[str, bytes]:
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}


def test_a_finished_run_is_copied(script: Script, tmp_path: Path) -> None:
    """At finish the shared folder holds the same bytes, readable as a run, with `latest` leading to it."""
    done = script(TRAIN, FLIGHTLOG_SPOOL_TO="shared", FLIGHTLOG_DIR="node")
    (here,), (there,) = (list((tmp_path / name).glob("run-*")) for name in ("node", "shared"))
    assert contents(here) == contents(there) and here.name == there.name
    assert (tmp_path / "shared" / "latest").resolve() == there and "copied to" in done.stderr
    (run,) = Api(tmp_path / "shared").runs()
    assert run.state == "finished" and len(run.history()) == 50 and len(run.media()) == 1


@pytest.mark.parametrize("handler", ["", "signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), 9))\n"])
def test_sigterm_copies_what_there_is(script: Script, tmp_path: Path, handler: str) -> None:
    """Also where the script has a handler of its own, which may take longer than the grace period lasts."""
    script(
        "import os, signal\n" + handler + TRAIN + "os.kill(os.getpid(), signal.SIGTERM)\n",
        FLIGHTLOG_SPOOL_TO="shared", FLIGHTLOG_DIR="node", expect=-9 if handler else -signal.SIGTERM,
    )  # fmt: skip
    (run,) = Api(tmp_path / "shared").runs()
    assert run.state == "preempted" and len(run.history()) == 50


def test_copied_twice_only_what_changed_is_written(tmp_path: Path) -> None:
    """A second copy leaves alone what is there already, and brings what has grown."""
    run = flightlog.init(dir="node")
    run.log({"text": flightlog.Text("x" * 1000)})
    run.flush()
    first = spool(run.rundir, tmp_path / "shared")
    assert first is not None
    before = {p: p.stat().st_ino for p in first.path.rglob("*.txt")}
    run.log({"n": 1})
    run.finish()
    assert spool(run.rundir, tmp_path / "shared") == first
    assert {p: p.stat().st_ino for p in first.path.rglob("*.txt")} == before and len(before) == 1
    assert contents(first.path) == contents(run.dir)
    assert spool(first, tmp_path / "shared") == first  # onto itself: nothing to do


def test_where_it_cannot_be_copied_the_run_stays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A target that is a file, or that has no room for one of the files: a warning says where the run still is."""
    run = flightlog.init(dir="node")
    run.log({"n": 1})
    run.finish()
    (tmp_path / "file").write_text("")
    assert spool(run.rundir, tmp_path / "file") is None
    assert f"the run is in {run.dir}" in capfd.readouterr().err
    blocked = tmp_path / "shared" / run.dir.name / "latest.spec"
    blocked.mkdir(parents=True)
    (tmp_path / "shared" / "CACHEDIR.TAG").write_text("flightlog")
    assert spool(run.rundir, tmp_path / "shared") is None
    assert "could not be copied" in capfd.readouterr().err and run.dir.exists()


def test_links_and_pipes_are_not_copied(tmp_path: Path) -> None:
    """What is no plain file stays behind, and nothing outside of the run is read through a link."""
    run = flightlog.init(dir="node")
    run.finish()
    (tmp_path / "secret").write_text("secret")
    (run.dir / "files" / "link").symlink_to(tmp_path / "secret")
    (run.dir / "files" / "folder").symlink_to(tmp_path)
    os.mkfifo(run.dir / "files" / "pipe")
    copy = spool(RunDir(run.dir), tmp_path / "shared")
    assert copy is not None and all(stat.S_ISREG(p.lstat().st_mode) or p.is_dir() for p in copy.path.rglob("*"))
    assert not any(b"secret" in content for content in contents(copy.path).values())


@pytest.mark.parametrize("twice", ["while it ends by SIGTERM", "in finish()"])
def test_a_further_sigterm_waits_for_the_copy(script: Script, tmp_path: Path, twice: str) -> None:
    """A batch system that signals twice, or while the run is just being ended, does not cut the copy short."""
    ending = "run.finish()\n" if "finish" in twice else "os.kill(os.getpid(), signal.SIGTERM)\n"
    script(
        "import os, signal, threading, time\nimport flightlog.spool as spool\n"
        "bring = spool._bring\n"
        "def slowly(*words):\n    os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.05); return bring(*words)\n"
        "spool._bring = slowly\n" + TRAIN + ending,
        FLIGHTLOG_SPOOL_TO="shared", FLIGHTLOG_DIR="node", expect=-signal.SIGTERM,
    )  # fmt: skip
    (here,), (there,) = (list((tmp_path / name).glob("run-*")) for name in ("node", "shared"))
    assert contents(here) == contents(there)
