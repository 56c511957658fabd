"""flightlog whoami: which account the key in use belongs to."""

from __future__ import annotations

import click
import orjson

from .. import keys, settings
from ..client import Client, Patience


@click.command()
@click.option("--server", metavar="URL", help="The server; without it the one signed in to last.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def whoami(server: str | None, as_json: bool) -> None:
    """Show which account the key in use belongs to."""
    chosen = keys.choose_server(settings.load(), server)
    with Client(chosen.origin, None) as anonymous:
        Patience(0).call(anonymous.hello)
    with Client(chosen.origin, keys.find_key(chosen)) as client:
        account = client.json("GET", "me")
    if as_json:
        click.echo(orjson.dumps({"server": chosen.origin, **account}))
        return
    workspaces = ", ".join(f"{w['name']} ({w['role']})" for w in account["workspaces"])
    click.echo(f"{account['user']['name']} at {chosen.origin}; workspaces: {workspaces}")
