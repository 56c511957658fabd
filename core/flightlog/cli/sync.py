"""flightlog sync: deliver recorded runs to a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from .. import keys, settings
from ..client import CONNECT_TIMEOUT, READ_TIMEOUT, Client, Patience
from ..errors import DamagedError, FlightlogError, KeyNeeded, RetryableError, SettingsError, UsageError
from ..keys import Server
from ..protocol.names import checked_name
from ..rundir import RunDir, Unreadable
from ..sync import bundle, session
from ..sync.local import identify
from ..sync.pace import Pace
from ..sync.session import DEFAULT_UPLOADS, Report, find_runs
from ..sync.tidy import bytes_on_disk
from ..terminal import printable, typed
from .options import json_option, paths_argument, rate, server_option, timeout_of, timeout_option
from .progress import Bars, Lines, bars, has_bars
from .results import Shown
from .text import print_json
from .unreadable import print_unreadable, unreadable_json
from .watching import Watching, run_watch, tell_of_refusal, watch_options

# Less than this a server that works may need for an answer.
_SHORTEST_WAIT = 10.0
# By parameter: the option, and why a watch has no use for it.
_NOT_WITH_WATCH = {
    "run_id": ("--id", "it would make one run of all that are found; name it in a plain `flightlog sync`"),
    "dry_run": ("--dry-run", "`flightlog status` and `flightlog sync --dry-run` say what is pending now"),
    "include_synced": ("--include-synced", "a watch asks the server about each run that it finds anyway"),
    "restore_deleted": ("--restore-deleted", "what is deleted on the server would come back again and again"),
    "timeout": ("--timeout", "it goes on trying; --give-up-after limits that for runs that have ended"),
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options ask for; see the command's help."""

    workspace: str | None
    project: str | None
    run_id: str | None
    clean: bool
    keep_artifacts: bool
    dry_run: bool
    include_synced: bool
    restore_deleted: bool
    uploads: int
    bandwidth: float | None
    timeout: float | None
    as_json: bool
    quiet: bool


@click.command()
@paths_argument
@server_option
@click.option("--workspace", metavar="NAME", help="The workspace all these runs go to; without it, your own.")
@click.option("--project", metavar="NAME", help="The project all these runs go to, whatever they were recorded for.")
@click.option("--id", "run_id", metavar="ID", help="The id that the run gets there.")
@click.option("--clean", is_flag=True, help="Delete from this disk what the server has proven to hold.")
@click.option("--keep-artifacts", is_flag=True, help="With --clean: leave the files of artifacts on this disk.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--include-synced", is_flag=True, help="Look whole also at runs that the server says it has.")
@click.option("--restore-deleted", is_flag=True, help="Bring back runs that were deleted on the server.")
@timeout_option
@click.option(
    "-n",
    "--uploads",
    type=click.IntRange(1, 64),
    default=DEFAULT_UPLOADS,
    show_default=True,
    metavar="N",
    help="How many uploads are under way at once.",
)
@click.option("--bandwidth", callback=rate, metavar="LIMIT", help="Send no faster: 500k, 10M (bytes a second), 10Mbit.")
@json_option
@click.option("--quiet", is_flag=True, help="Print only what went wrong.")
@watch_options
def sync(
    paths: tuple[Path, ...],
    server: str | None,
    workspace: str | None,
    project: str | None,
    run_id: str | None,
    clean: bool,
    keep_artifacts: bool,
    dry_run: bool,
    include_synced: bool,
    restore_deleted: bool,
    timeout: float | None,
    uploads: int,
    bandwidth: float | None,
    as_json: bool,
    quiet: bool,
    watching: Watching,
) -> None:
    """Deliver the runs at or below PATHS, and those in bundles; without PATHS, all below this folder.

    Interrupted at any point, the same command goes on from there; a run that is still being recorded can be synced as
    often as you like. The exit status is 0 when everything was delivered, 1 when something was not, 2 when there is no
    (valid) API key or a path is no run, 3 when all that could be read was delivered but part of it is damaged, and 130
    when it was interrupted.
    """
    for what, name in (("workspace", workspace), ("project", project), ("run id", run_id)):
        if name is not None:
            checked_name(what, name)
    wishes = Wishes(
        workspace,
        project,
        run_id,
        clean,
        keep_artifacts,
        dry_run,
        include_synced,
        restore_deleted,
        uploads,
        bandwidth,
        timeout,
        as_json,
        quiet,
    )
    if watching.watch:
        click.get_current_context().exit(_watch(paths, server, watching, wishes))
    _refuse_without_watch()
    bundles, places = _told_apart(paths)
    _check(wishes, bundles)
    runs, unreadable = find_runs(places) if places or not bundles else ([], [])
    if not as_json:
        print_unreadable(unreadable)
    if not runs and not bundles:
        if as_json:
            print_json({"server": None, "account": None, "runs": [], "unreadable": unreadable_json(unreadable)})
        elif not quiet:
            click.echo("no runs below this folder")
        click.get_current_context().exit(1 if unreadable else 0)
    patience = Patience(timeout_of(timeout), None if as_json or quiet else _tell_of_wait)
    chosen = keys.choose_server(settings.load(), server)
    key = keys.find_key(chosen)  # before any bar is drawn: it may have to be asked for
    try:
        with _unpacked(bundles, wishes) as opened:
            opened.unreadable = unreadable
            runs = [*runs, *opened.runs]
            work = _nothing if not runs else _plan if dry_run else _deliver
            status = work(runs, opened, chosen, key, patience, wishes)
    except KeyboardInterrupt:
        click.echo("flightlog: interrupted; the same command goes on from there", err=True)
        status = 130
    click.get_current_context().exit(status)


def _watch(paths: Sequence[Path], server: str | None, watching: Watching, wishes: Wishes) -> int:
    """Go on delivering until stopped. Returns the exit status."""
    _refuse_with_watch()
    _check(wishes, ())
    chosen = keys.choose_server(settings.load(), server)
    try:
        key = keys.find_key(chosen)
    except (KeyNeeded, SettingsError) as error:
        if watching.follower:
            tell_of_refusal(paths, chosen.origin, error)
        raise
    from ..sync import watch
    from ..sync.link import Link

    connect = Pace(wishes.bandwidth).connect if wishes.bandwidth else Client
    link = Link(chosen, key, wishes.workspace, connect, wishes.project)
    wanted = watch.Wishes(
        watching.interval,
        watching.until_finished,
        watching.all_users,
        watching.give_up_after,
        wishes.uploads,
        wishes.clean,
        wishes.keep_artifacts,
    )
    return run_watch(paths, link, wanted, follower=watching.follower, as_json=wishes.as_json, quiet=wishes.quiet)


def _is_given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) == click.core.ParameterSource.COMMANDLINE


def _refuse_with_watch() -> None:
    """Refuse options that mean nothing to a watch, and say why."""
    for option, (name, why) in _NOT_WITH_WATCH.items():
        if _is_given(option):
            raise UsageError(f"--watch cannot be combined with {name}: {why}")


def _refuse_without_watch() -> None:
    """Refuse options that only a watch has."""
    for option in Watching._fields:
        if option != "watch" and _is_given(option):
            raise UsageError(f"--{option.replace('_', '-')} is for --watch; add that")


def _told_apart(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return which paths are bundles, and which others there are."""
    bundles: list[Path] = []
    others: list[Path] = []
    for path in paths:
        (bundles if bundle.is_bundle(path) else others).append(path)
    return bundles, others


def _check(wishes: Wishes, bundles: Sequence[Path]) -> None:
    if wishes.keep_artifacts and not wishes.clean:
        raise UsageError("--keep-artifacts says what --clean is to leave; add --clean")
    if wishes.clean and wishes.dry_run:
        raise UsageError("what would be deleted is said by `flightlog clean --dry-run`")
    if wishes.clean and bundles:
        raise UsageError(
            f"{bundles[0]} is a bundle, of which nothing is cleaned; `flightlog receipt export` brings the proof to "
            "the machine that its runs are on"
        )


def _tell_of_wait(error: RetryableError, wait: float) -> None:
    click.echo(f"flightlog: {printable(str(error))}; trying again in {wait:.1f} s", err=True)


# -- bundles -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Opened:
    """Bundles that have been unpacked: their runs, where they are and what they are called, and which are bad; and the
    folders beside them that cannot be searched."""

    runs: list[RunDir] = field(default_factory=list)
    places: dict[Path, Path] = field(default_factory=dict)
    bad: list[tuple[Path, str]] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    @property
    def is_all(self) -> bool:
        """Whether nothing may be left out of what was asked for."""
        return not self.bad and not self.unreadable


@contextmanager
def _unpacked(paths: Sequence[Path], wishes: Wishes) -> Iterator[_Opened]:
    """Unpack bundles; those that cannot be do not stop the others."""
    opened = _Opened()
    with ExitStack() as stack:
        for path in paths:
            try:
                runs = stack.enter_context(_shown_unpacking(path, wishes))
            except (FlightlogError, OSError) as error:
                words = str(error) if isinstance(error, FlightlogError) else f"{path}: {error.strerror or error}"
                opened.bad.append((path, words))
                if not wishes.as_json:
                    click.echo(f"failed     {printable(words)}", err=True)
                continue
            opened.runs += runs
            opened.places[bundle.place_of(runs)] = path
        yield opened


@contextmanager
def _shown_unpacking(path: Path, wishes: Wishes) -> Iterator[list[RunDir]]:
    with ExitStack() as stack:
        if wishes.quiet or wishes.as_json or not has_bars():
            yield stack.enter_context(bundle.unpacked(path.resolve()))
            return
        with bars() as drawn:
            task = drawn.add_task(f"unpacking {printable(path.name)}", total=path.stat().st_size)
            runs = stack.enter_context(bundle.unpacked(path.resolve(), advance=lambda n: drawn.advance(task, n)))
        yield runs


# -- doing it ----------------------------------------------------------------------------------------------------------


def _connect(wishes: Wishes) -> session.Connect:
    """Return what makes clients: they wait for an answer about as long as the user wants to try at all."""
    answer = min(max(timeout_of(wishes.timeout), _SHORTEST_WAIT), READ_TIMEOUT)
    timeout = (CONNECT_TIMEOUT, answer)
    return Pace(wishes.bandwidth, timeout).connect if wishes.bandwidth else partial(Client, timeout=timeout)


def _nothing(runs: list[RunDir], opened: _Opened, server: Server, key: str, patience: Patience, wishes: Wishes) -> int:
    """All bundles are bad, which has been said, and there is nothing else. Returns the exit status."""
    if wishes.as_json:
        print_json({"server": server.origin, "account": None, **_listed([], opened)})
    return 1


def _plan(runs: list[RunDir], opened: _Opened, server: Server, key: str, patience: Patience, wishes: Wishes) -> int:
    """Say what would be sent. Returns the exit status."""
    _check_id(runs, wishes)
    planned = session.plan(
        runs,
        server,
        key,
        workspace=wishes.workspace,
        project=wishes.project,
        run_id=wishes.run_id,
        include_synced=wishes.include_synced,
        restore_deleted=wishes.restore_deleted,
        patience=patience,
        connect=_connect(wishes),
    )
    shown = Shown(wishes.quiet, opened.places)
    if wishes.as_json:
        listed = _listed([shown.plan_json(p) for p in planned], opened)
        print_json({"server": server.origin, "dry_run": True, **listed})
    else:
        shown.plan(planned, server.origin)
    return 0 if opened.is_all and not any(p.error for p in planned) else 1


def _deliver(runs: list[RunDir], opened: _Opened, server: Server, key: str, patience: Patience, wishes: Wishes) -> int:
    """Deliver, show how it goes, and say what came of it. Returns the exit status."""
    _check_id(runs, wishes)
    shown = Shown(wishes.quiet, opened.places)
    with _progress(runs, shown, wishes) as out:
        report = session.sync(
            runs,
            server,
            key,
            workspace=wishes.workspace,
            project=wishes.project,
            run_id=wishes.run_id,
            uploads=wishes.uploads,
            clean_up=wishes.clean,
            keep_artifacts=wishes.keep_artifacts,
            include_synced=wishes.include_synced,
            restore_deleted=wishes.restore_deleted,
            patience=patience,
            connect=_connect(wishes),
            progress=out,
            done=out.done,
        )
    if wishes.as_json:
        listed = _listed([shown.as_json(r) for r in report.results], opened)
        print_json({"server": report.origin, "account": report.account, **listed})
    elif not wishes.quiet and runs:
        shown.summary(report)
        _print_way_back(report, opened)
    return report.exit_status if opened.is_all else 1


def _print_way_back(report: Report, opened: _Opened) -> None:
    if opened.places and any(r.status == "delivered" for r in report.results):
        names = " ".join(typed(path) for path in opened.places.values())
        click.echo(f"to clean where they were recorded:  flightlog receipt export {printable(names)} -o receipts.json")


def _listed(runs: list[dict[str, Any]], opened: _Opened) -> dict[str, Any]:
    """Return for programs what came of runs, bad bundles among them, and which folders may hide more."""
    nothing = dict.fromkeys(("id", "project", "name"))
    bad = [{"path": str(path), **nothing, "status": "failed", "error": words} for path, words in opened.bad]
    return {"runs": runs + bad, "unreadable": unreadable_json(opened.unreadable)}


def _check_id(runs: list[RunDir], wishes: Wishes) -> None:
    """Refuse to make one run of several."""
    if wishes.run_id is None:
        return
    found = set()
    for directory in runs:
        try:
            identity = identify(directory)
        except DamagedError:
            continue
        found.add((identity.project, identity.id))
    if len(found) > 1:
        raise UsageError(f"--id would make one run of these {len(found)}; name one of them")


@contextmanager
def _progress(runs: list[RunDir], shown: Shown, wishes: Wishes) -> Iterator[Lines]:
    """Give what shows the progress."""
    if wishes.as_json:
        yield Lines(lambda result: None)
    elif wishes.quiet or not has_bars():
        yield Lines(shown.result)
    else:
        waiting = runs if wishes.clean or wishes.include_synced else [d for d in runs if _looks_pending(d)]
        with Bars(shown.result, sum(map(bytes_on_disk, waiting)), len(waiting)) as drawn:
            yield drawn


def _looks_pending(directory: RunDir) -> bool:
    """Tell, without asking anybody, whether a run is likely to be sent."""
    from ..sync import state

    return not any(state.holds_all(directory, known) for known in state.load(directory).values())
