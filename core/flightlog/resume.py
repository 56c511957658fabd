"""Continuing a run from what is on disk, fully offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import rundir
from .errors import DamagedError
from .journal.define import Definitions, Summaries, Tally, from_data
from .journal.fold import Fold
from .journal.scan import RunJournal
from .launch import Launch
from .rundir import RunDir
from .terminal import warn_once

DELIVERED = ".delivered"


class Earlier(NamedTuple):
    """What is known of a run that was begun before.

    Attributes:
        id: the run's id.
        fold: what its records add up to; None where only siblings of this very launch have begun.
        parents: the last seq seen of each writer, also of those that were delivered and deleted here.
        rundir: where it can go on; None where only its remains under .delivered/ are left.
        may_own_spec: whether nobody alive writes that directory's latest.spec.
    """

    id: str
    fold: Fold | None
    parents: dict[str, int]
    rundir: RunDir | None
    may_own_spec: bool


def find_earlier(root: Path, run_id: str, launch: Launch | None = None, rewind_to: int | None = None) -> Earlier | None:
    """Return what is known below `root` of the run with this id, None where nothing is.

    Args:
        root: the folder of run directories.
        run_id: the run's id.
        launch: the job that this process is a rank of: what its siblings have begun is joined, not continued.
        rewind_to: the last step that counts; None for all.
    """
    delivered = _delivered(root, run_id)
    directories = _directories(root, run_id)
    if directories:
        return _earlier(run_id, directories, delivered, launch, rewind_to)
    if delivered is not None:
        return Earlier(run_id, fold_of_spec(delivered), _seen(delivered), None, True)
    return None


def newest_unfinished(
    root: Path, project: str, launch: Launch | None = None, rewind_to: int | None = None
) -> Earlier | None:
    """Return the newest run of a project below `root` that neither finished nor is alive.

    One that a sibling of this launch has taken up meanwhile counts, too: it is joined.
    """
    for directory in sorted(rundir.discover(root, max_depth=1), key=lambda d: d.path.name, reverse=True):
        try:
            spec = directory.read_spec()
        except DamagedError:
            continue
        if spec.get("project") == project:
            found = find_earlier(root, spec["id"], launch, rewind_to)
            if launch is not None and _has_sibling(directory, launch):
                return found
            alive = spec.get("state") == "running" and rundir.is_alive(directory, spec)
            return None if alive or spec.get("state") == "finished" else found
    return None


def refold(root: Path, run_id: str) -> Fold:
    """Return what all that is known below `root` of a run adds up to, the newest records included."""
    delivered = _delivered(root, run_id)
    return RunJournal([d.journal for d in _directories(root, run_id)]).fold(
        fold_of_spec(delivered) if delivered else None
    )


def _directories(root: Path, run_id: str) -> list[RunDir]:
    return [d for d in rundir.discover(root, max_depth=1) if _id_of(d) == run_id]


def _has_sibling(directory: RunDir, launch: Launch) -> bool:
    return any(launch.began(first.data, first.t) for first in RunJournal([directory.journal]).beginnings.values())


def _id_of(directory: RunDir) -> str | None:
    try:
        return str(directory.read_spec()["id"])
    except DamagedError:
        return RunJournal([directory.journal]).fold().id


def _delivered(root: Path, run_id: str) -> dict[str, Any] | None:
    """Return the spec that `sync --clean` has left of a run, if it has."""
    path = root / DELIVERED / f"{run_id}.spec"
    if not path.is_file():
        return None
    try:
        return rundir.read_spec(path)
    except DamagedError as error:
        warn_once(f"delivered {run_id}", f"{error}; the run goes on without knowing what came before.")
        return None


def _earlier(
    run_id: str,
    directories: list[RunDir],
    delivered: dict[str, Any] | None,
    launch: Launch | None,
    rewind_to: int | None,
) -> Earlier:
    journal = RunJournal([d.journal for d in directories])
    if launch is not None:
        journal.leave_out({name for name, first in journal.beginnings.items() if launch.began(first.data, first.t)})
    if rewind_to is not None:
        journal.rewind_all(rewind_to)
    fold = journal.fold(fold_of_spec(delivered) if delivered else None)
    seen = {**(_seen(delivered) if delivered else {}), **journal.last_seqs}
    place = max(directories, key=lambda d: d.path.name)
    return Earlier(run_id, fold if fold.records else None, seen, place, _is_free(place))


def _is_free(place: RunDir) -> bool:
    """Tell whether nobody alive writes a directory's latest.spec."""
    try:
        spec = place.read_spec()
    except DamagedError:
        return True
    return not (spec.get("state") == "running" and rundir.is_alive(place, spec))


def fold_of_spec(spec: Mapping[str, Any]) -> Fold:
    """Return the fold that a latest.spec stands for: what came before, where the journal itself is elsewhere now."""
    fold = Fold(id=str(spec["id"]))
    project, config, summary, tags, step = (spec.get(k) for k in ("project", "config", "summary", "tags", "step"))
    fold.project = project if isinstance(project, str) else None
    fold.config = dict(config) if isinstance(config, dict) else {}
    fold.summaries = Summaries(_definitions(spec), dict(summary) if isinstance(summary, dict) else {}, _tallies(spec))
    fold.tags = [str(t) for t in tags] if isinstance(tags, list) else []
    fold.step = step if isinstance(step, int) else 0
    started, records = spec.get("started_at"), spec.get("records")
    fold.started_at = float(started) if isinstance(started, int | float) else None
    fold.records = records if isinstance(records, int) else 0
    for name in ("name", "group", "job_type", "notes", "workspace"):
        if spec.get(name) is not None:
            fold.identity[name] = spec[name]
    return fold


def _definitions(spec: Mapping[str, Any]) -> Definitions:
    found = spec.get("definitions")
    parsed = (from_data(data) for data in found if isinstance(data, dict)) if isinstance(found, list) else ()
    return Definitions(definition for definition in parsed if definition)


def _tallies(spec: Mapping[str, Any]) -> dict[str, Tally]:
    found = spec.get("tallies")
    return {str(m): t for m, v in found.items() if (t := Tally.from_list(v))} if isinstance(found, dict) else {}


def _seen(spec: Mapping[str, Any]) -> dict[str, int]:
    """Return how far a spec's run had seen each writer, wherever that is now."""
    seen: dict[str, int] = {}
    for part in (spec.get("seen"), spec.get("writers")):
        for name, seq in part.items() if isinstance(part, dict) else ():
            if type(seq) is int and seq > 0:
                seen[str(name)] = max(seq, seen.get(str(name), 0))
    return seen


def merged(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return what two specs of one run, left by directories of it that are gone, say together."""
    whole = {**earlier, **{key: value for key, value in later.items() if value is not None}}
    for part in ("config", "summary", "tallies"):
        whole[part] = {**(earlier.get(part) or {}), **(later.get(part) or {})}
    for part in ("step", "records"):
        whole[part] = max(spec.get(part) or 0 for spec in (earlier, later))
    started = [spec["started_at"] for spec in (earlier, later) if spec.get("started_at")]
    whole["started_at"] = min(started, default=None)
    whole["seen"] = {**_seen(earlier), **_seen(later)}
    whole.pop("writers", None)
    return whole
