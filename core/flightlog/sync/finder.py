"""Finding new runs below folders, again and again, without tiring a shared file system.

A folder is listed again only when its time of modification has changed; one in which nothing happens is asked for that
less and less often. No inotify: that does not see what another machine does on NFS or Lustre.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..rundir import RunDir, Unreadable, folders_below, is_run_dir
from .departed import CLEANING

MAX_DEPTH = 8
MAX_FOLDERS = 100_000
_LONGEST_PAUSE = 60.0
_LONGEST_NEAR_RUNS = 15.0
# What a file system's clock may not tell apart: what came right after the listing.
_CLOCK_NS = 2_000_000_000
_CLEANING_SECONDS = 60.0


@dataclass(slots=True)
class _Folder:
    depth: int
    changed: int = 0
    due: float = 0.0
    pause: float = 0.0
    has_runs: bool = False


class Finder:
    """Finds run directories at or below some paths, each once.

    Args:
        paths: runs, and folders that hold some.
        interval: seconds between two looks at a folder in which something happens.
        all_users: also those that belong to somebody else.

    Attributes:
        unreadable: the folders that cannot be looked into now, by path: those that are named, or may hold wanted runs.
        due: when it wants to be called again, by the monotonic clock.
    """

    def __init__(self, paths: Iterable[Path], interval: float, all_users: bool) -> None:
        self._interval = interval
        self._all_users = all_users
        self._roots = list(paths)
        self._folders = {path: _Folder(0) for path in self._roots}
        self._found: set[Path] = set()
        self.unreadable: dict[Path, Unreadable] = {}
        self.due = 0.0

    def look(self, now: float) -> list[RunDir]:
        """Return the runs that have appeared since the last look.

        Args:
            now: the monotonic clock.
        """
        new: list[RunDir] = []
        for path in [path for path, folder in self._folders.items() if folder.due <= now]:
            self._look_at(path, now, new)
        self.due = min((folder.due for folder in self._folders.values()), default=now + _LONGEST_PAUSE)
        return sorted(new)

    def forget(self, directory: RunDir) -> None:
        """Let a run be found anew, which has been taken away."""
        self._found.discard(directory.path)

    def _look_at(self, path: Path, now: float, new: list[RunDir]) -> None:
        folder = self._folders.get(path)
        if folder is None:
            return
        self.unreadable.pop(path, None)
        try:
            changed = path.stat(follow_symlinks=False).st_mtime_ns
            if changed == folder.changed:
                self._rest(folder, now)
                return
            if is_run_dir(path):
                del self._folders[path]
                self._add(path, new)
                return
            below = folders_below(path)
        except (FileNotFoundError, NotADirectoryError):
            self._lose(path, folder, now)
            return
        except OSError as error:
            self._be_refused(path, folder, error, now)
            return
        folder.changed = changed if time.time_ns() - changed > _CLOCK_NS else 0
        folder.pause = 0.0
        self._rest(folder, now)
        for place in below:
            self._take(place, folder, now, new)

    def _take(self, path: Path, parent: _Folder, now: float, new: list[RunDir]) -> None:
        if path in self._folders or path in self._found:
            return
        if is_run_dir(path):
            parent.has_runs = True
            if _is_being_cleaned(path):
                parent.changed = 0
            else:
                self._add(path, new)
        elif parent.depth < MAX_DEPTH and len(self._folders) < MAX_FOLDERS:
            self._folders[path] = _Folder(parent.depth + 1)
            self._look_at(path, now, new)

    def _add(self, path: Path, new: list[RunDir]) -> None:
        with contextlib.suppress(OSError):
            is_wanted = self._is_wanted(path)
            self._found.add(path)
            if is_wanted:
                new.append(RunDir(path))

    def _is_wanted(self, path: Path) -> bool:
        """Tell whose runs are followed by who owns a folder. Raises OSError."""
        return path.stat(follow_symlinks=False).st_uid == os.getuid() or self._all_users

    def _rest(self, folder: _Folder, now: float) -> None:
        longest = _LONGEST_NEAR_RUNS if folder.has_runs or not folder.depth else _LONGEST_PAUSE
        folder.pause = min(max(folder.pause * 1.5, self._interval), max(longest, self._interval))
        folder.due = now + folder.pause

    def _be_refused(self, path: Path, folder: _Folder, error: OSError, now: float) -> None:
        """A folder is there and cannot be looked into; who may enter it does not show in its time of modification."""
        folder.changed = 0
        self._rest(folder, now)
        with contextlib.suppress(OSError):
            if path in self._roots or self._is_wanted(path):
                self.unreadable[path] = Unreadable(path, error.strerror or str(error))

    def _lose(self, path: Path, folder: _Folder, now: float) -> None:
        """A folder is gone; those that were named may come back."""
        if path in self._roots:
            folder.changed = 0
            self._rest(folder, now)
        else:
            del self._folders[path]


def _is_being_cleaned(path: Path) -> bool:
    """Tell whether a run directory was put aside a moment ago, to be deleted; later it is one that was left so."""
    try:
        return path.name.endswith(CLEANING) and abs(time.time() - path.lstat().st_ctime) < _CLEANING_SECONDS
    except OSError:
        return True
