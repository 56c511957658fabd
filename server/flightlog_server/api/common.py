"""What all routes share: the server's parts, and who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import Depends, Request
from fastapi.responses import Response

from .. import accounts
from ..accounts import Account
from ..errors import ApiError
from ..store.database import Database
from ..store.objects import Objects

COOKIE = "flightlog_session"
_SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Parts:
    """The stores that every route works on."""

    database: Database
    objects: Objects


class Json(Response):
    """JSON by orjson, numpy arrays included; NaN and the infinities become null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def parts_of(request: Request) -> Parts:
    """Return the server's parts."""
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


def account_of(request: Request) -> Account:
    """Return who makes a request: by API key, else by the page's cookie. Raises ApiError 401."""
    parts = parts_of(request)
    header = request.headers.get("authorization", "")
    scheme, _, key = header.partition(" ")
    if header:
        if scheme.lower() != "bearer" or not key:
            raise ApiError(401, "unauthorized", "The Authorization header must be: Bearer <API key>.")
        with parts.database.read() as connection:
            account = accounts.by_key(connection, key.strip())
        if account is None:
            raise ApiError(401, "unauthorized", "This API key is wrong or has been revoked.")
        return account
    token = request.cookies.get(COOKIE)
    if token:
        if request.method not in _SAFE and request.headers.get("x-flightlog") != "1":
            raise ApiError(403, "forbidden", "A request with a cookie that changes something needs X-Flightlog: 1.")
        with parts.database.read() as connection:
            account = accounts.by_session(connection, token)
        if account is not None:
            return account
        raise ApiError(401, "unauthorized", "This session is over; sign in again.")
    raise ApiError(401, "unauthorized", "Sign in, or send an API key.")


PartsOf = Annotated[Parts, Depends(parts_of)]
AccountOf = Annotated[Account, Depends(account_of)]
