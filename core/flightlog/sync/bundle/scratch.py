"""The folder that a bundle is unpacked into. It goes with its process; what a killed one leaves, the next removes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...locks import try_lock

PLACE = "unpacked-runs"


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Give a folder that is removed afterwards; those that killed processes have left are removed first."""
    beside = path.absolute().parent
    places = [Path(tempfile.gettempdir())] if os.environ.get("TMPDIR") else [beside, Path(tempfile.gettempdir())]
    prefix = f".{path.name[:60]}.unpacked-"
    for place in places:
        _sweep(place, prefix)
        try:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        except OSError:
            if place is places[-1]:
                raise
            continue
        with (folder / "lock").open("xb") as lock:
            try_lock(lock.fileno())
            try:
                (folder / PLACE).mkdir()
                yield folder / PLACE
            finally:
                _remove(folder)
        return


def _sweep(place: Path, prefix: str) -> None:
    """Remove the folders of processes that were killed: those whose lock nobody holds."""
    with contextlib.suppress(OSError):
        for folder in place.iterdir():
            if not folder.name.startswith(prefix) or folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            with contextlib.suppress(OSError):
                lock = os.open(folder / "lock", os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
                if try_lock(lock):
                    _remove(folder)
                os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a temporary folder, its lock last: where this is interrupted, too, the next sweep finds it."""
    shutil.rmtree(folder / PLACE, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
