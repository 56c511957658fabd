"""One sync: from paths to pending runs to their delivery. What the command line and other programs call."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from .. import rundir, settings
from ..client import Client, Patience
from ..errors import AuthError, DamagedError, FlightlogError, GoneError, NotFound, ServerError
from ..keys import Server
from ..rundir import RunDir
from ..verify import is_blank
from . import state
from .clean import Cleaned, clean
from .deliver import Delivery, Outcome, Progress, RunProgress
from .lanes import Lanes
from .local import Identity, identify
from .pool import Pool

DEFAULT_TIMEOUT = 30.0
DEFAULT_UPLOADS = 4
# Makes the client of a server: its origin, and the key (None for what needs no sign-in). One is made per thread.
Connect = Callable[[str, "str | None"], Client]
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


@dataclass(frozen=True, slots=True)
class Destination:
    """Where runs go: a server, and what is laid down for all of them. None: as each run says itself.

    Attributes:
        origin, server_id: the server, and who it says that it is.
        account_workspace: the workspace of those that name none.
        workspace, project, run_id: what they all go to, whatever they say.
    """

    origin: str
    server_id: str
    account_workspace: str
    workspace: str | None = None
    project: str | None = None
    run_id: str | None = None

    def identify(self, directory: RunDir) -> tuple[Identity, str]:
        """Return who a run is there, and in which workspace. Raises DamagedError."""
        own = identify(directory)
        there = replace(own, project=self.project or own.project, id=self.run_id or own.id)
        return there, self.workspace or own.workspace or self.account_workspace

    def is_pending(self, directory: RunDir) -> bool:
        """Tell whether the server lacks anything of a run, by its sync.json; see `state.is_pending`."""
        return state.is_pending(directory, self.origin, self.server_id, (self.workspace, self.project, self.run_id))


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
    return sorted((d for d in found.values() if not is_blank(d)), key=_started)


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
    project: str | None = None,
    run_id: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    uploads: int = DEFAULT_UPLOADS,
    clean_up: bool = False,
    keep_artifacts: bool = False,
    include_synced: bool = False,
    restore_deleted: bool = False,
    patience: Patience | None = None,
    connect: Connect = Client,
    progress: Progress,
    done: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Deliver the pending runs among these directories. One run's failure does not stop the others.

    Args:
        directories: the run directories; they are begun in this order.
        server: where to. key: the API key for it.
        workspace: the workspace that all of them go to; without it each goes where it says, else to the key's account.
        project: the project that all of them go to, whatever they were recorded for.
        run_id: the id that they get there; several directories become one run by it.
        timeout: seconds to go on trying while the server cannot be reached.
        uploads: how many runs, and packs of files, are under way at once; 1 or more.
        clean_up: delete from this disk what the server has proven to hold.
        keep_artifacts: of that, leave the files of artifacts, which can be used from this disk on.
        include_synced: ask the server also about runs that sync.json says it has: it may have lost or deleted them.
        restore_deleted: bring back runs that were deleted on the server; without it their status is "gone".
        patience: instead of one made from `timeout`, to be told of waits.
        connect: makes the client of a server, one for each thread.
        progress: told how it goes on.
        done: called with each result as it stands, by this thread, in the order that they come to their ends.

    Raises:
        AuthError: the key is wrong.
        PermanentError, RetryableError: there is no flightlog server there, or it cannot be reached.
    """
    patience = patience or Patience(timeout)
    with _signed_in(server.origin, key, connect, patience) as (_, account, destination):
        destination = replace(destination, workspace=workspace, project=project, run_id=run_id)
        report = Report(server.origin, account)
        work = _Work(
            destination, _OneAtATime(progress), patience, clean_up, keep_artifacts, include_synced, restore_deleted
        )
        _deliver_all(list(directories), work, uploads, lambda: connect(server.origin, key), report, done)
    return report


def _deliver_all(
    directories: Sequence[RunDir],
    work: _Work,
    uploads: int,
    make_client: Callable[[], Client],
    report: Report,
    done: Callable[[Result], None],
) -> None:
    """Deliver runs, several at once; the results come into the report in the order of the directories."""
    results: dict[int, Result] = {}
    with Lanes(uploads, make_client, work.patience) as lanes:

        def one(index: int, client: Client) -> tuple[int, Result]:
            return index, work.one(directories[index], client, lanes)

        with Pool(uploads, make_client, one, work.patience) as pool:
            for index, result in pool.results(range(len(directories))):
                results[index] = result
                done(result)
    report.results.extend(results[index] for index in sorted(results))


def plan(
    directories: Iterable[RunDir],
    server: Server,
    key: str,
    *,
    workspace: str | None = None,
    project: str | None = None,
    run_id: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    include_synced: bool = False,
    restore_deleted: bool = False,
    patience: Patience | None = None,
    connect: Connect = Client,
) -> list[Planned]:
    """Return what `sync` would do with these directories, in the same order. Nothing is sent, and nothing changed.

    The server is asked who it is and whose key this is; what is pending follows from this disk.

    Args:
        directories, server, key, workspace, project, run_id, timeout, include_synced, restore_deleted, patience,
            connect: as for `sync`.

    Raises:
        AuthError: the key is wrong.
        PermanentError, RetryableError: there is no flightlog server there, or it cannot be reached.
    """
    with _signed_in(server.origin, key, connect, patience or Patience(timeout)) as (_, _, destination):
        destination = replace(destination, workspace=workspace, project=project, run_id=run_id)
    return [_planned(directory, destination, include_synced, restore_deleted) for directory in directories]


def _planned(directory: RunDir, destination: Destination, include_synced: bool, restore_deleted: bool) -> Planned:
    try:
        identity, workspace = destination.identify(directory)
        pending = destination.is_pending(directory)
        known = state.load(directory).get(destination.origin)
        gone = not pending and known is not None and known.gone
        if include_synced or (gone and restore_deleted):
            pending, gone = True, False
        there = known if known and known.server_id == destination.server_id else None
        size = state.unseen_bytes(directory, there) if pending else 0
        return Planned(directory, identity, workspace, pending, size, gone)
    except DamagedError as error:
        return Planned(directory, None, error=str(error))
    except OSError as error:
        return Planned(directory, None, error=_in_words(error, directory))


@contextmanager
def _signed_in(
    origin: str, key: str, connect: Connect, patience: Patience
) -> Iterator[tuple[Client, str, Destination]]:
    """Give a client, the account's name and where its runs go."""
    with connect(origin, None) as anonymous:
        server_id = str(patience.call(anonymous.hello).get("server_id"))
    with connect(origin, key) as client:
        account = patience.call(client.account)
        yield client, account.name, Destination(origin, server_id, account.default_workspace)


class _OneAtATime:
    """Passes on what several threads tell, one call at a time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()

    def begin(self, name: str, total: int) -> RunProgress:
        with self._lock:
            return _OneRun(self._progress.begin(name, total), self._lock)


class _OneRun:
    def __init__(self, progress: RunProgress, lock: threading.Lock) -> None:
        self._progress = progress
        self._lock = lock

    def more(self, total: int) -> None:
        with self._lock:
            self._progress.more(total)

    def advance(self, size: int) -> None:
        with self._lock:
            self._progress.advance(size)

    def end(self) -> None:
        with self._lock:
            self._progress.end()


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done with every directory."""

    destination: Destination
    progress: Progress
    patience: Patience
    clean_up: bool
    keep_artifacts: bool
    include_synced: bool
    restore_deleted: bool

    def one(self, directory: RunDir, client: Client, lanes: Lanes) -> Result:
        """Deal with one run. Raises AuthError where the key is wrong, for every run."""
        result = Result(directory)
        delivery = Delivery(
            client,
            lanes,
            self.destination.server_id,
            self.patience,
            verify=self.clean_up,
            restore=self.restore_deleted,
        )
        try:
            self._deliver(result, delivery)
        except AuthError as error:
            if error.status == 401 or error.body.get("error") == "read_only":
                raise
            result.error = str(error)
        except GoneError as error:
            result.error, result.gone = str(error), True
        except FlightlogError as error:
            result.error = str(error)
            result.retryable = isinstance(error, ServerError) and error.retryable
        except OSError as error:
            result.error = _in_words(error, directory)
            result.retryable = error.errno in _PASSING
        return result

    def _deliver(self, result: Result, delivery: Delivery) -> None:
        directory = result.directory
        result.identity, workspace = self.destination.identify(directory)
        ask = self.clean_up or self.include_synced
        if not ask and not self.destination.is_pending(directory):
            known = state.load(directory)[self.destination.origin]
            if not known.gone:
                result.up_to_date = True
                return
            if not self.restore_deleted:
                result.gone = True
                return
        sizes = directory.journal_sizes()
        progress = self.progress.begin(result.identity.name, sum(n for each in sizes.values() for n in each.values()))
        try:
            result.outcome = delivery.run(directory, result.identity, workspace, progress)
        finally:
            progress.end()
        if self.clean_up:
            result.cleaned = clean(result.outcome, keep_artifacts=self.keep_artifacts)


# A disk that is full, or that fails for a moment.
_PASSING = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM))


def _in_words(error: OSError, directory: RunDir) -> str:
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else directory.path
    return f"{name}: {error.strerror or error}"
