"""Signing in and out, and who one is."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from flightlog.protocol import messages

from .. import accounts
from ..store.schema import identity
from .common import COOKIE, AccountOf, Json, PartsOf

router = APIRouter(tags=["session"])


class SignIn(BaseModel):
    """What signs the page in."""

    api_key: str = Field(max_length=200)


@router.get("/hello")
def hello(parts: PartsOf) -> dict[str, Any]:
    """What this server speaks, and its limits. Needs no sign-in."""
    with parts.database.read() as connection:
        server_id = connection.execute(sa.select(identity.c.id)).scalar_one()
    return {
        "server": "flightlog",
        "server_id": server_id,
        "protocol": {"min": messages.VERSION, "max": messages.VERSION},
        "limits": {
            "batch": messages.MAX_BATCH,
            "pack": messages.MAX_PACK,
            "chunk": messages.MAX_CHUNK,
            "asked": messages.MAX_ASKED,
            "versions": messages.MAX_VERSIONS,
        },
    }


@router.post("/session")
def sign_in(body: SignIn, request: Request, parts: PartsOf) -> Response:
    """Begin a browser session with an API key."""
    key = body.api_key.strip()
    with parts.database.write() as connection:
        account, token = accounts.begin_session(connection, key)
    response = Json({"user": {"name": account.name, "is_admin": account.is_admin}})
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(accounts.SESSION_SECONDS),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
    return response


@router.delete("/session", status_code=204)
def sign_out(request: Request, parts: PartsOf, account: AccountOf) -> Response:
    """End the browser session that asks."""
    token = request.cookies.get(COOKIE)
    if token:
        with parts.database.write() as connection:
            accounts.end_session(connection, token)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/")
    return response


@router.get("/me")
def me(parts: PartsOf, account: AccountOf) -> dict[str, Any]:
    """Who one is, and the workspaces one belongs to."""
    with parts.database.read() as connection:
        found = accounts.workspaces_of(connection, account)
    return {
        "user": {"name": account.name, "is_admin": account.is_admin},
        "workspaces": found,
        "default_workspace": account.name,
        "may_write": account.may_write,
    }
