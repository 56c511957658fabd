"""Run: the object behind init, log and finish.

Everything a run is told becomes a record of its journal before the call returns (recorder.py). latest.spec is written
from the same values by the housekeeper, so a training thread never waits for a disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from . import alerts
from .companions import NOTHING, Companions, Surroundings
from .errors import UsageError
from .familiar import Familiar
from .journal.define import Definition, Definitions, Summaries
from .journal.values import MAX_STEP, Encoded, as_step, encode_values, flatten, key_text, nonfinite_paths, text
from .launch import Launch
from .mappings import Config, Summary, as_mapping, recordable
from .metrics import definition_of
from .process import own_start, pid_namespace
from .recorder import Recorder
from .rundir import FORMAT, RunDir, is_ours, readable
from .terminal import guarded, warn_once

if TYPE_CHECKING:
    from . import resume
    from .artifacts import Artifact, ArtifactVersion, Keeper
    from .journal.fold import Fold
    from .media.base import Media
    from .throughput import Tracked

_T = TypeVar("_T")

# Batch systems give 30 s between SIGTERM and SIGKILL; the journal needs some of them.
PREEMPT_SECONDS = 20.0


# What of a program's origin stands in latest.spec, too; the rest is in the journal.
_SHOWN = ("host", "command")


class Identity(NamedTuple):
    """What a run is called. `id` and `project` are for ever; the rest can be set anew."""

    id: str
    project: str
    name: str
    workspace: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None


class Beginning(NamedTuple):
    """From where a run goes on.

    Attributes:
        before: what its earlier records add up to; None for a run that begins here.
        parents: the last seq seen of each earlier writer.
        rewind_to: the last step that still counts; None for all.
        launch: the job that this process is a rank of.
        owns_spec: whether this process writes the directory's latest.spec.
        forked: whether this process only helps another, which closes the run.
    """

    before: Fold | None = None
    parents: Mapping[str, int] | None = None
    rewind_to: int | None = None
    launch: Launch | None = None
    owns_spec: bool = True
    forked: bool = False


_FRESH = Beginning()


class Run(Familiar):
    """A run being recorded. Made by `flightlog.init`; also a context manager that finishes it.

    Every method may be called from any thread. None raises for what the disk, the driver or a value does; misuse raises
    UsageError. A run may be passed to a child process, forked or spawned: what that records is part of the same run.

    Attributes:
        id: the run's id, the same in every directory and on every server.
        project, workspace: what `init` was given. name, group, job_type, tags, notes: likewise; they can be set anew.
        config: hyper-parameters, a mapping with attribute access.
        summary: the latest value of every metric, or what `define_metric` says of it, likewise.
        step: the step that the next `log()` without one will use.
        resumed: True where records of this run were found and are being continued.
        rank: which of the job's processes this is; 0 where it was started alone.
        dir: the run directory.
        recording: False where the mode is "disabled".
        owns_directory: whether this process sees to the run directory; one of a job's ranks does.
    """

    recording = True
    # Asks a server for an artifact version, given the folder of the runs; reading, which lies above, leaves it here.
    fetch: ClassVar[Callable[[Path, str, str, str, str | None], ArtifactVersion | None] | None] = None

    def __init__(
        self,
        rundir: RunDir,
        identity: Identity,
        beginning: Beginning = _FRESH,
        *,
        config: Mapping[str, Any] | None = None,
        allow_val_change: bool = True,
        buffered: bool = False,
        spool_to: str | None = None,
        surroundings: Surroundings = NOTHING,
    ) -> None:
        before = beginning.before
        self.id = identity.id
        self.project = identity.project
        self.workspace = identity.workspace
        self._name = identity.name
        self._group = identity.group
        self._job_type = identity.job_type
        self._notes = identity.notes
        self._tags = tuple(dict.fromkeys([*(before.tags if before else ()), *identity.tags]))
        self.resumed = before is not None and not beginning.forked
        self.rank = beginning.launch.rank if beginning.launch else 0
        self._ranks = beginning.launch.size if beginning.launch else 1
        self._before = before
        self._owner_pid = os.getpid() if not beginning.forked else 0
        self.owns_directory = beginning.owns_spec
        self._started = time.time()
        self._process_started = own_start()
        self._spool_to = spool_to
        self._alerts = alerts.Limiter()
        self._keepers: dict[int, Keeper] = {}
        self._alone = before is None and beginning.launch is None
        from .provenance.quick import quick  # what `import flightlog` alone does not need
        from .redact import secret_values

        self._allowed = surroundings.allow_secrets
        self._secrets = secret_values(os.environ)
        self._origin = quick(self._allowed)
        self._summaries = before.summaries if before else Summaries(Definitions(), {})
        self._stale = False
        self._ending = 0
        self._when_ended: list[Callable[[], object]] = []
        self._when_over: list[Callable[[], object]] = []
        self._config = dict(before.config) if before else {}  # as it is recorded
        self.config = Config(dict(self._config), self._record_config)
        self._summary = Summary(self._summaries.values, lambda values: self._record_values("summary", values))
        self._recorder = Recorder(
            rundir,
            self._facts,
            self._spec,
            self._whole,
            next_step=before.step if before else 0,
            parents=beginning.parents,
            launch=beginning.launch,
            owns_spec=beginning.owns_spec,
            forked=beginning.forked,
            buffered=buffered,
        )
        self._recorder.begin()
        if beginning.rewind_to is not None:
            self._recorder.rewind(beginning.rewind_to, lambda writer: {})
        given = as_mapping("config=", config)
        if given:
            self.config.update(given, allow_val_change=allow_val_change)
        if surroundings != NOTHING:
            append = self._recorder.append
            self._recorder.companions = Companions(surroundings, rundir, append, beginning.launch)
            self._recorder.companions.start()
        self._recorder.keep_house()

    # -- who it is -----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = self._edited("name", key_text(name))

    @property
    def notes(self) -> str | None:
        return self._notes

    @notes.setter
    def notes(self, notes: str) -> None:
        self._notes = self._edited("notes", key_text(notes))

    @property
    def group(self) -> str | None:
        return self._group

    @group.setter
    def group(self, group: str) -> None:
        self._group = self._edited("group", key_text(group))

    @property
    def job_type(self) -> str | None:
        return self._job_type

    @job_type.setter
    def job_type(self, job_type: str) -> None:
        self._job_type = self._edited("job_type", key_text(job_type))

    @property
    def tags(self) -> tuple[str, ...]:
        return self._tags

    @tags.setter
    def tags(self, tags: Iterable[str] | None) -> None:
        words = [key_text(tag) for tag in ([tags] if isinstance(tags, str) else tags or ())]
        self._tags = tuple(self._edited("tags", list(dict.fromkeys(words))))

    def _edited(self, what: str, value: Any) -> Any:
        """Record that the run is called otherwise from now on."""
        self._must_run(f"run.{what} = …")
        self._recorder.append("edit", {what: value})
        return value

    @property
    def rundir(self) -> RunDir:
        return self._recorder.rundir

    @property
    def dir(self) -> Path:
        return self.rundir.path

    @property
    def step(self) -> int:
        return self._recorder.writer.next_step

    @property
    def state(self) -> str:
        return self._recorder.state

    # -- what is recorded ----------------------------------------------------------------------------------------------

    def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool = True, sync: object = None) -> None:
        """Record the values of a step. When it has returned, killing the process does not lose them.

        Args:
            data: values by metric name: numbers (also of numpy, torch, jax), texts, media; nested mappings are joined
                by ".". A value that cannot be recorded costs its key, with one warning.
            step: the step they belong to; any, in any order. Without it the run's own counter.
            commit: False leaves the counter where it is, so that the next call adds to the same step.
            sync: without meaning here; scripts for Weights & Biases may pass it.

        Raises:
            UsageError: `data` is no mapping, `step` no integer, or the run is finished.
        """
        recorder = self._recorder
        if recorder.state != "running":
            self._must_run("log()")
        if type(data) is not dict and not isinstance(data, Mapping):
            raise UsageError(f"log() takes a mapping of names to values, not {type(data).__name__}")
        if step is not None and not (type(step) is int and -MAX_STEP <= step < MAX_STEP):
            step = as_step(step)
        writer = recorder.writer
        if writer.inherited:
            writer = recorder.writer_here()
        summaries = self._summaries
        done: bool | None = True
        if free := summaries.free:
            done = writer.append_log(step, commit, data)
            if done:
                summaries.values.update(data)
                if summaries.free is not free:  # something was defined meanwhile: only the journal tells what counted
                    self._stale = True
        else:
            with summaries.lock, guarded("log()"):
                done = writer.append_log(step, commit, data)
                if done:
                    summaries.take(data)
        if done:
            recorder.dirty = True
        elif done is None:  # more than plain numbers
            with guarded("log()"):
                self._log_any(data, writer.take_step(step, commit))
        else:
            self._must_run("log()")

    def track(self, loader: Iterable[_T], epoch: int | None = None, every: int = 50) -> Tracked[_T]:
        """Return a loader's batches as they come, and record how fast they are worked off.

        Args:
            loader: a DataLoader, or whatever else gives batches.
            epoch: which pass over the data this is; recorded beside the rates.
            every: after how many batches the rates are recorded: "perf/steps_per_second", "perf/samples_per_second"
                (by the first dimension of the first array in a batch), "perf/tokens_per_second" (where a batch has
                "input_ids"), "perf/step_seconds" and "perf/data_seconds" (of a step, waiting for the batch). They
                stand at the step that was logged last, and once more at the end, or where the loop is left. If the loop
                itself logs nothing, they stand at the step that is logged next. Of several ranks the first one records,
                and takes the others to have as many samples and tokens as itself.
        """
        from .throughput import Throughput, Tracked

        return Tracked(self, loader, epoch, every, Throughput(self._ranks))

    def define_metric(
        self,
        name: str,
        step_metric: str | Definition | None = None,
        *,
        summary: str | Iterable[str] | None = None,
        goal: str | None = None,
        hidden: bool = False,
        **others: Any,
    ) -> Definition:
        """Say what is to be made of a metric, or of all whose name fits a pattern; also of what was logged already.

        Args:
            name: the metric, or a pattern such as "val/*".
            step_metric: the metric that is its axis, such as "epoch"; the step without one.
            summary: which of its values stand in the summary: "last" (the default), "min", "max", "mean", "best" (by
                `goal`) or "none". One stands under the metric's own name; several, as a list or separated by commas,
                under "<metric>.min" and so on.
            goal: "minimize" or "maximize".
            hidden: leave it out of what a page shows by itself.

        Returns:
            The definition, which is also taken for a `step_metric`.

        Raises:
            UsageError: an argument cannot be understood.
        """
        self._must_run("define_metric()")
        new = definition_of(name, step_metric, summary, goal, hidden, others)
        whole = self._summaries.define(new)
        if whole is None:
            return new
        with guarded("define_metric()"):
            self._recorder.append("define", whole.data())
            definitions = self._summaries.definitions
            if any(definitions.of(metric) == whole for metric in list(self._summaries.values)):
                self._stale = True
        return whole

    def alert(
        self, title: str, text: str = "", level: str = "INFO", wait_duration: float | Any = alerts.WAIT_SECONDS
    ) -> None:
        """Record that something wants attention, and say so at the terminal.

        Args:
            title: what it is, in a few words; the same title again within `wait_duration` is passed over.
            text: more of it.
            level: "INFO", "WARN" or "ERROR" (or an `AlertLevel`).
            wait_duration: seconds, or a datetime.timedelta.

        Raises:
            UsageError: the level is none of these.
        """
        self._must_run("alert()")
        data = alerts.checked(title, text, level)
        if self._alerts.passes(data["title"], wait_duration):
            with guarded("alert()"):
                self._recorder.append("alert", data)
                alerts.announce(data)

    def rewind(self, step: int) -> None:
        """Go on from an earlier step: what was logged beyond it is hidden from all views, and kept in the journal.

        Args:
            step: the last step that still counts; the next `log()` without a step is of the one after it.

        Raises:
            UsageError: it is no step.
        """
        self._must_run("rewind()")
        at = as_step(step)
        with guarded("rewind()"):
            from . import resume

            self._recorder.rewind(at, lambda writer: resume.children_of(self._wanted(), writer))
            self._stale = True

    @property
    def summary(self) -> Summary:
        if self._stale:
            self._settle()
        return self._summary

    def _settle(self) -> None:
        """Make the summary anew from all that was logged, where what is said of it has changed. Nobody waits for it."""
        from . import resume

        with guarded("the summary"), self._summaries.settling:
            if not self._stale:
                return
            self._stale = False
            with self._summaries.lock:
                self._summaries.watch()
                writer, seq = self.position
            self._summaries.become(resume.refold(self._wanted(), {writer: seq}).summaries)

    def _wanted(self) -> resume.Wanted:
        from . import resume

        roots = (self.rundir.path.parent, *([Path(self._spool_to).absolute()] if self._spool_to else []))
        return resume.Wanted(roots, self.id, self.project)

    def mark_preempting(self) -> None:
        """Say that the machine is about to be taken away: if the run does not finish by itself, it was preempted."""
        self._must_run("mark_preempting()")
        with guarded("mark_preempting()"):
            self._recorder.append("preempting", {})
            self.flush()

    def log_artifact(
        self,
        path: str | os.PathLike[str] | Artifact,
        name: str | None = None,
        type: str | None = None,
        aliases: str | Iterable[str] | None = (),
        metadata: Mapping[str, Any] | None = None,
        *,
        tags: Iterable[str] | None = None,
        description: str | None = None,
        policy: str = "auto",
        keep_last: int | None = None,
        keep_best: tuple[str, str] | tuple[str, str, int] | None = None,
    ) -> ArtifactVersion | None:
        """Keep a file, a folder with all below it, or an Artifact, as a new version of an artifact.

        It returns at once. What is kept is what the files hold now: 8 MiB are taken before it returns; larger files are
        copied in the background, and one that is written to meanwhile makes the version "damaged", with one warning.

        Args:
            path: what to keep.
            name: the artifact's name; without one, the Artifact's or the file's.
            type: what it is, such as "model" or "dataset"; without one, the Artifact's or "artifact".
            aliases: names for this version besides `latest`.
            metadata: values to go with it.
            tags: without meaning here: aliases name versions, and metadata describe them.
            description: in words.
            policy: "auto" (reflink where the file system can, else copy), "copy", "link" (a hard link, for files that
                are never written to again; copied at finish) or "reference" (only address, size and SHA-256).
            keep_last: let older versions go, as far as no alias but `latest` holds them; this many stay.
            keep_best: likewise; (metric, "min" or "max") or (metric, "min" or "max", how many) stay, by the metric in
                the versions' metadata, which is taken from the summary where the metadata lacks it.

        Returns:
            The version; None where it could not be kept (a warning says why).

        Raises:
            UsageError: a name, the policy or a rule cannot be used.
        """
        self._must_run("log_artifact()")
        if tags:
            warn_once(
                "artifact tags",
                "log_artifact(tags=) has no counterpart; aliases= names a version, metadata= describes it.",
            )
        with guarded("log_artifact()"):
            return self._keeper.log(path, name, type, aliases, metadata, description, policy, keep_last, keep_best)
        return None

    def log_model(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        aliases: str | Iterable[str] | None = (),
    ) -> ArtifactVersion | None:
        """Keep a model's file or folder: `log_artifact` with the type "model"."""
        return self.log_artifact(path, name, "model", aliases)

    def use_artifact(
        self,
        name: str | Artifact | ArtifactVersion,
        type: str | None = None,
        aliases: object = None,
        use_as: object = None,
    ) -> ArtifactVersion:
        """Return a version that this or an earlier run on this disk has logged, and record that this run used it.

        Where none of them has, the server is asked that one is signed in to, if there is one; nothing else in a
        training opens a connection. Files are fetched when they are used.

        Args:
            name: "name:alias", "name:v3", "project/name:alias" or "workspace/project/name:alias"; without ":…" the
                latest. Or a version, or an Artifact, which is logged if it has not been.
            type: what it must be.
            aliases, use_as: without meaning here.

        Raises:
            UsageError: it is not named so, or is of another type.
            NotFound: there is none; the text says where was looked, and why a server was not asked.
            DamagedError: there is one, and it cannot be read.
        """
        self._must_run("use_artifact()")
        return self._keeper.use(self._name_of(name), type)

    def _name_of(self, what: object) -> Any:
        """Return what `use_artifact` looks for where it is given a version, or an Artifact, which is logged first."""
        from .artifacts import Artifact, ArtifactVersion

        found = what
        if isinstance(what, Artifact):
            found = what.logged if what.logged is not None else self.log_artifact(what)
        if isinstance(found, ArtifactVersion):
            return f"{found.project}/{found.name}:{found.wait().version}"
        return found

    def save(
        self,
        glob_str: str | os.PathLike[str],
        base_path: str | os.PathLike[str] | None = None,
        policy: str = "live",
    ) -> list[Path]:
        """Keep files under their own names, in the run's `files/saved/`.

        Args:
            glob_str: a path or pattern; what it finds now is saved.
            base_path: the folder that the names are relative to; without it the working directory, or, for an absolute
                pattern, the folder above the files'.
            policy: "now", "end" (at the end of the run) or "live" (now, and at the end if it has changed).

        Returns:
            Where they are, or will be, in the run.

        Raises:
            UsageError: the pattern leads out of `base_path`, or the policy is none.
        """
        self._must_run("save()")
        with guarded("save()"):
            return self._keeper.save(glob_str, base_path, policy)
        return []

    def _fetch(self, project: str, name: str, which: str, workspace: str | None) -> ArtifactVersion | None:
        """Return what a server has, where something above us can ask one."""
        if Run.fetch is None:
            return None
        return Run.fetch(self.rundir.path.parent, project, name, which, workspace)

    def _keep_code(self, folder: Path, wanted: Callable[[str], bool]) -> None:
        from .provenance.code import save_folder
        from .provenance.store import CodeStore

        self._must_run("log_code()")
        store = CodeStore(self.rundir.files, secrets=self._secrets)
        code = save_folder(store, folder, wanted)
        self._recorder.append("provenance", {"code": code, "files": store.entries})

    @property
    def _keeper(self) -> Keeper:
        """What keeps artifacts in this process; a forked child has one of its own."""
        pid = os.getpid()
        found = self._keepers.get(pid)
        if found is None:
            from .artifacts import Keeper

            made = Keeper(
                lambda: self.rundir,
                self.id,
                self.project,
                self._recorder.append,
                lambda: self._recorder.writer_here().sync(patient=False),
                self._summaries.values,
                alone=self._alone,
                workspace=self.workspace,
                elsewhere=self._fetch,
            )
            found = self._keepers.setdefault(pid, made)
        return found

    def finish(self, exit_code: int | None = None, quiet: object = None) -> None:
        """End the run: everything goes to disk, and latest.spec says how it ended. A second call does nothing.

        Args:
            exit_code: 0 or None for a run that finished, anything else for one that failed.
            quiet: without meaning here; scripts for Weights & Biases may pass it.
        """
        self._end("failed" if exit_code else "finished", exit_code or 0)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.finish()
        else:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the run as failed because of an exception, whose traceback is kept in the journal."""
        import traceback

        trace = text("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        message = key_text(error)[:2000]
        self._end("failed", 1, {"type": type(error).__name__, "message": message, "traceback": trace[-64_000:]})

    def preempt(self) -> None:
        """End the run as preempted: the batch system takes the machine away, and may start the job again."""
        self._end("preempted", 128 + 15)

    def flush(self) -> None:
        """Wait until what has been recorded is on the disk, as the housekeeper sees to every second."""
        writer = self._recorder.writer_here()
        if self._recorder.companions is not None:
            self._recorder.companions.flush()
        writer.sync(patient=False)

    def when_free(self, action: Callable[[], object]) -> None:
        """Call a function once this thread is not in the midst of a record: for signal handlers."""
        free = self._recorder.writer_here().when_free
        keeper = self._keepers.get(os.getpid())
        if keeper is None:
            free(action)
        else:
            keeper.when_free(lambda: free(action))

    @property
    def owner_pid(self) -> int:
        """The process that records here; in a forked child, its parent until the child records itself."""
        return self._recorder.pid

    @property
    def is_whole(self) -> bool:
        """Whether this process's end is the run's; it is not in a child."""
        return self._owner_pid == os.getpid()

    @property
    def records(self) -> int:
        """How many records this process has written."""
        return self._recorder.writer.seq

    @property
    def size(self) -> int:
        """How many bytes of journal those are."""
        return self._recorder.writer.total_bytes

    @property
    def position(self) -> tuple[str, int]:
        """This process's writer, and the seq of its last record."""
        return self._recorder.writer.name, self._recorder.writer.seq

    def __repr__(self) -> str:
        return f"<flightlog run {self.id} {self.name!r} of {self.project!r}, {self.state}, in {self.dir}>"

    # -- steps and values ----------------------------------------------------------------------------------------------

    def _log_any(self, data: Mapping[str, Any], step: int) -> None:
        """The forgiving road of log(): whatever is in `data`, what can be kept is."""
        recognise = _recognition()
        media: dict[str, Any] = {}
        values: dict[str, Any] = {}
        for key, value in flatten(data).items():
            found = recognise(key, value)
            if found is None:
                values[key] = value
            else:
                media[key] = found
        encoded = self._plain("log", values)
        if encoded.values or not media:
            with self._summaries.lock:
                self._recorder.append_values("log", encoded, step)
                self._summaries.take(encoded.values)
        if media:
            self._log_media(media, step)

    def _log_media(self, media: dict[str, Media | list[Media]], step: int) -> None:
        from .media import divide, save_all

        entries: dict[str, Any] = {}
        for key, value in media.items():
            try:
                entries[key] = save_all(self.rundir.files, key, value)
            except Exception as error:  # the disk, a missing package, data that is no image: it costs this key
                warn_once(f"media {key}", f"log(): {key} is left out: {error}")
        for part in divide(entries):
            self._recorder.append("media", part, step)

    def _plain(self, what: str, values: Mapping[str, Any]) -> Encoded:
        """Return what of `values` can be recorded; each of the others costs one warning."""
        encoded, bad = encode_values(values)
        for key, why in bad.items():
            warn_once(f"value {what} {key}", f"{what}: {key} is left out: {why}.")
        return encoded

    def _record_config(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """Record config without what sounds secret or has no form in JSON; the script keeps what it has given."""
        self._must_run("config.update()")
        given = {key: recordable(f"config: {key_text(key)}", value) for key, value in values.items()}
        encoded = self._plain("config", given)
        shown = self._redacted(encoded.values)
        recorded = Encoded(shown, nonfinite_paths(shown))
        self._recorder.append_values("config", recorded)
        self._config.update(recorded.values)
        return {
            (name := key_text(key)): encoded.values.get(name, value) if given[key] is value else value
            for key, value in values.items()
        }

    def _redacted(self, values: Mapping[str, Any]) -> dict[str, Any]:
        from .redact import redact_mapping

        return redact_mapping(values, self._allowed, self._secrets)

    def _record_values(self, kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
        self._must_run(f"{kind}.update()")
        encoded = self._plain(kind, values)
        self._recorder.append_values(kind, encoded)
        return encoded.values

    def _must_run(self, what: str) -> None:
        if self.state != "running":
            raise UsageError(f"{what}: run {self.id} is {self.state}; flightlog.init() begins a new one")

    def _end(self, state: str, exit_code: int, error: dict[str, Any] | None = None) -> None:
        self._ending += 1
        try:
            if self.state == "running":
                self._end_what_is_beside(state)
            if self._recorder.end(state, exit_code, error):
                self.spool()
        finally:
            self._ending -= 1
            while not self._ending and self._when_ended:
                self._when_ended.pop(0)()
        # Only now, when everything is on the disk: this may take its time, and a signal may cut it short.
        while self.is_whole and self.state != "running" and self._when_over:
            self._when_over.pop(0)()

    def _end_what_is_beside(self, state: str) -> None:
        """Let the artifacts' copies and the surroundings come to an end while there can still be records of it."""
        with guarded("finish()"):
            self.unwatch()
            if self.is_whole and self._has_strays():
                self._keeper.save_strays()
        keeper = self._keepers.get(os.getpid())
        if keeper is not None:
            with guarded("finish()"):
                keeper.finish(PREEMPT_SECONDS if state == "preempted" else None)
        if self._recorder.companions is not None:
            with guarded("finish()"):
                self._recorder.companions.stop()

    def _has_strays(self) -> bool:
        """Tell whether a script has put files into the run directory itself, as those for wandb do."""
        try:
            return not all(map(is_ours, os.listdir(self.dir)))  # noqa: PTH208
        except OSError:
            return False

    @property
    def is_ending(self) -> bool:
        """Whether it is being ended just now, which may take a while: copies, a shared disk."""
        return self._ending > 0

    def when_ended(self, action: Callable[[], object]) -> None:
        """Call a function when the end that is under way is through; now, where none is."""
        if self._ending:
            self._when_ended.append(action)
        else:
            action()

    def when_over(self, action: Callable[[], object]) -> None:
        """Call a function once the run has ended, in the process that began it."""
        self._when_over.append(action)

    def spool(self) -> None:
        """Copy the run directory to where FLIGHTLOG_SPOOL_TO says, if it does."""
        if self._spool_to is not None:
            from .spool import spool

            with guarded("FLIGHTLOG_SPOOL_TO"):
                spool(self.rundir, Path(self._spool_to))

    # -- what the recorder asks for ------------------------------------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        """Return who the run is, for a writer's first record."""
        return {
            "format": FORMAT,
            "id": self.id,
            "project": self.project,
            "workspace": self.workspace,
            "name": self.name,
            "group": self.group,
            "job_type": self.job_type,
            "tags": list(self.tags),
            "notes": self.notes,
            **self._origin,
        }

    def _whole(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what a journal lacks whose beginning is gone."""
        definitions = [("define", definition.data()) for definition in self._summaries.definitions]
        return [("config", dict(self._config)), *definitions]

    def _spec(self) -> dict[str, Any]:
        if self._stale:
            self._settle()
        before = self._before
        facts = {name: value for name, value in self._facts().items() if name not in self._origin or name in _SHOWN}
        summaries = self._summaries
        return {
            **facts,
            "started_at": (before and before.started_at) or self._started,
            "updated_at": time.time(),
            "finished_at": time.time() if self.state != "running" else None,
            "pid_namespace": pid_namespace(),
            "process_started_at": self._process_started,
            "config": readable(dict(self._config)),
            "summary": readable(self._summary.as_dict()),
            "definitions": [definition.data() for definition in summaries.definitions],
            "tallies": {m: readable(t.to_list()) for m, t in list(summaries.tallies.items())},
            "step": self.step,
            "records": self.records + (before.records if before else 0),
        }


def _recognition() -> Callable[[str, Any], Any]:
    """Return what tells media from values; without it, where no file can be opened any more, all are values."""
    try:
        from .media import recognise
    except OSError:
        return lambda key, value: None
    return recognise
