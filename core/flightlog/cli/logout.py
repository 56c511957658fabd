"""flightlog logout: forget the API key of a server."""

from __future__ import annotations

import click

from .. import keys, settings


@click.command()
@click.argument("server", required=False)
def logout(server: str | None) -> None:
    """Forget the API key of SERVER, or of the one signed in to last."""
    chosen = keys.choose_server(settings.load(), server)
    if keys.forget(chosen.origin):
        click.echo(f"signed out of {chosen.origin}")
    else:
        click.echo(f"no key was kept for {chosen.origin}")
