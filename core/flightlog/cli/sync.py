"""flightlog sync: deliver recorded runs to a server."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import click
import orjson

from .. import keys, settings
from ..client import Patience
from ..errors import RetryableError
from ..protocol.names import checked_name
from ..sync.deliver import RunProgress
from ..sync.session import DEFAULT_TIMEOUT, Report, Result, find_runs
from ..sync.session import sync as deliver
from ..terminal import printable
from .watching import Watching, run_watch, watch_options


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--server", metavar="URL", help="The server; without it FLIGHTLOG_BASE_URL, or the one signed in to last."
)
@click.option("--workspace", metavar="NAME", help="The workspace all these runs go to; without it, your own.")
@click.option("--clean", is_flag=True, help="Delete from this disk what the server has proven to hold.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help=f"How long to try while the server cannot be reached ({DEFAULT_TIMEOUT:.0f}; FLIGHTLOG_SYNC_TIMEOUT).",
)
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
@click.option("--quiet", is_flag=True, help="Print only what went wrong.")
@watch_options
def sync(
    paths: tuple[Path, ...],
    server: str | None,
    workspace: str | None,
    clean: bool,
    timeout: float | None,
    as_json: bool,
    quiet: bool,
    watching: Watching,
) -> None:
    """Deliver the runs at or below PATHS; without PATHS, all below this folder.

    Interrupted at any point, the same command goes on from there; a run that is still being recorded can be synced as
    often as you like. The exit status is 0 when everything was delivered, 1 when something was not, 2 when there is no
    (valid) API key or a path is no run, 3 when all that could be read was delivered but part of it is damaged.
    """
    if workspace is not None:
        checked_name("workspace", workspace)
    if watching.watch:
        if clean:
            raise click.UsageError("--watch cannot be combined with --clean")
        chosen = keys.choose_server(settings.load(), server)
        key = keys.find_key(chosen)
        status = run_watch(paths, chosen, key, watching, workspace=workspace, as_json=as_json, quiet=quiet)
        click.get_current_context().exit(status)
    runs = find_runs(paths)
    out = _Silent() if as_json else _Quiet() if quiet else _Bars() if sys.stderr.isatty() else _Lines()
    if not runs:
        if as_json:
            click.echo(orjson.dumps({"server": None, "account": None, "runs": []}))
        elif not quiet:
            click.echo("no runs below this folder")
        return
    chosen = keys.choose_server(settings.load(), server)
    limit = _timeout(timeout)
    key = keys.find_key(chosen)  # before any bar is drawn: it may have to be asked for
    try:
        with out:
            report = deliver(
                runs,
                chosen,
                key,
                workspace=workspace,
                clean_up=clean,
                patience=Patience(limit, None if as_json else _tell_of_wait),
                progress=out,
                done=out.done,
            )
    except KeyboardInterrupt:
        click.echo("flightlog: interrupted; the same command goes on from there", err=True)
        click.get_current_context().exit(130)
    if as_json:
        click.echo(orjson.dumps(_as_json(report)))
    elif not quiet:
        _print_summary(report)
    click.get_current_context().exit(report.exit_status)


def _timeout(given: float | None) -> float:
    if given is not None:
        return given
    try:
        return float(os.environ.get("FLIGHTLOG_SYNC_TIMEOUT") or DEFAULT_TIMEOUT)
    except ValueError:
        raise click.UsageError("FLIGHTLOG_SYNC_TIMEOUT must be a number of seconds") from None


def _tell_of_wait(error: RetryableError, wait: float) -> None:
    click.echo(f"flightlog: {error}; trying again in {wait:.1f} s", err=True)


class _Silent:
    """Shows nothing on the way."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, name: str, total: int) -> RunProgress:
        return self

    def more(self, total: int) -> None:
        pass

    def advance(self, size: int) -> None:
        pass

    def end(self) -> None:
        pass

    def done(self, result: Result) -> None:
        pass


class _Quiet(_Silent):
    """Prints what went wrong, and nothing else."""

    def done(self, result: Result) -> None:
        _print_result(result, quiet=True)


class _Lines(_Silent):
    """Prints what came of each run when it is done: for logs and pipes."""

    def done(self, result: Result) -> None:
        _print_result(result, quiet=False)


class _Bars(_Silent):
    """Draws a bar with rate and time left: for a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
        )
        self._results: list[Result] = []

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        for result in self._results:  # not between the bars, which are redrawn
            _print_result(result, quiet=False)

    def begin(self, name: str, total: int) -> RunProgress:
        from rich.markup import escape

        return _Bar(self._bars, self._bars.add_task(escape(printable(name)), total=total), total)

    def done(self, result: Result) -> None:
        self._results.append(result)


class _Bar:
    """The bar of one run."""

    def __init__(self, bars: Any, task: Any, total: int) -> None:
        self._bars, self._task, self._total = bars, task, total

    def more(self, total: int) -> None:
        self._total += total
        self._bars.update(self._task, total=self._total)

    def advance(self, size: int) -> None:
        self._bars.advance(self._task, size)

    def end(self) -> None:
        self._bars.remove_task(self._task)


def _name(result: Result) -> str:
    return printable(result.identity.name if result.identity else result.directory.path.name)


def _print_result(result: Result, *, quiet: bool) -> None:
    if result.gone:
        if not quiet:
            click.echo(f"gone       {_name(result)}: deleted on the server; it stays on this disk")
    elif result.error:
        click.echo(f"failed     {_name(result)}: {printable(result.error)}", err=True)
    elif result.outcome is not None:
        _print_outcome(result, quiet)


def _print_summary(report: Report) -> None:
    delivered = sum(r.status == "delivered" for r in report.results)
    damaged = sum(r.status == "damaged" for r in report.results)
    known = sum(r.up_to_date for r in report.results)
    failed = sum(r.status == "failed" for r in report.results)
    gone = sum(r.gone for r in report.results)
    if not delivered and not damaged and not failed and not gone:
        click.echo(f"nothing to sync: {report.origin} has all {known} run{'s' * (known != 1)} below here")
        return
    parts = [f"{delivered} delivered to {report.origin} as {printable(report.account)}"]
    parts += [f"{damaged} damaged"] if damaged else []
    parts += [f"{known} up to date"] if known else []
    parts += [f"{gone} deleted on the server"] if gone else []
    parts += [f"{failed} failed"] if failed else []
    click.echo(", ".join(parts))


def _print_outcome(result: Result, quiet: bool) -> None:
    outcome = result.outcome
    assert outcome is not None
    if not quiet:
        word = "delivered " if outcome.complete else "damaged   "
        running = "" if outcome.identity.ended else ", still running" if _alive(result) else ", never finished"
        click.echo(
            f"{word} {_name(result)}: {outcome.records:,} records "
            f"({outcome.records_sent:,} new){running}  {printable(outcome.url)}"
        )
    for fault in outcome.faults[:20]:
        click.echo(f"           {printable(fault)}", err=True)
    if len(outcome.faults) > 20:
        click.echo(f"           … and {len(outcome.faults) - 20} more (--json lists all)", err=True)
    if result.cleaned is not None:
        _print_cleaned(result, quiet)


def _alive(result: Result) -> bool:
    from ..sync.local import alive

    return result.directory.path.exists() and alive(result.directory)


def _print_cleaned(result: Result, quiet: bool) -> None:
    cleaned = result.cleaned
    assert cleaned is not None
    if cleaned.reason:
        click.echo(f"           kept on disk: {cleaned.reason}", err=quiet)
    elif not quiet:
        click.echo(f"           cleaned: {cleaned.freed / 1e6:.1f} MB freed in {result.directory.path}")
    for path in cleaned.kept[:20]:
        click.echo(f"           kept on disk, as no record names it: {printable(path)}", err=quiet)


def _as_json(report: Report) -> dict[str, Any]:
    return {"server": report.origin, "account": report.account, "runs": [_result_json(r) for r in report.results]}


def _result_json(result: Result) -> dict[str, Any]:
    outcome, cleaned = result.outcome, result.cleaned
    shown: dict[str, Any] = {
        "path": str(result.directory.path),
        "id": result.identity.id if result.identity else None,
        "project": result.identity.project if result.identity else None,
        "name": result.identity.name if result.identity else None,
        "status": result.status.replace(" ", "_"),
        "error": result.error,
    }
    if outcome is not None:
        shown.update(
            workspace=outcome.workspace,
            url=outcome.url,
            records=outcome.records,
            records_sent=outcome.records_sent,
            bytes_sent=outcome.bytes_sent,
            faults=outcome.faults,
        )
    if cleaned is not None:
        shown["cleaned"] = {"reason": cleaned.reason, "freed": cleaned.freed, "kept": cleaned.kept}
    return shown
