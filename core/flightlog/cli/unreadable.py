"""Folders that cannot be searched for runs, as every verb that looks for runs tells of them."""

from __future__ import annotations

from collections.abc import Iterable

import click

from ..rundir import Unreadable
from ..terminal import printable


def print_unreadable(folders: Iterable[Unreadable]) -> None:
    """Say which folders may hide runs, and why."""
    for folder in folders:
        click.echo(f"failed     {printable(str(folder))}", err=True)


def unreadable_json(folders: Iterable[Unreadable]) -> list[dict[str, str]]:
    """Return the same for programs."""
    return [{"path": str(folder.path), "error": folder.why} for folder in folders]
