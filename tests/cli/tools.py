"""What these tests share: runs with media and artifacts, and a way to look at a folder as a whole."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import flightlog
from flightlog.rundir import RunDir


def recorded(place: Path, run_id: str, *, project: str = "p", steps: int = 20, size: int = 50_000) -> RunDir:
    """Record a run with this process's own recorder: metrics, and a version of an artifact."""
    with flightlog.init(project, id=run_id, dir=place, name=f"name-{run_id}") as run:
        for step in range(steps):
            run.log({"loss": 1 / (step + 1)})
        model = place.parent / f"{run_id}.bin"
        model.write_bytes(os.urandom(size))
        run.log_artifact(str(model), name="model", type="model", aliases=["best"])
    return run.rundir


def content(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by path; links by where they lead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def age(directory: RunDir, seconds: float) -> None:
    """Make a run's files look as old as that."""
    then = time.time() - seconds
    for path in directory.path.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))
