"""The recorder of one process: its writer, the thread that keeps house, and latest.spec.

A forked child gets a writer of its own at its first record. Where the disk will not be writable again, recording goes
on in another folder.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from . import rundir
from .companions import Companions
from .errors import DamagedError, UsageError
from .journal import record
from .journal.housekeeper import Housekeeper
from .journal.values import Encoded, encode_values, nonfinite_paths
from .journal.writer import Writer
from .launch import Launch
from .process import at_child_exit, tell_of_forks
from .rundir import RunDir
from .terminal import guarded, say, warn_once

SPEC_SECONDS = 5.0
HEARTBEAT_SECONDS = 30.0
MAX_DATA = record.MAX_LINE - 4096

Facts = Callable[[], dict[str, Any]]


class Recorder:
    """Puts a run's records into its journal, and keeps latest.spec up to date.

    Args:
        run_dir: the run directory.
        identity: returns who the run is, for a writer's first record.
        spec: returns what latest.spec says besides what the recorder knows itself.
        repeat: returns the records (kind, data) that make a journal complete again whose beginning was lost.
        next_step: the step of the first log record that names none.
        parents: the last seq seen of each writer of the run.
        launch: the job that this process is a rank of.
        owns_spec: whether this process writes the directory's latest.spec.
        forked: this process only helps another of the run's, which closes it.
        buffered: see `Writer`.

    Attributes:
        rundir: the run directory; another one once the first could not be written any more.
        writer: this process's writer, or, in a child that has not recorded yet, its parent's.
        state, exit_code: how the run stands.
        pid: the process that writes.
        dirty: latest.spec is to be written anew, soon.
        companions: what is recorded beside the run's own records; None where nothing is.
    """

    def __init__(
        self,
        run_dir: RunDir,
        identity: Facts,
        spec: Facts,
        repeat: Callable[[], list[tuple[str, dict[str, Any]]]],
        *,
        next_step: int = 0,
        parents: Mapping[str, int] | None = None,
        launch: Launch | None = None,
        owns_spec: bool = True,
        forked: bool = False,
        buffered: bool = False,
    ) -> None:
        self.rundir = run_dir
        self.state = "running"
        self.exit_code: int | None = None
        self.pid = os.getpid()
        self._identity = identity
        self._spec = spec
        self._repeat = repeat
        self._parents = dict(parents or {})
        self._launch = launch
        self._owns_spec = owns_spec
        self._forked = forked
        self._buffered = buffered
        self._child_lock = threading.RLock()
        self._end_lock = threading.RLock()  # a signal handler may end the run, too
        self.dirty = False
        self._spec_written = 0.0
        self._restarts = 0
        self._beat = time.monotonic()  # when this writer was last seen to have written
        self._beat_seq = 0
        self._housekeeper: Housekeeper | None = None
        self.companions: Companions | None = None
        self.writer = Writer(run_dir.journal, next_step=next_step, buffered=buffered)
        tell_of_forks(self)

    def begin(self) -> None:
        """Write the first record."""
        self.put("run", _body("run", self._first_record(self._parents)))

    def keep_house(self) -> None:
        """Write latest.spec, and start the thread that sees to both from now on."""
        self.write_spec()
        self._start_housekeeper()
        if self._forked:
            at_child_exit(self.leave)

    # -- records -------------------------------------------------------------------------------------------------------

    def append(self, kind: str, data: Mapping[str, Any], step: int | None = None) -> None:
        """Record data; what alone makes a line too long is left out with a warning."""
        self.put(kind, _body(kind, data, step))
        self.dirty = True

    def append_values(self, kind: str, encoded: Encoded, step: int | None = None) -> None:
        """Record values as one record, or as several where a line would be too long; what is too long alone is left.

        What is left out is taken out of `encoded`, too.
        """
        body = record.body(encoded.json(), step, encoded.nonfinite)
        if len(body) < MAX_DATA:
            self.put(kind, body)
            self.dirty = True
            return
        keys = list(encoded.values)
        if len(keys) == 1:
            warn_once(f"value {kind} {keys[0]}", f"{kind}: {keys[0]} is left out: larger than 1 MiB; log it as a file.")
            encoded.values.clear()
            return
        for part in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
            values = {k: encoded.values[k] for k in part}
            half = Encoded(values, nonfinite_paths(values))
            self.append_values(kind, half, step)
            for key in part:
                if key not in half.values:
                    del encoded.values[key]

    def put(self, kind: str, body: bytes) -> None:
        """Record what is encoded already. Raises UsageError where the run has ended."""
        if not self.writer_here().append(kind, body) and kind != "finish" and self.state != "running":
            raise UsageError(f"{kind} record: the run is {self.state}")

    def rewind(self, step: int, children: Callable[[str], Mapping[str, int]]) -> None:
        """Hide what this writer, its children and those before it have logged beyond a step, and go on behind that.

        Args:
            step: the step.
            children: returns the last seq of each child of a writer.
        """
        writer = self.writer_here()
        known = {**self._parents, **children(writer.name), writer.name: writer.seq}
        self.append("rewind", {"step": step, "writers": known})
        writer.next_step = step + 1

    # -- processes -----------------------------------------------------------------------------------------------------

    def writer_here(self) -> Writer:
        """Return this process's writer; a forked child that records for the first time gets one of its own."""
        if self.writer.inherited:
            self._adopt_in_child()
        return self.writer

    def after_fork(self) -> None:
        self._child_lock = threading.RLock()
        self._end_lock = threading.RLock()

    def _adopt_in_child(self) -> None:
        with self._child_lock:
            inherited = self.writer
            if not inherited.inherited:
                return
            self._owns_spec = False
            self._forked = True
            self.companions = None  # they are the parent's
            self.pid = os.getpid()
            writer = Writer(self.rundir.journal, next_step=inherited.next_step, buffered=self._buffered)
            writer.append("run", _body("run", self._first_record({inherited.name: inherited.seq})))
            self.writer = writer  # not before: another thread's record would be its first
            self._start_housekeeper()
            inherited.abandon()
            at_child_exit(self.leave)

    def _first_record(self, parents: Mapping[str, int]) -> dict[str, Any]:
        facts: dict[str, Any] = {**self._identity(), "pid": self.pid}
        if self._launch is not None:
            facts.update(launch=self._launch.key, ranks=self._launch.size)
            if not self._forked:
                facts["rank"] = self._launch.rank
        if self._forked:
            facts["forked"] = True
        if parents:
            facts["parents"] = dict(parents)
        return {key: value for key, value in facts.items() if value not in (None, [])}

    # -- the end -------------------------------------------------------------------------------------------------------

    def end(self, state: str, exit_code: int, error: dict[str, Any] | None = None) -> bool:
        """Write the finish record, sync, and write latest.spec. Returns False where the run had ended before."""
        if self.state == "running":
            with guarded("finish()"):
                self.writer_here()
        with self._end_lock:
            if self.state != "running":
                return False
            self.state = state
            self.exit_code = exit_code
        with guarded("finish()"):
            self.append("finish", self._finish_record(state, exit_code, error))
            if self._housekeeper is not None:
                self._housekeeper.stop()
            if not self.writer.sync(patient=False) and self.writer.waiting and not self.writer.sync(patient=False):
                self._move()  # this process has no time left for the disk to mend
            self.writer.close()
            self.write_spec()
        return True

    def leave(self) -> None:
        """End this process's part: the children of `multiprocessing` end without atexit."""
        if not self.writer.inherited and self.pid == os.getpid():
            self.end("finished", 0)

    def _finish_record(self, state: str, exit_code: int, error: dict[str, Any] | None) -> dict[str, Any]:
        data: dict[str, Any] = {"state": state, "exit_code": exit_code}
        if error:
            data["error"] = error
        if self._forked:
            data["closes_run"] = False
        elif self._launch is not None and self._launch.rank:
            data.update(closes_run=False, rank=self._launch.rank)
        elif self._launch is not None:
            data["rank"] = 0
        return data

    # -- keeping house -------------------------------------------------------------------------------------------------

    def _start_housekeeper(self) -> None:
        self._housekeeper = Housekeeper(self._tick)
        self.writer.on_pressure = self._housekeeper.wake

    def _tick(self) -> None:
        writer = self.writer
        self._show_life(writer)
        self._follow()
        writer.sync()
        if self.companions is not None:
            self.companions.tick()
        if writer.restarts != self._restarts:
            self._restarts = writer.restarts
            self._begin_again()
        if writer.hopeless:
            self._move()
        if self.dirty and time.monotonic() - self._spec_written >= SPEC_SECONDS:
            self.write_spec()

    def _show_life(self, writer: Writer) -> None:
        """Write a heartbeat when nothing else has been written for a while, by a clock that nobody sets."""
        now = time.monotonic()
        if writer.seq != self._beat_seq:
            self._beat, self._beat_seq = now, writer.seq
        elif now - self._beat > HEARTBEAT_SECONDS:
            writer.append("heartbeat", b'"data":{}')

    def _follow(self) -> None:
        """Go on where the run directory was moved to; where it is nowhere, its disk unmounted say, make it anew."""
        try:
            self.writer.folder.stat()
        except FileNotFoundError:
            place = self.writer.follow()
            if place is None:
                self.writer.restart()
            elif place.parents[2] != self.rundir.path:
                self.rundir = RunDir(place.parents[2])
                say(f"the run directory was moved; it is {self.rundir.path} now.")
        except OSError:
            return  # a disk that cannot be asked now; what is written to it says more

    def _begin_again(self) -> None:
        """The run directory was removed under us, and is there again: make it whole."""
        with guarded("making the run directory anew"):
            for kind, data in [("run", self._first_record(self._parents)), *self._repeat()]:
                self.append(kind, data)
            root = rundir.prepare_root(self.rundir.path.parent)
            rundir.point_latest(root, self.rundir)
            self.write_spec()

    def _move(self) -> None:
        """Go on in a spare folder: the one in use cannot be written any more."""
        try:
            run_dir = rundir.create(rundir.spare_root(), self._identity()["id"], time.time())
        except OSError:
            return  # nowhere to go; the records wait in memory as long as there is room
        before = self.rundir
        self.rundir, self._owns_spec = run_dir, not self._forked
        self.writer.move_to(run_dir.journal, self._first_elsewhere)
        if self.companions is not None:
            self.companions.move_to(run_dir)
        for kind, data in self._repeat():
            self.append(kind, data)
        self.write_spec()
        say(f"warning: {before.path} cannot be written any more; this run goes on in {run_dir.path}.")

    def _first_elsewhere(self, old_writer: str, seq: int) -> bytes:
        self._parents = {**self._parents, old_writer: seq}
        return _body("run", self._first_record(self._parents))

    def write_spec(self) -> None:
        """Write latest.spec, if it is this process's to write."""
        if not self._owns_spec or self._is_taken_over():
            return
        self.dirty = False
        self._spec_written = time.monotonic()
        try:
            self.rundir.write_spec({**self._spec(), **self._counts()})
        except OSError as error:
            warn_once("spec", f"{self.rundir.spec_path} cannot be written ({error}); it is a cache of the journal.")

    def _is_taken_over(self) -> bool:
        """Tell whether an earlier rank writes this directory's latest.spec by now, which this one made first."""
        if self._launch is None or not self._launch.rank:
            return False
        try:
            rank = self.rundir.read_spec().get("rank")
        except DamagedError:
            return False
        self._owns_spec = not (isinstance(rank, int) and rank < self._launch.rank)
        return not self._owns_spec

    def _counts(self) -> dict[str, Any]:
        """Return how far this directory's writers have come, and those elsewhere that the run has seen."""
        here = {name for name in self._parents if (self.rundir.journal / name).is_dir()}
        return {
            "pid": self.pid,
            "rank": self._launch.rank if self._launch is not None else None,
            "state": self.state,
            "exit_code": self.exit_code,
            "bytes": self.writer.total_bytes + (self.companions.size if self.companions else 0),
            "writers": {
                **{name: seq for name, seq in self._parents.items() if name in here},
                self.writer.name: self.writer.seq,
                **(self.companions.written if self.companions else {}),
            },
            "seen": {name: seq for name, seq in self._parents.items() if name not in here},
        }


def _body(kind: str, data: Mapping[str, Any], step: int | None = None) -> bytes:
    """Return the body of a record, without what makes it too long for a line."""
    encoded, _ = encode_values(data)
    body = record.body(encoded.json(), step, encoded.nonfinite)
    while len(body) >= MAX_DATA:  # the metadata of a lifetime, a hundred thousand words of command
        longest = max(encoded.values, key=lambda key: len(Encoded({key: encoded.values[key]}).json()))
        warn_once(f"value {kind} {longest}", f"{kind}: {longest} is left out: larger than 1 MiB.")
        del encoded.values[longest]
        encoded = Encoded(encoded.values, nonfinite_paths(encoded.values))
        body = record.body(encoded.json(), step, encoded.nonfinite)
    return body
