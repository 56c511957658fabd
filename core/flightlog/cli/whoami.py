"""flightlog whoami: which account the key in use belongs to."""

from __future__ import annotations

import click
import orjson

from .. import keys, settings
from ..client import Client, Patience
from ..terminal import printable


@click.command()
@click.argument("server", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def whoami(server: str | None, as_json: bool) -> None:
    """Show which account the key in use for SERVER belongs to; without SERVER, the one signed in to last."""
    chosen = keys.choose_server(settings.load(), server)
    key = keys.find_key(chosen)
    with Client(chosen.origin, None) as anonymous:
        Patience(0).call(anonymous.hello)
    with Client(chosen.origin, key) as client:
        account = client.account()
    if as_json:
        workspaces = [{"name": name, "role": role} for name, role in account.workspaces]
        shown = {"server": chosen.origin, "user": {"name": account.name}, "workspaces": workspaces}
        click.echo(orjson.dumps({**shown, "default_workspace": account.default_workspace}))
        return
    listed = ", ".join(f"{name} ({role})" for name, role in account.workspaces)
    click.echo(printable(f"{account.name} at {chosen.origin}; workspaces: {listed}"))
