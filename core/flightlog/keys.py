"""API keys: which one goes to which server, and where they are kept.

A key is bound to its server's origin. An address that a project file names never gets the key of FLIGHTLOG_API_KEY
without a question: the file may have come with a cloned repository. Nor does any key go over plain http beyond this
machine unless its owner has said so, once, at `flightlog login --insecure`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from .errors import KeyNeeded, SettingsError
from .origin import is_loopback, origin_of
from .rundir import atomic_write
from .settings import DEFAULT_SERVER, Settings, config_home


@dataclass(frozen=True, slots=True)
class Server:
    """A server to talk to: its origin, and whether the user himself named it (not a file he may not have read)."""

    origin: str
    trusted: bool


def _path() -> Path:
    return config_home() / "credentials.json"


def _read() -> dict[str, Any]:
    path = _path()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {"servers": {}}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    try:
        found = orjson.loads(content)
        if isinstance(found, dict) and isinstance(found.get("servers"), dict):
            return found
    except ValueError:
        pass
    raise SettingsError(f"{path} is damaged; remove it and sign in again with `flightlog login`")


def _write(content: dict[str, Any]) -> None:
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    atomic_write(path, orjson.dumps(content, option=orjson.OPT_INDENT_2), mode=0o600)


def store(origin: str, key: str, *, insecure: bool) -> None:
    """Keep a key for a server, which becomes the one used where none is named. Raises OSError."""
    content = _read()
    content["servers"][origin] = {"api_key": key, "insecure": insecure}
    content["default"] = origin
    _write(content)


def forget(origin: str) -> bool:
    """Forget the key of a server. Returns False where none was kept."""
    content = _read()
    known = content["servers"].pop(origin, None) is not None
    if content.get("default") == origin:
        content["default"] = next(iter(content["servers"]), None)
    if known:
        _write(content)
    return known


def choose_server(settings: Settings, argument: str | None = None) -> Server:
    """Return the server to use: the argument, the settings' base_url, the last login, or one on this machine."""
    if argument:
        return Server(origin_of(argument), True)
    if settings.base_url:
        return Server(
            origin_of(settings.base_url), settings.sources["base_url"] == "environment" or _is_user_file(settings)
        )
    default = _read().get("default")
    return Server(origin_of(default or DEFAULT_SERVER), True)


def _is_user_file(settings: Settings) -> bool:
    return settings.sources["base_url"] == str(config_home() / "settings.toml")


def stored(origin: str) -> str | None:
    """Return the key kept for a server."""
    entry = _read()["servers"].get(origin)
    key = entry.get("api_key") if isinstance(entry, dict) else None
    return key if isinstance(key, str) else None


def may_ask() -> bool:
    """Tell whether somebody at a terminal can answer a question."""
    with contextlib.suppress(AttributeError, ValueError):
        return sys.stdin.isatty() and sys.stderr.isatty()
    return False


def find_key(server: Server, *, asking: bool = True) -> str:
    """Return the key for a server: FLIGHTLOG_API_KEY, else the stored login, else what is typed at the terminal.

    Args:
        server: where it is to go.
        asking: whether somebody may be asked at the terminal; in a training, nobody.

    Raises:
        KeyNeeded: there is none, or it must not go there, and nobody is there to ask.
    """
    kept = stored(server.origin)
    from_environment = os.environ.get("FLIGHTLOG_API_KEY", "").strip()
    if from_environment:
        _check_line(server, from_environment == kept)
        if server.trusted or from_environment == kept or (kept is None and _agreed(server, asking)):
            return _checked(from_environment)
    if kept:
        return _checked(kept)
    if not (asking and may_ask()):
        raise KeyNeeded(
            f"no API key for {server.origin}: set FLIGHTLOG_API_KEY, or run `flightlog login {server.origin}` once"
        )
    _check_line(server, False)
    return ask(server.origin)


def _checked(key: str) -> str:
    if not key.isascii() or not key.isprintable() or " " in key:
        raise KeyNeeded("the API key holds characters that no key has; copy it again")
    return key


def _check_line(server: Server, agreed_before: bool) -> None:
    """Refuse to send a key in clear text over a network, unless that was agreed to at login."""
    if (
        server.origin.startswith("https://")
        or is_loopback(server.origin)
        or agreed_before
        or insecure_ok(server.origin)
    ):
        return
    raise KeyNeeded(
        f"{server.origin} is plain http on another machine, where anybody on the way could read the API key: "
        f"use https, or allow it once with `flightlog login --insecure {server.origin}`"
    )


def insecure_ok(origin: str) -> bool:
    """Tell whether the user has agreed to plain http for this server."""
    entry = _read()["servers"].get(origin)
    return isinstance(entry, dict) and entry.get("insecure") is True


def agree(server: Server) -> None:
    """Ask whether a server that a flightlog.toml names may have a key.

    Raises:
        KeyNeeded: the answer is no, or there is nobody to ask.
    """
    if not _agreed(server):
        raise KeyNeeded(f"no key goes to {server.origin}")


def _agreed(server: Server, asking: bool = True) -> bool:
    if not (asking and may_ask()):
        raise KeyNeeded(
            f"the address {server.origin} comes from a flightlog.toml, which does not get the key of FLIGHTLOG_API_KEY "
            f"unasked: run `flightlog login {server.origin}` once, or set FLIGHTLOG_BASE_URL yourself"
        )
    import click

    return click.confirm(f"Send an API key to {server.origin}, which a flightlog.toml names?", err=True)


def ask(origin: str) -> str:
    """Ask for a key at the terminal, unseen. Raises KeyNeeded where none is given."""
    import getpass

    try:
        key = getpass.getpass(f"API key for {origin}: ").strip()
    except (EOFError, KeyboardInterrupt):
        key = ""
    if not key:
        raise KeyNeeded(f"no API key for {origin} was given")
    return _checked(key)
