"""The one extra thread of a recording process: every second it makes durable what has been written."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..terminal import guarded, warn_once


class Housekeeper:
    """Calls a function about once a second on a thread of its own, until it is stopped."""

    def __init__(self, tick: Callable[[], None], interval: float = 1.0) -> None:
        self._tick = tick
        self._interval = interval
        self._woken = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="flightlog-housekeeper", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads for this user, or the interpreter is shutting down
            warn_once("housekeeper", f"flightlog's thread cannot be started ({error}); records are synced at finish.")

    def _run(self) -> None:
        while not self._stopped:
            self._woken.wait(self._interval)
            self._woken.clear()
            if self._stopped:
                break
            with guarded("flightlog's housekeeping"):
                self._tick()

    def wake(self) -> None:
        """Let the next call come at once."""
        self._woken.set()

    def stop(self) -> None:
        """Stop after the call under way, if any; wait for that a few seconds at most (a disk may hang)."""
        self._stopped = True
        self._woken.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
