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
_SESSION = "/api/v1/session"


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
    """Return who makes a request: by API key, else by the page's cookie.

    Raises:
        ApiError: 401 where nobody is known by these, 403 where the key is for reading and the request is not.
    """
    parts = parts_of(request)
    header = request.headers.get("authorization", "")
    if header:
        scheme, _, key = header.partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise ApiError(401, "unauthorized", "The Authorization header must be: Bearer <API key>.")
        with parts.database.read() as connection:
            account = accounts.by_key(connection, key.strip())
    else:
        account = _by_cookie(request, parts)
    ends_session = request.url.path.endswith(_SESSION)
    if not account.may_write and request.method not in _SAFE and not ends_session:
        raise ApiError(403, "read_only", "This API key is for reading only; use one that may write.")
    return account


def _by_cookie(request: Request, parts: Parts) -> Account:
    token = request.cookies.get(COOKIE)
    if not token:
        raise ApiError(401, "unauthorized", "Sign in, or send an API key.")
    if request.method not in _SAFE and request.headers.get("x-flightlog") != "1":
        raise ApiError(403, "forbidden", "A request with a cookie that changes something needs X-Flightlog: 1.")
    with parts.database.read() as connection:
        account = accounts.by_session(connection, token)
    if account is None:
        raise ApiError(401, "unauthorized", "This session is over; sign in again.")
    return account


PartsOf = Annotated[Parts, Depends(parts_of)]
AccountOf = Annotated[Account, Depends(account_of)]
