"""A full disk, on a real small file system: training goes on, and nothing is missing once there is room again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .victim import printed_reader

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a tmpfs is refused here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # also if a failed test holds it


SCRIPT = """
import sys
import time
from pathlib import Path

import flightlog

disk, memory = Path(sys.argv[1]), int(sys.argv[2])
flightlog.journal.writer.Writer.__init__.__kwdefaults__["memory_limit"] = memory
run = flightlog.init("full", dir=disk / "flightlog", config={"lr": 0.1})
step = 0


def log(count):
    global step
    for _ in range(count):
        run.log({"n": step, "text": "x" * 100})
        step += 1


log(500)
ballast = disk / "ballast"
with open(ballast, "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
log(5000)
time.sleep(float(sys.argv[3]))
log(100)
ballast.unlink()
time.sleep(1.0)
log(500)
run.finish()
print(step)
"""


def run_script(disk: Path, memory: int, wait: float) -> tuple[int, str]:
    """Run the script and return how many steps it logged, and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(disk), str(memory), str(wait)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout), done.stderr


def test_every_buffered_step_is_in_the_journal_in_order(small_disk: Path) -> None:
    """5,100 steps logged while nothing could be written are there afterwards, in order, none of them torn."""
    logged, said = run_script(small_disk, 64 * MIB, 1.2)
    (writer,) = (small_disk / "flightlog" / "files" / "journal").iterdir()
    records = printed_reader()(writer)
    assert [r["seq"] for r in records] == list(range(1, len(records) + 1))
    assert [r["data"]["n"] for r in records if r["kind"] == "log"] == list(range(logged)) == list(range(6100))
    assert not [r for r in records if r["kind"] == "gap"]
    assert records[-1]["kind"] == "finish"
    assert said.count("cannot be written") <= 2, said  # the journal, and latest.spec; once each
    assert "can be written again" in said


def test_beyond_the_memory_a_gap_says_exactly_how_many_were_dropped(small_disk: Path) -> None:
    """With memory for a fraction only, the rest is counted: what is there and what the gap names is what was logged."""
    logged, _ = run_script(small_disk, 200_000, 0.0)
    (writer,) = (small_disk / "flightlog" / "files" / "journal").iterdir()
    records = printed_reader()(writer)
    steps = [r["data"]["n"] for r in records if r["kind"] == "log"]
    dropped = sum(r["data"]["dropped"] for r in records if r["kind"] == "gap")
    assert dropped > 1000
    assert len(steps) + dropped == logged
    assert steps == sorted(steps)
    assert steps[-500:] == list(range(logged - 500, logged))
