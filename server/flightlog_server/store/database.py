"""Opening the database: durable, and with one writer at a time where it is SQLite."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DatabaseError


class Database:
    """A database with two kinds of transaction: `read` and `write`."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        # SQLite has one writer at a time, and lets those that wait find out by themselves when it is their turn: under
        # load some wait until they give up. In a queue of our own each gets its turn; other processes are rare.
        self._turn: AbstractContextManager[object] = Lock() if url.startswith("sqlite") else nullcontext()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database and changes nothing."""
        with self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed, durably, when the block ends without an exception."""
        with (
            self._turn,
            self.engine.connect().execution_options(flightlog_writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextlib.contextmanager
    def migrate(self) -> Iterator[Connection]:
        """A writing transaction that may make tables anew: what refers to them is checked at its end."""
        with self._turn, self.engine.connect().execution_options(flightlog_writes=True) as connection:
            if connection.dialect.name != "sqlite":
                with connection.begin():
                    yield connection
                return
            # Not within a transaction, as SQLite wants it, and therefore not by a statement that would begin one.
            driver = connection.connection.cursor()
            try:
                driver.execute("PRAGMA foreign_keys=OFF")
                with connection.begin():
                    yield connection
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                    if broken is not None:
                        raise DatabaseError("PRAGMA foreign_key_check", None, ValueError(f"{tuple(broken)}"))
            finally:
                driver.execute("PRAGMA foreign_keys=ON")
                driver.close()

    def close(self) -> None:
        self.engine.dispose()


def sqlite_url(data: Path) -> str:
    """Return the URL of the database in a server's data folder."""
    return f"sqlite:///{data / 'flightlog.db'}"


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(
        url, connect_args={"timeout": 30, "check_same_thread": False}, pool_size=8, max_overflow=16
    )

    @event.listens_for(engine, "connect")
    def _durable(connection: Any, _: object) -> None:
        connection.isolation_level = None  # we begin transactions ourselves
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writing transaction takes the lock at once: one that began by reading could no longer get it.
        writes = connection.get_execution_options().get("flightlog_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def insert_new(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows, passing over those whose key is there already."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), rows)


def upsert(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows, replacing those with the same primary key."""
    if not rows:
        return
    statement = _insert(connection, table)
    keys = [c.name for c in table.primary_key]
    others = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys and c.name in rows[0]}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=others), rows)


def _insert(connection: Connection, table: sa.Table) -> Any:
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table)
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table)
