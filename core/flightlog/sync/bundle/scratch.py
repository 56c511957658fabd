"""The folder that a bundle is unpacked into. It goes with its process; what a killed one leaves, the next removes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...locks import try_lock


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
        lock = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            try_lock(lock)
            yield folder
        finally:
            os.close(lock)
            shutil.rmtree(folder, ignore_errors=True)
        return


def _sweep(place: Path, prefix: str) -> None:
    """Remove the folders of processes that were killed: those whose lock nobody holds."""
    with contextlib.suppress(OSError):
        for folder in place.iterdir():
            if not folder.name.startswith(prefix) or folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            with contextlib.suppress(OSError):
                lock = os.open(folder / "lock", os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
                free = try_lock(lock)
                os.close(lock)
                if free:
                    shutil.rmtree(folder, ignore_errors=True)
