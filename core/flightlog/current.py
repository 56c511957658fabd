"""The run of this process: init, log and finish as functions, and what happens when the process ends without finish."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import endings, rundir, settings
from .announce import announce_start
from .errors import NoRunError, ResumeError, UsageError
from .journal.fold import Fold
from .mappings import as_mapping
from .protocol.names import checked_name, friendly_name, new_run_id
from .resume import Earlier, find_earlier, newest_unfinished
from .run import Run
from .terminal import warn_once

_current: Run | None = None
# What a wandb script may pass to init() that has no counterpart here; it is said once and does no harm.
_NOT_HERE = frozenset(
    [
        "reinit",
        "settings",
        "save_code",
        "sync_tensorboard",
        "anonymous",
        "force",
        "allow_val_change",
        "config_exclude_keys",
        "config_include_keys",
        "fork_from",
        "resume_from",
        "monitor_gym",
        "tensorboard",
    ]
)


def init(
    project: str | None = None,
    *,
    name: str | None = None,
    id: str | None = None,
    config: object = None,
    tags: Iterable[str] | str | None = None,
    notes: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    dir: str | os.PathLike[str] | None = None,
    mode: str | None = None,
    resume: str | bool | None = None,
    workspace: str | None = None,
    entity: str | None = None,
    **others: Any,
) -> Run:
    """Begin recording a run, and make it this process's current one. A run still open is finished first.

    Args:
        project: what it belongs to; "uncategorized" without one.
        name: what people call it; a name is made up without one. Names may repeat, ids do not.
        id: the run's id. With the id of an earlier run that run is continued (see `resume`).
        config: hyper-parameters: a mapping, an argparse.Namespace or a dataclass.
        tags, notes, group, job_type: for finding and grouping runs later.
        dir: the folder that holds run directories; `./flightlog` without it. If the folder exists and holds other
            things, a `flightlog` folder inside it is used.
        mode: "offline" (the default), "online" or "disabled" (records nothing).
        resume: "allow" continues the run with this id if there is one (the default where an id is given), "must" raises
            without one, "never" raises with one, "auto" continues this project's newest run here that did not finish.
        workspace: whom it belongs to on the server; without one, the account that syncs it. `entity` means the same.

    Every argument left out is looked up in FLIGHTLOG_*, `flightlog.toml`, and the user's settings.

    Returns:
        The run.

    Raises:
        UsageError: an argument cannot be used. ResumeError: as `resume` says.
        SettingsError: a settings file or variable cannot be understood.
    """
    for unknown in others:
        if unknown not in _NOT_HERE:
            raise TypeError(f"init() got an unexpected keyword argument {unknown!r}")
        warn_once(f"init {unknown}", f"init({unknown}=) has no counterpart in flightlog and is ignored.")
    chosen = settings.load(
        project=project, name=name, run_id=id, tags=tags, notes=notes, group=group, job_type=job_type, dir=dir,
        mode=mode, resume=resume, workspace=workspace or entity,
    )  # fmt: skip
    if chosen.run_id is not None:
        checked_name("run id", chosen.run_id)
    checked_name("project", chosen.project)
    if chosen.workspace is not None:
        checked_name("workspace", chosen.workspace)
    settled = as_mapping("config=", config)
    finish()
    if chosen.mode == "disabled":
        from .disabled import DisabledRun

        return _install(DisabledRun(chosen, settled))
    if chosen.mode == "online":
        warn_once("online", "this run is recorded offline; `flightlog sync` delivers it, also while it is running.")
    run = _begin(chosen, settled)
    announce_start(run)
    return _install(run)


def _begin(chosen: settings.Settings, config: Mapping[str, Any]) -> Run:
    started = time.time()
    root, earlier = _find(chosen)
    if earlier is None:
        run_id = chosen.run_id or new_run_id()
        place, owns_spec = _create(root, run_id, started), True
        before: Fold | None = None
        parents: Mapping[str, int] = {}
    else:
        run_id = earlier.id
        before, parents = earlier.fold, earlier.parents
        if earlier.rundir is not None:
            place, owns_spec = earlier.rundir, earlier.may_own_spec
        else:
            place, owns_spec = _create(root, run_id, started), True
    identity = before.identity if before else {}
    run = Run(
        place,
        run_id=run_id,
        project=(before and before.project) or chosen.project,
        name=chosen.name or identity.get("name") or friendly_name(run_id),
        workspace=chosen.workspace or identity.get("workspace"),
        group=chosen.group or identity.get("group"),
        job_type=chosen.job_type or identity.get("job_type"),
        tags=chosen.tags,
        notes=chosen.notes or identity.get("notes"),
        config=config,
        before=before,
        parents=parents,
        owns_spec=owns_spec,
    )
    try:
        rundir.point_latest(run.rundir.path.parent, run.rundir)
    except OSError as error:
        warn_once("latest", f"`latest` in {run.rundir.path.parent} cannot be made to lead to this run: {error}")
    return run


def _create(root: Path, run_id: str, started: float) -> rundir.RunDir:
    try:
        return rundir.create(root, run_id, started)
    except OSError as error:
        return rundir.create(_spare(root, error), run_id, started)


def _spare(wanted: Path, why: OSError) -> Path:
    """Return the folder to record into where the one that is wanted cannot be written, and say so."""
    try:
        spare = rundir.spare_root()
    except OSError as error:
        raise UsageError(f"init(): neither {wanted} ({why}) nor a temporary folder ({error}) can be written") from None
    reason = why.strerror or str(why)
    warn_once(f"dir {wanted}", f"{wanted} cannot be written ({reason}); this run is recorded in {spare} instead.")
    return spare


def _find(chosen: settings.Settings) -> tuple[Path, Earlier | None]:
    """Return the prepared root and, where this run was begun before, what is known of that."""
    try:
        root = rundir.prepare_root(Path(chosen.dir).absolute())
    except OSError as error:
        root = _spare(Path(chosen.dir), error)
    run_id = chosen.run_id
    if run_id is None:
        if chosen.resume == "must":
            raise ResumeError('init(resume="must") needs the id of the run: init(id=…) or FLIGHTLOG_RUN_ID')
        return root, newest_unfinished(root, chosen.project) if chosen.resume == "auto" else None
    earlier = find_earlier(root, run_id)
    if earlier is None and chosen.resume == "must":
        raise ResumeError(f'init(resume="must"): there is no run {run_id} in {root}')
    if earlier is not None and chosen.resume == "never":
        raise ResumeError(f'init(resume="never"): run {run_id} is already in {root}')
    return root, earlier


def log(data: Mapping[str, Any], step: int | None = None, commit: bool = True) -> None:
    """Record values in the current run; see `Run.log`. Raises NoRunError where there is none."""
    run = _current
    if run is None:
        raise NoRunError("log(): there is no run; call flightlog.init() first")
    run.log(data, step, commit)


def log_artifact(*args: Any, **kwargs: Any) -> Any:
    """Keep a file or folder as an artifact of the current run; see `Run.log_artifact`."""
    return current("log_artifact()").log_artifact(*args, **kwargs)


def finish(exit_code: int | None = None) -> None:
    """End the current run, if there is one; see `Run.finish`."""
    global _current
    run, _current = _current, None
    if run is not None:
        endings.end(run, lambda: run.finish(exit_code))


def current(what: str) -> Run:
    """Return the current run. Raises NoRunError, naming `what` was asked for, where there is none."""
    if _current is None:
        raise NoRunError(f"{what}: there is no run; call flightlog.init() first")
    return _current


def current_or_none() -> Run | None:
    """Return the current run, None where there is none or it has been finished."""
    return _current if _current is not None and _current.state == "running" else None


def _install(run: Run) -> Run:
    global _current
    _current = run
    endings.watch(_peek, _take)
    return run


def _peek() -> Run | None:
    """Return the current run if this process began it (and not one that it was forked from)."""
    run = current_or_none()
    return run if run is not None and run.owner_pid == os.getpid() else None


def _take() -> Run | None:
    global _current
    run = _peek()
    if run is not None:
        _current = None
    return run
