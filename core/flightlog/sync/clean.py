"""Deleting a delivered run from this disk: only what the receipt has proven, and only if nothing has changed since."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from .. import followed, rundir
from ..errors import DamagedError
from ..resume import DELIVERED, delivered_place, merged
from ..rundir import RunDir, atomic_write
from ..verify import spec_of, verify
from . import local
from .deliver import Outcome

QUIET_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class Cleaned:
    """What came of cleaning a run: why it was left alone (then nothing was deleted), or what stayed."""

    reason: str | None = None
    freed: int = 0
    kept: list[str] = field(default_factory=list)


def clean(outcome: Outcome) -> Cleaned:
    """Delete what a delivery has proven of its run directory.

    The directory is renamed first, so that nobody who knows its path writes to it, then looked at again. Until it is
    renamed a second time, to `.trash-…`, it is still a run that any sync finds; after that it is only rubbish.

    Raises:
        OSError: a rename or a deletion failed; what is gone was proven.
    """
    directory = outcome.directory
    root = directory.path.parent
    _empty_trash(root)
    reason = _reason_to_keep(outcome)
    if reason:
        return Cleaned(reason)
    aside = RunDir(root / f"{directory.path.name}.cleaning")
    if aside.path.exists():
        return Cleaned(f"{aside.path} is in the way; sync that first")
    os.rename(directory.path, aside.path)
    if aside.journal_sizes() != outcome.journal or local.alive(aside):
        os.rename(aside.path, directory.path)
        return Cleaned("it has grown since it was delivered")
    _leave_behind(root, aside, outcome)
    proven = _proven(outcome, aside)
    kept = sorted(
        p.relative_to(aside.path).as_posix() for p in aside.path.rglob("*") if not p.is_dir() and p not in proven
    )
    freed = sum(p.lstat().st_size for p in proven)
    if kept:
        for path in proven - _own_files(aside) - set(_journal_files(outcome, aside)):
            path.unlink()
        os.rename(aside.path, directory.path)
        return Cleaned(freed=freed, kept=kept)
    trash = root / f".trash-{directory.path.name}"
    os.rename(aside.path, trash)
    shutil.rmtree(trash)
    _mend_links(root)
    return Cleaned(freed=freed)


def _empty_trash(root: Path) -> None:
    """Finish what an interrupted cleaning had decided."""
    for path in root.glob(".trash-run-*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _reason_to_keep(outcome: Outcome) -> str | None:
    if not outcome.complete:
        return "the server has not proven that it holds everything"
    if local.alive(outcome.directory):
        return "it is still running"
    if not outcome.identity.ended and time.time() - outcome.directory.last_growth() < QUIET_SECONDS:
        return "it did not finish, and has been quiet for less than 24 hours"
    return None


def _leave_behind(root: Path, aside: RunDir, outcome: Outcome) -> None:
    """Keep the spec, so that a requeued job can still go on where this run ended."""
    try:
        spec = aside.read_spec()
    except DamagedError:
        spec = spec_of(verify(aside))
    folder = root / DELIVERED
    folder.mkdir(exist_ok=True)
    place = delivered_place(root, str(spec["id"]), spec.get("project"))
    with contextlib.suppress(DamagedError):
        spec = merged(rundir.read_spec(place), spec)
    spec["seen"] = {**spec.get("seen", {}), **{name: done.last for name, done in outcome.writers.items()}}
    atomic_write(place, orjson.dumps(spec, option=orjson.OPT_INDENT_2, default=str))


def _own_files(aside: RunDir) -> set[Path]:
    """Return what flightlog itself keeps in a run directory besides the run's data."""
    return {
        aside.sync_path,
        aside.spec_path,
        aside.path / ".gitignore",
        *(aside.path / name for name in followed.FILES),
    }


def _journal_files(outcome: Outcome, aside: RunDir) -> list[Path]:
    return [
        aside.journal / writer / name
        for writer, sizes in outcome.journal.items()
        if writer in outcome.writers
        for name in sizes
    ]


def _proven(outcome: Outcome, aside: RunDir) -> set[Path]:
    """Return the files that the server has proven to hold, and that have not changed since they were read."""
    found = {p for p in _own_files(aside) if p.exists()} | set(_journal_files(outcome, aside))
    for path, (size, _) in outcome.files.items():
        file = aside.files / path
        with contextlib.suppress(OSError):
            facts = file.lstat()
            if facts.st_size == size and facts.st_mtime < outcome.began:
                found.add(file)
    return found


def _mend_links(root: Path) -> None:
    """Let the links to a run that is gone lead to the newest one that is left, or take them away."""
    left = sorted((d.path.name, d) for d in rundir.discover(root, max_depth=1))
    if left and not (root / "latest").exists():
        rundir.point_latest(root, left[-1][1])
    for name in ("latest", rundir.SPEC, "files"):
        link = root / name
        if link.is_symlink() and not link.exists():
            link.unlink()
