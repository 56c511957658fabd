"""Locks that end with the process that holds them, however it ends: what a killed one left behind is known by them."""

from __future__ import annotations

import sys


def try_lock(fd: int) -> bool | None:
    """Take the lock of an open file, without waiting. It is held until the file is closed.

    Returns:
        Whether it was had; None where there are no locks, as on some network file systems.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
