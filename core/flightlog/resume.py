"""Continuing a run from what is on disk, fully offline."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import rundir
from .errors import DamagedError
from .journal.define import Definitions, Summaries, Tally, from_data
from .journal.fold import Fold
from .journal.order import parents_of
from .journal.rewind import is_step
from .journal.scan import RunJournal
from .launch import Launch
from .rundir import RunDir
from .terminal import warn_once

DELIVERED = ".delivered"
_MOST_RECORDS = 1 << 62  # what another program may have written there must not make a spec that cannot be written


class Wanted(NamedTuple):
    """Which run is looked for, and where.

    Attributes:
        roots: folders of run directories; only in the first a directory is continued, the others are read.
        id: the run's id.
        project: its project; None for any.
    """

    roots: tuple[Path, ...]
    id: str
    project: str | None = None

    def is_this(self, spec: Mapping[str, Any]) -> bool:
        """Tell whether a latest.spec is of this run."""
        return spec.get("id") == self.id and (self.project is None or spec.get("project") in (None, self.project))


class Earlier(NamedTuple):
    """What is known of a run that was begun before.

    Attributes:
        id: the run's id.
        fold: what its records add up to; None where only siblings of this very launch have begun.
        parents: the last seq seen of each writer, also of those that were delivered and deleted here.
        rundir: where it can go on; None where all that is known of it lies elsewhere.
        may_own_spec: whether nobody alive writes that directory's latest.spec.
        launch: the launch that this process is a rank of, as of this time that it was started.
    """

    id: str
    fold: Fold | None
    parents: dict[str, int]
    rundir: RunDir | None
    may_own_spec: bool
    launch: Launch | None


def find_earlier(wanted: Wanted, launch: Launch | None = None, rewind_to: int | None = None) -> Earlier | None:
    """Return what is known of a run, None where nothing is.

    Args:
        wanted: the run.
        launch: the job that this process is a rank of: what its siblings have begun is joined, not continued.
        rewind_to: the last step that counts; None for all.
    """
    delivered = _delivered(wanted)
    start = fold_of_spec(delivered) if delivered else None
    directories = _directories(wanted)
    if not directories:
        return Earlier(wanted.id, start, _seen(delivered or {}), None, True, launch) if start else None
    journal = RunJournal([d.journal for d in directories])
    if launch is not None:
        launch = launch.among(first.data for first in journal.beginnings.values())
        siblings = {name for name, first in journal.beginnings.items() if first.data.get("launch") == launch.key}
        journal.leave_out(siblings)
    if rewind_to is not None:
        journal.rewind_all(rewind_to)
    fold = journal.fold(start)
    seen = {**_seen(delivered or {}), **journal.last_seqs}
    here = [d for d in directories if d.path.parent == wanted.roots[0]]
    place = max(here, key=lambda d: d.path.name, default=None)
    free = place is None or _is_free(place)
    return Earlier(wanted.id, fold if fold.records else None, seen, place, free, launch)


def is_known(wanted: Wanted) -> bool:
    """Tell whether a run is among its roots, or was delivered from there."""
    return bool(_directories(wanted)) or _delivered(wanted) is not None


def newest_unfinished(
    roots: tuple[Path, ...], project: str, launch: Launch | None = None, rewind_to: int | None = None
) -> Earlier | None:
    """Return the newest run of a project, if it neither finished nor is alive.

    One that a sibling of this launch has taken up meanwhile counts, too: it is joined.
    """
    found = [d for root in roots for d in rundir.discover(root, max_depth=1)]
    for directory in sorted(found, key=lambda d: d.path.name, reverse=True):
        try:
            spec = directory.read_spec()
        except DamagedError:
            continue
        if spec.get("project") == project:
            earlier = find_earlier(Wanted(roots, str(spec["id"]), project), launch, rewind_to)
            if earlier is not None and earlier.launch is not None and _has_sibling(directory, earlier.launch):
                return earlier
            alive = spec.get("state") == "running" and rundir.is_alive(directory, spec)
            return None if alive or spec.get("state") == "finished" else earlier
    return None


def refold(wanted: Wanted, own: Mapping[str, int] | None = None) -> Fold:
    """Return what all that is known of a run adds up to, the newest records included.

    Args:
        wanted: the run.
        own: of these writers only the records up to this seq.
    """
    delivered = _delivered(wanted)
    journal = RunJournal([d.journal for d in _directories(wanted)])
    return journal.fold(fold_of_spec(delivered) if delivered else None, own)


def children_of(wanted: Wanted, writer: str) -> dict[str, int]:
    """Return the last seq of each forked child of a writer, and of theirs."""
    journal = RunJournal([d.journal for d in _directories(wanted)])
    forked = {name: first.data for name, first in journal.beginnings.items() if first.data.get("forked")}
    family = {writer}
    while more := {name for name, data in forked.items() if family & parents_of(data).keys()} - family:
        family |= more
    return {name: journal.last_seq_of(name) for name in family - {writer}}


def _directories(wanted: Wanted) -> list[RunDir]:
    return [d for root in wanted.roots for d in rundir.discover(root, max_depth=1) if _is_of(d, wanted)]


def _has_sibling(directory: RunDir, launch: Launch) -> bool:
    return any(first.data.get("launch") == launch.key for first in RunJournal([directory.journal]).beginnings.values())


def _is_of(directory: RunDir, wanted: Wanted) -> bool:
    try:
        return wanted.is_this(directory.read_spec())
    except DamagedError:
        fold = RunJournal([directory.journal]).fold()
        return wanted.is_this({"id": fold.id, "project": fold.project})


def _delivered(wanted: Wanted) -> dict[str, Any] | None:
    """Return the spec that `sync --clean` has left of a run, if it has."""
    for root in wanted.roots:
        for path in delivered_specs(root, wanted.id):
            try:
                spec = rundir.read_spec(path)
            except DamagedError as error:
                warn_once(f"delivered {wanted.id}", f"{error}; the run goes on without knowing what came before.")
                continue
            if wanted.is_this(spec):
                return spec
    return None


def delivered_specs(root: Path, run_id: str) -> list[Path]:
    """Return where `sync --clean` has left specs of runs with this id, one per project."""
    folder = root / DELIVERED
    return [path for path in [folder / f"{run_id}.spec", *sorted(folder.glob(f"{run_id}@*.spec"))] if path.is_file()]


def delivered_place(root: Path, run_id: str, project: object) -> Path:
    """Return where the spec of a run that is cleaned is left: another project's run may have the same id."""
    plain = root / DELIVERED / f"{run_id}.spec"
    with contextlib.suppress(DamagedError):
        if rundir.read_spec(plain).get("project") != project:
            return plain.with_name(f"{run_id}@{project}.spec")
    return plain


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
    fold.step = step if isinstance(step, int) and is_step(step) else 0
    started, records = spec.get("started_at"), spec.get("records")
    fold.started_at = float(started) if isinstance(started, int | float) else None
    fold.records = records if type(records) is int and 0 <= records < _MOST_RECORDS else 0
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
