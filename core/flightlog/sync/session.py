"""One sync: from paths to pending runs to their delivery. What the command line and other programs call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import rundir, settings
from ..client import Client, Patience
from ..errors import AuthError, DamagedError, FlightlogError, NotFound
from ..keys import Server
from ..rundir import RunDir
from . import state
from .clean import Cleaned, clean
from .deliver import Delivery, Outcome, Progress
from .local import Identity, identify

DEFAULT_TIMEOUT = 30.0


@dataclass(slots=True)
class Result:
    """What came of one run directory: delivered (`outcome`), skipped as delivered before, or an error in words."""

    directory: RunDir
    identity: Identity | None = None
    outcome: Outcome | None = None
    up_to_date: bool = False
    error: str | None = None
    cleaned: Cleaned | None = None

    @property
    def status(self) -> str:
        if self.error:
            return "failed"
        if self.up_to_date:
            return "up to date"
        return "delivered" if self.outcome and self.outcome.complete else "damaged"


@dataclass(slots=True)
class Report:
    """What came of a sync."""

    origin: str
    account: str
    results: list[Result] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """0 all delivered, 1 something failed, 3 all that could be read was delivered but something is damaged."""
        found = {r.status for r in self.results}
        return 1 if "failed" in found else 3 if "damaged" in found else 0


def find_runs(paths: Sequence[Path]) -> list[RunDir]:
    """Return the run directories at or below these paths, each once, in order of start.

    Without paths: those below the working directory and FLIGHTLOG_DIR (or what settings name instead).

    Raises:
        NotFound: a path is no run and holds none.
    """
    found: dict[Path, RunDir] = {}
    for path in paths:
        # `flightlog/latest` and `flightlog/latest.spec` are what a user types first: both lead to a run.
        try:
            place = path.resolve()
        except (OSError, RuntimeError):  # links in a circle
            place = path
        if place.name == rundir.SPEC and place.is_file():
            place = place.parent
        here = list(rundir.discover(place)) if place.is_dir() else []
        if not here:
            what = "holds no run" if place.is_dir() else "is no run" if place.exists() else "does not exist"
            raise NotFound(f"{path} {what}; name a run directory, or a folder that has some below it")
        found.update((d.path, d) for d in here)
    if not paths:
        try:
            working = Path.cwd()
        except OSError:
            raise NotFound("the working directory is gone; name a folder that has runs below it") from None
        for top in (working, Path(settings.load().dir).absolute()):
            found.update((d.path, d) for d in rundir.discover(top))
    return sorted(found.values(), key=_started)


def _started(directory: RunDir) -> tuple[float, str]:
    try:
        return (float(directory.read_spec().get("started_at") or 0.0), str(directory.path))
    except (DamagedError, TypeError, ValueError):
        return (0.0, str(directory.path))


def sync(
    directories: Iterable[RunDir],
    server: Server,
    key: str,
    *,
    workspace: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    clean_up: bool = False,
    patience: Patience | None = None,
    progress: Progress,
    done: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Deliver the pending runs among these directories. One run's failure does not stop the others.

    Args:
        directories: the run directories.
        server: where to. key: the API key for it.
        workspace: the workspace that all of them go to; without it each goes where it says, else to the key's account.
        timeout: seconds to go on trying while the server cannot be reached.
        clean_up: delete from this disk what the server has proven to hold.
        patience: instead of one made from `timeout`, to be told of waits.
        progress: told how it goes on.
        done: called with each result as it stands.

    Raises:
        AuthError: the key is wrong.
        PermanentError, RetryableError: there is no flightlog server there, or it cannot be reached.
    """
    patience = patience or Patience(timeout)
    with Client(server.origin, None) as anonymous:
        server_id = str(patience.call(anonymous.hello).get("server_id"))
    with Client(server.origin, key) as client:
        account = patience.call(client.account)
        report = Report(server.origin, account.name)
        delivery = Delivery(
            client, server_id, account.default_workspace, workspace, patience, progress, verify=clean_up
        )
        for directory in directories:
            result = _one(directory, delivery, server.origin, server_id, clean_up)
            report.results.append(result)
            done(result)
    return report


def _one(directory: RunDir, delivery: Delivery, origin: str, server_id: str, clean_up: bool) -> Result:
    result = Result(directory)
    try:
        result.identity = identify(directory)
        if not clean_up and not state.is_pending(directory, origin, server_id):
            result.up_to_date = True
            return result
        result.outcome = delivery.run(directory, result.identity)
        if clean_up:
            result.cleaned = clean(result.outcome)
    except AuthError as error:
        if error.status == 401:
            raise  # the key is wrong, for every run
        result.error = str(error)
    except FlightlogError as error:
        result.error = str(error)
    except OSError as error:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else directory.path
        result.error = f"{name}: {error.strerror or error}"
    return result
