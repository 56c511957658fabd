"""The tables. The same schema runs on SQLite and PostgreSQL; migrations/ makes it, a test holds the two together."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.engine import Dialect

from flightlog.journal.record import restore
from flightlog.journal.values import nonfinite_paths, spell

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Values(TypeDecorator[dict[str, Any]]):
    """A mapping of logged values. As in a journal, NaN and the infinities are texts there, and listed beside them."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> Any:
        return None if value is None else {"values": spell(value), "nonfinite": nonfinite_paths(value)}

    def process_result_value(self, value: Any, dialect: Dialect) -> dict[str, Any] | None:
        if value is None:
            return None
        found: dict[str, Any] = value["values"]
        for path in value["nonfinite"]:
            restore(found, path)
        return found


# SQLite counts rows by itself only in a column that is exactly INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

# One row: which server this is, so that a client sees when another one answers at a known address.
identity = Table("identity", metadata, Column("id", String(36), primary_key=True))

users = Table(
    "users",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", Float(53), nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("hash", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of a key of 256 random bits
    Column("hint", String(16), nullable=False),  # its public beginning, to tell keys apart
    Column("created_at", Float(53), nullable=False),
    Column("revoked_at", Float(53)),  # NULL: in force
    Column("expires_at", Float(53)),  # NULL: never
    Column("scope", String(16), nullable=False),  # write, read
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("key_id", ForeignKey("api_keys.id"), nullable=False),  # a session ends with the key that began it
    Column("expires_at", Float(53), nullable=False),
)

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),  # personal, team
)

members = Table(
    "members",
    metadata,
    Column("workspace_id", ForeignKey("workspaces.id"), primary_key=True),
    Column("user_id", ForeignKey("users.id"), primary_key=True, index=True),
    Column("role", String(16), nullable=False),  # owner, member, viewer
)

projects = Table(
    "projects",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("workspace_id", ForeignKey("workspaces.id"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("created_at", Float(53), nullable=False),
    UniqueConstraint("workspace_id", "name"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("workspace_id", ForeignKey("workspaces.id"), nullable=False),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("origin_project", String(128), nullable=False),  # part of its key for ever, wherever it is moved
    Column("run_id", String(128), nullable=False),
    Column("owner_id", ForeignKey("users.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("group", Text),
    Column("job_type", Text),
    Column("notes", Text),
    Column("tags", JSON, nullable=False),
    Column("host", Text),
    Column("command", JSON),
    Column("state", String(16), nullable=False),  # as its records say
    Column("alive", Boolean, nullable=False),  # as the last sync saw it; a run that is neither alive nor ended crashed
    # By the server's clock: if nothing of it arrives until then, it is not alive any more.
    Column("alive_until", Float(53), nullable=False, server_default=text("0")),
    Column("config", Values, nullable=False),
    Column("summary", Values, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("started_at", Float(53)),
    Column("updated_at", Float(53), nullable=False),
    Column("finished_at", Float(53)),
    Column("standing", Values, nullable=False),  # standing.py: which records made it stand so
    Column("version", BigInteger, nullable=False),
    Column("preempting", Boolean, nullable=False, server_default=false()),  # it has said that its machine goes away
    Column("definitions", JSON, nullable=False, server_default=text("'[]'")),  # what is said of its metrics
    Column("deleted_at", Float(53)),  # NULL: it is there
    UniqueConstraint("workspace_id", "origin_project", "run_id"),
    Index(None, "project_id", "started_at"),
)

writers = Table(
    "writers",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("blocks", LargeBinary, nullable=False),  # SHA-256 of each complete block of 4,096 seq
    Column("lost", JSON, nullable=False),  # [[first, last], …]
    Column("parents", JSON, nullable=False),
    Column("floor", Float(53), nullable=False),  # its records do not count as older than this: the parents' time
    Column("depth", Integer, nullable=False),  # one more than its parents': what decides between equal times
    Column("at", Float(53), nullable=False),  # the time of its latest record, not before `floor`
    # [[seq, step], …]: its records up to seq are in no view if they are of a later step.
    Column("hidden", JSON, nullable=False, server_default=text("'[]'")),
    Column("digest", String(64), nullable=False),  # of all lines up to last_seq
    Column("base_id", ForeignKey("writers.id"), index=True),  # a branch: whose lines it shares up to base_seq
    Column("base_seq", BigInteger, nullable=False, server_default=text("0")),
    Column("loose", BigInteger, nullable=False, server_default=text("0")),  # bytes of its batches that stand in SQL
    UniqueConstraint("run_id", "name"),
)

batches = Table(
    "batches",
    metadata,
    Column("writer_id", ForeignKey("writers.id"), primary_key=True),
    Column("first_seq", BigInteger, primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
    Column("lines", LargeBinary),  # the lines as they came, zstd; NULL: they are `size` bytes of an object
    Column("size", BigInteger, nullable=False),
    Column("object", Text, index=True),
    Column("offset", BigInteger),
)

series = Table(
    "series",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("writer_id", ForeignKey("writers.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("numeric", Boolean, nullable=False),  # True as soon as one value is a number
    Column("low", Float(53)),  # of the finite values; NULL where there is none
    Column("high", Float(53)),
    Column("last", Float(53)),
    UniqueConstraint("writer_id", "name"),
    Index(None, "run_id", "name"),
)

series_chunks = Table(
    "series_chunks",
    metadata,
    Column("series_id", ForeignKey("series.id"), primary_key=True),
    Column("first_seq", BigInteger, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("min_step", BigInteger, nullable=False),
    Column("max_step", BigInteger, nullable=False),
    Column("columns", LargeBinary, nullable=False),  # metrics/codec.py
)

media = Table(
    "media",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("writer", String(128), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("step", BigInteger),
    Column("timestamp", Float(53), nullable=False),
    Column("entries", JSON, nullable=False),  # by key, as the record has them
)

# Records that are shown as a list, such as alerts.
events = Table(
    "events",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("writer", String(128), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("timestamp", Float(53), nullable=False),
    Column("data", JSON, nullable=False),
)

packs = Table(
    "packs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False, index=True),
    Column("object", Text, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Float(53), nullable=False),
)

chunks = Table(
    "chunks",
    metadata,
    Column("project_id", ForeignKey("projects.id"), primary_key=True),
    Column("sha256", LargeBinary(32), primary_key=True),
    Column("pack_id", ForeignKey("packs.id"), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("size", Integer, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("chunks", LargeBinary, nullable=False),  # the chunks' SHA-256, 32 bytes each, in order
)

# What was at a path before other content came there: another directory of the run may have it still, and artifact
# versions be made of it.
former_files = Table(
    "former_files",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32), primary_key=True),
    Column("chunks", LargeBinary, nullable=False),
)

artifact_versions = Table(
    "artifact_versions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("run_id", ForeignKey("runs.id"), nullable=False, index=True),
    Column("name", String(128), nullable=False),
    Column("number", Integer, nullable=False),  # v0, v1 … within the project, in order of commit
    Column("type", String(128), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("root", Text, nullable=False),  # the folder of its files among the files of the run
    Column("files", JSON, nullable=False),
    Column("created_at", Float(53), nullable=False),
    UniqueConstraint("project_id", "name", "number"),
    UniqueConstraint("project_id", "name", "digest"),
)

artifact_aliases = Table(
    "artifact_aliases",
    metadata,
    Column("project_id", ForeignKey("projects.id"), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("alias", String(128), primary_key=True),
    Column("version_id", ForeignKey("artifact_versions.id"), nullable=False, index=True),
    Column("set_at", Float(53), nullable=False),  # by the clock of the run that set it: the latest wins
)
