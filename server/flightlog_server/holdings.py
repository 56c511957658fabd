"""Telling whether runs are still here as far as was once acknowledged: for many at once, and without reading any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from flightlog.protocol.messages import Held, Holding

from .accounts import Account
from .store.schema import files, members, runs, workspaces, writers


def held(connection: Connection, account: Account, asked: Sequence[Holding]) -> list[Held]:
    """Return for each of some runs, in order, whether it is here as it says, as far as the account may know."""
    seen = sa.select(workspaces.c.name).select_from(workspaces.join(members)).where(members.c.user_id == account.id)
    open_to_it = set(connection.execute(seen).scalars())
    rows = _rows(connection, account, asked)
    here = [row.id for row in rows.values()]
    states: dict[int, dict[str, tuple[int, str]]] = {}
    query = sa.select(writers.c.run_id, writers.c.name, writers.c.last_seq, writers.c.digest)
    for run, name, last, digest in connection.execute(query.where(writers.c.run_id.in_(here))):
        states.setdefault(run, {})[name] = (last, digest)
    counted = sa.select(files.c.run_id, sa.func.count()).where(files.c.run_id.in_(here)).group_by(files.c.run_id)
    counts: dict[int, int] = dict(connection.execute(counted).tuples().all())
    words: list[Held] = []
    for run in asked:
        row = rows.get((run.workspace, run.project, run.id))
        if run.workspace not in open_to_it:
            words.append("unknown")
        elif row is None:
            words.append("lacking")
        elif row.deleted_at is not None:
            words.append("gone")
        else:
            is_whole = counts.get(row.id, 0) >= run.files and _reaches(states.get(row.id, {}), run)
            words.append("held" if is_whole else "lacking")
    return words


def _rows(connection: Connection, account: Account, asked: Sequence[Holding]) -> dict[tuple[str, str, str], Any]:
    keys = [(run.workspace, run.project, run.id) for run in asked]
    query = (
        sa.select(runs.c.id, runs.c.deleted_at, workspaces.c.name, runs.c.origin_project, runs.c.run_id)
        .select_from(runs.join(workspaces, runs.c.workspace_id == workspaces.c.id))
        .join(members, members.c.workspace_id == workspaces.c.id)
        .where(members.c.user_id == account.id)
        .where(sa.tuple_(workspaces.c.name, runs.c.origin_project, runs.c.run_id).in_(keys))
    )
    return {(row.name, row.origin_project, row.run_id): row for row in connection.execute(query)}


def _reaches(here: dict[str, tuple[int, str]], run: Holding) -> bool:
    """Tell whether each writer is here at least as far as was acknowledged; one that has grown may have any digest."""
    for name, (last, digest) in run.writers.items():
        found = here.get(name, (0, ""))
        if found[0] < last or (found[0] == last and found[1] != digest):
            return False
    return True
