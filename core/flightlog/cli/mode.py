"""flightlog mode, online, offline, disabled: how runs are recorded in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import projectfile, settings
from ..online import choose
from ..terminal import printable

_DIR = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=".",
    help="The folder; without it, this one.",
)


@click.command()
@_DIR
def mode(folder: Path) -> None:
    """Show in which mode runs are recorded in a folder, and why."""
    chosen = settings.load(folder=folder)
    choice = choose(chosen)
    where = f", to {choice.destination.origin}" if choice.destination else ""
    click.echo(f"{choice.mode}{where}: {printable(choice.why)}")


def _verb(name: str, what: str) -> click.Command:
    def run(folder: Path) -> None:
        path = projectfile.change(folder, "mode", name)
        click.echo(f'{path}: mode = "{name}"')
        choice = choose(settings.load(folder=folder))
        if choice.mode != name:
            click.echo(f"runs are {choice.mode} here all the same: {printable(choice.why)}")

    run.__doc__ = f"""{what}

    Writes `mode = "{name}"` to the folder's flightlog.toml, which holds for it and all folders below that have none of
    their own. An argument of `init` and FLIGHTLOG_MODE go before it; `flightlog mode` shows what holds.
    """
    decorate: Callable[[Any], click.Command] = click.command(name)
    return decorate(_DIR(run))


online = _verb("online", "Let the runs of a folder be delivered while they are recorded.")
offline = _verb("offline", "Let the runs of a folder be recorded only; `flightlog sync` delivers them later.")
disabled = _verb("disabled", "Let the runs of a folder not be recorded at all.")
