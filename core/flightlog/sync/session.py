"""One sync: from paths to pending runs to their delivery. What the command line and other programs call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from .. import rundir, settings
from ..client import Client, Patience
from ..errors import DamagedError, NotFound
from ..keys import Server
from ..rundir import RunDir, Unreadable
from ..verify import is_blank
from . import state
from .deliver import Progress
from .departed import Departures
from .local import in_words
from .results import Planned, Report, Result, Status
from .work import Destination, OneAtATime, Work

__all__ = [
    "DEFAULT_TIMEOUT",
    "DEFAULT_UPLOADS",
    "Connect",
    "Found",
    "Planned",
    "Report",
    "Result",
    "Status",
    "find_runs",
    "folder_of",
    "plan",
    "sync",
]

DEFAULT_TIMEOUT = 30.0
DEFAULT_UPLOADS = 4
# Makes the client of a server: its origin, and the key (None for what needs no sign-in). One is made per thread.
Connect = Callable[[str, "str | None"], Client]


class Found(NamedTuple):
    """The run directories at or below some paths, in order of start, and the folders that may hide more."""

    runs: list[RunDir]
    unreadable: list[Unreadable]


def find_runs(paths: Sequence[Path], *, blank: bool = False) -> Found:
    """Find the run directories at or below these paths, each once.

    Without paths: those below the working directory and FLIGHTLOG_DIR (or what settings name instead).

    Args:
        paths: runs, or folders that have some below them.
        blank: also those that were killed before their first record, of which there is nothing to deliver.

    Raises:
        NotFound: a path is no run, holds none, and was not made to hold any.
    """
    found: dict[Path, RunDir] = {}
    unreadable: dict[Path, Unreadable] = {}

    def note(folder: Unreadable) -> None:
        unreadable[folder.path] = folder

    for path in paths:
        place = folder_of(path)
        here = list(rundir.discover(place, unreadable=note))
        is_empty = not here and not any(folder.is_relative_to(place) for folder in unreadable)
        if is_empty and not rundir.is_root(place):  # of a root all runs may have been cleaned
            what = "holds no run" if place.is_dir() else "is no run" if place.exists() else "does not exist"
            raise NotFound(f"{path} {what}; name a run directory, or a folder that has some below it")
        found.update((d.path, d) for d in here)
    for top in () if paths else _usual_places():
        found.update((d.path, d) for d in rundir.discover(top, unreadable=note))
    runs = sorted((d for d in found.values() if blank or not is_blank(d)), key=_started)
    return Found(runs, list(unreadable.values()))


def folder_of(path: Path) -> Path:
    """Return the folder that a path means: `flightlog/latest` and `flightlog/latest.spec` both lead to a run."""
    try:
        place = path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        place = path
    return place.parent if place.name == rundir.SPEC and os.path.isfile(place) else place  # noqa: PTH113  # never raises


def _usual_places() -> tuple[Path, Path]:
    """Return where runs are looked for when no path is given. Raises NotFound."""
    try:
        return Path.cwd(), Path(settings.load().dir).absolute()
    except OSError:
        raise NotFound("the working directory is gone; name a folder that has runs below it") from None


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
        include_synced: look at every run whole, also at those that sync.json and the server say are there.
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
    directories = list(directories)
    departures = Departures(directories, server.origin)
    with _signed_in(server.origin, key, connect, patience) as (client, account, destination):
        destination = replace(destination, workspace=workspace, project=project, run_id=run_id)
        settled = {} if clean_up or include_synced else destination.settled(client, patience, directories)
        work = Work(
            destination, OneAtATime(progress), patience, settled, departures, clean_up, keep_artifacts, restore_deleted
        )
        results = work.all(directories, uploads, lambda: connect(server.origin, key), done)
    return Report(server.origin, account, results)


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

    The server is asked who it is, whose key this is, and whether it still has what this disk says.

    Args:
        directories, server, key, workspace, project, run_id, timeout, include_synced, restore_deleted, patience,
            connect: as for `sync`.

    Raises:
        AuthError: the key is wrong.
        PermanentError, RetryableError: there is no flightlog server there, or it cannot be reached.
    """
    directories, patience = list(directories), patience or Patience(timeout)
    with _signed_in(server.origin, key, connect, patience) as (client, _, destination):
        destination = replace(destination, workspace=workspace, project=project, run_id=run_id)
        settled = {} if include_synced else destination.settled(client, patience, directories)
    return [_planned(directory, destination, settled, restore_deleted) for directory in directories]


def _planned(
    directory: RunDir, destination: Destination, settled: Mapping[Path, state.Synced], restore_deleted: bool
) -> Planned:
    try:
        identity, workspace = destination.identify(directory)
        known = state.load(directory).get(destination.origin)
        stands = settled.get(directory.path)
        gone = stands is not None and stands.gone and not restore_deleted
        pending = stands is None or (stands.gone and restore_deleted)
        there = known if known and known.server_id == destination.server_id else None
        size = state.unseen_bytes(directory, there) if pending else 0
        return Planned(directory, identity, workspace, pending, size, gone)
    except DamagedError as error:
        return Planned(directory, None, error=str(error))
    except OSError as error:
        return Planned(directory, None, error=in_words(error, directory))


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
