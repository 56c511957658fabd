"""Deleting a delivered run from this disk: only what a receipt has proven, and only if nothing has changed since."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from .. import followed, rundir
from ..artifacts import kept as kept_artifacts
from ..errors import DamagedError
from ..resume import delivered_place, merged
from ..rundir import RunDir, atomic_write
from ..verify import spec_of, verify
from . import local, state
from .deliver import Outcome
from .departed import CLEANING, DELIVERED_TO, LEFT, aside_of, has_left
from .local import Identity
from .stock import Stock

QUIET_SECONDS = 24 * 3600.0
# What flightlog itself keeps in a run directory, and what is left of it where it was killed while it wrote that.
_FILES = ("sync.json", rundir.SPEC, ".gitignore", *followed.FILES)
_OWN = re.compile("|".join([*map(re.escape, _FILES), *(rf"\.{re.escape(name)}\.[0-9a-z]{{8}}" for name in _FILES)]))
_TRASH, _KEPT = ".flightlog-trash-", ".flightlog-kept-"


@dataclass(slots=True)
class Cleaned:
    """What came of cleaning a run.

    Attributes:
        reason: why it was left alone; then nothing was deleted.
        freed: the bytes that are free now.
        kept: what stays as no record names it, relative to the run directory.
        artifacts: how many files of artifacts stay because that was asked for.
        by_another: another process has delivered and cleaned it meanwhile; nothing was left to be freed.
        home: where the run was, and what stays of it is.
    """

    reason: str | None = None
    freed: int = 0
    kept: list[str] = field(default_factory=list)
    artifacts: int = 0
    by_another: bool = False
    home: Path | None = None


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
        _finish_earlier(outcome.directory.path.parent)
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
    quiet = _now(directory.path.parent) - _last_sign(directory)
    if not identity.ended and quiet < QUIET_SECONDS:
        return "it did not finish, and has been quiet for less than 24 hours"
    if quiet < older_than:
        return "it is younger than was asked for"
    return None


def _last_sign(directory: RunDir) -> float:
    """Return when a journal last grew; where none is there yet, as of a copy on its way, when its spec was written."""
    growth = directory.last_growth()
    with contextlib.suppress(OSError):
        growth = growth or directory.spec_path.lstat().st_mtime
    return growth


def _now(folder: Path) -> float:
    """Return the time as it is where the runs are: the earlier of this machine's clock and their file system's own.

    A clock that is a day ahead would make a run quiet that somebody is about to resume.
    """
    here = time.time()
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0")
        file.flush()
        return min(here, os.fstat(file.fileno()).st_mtime)
    return here


def remove(proven: Proven, *, keep_artifacts: bool = False) -> Cleaned:
    """Delete what is proven of a run directory.

    The directory is renamed first, so that nobody who knows its path writes to it, then looked at again. Until it is
    renamed a second time, to `.flightlog-trash-…`, it is still a run that any sync finds; after that it is only
    rubbish. What stays, somebody's own files or artifacts, then stands in a folder of the old name, which is no run
    directory any more.

    Args:
        proven: what is proven. keep_artifacts: leave the files of artifacts, to be used from this disk.

    Raises:
        OSError: a rename or a deletion failed; what is gone was proven.
    """
    directory = proven.directory
    root = directory.path.parent
    _finish_earlier(root)
    aside = aside_of(directory)
    if has_left(directory):
        return Cleaned(LEFT)
    if aside.path.exists():
        return Cleaned(f"{aside.path} is in the way; sync that first")
    artifacts = kept_artifacts.records_of(directory) if keep_artifacts else []
    known = state.load(directory)  # by its name: it may lie elsewhere
    try:
        os.rename(directory.path, aside.path)
    except FileNotFoundError:
        return Cleaned(LEFT)
    gone = _still_proven(proven, aside)
    stays = sorted(p for p in aside.path.rglob("*") if (p.is_symlink() or not p.is_dir()) and p not in gone)
    reason = None
    if aside.journal_sizes() != proven.journal or local.alive(aside):
        reason = "it has grown since it was delivered"
    elif strange := [p for p in stays if p.is_relative_to(aside.journal)]:
        reason = f"{strange[0].relative_to(aside.path)} is none of the run's, and lies in its journal"
    if reason:
        os.rename(aside.path, directory.path)
        return Cleaned(reason)
    home = _home_of(directory.path)
    held = {p for p in gone if keep_artifacts and p.is_relative_to(aside.files / "artifacts")}
    kept = [p.relative_to(aside.path).as_posix() for p in stays]
    sizes = [p.lstat().st_size for p in gone - held]
    try:
        left = _leave_behind(root, aside, proven, known)
        if held:
            kept_artifacts.keep(root, proven.identity.id, proven.identity.project, home.name, artifacts)
    except BaseException:
        os.rename(aside.path, directory.path)
        raise
    _take_away(aside, home, [*stays, *sorted(held)], left)
    _mend_links(root)
    return Cleaned(freed=sum(sizes), kept=kept, artifacts=len(held), home=home)


def _take_away(aside: RunDir, path: Path, stays: list[Path], left: _Left) -> None:
    """Delete a directory but for what stays of it, which gets the path; ended anywhere, it is a whole run, or none."""
    root = path.parent
    spare, trash = root / f"{_KEPT}{path.name}", root / f"{_TRASH}{path.name}"
    for file in stays:
        place = spare / file.relative_to(aside.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(file, place)
    os.rename(aside.path, trash)
    try:
        if stays:
            os.rename(spare, path)
        if not left.is_written:
            shutil.rmtree(trash / "files")
            with contextlib.suppress(OSError):  # somebody else has filled the disk again
                left.write()
        shutil.rmtree(trash)
    except FileNotFoundError:  # another cleaning of this folder has finished it for us
        shutil.rmtree(trash, ignore_errors=True)


def _home_of(path: Path) -> Path:
    """Return where what stays of a run belongs: one that killed cleanings have put aside had another name."""
    name = path.name
    while name.endswith(CLEANING) and name != CLEANING:
        name = name.removesuffix(CLEANING)
    home = path.with_name(name)
    return path if os.path.lexists(home) else home


def _finish_earlier(root: Path) -> None:
    """Finish what an interrupted cleaning had decided."""
    for path in root.glob(f"{_TRASH}*"):
        if path.is_dir() and not path.is_symlink():
            _keep_spec(RunDir(path))
            shutil.rmtree(path, ignore_errors=True)
    for path in root.glob(f"{_KEPT}*"):
        place = root / path.name.removeprefix(_KEPT)
        if not place.exists() and not aside_of(RunDir(place)).path.exists():
            with contextlib.suppress(OSError):
                os.rename(path, place)


def _keep_spec(trash: RunDir) -> None:
    """Leave behind the spec of a run that was ended on a full disk before there was room for it."""
    with contextlib.suppress(DamagedError, OSError, KeyError):
        spec = trash.read_spec()
        place = delivered_place(trash.path.parent, str(spec["id"]), spec.get("project"))
        if not place.exists():
            _Left(place, trash.spec_path.read_bytes()).write()


@dataclass(slots=True)
class _Left:
    """The spec that is left behind of a run, and whether it is written: on a full disk only once there is room."""

    place: Path
    content: bytes
    is_written: bool = False

    def write(self) -> None:
        self.place.parent.mkdir(exist_ok=True)
        atomic_write(self.place, self.content)
        self.is_written = True


def _leave_behind(root: Path, aside: RunDir, proven: Proven, known: Mapping[str, state.Synced]) -> _Left:
    """Keep the spec, so that a requeued job can still go on where this run ended."""
    try:
        spec = aside.read_spec()
    except DamagedError:
        spec = spec_of(verify(aside))
    place = delivered_place(root, str(spec["id"]), spec.get("project"))
    with contextlib.suppress(DamagedError):
        spec = merged(rundir.read_spec(place), spec)
    spec["seen"] = {**spec.get("seen", {}), **proven.writers}
    spec[DELIVERED_TO] = sorted(origin for origin, there in known.items() if state.holds_all(aside, there))
    left = _Left(place, orjson.dumps(spec, option=orjson.OPT_INDENT_2, default=str))
    try:
        left.write()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise  # on a full disk, which cleaning is for, it waits for the room that the run itself makes
    return left


def _still_proven(proven: Proven, aside: RunDir) -> set[Path]:
    """Return the files that are proven and have not changed since they were read, and what flightlog keeps itself."""
    found = {path for path in aside.path.iterdir() if _OWN.fullmatch(path.name) and _is_regular(path)}
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


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _mend_links(root: Path) -> None:
    """Let the links to a run that is gone lead to the newest one that is left, or take them away."""
    latest = root / "latest"
    if rundir.is_run_dir(latest.resolve()):
        return
    left = sorted((d.path.name, d) for d in rundir.discover(root, max_depth=1))
    if left:
        rundir.point_latest(root, left[-1][1])
    for name in ("latest", rundir.SPEC, "files"):
        link = root / name
        if link.is_symlink() and not (link.exists() and rundir.is_run_dir(latest.resolve())):
            link.unlink(missing_ok=True)
