"""Training: what a framework's callback owns, and turns its hooks into calls of.

The run is opened when it is first needed, so that a checkpoint may still say which run is continued. It stays open when
a training ends, so that an evaluation afterwards goes to the same run; the process's end closes it. Nothing that goes
wrong in a hook reaches the training.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import orjson

from .. import current, endings, launch, resume, rundir, settings
from ..errors import DamagedError, UsageError
from ..journal.reader import open_regular
from ..journal.values import plain
from ..mappings import as_mapping
from ..protocol.names import checked_name, new_run_id
from ..run import Run
from ..rundir import atomic_write
from ..terminal import contained, warn_once
from ..throughput import Throughput
from .checkpoints import Checkpoints
from .facts import learning_rates, model_facts, optimizer_facts
from .marker import MAX_BYTES, Marker, as_marker, read_marker, remove_marker, write_marker

_P = ParamSpec("_P")
_T = TypeVar("_T")
_opened: weakref.WeakSet[Run] = weakref.WeakSet()


def hook(method: Callable[_P, _T]) -> Callable[_P, _T | None]:
    """Let no error of a method reach the framework that calls it: one warning, and None. Costs next to nothing."""

    @functools.wraps(method)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        try:
            return method(*args, **kwargs)
        except Exception as error:  # an exception raised again through `contained` has one way to be dealt with
            with contained(f"flightlog's {method.__name__}()"):
                raise error from None
        return None

    return wrapped


class Training:
    """Records a framework's training.

    Only `run`, `open` and the constructor raise, for arguments that cannot be used; the other methods never do.

    Args:
        run: a run to record into; without it the current one, if the script began it, or else a new one. A run that was
            not begun here is not ended here either.
        checkpoints: which checkpoints are kept: "none", "best", "last", "best_and_last" or "all"; see `Checkpoints`.
        artifact: the name of the artifact whose versions they are; "model-<run id>" without one.
        rank: this process's number in the job: only 0 writes metrics.
        **init: what `flightlog.init` takes.

    Attributes:
        rank: likewise; an integration sets it when the framework tells it.
        checkpoints: keeps checkpoints.
        throughput: measures how fast it goes.

    Raises:
        UsageError: the policy is none, a name cannot be used, or `run` comes with arguments for another.
        SettingsError: an argument, or a setting in its place, is none that can be used.
        TypeError: `flightlog.init` does not take it.
    """

    def __init__(
        self,
        *,
        run: Run | None = None,
        checkpoints: object = "best_and_last",
        artifact: str | None = None,
        rank: int = 0,
        **init: Any,
    ) -> None:
        if run is not None and not isinstance(run, Run):
            raise UsageError(f"run= takes what flightlog.init() returns, not {type(run).__name__}")
        given = {name: value for name, value in init.items() if value is not None}
        current.check_arguments("Training()", init)
        self._check_values(given)
        if run is not None and (contrary := sorted(given.keys() & {"project", "id", "dir", "mode"})):
            raise UsageError(f"run= is a run already; {', '.join(contrary)} cannot be set anew")
        self.rank = rank
        self.throughput = Throughput()
        self.checkpoints = Checkpoints(checkpoints, self._run_or_none, artifact)
        self._init = given
        self._run = run
        self._owned = False
        self._reserved: str | None = None
        self._resume: Marker | None = None
        self._joined: dict[str, Any] | None = None
        self._absent = False
        self._finished = False
        self._defined: set[str] = set()
        self._handed_over = False
        self._pid = os.getpid()
        if run is None:
            self._reserved = self._new_id()

    @staticmethod
    def _check_values(given: Mapping[str, Any]) -> None:
        """Raise now what `init` would raise of arguments in the midst of a hook, where it costs the whole run."""
        settings.load(**{name: value for name, value in given.items() if name != "resume_from"})  # it may name a run
        as_mapping("config=", given.get("config"))

    def _new_id(self) -> str | None:
        """Return the id that a new run will have; None where an id is given, or the disk decides which run it is."""
        chosen = self._chosen()
        checked_name("project", chosen.project)
        if chosen.run_id is not None:
            checked_name("run id", chosen.run_id)
        if chosen.run_id is not None or chosen.resume == "auto":
            return None
        return (current.next_id_of_launch() if chosen.ranks else None) or new_run_id()

    # -- the run -------------------------------------------------------------------------------------------------------

    @property
    def is_main(self) -> bool:
        """Whether this process writes metrics."""
        return self.rank == 0

    @property
    def is_elsewhere(self) -> bool:
        """Whether this is a spawned or forked child of the process that made it: its end is not the program's."""
        return os.getpid() != self._pid

    @property
    def is_open(self) -> bool:
        """Whether there is a run that records."""
        return self._run is not None and self._run.state == "running"

    @property
    def run(self) -> Run:
        """The run; opened now if it is not yet, and opened again if it has failed. After `finish` the ended one.

        Raises:
            UsageError: as `flightlog.init`.
        """
        if self._run is not None and self._finished:
            return self._run
        return self.open()

    @property
    def id(self) -> str:
        """The run's id; where that depends on what is on the disk, the run is opened to know it."""
        if self._run is not None:
            return self._run.id
        self._look_for_note()
        if self._resume is not None:
            return self._resume.id
        return self._reserved or str(self._chosen().run_id or self.open().id)

    @property
    def project(self) -> str:
        """The run's project."""
        if self._run is not None:
            return self._run.project
        return self._resume.project if self._resume is not None else self._chosen().project

    def _chosen(self) -> settings.Settings:
        known = {name: self._init.get(name) for name in ("project", "dir", "resume", "mode")}
        return settings.load(**known, run_id=self._init.get("id"))

    @hook
    def propose(self, **init: Any) -> None:
        """Take what the framework calls a run, where neither the script nor a setting says it.

        Args:
            **init: what `flightlog.init` takes; it counts for the run that begins next.
        """
        known = settings.load().sources
        for name, value in init.items():
            if value is not None and name not in known:
                self._init.setdefault(name, value)

    def open(self) -> Run:
        """Return the run, open: also one that was ended, since there is more to record."""
        self._finished = False
        if self._run is not None and (self._run.state == "running" or not self._owned):
            return self._run
        found = self._scripts_own() if self._run is None else self._successor()
        if found is not None:
            self._run, self._owned = found, False
            self._defined.clear()
            return found
        self._look_for_note()
        self._run = self._begin()
        self._owned = True
        self._absent = False
        _opened.add(self._run)
        self._leave_note(self._run)
        return self._run

    def _scripts_own(self) -> Run | None:
        """Return the current run, if the script began it and has not asked for another one here."""
        running = current.current_or_none()
        if running is None or running in _opened:
            return None
        wanted = [self._init.get(name) for name in ("id", "project")]
        has = (running.id, running.project)
        return running if all(w in (None, h) for w, h in zip(wanted, has, strict=True)) else None

    def _successor(self) -> Run | None:
        """Return the run that the script has begun since this one ended: one is recorded at a time, and it chose."""
        running = current.current_or_none()
        if running is None or running in _opened:
            return None
        warn_once(
            f"successor {running.id}",
            f"the script has begun run {running.id} during a training, which goes on in that one.",
        )
        return running

    def _begin(self) -> Run:
        arguments = dict(self._init)
        if self._run is not None:  # it was ended, and there is more to record
            arguments.update(id=self._run.id, project=self._run.project, dir=self._run.dir.parent, resume="allow")
            arguments.pop("resume_from", None)
        elif self._resume is not None:
            arguments.update(self._resumed(self._resume))
        elif self._reserved is not None and "id" not in arguments:
            arguments["id"] = self._reserved
        self._resume = None
        self._defined.clear()
        facts = self._joined
        if facts is None or launch.detect() is not None:
            return current.init(**arguments)
        with launch.declared(facts["key"], self.rank, facts["size"], facts.get("local_rank")):
            return current.init(**arguments)

    def _run_or_none(self) -> Run | None:
        """Return the run for a hook; one that cannot be opened is warned of once."""
        if self._absent:
            return None
        try:
            return self.open()
        except BaseException:
            self._absent = True
            raise

    # -- several processes ---------------------------------------------------------------------------------------------

    def invitation(self, size: int) -> dict[str, Any] | None:
        """Return what the job's other processes need to `join` this one's run; the framework sends it to them.

        Args:
            size: how many processes the job has.

        Returns:
            Plain values; None where nothing is recorded.
        """
        with contained("flightlog's invitation()"):
            if self._joined is None and self._run is None:
                self._joined = {"key": new_run_id(), "size": size, "local_rank": 0}
            self.throughput.scale = size
            run = self._run_or_none()
            if run is not None and run.recording:
                key = (self._joined or {}).get("key") or new_run_id()
                return {"id": run.id, "project": run.project, "dir": str(run.dir.parent), "key": key, "size": size}
        return None

    def join(self, invitation: Mapping[str, Any] | None, rank: int, local_rank: int | None) -> None:
        """Record into the run of the job's first process: this one's console, and of each node the machine.

        Args:
            invitation: what the first process has sent.
            rank, local_rank: which this process is, in the job and on its node.
        """
        self.rank = rank
        with contained("flightlog's join()"):
            if invitation is None:
                self._absent = True
            elif self._run is None:
                self._joined = {"key": invitation["key"], "size": invitation["size"], "local_rank": local_rank}
                self._init.update(id=invitation["id"], project=invitation["project"], resume="allow")
                self._init.setdefault("dir", invitation["dir"])
                self._resume = None
                self._run_or_none()

    def __getstate__(self) -> dict[str, Any]:
        """What a spawned process gets: the run itself where it is open, else what opens it."""
        state = dict(self.__dict__)
        if not self.is_open:
            state["_run"] = None
            if self._run is not None:
                state["_init"] = {**self._init, "id": self._run.id, "project": self._run.project, "resume": "allow"}
        del state["checkpoints"], state["throughput"]
        return {**state, "policy": self.checkpoints.policy, "artifact": self.checkpoints._name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        policy, artifact = state.pop("policy"), state.pop("artifact")
        self.__dict__.update(state)
        self._owned = False
        self._handed_over = False
        self.throughput = Throughput()
        self.checkpoints = Checkpoints(policy, self._run_or_none, artifact)

    def _note(self) -> Path:
        return Path(tempfile.gettempdir()) / f"flightlog-{self._reserved}.json"

    def _leave_note(self, run: Run) -> None:
        """Tell the process that spawned this one which run it is, where a checkpoint has made it another."""
        if self.is_elsewhere and self.is_main and self._reserved not in (None, run.id):
            with contextlib.suppress(OSError):
                atomic_write(self._note(), orjson.dumps(self.marker(None)))

    def _look_for_note(self) -> None:
        """Go on with the run that a spawned process has recorded into, where that is another than was to be."""
        if self._run is None and self._resume is None and self._reserved is not None and self.is_main:
            with contextlib.suppress(OSError, ValueError):
                with open_regular(self._note()) as file:
                    self._resume = as_marker(orjson.loads(file.read(MAX_BYTES)))
                if not self.is_elsewhere:  # what is spawned next finds it, too, where this one has not looked before
                    self._note().unlink()
                    self._reserved = self._reserved if self._resume is None else self._resume.id

    # -- what is recorded ----------------------------------------------------------------------------------------------

    @hook
    def log(
        self,
        metrics: Mapping[str, Any],
        step: int | None = None,
        *,
        epoch: float | None = None,
        axis: str | None = None,
    ) -> None:
        """Record what a hook brings, as one record.

        Args:
            metrics: values by name, as the framework has them at hand; what still lies on a device is waited for.
            step: of the training; the run's own counter without one.
            epoch: how far the training is in epochs.
            axis: the metric that these are drawn over, such as "epoch"; the step without one.
        """
        if not self.is_main or not (metrics or epoch is not None):
            return
        run = self._run_or_none()
        if run is None:
            return
        values = dict(metrics)
        if epoch is not None:
            values.setdefault("epoch", epoch)
        if axis is not None:
            self._define_axis(run, values, axis)
        run.log(values, step)

    def _define_axis(self, run: Run, names: Iterable[str], axis: str) -> None:
        if axis not in self._defined:
            self._defined.add(axis)
            run.define_metric(axis, hidden=True)
        for name in names:
            if name not in self._defined and not any(c in name for c in "*?["):
                self._defined.add(name)
                run.define_metric(name, step_metric=axis)

    @hook
    def define(self, name: str, **how: Any) -> None:
        """Say what is to be made of a metric; arguments as those of `Run.define_metric`."""
        run = self._run_or_none() if self.is_main else None
        if run is not None:
            run.define_metric(name, **how)

    @hook
    def configure(self, values: object, prefix: str = "") -> None:
        """Record settings. What is known already is not recorded again, and no change is warned of.

        Args:
            values: a mapping, argparse.Namespace or dataclass.
            prefix: goes before each name.
        """
        run = self._run_or_none() if self.is_main else None
        if run is None:
            return
        fresh = {}
        for key, value in as_mapping("configure()", values).items():
            name = f"{prefix}{key}"
            if name not in run.config or not _same(run.config[name], value):
                fresh[name] = value
        if fresh:
            run.config.update(fresh, allow_val_change=True)

    @hook
    def describe_model(self, model: Any) -> None:
        """Record the size of a model under config["model_summary"]: see `model_facts`; or its facts as a mapping."""
        if self.is_main:
            self.configure({"model_summary": dict(model) if isinstance(model, Mapping) else model_facts(model)})

    @hook
    def describe_optimizers(self, optimizers: Iterable[Any], schedulers: Iterable[Any] = ()) -> None:
        """Record optimizers and schedulers under config["optimizers"] and config["schedulers"].

        Args:
            optimizers: with `param_groups` as in PyTorch, or their facts as mappings.
            schedulers: objects, of which the class is recorded, or their facts.
        """
        if not self.is_main:
            return
        self.configure({"optimizers": [dict(o) if isinstance(o, Mapping) else optimizer_facts(o) for o in optimizers]})
        found = [s if isinstance(s, str | Mapping) else type(s).__qualname__ for s in schedulers]
        if found:
            self.configure({"schedulers": found})

    @staticmethod
    def learning_rates(optimizers: Iterable[Any]) -> dict[str, float]:
        """Return the learning rates of optimizers as metrics; see `facts.learning_rates`."""
        with contained("flightlog's learning_rates()"):
            return learning_rates(optimizers)
        return {}

    # -- checkpoints and resuming --------------------------------------------------------------------------------------

    def marker(self, step: int | None) -> dict[str, Any]:
        """Return what a checkpoint holds in order to lead back to this run; {} where nothing is recorded.

        Args:
            step: the last step that was logged before the checkpoint.
        """
        with contained("flightlog's marker()"):
            run = self._run if self._run is not None else self._run_or_none() if self.is_main else None
            if run is not None and run.recording:
                return Marker(run.id, run.project, step, str(run.dir.parent.absolute())).data()
        return {}

    @hook
    def checkpoint_saved(
        self,
        path: str | os.PathLike[str],
        *,
        step: int,
        log_step: int | None = None,
        sidecar: bool = True,
        **facts: Any,
    ) -> None:
        """A checkpoint has been saved: leave the marker beside it, and keep it as the policy says.

        Args:
            path: a file or folder.
            step: how far the training had come.
            log_step: the last step that was logged before it, where steps are counted otherwise; `step` without it.
            sidecar: False where the framework takes offence at other files there.
            **facts: as `Checkpoints.saved`.
        """
        if not self.is_main:
            return
        if sidecar and Path(path).exists():
            marker = as_marker(self.marker(step if log_step is None else log_step))
            if marker is not None:
                write_marker(path, marker)
        self.checkpoints.saved(path, step=step, **facts)

    @hook
    def checkpoint_removed(self, path: str | os.PathLike[str]) -> None:
        """The framework has deleted a checkpoint: the marker beside it goes, too. What is kept of it stays."""
        if self.is_main:
            remove_marker(path)

    @hook
    def resume_from_checkpoint(self, path: str | os.PathLike[str], *, rewind: bool = True) -> bool:
        """Continue the run whose marker is beside a checkpoint; see `resume_from_marker`."""
        marker = read_marker(path)
        return marker is not None and bool(self.resume_from_marker(marker.data(), rewind=rewind))

    @hook
    def resume_from_marker(self, marker: object, step: int | None = None, *, rewind: bool = True) -> bool:
        """Continue the run that a checkpoint belongs to, without any flag. To be called before anything is recorded.

        Nothing happens where the script has said which run it wants, and where the run is still being recorded by
        another process: then a new run begins, with a warning.

        Args:
            marker: as `marker()` has returned it.
            step: the last step that counts; without it, the marker's.
            rewind: hide what was logged beyond that step; False for an evaluation.

        Returns:
            Whether it is continued.
        """
        found = as_marker(marker)
        if found is None or not self.is_main:
            return False
        at = found.step if step is None else step
        found = found._replace(step=at if rewind else None)
        if self._run is None:
            self._run = self._scripts_own()
        if self._run is not None:
            return self._resume_open(self._run, found)
        chosen = self._chosen()
        other_project = "project" in chosen.sources and chosen.project != found.project
        if chosen.resume == "never" or chosen.run_id not in (None, found.id) or other_project:
            return False
        if _is_recorded_elsewhere(found, self._root(found)):
            warn_once(
                f"alive {found.id}",
                f"run {found.id}, which saved this checkpoint, is still being recorded; this is a new run.",
            )
            return False
        self._resume = found
        return True

    @hook
    def follow_marker(self, marker: object) -> None:
        """Take part, as a later process of the job, in the run that the first one continues by the same marker."""
        found = as_marker(marker)
        if found is None or self.is_main:
            return
        chosen = self._chosen()
        mine = self._run is not None or self._scripts_own() is not None
        if not mine and chosen.resume != "never" and chosen.run_id in (None, found.id):
            self._init.update(id=found.id, project=found.project, dir=self._root(found), resume="allow")
        self.open()

    def _resume_open(self, run: Run, found: Marker) -> bool:
        if run.id == found.id:
            if found.step is not None and found.step + 1 < run.step:
                self.checkpoints.begin()
                self.open().rewind(found.step)
            return True
        if self._owned and not run.resumed and run.step == 0 and not self._init.get("id"):
            # It was opened before the checkpoint could be looked at, and nothing was logged since.
            run.finish()
            self._run, self._resume = None, found
            return True
        return False

    def _root(self, marker: Marker) -> Path:
        """Return the folder to continue a run in: where it is, if the script has not said where.

        A checkpoint may come from anybody, so its marker leads only to a folder that does hold the run.
        """
        chosen = self._chosen()
        there = resume.Wanted((Path(marker.dir),), marker.id, marker.project)
        if "dir" not in chosen.sources and marker.dir and resume.is_known(there):
            return Path(marker.dir)
        return Path(chosen.dir)

    def _resumed(self, marker: Marker) -> dict[str, Any]:
        arguments: dict[str, Any] = {"id": marker.id, "project": marker.project, "dir": self._root(marker)}
        if self._init.get("resume") not in ("allow", "must"):
            arguments["resume"] = "allow"
        if marker.step is not None:
            arguments["resume_from"] = marker.step
        return arguments

    # -- begin and end -------------------------------------------------------------------------------------------------

    @hook
    def began(self) -> None:
        """The framework's loop begins; where it has handlers of signals of its own, they say how it ends on SIGTERM."""
        if not self._handed_over:
            self._handed_over = endings.hand_over()

    @hook
    def paused(self) -> None:
        """The framework's loop is through, however it went; the run stays open for what comes after."""
        if self._handed_over:
            self._handed_over = False
            endings.take_back()
        self.throughput.pause()
        self.checkpoints.end()

    @hook
    def failed(self, error: BaseException) -> None:
        """The framework's loop was left by an exception: the run ends as failed, or as preempted after SIGTERM.

        A training that failed before anything was recorded has a run, too, which says so. A run that the script began
        itself goes on: the script may know better, and else its own end says so.
        """
        self.paused()
        is_exit = isinstance(error, SystemExit) and not error.code
        run = self._run_or_none() if self._run is None and self.is_main and not is_exit else self._run
        if run is None or not self._owned or run.state != "running":
            return
        if is_exit and not endings.is_terminated(run):
            return  # `sys.exit()` is an end like another
        if endings.is_terminated(run):
            run.preempt()
        else:
            run.fail(error)

    @hook
    def preempting(self) -> None:
        """The machine is about to be taken away; the training may go on until it is."""
        if self.is_open and self._run is not None:
            self._run.mark_preempting()

    @hook
    def flush(self) -> None:
        """Bring what was recorded to the disk."""
        if self.is_open and self._run is not None:
            self._run.flush()

    @hook
    def finish(self) -> None:
        """End the run, if it was begun here; the process's end does so by itself."""
        self.paused()
        run = self._run
        if run is not None and self._owned and run.state == "running":
            run.finish()
            self._finished = True


def _same(known: Any, value: Any) -> bool:
    try:
        return bool(known == value) or bool(known == plain(value))
    except Exception:  # a value's own code may raise anything; recording it will say so
        return False


def _is_recorded_elsewhere(marker: Marker, root: Path) -> bool:
    """Tell whether a run is being recorded by another process that lives."""
    if not root.is_dir():
        return False
    for directory in rundir.discover(root, max_depth=1):
        try:
            spec = directory.read_spec()
        except DamagedError:
            continue
        is_this = spec.get("id") == marker.id and spec.get("project") in (None, marker.project)
        runs_elsewhere = spec.get("state") == "running" and spec.get("pid") != os.getpid()
        if is_this and runs_elsewhere and rundir.is_alive(directory, spec):
            return True
    return False
