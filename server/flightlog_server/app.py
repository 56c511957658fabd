"""The ASGI application."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

import sqlalchemy as sa
import sqlalchemy.exc
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api import page, read, session, sync
from .api.common import Json, Parts
from .errors import ApiError
from .store.database import Database
from .store.objects import Objects

MAX_BODY = 1 << 20
_OPEN = ("/api/v1/hello", "/api/v1/session")
_STREAMS = ("/packs", "/files", "/parcels")
_INLINE_SCRIPT = "; script-src 'self' 'unsafe-inline'"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(database: Database, objects: Objects) -> FastAPI:
    """Return the server's application over its stores; it closes the database when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        database.close()

    app = FastAPIOffline(  # as FastAPI, with the documentation's own scripts served from here and not from a CDN
        title="flightlog",
        version=_version(),
        lifespan=lifespan,
        docs_url="/api/docs",
        redoc_url=None,
        openapi_url="/api/openapi.json",
        static_url="/api/docs-assets",
        swagger_ui_oauth2_redirect_url="/api/docs/oauth2-redirect",
    )
    app.state.parts = Parts(database, objects)
    _add_error_answers(app)
    app.add_middleware(Gate)
    app.add_middleware(SafeHeaders)
    bearer = HTTPBearer(auto_error=False, description="An API key. (api/common.py checks it; this documents it.)")
    api = APIRouter(prefix="/api/v1", dependencies=[Depends(bearer)])
    for router in (session.router, sync.router, read.router):
        api.include_router(router)
    app.include_router(api)

    @app.get("/healthz", tags=["health"])
    def healthz() -> dict[str, str]:
        """Whether the server can answer: its database is asked."""
        with database.read() as connection:
            connection.execute(sa.text("SELECT 1"))
        return {"status": "ok"}

    built = page.assets()
    if built is not None:
        app.mount("/assets", built)
    app.include_router(page.router)
    return app


def _version() -> str:
    try:
        return version("flightlog")
    except PackageNotFoundError:
        return "unknown"


class Gate:
    """Turns away, before anything of it is read, what has no sign-in, and every body that is too long for its route.

    The routes that take streams (records, packs, files) count for themselves; all others get small JSON.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        headers = Headers(scope=scope)
        signed = "authorization" in headers or "cookie" in headers
        if path.startswith("/api/v1/") and path not in _OPEN and not signed:
            error = ApiError(401, "unauthorized", "Sign in, or send an API key.")
            await Json(error.body, status_code=error.status)(scope, receive, send)
            return
        if path.endswith(_STREAMS) or "/records/" in path:
            await self._app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client has gone
            body += message.get("body", b"")
            if len(body) > MAX_BODY:
                error = ApiError(413, "too_large", f"This body has at most {MAX_BODY} bytes.")
                await Json(error.body, status_code=error.status, headers={"Connection": "close"})(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        await self._app(scope, _again(bytes(body), receive), send)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that has been read already, and then what comes after it."""
    told = False

    async def give() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


class SafeHeaders:
    """Adds to every answer the headers that keep what came from runs from acting in a browser."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"] == "/api/docs":  # its page has a script of its own inside; nothing of a run is on it
                    headers["Content-Security-Policy"] = _HEADERS["Content-Security-Policy"] + _INLINE_SCRIPT
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _busy() -> Response:
    body = {"error": "busy", "detail": "The server is busy. Nothing was changed; try again."}
    return Json(body, status_code=503, headers={"Retry-After": "1"})


def _add_error_answers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return Json(error.body, status_code=error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Json({"error": "malformed", "detail": f"{where}: {first['msg']}"}, status_code=422)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "not_allowed"}.get(error.status_code, "error")
        return Json({"error": code, "detail": str(error.detail)}, status_code=error.status_code)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return Json({"error": "disconnected", "detail": "The request broke off."}, status_code=400)  # nobody reads it

    @app.exception_handler(OperationalError)
    async def database_refuses(_: Request, error: OperationalError) -> Response:
        if "full" in str(error.orig):
            return await disk_refuses(_, OSError(errno.ENOSPC, ""))
        if "locked" in str(error.orig):
            return _busy()
        raise error

    @app.exception_handler(sqlalchemy.exc.TimeoutError)
    async def no_connection(_: Request, error: sqlalchemy.exc.TimeoutError) -> Response:
        return _busy()

    @app.exception_handler(OSError)
    async def disk_refuses(_: Request, error: OSError) -> Response:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            detail = "The server's disk is full. Nothing was changed; make room there and try again."
            return Json({"error": "disk_full", "detail": detail}, status_code=507)
        raise error

    @app.exception_handler(Exception)
    async def internal(_: Request, error: Exception) -> Response:
        # The framework raises it again after this answer, and uvicorn writes it to the log.
        return Json(
            {"error": "internal", "detail": "The server failed; its log says how. Nothing was changed."},
            status_code=500,
        )
