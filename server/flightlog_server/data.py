"""A server's data folder: the database, the objects, and the first account."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flightlog.errors import FlightlogError, UsageError

from . import accounts
from .store.database import Database, sqlite_url
from .store.migrate import migrate
from .store.objects import LocalObjects


@dataclass(frozen=True, slots=True)
class Data:
    """An open data folder."""

    folder: Path
    database: Database
    objects: LocalObjects


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Data]:
    """Open a data folder, made and migrated as needed.

    Raises:
        FlightlogError: it cannot be made or written.
    """
    import sqlalchemy.exc

    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = Database(sqlite_url(folder))
        try:
            migrate(database)
            yield Data(folder, database, LocalObjects(folder / "objects"))
        finally:
            database.close()
    except (OSError, sqlalchemy.exc.DatabaseError) as error:
        reason = getattr(error, "orig", None) or getattr(error, "strerror", None) or error
        raise FlightlogError(f"the data folder {folder} cannot be used: {reason}") from None


def first_account(data: Data) -> tuple[str, str] | None:
    """Make the admin account if there is none yet; return its name and key, or None."""
    with data.database.write() as connection:
        if accounts.has_admin(connection):
            return None
        name = accounts.free_name(connection, "admin")
        return name, accounts.create_user(connection, name, is_admin=True)


def create_user(data: Data, name: str) -> str:
    """Make an account and return its API key. Raises UsageError where the name cannot be used."""
    try:
        with data.database.write() as connection:
            return accounts.create_user(connection, name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def create_key(data: Data, name: str, *, seconds: float | None, read_only: bool) -> str:
    """Make another API key for an account and return it.

    Args:
        data: the data folder. name: the account. seconds: for how long it is good; None for ever.
        read_only: it is for reading only.

    Raises:
        UsageError: there is no such account.
    """
    expires_at = None if seconds is None else time.time() + seconds
    try:
        with data.database.write() as connection:
            user_id = accounts.user_id_of(connection, name)
            return accounts.create_key(connection, user_id, expires_at=expires_at, read_only=read_only)
    except ValueError as error:
        raise UsageError(str(error)) from None


def list_keys(data: Data, name: str | None) -> list[accounts.KeyFacts]:
    """Return the API keys of an account, or of all. Raises UsageError where there is no such account."""
    try:
        with data.database.read() as connection:
            if name is not None:
                accounts.user_id_of(connection, name)
            return accounts.keys_of(connection, name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def revoke_key(data: Data, hint: str) -> accounts.KeyFacts:
    """Revoke an API key by its public beginning. Raises UsageError where it does not name one."""
    try:
        with data.database.write() as connection:
            return accounts.revoke_key(connection, hint)
    except ValueError as error:
        raise UsageError(str(error)) from None
