"""The desktop's own store of secrets (Secret Service, KWallet, macOS Keychain, Windows), by the optional `keyring`.

It is used only where there is a real one, and never waited for without end: a locked keychain without anybody to
unlock it must not hold up a job.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from .terminal import has_terminal

T = TypeVar("T")
SERVICE = "flightlog"
_SECONDS = 5.0
_SECONDS_TO_UNLOCK = 60.0  # somebody has to type a password into a dialog
# What keyring calls recommended; what is below keeps secrets in plain files, and is used where the user has named it.
_LEAST_PRIORITY = 1.0


class KeychainError(Exception):
    """The keychain did not do it; the text says why."""


def name() -> str | None:
    """Return what the keychain is called; None where there is no real one, or it does not answer."""
    try:
        return _within(lambda: _backend_name(_backend()))
    except KeychainError:
        return None


def put(origin: str, key: str) -> None:
    """Keep the key of a server. Raises KeychainError."""
    _within(lambda: _needed().set_password(SERVICE, origin, key))


def get(origin: str) -> str | None:
    """Return the key of a server, None where none is kept. Raises KeychainError."""
    found = _within(lambda: _needed().get_password(SERVICE, origin))
    return found if isinstance(found, str) else None


def delete(origin: str) -> None:
    """Forget the key of a server. Raises KeychainError."""
    _within(lambda: _delete(origin))


def _delete(origin: str) -> None:
    import keyring.errors

    try:
        _needed().delete_password(SERVICE, origin)
    except keyring.errors.PasswordDeleteError:
        return  # none was kept


def _backend() -> Any:
    """Return keyring's backend where it is a real one."""
    try:
        import keyring
    except ImportError:
        return None
    backend = keyring.get_keyring()
    if type(backend).__module__ in ("keyring.backends.fail", "keyring.backends.null"):
        return None
    return backend if float(backend.priority) >= _LEAST_PRIORITY or _is_named() else None


def _is_named() -> bool:
    """Tell whether the user has said which backend is to be used, by a variable or in keyring's own settings."""
    import keyring.core

    return (keyring.core.load_env() or keyring.core.load_config()) is not None


def _needed() -> Any:
    backend = _backend()
    if backend is None:
        raise KeychainError("there is no keyring here")
    return backend


def _backend_name(backend: Any) -> str | None:
    return None if backend is None else str(getattr(backend, "name", type(backend).__name__))


def _within(work: Callable[[], T]) -> T:
    """Return what `work` returns, or give up on it after a while. Its errors, whatever they are, are KeychainErrors."""
    done: list[T] = []
    failed: list[str] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # backends raise what they please; a secret is never in the name
            failed.append(str(error) if isinstance(error, KeychainError) else type(error).__name__)

    thread = threading.Thread(target=run, daemon=True, name="flightlog-keychain")
    thread.start()
    seconds = _SECONDS_TO_UNLOCK if has_terminal() else _SECONDS
    thread.join(seconds)
    if done:
        return done[0]
    raise KeychainError(failed[0] if failed else f"no answer within {seconds:.0f} s; it may be locked")
