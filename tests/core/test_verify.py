"""flightlog verify: what is there, what is torn, what is corrupt; and a repair that deletes nothing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

import flightlog
from flightlog.rundir import RunDir
from flightlog.verify import Verdict, verify

from .conftest import environment


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A finished run with an image, an artifact and a hundred steps."""
    (tmp_path / "weights").write_bytes(b"weights" * 1000)
    with flightlog.init("verified", dir=tmp_path / "flightlog", config={"lr": 0.1}) as run:
        for step in range(100):
            run.log({"loss": 1 / (step + 1)})
        run.log({"text": flightlog.Text("hello")})
        run.log_artifact(tmp_path / "weights", name="model")
    return run.rundir


def segment(run: RunDir) -> Path:
    (path,) = run.journal.glob("*/000001.jsonl")
    return path


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flightlog", "verify", *arguments],
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_sound_run_is_sound(run: RunDir, tmp_path: Path) -> None:
    """Exit status 0, and what is there: records, steps, files."""
    done = command(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sound" in done.stdout and "101 steps" in done.stdout and "3 files" in done.stdout
    assert verify(run).files == 3


def test_damage_is_named_by_file_line_and_seq(run: RunDir, tmp_path: Path) -> None:
    """Two flipped bytes in the middle: exit status 1, the line and the missing seq are named, in words and as JSON."""
    content = bytearray(segment(run).read_bytes())
    at = content.index(b'"seq":50,')
    content[at + 30 : at + 32] = b"\xff\xff"
    segment(run).write_bytes(content)
    done = command(cwd=tmp_path)
    assert done.returncode == 1
    assert "line 50" in done.stdout and "seq 50 is missing" in done.stdout
    (shown,) = orjson.loads(command("--json", cwd=tmp_path).stdout)["runs"]
    (writer,) = shown["writers"].values()
    assert not shown["sound"] and writer["missing"] == [[50, 50]] and writer["damage"][0]["line"] == 50


def test_a_torn_tail_is_no_damage(run: RunDir) -> None:
    """Half a line at the end is what a dying process leaves: it is told, and the run is sound."""
    with open(segment(run), "ab") as file:
        file.write(b'{"seq":999,"t":17323')
    verdict = verify(run)
    assert verdict.sound and any("torn" in note for note in verdict.notes)


@pytest.mark.parametrize("what", ["media", "artifacts"])
def test_changed_and_missing_files_are_named(run: RunDir, what: str) -> None:
    """A file that is not what was recorded, and one that is gone, are damage."""
    path = next(p for p in (run.files / what).rglob("*") if p.is_file() and p.name != "manifest.json")
    original = path.read_bytes()
    path.write_bytes(original[:-1] + b"!")
    assert [f for f in verify(run).faults if str(path) in f and "changed" in f]
    path.unlink()
    assert [f for f in verify(run).faults if str(path) in f]


def test_repair_makes_latest_spec_again_and_deletes_nothing(run: RunDir, tmp_path: Path) -> None:
    """A garbled or missing latest.spec is damage until --repair has made it from the journal; no file goes away."""
    before = run.read_spec()
    for damage in (lambda: run.spec_path.write_bytes(b"{gar\0bage"), run.spec_path.unlink):
        damage()
        there = set(tmp_path.rglob("*"))
        assert command(cwd=tmp_path).returncode == 1
        assert command("--repair", cwd=tmp_path).returncode == 0
        assert there <= set(tmp_path.rglob("*"))
        again = run.read_spec()
        for name in ("id", "project", "name", "state", "config", "summary", "step", "command"):
            assert again[name] == before[name], name
        assert abs(again["started_at"] - before["started_at"]) < 0.1


def test_repair_tells_that_a_killed_run_crashed(tmp_path: Path) -> None:
    """After SIGKILL latest.spec says running and lags behind; repaired it says crashed and holds the last value."""
    source = (
        "import os, signal, flightlog\nrun = flightlog.init('killed')\n"
        "for i in range(50): run.log({'n': i})\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, env=environment(), capture_output=True)
    assert done.returncode == -signal.SIGKILL
    run = RunDir((tmp_path / "flightlog" / "latest").resolve())
    assert run.read_spec()["state"] == "running"
    verdict = verify(run, repair=True)
    assert verdict.repaired and verdict.sound
    assert run.read_spec()["state"] == "crashed" and run.read_spec()["summary"] == {"n": 49}


def test_a_run_that_is_alive_is_not_repaired(tmp_path: Path) -> None:
    """The process that writes latest.spec is the only one to do so while it lives."""
    with flightlog.init("alive", dir=tmp_path / "flightlog") as run:
        run.log({"n": 1})
        assert not verify(run.rundir, repair=True).repaired


def test_random_damage_never_escapes_as_an_exception(run: RunDir, dice: random.Random) -> None:
    """Flipped bytes, cuts, foreign files and links anywhere in a run directory: a verdict, never an exception."""
    victims = sorted(p for p in run.path.rglob("*") if p.is_file())
    kept = {p: p.read_bytes() for p in victims}
    for _ in range(60):
        path = dice.choice(victims)
        content = bytearray(kept[path])
        for _ in range(dice.randint(1, 5)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        path.write_bytes(content[: dice.randint(0, len(content))])
        (run.journal / f"foreign{dice.randrange(3)}").mkdir(exist_ok=True)
        assert isinstance(verify(run), Verdict)
        path.write_bytes(kept[path])
    link = run.files / "media" / "link"
    link.symlink_to("/etc/passwd")
    assert verify(run).sound
