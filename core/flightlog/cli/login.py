"""flightlog login: keep an API key for a server."""

from __future__ import annotations

import os
import sys

import click

from .. import keys, settings
from ..client import Client, Patience
from ..errors import FlightlogError, KeyNeeded
from ..origin import is_loopback
from ..terminal import printable


def _only_stdin(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse a key on the command line, without repeating it."""
    if value is not None and value != "-":
        raise click.BadParameter(
            "a key on the command line can be seen in the list of processes and stays in the shell's history. Leave "
            "--key out to be asked for it, or pipe it into `--key -`. If this was a key: revoke it."
        )
    return value


@click.command()
@click.argument("server", required=False)
@click.option("--key", metavar="-", callback=_only_stdin, help="With `-`: read the key from stdin.")
@click.option("--no-keyring", is_flag=True, help="Keep the key in a file that only you can read, not in the keyring.")
@click.option("--insecure", is_flag=True, help="Allow sending the key over plain http to another machine.")
def login(server: str | None, key: str | None, no_keyring: bool, insecure: bool) -> None:
    """Keep an API key for SERVER (http://HOST:PORT), which becomes the one that `flightlog sync` uses.

    The key is asked for at the terminal, unseen; where there is none, it is taken from stdin (--key -) or from
    FLIGHTLOG_API_KEY. It is kept in the desktop's keyring if there is one and `keyring` is installed, else in
    ~/.config/flightlog/credentials.json, which only you can read. Several servers are kept side by side.
    """
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
    given = _given(key, chosen.origin)
    with Client(chosen.origin, keys.checked(given)) as client:
        name = client.account().name
    try:
        where = keys.store(chosen.origin, given, insecure=insecure, use_keyring=not no_keyring)
    except OSError as error:
        raise FlightlogError(f"the key cannot be kept in {settings.config_home()}: {error.strerror or error}") from None
    click.echo(f"signed in to {chosen.origin} as {printable(name)}; the key is in {printable(where)}")


def _given(key: str | None, origin: str) -> str:
    """Return the key: from stdin, the terminal, or the environment. Raises KeyNeeded."""
    if key == "-":
        found = sys.stdin.readline(1000).strip()
        if not found:
            raise KeyNeeded("login --key -: nothing came in on stdin")
        return found
    if keys.may_ask():
        return keys.ask(origin)
    found = os.environ.get("FLIGHTLOG_API_KEY", "").strip()
    if not found:
        raise KeyNeeded(
            "no terminal to ask at: pipe the key in with `flightlog login --key -`, or set FLIGHTLOG_API_KEY"
        )
    return found
