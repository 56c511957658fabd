"""One run that is followed: a whole sync, then each record as it comes, then a whole sync whose receipt counts.

    pending ── whole sync ──> following ── the run ended, or died ──> pending ── whole sync ──> delivered
       ^                          │
       └── anything unexpected ───┘

The follower decides what is to be done when; the watch (watch.py) calls it, and makes the whole syncs on threads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .. import rundir
from ..errors import AuthError, DamagedError, FlightlogError, RetryableError
from ..rundir import RunDir
from .cursor import OutOfStep
from .link import Link
from .live import LiveRun
from .local import identify
from .session import Result

# How much longer than the interval a run that says nothing is left alone.
_IDLE_FACTOR = 5.0
_QUIET_SECONDS = 5.0  # without growth, before its process is asked for
_ASK_SECONDS = 2.0
_RANKS_SECONDS = 75.0  # a job's other ranks may outlive the first; each shows life every 30 s
_LINGER_SECONDS = 10.0  # ranks end one after the other
_OVER_SECONDS = 60.0
_UNCERTAIN_SECONDS = 600.0
_SHORTEST_GAP, _LONGEST_GAP = 2.0, 300.0
_REFUSED_SECONDS = 300.0  # what only somebody else can mend

Tell = Callable[["Followed", str], None]
OVER = frozenset(("delivered", "cleaned", "damaged", "gone", "missing", "given up"))


class Followed:
    """A run directory and how its delivery stands.

    Args:
        directory: the run directory.
        link: the way to the server.
        interval: seconds between two looks at its journal.
        tell: called with this and a word for each thing that happens: "found", "following", "delivered", "cleaned",
            "damaged", "failed", "gone", "missing", "given up".
        give_up_after: seconds for which to go on trying once the run has ended; None for ever.

    Attributes:
        state: "pending", "following", "failed" (tried again later), or one of `OVER`.
        error: what is the matter, in words.
        ended: how the run ended, as far as is known: None while it goes on.
        kept: why it was not deleted from this disk, where that was wished.
        as_of: the `updated_at` of the latest.spec before the last whole sync that delivered everything.
        due: when it wants to be called again, by the monotonic clock.
    """

    def __init__(
        self, directory: RunDir, link: Link, interval: float, tell: Tell, give_up_after: float | None = None
    ) -> None:
        self.directory = directory
        self.state = "pending"
        self.error: str | None = None
        self.ended: str | None = None
        self.kept: str | None = None
        self.name = directory.path.name
        self.run_id: str | None = None
        self.url = ""
        self.records = 0
        self.as_of = 0.0
        self.due = 0.0
        self.is_syncing = False
        self._link = link
        self._interval = interval
        self._pause = interval
        self._tell = tell
        self._give_up_after = give_up_after
        self._is_told_of = False
        self._live: LiveRun | None = None
        self._begin_live = False
        self._whole_at = 0.0
        self._gap = 0.0
        self._began_whole = 0.0
        self._as_of_whole = 0.0
        self._ended_whole: str | None = None
        self._spec: dict[str, Any] = {}
        self._spec_seen: tuple[int, int] | None = None
        self._growth = 0.0
        self._grew_at: float | None = None
        self._asked_at = 0.0
        self._ended_at = 0.0
        self._over_at = 0.0
        self._over_sizes: dict[str, dict[str, int]] | None = None
        self._over_changed = 0
        self._missing_since: float | None = None

    # -- what the watch asks -------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to do, as far as can be seen now."""
        return self.state in OVER

    @property
    def is_delivered(self) -> bool:
        """Whether nothing waits here that the server could still be given."""
        if self.state == "following":
            return self._live is not None and self._live.caught_up
        return self.state in ("delivered", "cleaned", "gone", "missing")

    def wants_whole(self, now: float) -> bool:
        """Tell whether a whole sync should be made now."""
        if self.is_over or self.is_syncing or self._begin_live or self._live is not None:
            return False
        # Nothing is recorded yet where there is neither a latest.spec nor a journal; for so long it is waited for.
        has_begun = bool(self._spec) or self._grew_at is None or now - self._grew_at > _QUIET_SECONDS
        return has_begun and now >= self._whole_at and self._link.is_open(now)

    def begin_whole(self) -> None:
        """A whole sync of it begins: what it finds holds for the run as it stands now."""
        self.is_syncing = True
        self._began_whole = time.monotonic()
        self._look_at_spec()
        self._as_of_whole = _number(self._spec.get("updated_at"))
        self._ended_whole = self.ended

    # -- what happens --------------------------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Do what is due, but for whole syncs."""
        if self.is_over:
            self._look_for_more(now)
            return
        self._look_at_run(now)
        if not self._is_told_of and self.run_id is not None:
            self._is_told_of = True
            self._tell(self, "found")
        self.due = now + self._pause
        if self.is_syncing or self.is_over or not self._link.is_open(now):
            return
        if self._begin_live or self._live is not None:
            self._follow(now)

    def take(self, outcome: Result | Exception) -> None:
        """Take note of what came of a whole sync."""
        self.is_syncing = False
        now = time.monotonic()
        self.due = now
        took = now - self._began_whole
        self._gap = min(max(self._gap * 2.0, _SHORTEST_GAP, took * 10.0), _LONGEST_GAP)
        if isinstance(outcome, Exception):
            return  # it was about the server, not about this run
        self._describe(outcome)
        if outcome.status == "failed":
            self._fail(outcome, now)
            return
        self._link.worked()
        faults = outcome.outcome.faults if outcome.outcome else []
        self.error = outcome.error or (faults[0] if faults else None)
        if outcome.gone:
            self._be_over("gone", now)
        elif self._ended_whole is not None:
            self.as_of = self._as_of_whole
            self.kept = outcome.cleaned.reason if outcome.cleaned else None
            self._be_over("damaged" if outcome.status == "damaged" else "delivered", now)
            if outcome.cleaned and outcome.cleaned.reason is None:
                self._be_over("cleaned", now)
        elif self.ended is not None:
            self._whole_at = now  # it ended meanwhile: once more, for a receipt of all
        else:
            self._begin_live = True

    def _describe(self, outcome: Result) -> None:
        if outcome.identity is not None:
            self.name, self.run_id = outcome.identity.name, outcome.identity.id
        if outcome.outcome is not None:
            self.url, self.records = outcome.outcome.url, outcome.outcome.records

    def _fail(self, outcome: Result, now: float) -> None:
        if outcome.retryable:
            self._link.failed(RetryableError(str(outcome.error)))
            return
        if rundir.is_gone(self.directory.path):
            self._whole_at = now + _QUIET_SECONDS  # by then it is known to be missing
            return
        self._whole_at = now + _REFUSED_SECONDS
        changed = self.error != outcome.error
        self.state, self.error = "failed", outcome.error
        if changed:
            self._tell(self, "failed")

    def _follow(self, now: float) -> None:
        """Send what is new. What is not as expected is left to a whole sync, soon."""
        try:
            if self._live is None:
                self._live = self._begin_following()
            sent = self._live.round()
            self._link.worked()
            if self._live.files.failed is not None:
                raise OutOfStep(str(self._live.files.failed))
        except RetryableError as error:
            self._link.failed(error)
            return
        except (FlightlogError, OutOfStep, OSError) as error:
            if isinstance(error, AuthError) and error.status == 401:
                self._link.failed(error)
            self._start_anew(now)
            return
        self._begin_live = False
        self.records += sent
        if sent:
            self._grew_at = now
            self._growth = 0.0  # asked for when it has become quiet
            self._pause = self._interval
        else:
            self._growth = self._growth or self._last_growth()
            self._pause = min(self._pause * 1.1, self._interval * _IDLE_FACTOR)
        if now - self._began_whole > _LONGEST_GAP:
            self._gap = 0.0
        self.due = now if self._live.is_behind else now + self._pause

    def _begin_following(self) -> LiveRun:
        own = identify(self.directory)
        identity = replace(own, project=self._link.project or own.project)
        workspace = self._link.workspace_of(identity.workspace)
        link = self._link
        live = LiveRun(link.client, self.directory, identity, workspace, link.connect, link.key)
        live.begin()
        self.url = live.url
        self.name, self.run_id = identity.name, identity.id
        self.state, self.error = "following", None
        self._tell(self, "following")
        return live

    def _start_anew(self, now: float) -> None:
        self._live, self._begin_live = None, False
        self.state = "pending"
        self._whole_at = now + self._gap

    def _be_over(self, state: str, now: float) -> None:
        self.state = state
        self._live = None
        self._over_at = now
        self._over_sizes = self._sizes()
        self._over_changed = self._changed()
        self.due = now + self._pause_when_over(now)
        self._tell(self, state)

    # -- how the run itself stands -------------------------------------------------------------------------------------

    def _look_at_run(self, now: float) -> None:
        """See whether the run has ended or died, or is not there any more."""
        if not self._look_at_spec() and not self._is_there():
            self._missing_since = self._missing_since or now
            if now - self._missing_since > _QUIET_SECONDS:  # a shared disk may be away for a moment
                self._be_over("missing", now)
            return
        self._missing_since = None
        if self._grew_at is None:  # one that has been quiet for long need not be followed first
            self._growth = self._last_growth()
            self._grew_at = now - max(0.0, time.time() - self._growth)
        stands = str(self._spec.get("state") or "running")
        if stands not in ("running", "crashed"):
            self._end(stands, now)
        elif now - self._asked_at > _ASK_SECONDS and now - self._grew_at > _QUIET_SECONDS:
            self._asked_at = now
            self._ask_for_life(now, now - self._grew_at)

    def _is_there(self) -> bool:
        """Tell whether the directory is there; where a disk does not say, it is taken to be."""
        try:
            self.directory.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            pass
        return True

    def _ask_for_life(self, now: float, quiet: float) -> None:
        growth = self._last_growth()
        if growth != self._growth:
            self._growth, self._grew_at = growth, now
            return
        patience = _RANKS_SECONDS if self._spec.get("rank") is not None else _QUIET_SECONDS
        if quiet > patience and not rundir.is_alive(self.directory, self._spec):
            self._end("crashed", now)
        elif self.ended == "crashed":
            self.ended = None

    def _last_growth(self) -> float:
        """Return when the journal grew last; the directory, where there is none yet; 0 where that cannot be seen."""
        with contextlib.suppress(OSError):
            return self.directory.last_growth() or self._changed() / 1e9
        return 0.0

    def _sizes(self) -> dict[str, dict[str, int]] | None:
        """Return the sizes of the journal; None where they cannot be seen, of which a whole sync tells."""
        with contextlib.suppress(OSError):
            return self.directory.journal_sizes()
        return None

    def _end(self, how: str, now: float) -> None:
        if self.ended is None:
            self._ended_at = now
            self._whole_at = now  # also where only somebody else can help: perhaps he has
        self.ended = how
        is_sending_files = self._live is not None and self._live.files.busy  # they would be sent twice
        if (self._live is not None or self._begin_live) and not is_sending_files:
            self._live, self._begin_live = None, False
            self.state = "pending"
            self._whole_at = now
        if self._give_up_after is not None and now - self._ended_at > self._give_up_after and not self.is_syncing:
            self.error = self.error or self._link.down
            self._be_over("given up", now)

    def _look_at_spec(self) -> bool:
        """Read latest.spec if it has changed. Returns False where it is not there."""
        try:
            facts = self.directory.spec_path.lstat()
        except OSError:
            self._spec, self._spec_seen = {}, None
            return False
        seen = (facts.st_mtime_ns, facts.st_ino)
        if seen != self._spec_seen:
            try:
                self._spec = self.directory.read_spec()
            except DamagedError:
                self._spec = {}
            self._spec_seen = seen
            if self._spec and self.run_id is None:
                self._whole_at = 0.0  # it was too early before
            self.name = str(self._spec.get("name") or self.name)[:200]
            self.run_id = self._spec.get("id") or self.run_id
        return True

    def _changed(self) -> int:
        try:
            return self.directory.path.stat().st_mtime_ns
        except OSError:
            return 0

    def _pause_when_over(self, now: float) -> float:
        is_of_ranks = self._spec.get("rank") is not None
        if is_of_ranks and now - self._over_at < _LINGER_SECONDS:
            return 1.0
        is_fresh_crash = self.ended == "crashed" and now - self._over_at < _UNCERTAIN_SECONDS
        return max(_OVER_SECONDS / 10 if is_fresh_crash else _OVER_SECONDS, self._interval)

    def is_settled(self, now: float) -> bool:
        """Whether it is over, and nothing of it is to be expected any more, from a job's other ranks say.

        So it is also where it has ended and is refused for a reason that does not pass by itself.
        """
        if self.state == "failed":
            return self._ended_whole is not None or not self._spec
        return self.is_over and (self._spec.get("rank") is None or now - self._over_at >= _LINGER_SECONDS)

    def _look_for_more(self, now: float) -> None:
        """A run that is over may be continued: latest.spec is written then, or its journal grows."""
        self.due = now + self._pause_when_over(now)
        if self.state in ("cleaned", "gone", "missing", "given up"):
            return
        grown = self._changed() != self._over_changed
        is_uncertain = self.ended == "crashed" or self._spec.get("rank") is not None
        if grown or (is_uncertain and self._sizes() not in (None, self._over_sizes)):
            self.state, self.ended = "pending", None
            self._grew_at = now
            self._whole_at = now
            self._look_at_run(now)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
