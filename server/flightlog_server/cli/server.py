"""flightlog server: run the server, and make accounts on it."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

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

    # `flightlog server --data DIR create-user NAME` means the same folder.
    given = context.get_parameter_source("data")
    folder = context.obj if context.obj and given and given.name == "DEFAULT" else data
    with opened(folder) as opened_data:
        key = make(opened_data, name)
    if as_json:
        click.echo(orjson.dumps({"name": name, "api_key": key}))
    else:
        click.echo(f"account {name!r} was made. Its API key, shown this once:\n\n    {key}\n")
