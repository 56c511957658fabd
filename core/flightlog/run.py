"""Run: the object behind init, log and finish.

Everything a run is told becomes a record of its journal before the call returns. latest.spec is written from the same
values by the housekeeper, so a training thread never waits for a disk.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson

from .errors import UsageError
from .journal import record
from .journal.fold import Fold
from .journal.housekeeper import Housekeeper
from .journal.values import Encoded, as_step, encode_values, flatten, key_text, nonfinite_paths, text
from .journal.writer import Writer
from .mappings import Config, Summary, as_mapping
from .process import own_start, pid_namespace
from .redact import redact_command
from .rundir import FORMAT, RunDir, readable
from .terminal import guarded, warn_once

if TYPE_CHECKING:
    from .artifacts import ArtifactVersion
    from .media.base import Media

SPEC_SECONDS = 5.0
HEARTBEAT_SECONDS = 30.0
LONG_TEXT = 64 << 10
MAX_DATA = record.MAX_LINE - 4096


class Run:
    """A run being recorded. Made by `flightlog.init`; also a context manager that finishes it.

    Every method may be called from any thread. None raises for what the disk, the driver or a value does; misuse raises
    UsageError.

    Attributes:
        id: the run's id, the same in every directory and on every server.
        project, workspace: what `init` was given. name, group, job_type, tags, notes: likewise; they can be set anew.
        config: hyper-parameters, a mapping with attribute access.
        summary: the latest value of every metric, likewise.
        step: the step that the next `log()` without one will use.
        resumed: True where records of this run were found and are being continued.
        dir: the run directory.
        recording: False where the mode is "disabled".
    """

    recording = True

    def __init__(
        self,
        rundir: RunDir,
        *,
        run_id: str,
        project: str,
        name: str,
        workspace: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Iterable[str] = (),
        notes: str | None = None,
        config: Mapping[str, Any] | None = None,
        before: Fold | None = None,
        parents: Mapping[str, int] | None = None,
        owns_spec: bool = True,
    ) -> None:
        self.id = run_id
        self.project = project
        self.workspace = workspace
        self._name = name
        self._group = group
        self._job_type = job_type
        self._notes = notes
        self._tags = tuple(dict.fromkeys([*(before.tags if before else ()), *tags]))
        self.resumed = before is not None
        self.rundir = rundir
        self._before = before
        self._parents = dict(parents or {}) if before is not None and before.records else {}
        self._owns_spec = owns_spec
        self._pid = self._owner_pid = os.getpid()
        self._started = time.time()
        self._process_started = own_start()
        self._generation = _generation
        self._end_lock = threading.RLock()  # a signal handler may end the run, too
        self._state = "running"
        self._exit_code: int | None = None
        words = [text(word) for word in getattr(sys, "orig_argv", sys.argv)]
        self._command = redact_command(words, secrets=[os.environ.get("FLIGHTLOG_API_KEY", "")])
        self._config: dict[str, Any] = dict(before.config) if before else {}
        self._summary: dict[str, Any] = dict(before.summary) if before else {}
        self.config = Config(self._config, lambda values: self._record_values("config", values))
        self.summary = Summary(self._summary, lambda values: self._record_values("summary", values))
        self._spec_dirty = False
        self._spec_written = 0.0
        self._writer = Writer(rundir.journal, next_step=before.step if before else 0)
        first = self._plain("config", as_mapping("config=", config))
        self._write_first_record(parents or {}, first)
        self._config.update(first.values)
        self._write_spec()
        self._housekeeper: Housekeeper | None = Housekeeper(self._tick)

    # -- what the user calls -------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = self._edited("name", str(name))

    @property
    def notes(self) -> str | None:
        return self._notes

    @notes.setter
    def notes(self, notes: str) -> None:
        self._notes = self._edited("notes", str(notes))

    @property
    def group(self) -> str | None:
        return self._group

    @group.setter
    def group(self, group: str) -> None:
        self._group = self._edited("group", str(group))

    @property
    def job_type(self) -> str | None:
        return self._job_type

    @job_type.setter
    def job_type(self, job_type: str) -> None:
        self._job_type = self._edited("job_type", str(job_type))

    @property
    def tags(self) -> tuple[str, ...]:
        return self._tags

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        words = [tags] if isinstance(tags, str) else [str(tag) for tag in tags]
        self._tags = tuple(self._edited("tags", list(dict.fromkeys(words))))

    def _edited(self, what: str, value: Any) -> Any:
        """Record that the run is called otherwise from now on."""
        self._must_run(f"run.{what} = …")
        self._append("edit", {what: value})
        return value

    @property
    def dir(self) -> Path:
        return self.rundir.path

    @property
    def step(self) -> int:
        return self._writer.next_step

    @property
    def state(self) -> str:
        return self._state

    def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool = True) -> None:
        """Record the values of a step. When it has returned, killing the process does not lose them.

        Args:
            data: values by metric name: numbers (also of numpy, torch, jax), texts, media; nested mappings are joined
                by ".". A value that cannot be recorded costs its key, with one warning.
            step: the step they belong to; any, in any order. Without it the run's own counter.
            commit: False leaves the counter where it is, so that the next call adds to the same step.

        Raises:
            UsageError: `data` is no mapping, `step` no integer, or the run is finished.
        """
        if self._state != "running":
            self._must_run("log()")
        if type(data) is not dict and not isinstance(data, Mapping):
            raise UsageError(f"log() takes a mapping of names to values, not {type(data).__name__}")
        if step is not None:
            step = as_step(step)
        writer = self._writer if self._generation == _generation else self._writer_here()
        try:
            # What passes both is plain numbers: orjson knows no foreign types, and texts, lists and None have no sum.
            encoded = orjson.dumps(data)
            total = sum(data.values())
        except TypeError:
            pass
        else:
            if total - total == 0 and len(encoded) < MAX_DATA:  # it is not, with NaN or an infinity among them
                if not writer.append_log(step, commit, encoded):
                    self._must_run("log()")
                self._summary.update(data)
                self._spec_dirty = True
                return
        with guarded("log()"):
            self._log_any(data, writer.take_step(step, commit))

    def log_artifact(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        type: str = "artifact",
        aliases: str | Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> ArtifactVersion | None:
        """Keep a file, or a folder with all below it, as a new version of an artifact.

        Args:
            path: what to keep. Its bytes are taken into the run directory before this returns.
            name: the artifact's name; without one, the file's.
            type: what it is, such as "model" or "dataset".
            aliases: names for this version besides `latest`.
            metadata: values to go with it.

        Returns:
            The version; None where it could not be kept (a warning says why).

        Raises:
            UsageError: a name cannot be used.
        """
        from .artifacts import version as versions
        from .protocol.names import checked_name

        self._must_run("log_artifact()")
        source = Path(path)
        name = checked_name("artifact", name) if name is not None else versions.name_from_path(source)
        kind = checked_name("artifact type", type)
        marks = versions.checked_aliases(aliases)
        facts = readable(self._plain("artifact metadata", as_mapping("metadata=", metadata)).values)
        with guarded("log_artifact()"):
            try:
                version, data = versions.stage_version(self.rundir.files, source, name, kind, marks, facts)
            except OSError as error:
                warn_once(f"artifact {name}", f"artifact {name!r} is not kept: {error}")
                return None
            self._append("artifact", data)
            return version
        return None

    def finish(self, exit_code: int | None = None) -> None:
        """End the run: everything goes to disk, and latest.spec says how it ended. A second call does nothing.

        Args:
            exit_code: 0 or None for a run that finished, anything else for one that failed.
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
        trace = text("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        message = key_text(error)[:2000]
        self._end("failed", 1, {"type": type(error).__name__, "message": message, "traceback": trace[-64_000:]})

    def preempt(self) -> None:
        """End the run as preempted: the batch system takes the machine away, and may start the job again."""
        self._end("preempted", 128 + 15)

    def flush(self) -> None:
        """Wait until what has been recorded is on the disk, as the housekeeper sees to every second."""
        self._writer_here().sync(patient=False)

    def when_free(self, action: Callable[[], object]) -> None:
        """Call a function once this thread is not in the midst of a record: for signal handlers."""
        self._writer_here().when_free(action)

    @property
    def owner_pid(self) -> int:
        """The process that began recording here; in a forked child, its parent until the child records itself."""
        return self._owner_pid

    @property
    def records(self) -> int:
        """How many records this process has written."""
        return self._writer.seq

    @property
    def size(self) -> int:
        """How many bytes of journal those are."""
        return self._writer.total_bytes

    def __repr__(self) -> str:
        return f"<flightlog run {self.id} {self.name!r} of {self.project!r}, {self._state}, in {self.dir}>"

    # -- steps and values ----------------------------------------------------------------------------------------------

    def _log_any(self, data: Mapping[str, Any], step: int) -> None:
        """The forgiving road of log(): whatever is in `data`, what can be kept is."""
        from .media.base import Media

        flat = flatten(data)
        media: dict[str, Any] = {}
        values: dict[str, Any] = {}
        for key, value in flat.items():
            if isinstance(value, Media) or _is_media_list(value):
                media[key] = value
            elif isinstance(value, str) and len(value) > LONG_TEXT:
                from .media import Text

                media[key] = Text(value)
            elif callable(getattr(value, "savefig", None)):
                from .media import Image

                try:
                    media[key] = Image(value)
                except Exception as error:  # a plotting library may raise anything
                    warn_once(f"value log {key}", f"log: {key} is left out: {type(error).__name__}: {error}.")
            else:
                values[key] = value
        encoded = self._plain("log", values)
        if encoded.values or not media:
            self._append_split("log", encoded, step)
            self._summary.update(encoded.values)
            self._spec_dirty = True
        if media:
            self._log_media(media, step)

    def _log_media(self, media: dict[str, Media | list[Media]], step: int) -> None:
        entries: dict[str, Any] = {}
        for key, value in media.items():
            try:
                if isinstance(value, list | tuple):
                    entries[key] = [item.save(self.rundir.files, key) for item in value]
                else:
                    entries[key] = value.save(self.rundir.files, key)
            except Exception as error:  # the disk, a missing package, data that is no image: it costs this key
                warn_once(f"media {key}", f"log(): {key} is left out: {error}")
        for part in _by_the_thousand(entries):
            self._append("media", part, step)

    def _plain(self, what: str, values: Mapping[str, Any]) -> Encoded:
        """Return what of `values` can be recorded; each of the others costs one warning."""
        encoded, bad = encode_values(values)
        for key, why in bad.items():
            warn_once(f"value {what} {key}", f"{what}: {key} is left out: {why}.")
        return encoded

    def _record_values(self, kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
        self._must_run(f"{kind}.update()")
        encoded = self._plain(kind, values)
        self._append_split(kind, encoded, None)
        self._spec_dirty = True
        return encoded.values

    def _append_split(self, kind: str, encoded: Encoded, step: int | None) -> None:
        """Append values as one record, or as several where a line would be too long; what is too long alone is left."""
        body = record.body(encoded.json(), step, encoded.nonfinite)
        if len(body) < MAX_DATA:
            self._put(kind, body)
            return
        keys = list(encoded.values)
        if len(keys) == 1:
            warn_once(f"value {kind} {keys[0]}", f"{kind}: {keys[0]} is left out: larger than 1 MiB; log it as a file.")
            encoded.values.clear()
            return
        for part in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
            values = {k: encoded.values[k] for k in part}
            half = Encoded(values, nonfinite_paths(values))
            self._append_split(kind, half, step)
            for key in part:
                if key not in half.values:
                    del encoded.values[key]

    def _append(self, kind: str, data: dict[str, Any], step: int | None = None) -> None:
        encoded, _ = encode_values(data)
        body = record.body(encoded.json(), step, encoded.nonfinite)
        while len(body) >= MAX_DATA:  # the metadata of a lifetime, a hundred thousand words of command
            longest = max(encoded.values, key=lambda key: len(Encoded({key: encoded.values[key]}).json()))
            warn_once(f"value {kind} {longest}", f"{kind}: {longest} is left out: larger than 1 MiB.")
            del encoded.values[longest]
            encoded = Encoded(encoded.values, nonfinite_paths(encoded.values))
            body = record.body(encoded.json(), step, encoded.nonfinite)
        self._put(kind, body)
        self._spec_dirty = True

    def _put(self, kind: str, body: bytes) -> None:
        if not self._writer_here().append(kind, body) and kind != "finish":
            self._must_run(f"{kind} record")

    def _must_run(self, what: str) -> None:
        if self._state != "running":
            raise UsageError(f"{what}: run {self.id} is {self._state}; flightlog.init() begins a new one")

    # -- writers, the first record, the end ----------------------------------------------------------------------------

    def _writer_here(self) -> Writer:
        if self._generation != _generation:
            self._adopt_in_child()
        return self._writer

    def _adopt_in_child(self) -> None:
        """In a forked child: a writer of its own, whose parent is the one it was copied from."""
        with _child_lock:
            if self._generation == _generation:
                return
            inherited = self._writer
            self._end_lock = threading.RLock()
            self._owns_spec = False
            self._writer = Writer(self.rundir.journal, next_step=inherited.next_step)
            self._pid = os.getpid()
            self._generation = _generation
            self._write_first_record({inherited.name: inherited.seq}, Encoded({}))
            self._housekeeper = Housekeeper(self._tick)
            inherited.abandon()

    def _write_first_record(self, parents: Mapping[str, int], config: Encoded) -> None:
        data = {
            "format": FORMAT,
            "id": self.id,
            "project": self.project,
            "workspace": self.workspace,
            "name": self.name,
            "group": self.group,
            "job_type": self.job_type,
            "tags": list(self.tags),
            "notes": self.notes,
            "host": socket.gethostname(),
            "pid": self._pid,
            "python": platform.python_version(),
            "command": self._command,
        }
        kept = {k: v for k, v in data.items() if v not in (None, [])}
        if parents:
            kept["parents"] = dict(parents)
        self._append("run", kept)
        if config.values:
            self._append_split("config", config, None)

    def _end(self, state: str, exit_code: int, error: dict[str, Any] | None = None) -> None:
        if self._state == "running":
            with guarded("finish()"):
                self._writer_here()
        with self._end_lock:
            if self._state != "running":
                return
            self._state = state
            self._exit_code = exit_code
        with guarded("finish()"):
            data: dict[str, Any] = {"state": state, "exit_code": exit_code}
            if error:
                data["error"] = error
            if not self._owns_spec:
                data["closes_run"] = False
            self._append("finish", data)
            if self._housekeeper is not None:
                self._housekeeper.stop()
            self._writer.close()
            self._write_spec()

    # -- keeping house -------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        writer = self._writer
        if time.time() - writer.last_append > HEARTBEAT_SECONDS:
            writer.append("heartbeat", b'"data":{}')
        writer.sync()
        if self._spec_dirty and time.time() - self._spec_written >= SPEC_SECONDS:
            self._write_spec()

    def _write_spec(self) -> None:
        if not self._owns_spec:
            return
        self._spec_dirty = False
        self._spec_written = time.time()
        try:
            self.rundir.write_spec(self._spec())
        except OSError as error:
            warn_once("spec", f"{self.rundir.spec_path} cannot be written ({error}); it is a cache of the journal.")

    def _spec(self) -> dict[str, Any]:
        before = self._before
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
            "state": self._state,
            "exit_code": self._exit_code,
            "started_at": (before and before.started_at) or self._started,
            "updated_at": time.time(),
            "finished_at": time.time() if self._state != "running" else None,
            "host": socket.gethostname(),
            "pid": self._pid,
            "pid_namespace": pid_namespace(),
            "process_started_at": self._process_started,
            "command": self._command,
            "config": readable(self._config.copy()),
            "summary": readable(self._summary.copy()),
            "step": self.step,
            "records": self._writer.seq + (before.records if before else 0),
            "bytes": self._writer.total_bytes,
            "writers": {**self._parents, self._writer.name: self._writer.seq},
        }


_child_lock = threading.RLock()
# How many forks this process is away from the one that was started; cheaper to compare than os.getpid().
_generation = 0


def _note_fork() -> None:
    global _child_lock, _generation
    _child_lock = threading.RLock()
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _is_media_list(value: Any) -> bool:
    from .media.base import Media

    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Media) for item in value)


def _by_the_thousand(entries: dict[str, Any], most: int = 1000) -> Iterator[dict[str, Any]]:
    """Divide media entries into records: one may name no more files than find room in a line."""
    part: dict[str, Any] = {}
    count = 0
    for key, value in entries.items():
        for items in [value[i : i + most] for i in range(0, len(value), most)] if isinstance(value, list) else [value]:
            size = len(items) if isinstance(items, list) else 1
            if part and (key in part or count + size > most):
                yield part
                part, count = {}, 0
            part[key] = items
            count += size
    if part:
        yield part
