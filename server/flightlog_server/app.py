"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

import sqlalchemy as sa
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api import page, read, session, sync
from .api.common import Json, Parts
from .errors import ApiError
from .store.database import Database
from .store.objects import Objects

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

    @app.exception_handler(Exception)
    async def internal(_: Request, error: Exception) -> Response:
        # The framework raises it again after this answer, and uvicorn writes it to the log.
        return Json(
            {"error": "internal", "detail": "The server failed; its log says how. Nothing was changed."},
            status_code=500,
        )
