"""A disk that goes away under a run: read-only, removed, unmounted, or failing only when it is asked to sync."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flightlog import Api

from .victim import printed_reader

SCRIPT = """
import sys, time
import flightlog

run = flightlog.init("lost", dir=sys.argv[1], config={"lr": 0.1})
for n in range(300):
    run.log({"n": n})
print(run.dir, flush=True)
sys.stdin.readline()
for n in range(300, 600):
    run.log({"n": n})
    time.sleep(0.005)
run.finish()
print(run.dir, flush=True)
"""


class Training:
    """A recording process that waits in its middle until it is told to go on."""

    def __init__(self, root: Path, temporary: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(root)],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.place = Path(self.process.stdout.readline().strip())

    def go_on(self) -> tuple[Path, str]:
        """Let it train to its end; return where the run is then, and what was said."""
        out, said = self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0, said
        return Path(out.strip()), said


def numbers(*places: Path) -> list[int]:
    """What was logged, in order, as the reader printed in the format's page finds it in these run directories."""
    found: list[int] = []
    for writer in sorted(w for place in places for w in (place / "files" / "journal").iterdir()):
        found += [r["data"]["n"] for r in printed_reader()(writer) if r["kind"] == "log"]
    return sorted(found)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, which is unmounted again if it still is there."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a tmpfs is refused here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def inject(training: Training, fault: str, path: Path) -> subprocess.Popen[bytes]:
    """Let system calls on a file fail, as its kernel would answer, from now on."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(path), "-e", f"inject={fault}",
         "-p", str(training.process.pid)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    status = Path(f"/proc/{training.process.pid}/status")
    for _ in range(200):
        if f"TracerPid:\t{strace.pid}" in status.read_text():
            return strace
        if strace.poll() is not None:
            break
        time.sleep(0.02)
    training.go_on()
    pytest.skip("tracing another process is refused here")


def segment_of(place: Path) -> Path:
    (segment,) = (place / "files" / "journal").rglob("*.jsonl")
    return segment


def test_a_disk_that_becomes_read_only(tmp_path: Path, temporary: Path) -> None:
    """As after an I/O error of ext4: the run goes on in the temporary folder, says so once, and reads as one run."""
    training = Training(tmp_path / "flightlog", temporary)
    strace = inject(training, "write:error=EROFS", segment_of(training.place))
    place, said = training.go_on()
    strace.wait(20)
    assert place != training.place and place.is_relative_to(temporary)
    assert said.count("cannot be written any more; this run goes on in") == 1 and str(place) in said
    assert set(numbers(training.place, place)) == set(range(600))
    shutil.copytree(place, tmp_path / "flightlog" / "brought-home")
    (run,) = Api(tmp_path / "flightlog").runs()
    assert [row["n"] for row in run.history()] == list(range(600))
    assert run.state == "finished" and run.config == {"lr": 0.1}


def test_an_error_that_only_fdatasync_reports(tmp_path: Path, temporary: Path) -> None:
    """Every sync of the first segment fails, as on a full NFS server: its lines come again, in order, in the next."""
    training = Training(tmp_path / "flightlog", temporary)
    strace = inject(training, "fdatasync:error=EIO", segment_of(training.place))
    place, said = training.go_on()
    strace.wait(20)
    assert place == training.place and numbers(place) == list(range(600))
    (writer,) = (place / "files" / "journal").iterdir()
    assert len(list(writer.iterdir())) == 2 and "cannot be written (Input/output error)" in said
    assert "can be written again" in said


def test_a_removed_directory_is_written_again(tmp_path: Path, temporary: Path) -> None:
    """rm -rf of all runs in the middle of one: afterwards it is there again, from its first record on."""
    training = Training(tmp_path / "flightlog", temporary)
    time.sleep(1.2)  # all of it is on the disk, and nowhere else
    shutil.rmtree(tmp_path / "flightlog")
    place, said = training.go_on()
    assert place == training.place and numbers(place) == list(range(600)) and said.count("was removed") == 1
    (run,) = Api(tmp_path).runs()
    assert run.state == "finished" and run.config == {"lr": 0.1} and (tmp_path / "flightlog" / "CACHEDIR.TAG").exists()


def test_a_moved_directory_is_followed(tmp_path: Path, temporary: Path) -> None:
    """mv of the run directory: its journal, latest.spec and end are where it is now, and nothing where it was."""
    training = Training(tmp_path / "flightlog", temporary)
    (tmp_path / "flightlog").rename(tmp_path / "archive")
    place, said = training.go_on()
    assert place == tmp_path / "archive" / training.place.name and "was moved" in said
    assert numbers(place) == list(range(600)) and not (tmp_path / "flightlog").exists()
    assert Api(tmp_path).runs()[0].state == "finished"


def test_a_disk_that_is_unmounted(disk: Path, temporary: Path) -> None:
    """umount -l under a run: what it held is written again to where its path leads now."""
    training = Training(disk / "flightlog", temporary)
    subprocess.run(["umount", "-l", str(disk)], check=True)
    place, said = training.go_on()
    assert place == training.place and numbers(place) == list(range(600)) and said.count("was removed") == 1
    assert Api(disk).runs()[0].state == "finished"


def test_a_disk_that_is_full_to_the_end(disk: Path, temporary: Path) -> None:
    """No room until the process ends: what waited in memory is kept in the temporary folder, and it says where."""
    training = Training(disk / "flightlog", temporary)
    with open(disk / "ballast", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    place, said = training.go_on()
    assert place.is_relative_to(temporary) and f"goes on in {place}" in said
    assert set(numbers(training.place, place)) == set(range(600))
