"""Killed in the midst of copies, a full disk, SIGTERM: what is whole is whole, and the rest is named."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog.artifacts.catalog import Catalog
from flightlog.contents import Named
from flightlog.rundir import RunDir
from flightlog.verify import verify

from .conftest import environment
from .test_artifacts_changes import held_up

JournalOf = Callable[[Path], Any]

VICTIM = """
import os
import flightlog

run = flightlog.init(dir="flightlog")
print(flush=True)
folder = "checkpoints"
os.makedirs(folder, exist_ok=True)
for step in range(10_000):
    path = f"{folder}/{step}.bin"
    with open(path, "wb") as file:
        file.write(step.to_bytes(4, "little") * (3 << 20 if step % 3 else 100))
    run.log_artifact(path, name="model", policy=("auto", "link", "copy")[step % 4 % 3], metadata={"step": step},
                     keep_last=3)
    if step:
        os.unlink(f"{folder}/{step - 1}.bin")
"""


def directory_of(place: Path) -> RunDir:
    return RunDir(next((place / "flightlog").glob("run-*")))


@pytest.mark.parametrize("attempt", range(3))
def test_killed_at_any_moment_every_recorded_version_is_whole(
    tmp_path: Path, dice: random.Random, attempt: int
) -> None:
    """SIGKILL between and within copies: no version that a record calls whole lacks a byte; the rest is `copying`."""
    process = subprocess.Popen(
        [sys.executable, "-c", VICTIM], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline()
    time.sleep(dice.uniform(0.05, 0.8))
    process.kill()
    process.communicate()
    directory = directory_of(tmp_path)
    verdict = verify(directory)
    assert verdict.sound, verdict.faults
    catalog = Catalog.read(directory)
    for version in catalog.named("model"):
        folder = directory.files / version.manifest.removesuffix("manifest.json")
        (kept,) = (folder / "files").iterdir()
        assert kept.name == f"{version.metadata['step']}.bin"
    assert len(catalog.incomplete) <= 64


def test_a_killed_run_says_which_versions_are_incomplete(script: Callable[..., Any], tmp_path: Path) -> None:
    """Begun and not whole: named by what sync and verify read, while the small one is there; a reader finds that."""
    script(
        """
import os, signal, threading
import flightlog

run = flightlog.init("p")
open("small", "w").close()
with open("big", "wb") as file:
    file.truncate(20 << 20)
run.log_artifact("small")
run._keeper._copier.submit(threading.Event().wait)
for name in ("one", "two"):
    run.log_artifact("big", name=name)
os.kill(os.getpid(), signal.SIGKILL)
""",
        expect=-signal.SIGKILL,
    )
    directory = directory_of(tmp_path)
    catalog = Catalog.read(directory)
    assert [(v.name, v.version, v.size) for v in catalog.incomplete] == [
        ("one", "v0", 20 << 20),
        ("two", "v0", 20 << 20),
    ]
    named = Named()
    for record in _records(directory):
        named.add_record(record)
    assert named.incomplete == ["one:v0", "two:v0"] and [a.name for a in named.artifacts] == ["small"]
    assert verify(directory).sound
    run = flightlog.init("p")
    run.use_artifact("small")
    with pytest.raises(flightlog.errors.NotFound):
        run.use_artifact("one")


def _records(directory: RunDir) -> Iterator[Any]:
    from flightlog.journal.scan import RunJournal

    return (record for _, record in RunJournal([directory.journal]).records())


@pytest.mark.parametrize("end", ["", "run.finish()", "sys.exit(3)", "1 / 0"])
def test_however_the_script_ends_its_copies_are_waited_for(
    script: Callable[..., Any], tmp_path: Path, end: str
) -> None:
    """By its last line, finish(), exit or an exception: the large version is there, and the finish record is last."""
    script(
        f"""
import os, sys
import flightlog

run = flightlog.init()
with open("big", "wb") as file:
    file.write(os.urandom(10 << 20))
for name in "abc":
    run.log_artifact("big", name=name, policy="link" if name == "b" else "copy")
{end}
""",
        expect=None,
    )
    directory = directory_of(tmp_path)
    verdict = verify(directory)
    assert verdict.sound and verdict.files == 6 and not Catalog.read(directory).incomplete
    assert [r.kind for r in _records(directory)][-1] == "finish"


def test_sigterm_brings_copies_to_their_end(tmp_path: Path) -> None:
    """The batch system's SIGTERM: the run is preempted, its versions whole, and the process dies of the signal."""
    process = subprocess.Popen(
        [sys.executable, "-c", VICTIM], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline()
    time.sleep(0.4)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM, said
    directory = directory_of(tmp_path)
    verdict = verify(directory)
    assert verdict.sound and verdict.fold.state == "preempted"
    assert not Catalog.read(directory).incomplete


def test_an_end_with_a_time_limit_names_what_is_incomplete(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A copy that hangs does not keep a preempted run from ending."""
    (tmp_path / "big").write_bytes(bytes(9 << 20))
    run = flightlog.init()
    with held_up(run):
        run.log_artifact("big")
        assert run._keeper.finish(0.05) is False
        assert "incomplete: big:v0" in capfd.readouterr().err
    assert run._keeper.finish() is True


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounting a tmpfs is refused here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # also if a failed test holds it


@pytest.mark.parametrize("size", [5 << 20, 15 << 20], ids=["small", "large"])
def test_a_full_disk_costs_the_version_only(
    tmp_path: Path, small_disk: Path, size: int, dice: random.Random, capfd: pytest.CaptureFixture[str]
) -> None:
    """No space left in the midst of a copy: one warning, nothing half-made, and with room again it is kept."""
    path = tmp_path / "model.bin"
    path.write_bytes(dice.randbytes(size))
    run = flightlog.init(dir=small_disk / "flightlog")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((24 << 20) - size // 2))
    version = run.log_artifact(path)
    if version is not None:
        assert version.wait().state == "damaged" and "No space left" in version.reason
    assert capfd.readouterr().err.count("No space left") == 1
    assert not [p for p in (run.dir / "files" / "artifacts").rglob("*") if p.is_file()]
    run.log({"x": 1})
    ballast.unlink()
    again = run.log_artifact(path)
    run.finish()
    assert again is not None and again.state == "logged"
    again.verify()
    assert verify(RunDir(run.dir)).sound


def test_too_many_at_once_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A disk so slow that 64 versions wait: the next is not kept, and says so; those that wait are."""
    run = flightlog.init()
    with open(tmp_path / "big", "wb") as file:
        file.truncate(9 << 20)
    with held_up(run):
        versions = [run.log_artifact("big", name=f"m{number}") for number in range(64)]
        assert run.log_artifact("big", name="one too many") is None
    assert "64 others still wait" in capfd.readouterr().err
    run.finish()
    assert {v.state for v in versions if v} == {"logged"}
