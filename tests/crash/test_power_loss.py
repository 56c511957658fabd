"""A power cut loses about a second, and never the run.

A recording process is traced; from its system calls follows what would be on the disk had the power failed at any
moment: of each segment only what the last finished fdatasync covered, and no segment whose folder was not synced since.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flightlog.reading import Api

from .victim import printed_reader

# A second between two syncs, and what a traced process adds to that; the time the disk itself takes comes on top.
ALLOWED = 2.0
SECONDS = 5.0

SCRIPT = """
import sys
import time

import flightlog

flightlog.journal.writer.Writer.__init__.__kwdefaults__["segment_size"] = 100_000
run = flightlog.init("power", dir=sys.argv[1], config={"lr": 0.1})
began = time.time()
n = 0
while time.time() < began + float(sys.argv[2]):
    run.log({"n": n, "text": "x" * 200}, step=n)
    n += 1
    time.sleep(0.001)
"""

_CALL = re.compile(r"^(\d+\.\d+) (\w+)\((.*)\) += (\d+)(?:<[^>]*>)?(?: <([\d.]+)>)?$")
_PATH = re.compile(r"^\d+<([^>]+)>")


@dataclass
class Traced:
    """A segment over time: (when, size after a write), (when, size that is durable), when its name is durable."""

    sizes: list[tuple[float, int]] = field(default_factory=list)
    longest_sync: float = 0.0
    durable: list[tuple[float, int]] = field(default_factory=list)
    named: float | None = None

    def size_at(self, when: float) -> int:
        return max((size for at, size in self.sizes if at <= when), default=0)

    def durable_at(self, when: float) -> int:
        if self.named is None or self.named > when:
            return 0
        return max((size for at, size in self.durable if at <= when), default=0)


def traced(traces: list[Path]) -> dict[Path, Traced]:
    """Read the traces of write, fdatasync and fsync, one of each thread (no line is interrupted by another's)."""
    found: dict[Path, Traced] = {}
    lines = [line for trace in traces for line in trace.read_text(errors="replace").splitlines()]
    for line in sorted(lines):  # each begins with its time
        call = _CALL.match(line)
        path = _PATH.match(call[3]) if call else None
        if not call or not path:
            continue
        at, name, place = float(call[1]), call[2], Path(path[1])
        ended = at + float(call[5] or 0.0)
        if name == "write" and place.suffix == ".jsonl":
            segment = found.setdefault(place, Traced())
            before = segment.sizes[-1][1] if segment.sizes else 0
            segment.sizes.append((at, before + int(call[4])))
        elif name in ("fdatasync", "fsync") and place in found:
            found[place].durable.append((ended, found[place].size_at(at)))
            found[place].longest_sync = max(found[place].longest_sync, ended - at)
        elif name == "fsync":
            for segment_path, segment in found.items():
                if segment_path.parent == place and segment.named is None:
                    segment.named = ended
    return found


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, Traced]]:
    """A run that was recorded under strace, and its trace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    folder = tmp_path_factory.mktemp("power")
    command = ["strace", "-ff", "-ttt", "-T", "-y", "-s", "0", "--seccomp-bpf", "-e", "trace=write,fdatasync,fsync"]
    done = subprocess.run(
        [*command, "-o", str(folder / "trace"), sys.executable, "-c", SCRIPT, str(folder / "flightlog"), str(SECONDS)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    if done.returncode and "ptrace" in done.stderr.lower():
        pytest.skip(f"tracing is refused here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return folder / "flightlog", traced(list(folder.glob("trace.*")))


def test_at_any_moment_about_a_second_is_lost_and_the_run_is_readable(
    cut: tuple[Path, dict[Path, Traced]], tmp_path: Path
) -> None:
    """For 25 random moments the files are cut back to what was durable; what is missing is younger than ~1 s."""
    root, segments = cut
    assert len(segments) >= 3, "the run was to rotate"
    start = min(s.sizes[0][0] for s in segments.values())
    allowed = ALLOWED + 2 * max(s.longest_sync for s in segments.values())
    chance = random.Random(11)
    for number in range(25):
        when = start + ALLOWED + chance.uniform(0.0, SECONDS - ALLOWED)
        if when - start < allowed:  # before that nothing need be there
            continue
        copy = tmp_path / str(number)
        shutil.copytree(root, copy, symlinks=True)
        for path, segment in segments.items():
            there = copy / path.relative_to(root)
            there.unlink() if not segment.durable_at(when) else _truncate(there, segment.durable_at(when))
        _check(copy, when, allowed)


def _truncate(path: Path, size: int) -> None:
    with open(path, "r+b") as file:
        file.truncate(size)


def _check(root: Path, when: float, allowed: float) -> None:
    writers = map(printed_reader(), next(root.glob("run-*/files/journal")).iterdir())
    (records,) = [found for found in writers if found and found[0]["kind"] == "run"]  # beside that of the console
    steps = [r["data"]["n"] for r in records if r["kind"] == "log"]
    assert steps == list(range(len(steps)))
    assert records and when - records[-1]["t"] < allowed, f"{when - records[-1]['t']:.2f} s were lost at {when}"
    run = Api(root).runs()[0]
    assert run.config == {"lr": 0.1}
    assert [row["n"] for row in run.history()] == steps
