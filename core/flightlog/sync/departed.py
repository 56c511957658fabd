"""Runs that leave this disk while a sync is under way: another sync has delivered and cleaned them, or somebody moved
them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .. import rundir
from ..errors import DamagedError
from ..resume import delivered_place
from ..rundir import RunDir

CLEANING = ".cleaning"
DELIVERED_TO = "delivered_to"
LEFT = "it was moved or deleted while this went on; sync it where it is now"
_PATIENCE = 10.0
_POLL = 0.02


def aside_of(directory: RunDir) -> RunDir:
    """Return where a run directory stands while it is being cleaned."""
    return RunDir(directory.path.with_name(directory.path.name + CLEANING))


def has_left(directory: RunDir) -> bool:
    """Tell whether a run directory is not there any more; if it is being cleaned, wait for what comes of that."""
    until = time.monotonic() + _PATIENCE
    while not rundir.is_run_dir(directory.path):
        if not aside_of(directory).path.exists():
            return not rundir.is_run_dir(directory.path)  # it may have got its name back just now
        if time.monotonic() > until:
            return True
        time.sleep(_POLL)
    return False


class _Seen(NamedTuple):
    id: str
    project: object
    delivered: tuple[int, int] | None


class Departures:
    """What was there when a sync began, so that it can be told what became of those that leave meanwhile.

    Args:
        directories: the run directories.
        origin: the server that they are delivered to.
    """

    def __init__(self, directories: Iterable[RunDir], origin: str) -> None:
        self._origin = origin
        self._seen: dict[Path, _Seen] = {}
        for directory in directories:
            with contextlib.suppress(DamagedError):
                spec = directory.read_spec()
                place = delivered_place(directory.path.parent, spec["id"], spec.get("project"))
                self._seen[directory.path] = _Seen(spec["id"], spec.get("project"), _stamp(place))

    def were_cleaned(self, directory: RunDir) -> bool:
        """Tell whether another sync has delivered a run to this server, and cleaned it here, since this one began."""
        seen = self._seen.get(directory.path)
        if seen is None:
            return False
        place = delivered_place(directory.path.parent, seen.id, seen.project)
        if _stamp(place) in (None, seen.delivered):
            return False
        try:
            return self._origin in rundir.read_spec(place).get(DELIVERED_TO, ())
        except (DamagedError, TypeError):
            return False


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.lstat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino
