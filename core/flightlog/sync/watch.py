"""`flightlog sync --watch`: follows runs as they are recorded, and finds those that begin.

One thread looks at the disk and sends new records; whole syncs, which may take long, are made on two others.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..client import Patience
from ..errors import FlightlogError
from ..rundir import Unreadable
from . import session
from .finder import Finder
from .follower import Followed, Tell
from .link import Link

_WORKERS = 2
_AT_ONCE = 50
_PATIENCE = 5.0
_LONGEST_SLEEP = 5.0

_Outcome = tuple[Followed | None, session.Result | Exception | None]


class Progress:
    """How far the whole syncs of a watch are, in bytes: those that are under way, all together."""

    def __init__(self) -> None:
        self.sent = 0
        self.total = 0

    def begin(self, name: str, total: int) -> Progress:
        self.sent, self.total = 0, total
        return self

    def more(self, total: int) -> None:
        self.total += total

    def advance(self, size: int) -> None:
        self.sent += size

    def end(self) -> None:
        self.sent = self.total


class Wishes(NamedTuple):
    """What a watch is to do.

    Attributes:
        interval: seconds between two looks at a run.
        until_finished: end when all runs that there are have ended and are delivered.
        all_users: follow also runs that belong to somebody else.
        give_up_after: seconds for which to go on trying once a run has ended; None for ever.
        uploads: how many uploads a whole sync has under way at once.
        clean_up: delete from this disk runs that have ended, once the server has proven to hold them.
        keep_artifacts: of that, leave the files of artifacts.
    """

    interval: float
    until_finished: bool = False
    all_users: bool = False
    give_up_after: float | None = None
    uploads: int = session.DEFAULT_UPLOADS
    clean_up: bool = False
    keep_artifacts: bool = False


class Watch:
    """Follows all runs at or below some paths.

    Args:
        paths: runs, and folders that hold some.
        link: the way to the server.
        wishes: what to do.
        tell: called with a run and a word for each thing that happens to it; see `Followed`.
        each_round: called after each round.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        link: Link,
        wishes: Wishes,
        tell: Tell,
        each_round: Callable[[Watch], object] = lambda watch: None,
    ) -> None:
        self.link = link
        self.progress = Progress()
        self.runs: dict[Path, Followed] = {}
        self._wishes = wishes
        self._tell = tell
        self._each_round = each_round
        self._finder = Finder(paths, wishes.interval, wishes.all_users)
        self._results: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._working = 0

    def run(self) -> None:
        """Go on until everything is done, if that is what is wished, or the server refuses the key."""
        while True:
            now = time.monotonic()
            self._look_for_runs(now)
            for run in list(self.runs.values()):
                if run.due <= now:
                    run.step(now)
            self._begin_work(now)
            self._each_round(self)
            if self.link.refused is not None or (self._wishes.until_finished and self._is_done(now)):
                return
            self._rest()

    @property
    def unreadable(self) -> Collection[Unreadable]:
        """The folders that cannot be looked into now, and may hold runs that are to be followed."""
        return self._finder.unreadable.values()

    @property
    def exit_status(self) -> int:
        """0 all is delivered, 1 something is not, 2 the key is refused, 3 all is delivered that could be read."""
        if self.link.refused is not None:
            return 2
        if self.unreadable:
            return 1
        states = [run.state for run in self.runs.values() if not run.is_delivered]
        return 0 if not states else 3 if set(states) == {"damaged"} else 1

    def _look_for_runs(self, now: float) -> None:
        if now < self._finder.due:
            return
        for directory in self._finder.look(now):
            run = Followed(directory, self.link, self._wishes.interval, self._tell, self._wishes.give_up_after)
            self.runs[directory.path] = run
            run.step(now)
        for run in [run for run in self.runs.values() if run.state in ("missing", "cleaned")]:
            del self.runs[run.directory.path]
            self._finder.forget(run.directory)

    def _is_done(self, now: float) -> bool:
        return not self._working and all(run.is_settled(now) for run in self.runs.values())

    def _begin_work(self, now: float) -> None:
        """Make whole syncs of those runs that want one, on a thread."""
        if self._working >= _WORKERS or not self.link.is_open(now):
            return
        wanting = [run for run in self.runs.values() if run.wants_whole(now)]
        # Those that are still running come first; a large old one must not hold them up.
        wanting.sort(key=lambda run: run.ended is not None)
        # Only those that have ended may be cleaned, for which all that they hold is read once more.
        wanting = [run for run in wanting if (run.ended is None) == (wanting[0].ended is None)][:_AT_ONCE]
        if wanting:
            for run in wanting:
                run.begin_whole()
            self._working += 1
            clean_up = self._wishes.clean_up and wanting[0].ended is not None
            threading.Thread(target=self._work, args=(wanting, clean_up), name="flightlog-sync", daemon=True).start()

    def _work(self, runs: Sequence[Followed], clean_up: bool) -> None:
        left = {run.directory.path: run for run in runs}

        def done(result: session.Result) -> None:
            self._results.put((left.pop(result.directory.path), result))

        failure: Exception | None = None
        try:
            session.sync(
                [run.directory for run in runs],
                self.link.server,
                self.link.key,
                workspace=self.link.workspace,
                project=self.link.project,
                uploads=self._wishes.uploads,
                clean_up=clean_up,
                keep_artifacts=self._wishes.keep_artifacts,
                patience=Patience(_PATIENCE, self.link.hesitates),
                connect=self.link.connect,
                progress=self.progress,
                done=done,
            )
        except Exception as error:  # it must reach those who wait for it, whatever it is
            failure = error
        for run in left.values():
            self._results.put((run, failure or FlightlogError("it was left out")))
        self._results.put((None, failure))

    def _rest(self) -> None:
        """Sleep until something is due, or a whole sync has come to its end."""
        now = time.monotonic()
        soonest = min([self._finder.due, *(run.due for run in self.runs.values())])
        if any(run.state == "pending" and not run.is_syncing for run in self.runs.values()):
            soonest = min(soonest, max(self.link.opens_at, now + self._wishes.interval))
        wait = min(max(soonest - now, 0.005), _LONGEST_SLEEP)
        try:
            self._take(*self._results.get(timeout=wait))
            while True:
                self._take(*self._results.get_nowait())
        except queue.Empty:
            return

    def _take(self, run: Followed | None, result: session.Result | Exception | None) -> None:
        """Take what came of one run; of none: a thread has come to its end, and how."""
        if run is not None and result is not None:
            run.take(result)
        else:
            self._working -= 1
            if isinstance(result, Exception):
                self.link.failed(result)
