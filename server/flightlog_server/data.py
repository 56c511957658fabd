"""A server's data folder: the database, the objects, and the first account."""

from __future__ import annotations

import contextlib
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
