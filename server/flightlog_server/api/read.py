"""The routes that show what is here (docs/api.md)."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from .. import files
from ..ingest import lines_of_run
from ..metrics import query
from ..runs import list_projects, list_runs, project_row, rewinds_of, run_row, show
from ..store.schema import events, media
from .common import AccountOf, Json, Parts, PartsOf

router = APIRouter(tags=["read"])
# Shown by a browser as they are; everything else from a run is a download, whatever it calls itself.
_INLINE = {
    *("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"),
    *("audio/wav", "audio/x-wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/x-flac"),
    *("video/mp4", "video/webm", "video/ogg"),
}
_Step = Annotated[int | None, Query(ge=-(1 << 63), lt=(1 << 63) - 1)]


@router.get("/projects")
def projects(parts: PartsOf, account: AccountOf) -> Json:
    """The projects one may see."""
    with parts.database.read() as connection:
        return Json({"projects": list_projects(connection, account)})


@router.get("/projects/{workspace}/{project}/runs")
def runs(
    workspace: str,
    project: str,
    parts: PartsOf,
    account: AccountOf,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, lt=1 << 62)] = 0,
) -> Json:
    """A project's runs, the newest first."""
    with parts.database.read() as connection:
        row = project_row(connection, account, workspace, project)
        return Json(list_runs(connection, row.id, limit, offset))


@router.get("/runs/{workspace}/{project}/{run_id}")
def run(workspace: str, project: str, run_id: str, parts: PartsOf, account: AccountOf) -> Json:
    """A run."""
    with parts.database.read() as connection:
        return Json(show(connection, run_row(connection, account, workspace, project, run_id).id))


@router.get("/runs/{workspace}/{project}/{run_id}/metrics")
def metrics(workspace: str, project: str, run_id: str, parts: PartsOf, account: AccountOf) -> Json:
    """What metrics a run has."""
    with parts.database.read() as connection:
        row = run_row(connection, account, workspace, project, run_id)
        return Json({"metrics": query.metrics(connection, row.id), "version": row.version})


@router.get("/runs/{workspace}/{project}/{run_id}/series")
def series(
    workspace: str,
    project: str,
    run_id: str,
    metric: Annotated[str, Query(max_length=4000)],
    parts: PartsOf,
    account: AccountOf,
    points: Annotated[int, Query(ge=1, le=100_000)] = 1000,
    low: Annotated[int | None, Query(alias="from", ge=-(1 << 63), lt=1 << 63)] = None,
    high: Annotated[int | None, Query(alias="to", ge=-(1 << 63), lt=1 << 63)] = None,
) -> Json:
    """One metric of a run, as a chart draws it."""
    with parts.database.read() as connection:
        row = run_row(connection, account, workspace, project, run_id)
        return Json({**query.line(connection, row.id, metric, points, low, high), "version": row.version})


@router.get("/runs/{workspace}/{project}/{run_id}/history")
def history(
    workspace: str,
    project: str,
    run_id: str,
    parts: PartsOf,
    account: AccountOf,
    after: _Step = None,
    limit: Annotated[int, Query(ge=1, le=100_000)] = 10_000,
    metric: Annotated[list[str] | None, Query(max_length=1000)] = None,
) -> Json:
    """A page of a run's rows, one per step."""
    with parts.database.read() as connection:
        row = run_row(connection, account, workspace, project, run_id)
        return Json(query.rows(connection, row.id, after, limit, metric))


@router.get("/runs/{workspace}/{project}/{run_id}/media")
def run_media(workspace: str, project: str, run_id: str, parts: PartsOf, account: AccountOf) -> Json:
    """The media of a run, in order of step."""
    with parts.database.read() as connection:
        row = run_row(connection, account, workspace, project, run_id)
        found = connection.execute(
            sa.select(media).where(media.c.run_id == row.id).order_by(media.c.step, media.c.timestamp, media.c.seq)
        ).all()
        rewinds = rewinds_of(connection, row.id)
    seen = (record for record in found if not rewinds.hide_at(record.writer, record.seq, record.step))
    return Json({"media": [item for record in seen for item in _items(record)]})


@router.get("/runs/{workspace}/{project}/{run_id}/alerts")
def alerts(workspace: str, project: str, run_id: str, parts: PartsOf, account: AccountOf) -> Json:
    """The alerts of a run, in order of time."""
    with parts.database.read() as connection:
        row = run_row(connection, account, workspace, project, run_id)
        query = sa.select(events).where(events.c.run_id == row.id, events.c.kind == "alert")
        found = connection.execute(query.order_by(events.c.timestamp, events.c.writer, events.c.seq)).all()
    return Json({"alerts": [{**record.data, "timestamp": record.timestamp} for record in found]})


def _items(record: Any) -> Iterator[dict[str, Any]]:
    for key, value in record.entries.items():
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, dict) and entry.get("type") != "part":
                yield {**entry, "key": key, "step": record.step, "timestamp": record.timestamp}


@router.get("/runs/{workspace}/{project}/{run_id}/records")
def records(
    workspace: str,
    project: str,
    run_id: str,
    kind: Annotated[list[str], Query(min_length=1, max_length=20)],
    parts: PartsOf,
    account: AccountOf,
) -> StreamingResponse:
    """A run's records of some kinds as they came: one line each, the writer's name and the journal's line."""
    with parts.database.read() as connection:
        row = run_row(connection, account, workspace, project, run_id)
    return StreamingResponse(_lines(parts, row.id, frozenset(kind)), media_type="text/plain; charset=utf-8")


def _lines(parts: Parts, run_row_id: int, kinds: frozenset[str]) -> Iterator[bytes]:
    with parts.database.read() as connection:
        for writer, line in lines_of_run(connection, parts.objects, run_row_id):
            if line.kind in kinds:
                yield b"%b %b" % (writer.encode(), line.raw)


@router.get("/runs/{workspace}/{project}/{run_id}/files/{path:path}")
def run_file(
    workspace: str, project: str, run_id: str, path: str, parts: PartsOf, account: AccountOf
) -> StreamingResponse:
    """The bytes of a file of a run."""
    with parts.database.read() as connection:
        row = run_row(connection, account, workspace, project, run_id)
        found = files.file_row(connection, row.id, path)
        content = files.content_of(connection, parts.objects, row.project_id, found)
    return _file(content, path, found.size, bytes(found.sha256).hex())


def _file(content: Iterator[bytes], path: str, size: int, sha256: str) -> StreamingResponse:
    kind = mimetypes.guess_type(path)[0]
    inline = kind in _INLINE
    return StreamingResponse(
        content,
        media_type=kind if inline else "application/octet-stream",
        headers={
            "Content-Length": str(size),
            "Content-Disposition": "inline" if inline else "attachment",
            "ETag": f'"{sha256}"',
            "Cache-Control": "private, max-age=3600",
        },
    )


@router.get("/runs/{workspace}/{project}/{run_id}/artifacts")
def run_artifacts(workspace: str, project: str, run_id: str, parts: PartsOf, account: AccountOf) -> Json:
    """The artifact versions that a run logged."""
    with parts.database.read() as connection:
        row = run_row(connection, account, workspace, project, run_id)
        return Json({"artifacts": files.artifacts_of(connection, row.id)})


@router.get("/artifacts/{workspace}/{project}/{name}/{which}")
def artifact(workspace: str, project: str, name: str, which: str, parts: PartsOf, account: AccountOf) -> Json:
    """An artifact version, by alias or number, with its files, its description and what it refers to."""
    with parts.database.read() as connection:
        row = project_row(connection, account, workspace, project)
        version = files.version_row(connection, row.id, name, which)
        words = files.words_of(connection, parts.objects, row.id, version)
        return Json({**files.show_version(connection, version.id), **words})


@router.get("/artifacts/{workspace}/{project}/{name}/{which}/contents")
def artifact_contents(
    workspace: str,
    project: str,
    name: str,
    which: str,
    parts: PartsOf,
    account: AccountOf,
    first: Annotated[int, Query(ge=0, lt=1 << 31)] = 0,
    count: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
) -> StreamingResponse:
    """The bytes of several files of an artifact version, one after the other, in the order of its manifest."""
    with parts.database.read() as connection:
        row = project_row(connection, account, workspace, project)
        version = files.version_row(connection, row.id, name, which)
        content, size = files.contents_of(connection, parts.objects, row.id, version, first, count)
    return StreamingResponse(
        content,
        media_type="application/octet-stream",
        headers={"Content-Length": str(size), "Cache-Control": "no-store"},
    )


@router.get("/artifacts/{workspace}/{project}/{name}/{which}/files/{path:path}")
def artifact_file(
    workspace: str, project: str, name: str, which: str, path: str, parts: PartsOf, account: AccountOf
) -> Response:
    """The bytes of one file of an artifact version."""
    with parts.database.read() as connection:
        row = project_row(connection, account, workspace, project)
        version = files.version_row(connection, row.id, name, which)
        found = files.version_file_row(connection, version, path)
        content = files.content_of(connection, parts.objects, row.id, found)
    return _file(content, path, found.size, bytes(found.sha256).hex())
