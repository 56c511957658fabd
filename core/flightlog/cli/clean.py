"""flightlog clean: delete from this disk what a server has proven to hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from .. import keys, settings
from ..client import Patience
from ..errors import AuthError, KeyNeeded, ServerError
from ..sync.departed import Departures
from ..sync.session import find_runs
from ..sync.tidy import Authority, Tidied, Tidying, authority
from ..terminal import printable
from .options import duration, json_option, paths_argument, server_option, timeout_of, timeout_option
from .results import cleaned_json, print_kept
from .text import counted, print_json, size_text
from .unreadable import print_unreadable, unreadable_json


@click.command()
@paths_argument
@server_option
@click.option(
    "--older-than", callback=duration, metavar="AGE", help="Only runs that have not grown for so long: 12h, 7d, 2w."
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--keep-artifacts", is_flag=True, help="Leave the files of artifacts on this disk.")
@timeout_option
@json_option
@click.option("--quiet", is_flag=True, help="Print only what went wrong.")
def clean(
    paths: tuple[Path, ...],
    server: str | None,
    older_than: float | None,
    dry_run: bool,
    keep_artifacts: bool,
    timeout: float | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Delete the runs at or below PATHS that were delivered earlier; without PATHS, those below this folder.

    Each is read anew, and goes only if the server, asked now, holds every byte of it; where no server can be asked, if
    an imported receipt says so. A run that is running, that ended without finishing less than 24 hours ago, or that is
    damaged, stays. What stays is no error: the exit status is 0 unless something went wrong (1), or the key is wrong,
    or a path is no run (2).
    """
    runs, unreadable = find_runs(paths)
    results: list[Tidied] = []
    with _asked(server, Patience(timeout_of(timeout)), silent=as_json or quiet or not runs) as asked:
        departures = Departures(runs, asked.origin if asked else None)
        work = Tidying(asked, departures, older_than or 0.0, dry_run, keep_artifacts)
        for directory in runs:
            result = work.one(directory)
            results.append(result)
            if not as_json:
                _print(result, quiet)
    if as_json:
        listed = [_as_json(r) for r in results]
        print_json({"dry_run": dry_run, "runs": listed, "unreadable": unreadable_json(unreadable)})
    else:
        print_unreadable(unreadable)
        if not quiet:
            _print_summary(results, dry_run)
    click.get_current_context().exit(1 if unreadable or any(r.failed for r in results) else 0)


@contextmanager
def _asked(server: str | None, patience: Patience, *, silent: bool) -> Iterator[Authority | None]:
    """Give the server to ask, or None where nobody can be asked. Raises AuthError where the key is wrong."""
    chosen = keys.choose_server(settings.load(), server)
    try:
        entered = authority(chosen.origin, keys.key_at_hand(chosen), patience)
        asked = entered.__enter__()
    except AuthError:
        raise
    except (KeyNeeded, ServerError) as error:
        if server is not None:
            raise
        if not silent:
            click.echo(f"flightlog: {printable(str(error))}; going by imported receipts alone", err=True)
        yield None
        return
    try:
        yield asked
    finally:
        entered.__exit__(None, None, None)


def _name(result: Tidied) -> str:
    return printable(result.identity.name if result.identity else result.directory.path.name)


def _print(result: Tidied, quiet: bool) -> None:
    if result.reason is not None:
        word = "failed     " if result.failed else "kept       "
        if result.failed or not quiet:
            click.echo(f"{word} {_name(result)}: {printable(result.reason)}", err=result.failed)
        return
    if quiet:
        return
    if _is_by_another(result):
        click.echo(f"gone        {_name(result)}: another process has cleaned it meanwhile")
        return
    size = result.cleaned.freed if result.cleaned else result.bytes
    click.echo(f"{result.decision:11} {_name(result)}: {size_text(size)}, proven by {result.proof}")
    if result.cleaned is not None:
        print_kept(result.cleaned, quiet)


def _is_by_another(result: Tidied) -> bool:
    return result.cleaned is not None and result.cleaned.by_another


def _print_summary(results: Sequence[Tidied], dry_run: bool) -> None:
    if not results:
        click.echo("no runs below this folder")
        return
    others = sum(map(_is_by_another, results))
    kept = sum(r.reason is not None for r in results)
    gone = [r for r in results if r.reason is None and not _is_by_another(r)]
    size = sum(r.cleaned.freed if r.cleaned else r.bytes for r in gone)
    verb = "would be cleaned" if dry_run else "cleaned"
    words = f"{counted(len(gone), 'run')} {verb}, {size_text(size)}; {kept} kept"
    click.echo(words + (f"; {others} cleaned by another process" if others else ""))


def _as_json(result: Tidied) -> dict[str, Any]:
    return {
        "path": str(result.directory.path),
        "id": result.identity.id if result.identity else None,
        "project": result.identity.project if result.identity else None,
        "name": result.identity.name if result.identity else None,
        "status": "failed" if result.failed else result.decision.replace(" ", "_"),
        "proof": result.proof,
        "reason": result.reason,
        "missing": result.missing,
        "bytes": result.bytes,
        "cleaned": cleaned_json(result.cleaned) if result.cleaned else None,
    }
