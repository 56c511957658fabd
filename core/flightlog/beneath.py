"""Opening files of a run directory without ever leaving it.

Whoever syncs a directory may not have made it: no component of a path may be a link, or a hostile run directory would
upload its reader's own files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from .journal.reader import regular_file

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def open_beneath(folder: Path, path: str) -> BinaryIO:
    """Open the regular file at `path` (with "/" between names) below a folder.

    Raises:
        OSError: it is missing, no regular file, or a link stands on the way.
    """
    *between, name = path.split("/")
    if name in ("", ".", "..") or any(part in ("", ".", "..") for part in between):
        raise OSError(f"{path!r} does not stay inside {folder}")
    at = os.open(folder, _FOLDER)
    try:
        for part in between:
            inner = os.open(part, _FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        fd = os.open(name, _FILE, dir_fd=at)
    finally:
        os.close(at)
    return regular_file(fd, path)
