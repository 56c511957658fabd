"""Sending no faster than a given rate, all connections of a sync together."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

import requests

from ..client import CONNECT_TIMEOUT, READ_TIMEOUT, Adapter, Client

_SLICE_SECONDS = 0.1
_BURST_SECONDS = 0.25
_MOST = 64 << 10


class Pace:
    """A token bucket that threads share.

    Args:
        rate: bytes a second.
        timeout: what clients wait for, as `Client` has it.
    """

    def __init__(self, rate: float, timeout: tuple[float, float] = (CONNECT_TIMEOUT, READ_TIMEOUT)) -> None:
        self._timeout = timeout
        self.slice = int(min(_MOST, max(1.0, rate * _SLICE_SECONDS)))
        self._rate = rate
        self._lock = threading.Lock()
        self._paid_until = 0.0  # the moment by which what has been taken so far is paid for

    def take(self, size: int) -> None:
        """Wait until so many bytes more may be sent."""
        with self._lock:
            now = time.monotonic()
            self._paid_until = max(self._paid_until, now - _BURST_SECONDS) + size / self._rate
            wait = self._paid_until - now
        if wait > 0:
            time.sleep(wait)

    def connect(self, origin: str, key: str | None) -> Client:
        """Return a client that sends at this pace."""
        client = Client(origin, key, timeout=self._timeout)
        client.mount(_Adapter(self))
        return client


class _Body:
    """A request's body that is read at a pace."""

    def __init__(self, body: IO[bytes], pace: Pace) -> None:
        self._body = body
        self._pace = pace

    def read(self, size: int = -1) -> bytes:
        data = self._body.read(self._pace.slice if size < 0 else min(size, self._pace.slice))
        if data:
            self._pace.take(len(data))
        return data


class _Adapter(Adapter):
    """Requests' own way of sending, with the body at a pace. Content-Length has been set from the body itself."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send a request."""
        body: Any = request.body
        if isinstance(body, str):
            body = body.encode()
        if body is not None and "Content-Length" in request.headers:
            request.body = _Body(io.BytesIO(body) if isinstance(body, bytes) else body, self._pace)  # type: ignore[assignment]
        return super().send(request, stream, timeout, verify, cert, proxies)
