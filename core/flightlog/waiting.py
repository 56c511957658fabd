"""The wait for the delivery at the end of an online run, of which the follower tells by follower.json."""

from __future__ import annotations

import time
from collections.abc import Callable

from . import followed
from .errors import DamagedError
from .resume import delivered_specs
from .rundir import RunDir
from .terminal import is_watched, redraw, say

_POLL = 0.1
_SAY_AFTER = 3.0
# What a busy machine may take to start an interpreter.
_START_SECONDS = 15.0


class Waiting:
    """Waits until the follower of a run has delivered all of it.

    Args:
        run_dir: the run directory.
        origin: the server.
        since: when this process began the run: what a follower left before that is not about it.
        restart: starts the follower again; called once, if it is found dead.
    """

    def __init__(self, run_dir: RunDir, origin: str, since: float, restart: Callable[[], object]) -> None:
        self._run_dir = run_dir
        self._origin = origin
        self._since = since
        self._restart: Callable[[], object] | None = restart
        self._began = time.monotonic()
        self._drawn = ""

    def until_delivered(self, limit: float) -> str | None:
        """Wait for so many seconds at most. Returns the address of the run's page; None if it is not delivered."""
        try:
            spec = self._run_dir.read_spec()
            written = float(spec.get("updated_at") or 0.0)
        except (DamagedError, TypeError, ValueError):
            return None
        url = self._origin
        said = False
        try:
            while True:
                standing = self._look()
                if standing is not None and standing.as_of >= written and standing.state in ("delivered", "damaged"):
                    return standing.url
                url = standing.url if standing is not None and standing.url else url
                if self._was_cleaned(str(spec.get("id"))):
                    return url
                waited = time.monotonic() - self._began
                if waited >= limit or self._is_over(standing, waited):
                    return None
                self._draw(self._line(standing, limit - waited))
                if not said and waited > _SAY_AFTER and not is_watched():
                    said = True
                    say(f"waiting up to {limit:.0f} s for the delivery to {self._origin}")
                time.sleep(_POLL)
        finally:
            redraw("")

    def _look(self) -> followed.Standing | None:
        standing = followed.load(self._run_dir)
        is_of_this_run = standing is not None and standing.server == self._origin and standing.updated_at >= self._since
        return standing if is_of_this_run else None

    def _was_cleaned(self, run_id: str) -> bool:
        """Tell whether another process has delivered the run, and then deleted it here."""
        return not self._run_dir.path.is_dir() and bool(delivered_specs(self._run_dir.path.parent, run_id))

    def _is_over(self, standing: followed.Standing | None, waited: float) -> bool:
        """Tell whether waiting is in vain; start the follower again where it has died."""
        if standing is None and not self._run_dir.path.is_dir():
            return waited > _START_SECONDS  # it is being cleaned, or was taken away
        if standing is None:
            dead = waited > _START_SECONDS
        elif standing.state in followed.ENDED - {"delivered", "damaged"}:
            return True
        else:
            dead = not standing.is_running and waited > 1.0  # one that has just ended is being replaced, perhaps
        if dead and self._restart is not None:
            self._restart()
            self._restart = None
            self._since = time.time()
            return False
        return False

    def _draw(self, line: str) -> None:
        if line != self._drawn:
            self._drawn = line
            redraw(line)

    def _line(self, standing: followed.Standing | None, left: float) -> str:
        if standing is None:
            return f"delivering to {self._origin}; Ctrl-C stops the waiting, not the delivery"
        if standing.state in ("waiting", "failed"):
            return f"waiting {left:.0f} s more (Ctrl-C: no longer): {standing.error}"
        amount = f" {standing.sent / 1e6:.1f} of {standing.total / 1e6:.1f} MB" if standing.total > 1e6 else ""
        return f"delivering{amount} to {self._origin}; Ctrl-C stops the waiting, not the delivery"
