"""The routes by which `flightlog sync` delivers runs (docs/protocol.md)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from typing import IO, Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy.engine import Connection
from starlette.requests import ClientDisconnect

from flightlog.protocol.manifest import is_safe_path, is_sha256
from flightlog.protocol.messages import (
    MAX_ASKED,
    MAX_BATCH,
    MAX_DIGESTS,
    MAX_HELD_RUNS,
    MAX_HELD_WRITERS,
    MAX_PACK,
    MAX_VERSIONS,
    ChunkedFile,
    Held,
    Holding,
    Ranges,
    WriterState,
    parse_ranges,
)
from flightlog.protocol.names import name_fault
from flightlog.protocol.parcel import decode

from .. import files, ingest, parcels
from ..accounts import Account
from ..errors import ApiError, malformed, not_found
from ..holdings import held
from ..runs import ensure_run, heard_of, project_row, run_row, show
from ..store import folding, packs
from .common import AccountOf, Json, Parts, PartsOf

router = APIRouter(tags=["sync"])
_MAX_JSON = 64 << 20
_ENDS, _TAIL = b'"kind":"finish"', 64 << 10
_log = logging.getLogger(__name__)
_LONG_WORK = 1 << 30
Name = Annotated[str, Field(max_length=200)]


class Register(BaseModel):
    """What a client says of a run before it delivers it."""

    alive: bool
    followed: bool = False
    restore: bool = False


class Hashes(BaseModel):
    """Chunks, by their SHA-256 in hex."""

    chunks: list[str] = Field(max_length=MAX_ASKED)


class Acknowledged(BaseModel):
    """What was once acknowledged of a run; `writers` are the last seq and the digest, by name."""

    workspace: Name
    project: Name
    id: Name
    writers: dict[Name, tuple[Annotated[int, Field(ge=0, lt=10**18)], Annotated[str, Field(max_length=64)]]]
    files: int = Field(ge=0, lt=10**18)


class Holdings(BaseModel):
    """Runs that were delivered."""

    runs: list[Acknowledged] = Field(max_length=MAX_HELD_RUNS)


class ArtifactCommit(BaseModel):
    """Which of a run's files is the manifest of a version, the aliases that move to it, and when that was recorded.

    `digest`, the version's, tells the manifest from others that have been at its path.
    """

    manifest: str = Field(max_length=1000)
    digest: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    aliases: list[str] = Field(max_length=1000)
    at: float = Field(ge=0, allow_inf_nan=False)


class ArtifactCommits(BaseModel):
    """Versions that are to be committed."""

    artifacts: list[ArtifactCommit] = Field(max_length=MAX_VERSIONS)


async def _body(request: Request, limit: int, into: IO[bytes]) -> None:
    """Copy a request's body. Raises ApiError 413 where it is longer than `limit` bytes."""
    size = 0
    async for block in request.stream():
        size += len(block)
        if size > limit:
            raise ApiError(413, "too_large", f"This body has at most {limit} bytes.")
        into.write(block)
    into.seek(0)


@router.put("/runs/{workspace}/{project}/{run_id}")
def register(
    workspace: str, project: str, run_id: str, body: Register, parts: PartsOf, account: AccountOf
) -> dict[str, Any]:
    """Make a run known, and learn what is here of it."""
    for what, name in (("project", project), ("run id", run_id)):
        fault = name_fault(name)
        if fault:
            raise malformed(f"The {what} {name!r} cannot be used: {fault}.")
    with parts.database.write() as connection:
        said = {"alive": body.alive, "followed": body.followed, "restore": body.restore}
        row = ensure_run(connection, account, workspace, project, run_id, **said)
        states = ingest.writer_states(connection, row.id)
        shown = show(connection, row.id)
    return {"run": shown, "writers": {name: state.to_json() for name, state in states.items()}}


def _fold(parts: Parts, project_id: int) -> None:
    """Move journals to objects; where that fails they stay where they are, and the next request tries again."""
    try:
        folding.fold(parts.database, parts.objects, project_id)
    except OSError as error:
        _log.warning("journals could not be moved to objects: %s", error)


@router.post("/parcels")
async def parcel(request: Request, parts: PartsOf, account: AccountOf) -> Json:
    """Store many small runs (flightlog.protocol.parcel, zstd); what came of each, in order."""
    with tempfile.SpooledTemporaryFile(max_size=1 << 20) as spool:
        await _body(request, MAX_BATCH + (1 << 20), spool)
        content = spool.read()

    def work() -> list[dict[str, Any]]:
        try:
            runs = decode(ingest.decompress(content))
        except (ValueError, RecursionError) as error:
            raise malformed(f"The body is no parcel: {error}") from None
        answers, projects = parcels.store(parts.database, parts.objects, account, runs)
        for project_id in projects:
            _fold(parts, project_id)
        return answers

    return Json({"runs": await run_in_threadpool(work)})


@router.post("/holdings")
def holdings(body: Holdings, parts: PartsOf, account: AccountOf) -> dict[str, list[Held]]:
    """Tell of many runs at once whether what was acknowledged of them is still here."""
    if sum(len(run.writers) for run in body.runs) > MAX_HELD_WRITERS:
        raise ApiError(413, "too_large", f"At most {MAX_HELD_WRITERS} writers are asked about at once.")
    asked = [Holding(run.workspace, run.project, run.id, run.writers, run.files) for run in body.runs]
    with parts.database.read() as connection:
        return {"runs": held(connection, account, asked)}


@router.post("/runs/{workspace}/{project}/{run_id}/records/{writer}")
async def records(
    workspace: str,
    project: str,
    run_id: str,
    writer: str,
    first: Annotated[int, Query(ge=1, lt=10**18)],
    request: Request,
    parts: PartsOf,
    account: AccountOf,
    before: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
    lost: Annotated[str, Query(max_length=400_000)] = "",
    base: Annotated[str | None, Query(max_length=200)] = None,
    followed: bool = False,
) -> dict[str, Any]:
    """Store a batch of a writer's lines (zstd), from seq `first`, where `before` is the digest of all before that."""
    fault = name_fault(writer.replace("~", "-"))
    if fault:
        raise malformed(f"The writer {writer!r} cannot be: {fault}.")
    ranges: Ranges
    try:
        ranges = parse_ranges(lost)
    except ValueError as error:
        raise malformed(str(error)) from None
    with tempfile.SpooledTemporaryFile(max_size=1 << 20) as spool:
        await _body(request, MAX_BATCH + (1 << 20), spool)
        content = spool.read()

    def work() -> WriterState:
        database, objects = parts.database, parts.objects
        batch = ingest.Batch(first, before, ingest.decompress(content) if content else b"", ranges, base)
        with database.write() as connection:
            row = run_row(connection, account, workspace, project, run_id, role="member")
            state = ingest.store(connection, objects, row, writer, batch)
            heard_of(connection, row, followed=followed)
            due = folding.is_due(connection, row.id, ended=_ENDS in batch.lines[-_TAIL:])
        if due:
            _fold(parts, row.project_id)
        return state

    state = await run_in_threadpool(work)
    return {"next": state.last + 1, "digest": state.digest}


@router.get("/runs/{workspace}/{project}/{run_id}/digests/{writer}")
def digests(
    workspace: str,
    project: str,
    run_id: str,
    writer: str,
    upto: Annotated[list[Annotated[int, Query(ge=1, lt=10**18)]], Query(min_length=1, max_length=MAX_DIGESTS)],
    parts: PartsOf,
    account: AccountOf,
) -> dict[str, Any]:
    """The digests of a writer's lines up to each of these seqs: where a copy went another way is found by them."""
    with parts.database.read() as connection:
        row = run_row(connection, account, workspace, project, run_id)
        found = ingest.writer_row(connection, row.id, writer)
        if found is None:
            raise not_found(f"writer {writer!r} in this run")
        here = ingest.digests_at(connection, parts.objects, found, upto)
    return {"last": found.last_seq, "digests": {str(seq): digest for seq, digest in here.items()}}


@router.post("/projects/{workspace}/{project}/chunks/missing")
def missing_chunks(workspace: str, project: str, body: Hashes, parts: PartsOf, account: AccountOf) -> dict[str, Any]:
    """Tell which of these chunks the project does not have."""
    if not all(is_sha256(h) for h in body.chunks):
        raise malformed("A chunk is named by its SHA-256 in hex.")
    with parts.database.read() as connection:
        row = project_row(connection, account, workspace, project, role="member")
        here = packs.places(connection, row.id, [bytes.fromhex(h) for h in body.chunks])
    return {"missing": [h for h in body.chunks if bytes.fromhex(h) not in here]}


@router.post("/projects/{workspace}/{project}/packs")
async def pack(workspace: str, project: str, request: Request, parts: PartsOf, account: AccountOf) -> dict[str, int]:
    """Store a pack: a tar of chunks, each named by its SHA-256."""

    def find() -> Any:
        with parts.database.read() as connection:
            return project_row(connection, account, workspace, project, role="member")

    row = await run_in_threadpool(find)
    with parts.objects.stage(packs.purpose_of(row.id)) as staged:
        try:
            await _body(request, MAX_PACK + (8 << 20), staged.file)
        except ClientDisconnect:
            staged.file.seek(0)
            await run_in_threadpool(packs.store_begun_pack, parts.database, row.id, staged)
            raise
        stored = await run_in_threadpool(packs.store_pack, parts.database, row.id, staged)
    return {"chunks": stored}


@router.post("/runs/{workspace}/{project}/{run_id}/files")
async def commit_files(
    workspace: str, project: str, run_id: str, request: Request, parts: PartsOf, account: AccountOf
) -> Response:
    """Commit files of a run that are made of chunks which are here: `{"files": [{path, size, sha256, chunks}]}`.

    All of them are read once more. Where that takes a while the answer begins with blanks, so that nobody on the way
    takes it for dead; what goes wrong by then stands in it as `{"error": …, "detail": …, "status": 409}`.
    """
    with tempfile.SpooledTemporaryFile(max_size=1 << 20) as spool:
        await _body(request, _MAX_JSON, spool)
        content = spool.read()
    named = await run_in_threadpool(_chunked_files, content)
    work = _committing(parts, account, (workspace, project, run_id), named)
    if sum(file.entry.size for file in named) < _LONG_WORK:
        return Json(await run_in_threadpool(lambda: next(filter(None, work))))
    return StreamingResponse(_spoken(work), media_type="application/json")


def _chunked_files(content: bytes) -> list[ChunkedFile]:
    try:
        named = [ChunkedFile.from_json(item) for item in orjson.loads(content)["files"][: MAX_ASKED + 1]]
    except (ValueError, KeyError, TypeError) as error:
        raise malformed(f"The body does not name files: {error}") from None
    if len(named) > MAX_ASKED:
        raise ApiError(413, "too_large", f"At most {MAX_ASKED} files are committed at once.")
    return named


def _committing(
    parts: Parts, account: Account, run: tuple[str, str, str], named: list[ChunkedFile]
) -> Iterator[dict[str, Any] | None]:
    """Commit files; yield None now and then, and the answer at the end."""
    with parts.database.read() as connection:
        row = run_row(connection, account, *run, role="member")
        rows = []
        for step in files.checked_rows(connection, parts.objects, row, named):
            if step is None:
                yield None
            else:
                rows.append(step)
    with parts.database.write() as connection:
        files.commit_files(connection, row, rows)
    yield {"files": len(named)}


def _spoken(work: Iterator[dict[str, Any] | None]) -> Iterator[bytes]:
    try:
        for step in work:
            yield b" " if step is None else orjson.dumps(step)
    except ApiError as error:
        yield orjson.dumps({**error.body, "status": error.status})


@router.post("/runs/{workspace}/{project}/{run_id}/manifests")
def commit_artifacts(
    workspace: str, project: str, run_id: str, body: ArtifactCommits, parts: PartsOf, account: AccountOf
) -> Json:
    """Make artifact versions of a run's files; what came of each, in order: the version, or why it is none."""
    answers: list[dict[str, Any]] = []
    with parts.database.write() as connection:
        row = run_row(connection, account, workspace, project, run_id, role="member")
        for wanted in body.artifacts:
            try:
                with connection.begin_nested():
                    answers.append(_committed(connection, parts, row, wanted))
            except ApiError as error:
                answers.append({**error.body, "status": error.status})
    return Json({"artifacts": answers})


def _committed(connection: Connection, parts: Parts, row: Any, wanted: ArtifactCommit) -> dict[str, Any]:
    if not is_safe_path(wanted.manifest) or any(name_fault(a) for a in wanted.aliases):
        raise malformed("The manifest's path or an alias cannot be used.")
    said = (wanted.manifest, wanted.aliases, wanted.at, wanted.digest)
    return files.commit_artifact(connection, parts.objects, row, *said)


@router.get("/runs/{workspace}/{project}/{run_id}/receipt")
def receipt(workspace: str, project: str, run_id: str, parts: PartsOf, account: AccountOf) -> Json:
    """What is durably here of a run."""
    with parts.database.read() as connection:
        row = run_row(connection, account, workspace, project, run_id)
        return Json(parcels.receipt_of(connection, row.id).to_json())
