"""Where a Trainer saves its checkpoints, and what is to be heeded of files that have a second name in a run."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments

STATE_FILE = "trainer_state.json"
_UNFINISHED = "checkpoint-is-incomplete.txt"


def output_folder(args: TrainingArguments, trainer: Trainer | None) -> Path:
    """Return the folder that a training's checkpoints are in: in a hyperparameter search, the trial's own."""
    if trainer is not None:
        with contextlib.suppress(Exception):  # a private method; it may ask the search's library for the trial
            return Path(trainer._get_output_dir(getattr(trainer, "_trial", None)))
    return Path(str(args.output_dir))


def is_complete(folder: Path, since: float) -> bool:
    """Whether a checkpoint has been saved whole since a time, in seconds since 1970 by this machine's clock."""
    try:
        written = (folder / STATE_FILE).stat().st_mtime
    except OSError:
        return False
    return written >= since and not (folder / _UNFINISHED).exists()


def wait_for_ranks(folder: Path, name: str, size: int, seconds: float) -> bool:
    """Wait until all processes have left their random state in a checkpoint, the last file that they write.

    Args:
        folder: the checkpoint. name: of that file, with {} for the number of the process.
        size: how many processes there are. seconds: the longest wait.

    Returns:
        Whether they have. They may never where each node has a disk of its own.
    """
    deadline = time.monotonic() + seconds
    while not all((folder / name.format(rank)).is_file() for rank in range(size)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def unshare(folder: Path) -> None:
    """Give the files of a checkpoint that is going to be saved anew an inode of their own, with the same content.

    The Trainer writes into files that are there. One that a run holds by a link (of a process that was killed, say)
    would change there, too.

    Raises:
        OSError: the disk is full, or the like; the files that were not reached are as they were.
    """
    for path in _shared(folder):
        beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(5)}")
        try:
            shutil.copy2(path, beside)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def _shared(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            facts = path.lstat()
            if stat.S_ISREG(facts.st_mode) and facts.st_nlink > 1:
                yield path
