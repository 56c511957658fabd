"""flightlog server: run the server, and make accounts on it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import click
import orjson

from flightlog.cli.options import duration

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("flightlog-data"),
    show_default=True,
    help="The folder that holds everything the server has.",
)


@click.group(invoke_without_command=True)
@_DATA
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="The port; 0 for a free one."
)
@click.pass_context
def server(context: click.Context, data: Path, host: str, port: int) -> None:
    """Run a flightlog server: accounts, delivery, the page. Everything is kept in one folder."""
    if context.invoked_subcommand is not None:
        context.obj = data
        return
    from .. import serve
    from ..data import first_account, opened

    with opened(data) as opened_data:
        sock = serve.listen(host, port)
        url = serve.address_of(sock, host)
        first = first_account(opened_data)
        click.echo(f"flightlog server at {url}, data in {data}")
        if first:
            name, key = first
            click.echo(f"This is its first start; the account {name!r} was made. Its API key, shown this once:")
            click.echo(f"\n    {key}\n")
            click.echo(f"Open {url} and sign in with it; on the machines that record:  flightlog login {url}")
            click.echo(f"Accounts for others:  flightlog server create-user NAME --data {data}")
        serve.run(opened_data, sock)


@server.command("create-user")
@click.argument("name")
@_DATA
@click.option("--json", "as_json", is_flag=True, help='Print {"name": …, "api_key": …}.')
@click.pass_context
def create_user(context: click.Context, name: str, data: Path, as_json: bool) -> None:
    """Make an account and print its API key, which is shown this once. The server may be running."""
    from ..data import create_user as make
    from ..data import opened

    with opened(_folder(context, data)) as opened_data:
        key = make(opened_data, name)
    if as_json:
        click.echo(orjson.dumps({"name": name, "api_key": key}))
    else:
        click.echo(f"account {name!r} was made. Its API key, shown this once:\n\n    {key}\n")


def _folder(context: click.Context, data: Path) -> Path:
    """Return the data folder of a subcommand: `flightlog server --data DIR create-user NAME` means that one, too."""
    given = context.get_parameter_source("data")
    return context.obj if context.obj and given and given.name == "DEFAULT" else data


@server.command("create-key")
@click.argument("name")
@_DATA
@click.option("--expires", callback=duration, metavar="AGE", help="For how long it is good: 12h, 30d, 52w.")
@click.option("--read-only", is_flag=True, help="It is for reading only: no sync, no change.")
@click.option("--json", "as_json", is_flag=True, help='Print {"name": …, "api_key": …}.')
@click.pass_context
def create_key(
    context: click.Context, name: str, data: Path, expires: float | None, read_only: bool, as_json: bool
) -> None:
    """Make another API key for the account NAME and print it, this once. The server may be running."""
    from ..data import create_key as make
    from ..data import opened

    with opened(_folder(context, data)) as opened_data:
        key = make(opened_data, name, seconds=expires, read_only=read_only)
    if as_json:
        click.echo(orjson.dumps({"name": name, "api_key": key}))
    else:
        click.echo(f"An API key of {name!r}, shown this once:\n\n    {key}\n")


@server.command("list-keys")
@click.argument("name", required=False)
@_DATA
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_keys(context: click.Context, name: str | None, data: Path, as_json: bool) -> None:
    """Show the API keys of the account NAME, or of all: their public beginnings, and until when they are good."""
    from ..data import list_keys as look
    from ..data import opened

    with opened(_folder(context, data)) as opened_data:
        found = look(opened_data, name)
    if as_json:
        click.echo(orjson.dumps({"keys": [{**asdict(key), "state": key.state} for key in found]}))
        return
    for key in found:
        ends = f", until {_date(key.expires_at)}" if key.expires_at is not None else ""
        scope = ", read-only" if key.scope == "read" else ""
        click.echo(f"{key.hint}  {key.user}: {key.state}, made {_date(key.created_at)}{ends}{scope}")


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


@server.command("revoke-key")
@click.argument("beginning")
@_DATA
@click.pass_context
def revoke_key(context: click.Context, beginning: str, data: Path) -> None:
    """Revoke the API key with this public BEGINNING (fl_ and eight characters). The server may be running."""
    from ..data import opened, revoke_key

    hint = "_".join(beginning.split("_")[:2])  # a whole key means itself, and is shown no further
    with opened(_folder(context, data)) as opened_data:
        facts = revoke_key(opened_data, hint)
    click.echo(f"{facts.hint} of {facts.user!r} is revoked, and the browser sessions that it began are over")
