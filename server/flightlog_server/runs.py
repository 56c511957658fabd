"""Finding runs, and showing them."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from flightlog.journal.rewind import Rewinds
from flightlog.journal.values import nonfinite_paths, spell
from flightlog.protocol.names import friendly_name

from .accounts import Account, workspace_id
from .errors import ApiError, not_found
from .store.database import insert_new
from .store.schema import members, projects, runs, users, workspaces, writers

# Written on the page's side of a run that does not say how it ended, and whose process is gone.
CRASHED = "crashed"
# A recorder writes a heartbeat every 30 s, which a follower passes on at once. What a plain sync saw alive may be
# synced again by the hour.
_FOLLOWED_SECONDS, _SYNCED_SECONDS = 300.0, 2 * 3600.0


def project_row(connection: Connection, account: Account, workspace: str, project: str, *, role: str = "viewer") -> Any:
    """Return a project's row. Raises ApiError where there is none that the account may see."""
    home = workspace_id(connection, account, workspace, role=role)
    row = connection.execute(
        sa.select(projects).where(projects.c.workspace_id == home, projects.c.name == project)
    ).first()
    if row is None:
        raise not_found(f"project {project!r} in workspace {workspace!r}")
    return row


def run_row(
    connection: Connection, account: Account, workspace: str, project: str, run_id: str, *, role: str = "viewer"
) -> Any:
    """Return a run's row. Raises ApiError where there is none that the account may see."""
    home = workspace_id(connection, account, workspace, role=role)
    row = connection.execute(
        sa.select(runs).where(runs.c.workspace_id == home, runs.c.origin_project == project, runs.c.run_id == run_id)
    ).first()
    if row is None:
        raise not_found(f"run {run_id!r} in {workspace}/{project}")
    if row.deleted_at is not None:
        raise gone(run_id)
    return row


def ensure_run(
    connection: Connection,
    account: Account,
    workspace: str,
    project: str,
    run_id: str,
    *,
    alive: bool,
    followed: bool = False,
    restore: bool = False,
) -> Any:
    """Return a run's row, made if this is the first that is heard of it; note whether it is alive.

    Args:
        alive: as the client sees it now. followed: the client goes on following it, so that its heartbeats arrive.
        restore: bring it back where it was deleted.

    Raises:
        ApiError: the account may not write there; 410 where the run was deleted, unless it is to be restored.
    """
    home = workspace_id(connection, account, workspace, role="member")
    now = time.time()
    insert_new(connection, projects, [{"workspace_id": home, "name": project, "created_at": now}])
    project_id = connection.execute(
        sa.select(projects.c.id).where(projects.c.workspace_id == home, projects.c.name == project)
    ).scalar_one()
    key = {"workspace_id": home, "origin_project": project, "run_id": run_id}
    row = connection.execute(sa.select(runs).filter_by(**key)).first()
    if row is None:
        connection.execute(
            runs.insert().values(
                **key,
                project_id=project_id,
                owner_id=account.id,
                name=friendly_name(run_id),
                tags=[],
                state="running",
                alive=alive,
                alive_until=_believed_until(now, followed),
                config={},
                summary={},
                step=0,
                records=0,
                created_at=now,
                updated_at=0.0,
                standing={},
                version=0,
                preempting=False,
                definitions=[],
            )
        )
        row = connection.execute(sa.select(runs).filter_by(**key)).one()
    elif row.deleted_at is not None and not restore:
        raise gone(run_id)
    elif alive or row.alive or row.deleted_at is not None:
        facts: dict[str, Any] = {"alive": alive, "alive_until": _believed_until(now, followed), "deleted_at": None}
        if row.alive != alive or row.deleted_at is not None:
            facts["version"] = runs.c.version + 1
        connection.execute(runs.update().where(runs.c.id == row.id).values(facts))
    return row


def _believed_until(now: float, followed: bool) -> float:
    return now + (_FOLLOWED_SECONDS if followed else _SYNCED_SECONDS)


def heard_of(connection: Connection, before: Any, *, followed: bool) -> None:
    """Note that records of a run have arrived, if they have: by this machine's clock, its journal has grown.

    Args:
        before: the run's row before they were stored. followed: they come as they are recorded, so that it is alive,
            whatever somebody who syncs another part of the run may have said.
    """
    until = _believed_until(time.time(), followed=True)
    query = runs.update().where(runs.c.id == before.id, runs.c.version > before.version)
    if followed:
        connection.execute(query.values(alive=True, alive_until=until))
    else:
        connection.execute(query.where(runs.c.alive_until < until).values(alive_until=until))


def gone(run_id: str) -> ApiError:
    """Return the answer to a sync of a run that was deleted."""
    return ApiError(410, "gone", f"Run {run_id!r} was deleted here.")


def rewinds_of(connection: Connection, run_row_id: int) -> Rewinds:
    """Return what rewinds hide of a run."""
    rewinds = Rewinds()
    query = sa.select(writers.c.name, writers.c.hidden).where(writers.c.run_id == run_row_id)
    for name, hidden in connection.execute(query):
        for seq, step in hidden:
            rewinds.add({"step": step, "writers": {name: seq}})
    return rewinds


def shown_state(row: Any) -> str:
    """Return a run's state as people see it: one that says "running" and is not alive has crashed.

    So has one of which nothing has come for too long, until something does. Or its machine was taken away, if it had
    said that this was coming.
    """
    if row.state != "running" or (row.alive and row.alive_until > time.time()):
        return str(row.state)
    return "preempted" if row.preempting else CRASHED


def _shown(row: Any) -> dict[str, Any]:
    """Return a joined row as the API shows a run."""
    nonfinite = {part: nonfinite_paths(getattr(row, part)) for part in ("config", "summary")}
    address = "/".join(quote(name, safe="") for name in (row.workspace, row.project, "runs", row.run_id))
    return {
        "workspace": row.workspace,
        "project": row.project,
        "id": row.run_id,
        "name": row.name,
        "group": row.group,
        "job_type": row.job_type,
        "tags": row.tags,
        "notes": row.notes,
        "state": shown_state(row),
        "owner": row.owner,
        "host": row.host,
        "command": row.command,
        "config": spell(row.config),
        "summary": spell(row.summary),
        "nonfinite": {part: paths for part, paths in nonfinite.items() if paths},
        "step": row.step,
        "records": row.records,
        "started_at": row.started_at,
        "updated_at": row.updated_at,
        "finished_at": row.finished_at,
        "version": row.version,
        "definitions": row.definitions,
        "url": f"/w/{address}",
    }


def _joined() -> sa.Select[Any]:
    return sa.select(
        runs, workspaces.c.name.label("workspace"), projects.c.name.label("project"), users.c.name.label("owner")
    ).select_from(
        runs.join(workspaces, runs.c.workspace_id == workspaces.c.id)
        .join(projects, runs.c.project_id == projects.c.id)
        .join(users, runs.c.owner_id == users.c.id)
    )


def show(connection: Connection, run_row_id: int) -> dict[str, Any]:
    """Return a run as the API shows it."""
    return _shown(connection.execute(_joined().where(runs.c.id == run_row_id)).one())


def list_runs(connection: Connection, project_id: int, limit: int, offset: int) -> dict[str, Any]:
    """Return a page of a project's runs, the newest start first, and how many there are."""
    page = (
        _joined()
        .where(runs.c.project_id == project_id, runs.c.deleted_at.is_(None))
        .order_by(sa.func.coalesce(runs.c.started_at, runs.c.created_at).desc(), runs.c.id.desc())
        .limit(limit)
        .offset(offset)
    )
    there = sa.select(sa.func.count()).where(runs.c.project_id == project_id, runs.c.deleted_at.is_(None))
    total = connection.execute(there).scalar_one()
    return {"runs": [_shown(row) for row in connection.execute(page)], "total": total}


def list_projects(connection: Connection, account: Account) -> list[dict[str, Any]]:
    """Return the projects an account may see, the newest activity first."""
    running = sa.case((sa.and_(runs.c.state == "running", runs.c.alive, runs.c.alive_until > time.time()), 1), else_=0)
    query = (
        sa.select(
            workspaces.c.name.label("workspace"),
            projects.c.name,
            sa.func.count(runs.c.id).label("runs"),
            sa.func.coalesce(sa.func.sum(running), 0).label("running"),
            sa.func.max(sa.func.coalesce(runs.c.updated_at, projects.c.created_at)).label("last_activity"),
        )
        .select_from(
            members.join(workspaces, members.c.workspace_id == workspaces.c.id)
            .join(projects, projects.c.workspace_id == workspaces.c.id)
            .outerjoin(runs, sa.and_(runs.c.project_id == projects.c.id, runs.c.deleted_at.is_(None)))
        )
        .where(members.c.user_id == account.id)
        .group_by(workspaces.c.name, projects.c.name)
    )
    found = [
        {
            "workspace": row.workspace,
            "name": row.name,
            "runs": row.runs,
            "running": row.running,
            "last_activity": row.last_activity,
        }
        for row in connection.execute(query)
    ]
    return sorted(found, key=lambda p: p["last_activity"] or 0.0, reverse=True)
