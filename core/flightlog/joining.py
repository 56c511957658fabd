"""Joining a run from another process of the same program: a spawned child, or whoever is handed a pickled run.

A forked child simply has its parent's run. A spawned one has nothing but what it was given: a run among its arguments,
or, for `flightlog.log()` without one, what its parent left in the environment.
"""

from __future__ import annotations

import contextlib
import copyreg
import json
import os
import sys
import weakref
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

from .errors import DamagedError, NoRunError
from .launch import detect
from .run import Beginning, Identity, Run
from .rundir import RunDir

_VARIABLE = "_FLIGHTLOG_PARENT_RUN"
_here: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()


class Handle(NamedTuple):
    """Where a run is recorded, and how far its writer had come."""

    pid: int
    path: str
    writer: str
    seq: int
    step: int


def handle_of(run: Run) -> Handle:
    """Return what another process needs in order to join a run."""
    writer, seq = run.position
    _here[writer] = run
    return Handle(os.getpid(), str(run.dir), writer, seq, run.step)


def announce(run: Run | None) -> None:
    """Let the processes that this one spawns know of its run; None: there is none any more.

    Each is given it when it is made, by the way in which `multiprocessing` gives its children their settings; what is
    imported only later finds it in the environment. (Not by orjson: a path need not be UTF-8.)
    """
    facts = None if run is None or not run.recording else json.dumps(handle_of(run)._asdict())
    for place in (os.environ, _settings_of_children()):
        if facts is None:
            place.pop(_VARIABLE, None)
        else:
            place[_VARIABLE] = facts


def _settings_of_children() -> MutableMapping[str, str]:
    processes = sys.modules.get("multiprocessing.process")
    found = getattr(processes.current_process(), "_config", None) if processes is not None else None
    return found if isinstance(found, dict) else {}


def parents_run() -> Run | None:
    """Return the run of the process that has spawned this one, joined; None where there is none."""
    processes = sys.modules.get("multiprocessing.process")
    parent = processes.parent_process() if processes is not None else None
    if parent is None:
        return None
    given = _settings_of_children().get(_VARIABLE)
    with contextlib.suppress(KeyError, ValueError, TypeError, DamagedError, NoRunError):
        handle = Handle(**json.loads(given or os.environ[_VARIABLE]))
        if given or handle.pid == parent.pid:
            return join(handle)
    return None


def join(handle: Handle) -> Run:
    """Return the run that a handle leads to: the very one, in its own process, else a part of it with its own writer.

    Raises:
        DamagedError: the run directory is not there any more.
        NoRunError: the run has ended.
    """
    known = _here.get(handle.writer)
    if known is not None:
        return known
    from .resume import fold_of_spec

    place = RunDir(Path(handle.path))
    spec = place.read_spec()
    if spec.get("state") != "running":
        raise NoRunError(f"run {spec['id']} is {spec.get('state')}; flightlog.init() begins a new one")
    before = fold_of_spec(spec)
    before.step = max(before.step, handle.step)
    names = {name: before.identity.get(name) for name in ("workspace", "group", "job_type", "notes")}
    identity = Identity(
        id=str(before.id),
        project=str(before.project),
        name=str(before.identity.get("name") or before.id),
        tags=tuple(before.tags),
        **{name: value if isinstance(value, str) else None for name, value in names.items()},
    )
    beginning = Beginning(
        before=before, parents={handle.writer: handle.seq}, launch=detect(), owns_spec=False, forked=True
    )
    return Run(place, identity, beginning)


def unpickled(state: dict[str, Any]) -> Run:
    """Return the run that was pickled."""
    return join(Handle(**state))


def _pickled(run: Run) -> tuple[Any, ...]:
    return unpickled, (handle_of(run)._asdict(),)


copyreg.pickle(Run, _pickled)

# A child whose parent has left its run in the environment hands it on to its own children, also if it never logs.
if _VARIABLE in os.environ and "multiprocessing.process" in sys.modules:
    with contextlib.suppress(Exception):  # what stands there may be anything
        _parent = sys.modules["multiprocessing.process"].parent_process()
        if _parent is not None and json.loads(os.environ[_VARIABLE])["pid"] == _parent.pid:
            _settings_of_children().setdefault(_VARIABLE, os.environ[_VARIABLE])
