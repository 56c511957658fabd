"""Taking in many small runs at once: one transaction, one pack for their files, one receipt for each."""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
import uuid
from collections.abc import Sequence
from io import BytesIO
from typing import Any
from urllib.parse import quote

from sqlalchemy.engine import Connection

from flightlog.protocol.digest import JournalDigest
from flightlog.protocol.messages import ChunkedFile, Receipt, WriterState
from flightlog.protocol.parcel import SmallRun

from . import files, ingest
from .accounts import Account
from .errors import ApiError, malformed
from .runs import ensure_run
from .store import packs
from .store.database import Database
from .store.objects import Objects

_EMPTY = JournalDigest().upto(0)
Members = list[tuple[bytes, int, int]]


def store(
    database: Database, objects: Objects, account: Account, parcel: Sequence[SmallRun]
) -> tuple[list[dict[str, Any]], set[int]]:
    """Store runs, each whole or not at all.

    Returns:
        For each run its address, how many of its records are new, and its receipt; or the error that it met, as
        `error`, `detail` and `status`. And the rows of the projects that they are in.
    """
    made = _packs(database, objects, account, parcel)
    answers: list[dict[str, Any]] = []
    projects: set[int] = set()
    with database.write() as connection:
        for project, pack in made.items():
            packs.note_pack(connection, project, *pack)
        for run in parcel:
            try:
                _check_files(run)
                with connection.begin_nested():
                    row = _ensure(connection, account, run)
                    answers.append(_one(connection, objects, row, run))
                projects.add(row.project_id)
            except ApiError as error:
                answers.append({**error.body, "status": error.status})
    return answers, projects


def _check_files(run: SmallRun) -> None:
    for entry, content in run.files:
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise malformed(f"{entry.path} holds other bytes than its SHA-256 says.")


def _packs(
    database: Database, objects: Objects, account: Account, parcel: Sequence[SmallRun]
) -> dict[int, tuple[str, int, Members]]:
    """Store the files of runs, a pack for each project; return, by project, its key, size and chunks."""
    by_project: dict[int, list[SmallRun]] = {}
    with_files = [run for run in parcel if run.files]
    if with_files:
        with database.write() as connection:
            for run in with_files:
                with contextlib.suppress(ApiError), connection.begin_nested():  # said when it is its turn
                    _check_files(run)
                    by_project.setdefault(_ensure(connection, account, run).project_id, []).append(run)
    made = {project: _pack(database, objects, project, runs) for project, runs in by_project.items()}
    return {project: pack for project, pack in made.items() if pack is not None}


def _ensure(connection: Connection, account: Account, run: SmallRun) -> Any:
    return ensure_run(connection, account, run.workspace, run.project, run.id, alive=run.alive, restore=run.restore)


def _pack(
    database: Database, objects: Objects, project: int, runs: Sequence[SmallRun]
) -> tuple[str, int, Members] | None:
    """Store the files that the project has no chunks of as one object; return its key, size and chunks."""
    contents = {entry.sha256: content for run in runs for entry, content in run.files if content}
    with database.read() as connection:
        here = packs.places(connection, project, [bytes.fromhex(sha256) for sha256 in contents])
    missing = {sha256: content for sha256, content in contents.items() if bytes.fromhex(sha256) not in here}
    if not missing:
        return None
    members: Members = []
    whole = BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sha256, content in missing.items():
            member = tarfile.TarInfo(sha256)
            member.size = len(content)
            members.append((bytes.fromhex(sha256), whole.tell() + tarfile.BLOCKSIZE, len(content)))
            tar.addfile(member, BytesIO(content))
    size = whole.tell()
    whole.seek(0)
    key = f"packs/{project}/{uuid.uuid4().hex}.tar"
    objects.put(key, whole)
    return key, size, members


def _one(connection: Connection, objects: Objects, row: Any, run: SmallRun) -> dict[str, Any]:
    before = {name: _held(state) for name, state in ingest.writer_states(connection, row.id).items()}
    new = 0
    for name, lines in run.writers.items():
        if lines:
            state = ingest.store(connection, objects, row, name, ingest.Batch(1, _EMPTY, lines, []))
            new += _held(state) - before.get(name, 0)
    rows = []
    for entry, content in run.files:
        chunks = ((entry.sha256, entry.size),) if content else ()
        rows.append(files.row_of(row.id, ChunkedFile(entry, chunks)))
    if rows:
        files.commit_files(connection, row, rows)
    for artifact in run.artifacts:
        files.commit_artifact(connection, objects, row, artifact.manifest, artifact.aliases, artifact.at)
    return {"url": address_of(run), "new": new, "receipt": receipt_of(connection, row.id).to_json()}


def receipt_of(connection: Connection, run_id: int) -> Receipt:
    """Return what is durably here of a run."""
    states = ingest.writer_states(connection, run_id)
    return Receipt(states, files.files_of(connection, run_id), files.former_of(connection, run_id))


def _held(state: WriterState) -> int:
    """Return how many lines are here of a writer."""
    return state.last - sum(b - a + 1 for a, b in state.lost)


def address_of(run: SmallRun) -> str:
    """Return where the page shows a run."""
    return "/w/" + "/".join(quote(name, safe="") for name in (run.workspace, run.project, "runs", run.id))
