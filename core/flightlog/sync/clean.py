"""Deleting a delivered run from this disk: only what a receipt has proven, and only if nothing has changed since."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from .. import followed, rundir
from ..artifacts import kept as kept_artifacts
from ..errors import DamagedError
from ..resume import DELIVERED, delivered_place, merged
from ..rundir import RunDir, atomic_write
from ..verify import spec_of, verify
from . import local
from .deliver import Outcome
from .local import Identity
from .stock import Stock

QUIET_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class Cleaned:
    """What came of cleaning a run.

    Attributes:
        reason: why it was left alone; then nothing was deleted.
        freed: the bytes that are free now.
        kept: what stays as no record names it, relative to the run directory.
        artifacts: how many files of artifacts stay because that was asked for.
    """

    reason: str | None = None
    freed: int = 0
    kept: list[str] = field(default_factory=list)
    artifacts: int = 0


@dataclass(frozen=True, slots=True)
class Proven:
    """What of a run directory a server has proven to hold.

    Attributes:
        directory, identity: which run it is.
        began: when reading it began, UTC seconds: what has changed since is not what was proven.
        journal: by writer and segment, the bytes that were read. writers: by name, the last seq.
        files: by path below `files/`, size and SHA-256.
    """

    directory: RunDir
    identity: Identity
    began: float
    journal: Mapping[str, Mapping[str, int]]
    writers: Mapping[str, int]
    files: Mapping[str, tuple[int, str]]

    @classmethod
    def by_stock(cls, stock: Stock) -> Proven:
        """Return what a stock holds, which a receipt has proven."""
        last = {name: state.last for name, state in stock.writers.items()}
        return cls(stock.directory, stock.identity, stock.began, stock.journal, last, stock.files)


def clean(outcome: Outcome, *, keep_artifacts: bool = False) -> Cleaned:
    """Delete what a delivery has proven of its run directory; see `remove`. Raises OSError."""
    reason = reason_to_keep(outcome.directory, outcome.identity)
    if not outcome.complete:
        reason = "the server has not proven that it holds everything"
    if reason:
        _empty_trash(outcome.directory.path.parent)
        return Cleaned(reason)
    last = {name: done.last for name, done in outcome.writers.items()}
    proven = Proven(outcome.directory, outcome.identity, outcome.began, outcome.journal, last, dict(outcome.files))
    return remove(proven, keep_artifacts=keep_artifacts)


def reason_to_keep(directory: RunDir, identity: Identity, older_than: float = 0.0) -> str | None:
    """Say why a run is to be left alone, whatever is proven of it; None where nothing says so.

    Args:
        directory, identity: the run. older_than: seconds without growth that are asked for besides.
    """
    if local.alive(directory):
        return "it is still running"
    quiet = time.time() - directory.last_growth()
    if not identity.ended and quiet < QUIET_SECONDS:
        return "it did not finish, and has been quiet for less than 24 hours"
    if quiet < older_than:
        return "it is younger than was asked for"
    return None


def remove(proven: Proven, *, keep_artifacts: bool = False) -> Cleaned:
    """Delete what is proven of a run directory.

    The directory is renamed first, so that nobody who knows its path writes to it, then looked at again. Until it is
    renamed a second time, to `.trash-…`, it is still a run that any sync finds; after that it is only rubbish. Where
    somebody's own files stay, or artifacts, the folder gets its name back and is no run directory any more.

    Args:
        proven: what is proven. keep_artifacts: leave the files of artifacts, to be used from this disk.

    Raises:
        OSError: a rename or a deletion failed; what is gone was proven.
    """
    directory = proven.directory
    root = directory.path.parent
    _empty_trash(root)
    aside = RunDir(root / f"{directory.path.name}.cleaning")
    if aside.path.exists():
        return Cleaned(f"{aside.path} is in the way; sync that first")
    artifacts = kept_artifacts.records_of(directory) if keep_artifacts else []
    os.rename(directory.path, aside.path)
    if aside.journal_sizes() != proven.journal or local.alive(aside):
        os.rename(aside.path, directory.path)
        return Cleaned("it has grown since it was delivered")
    _leave_behind(root, aside, proven)
    gone = _still_proven(proven, aside)
    held = {p for p in gone if keep_artifacts and p.is_relative_to(aside.files / "artifacts")}
    gone -= held
    stays = sorted(p for p in aside.path.rglob("*") if (p.is_symlink() or not p.is_dir()) and p not in gone)
    freed = sum(p.lstat().st_size for p in gone)
    if held:
        name, identity = directory.path.name, proven.identity
        kept_artifacts.keep(root, identity.id, identity.project, name, artifacts)
    if stays:
        _delete(gone, aside)
        os.rename(aside.path, directory.path)
    else:
        trash = root / f".trash-{directory.path.name}"
        os.rename(aside.path, trash)
        shutil.rmtree(trash)
    _mend_links(root)
    kept = [p.relative_to(aside.path).as_posix() for p in stays if p not in held]
    return Cleaned(freed=freed, kept=kept, artifacts=len(held))


def _empty_trash(root: Path) -> None:
    """Finish what an interrupted cleaning had decided."""
    for path in root.glob(".trash-run-*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _delete(gone: set[Path], aside: RunDir) -> None:
    """Delete proven files so that, whenever it ends, what is left is a run that is no worse than one just begun.

    The spec goes first, which says how much there was; then of each journal the newest segment first.
    """
    journal = sorted((p for p in gone if p.is_relative_to(aside.journal)), reverse=True)
    for path in [aside.spec_path, *journal, *sorted(gone)]:
        if path in gone:
            path.unlink(missing_ok=True)
    for folder, _, _ in os.walk(aside.files, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            Path(folder).rmdir()


def _leave_behind(root: Path, aside: RunDir, proven: Proven) -> None:
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
    spec["seen"] = {**spec.get("seen", {}), **proven.writers}
    atomic_write(place, orjson.dumps(spec, option=orjson.OPT_INDENT_2, default=str))


def _still_proven(proven: Proven, aside: RunDir) -> set[Path]:
    """Return the files that are proven and have not changed since they were read, and what flightlog keeps itself."""
    own = [aside.sync_path, aside.spec_path, *(aside.path / name for name in (".gitignore", *followed.FILES))]
    found = {path for path in own if path.is_file() and not path.is_symlink()}
    found |= {
        aside.journal / writer / name
        for writer, sizes in proven.journal.items()
        if writer in proven.writers
        for name in sizes
    }
    for path, (size, _) in proven.files.items():
        file = aside.files / path
        with contextlib.suppress(OSError):
            facts = file.lstat()
            if facts.st_size == size and facts.st_mtime < proven.began:
                found.add(file)
    return found


def _mend_links(root: Path) -> None:
    """Let the links to a run that is gone lead to the newest one that is left, or take them away."""
    left = sorted((d.path.name, d) for d in rundir.discover(root, max_depth=1))
    latest = root / "latest"
    if left and not rundir.is_run_dir(latest.resolve()):
        rundir.point_latest(root, left[-1][1])
    for name in ("latest", rundir.SPEC, "files"):
        link = root / name
        if link.is_symlink() and not (link.exists() and rundir.is_run_dir(latest.resolve())):
            link.unlink()
