"""Moving journals from SQL to objects, and finding objects that nothing refers to.

Lines come in as rows of SQL, where a batch of them is one commit. What has gathered there is folded into objects of
8 MiB or more: of one writer, or of a project's runs that have ended. An object is a tar, so that everything can be
rebuilt from the objects alone: its members are the rows as they were, named
`workspace/project/run/writer/first-last.jsonl.zst`. The object is stored first, then the rows refer to it; a crash in
between leaves an orphan.
"""

from __future__ import annotations

import tarfile
import time
import uuid
from collections.abc import Iterator
from threading import Lock
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .database import Database
from .objects import INCOMING, Objects, Staged
from .schema import batches, packs, runs, workspaces, writers

FOLD_BYTES = 8 << 20
MOST_BYTES = 32 << 20
GRACE_SECONDS = 24 * 3600.0
_one_at_a_time = Lock()
Moved = dict[str, Any]


def is_due(connection: Connection, run_id: int, *, ended: bool) -> bool:
    """Tell whether a run's project may have something to fold.

    Args:
        run_id: the run's row, of which lines have come.
        ended: whether one of them ended it.
    """
    most = connection.execute(sa.select(sa.func.max(writers.c.loose)).where(writers.c.run_id == run_id)).scalar()
    return ended or (most or 0) >= FOLD_BYTES


def fold(database: Database, objects: Objects, project_id: int) -> int:
    """Move what has gathered of a project's journals to objects; return how many were made.

    Does nothing where another thread is at it.

    Raises:
        OSError: an object could not be stored; the lines still stand in SQL.
    """
    if not _one_at_a_time.acquire(blocking=False):
        return 0
    try:
        made = 0
        while _fold_once(database, objects, project_id):
            made += 1
        return made
    finally:
        _one_at_a_time.release()


def _fold_once(database: Database, objects: Objects, project_id: int) -> bool:
    with database.read() as connection:
        if _gathered(connection, project_id) < FOLD_BYTES:
            return False
        with objects.stage() as staged:
            moved = list(_written(connection, staged, project_id))
            if sum(row["size"] for row in moved) < FOLD_BYTES:
                return False
            key = f"journals/{project_id}/{uuid.uuid4().hex}.tar"
            staged.store(key)
    with database.write() as connection:
        _refer(connection, key, moved)
    return True


def _ready(project_id: int) -> Any:
    """The writers that have something to fold."""
    there = runs.c.project_id == project_id
    return sa.and_(there, writers.c.loose > 0, sa.or_(writers.c.loose >= FOLD_BYTES, runs.c.state != "running"))


def _gathered(connection: Connection, project_id: int) -> int:
    query = sa.select(sa.func.sum(writers.c.loose)).select_from(writers.join(runs, writers.c.run_id == runs.c.id))
    return int(connection.execute(query.where(_ready(project_id))).scalar() or 0)


def _written(connection: Connection, staged: Staged, project_id: int) -> Iterator[Moved]:
    """Write rows into a tar, and yield where each is, up to MOST_BYTES of them."""
    query = (
        sa.select(writers.c.id, writers.c.name, runs.c.run_id, runs.c.origin_project, workspaces.c.name.label("home"))
        .select_from(writers.join(runs, writers.c.run_id == runs.c.id))
        .join(workspaces, runs.c.workspace_id == workspaces.c.id)
        .where(_ready(project_id))
        .order_by(writers.c.id)
    )
    size = 0
    for writer in connection.execute(query).all():
        rows = sa.select(batches).where(batches.c.writer_id == writer.id, batches.c.lines.is_not(None))
        with connection.execute(rows.order_by(batches.c.first_seq).execution_options(yield_per=8)) as found:
            for row in found:
                folder = f"{writer.home}/{writer.origin_project}/{writer.run_id}/{writer.name}"
                offset = _add(staged, f"{folder}/{row.first_seq}-{row.last_seq}.jsonl.zst", row.lines)
                yield {"of": row.writer_id, "first": row.first_seq, "at": offset, "size": row.size, "blob": row.lines}
                size += row.size
                if size >= MOST_BYTES:
                    break
        if size >= MOST_BYTES:
            break
    staged.file.write(bytes(2 * tarfile.BLOCKSIZE))


def _add(staged: Staged, name: str, content: bytes) -> int:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    staged.file.write(member.tobuf(tarfile.GNU_FORMAT))
    offset = staged.file.tell()
    staged.file.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
    return offset


def _refer(connection: Connection, key: str, moved: list[Moved]) -> None:
    """Let rows refer to the object that they were written to, but for those that have changed since."""
    for row in moved:
        connection.execute(
            batches.update()
            .where(
                batches.c.writer_id == row["of"], batches.c.first_seq == row["first"], batches.c.lines == row["blob"]
            )
            .values(lines=None, object=key, offset=row["at"])
        )
    for writer_id in {row["of"] for row in moved}:
        left = sa.select(sa.func.coalesce(sa.func.sum(batches.c.size), 0)).where(
            batches.c.writer_id == writer_id, batches.c.lines.is_not(None)
        )
        connection.execute(writers.update().where(writers.c.id == writer_id).values(loose=left.scalar_subquery()))


def collect_orphans(database: Database, objects: Objects, grace: float = GRACE_SECONDS) -> list[str]:
    """Delete objects that nothing refers to and that have been there for longer than `grace` seconds.

    Not for a database that was restored from a backup older than its objects: what they hold that it does not know
    would be lost, instead of being taken in again.

    Returns:
        Their keys.
    """
    old = [key for key, at in objects.list() if at < time.time() - grace]
    with database.read() as connection:
        known = set(connection.execute(sa.select(packs.c.object)).scalars())
        known.update(connection.execute(sa.select(batches.c.object).where(batches.c.object.is_not(None))).scalars())
    gone = [key for key in old if key not in known and key.startswith(("packs/", "journals/", f"{INCOMING}/"))]
    for key in gone:
        objects.delete(key)
    return gone
