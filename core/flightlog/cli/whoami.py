"""flightlog whoami: which accounts the keys in use belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from .. import keys, settings
from ..client import Account, Client, Patience
from ..errors import AuthError, FlightlogError, KeyNeeded
from ..keys import Server
from ..terminal import printable
from .options import json_option
from .text import print_json


@dataclass(slots=True)
class _Answer:
    """What a server says; `error` why it does not, `no_key` that it is for want of a (valid) key."""

    origin: str
    in_use: bool
    account: Account | None = None
    error: str | None = None
    no_key: bool = False


@click.command()
@click.argument("server", required=False)
@json_option
def whoami(server: str | None, as_json: bool) -> None:
    """Show which account the key for SERVER belongs to; without SERVER, those for all servers that have one.

    The one that `flightlog sync` uses comes first. The exit status is 0 when all keys are good, 2 when one is not, 1
    when a server cannot be reached.
    """
    in_use = keys.choose_server(settings.load(), server)
    others = [] if server else [Server(origin, True) for origin in keys.known_servers() if origin != in_use.origin]
    answers = [_ask(in_use, in_use=True), *(_ask(other, in_use=False) for other in others)]
    if as_json:
        print_json({"servers": [_as_json(a) for a in answers]})
    else:
        for answer in answers:
            _print(answer, len(answers))
    click.get_current_context().exit(_status(answers))


def _ask(server: Server, *, in_use: bool) -> _Answer:
    answer = _Answer(server.origin, in_use)
    try:
        key = keys.key_at_hand(server)
        with Client(server.origin, None) as anonymous:
            Patience(0).call(anonymous.hello)
        with Client(server.origin, key) as client:
            answer.account = client.account()
    except FlightlogError as error:
        answer.error, answer.no_key = str(error), isinstance(error, KeyNeeded | AuthError)
    return answer


def _status(answers: Sequence[_Answer]) -> int:
    return 2 if any(a.no_key for a in answers) else 1 if any(a.error for a in answers) else 0


def _print(answer: _Answer, number: int) -> None:
    mark = "* " if number > 1 and answer.in_use else "  " if number > 1 else ""
    if answer.account is None:
        click.echo(f"{mark}{answer.origin}: {printable(str(answer.error))}", err=True)
        return
    account = answer.account
    listed = ", ".join(f"{name} ({role})" for name, role in account.workspaces)
    scope = "" if account.may_write else "; this key is for reading only"
    click.echo(printable(f"{mark}{account.name} at {answer.origin}; workspaces: {listed}{scope}"))


def _as_json(answer: _Answer) -> dict[str, Any]:
    account = answer.account
    return {
        "server": answer.origin,
        "in_use": answer.in_use,
        "user": {"name": account.name} if account else None,
        "workspaces": [{"name": name, "role": role} for name, role in account.workspaces] if account else [],
        "default_workspace": account.default_workspace if account else None,
        "may_write": account.may_write if account else None,
        "error": answer.error,
    }
