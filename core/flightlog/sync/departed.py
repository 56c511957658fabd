"""Runs that leave this disk while a sync is under way: another sync has delivered and cleaned them, or somebody moved
them."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .. import rundir
from ..errors import DamagedError
from ..resume import delivered_place, delivered_specs
from ..rundir import RunDir

CLEANING = ".cleaning"
DELIVERED_TO = "delivered_to"
LEFT = "it was moved or deleted while this went on; sync it where it is now"
# Seconds between the finding of a run and the first look at it.
_FOUND_BEFORE = 60.0
_NAMED = re.compile(rf"run-[0-9]{{8}}-[0-9]{{6}}-(.+?)(?:\.[0-9]+)?(?:{re.escape(CLEANING)})*")
_PATIENCE = 10.0
_POLL = 0.02


def aside_of(directory: RunDir) -> RunDir:
    """Return where a run directory stands while it is being cleaned."""
    return RunDir(directory.path.with_name(directory.path.name + CLEANING))


def has_left(directory: RunDir) -> bool:
    """Tell whether a run directory is not there any more; if it is being cleaned, wait for what comes of that."""
    until = time.monotonic() + _PATIENCE
    while rundir.is_gone(directory.path):
        if not aside_of(directory).path.exists():
            return rundir.is_gone(directory.path)  # it may have got its name back just now
        if time.monotonic() > until:
            return True
        time.sleep(_POLL)
    return False


class _Seen(NamedTuple):
    id: str
    project: object
    delivered: tuple[int, int] | None


class Departures:
    """What was there when a sync or a cleaning began, so that it can be told what became of those that leave meanwhile.

    Args:
        directories: the run directories.
        origin: the server that must have proven what is cleaned; None: whichever did.
    """

    def __init__(self, directories: Iterable[RunDir], origin: str | None) -> None:
        self._origin = origin
        self._began = time.time()
        self._seen: dict[Path, _Seen] = {}
        for directory in directories:
            if directory.path.name.endswith(CLEANING):
                continue  # it is being cleaned already; what that leaves behind may be there by now
            with contextlib.suppress(DamagedError):
                spec = directory.read_spec()
                place = delivered_place(directory.path.parent, spec["id"], spec.get("project"))
                self._seen[directory.path] = _Seen(spec["id"], spec.get("project"), _stamp(place))

    def were_cleaned(self, directory: RunDir) -> bool:
        """Tell whether another process has cleaned a run here, on the server's proof, since it was found."""
        return any(map(self._is_proven, self._left_behind(directory)))

    def _left_behind(self, directory: RunDir) -> list[Path]:
        """Return the specs that a cleaning since then may have left of a run."""
        seen = self._seen.get(directory.path)
        if seen is not None:
            place = delivered_place(directory.path.parent, seen.id, seen.project)
            return [] if _stamp(place) in (None, seen.delivered) else [place]
        named = _NAMED.fullmatch(directory.path.name)  # nobody has looked into it while it was there
        left = delivered_specs(directory.path.parent, named[1]) if named else []
        return [path for path in left if self._is_new(path)]

    def _is_new(self, place: Path) -> bool:
        stamp = _stamp(place)
        return stamp is not None and stamp[0] / 1e9 > self._began - _FOUND_BEFORE

    def _is_proven(self, place: Path) -> bool:
        try:
            servers = rundir.read_spec(place).get(DELIVERED_TO, ())
            return self._origin is None or self._origin in servers
        except (DamagedError, TypeError):
            return False


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.lstat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino
