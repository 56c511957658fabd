"""flightlog status: what is pending on this disk, how large and old it is, and what blocks it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .. import keys, settings
from ..client import Client, Patience
from ..errors import KeyNeeded, ServerError
from ..keys import Server
from ..sync.session import find_runs
from ..sync.standing import Standing, standing
from ..terminal import printable
from .options import json_option, paths_argument, server_option
from .text import age_text, counted, print_json, size_text
from .unreadable import print_unreadable, unreadable_json


@click.command()
@paths_argument
@server_option
@click.option("--all", "everything", is_flag=True, help="List also what has been delivered.")
@click.option("--ask", is_flag=True, help="Ask the server whether it is there and takes the key.")
@json_option
def status(paths: tuple[Path, ...], server: str | None, everything: bool, ask: bool, as_json: bool) -> None:
    """Show the runs at or below PATHS that are pending: their sizes, their ages, and what blocks them.

    What has been delivered is told from this disk alone; no server is asked but with --ask. The exit status is 0, or 1
    where a folder cannot be searched, which may hold more of them.
    """
    runs, unreadable = find_runs(paths)
    chosen = keys.choose_server(settings.load(), server)
    # A machine without a network has no server of its own; what receipts have proven is delivered all the same.
    is_named = bool(server or settings.load().base_url or keys.default_server())
    blocked = _blocked(chosen, Patience(0) if ask else None)
    found = [standing(directory, chosen.origin if is_named else None) for directory in runs]
    if as_json:
        print_json({**_as_json(chosen, blocked, found), "unreadable": unreadable_json(unreadable)})
    else:
        for each in found:
            if everything or each.pending or each.trouble:
                _print(each)
        _print_summary(found, chosen, blocked)
        print_unreadable(unreadable)
    click.get_current_context().exit(1 if unreadable else 0)


def _blocked(server: Server, patience: Patience | None) -> str | None:
    """Say what keeps anything from being delivered to a server at all; without patience, as far as this disk knows."""
    try:
        key = keys.key_at_hand(server)
        if patience is not None:
            with Client(server.origin, None) as anonymous:
                patience.call(anonymous.hello)
            with Client(server.origin, key) as client:
                patience.call(client.account)
    except (KeyNeeded, ServerError) as error:
        return str(error)
    return None


def _print(each: Standing) -> None:
    name = printable(each.identity.name if each.identity else each.directory.path.name)
    project = f" of {printable(each.identity.project)}" if each.identity else ""
    amount = f"{size_text(each.pending_bytes)} of {size_text(each.bytes)}" if each.pending else size_text(each.bytes)
    click.echo(f"{each.word:9}  {name}{project}: {amount}, {printable(each.note)}{_age(each)}")
    click.echo(f"           {printable(str(each.directory.path))}")
    if each.trouble:
        click.echo(f"           {printable(each.trouble)}")


def _age(each: Standing) -> str:
    return f", {age_text(time.time() - each.last_growth)} old" if each.last_growth else ""


def _print_summary(found: Sequence[Standing], server: Server, blocked: str | None) -> None:
    pending = [s for s in found if s.pending and not s.stuck]
    stuck = sum(s.stuck for s in found)
    if not found:
        click.echo("no runs below this folder")
    elif not pending and not stuck:
        click.echo(f"nothing pending among {counted(len(found), 'run')} below here (--all lists them)")
    elif pending:
        total = size_text(sum(s.pending_bytes for s in pending))
        click.echo(f"{counted(len(pending), 'run')} pending for {server.origin}, {total}; flightlog sync delivers them")
    if stuck:
        click.echo(f"{counted(stuck, 'run')} cannot be delivered as {'it is' if stuck == 1 else 'they are'}")
    if pending and blocked:
        click.echo(f"blocked: {printable(blocked)}")


def _as_json(server: Server, blocked: str | None, found: Sequence[Standing]) -> dict[str, Any]:
    return {
        "server": server.origin,
        "blocked": blocked,
        "pending": sum(s.pending for s in found),
        "pending_bytes": sum(s.pending_bytes for s in found if s.pending),
        "runs": [
            {
                "path": str(s.directory.path),
                "id": s.identity.id if s.identity else None,
                "project": s.identity.project if s.identity else None,
                "name": s.identity.name if s.identity else None,
                "status": s.word,
                "pending": s.pending,
                "bytes": s.bytes,
                "pending_bytes": s.pending_bytes if s.pending else 0,
                "last_growth": s.last_growth or None,
                "note": s.note,
                "trouble": s.trouble,
                "delivered_to": s.server if not s.pending else None,
                "url": s.url,
            }
            for s in found
        ],
    }
