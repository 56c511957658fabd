"""flightlog login: keep an API key for a server."""

from __future__ import annotations

import sys

import click

from .. import keys, settings
from ..client import Client, Patience
from ..errors import FlightlogError, KeyNeeded
from ..origin import is_loopback
from ..terminal import printable


@click.command()
@click.argument("server", required=False)
@click.option(
    "--key", metavar="KEY", help="The key; `-` reads it from stdin. Better than on the command line: neither."
)
@click.option("--insecure", is_flag=True, help="Allow sending the key over plain http to another machine.")
def login(server: str | None, key: str | None, insecure: bool) -> None:
    """Keep an API key for SERVER (http://HOST:PORT), which becomes the one that `flightlog sync` uses.

    The key is asked for at the terminal, or taken from FLIGHTLOG_API_KEY or --key where there is none. It is kept in
    ~/.config/flightlog/credentials.json, which only you can read.
    """
    import os

    chosen = keys.choose_server(settings.load(), server)
    if not (chosen.origin.startswith("https://") or is_loopback(chosen.origin) or insecure):
        raise KeyNeeded(
            f"{chosen.origin} is plain http on another machine, where anybody on the way could read the API key: use "
            "https, or add --insecure if you trust that network"
        )
    if not chosen.trusted:
        keys.agree(chosen)
    with Client(chosen.origin, None) as anonymous:
        Patience(0).call(anonymous.hello)
    if key == "-":
        key = sys.stdin.readline().strip()
        if not key:
            raise KeyNeeded("login --key -: nothing came in on stdin")
    elif key is None:
        key = keys.ask(chosen.origin) if keys.may_ask() else os.environ.get("FLIGHTLOG_API_KEY", "").strip()
    if not key:
        raise KeyNeeded(
            "no terminal to ask at: pipe the key in with `flightlog login --key -`, or set FLIGHTLOG_API_KEY"
        )
    with Client(chosen.origin, key) as client:
        name = client.account().name
    try:
        keys.store(chosen.origin, key, insecure=insecure)
    except OSError as error:
        raise FlightlogError(f"the key cannot be kept in {settings.config_home()}: {error.strerror or error}") from None
    click.echo(f"signed in to {chosen.origin} as {printable(name)}")
