"""The thread that copies in the background, begun when there is something to copy and ended with the run.

It is a daemon, so that a hung disk does not keep the interpreter from ending; who wants the copies waits for them. The
waiting looks again and again instead of using locks: it is also done by signal handlers, which may have interrupted
the very code that holds a lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from ..errors import UsageError
from ..terminal import guarded

_SHORTEST, _LONGEST = 0.001, 0.05


class Copier:
    """Calls functions one after the other on a thread of its own."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._beginning = threading.Lock()

    @property
    def is_used(self) -> bool:
        """Whether anything has been submitted that may not be done yet."""
        return self._thread is not None or not self._jobs.empty()

    def submit(self, job: Callable[[], None]) -> None:
        """Have a function called, after those that were submitted before it."""
        self._jobs.put(job)
        if self._thread is None and self._beginning.acquire(blocking=False):  # else another is at it
            try:
                self._begin()
            finally:
                self._beginning.release()

    def _begin(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name="flightlog-copier", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads for this user, or the interpreter is shutting down
            self._work_off()
        else:
            self._thread = thread

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until `done` is true; False where that takes longer than `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        pause = _SHORTEST
        while not done():
            if self._thread is None or not self._thread.is_alive():
                self._work_off()
                return done()
            if until is not None and time.monotonic() >= until:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST)
        return True

    def close(self) -> None:
        """End the thread after what has been submitted; a later job begins another."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            _call(job)

    def _work_off(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
            if job is not None:
                _call(job)


def _call(job: Callable[[], None]) -> None:
    try:
        with guarded("an artifact in the background"):
            job()
    except UsageError:
        return  # the run has ended meanwhile: its journal takes no more
