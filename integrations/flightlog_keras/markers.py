"""The marker in a checkpoint and beside it, with the optimizer's count at which it was saved.

A `.keras` file is an archive, and has room for it. Beside a file or folder it stands for all kinds; never inside a
folder: Keras deletes `backup_dir`, and wants nothing else in it.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flightlog.journal.reader import open_regular
from flightlog.rundir import atomic_write
from flightlog.training import Marker, as_marker
from flightlog.training.marker import INSIDE, SUFFIX

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
    """Leave a marker beside a checkpoint, and in it if it is an archive. Raises OSError."""
    if marker:
        data = json.dumps({**marker, "updates": updates}).encode()
        path = Path(checkpoint)
        if path.suffix == ".keras" and path.is_file():
            _embed(path, data)
        atomic_write(_beside(checkpoint), data)


def _embed(path: Path, data: bytes) -> None:
    """Add a marker to an archive. What it ends with is overwritten for that, and put back if it does not succeed."""
    with zipfile.ZipFile(path) as archive:
        end = archive.start_dir
        if INSIDE in archive.namelist():
            return
    with path.open("rb") as file:
        file.seek(end)
        ending = file.read()
    try:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(INSIDE, data)
    except BaseException:
        with path.open("r+b") as file:
            file.seek(end)
            file.write(ending)
            file.truncate()
        raise


def find(checkpoint: str | os.PathLike[str]) -> Origin | None:
    """Return what is known of a checkpoint: what it says itself, what stands beside it or beside its folder."""
    folder = Path(os.path.abspath(checkpoint)).parent  # noqa: PTH100
    places: list[tuple[Callable[[Path], bytes], Path]] = [
        (_embedded, Path(checkpoint)), (_stored, Path(checkpoint)), (_stored, folder),
    ]  # fmt: skip
    for read, place in places:
        try:
            data = json.loads(read(place))
        except (OSError, ValueError, RecursionError, zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError):
            continue
        marker = as_marker(data)
        if marker is not None:
            updates = data.get("updates")
            return Origin(marker, updates if type(updates) is int and updates >= 0 else None)
    return None


def _stored(checkpoint: str | os.PathLike[str]) -> bytes:
    with open_regular(_beside(checkpoint)) as file:
        return file.read(_MAX_BYTES)


def _embedded(path: Path) -> bytes:
    """Return the marker in an archive; only some bytes of it are unpacked, whatever it claims to hold."""
    if path.suffix != ".keras":
        raise ValueError("no archive")
    with zipfile.ZipFile(path) as archive, archive.open(INSIDE) as member:
        return member.read(_MAX_BYTES)


def remove(checkpoint: str | os.PathLike[str]) -> None:
    """Delete the marker beside a checkpoint that is deleted. Raises OSError."""
    _beside(checkpoint).unlink(missing_ok=True)
