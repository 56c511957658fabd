"""What the recorder's tests share: scripts as users run them, and journals read back."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flightlog.journal.fold import Fold
from flightlog.journal.reader import WriterReport
from flightlog.journal.record import Record
from flightlog.journal.scan import RunJournal

CORE = Path(__file__).parents[2] / "core"

Script = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment with the checkout's core on the path."""
    return {**os.environ, "PYTHONPATH": str(CORE), **more}


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Run Python source as a script in the test's folder, as a user would."""

    def run(
        source: str, *arguments: str | bytes, expect: int | None = 0, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "script.py"
        path.write_text(source)
        done = subprocess.run(
            [sys.executable, str(path), *arguments],
            cwd=cwd or tmp_path, env=environment(**variables), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert expect is None or done.returncode == expect, done.stderr
        return done

    return run


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> Iterator[random.Random]:
    """A random generator whose seed is printed when the test fails; FLIGHT_SEED repeats it."""
    seed = int(_SEED) if _SEED else random.SystemRandom().randrange(1 << 32)
    print(f"{request.node.name}: FLIGHT_SEED={seed}")
    yield random.Random(seed)


_SEED = os.environ.get("FLIGHT_SEED", "")


@dataclass
class Journal:
    """What a run directory's journal holds."""

    records: list[Record]
    reports: dict[str, WriterReport]
    fold: Fold

    def of(self, kind: str) -> list[Record]:
        return [r for r in self.records if r.kind == kind]

    def logged(self, key: str) -> list[Any]:
        return [r.data[key] for r in self.records if r.kind == "log" and key in r.data]

    @property
    def sound(self) -> bool:
        return all(r.sound and not r.damage and not r.torn for r in self.reports.values())


@pytest.fixture
def journal() -> Callable[[Path], Journal]:
    """Read back the journal of a run directory (or of a root's latest run), in order."""

    def read(place: Path) -> Journal:
        run = place / "latest" if (place / "latest").exists() else place
        whole = RunJournal([run / "files" / "journal"])
        fold = whole.fold()
        return Journal([record for _, record in whole.records(hidden=True)], whole.reports, fold)

    return read
