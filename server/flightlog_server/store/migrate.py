"""Bringing a database to this version's schema."""

from __future__ import annotations

import uuid
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from .database import Database
from .schema import identity

_MIGRATIONS = Path(__file__).parent.parent / "migrations"


def config() -> Config:
    """Return alembic's settings for our migrations."""
    settings = Config()
    settings.set_main_option("script_location", str(_MIGRATIONS))
    return settings


def migrate(database: Database) -> None:
    """Run the migrations that this database has not had yet, in one transaction; give a new server its identity."""
    settings = config()
    with database.migrate() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, "head")
        if connection.execute(sa.select(identity.c.id)).first() is None:
            connection.execute(identity.insert().values(id=str(uuid.uuid4())))
