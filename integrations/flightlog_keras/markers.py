"""The marker beside a checkpoint, with the optimizer's count at which it was saved.

It stands beside a file or folder, never inside: Keras deletes `backup_dir`, and wants nothing else in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flightlog.journal.reader import open_regular
from flightlog.rundir import atomic_write
from flightlog.training import Marker, as_marker
from flightlog.training.marker import SUFFIX

_MAX_BYTES = 16_384


class Origin(NamedTuple):
    """Where a model's state comes from.

    Attributes:
        marker: which run saved it, and at which step.
        updates: the optimizer's own count then; None where it had none.
    """

    marker: Marker
    updates: int | None

    def step(self, updates: int | None) -> int | None:
        """Return the step of a state in which the optimizer has counted so far; it may be one beside the marker's."""
        if self.marker.step is None or updates is None or self.updates is None:
            return self.marker.step
        return max(0, self.marker.step + updates - self.updates)


def _beside(checkpoint: str | os.PathLike[str]) -> Path:
    path = Path(os.path.abspath(checkpoint))  # noqa: PTH100  # a link to a checkpoint has a name of its own
    return path.with_name(path.name + SUFFIX)


def leave(checkpoint: str | os.PathLike[str], marker: Mapping[str, Any], updates: int | None) -> None:
    """Leave a marker beside a checkpoint. Raises OSError."""
    if marker:
        atomic_write(_beside(checkpoint), json.dumps({**marker, "updates": updates}).encode())


def find(checkpoint: str | os.PathLike[str]) -> Origin | None:
    """Return what is known of a checkpoint: what stands beside it, or beside the folder that it is the content of."""
    for place in (Path(checkpoint), Path(os.path.abspath(checkpoint)).parent):  # noqa: PTH100
        try:
            with open_regular(_beside(place)) as file:
                data = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            continue
        marker = as_marker(data)
        if marker is not None:
            updates = data.get("updates")
            return Origin(marker, updates if type(updates) is int and updates >= 0 else None)
    return None


def remove(checkpoint: str | os.PathLike[str]) -> None:
    """Delete the marker of a checkpoint that is deleted. Raises OSError."""
    _beside(checkpoint).unlink(missing_ok=True)
