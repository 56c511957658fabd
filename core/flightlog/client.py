"""One HTTP conversation with a flightlog server, and what its answers mean.

Errors are told apart here, once: what will never work is a PermanentError, what may work later a RetryableError.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json as jsonlib
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import IO, Any, Protocol, TypeVar, cast
from urllib.parse import quote

import requests
import requests.adapters
import requests.auth
import urllib3
import urllib3.connection

from .errors import AuthError, DivergedError, FlightlogError, GoneError, PermanentError, RetryableError
from .origin import is_loopback, origin_of
from .protocol.messages import VERSION
from .terminal import printable

T = TypeVar("T")
CONNECT_TIMEOUT = 10.0
SMALL_ANSWER = 1 << 20
LARGE_ANSWER = 512 << 20
READ_TIMEOUT = 120.0
_SEND_BLOCK = 256 << 10


class _Timely(io.RawIOBase):
    """What an answer is read from: however slowly it trickles in, it ends so many seconds after its first byte.

    A socket's own time-out begins anew with each byte, and so does that of everybody who reads a head or a block whole.
    """

    def __init__(self, raw: io.RawIOBase, seconds: float) -> None:
        self._raw = raw
        self._seconds = seconds
        self._until: float | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._until is not None and time.monotonic() > self._until:
            raise TimeoutError(f"its answer takes longer than {self._seconds:.0f} s")
        count: int | None = self._raw.readinto(buffer)
        self._until = self._until or time.monotonic() + self._seconds
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Asked(threading.local):
    """How long the answer to this thread's request may take to arrive; a download takes as long as it takes."""

    seconds = math.inf


_asked = _Asked()


class _Answer(http.client.HTTPResponse):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.fp: Any = io.BufferedReader(_Timely(self.fp.detach(), _asked.seconds))


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _Answer


class _SafeConnection(urllib3.connection.HTTPSConnection):
    response_class = _Answer


class _Connections(urllib3.HTTPConnectionPool):
    ConnectionCls: Any = _Connection


class _SafeConnections(urllib3.HTTPSConnectionPool):
    ConnectionCls: Any = _SafeConnection


class Adapter(requests.adapters.HTTPAdapter):
    """Sends bodies in larger parts than the 16 KiB that are usual, as a pack has millions of bytes; waits for no
    answer without end."""

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, blocksize=_SEND_BLOCK, **more)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        """Return what connects through a proxy; one that speaks SOCKS has its own kind of connections."""
        manager = super().proxy_manager_for(proxy, **more)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager


_POOLS = {"http": _Connections, "https": _SafeConnections}


class _Bearer(requests.auth.AuthBase):
    """Sets the key by ourselves: without an auth of its own, requests would take one from ~/.netrc."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


@dataclass(frozen=True, slots=True)
class Account:
    """Whose key it is, the workspace their runs go to, all they belong to as (name, role), and whether it may write."""

    name: str
    default_workspace: str
    workspaces: tuple[tuple[str, str], ...]
    may_write: bool = True


class Readable(Protocol):
    """A body of known length that is read bit by bit."""

    def __len__(self) -> int: ...

    def read(self, size: int = -1) -> bytes: ...


def path_of(*parts: str) -> str:
    """Return names as a path of an address, each quoted."""
    return "/".join(quote(part, safe="") for part in parts)


class Client:
    """A server and a key to it. Made per command or per thread; close it, or use it as a context manager.

    Args:
        url: the server's address.
        key: the API key; None for what needs no sign-in.
        timeout: seconds to wait for a connection, and for each part of an answer.
    """

    def __init__(
        self, url: str, key: str | None, *, timeout: tuple[float, float] = (CONNECT_TIMEOUT, READ_TIMEOUT)
    ) -> None:
        self.origin = origin_of(url)
        self._timeout = timeout
        self._session = requests.Session()
        self._session.mount("http://", Adapter())
        self._session.mount("https://", Adapter())
        self._session.auth = _Bearer(key)
        self._session.headers["User-Agent"] = "flightlog"
        if is_loopback(self.origin):
            # A proxy from the environment would carry the key over the network and back.
            self._session.trust_env = False
            self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def mount(self, adapter: requests.adapters.HTTPAdapter) -> None:
        """Send by this adapter from now on, one that keeps to a rate, say."""
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def hello(self) -> dict[str, Any]:
        """Return what the server says of itself.

        Raises:
            PermanentError: there is no flightlog server at this address, or none that speaks our protocol.
            RetryableError: it cannot be reached.
        """
        try:
            facts = self.json("GET", "hello", limit=SMALL_ANSWER, seconds=30.0)
        except PermanentError as error:
            text = f"there is no flightlog server at {self.origin} ({error})"
            raise PermanentError(text, status=error.status, retryable=error.retryable) from None
        spoken = facts.get("protocol")
        if facts.get("server") != "flightlog" or not isinstance(spoken, dict):
            raise PermanentError(f"what answers at {self.origin} is no flightlog server")
        low, high = spoken.get("min"), spoken.get("max")
        if not (isinstance(low, int) and isinstance(high, int) and low <= VERSION <= high):
            raise PermanentError(
                f"the server at {self.origin} speaks protocol {low} to {high}, this "
                f"flightlog speaks {VERSION}; update the older of the two"
            )
        return facts

    def account(self) -> Account:
        """Return whose key this is. Raises as `json` does."""
        answer = self.json("GET", "me", limit=SMALL_ANSWER, seconds=30.0)
        with self.understood():
            spaces = tuple((str(w["name"]), str(w["role"])) for w in answer["workspaces"])
            return Account(
                str(answer["user"]["name"]),
                str(answer["default_workspace"]),
                spaces,
                answer.get("may_write") is not False,
            )

    @contextlib.contextmanager
    def understood(self) -> Iterator[None]:
        """Within the block, an answer that is not built as it should be is a PermanentError."""
        try:
            yield
        except FlightlogError:  # some of them are ValueErrors, too
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError):
            raise PermanentError(f"{self.origin} sent an answer that is no flightlog server's") from None

    def json(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        data: bytes | IO[bytes] | Readable | None = None,
        params: Mapping[str, str | int | list[str]] | None = None,
        limit: int = LARGE_ANSWER,
        seconds: float = 600.0,
    ) -> dict[str, Any]:
        """Make a request below /api/v1 and return the JSON object that answers it. Raises as `request` does.

        Args:
            limit, seconds: the most bytes that the answer may have, and the longest that it may take to arrive.
        """
        _asked.seconds = seconds
        try:
            with self.request(method, path, json=json, data=data, params=params, stream=True) as response:
                content = self._read(response, limit, seconds)
        finally:
            _asked.seconds = math.inf
        try:
            answer = jsonlib.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._not_json(response, error) from None
        if not isinstance(answer, dict):
            raise PermanentError(f"{self.origin} answered with something that is no flightlog server's answer")
        status = answer.get("status")
        if isinstance(answer.get("error"), str) and type(status) is int:
            raise self._meaning(status, answer, response)  # it had begun to answer before it knew
        return answer

    def _read(self, response: requests.Response, limit: int, seconds: float) -> bytes:
        """Return an answer's body, of bounded size and time: what answers may be anything."""
        deadline = time.monotonic() + seconds
        content = bytearray()
        try:
            for part in response.iter_content(1 << 16):
                content += part
                if len(content) > limit:
                    raise PermanentError(f"{self.origin} sends an answer without end; that is no flightlog server")
                if time.monotonic() > deadline:
                    raise RetryableError(f"{self.origin} takes longer than {seconds:.0f} s for its answer")
        except requests.RequestException as error:
            raise RetryableError(f"{self.origin} broke off its answer ({_reason(error)})") from None
        return bytes(content)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        data: bytes | IO[bytes] | Readable | None = None,
        params: Mapping[str, str | int | list[str]] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """Make a request below /api/v1 and return the answer, whose status is 2xx.

        Raises:
            PermanentError and its kind: the server said no.
            RetryableError: no connection, a time-out, or a status that passes.
        """
        try:
            response = self._session.request(
                method,
                f"{self.origin}/api/v1/{path}",
                json=json,
                data=cast("Any", data),
                params=params,
                stream=stream,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.exceptions.InvalidURL as error:
            raise PermanentError(f"{self.origin}: {_reason(error)}") from None
        except requests.exceptions.SSLError as error:
            if "EOF" in str(error):  # the connection broke off
                raise RetryableError(f"{self.origin} cannot be reached ({_reason(error)})") from None
            raise PermanentError(f"{self.origin}: {_reason(error)}{_remedy(error)}") from None
        except requests.RequestException as error:
            raise RetryableError(f"{self.origin} cannot be reached ({_reason(error)})") from None
        except OSError as error:  # a CA bundle that is not there
            raise PermanentError(f"{self.origin}: {error}") from None
        if not 200 <= response.status_code < 300:
            raise self._refusal(response)
        return response

    def _not_json(self, response: requests.Response, error: Exception) -> Exception:
        if "json" in response.headers.get("content-type", ""):
            return RetryableError(f"{self.origin} broke off its answer ({error})")
        # A captive portal or a proxy's page, with status 200: it may go away, but asking again at once will not help.
        text = f"what answers at {self.origin} is no flightlog server (it sent no JSON)"
        return PermanentError(text, retryable=True)

    def _refusal(self, response: requests.Response) -> Exception:
        status = response.status_code
        try:
            body = jsonlib.loads(self._read(response, SMALL_ANSWER, 30.0))
            body = body if isinstance(body, dict) else {}
        except (ValueError, RecursionError, PermanentError, RetryableError):
            body = {}
        finally:
            response.close()
        return self._meaning(status, body, response)

    def _meaning(self, status: int, body: dict[str, Any], response: requests.Response) -> Exception:
        """Return what a status that is no success means.

        Without the server's own words it may be somebody's on the way, who knows of no key and no run.
        """
        detail = printable(str(body.get("detail") or f"status {status}")[:500])
        if status in (301, 302, 303, 307, 308):
            target = printable(response.headers.get("location", "")[:200])
            # A captive portal does so, too.
            return PermanentError(
                f"{self.origin} redirects to {target}; use that address", status=status, retryable=True
            )
        if status in (408, 425, 429) or status >= 500:
            return RetryableError(f"{self.origin}: {detail}", retry_after=_retry_after(response))
        if status in (401, 403) and body:
            return AuthError(f"{self.origin}: {detail}", status=status, body=body)
        if status == 410 and body.get("error") == "gone":
            return GoneError(f"{self.origin}: {detail}", status=status, body=body)
        if status == 409 and body.get("error") == "diverged":
            return DivergedError(f"{self.origin}: {detail}", status=status, body=body)
        return PermanentError(f"{self.origin}: {detail}", status=status, body=body)


def _reason(error: Exception) -> str:
    """Return the innermost cause of requests' nested errors, in its own words."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause)[:200] or type(cause).__name__


def _remedy(error: Exception) -> str:
    """Say what helps where a server's certificate is not trusted."""
    if "certificate verify failed" not in str(error):
        return ""
    return "; if it is signed by your own authority, set REQUESTS_CA_BUNDLE to a PEM file that holds its certificate"


def _retry_after(response: requests.Response) -> float | None:
    """Return the seconds that a server wants us to wait (RFC 9110, 10.2.3): it gives them, or a date."""
    told = response.headers.get("retry-after", "")
    try:
        seconds = float(told)
    except ValueError:
        try:
            until = parsedate_to_datetime(told)
            # By the server's own clock, where it says what that shows: ours may be hours away.
            now = parsedate_to_datetime(response.headers["date"]) if "date" in response.headers else None
            seconds = (until - (now or datetime.now(timezone.utc))).total_seconds()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(seconds, 0.0), 3600.0) if seconds == seconds else None


def _pause(stopped: threading.Event, seconds: float) -> None:
    """Wait, unless the sync is stopped."""
    stopped.wait(seconds)


@dataclass(slots=True)
class _Weather:
    """How the server does, as all threads of a sync see it together."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    failing_since: float | None = None
    told_until: float = 0.0
    stopped: threading.Event = field(default_factory=threading.Event)


class Patience:
    """Trying again what may work later: backoff with jitter, until `timeout` seconds have passed without success.

    One call is given up after so long, whatever others do; when nobody has had any success for so long, all are. May be
    used by several threads at once.

    Args:
        timeout: seconds to go on without any success.
        tell: called with the error and the seconds to the next attempt, before each wait; where several threads wait,
            by one of them.
    """

    def __init__(self, timeout: float, tell: Callable[[RetryableError, float], None] | None = None) -> None:
        self._timeout = timeout
        self._tell = tell
        self._weather = _Weather()

    def stop(self) -> None:
        """Let every call fail at once, those that wait too."""
        self._weather.stopped.set()

    def call(self, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns, calling it again after each RetryableError while there is time.

        Raises:
            What `attempt` raises; RetryableError only when the time is over.
        """
        since: float | None = None
        failures = 0
        while True:
            if self._weather.stopped.is_set():
                raise RetryableError("the sync was stopped")
            began = time.monotonic()
            try:
                result = attempt()
            except RetryableError as error:
                since = began if since is None else since
                failures += 1
                self._wait(error, failures, since, began)
            else:
                with self._weather.lock:
                    self._weather.failing_since = None
                return result

    def _wait(self, error: RetryableError, failures: int, since: float, began: float) -> None:
        """Wait before the next attempt; raise the error where there is no time for one."""
        with self._weather.lock:
            if self._weather.failing_since is None:
                self._weather.failing_since = began
            since = min(since, self._weather.failing_since)
        wait = min(2.0 ** min(failures - 2, 5), 30.0) * random.uniform(0.5, 1.5)  # noqa: S311
        now = time.monotonic()
        left = since + self._timeout - now
        if left <= 0.0 or (error.retry_after or 0.0) > left:
            raise error
        wait = min(max(wait, error.retry_after or 0.0), left)  # the last attempt is made when the time is over
        with self._weather.lock:
            tell = self._tell if now >= self._weather.told_until else None
            self._weather.told_until = max(self._weather.told_until, now + wait) if tell else self._weather.told_until
        if tell:
            tell(error, wait)
        _pause(self._weather.stopped, wait)
