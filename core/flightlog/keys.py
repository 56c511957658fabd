"""API keys: which one goes to which server, and where they are kept.

A key is bound to its server's origin. An address that a project file names never gets the key of FLIGHTLOG_API_KEY
without a question: the file may have come with a cloned repository. Nor does any key go over plain http beyond this
machine unless its owner has said so, once, at `flightlog login --insecure`.

Keys are kept in the desktop's keyring where there is one, else in a file that only its owner can read. That file also
knows which servers there are, and which of them was signed in to last.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any, cast

import orjson

from . import keychain
from .errors import FlightlogError, KeyNeeded, SettingsError
from .origin import is_loopback, origin_of
from .rundir import atomic_write
from .settings import DEFAULT_SERVER, Settings, config_home, credentials_file
from .terminal import has_terminal

_NO_KEY = "no API key for {0}: set FLIGHTLOG_API_KEY, or run `flightlog login {0}` once"
_UNASKED = (
    "the address {0} comes from a flightlog.toml, which does not get the key of FLIGHTLOG_API_KEY unasked: run "
    "`flightlog login {0}` once, or set FLIGHTLOG_BASE_URL yourself"
)


@dataclass(frozen=True, slots=True)
class Server:
    """A server to talk to: its origin, and whether the user himself named it (not a file he may not have read)."""

    origin: str
    trusted: bool


def _read() -> dict[str, Any]:
    path = credentials_file()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {"servers": {}}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    try:
        found = orjson.loads(content)
        if _makes_sense(found):
            return cast("dict[str, Any]", found)
    except ValueError:
        pass
    raise SettingsError(f"{path} is damaged; remove it and sign in again with `flightlog login`")


def _makes_sense(found: object) -> bool:
    if not (isinstance(found, dict) and isinstance(found.get("servers"), dict)):
        return False
    entries = found["servers"].values()
    return all(isinstance(e, dict) for e in entries) and isinstance(found.get("default"), str | None)


def _write(content: dict[str, Any]) -> None:
    path = credentials_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    atomic_write(path, orjson.dumps(content, option=orjson.OPT_INDENT_2), mode=0o600)


def store(origin: str, key: str, *, insecure: bool, use_keyring: bool = True) -> str:
    """Keep a key for a server, which becomes the one used where none is named.

    Args:
        origin, key: the server and its key.
        insecure: its owner allows it to go there over plain http.
        use_keyring: keep it in the desktop's keyring, where there is one that takes it.

    Returns:
        Where it is kept, in words.

    Raises:
        OSError: it cannot be kept.
    """
    content = _read()
    keyring = keychain.name() if use_keyring else None
    if keyring is not None:
        try:
            keychain.put(origin, key)
        except keychain.KeychainError:
            keyring = None
    if keyring is None and _is_in_keyring(content["servers"].get(origin)):
        with contextlib.suppress(keychain.KeychainError):
            keychain.delete(origin)
    secret = {"api_key": key} if keyring is None else {"keyring": True}
    content["servers"][origin] = {**secret, "insecure": insecure}
    content["default"] = origin
    _write(content)
    return str(credentials_file()) if keyring is None else f"the keyring ({keyring})"


def forget(origin: str) -> bool:
    """Forget the key of a server.

    Returns:
        False where none was kept.

    Raises:
        FlightlogError: the keyring does not let go of it.
    """
    content = _read()
    entry = content["servers"].pop(origin, None)
    if content.get("default") == origin:
        content["default"] = next(iter(content["servers"]), None)
    if entry is None:
        return False
    _write(content)
    if _is_in_keyring(entry):
        try:
            keychain.delete(origin)
        except keychain.KeychainError as error:
            raise FlightlogError(
                f"the key for {origin} is not used any more, but the keyring still holds it ({error}): delete its "
                f"entry {keychain.SERVICE!r} there"
            ) from None
    return True


def known_servers() -> list[str]:
    """Return the origins of all servers that a key is kept for, the one signed in to last first."""
    content = _read()
    default = content.get("default")
    return sorted(content["servers"], key=lambda origin: (origin != default, origin))


def _is_in_keyring(entry: object) -> bool:
    return isinstance(entry, dict) and entry.get("keyring") is True


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
    """Return the key kept for a server, None where none is.

    Raises:
        KeyNeeded: there is one, and the keyring does not give it.
    """
    entry = _read()["servers"].get(origin)
    if _is_in_keyring(entry):
        return _from_keyring(origin)
    key = entry.get("api_key") if isinstance(entry, dict) else None
    return key if isinstance(key, str) else None


def _from_keyring(origin: str) -> str:
    try:
        key = keychain.get(origin)
        why = "it has none"
    except keychain.KeychainError as error:
        key, why = None, str(error)
    if key is None:
        raise KeyNeeded(
            f"the key for {origin} is in the keyring, which does not give it ({why}): unlock it, set "
            f"FLIGHTLOG_API_KEY, or sign in again with `flightlog login --no-keyring {origin}`"
        )
    return key


def may_ask() -> bool:
    """Tell whether somebody at a terminal can answer a question."""
    return has_terminal()


def find_key(server: Server) -> str:
    """Return the key for a server: FLIGHTLOG_API_KEY, else the stored login, else what is typed at the terminal.

    Raises:
        KeyNeeded: there is none, or it must not go there, and nobody is there to ask.
    """
    key = _at_hand(server)
    if key is not None:
        return key
    if _from_environment() and _agreed(server):
        _check_line(server)
        return checked(_from_environment())
    if not may_ask():
        raise KeyNeeded(_NO_KEY.format(server.origin))
    _check_line(server)
    return ask(server.origin)


def key_at_hand(server: Server) -> str:
    """Return the key for a server that needs no question: FLIGHTLOG_API_KEY where it may go there, else the stored one.

    Raises:
        KeyNeeded: there is none; the text says how to allow one.
    """
    key = _at_hand(server)
    if key is None:
        raise KeyNeeded((_UNASKED if _from_environment() else _NO_KEY).format(server.origin))
    return key


def is_in_environment(server: Server) -> bool:
    """Tell whether the key for a server that needs no question is that of FLIGHTLOG_API_KEY, or else a stored one.

    It is not fetched: the keyring, which is asked over a socket and may take its time, is left alone.

    Raises:
        KeyNeeded: there is none; the text says how to allow one.
    """
    from_environment = _from_environment()
    if from_environment and server.trusted:
        _check_line(server)
        checked(from_environment)
        return True
    entry = _read()["servers"].get(server.origin)
    if _is_in_keyring(entry) or (isinstance(entry, dict) and isinstance(entry.get("api_key"), str)):
        return False
    raise KeyNeeded((_UNASKED if from_environment else _NO_KEY).format(server.origin))


def _at_hand(server: Server) -> str | None:
    from_environment = _from_environment()
    if from_environment and server.trusted:  # without a look at the keyring, which may be locked
        _check_line(server)
        return checked(from_environment)
    kept = stored(server.origin)
    return None if kept is None else checked(kept)


def _from_environment() -> str:
    return os.environ.get("FLIGHTLOG_API_KEY", "").strip()


def default_server() -> Server | None:
    """Return the server that was signed in to last; None where there was none."""
    origin = _read().get("default")
    return Server(origin_of(origin), True) if isinstance(origin, str) else None


def checked(key: str) -> str:
    """Return a key that can be sent. Raises KeyNeeded where it cannot be one; the text does not show it."""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise KeyNeeded("the API key holds characters that no key has; copy it again")
    return key


def _check_line(server: Server) -> None:
    """Refuse to send a key in clear text over a network, unless that was agreed to at login."""
    if server.origin.startswith("https://") or is_loopback(server.origin) or insecure_ok(server.origin):
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


def _agreed(server: Server) -> bool:
    if not may_ask():
        raise KeyNeeded(_UNASKED.format(server.origin))
    import click

    return click.confirm(f"Send an API key to {server.origin}, which a flightlog.toml names?", err=True)


def ask(origin: str) -> str:
    """Ask for a key at the terminal, unseen. Raises KeyNeeded where none is given."""
    import getpass

    try:
        key = getpass.getpass(f"API key for {origin}: ").strip()
    except EOFError:
        key = ""
    if not key:
        raise KeyNeeded(f"no API key for {origin} was given")
    return checked(key)
