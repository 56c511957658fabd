"""flightlog demo: real trainings recorded offline, delivered, read back and compared; then the page to look at."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--exit", "ends", is_flag=True, help="End after the comparison instead of keeping the server up.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to work; a fresh temporary folder without it.",
)
def demo(ends: bool, folder: Path | None) -> None:
    """Train three small models offline, deliver them to a fresh server, and compare what it holds with what was logged.

    The exit status is 0 only if the comparison held.
    """
    from ..demo import run

    click.get_current_context().exit(run(ends=ends, folder=folder))
