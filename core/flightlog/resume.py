"""Continuing a run from what is on disk, fully offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import rundir
from .errors import DamagedError
from .journal.fold import Fold
from .journal.scan import fold_directories
from .rundir import RunDir
from .terminal import warn_once

DELIVERED = ".delivered"


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is known of a run that was begun before.

    `rundir` is where it can go on (None: only its remains under .delivered/ are left), `parents` the last seq seen of
    each writer, `may_own_spec` whether nobody alive writes that directory's latest.spec.
    """

    id: str
    fold: Fold
    parents: dict[str, int]
    rundir: RunDir | None
    may_own_spec: bool


def find_earlier(root: Path, run_id: str) -> Earlier | None:
    """Return what is known below `root` of the run with this id, None where nothing is."""
    directories = [d for d in rundir.discover(root, max_depth=1) if _id_of(d) == run_id]
    if directories:
        return _earlier(run_id, directories)
    delivered = root / DELIVERED / f"{run_id}.spec"
    if delivered.is_file():
        try:
            return Earlier(run_id, _fold_of_spec(rundir.read_spec(delivered)), {}, None, True)
        except DamagedError as error:
            warn_once(f"delivered {run_id}", f"{error}; the run goes on without knowing what came before.")
    return None


def newest_unfinished(root: Path, project: str) -> Earlier | None:
    """Return the newest run of a project below `root` that neither finished nor is alive."""
    for directory in sorted(rundir.discover(root, max_depth=1), key=lambda d: d.path.name, reverse=True):
        try:
            spec = directory.read_spec()
        except DamagedError:
            continue
        if spec.get("project") == project:
            if spec.get("state") == "finished" or (spec.get("state") == "running" and rundir.is_alive(directory, spec)):
                return None
            return find_earlier(root, spec["id"])
    return None


def _id_of(directory: RunDir) -> str | None:
    try:
        return str(directory.read_spec()["id"])
    except DamagedError:
        return fold_directories([directory.journal])[0].id


def _earlier(run_id: str, directories: list[RunDir]) -> Earlier:
    fold, seen = fold_directories([d.journal for d in directories])
    place = max(directories, key=lambda d: d.path.name)
    try:
        spec = place.read_spec()
        alive = spec.get("state") == "running" and rundir.is_alive(place, spec)
    except DamagedError:
        alive = False
    return Earlier(run_id, fold, seen, place, not alive)


def _fold_of_spec(spec: dict[str, object]) -> Fold:
    """Return a fold from the spec that `sync --clean` left behind."""
    fold = Fold(id=str(spec["id"]))
    project, config, summary, tags, step = (spec.get(k) for k in ("project", "config", "summary", "tags", "step"))
    fold.project = project if isinstance(project, str) else None
    fold.config = dict(config) if isinstance(config, dict) else {}
    fold.summary = dict(summary) if isinstance(summary, dict) else {}
    fold.tags = [str(t) for t in tags] if isinstance(tags, list) else []
    fold.step = step if isinstance(step, int) else 0
    started, records = spec.get("started_at"), spec.get("records")
    fold.started_at = started if isinstance(started, float) else None
    fold.records = records if isinstance(records, int) else 0
    for name in ("name", "group", "job_type", "notes", "workspace"):
        if spec.get(name) is not None:
            fold.identity[name] = spec[name]
    return fold
