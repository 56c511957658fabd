"""The marker that leads from a checkpoint to the run that saved it, and to the step at which it did.

It is stored in the checkpoint where the framework has room for it, and beside it: `last.ckpt.flightlog.json`, or
`flightlog.json` inside a checkpoint that is a folder. What stands there may have been written by anybody.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ..journal.reader import open_regular
from ..journal.values import MAX_STEP
from ..protocol.names import name_fault
from ..rundir import atomic_write

FORMAT = 1
SUFFIX = ".flightlog.json"
INSIDE = "flightlog.json"
MAX_BYTES = 16_384


class Marker(NamedTuple):
    """Where a checkpoint belongs.

    Attributes:
        id, project: the run's.
        step: the last step that was logged before the checkpoint; None where that is not known.
        dir: the folder that held the run directory then, as an absolute path; "" where that is not known.
    """

    id: str
    project: str
    step: int | None = None
    dir: str = ""

    def data(self) -> dict[str, Any]:
        """Return it as plain values, for a checkpoint to hold."""
        return {"format": FORMAT, "run": self.id, "project": self.project, "step": self.step, "dir": self.dir}


def as_marker(data: object) -> Marker | None:
    """Return the marker that plain values are, None where they are none."""
    if not isinstance(data, Mapping):
        return None
    run_id, project, step, folder = (data.get(key) for key in ("run", "project", "step", "dir"))
    if name_fault(run_id) is not None or name_fault(project) is not None:
        return None
    known = step if type(step) is int and -1 <= step < MAX_STEP else None
    place = folder if isinstance(folder, str) and "\0" not in folder and Path(folder).is_absolute() else ""
    return Marker(str(run_id), str(project), known, place)


def marker_path(checkpoint: str | os.PathLike[str]) -> Path:
    """Return where a checkpoint's marker is kept beside it, or inside it where it is a folder."""
    path = Path(checkpoint)
    return path / INSIDE if path.is_dir() else path.with_name(path.name + SUFFIX)


def write_marker(checkpoint: str | os.PathLike[str], marker: Marker) -> None:
    """Keep a marker beside a checkpoint. Raises OSError."""
    atomic_write(marker_path(checkpoint), orjson.dumps(marker.data()))


def read_marker(checkpoint: str | os.PathLike[str]) -> Marker | None:
    """Return the marker beside a checkpoint, None where there is none that can be read."""
    try:
        with open_regular(marker_path(checkpoint)) as file:
            return as_marker(orjson.loads(file.read(MAX_BYTES)))
    except (OSError, ValueError):  # ValueError: no JSON, or a NUL in the path
        return None


def remove_marker(checkpoint: str | os.PathLike[str]) -> None:
    """Delete the marker beside a checkpoint that is no longer there."""
    with contextlib.suppress(OSError):
        path = Path(checkpoint)
        if not path.exists():
            path.with_name(path.name + SUFFIX).unlink()
