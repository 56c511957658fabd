"""The run of this process: init, log and finish as functions, and what happens when the process ends without finish."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import endings, joining, rundir, settings
from .announce import announce_end, announce_start
from .companions import Surroundings
from .errors import NoRunError, ResumeError, UsageError
from .journal.define import Definition
from .launch import Launch, detect
from .mappings import as_mapping
from .protocol.names import checked_name, friendly_name, new_run_id
from .run import Beginning, Identity, Run
from .terminal import guarded, warn_once

if TYPE_CHECKING:
    from .artifacts import ArtifactVersion
    from .online import Online
    from .resume import Earlier

_current: Run | None = None
_begun = 0  # how many runs this process has begun: each rank's first is the job's first
# How long a rank waits for the first one's directory before it makes one of its own.
_WAIT_SECONDS = 1.0
# What a wandb script may pass to init() that has no counterpart here; it is said once and does no harm.
_NOT_HERE = frozenset(
    [
        "reinit",
        "sync_tensorboard",
        "anonymous",
        "force",
        "config_exclude_keys",
        "config_include_keys",
        "fork_from",
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
    resume_from: int | str | None = None,
    allow_val_change: bool = False,
    durability: str | None = None,
    console: str | None = None,
    system_interval: float | None = None,
    save_code: bool | str | os.PathLike[str] | None = None,
    allow_secrets: Iterable[str] | str | None = None,
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
        mode: "online" (delivered while it is recorded, by a process beside this one), "offline" (delivered later, by
            `flightlog sync`) or "disabled" (records nothing). Without it, online where a server is configured and a key
            for it is at hand, else offline.
        resume: "allow" continues the run with this id if there is one (the default where an id is given), "must" raises
            without one, "never" raises with one, "auto" continues this project's newest run here that did not finish.
        resume_from: continue the run from this step: what was logged beyond it is hidden, and kept.
            "<run id>?_step=<n>" names the run, too.
        allow_val_change: a continued run's config may change without a warning.
        durability: "record" (the default): killing the process loses nothing for which `log()` has returned; or
            "buffered": up to a second or 64 KiB, for half the cost of a call.
        console: "wrap" (the default) records what is printed, "fd" also what subprocesses and C libraries print, "off"
            nothing.
        system_interval: seconds between two samples of processors, memory, disks, network and GPUs; 5 without it, 0 for
            none.
        save_code: True (the default) keeps the script and the uncommitted changes of its repository, a folder the
            sources in it as well, False none.
        allow_secrets: names of settings, options and variables that may be recorded although they sound secret.
        workspace: whom it belongs to on the server; without one, the account that syncs it. `entity` means the same.

    Every argument left out is looked up in FLIGHTLOG_*, `flightlog.toml`, and the user's settings.

    Returns:
        The run.

    Raises:
        UsageError: an argument cannot be used. ResumeError: as `resume` says.
        SettingsError: a settings file or variable cannot be understood.
    """
    if others.get("settings") is not None:
        from .wandb_names import init_arguments

        given = init_arguments(others.pop("settings"))
        mine = {
            "project": project, "name": name, "id": id, "config": config, "tags": tags, "notes": notes, "group": group,
            "job_type": job_type, "dir": dir, "mode": mode, "resume": resume, "resume_from": resume_from,
            "durability": durability, "console": console, "system_interval": system_interval, "save_code": save_code,
            "allow_secrets": allow_secrets, "workspace": workspace or entity,
        }  # fmt: skip
        ours = {name: value for name, value in mine.items() if value is not None}
        return init(**{**given, **ours}, allow_val_change=allow_val_change, **others)
    others.pop("settings", None)
    check_arguments("init()", others)
    for unknown in others:
        warn_once(f"init {unknown}", f"init({unknown}=) has no counterpart in flightlog and is ignored.")
    id, resume_from = _split_resume_from(id, resume_from)
    chosen = settings.load(
        project=project, name=name, run_id=id, tags=tags, notes=notes, group=group, job_type=job_type, dir=dir,
        mode=mode, resume=resume, resume_from=resume_from, durability=durability, console=console,
        system_interval=system_interval, save_code=save_code, allow_secrets=allow_secrets,
        workspace=workspace or entity,
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
    run = _begin(chosen, settled, allow_val_change)
    online = _followed(run, chosen)
    announce_start(run, online)
    run.when_over(lambda: announce_end(run, online))
    return _install(run)


def _followed(run: Run, chosen: settings.Settings) -> Online | None:
    """Return what has the run followed where its mode is online and its directory is this process's to see to."""
    if "mode" in chosen.sources and chosen.mode == "offline":
        return None
    with guarded("init()"):
        from . import online

        choice = online.choose(chosen)
        if choice.destination is None:
            if choice.worth_saying:
                warn_once("online", f"this run is recorded offline: {choice.why}.")
            return None
        if not run.owns_directory:
            return None
        started = online.Online(run.rundir, choice.destination, chosen.finish_timeout, chosen.follow_timeout)
        started.start()
        return started
    return None


def check_arguments(what: str, names: Iterable[str]) -> None:
    """Raise TypeError where `init` does not take one of these arguments, nor passes it over with a warning."""
    known = {"project", "settings", *(init.__kwdefaults__ or ()), *_NOT_HERE}
    for name in names:
        if name not in known:
            raise TypeError(f"{what} got an unexpected keyword argument {name!r}")


def _split_resume_from(run_id: str | None, value: int | str | None) -> tuple[str | None, int | str | None]:
    if isinstance(value, str) and "?_step=" in value:
        named, _, step = value.partition("?_step=")
        return run_id or named, step
    return run_id, value


def _begin(chosen: settings.Settings, config: Mapping[str, Any], allow_val_change: bool) -> Run:
    global _begun
    _begun += 1
    started = time.time()
    launch = detect() if chosen.ranks else None
    id_is_given = chosen.run_id is not None
    chosen = _with_id_of(launch, chosen)
    root, earlier = _find(chosen, launch, id_is_given)
    run_id = earlier.id if earlier else chosen.run_id or new_run_id()
    launch = earlier.launch if earlier else launch
    place, owns_spec = _place(root, run_id, started, earlier, launch)
    before = earlier.fold if earlier else None
    known = before.identity if before else {}
    identity = Identity(
        id=run_id,
        project=(before and before.project) or chosen.project,
        name=chosen.name or known.get("name") or friendly_name(run_id),
        workspace=chosen.workspace or known.get("workspace"),
        group=chosen.group or known.get("group"),
        job_type=chosen.job_type or known.get("job_type"),
        tags=chosen.tags,
        notes=chosen.notes or known.get("notes"),
    )
    run = Run(
        place,
        identity,
        Beginning(before, earlier.parents if earlier else None, chosen.resume_from, launch, owns_spec),
        config=config,
        allow_val_change=allow_val_change,
        buffered=chosen.durability == "buffered",
        spool_to=chosen.spool_to,
        surroundings=Surroundings(
            chosen.console, chosen.system_interval, chosen.provenance, chosen.save_code, chosen.allow_secrets
        ),
    )
    try:
        rundir.point_latest(run.rundir.path.parent, run.rundir)
    except OSError as error:
        warn_once("latest", f"`latest` in {run.rundir.path.parent} cannot be made to lead to this run: {error}")
    return run


def _with_id_of(launch: Launch | None, chosen: settings.Settings) -> settings.Settings:
    """Return the settings with the id that all ranks of a launch come to, where none is given."""
    if launch is None or chosen.run_id is not None:
        return chosen
    run_id = launch.run_id(_begun)
    if run_id is None:
        warn_once(
            "launch",
            f"this is rank {launch.rank} of {launch.size}, and nothing tells its launch from others on all nodes; set "
            "FLIGHTLOG_RUN_ID for all ranks to be one run.",
        )
    return chosen._replace(run_id=run_id, resume=chosen.resume or "allow")


def next_id_of_launch() -> str | None:
    """Return the id of the next run that this process begins as a rank of its launch; None where it has none."""
    launch = detect()
    return launch.run_id(_begun + 1) if launch is not None else None


def _place(
    root: Path, run_id: str, started: float, earlier: Earlier | None, launch: Launch | None
) -> tuple[rundir.RunDir, bool]:
    """Return the directory to record into, and whether its latest.spec is this process's to write.

    Of a job's ranks the first writes it; another one only in a directory that it has made itself.
    """
    is_later_rank = launch is not None and launch.rank > 0
    place = earlier.rundir if earlier else None
    if place is None and is_later_rank:
        place = _siblings_place(root, run_id)
    if place is None:
        return _create(root, run_id, started), True
    joins = earlier is None or earlier.fold is None
    return place, not is_later_rank and (joins or (earlier is not None and earlier.may_own_spec))


def _siblings_place(root: Path, run_id: str) -> rundir.RunDir | None:
    """Return the directory that another rank has made for the run, waiting a moment for it; None if none appears."""
    made = re.compile(rf"run-[0-9]{{8}}-[0-9]{{6}}-{re.escape(run_id)}(?:\.[0-9]{{1,3}})?")
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        with contextlib.suppress(OSError):
            found = sorted(path for path in root.iterdir() if made.fullmatch(path.name) and path.is_dir())
            if found:
                return rundir.RunDir(found[-1])
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)


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


def _find(chosen: settings.Settings, launch: Launch | None, id_is_given: bool) -> tuple[Path, Earlier | None]:
    """Return the prepared root and, where this run was begun before, what is known of that."""
    try:
        root = rundir.prepare_root(Path(chosen.dir).absolute())
    except OSError as error:
        root = _spare(Path(chosen.dir), error)
    if chosen.run_id is None and chosen.resume in (None, "allow", "never") and chosen.resume_from is None:
        return root, None
    from .resume import Wanted, find_earlier, newest_unfinished

    roots = (root, Path(chosen.spool_to).absolute()) if chosen.spool_to else (root,)
    if chosen.resume == "auto" and not id_is_given:
        found = newest_unfinished(roots, chosen.project, launch, chosen.resume_from)
        if found is not None:
            return root, found
    run_id = chosen.run_id
    if run_id is None:
        if chosen.resume == "must" or chosen.resume_from is not None:
            wanted = 'init(resume="must")' if chosen.resume == "must" else "init(resume_from=)"
            raise ResumeError(f"{wanted} needs the id of the run: init(id=…) or FLIGHTLOG_RUN_ID")
        return root, None
    project = chosen.project if "project" in chosen.sources else None
    earlier = find_earlier(Wanted(roots, run_id, project), launch, chosen.resume_from)
    known = earlier is not None and earlier.fold is not None
    which = f"{run_id} of project {project}" if project else run_id
    if not known and chosen.resume == "must":
        raise ResumeError(f'init(resume="must"): there is no run {which} in {root}')
    if known and chosen.resume == "never":
        raise ResumeError(f'init(resume="never"): run {which} is already in {root}')
    if not known and chosen.resume_from is not None:
        warn_once(
            f"base {run_id}",
            f"nothing is known in {root} of run {which}; it goes on behind step {chosen.resume_from} without what came "
            "before.",
        )
    return root, earlier


def log(data: Mapping[str, Any], step: int | None = None, commit: bool = True, sync: object = None) -> None:
    """Record values in the current run; see `Run.log`. Raises NoRunError where there is none."""
    run = _current
    if run is None:
        run = current("log()")
    run.log(data, step, commit)


def log_artifact(*args: Any, **kwargs: Any) -> Any:
    """Keep a file or folder as an artifact of the current run; see `Run.log_artifact`."""
    return current("log_artifact()").log_artifact(*args, **kwargs)


def define_metric(*args: Any, **kwargs: Any) -> Definition:
    """Say what is to be made of a metric of the current run; see `Run.define_metric`."""
    return current("define_metric()").define_metric(*args, **kwargs)


def alert(*args: Any, **kwargs: Any) -> None:
    """Record in the current run that something wants attention; see `Run.alert`."""
    current("alert()").alert(*args, **kwargs)


def mark_preempting() -> None:
    """Say that the current run's machine is about to be taken away; see `Run.mark_preempting`."""
    current("mark_preempting()").mark_preempting()


def finish(exit_code: int | None = None, quiet: object = None) -> None:
    """End the current run, if there is one; see `Run.finish`."""
    global _current
    run, _current = _current, None
    joining.announce(None)
    if run is not None:
        run.finish(exit_code)


def current(what: str) -> Run:
    """Return the current run. Raises NoRunError, naming `what` was asked for, where there is none."""
    if _current is not None:
        return _current
    run = joining.parents_run()
    if run is None:
        raise NoRunError(f"{what}: there is no run; call flightlog.init() first")
    return _install(run)


def current_or_none() -> Run | None:
    """Return the current run, None where there is none or it has been finished."""
    return _current if _current is not None and _current.state == "running" else None


def _from_server(root: Path, project: str, name: str, which: str, workspace: str | None) -> ArtifactVersion:
    """Return an artifact version that the server has; see `reading.fetched`, which needs an HTTP library."""
    from .reading import fetched

    return fetched.find(root, project, name, which, workspace)


Run.fetch = staticmethod(_from_server)


def _install(run: Run) -> Run:
    global _current
    _current = run
    joining.announce(run)
    endings.watch(run, _peek, _take)
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


def log_model(*args: Any, **kwargs: Any) -> Any:
    """Keep a model's file or folder; see `Run.log_model`."""
    return current("log_model()").log_model(*args, **kwargs)


def watch(*args: Any, **kwargs: Any) -> None:
    """Log histograms of a PyTorch model's gradients or parameters while it trains; see `Run.watch`."""
    current("watch()").watch(*args, **kwargs)


def unwatch(models: Any = None) -> None:
    """Watch a model, several, or without any all of them, no longer."""
    current("unwatch()").unwatch(models)


def use_artifact(*args: Any, **kwargs: Any) -> Any:
    """Return an artifact version of an earlier run; see `Run.use_artifact`."""
    return current("use_artifact()").use_artifact(*args, **kwargs)


def save(*args: Any, **kwargs: Any) -> Any:
    """Keep files under their own names; see `Run.save`."""
    return current("save()").save(*args, **kwargs)
