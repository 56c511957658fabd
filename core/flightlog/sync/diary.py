"""What the follower of an online run leaves for the training to read; see `followed`."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace

from .. import followed
from ..process import birth_of, hostname
from ..rundir import RunDir
from ..terminal import without_keys
from .watch import Watch

_PAUSE = 2.0
_PAUSE_AT_THE_END = 0.3  # somebody waits then


class Diary:
    """Writes follower.json, when something has changed and not too often.

    Args:
        directory: the run directory. origin: the server.
    """

    def __init__(self, directory: RunDir, origin: str) -> None:
        self._directory = directory
        pid = os.getpid()
        self._written = followed.Standing(pid, hostname(), birth_of(pid), origin)
        self._written_at = 0.0
        self._write(self._written)

    def note(self, watch: Watch) -> None:
        """Write how the run stands now."""
        run = watch.runs.get(self._directory.path)
        if run is None:
            return
        link = watch.link
        state, error = run.state, run.error
        if link.refused is not None:
            state, error = "refused", link.refused
        elif run.is_over:
            pass
        elif link.down is not None:
            state, error = "waiting", link.down
        elif run.state == "pending":
            state = "delivering" if run.is_syncing else self._written.state
        standing = replace(
            self._written,
            state=state,
            error=without_keys(error) if error else error,
            url=run.url,
            records=run.records,
            sent=watch.progress.sent,
            total=watch.progress.total,
            as_of=run.as_of,
        )
        news = (standing.state, standing.error, standing.as_of) != (
            self._written.state,
            self._written.error,
            self._written.as_of,
        )
        pause = _PAUSE if run.ended is None else _PAUSE_AT_THE_END
        if news or (standing != self._written and time.monotonic() - self._written_at >= pause):
            self._write(standing)

    def refuse(self, why: str) -> None:
        """Say that nothing can be delivered until somebody has mended what is the matter."""
        self._write(replace(self._written, state="refused", error=without_keys(why)))

    def stop(self) -> None:
        """Say that nobody follows the run any more."""
        if self._written.state not in followed.ENDED:
            self._write(replace(self._written, state="stopped"))

    def _write(self, standing: followed.Standing) -> None:
        standing.updated_at = time.time()
        # The run is delivered whether or not the training hears of it.
        with contextlib.suppress(OSError):
            followed.save(self._directory, standing)
        self._written, self._written_at = standing, time.monotonic()
