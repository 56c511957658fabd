"""FLIGHTLOG_SPOOL_TO: a run recorded on a node's own disk, copied to a shared one before the node is given up.

Small files come first and latest.spec last, so that what a grace period cuts short is still a run that can be read. A
file that is there already with the same size and time is not copied again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from . import rundir
from .protocol.names import random_name
from .rundir import RunDir
from .terminal import say, warn_once


def spool(run: RunDir, target: Path) -> RunDir | None:
    """Copy a run directory below a folder of runs.

    Args:
        run: the run directory.
        target: the folder, made if need be, as `init(dir=)` takes it.

    Returns:
        The copy; None where it could not be made whole (a warning says why; what was copied stays).
    """
    try:
        root = rundir.prepare_root(target.absolute())
    except OSError as error:
        warn_once(f"spool {target}", f"FLIGHTLOG_SPOOL_TO={target} cannot be used: {error}; the run is in {run.path}.")
        return None
    copy = RunDir(root / run.path.name)
    if copy.path == run.path:
        return copy
    faults = [fault for source in _in_order(run) if (fault := _bring(source, copy.path / source.relative_to(run.path)))]
    if faults:
        warn_once(
            f"spool {run.path}",
            f"{len(faults)} files of {run.path} could not be copied to {copy.path}: {faults[0]}. They are still here.",
        )
        return None
    with contextlib.suppress(OSError):
        rundir.point_latest(root, copy)
    say(f"copied to {copy.path}")
    return copy


def _in_order(run: RunDir) -> list[Path]:
    """Return a run's files: the journal first, the largest of the others late, latest.spec at the end."""
    found = []
    for folder, folders, names in os.walk(run.path):
        folders[:] = [name for name in folders if not Path(folder, name).is_symlink()]
        found += [path for name in names if (path := Path(folder, name)).is_file() and not path.is_symlink()]

    def rank(path: Path) -> tuple[int, int, str]:
        late = 2 if path == run.spec_path else 0 if path.is_relative_to(run.journal) else 1
        return late, path.stat().st_size, str(path)

    return sorted(found, key=rank)


def _bring(source: Path, target: Path) -> str | None:
    """Copy one file, durably and never half under its name. Returns what went wrong."""
    try:
        facts = source.stat()
        with contextlib.suppress(OSError):
            there = target.stat()
            if (there.st_size, there.st_mtime_ns) == (facts.st_size, facts.st_mtime_ns):
                return None
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name[:100]}.{random_name(40)}")
        try:
            shutil.copyfile(source, temporary)
            os.utime(temporary, ns=(facts.st_atime_ns, facts.st_mtime_ns))
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        return f"{source.name}: {error.strerror or error}"
    return None
