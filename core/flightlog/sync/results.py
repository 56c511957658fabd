"""What comes of a sync, and what would: the answers of session.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..rundir import RunDir
from .clean import Cleaned
from .deliver import Outcome
from .local import Identity

Status = Literal["delivered", "up to date", "damaged", "failed", "gone"]


@dataclass(slots=True)
class Result:
    """What came of one run directory.

    Attributes:
        directory: the run directory.
        identity: who the run is on the server; None where neither latest.spec nor the journal says so.
        outcome: what the delivery came to, where it was not cut short by an error.
        up_to_date: it was passed over: by sync.json the server has proven to hold all of it.
        error: why it failed, in words; None where it did not.
        retryable: it failed for a reason that may pass by itself (no connection, a server that is busy or full, a
            captive portal, a full disk here), so that trying again later makes sense. False for all else.
        gone: the run was deleted on the server: nothing was sent, nothing is cleaned, and it is no longer pending.
        cleaned: what came of cleaning, where that was asked for and the run was delivered.
    """

    directory: RunDir
    identity: Identity | None = None
    outcome: Outcome | None = None
    up_to_date: bool = False
    error: str | None = None
    retryable: bool = False
    gone: bool = False
    cleaned: Cleaned | None = None

    @property
    def status(self) -> Status:
        """How it stands in one word.

        "delivered": the receipt proves that the server holds everything that is on this disk.
        "up to date": so it was last time, and nothing has grown since.
        "damaged": all that could be read was delivered, but something is damaged here or there (`outcome.faults`).
        "gone": it was deleted on the server.
        "failed": `error` says why, and `retryable` whether it may work later.
        """
        if self.gone:
            return "gone"
        if self.error:
            return "failed"
        if self.up_to_date:
            return "up to date"
        return "delivered" if self.outcome and self.outcome.complete else "damaged"


@dataclass(slots=True)
class Report:
    """What came of a sync: a result for each directory, in the order that they were given in."""

    origin: str
    account: str
    results: list[Result] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """0 all delivered, 1 something failed, 3 all that could be read was delivered but something is damaged.

        A run that was deleted on the server is neither.
        """
        found = {r.status for r in self.results}
        return 1 if "failed" in found else 3 if "damaged" in found else 0


@dataclass(frozen=True, slots=True)
class Planned:
    """What a sync would do with one run directory.

    Attributes:
        directory: the run directory.
        identity: who the run is on the server; None where that cannot be told (`error`).
        workspace: the workspace that it would go to.
        pending: it would be delivered. False: the server has all of it, or it was deleted there (`gone`).
        bytes: at most so many bytes would be read for that: what the journal has grown by, and the files that are newer
            than the last delivery. What the server has of them already is not sent.
        gone: it was deleted on the server.
        error: why it would fail.
    """

    directory: RunDir
    identity: Identity | None
    workspace: str = ""
    pending: bool = False
    bytes: int = 0
    gone: bool = False
    error: str | None = None
