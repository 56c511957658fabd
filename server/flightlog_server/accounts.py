"""Users, their workspaces, API keys and browser sessions.

Keys and session tokens are 256 random bits; only their SHA-256 is stored, which is enough for what cannot be guessed.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from flightlog.protocol.names import name_fault

from .errors import ApiError, not_found
from .store.schema import api_keys, members, sessions, users, workspaces

SESSION_SECONDS = 14 * 86400.0
_ROLES = {"viewer": 0, "member": 1, "owner": 2}


@dataclass(frozen=True, slots=True)
class Account:
    """Who makes a request; `may_write` is false where the key is for reading only."""

    id: int
    name: str
    is_admin: bool
    may_write: bool = True


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def create_user(connection: Connection, name: str, *, is_admin: bool = False) -> str:
    """Make an account with a workspace of its own and return its API key, which is nowhere else.

    Raises:
        ValueError: the name cannot be used, or is taken.
    """
    fault = name_fault(name)
    if fault:
        raise ValueError(f"the name {name!r} cannot be used: {fault}")
    if _is_taken(connection, name):
        raise ValueError(f"the name {name!r} is taken")
    now = time.time()
    user = connection.execute(users.insert().values(name=name, is_admin=is_admin, created_at=now).returning(users.c.id))
    user_id = user.scalar_one()
    workspace = connection.execute(workspaces.insert().values(name=name, kind="personal").returning(workspaces.c.id))
    connection.execute(members.insert().values(workspace_id=workspace.scalar_one(), user_id=user_id, role="owner"))
    return create_key(connection, user_id)


def _is_taken(connection: Connection, name: str) -> bool:
    by_user = sa.select(users.c.id).where(sa.func.lower(users.c.name) == name.lower())
    by_workspace = sa.select(workspaces.c.id).where(sa.func.lower(workspaces.c.name) == name.lower())
    return any(connection.execute(query).first() is not None for query in (by_user, by_workspace))


def free_name(connection: Connection, wish: str) -> str:
    """Return a name for a new account: the wish, or the first of wish-2, wish-3 … that is not taken."""
    name, number = wish, 2
    while _is_taken(connection, name):
        name, number = f"{wish}-{number}", number + 1
    return name


def create_key(
    connection: Connection, user_id: int, *, expires_at: float | None = None, read_only: bool = False
) -> str:
    """Make an API key for a user and return it; only its hash is kept.

    Args:
        connection, user_id: whose key it is.
        expires_at: when it ends, UTC seconds; None for never.
        read_only: it is for reading only.
    """
    hint = f"fl_{secrets.token_hex(4)}"
    key = f"{hint}_{secrets.token_urlsafe(32).replace('-', 'A').replace('_', 'B')}"
    facts = {"user_id": user_id, "hash": _hash(key), "hint": hint, "created_at": time.time()}
    scope = "read" if read_only else "write"
    connection.execute(api_keys.insert().values(**facts, expires_at=expires_at, scope=scope))
    return key


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What is known of an API key; not the key.

    Attributes:
        hint: its public beginning. user: whose it is. scope: "write" or "read".
        created_at, expires_at, revoked_at: UTC seconds; None for never.
    """

    hint: str
    user: str
    scope: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    @property
    def state(self) -> str:
        """ "in force", "expired" or "revoked"."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= time.time() else "in force"


def user_id_of(connection: Connection, name: str) -> int:
    """Return an account's row. Raises ValueError where there is none of that name."""
    found = connection.execute(sa.select(users.c.id).where(users.c.name == name)).scalar_one_or_none()
    if found is None:
        raise ValueError(f"there is no account {name!r}")
    return int(found)


def keys_of(connection: Connection, name: str | None = None) -> list[KeyFacts]:
    """Return the API keys of an account, or of all, the oldest first."""
    query = (
        sa.select(
            api_keys.c.hint,
            users.c.name,
            api_keys.c.scope,
            api_keys.c.created_at,
            api_keys.c.expires_at,
            api_keys.c.revoked_at,
        )
        .select_from(api_keys.join(users))
        .order_by(api_keys.c.created_at, api_keys.c.id)
    )
    if name is not None:
        query = query.where(users.c.name == name)
    return [KeyFacts(*row) for row in connection.execute(query)]


def revoke_key(connection: Connection, hint: str) -> KeyFacts:
    """Revoke the API key with this public beginning; the browser sessions that it began end with it.

    Raises:
        ValueError: there is no such key, or there are several.
    """
    found = [facts for facts in keys_of(connection) if facts.hint == hint]
    if len(found) != 1:
        raise ValueError(f"{len(found) or 'no'} keys begin with {hint!r}; `flightlog server list-keys` shows them")
    revoked = api_keys.update().where(api_keys.c.hint == hint, api_keys.c.revoked_at.is_(None))
    connection.execute(revoked.values(revoked_at=time.time()))
    return found[0]


def has_admin(connection: Connection) -> bool:
    """Tell whether the server has an admin's account yet."""
    return connection.execute(sa.select(users.c.id).where(users.c.is_admin).limit(1)).first() is not None


def _expired(row: Any) -> bool:
    return row.expires_at is not None and row.expires_at <= time.time()


_WHO = (users.c.id, users.c.name, users.c.is_admin, api_keys.c.expires_at, api_keys.c.revoked_at, api_keys.c.scope)


def by_key(connection: Connection, key: str) -> Account:
    """Return whose API key this is.

    Raises:
        ApiError: 401 with `key_unknown`, `key_revoked` or `key_expired`. Whoever has the key may know.
    """
    query = sa.select(*_WHO).select_from(api_keys.join(users)).where(api_keys.c.hash == _hash(key))
    row = connection.execute(query).first()
    if row is None:
        raise ApiError(401, "key_unknown", "This API key is wrong: no account here has it.")
    if row.revoked_at is not None:
        raise ApiError(401, "key_revoked", f"This API key was revoked on {_day(row.revoked_at)}; ask for another one.")
    if _expired(row):
        raise ApiError(401, "key_expired", f"This API key expired on {_day(row.expires_at)}; ask for another one.")
    return Account(row.id, row.name, bool(row.is_admin), row.scope == "write")


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def by_session(connection: Connection, token: str) -> Account | None:
    """Return whose browser session this is, None where it is nobody's or over; it is over when its key is."""
    query = (
        sa.select(*_WHO)
        .select_from(
            sessions.join(api_keys, sessions.c.key_id == api_keys.c.id).join(users, sessions.c.user_id == users.c.id)
        )
        .where(sessions.c.hash == _hash(token), sessions.c.expires_at > time.time(), api_keys.c.revoked_at.is_(None))
    )
    row = connection.execute(query).first()
    if row is None or _expired(row):
        return None
    return Account(row.id, row.name, bool(row.is_admin), row.scope == "write")


def begin_session(connection: Connection, key: str) -> tuple[Account, str]:
    """Begin a browser session with an API key and return who it is and its token. Raises ApiError as `by_key` does."""
    account = by_key(connection, key)
    key_id = connection.execute(sa.select(api_keys.c.id).where(api_keys.c.hash == _hash(key))).scalar_one()
    now = time.time()
    connection.execute(sessions.delete().where(sessions.c.expires_at <= now))
    token = secrets.token_urlsafe(32)
    connection.execute(
        sessions.insert().values(hash=_hash(token), user_id=account.id, key_id=key_id, expires_at=now + SESSION_SECONDS)
    )
    return account, token


def end_session(connection: Connection, token: str) -> None:
    """End a browser session."""
    connection.execute(sessions.delete().where(sessions.c.hash == _hash(token)))


def workspaces_of(connection: Connection, account: Account) -> list[dict[str, str]]:
    """Return the workspaces an account belongs to: name, kind, role; its own first."""
    query = (
        sa.select(workspaces.c.name, workspaces.c.kind, members.c.role)
        .select_from(members.join(workspaces))
        .where(members.c.user_id == account.id)
        .order_by(workspaces.c.kind, workspaces.c.name)
    )
    return [{"name": row.name, "kind": row.kind, "role": row.role} for row in connection.execute(query)]


def workspace_id(connection: Connection, account: Account, name: str, *, role: str = "viewer") -> int:
    """Return a workspace's row, for an account that may do there what `role` may.

    Raises:
        ApiError: 404 where the account cannot even see it, 403 where it may only look.
    """
    row = connection.execute(
        sa.select(workspaces.c.id, members.c.role)
        .select_from(workspaces.join(members))
        .where(workspaces.c.name == name, members.c.user_id == account.id)
    ).first()
    if row is None and role == "viewer":
        raise not_found(f"workspace {name!r}")
    if row is None:
        raise ApiError(
            404,
            "not_found",
            f"There is no workspace {name[:100]!r} that you may write to{_instead(connection, account)}",
        )
    if _ROLES[row.role] < _ROLES[role]:
        instead = _instead(connection, account)
        raise ApiError(403, "forbidden", f"As a {row.role} of {name!r} you may not write there{instead}")
    return int(row.id)


def _instead(connection: Connection, account: Account) -> str:
    """Return the end of a sentence that says where an account may write, and how."""
    mine = [w["name"] for w in workspaces_of(connection, account) if _ROLES[w["role"]] >= _ROLES["member"]]
    if not mine:
        return "."
    shown = ", ".join(mine[:5]) + (" …" if len(mine) > 5 else "")
    return f" (you may to {shown}): `flightlog sync --workspace {mine[0]}` delivers the run there."
