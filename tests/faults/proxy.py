"""A real TCP proxy on loopback that fails as networks do: at chosen requests, in scripted ways.

It understands HTTP just enough to tell requests apart. Connections are kept alive and served at the same time, as the
client pleases; every request goes to the server over a connection of its own. What went through it is noted, and the
packs among it are looked into, so that a test can say how much was sent more than once.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import struct
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PATIENCE = 30.0  # seconds that no read or write of the proxy takes longer than
# Requests by what they are for; the first that fits counts.
ROUTES = {
    "hello": r"^GET /api/v1/hello$",
    "me": r"^GET /api/v1/me$",
    "register": r"^PUT /api/v1/runs/[^/]+/[^/]+/[^/]+$",
    "parcels": r"^POST /api/v1/parcels$",
    "records": r"^POST /api/v1/runs/.*/records(/|$)",
    "missing": r"^POST /api/v1/projects/.*/chunks/missing$",
    "packs": r"^POST /api/v1/projects/.*/packs$",
    "files": r"^POST /api/v1/runs/.*/files$",
    "manifests": r"^POST /api/v1/runs/.*/manifests$",
    "receipt": r"^GET /api/v1/runs/.*/receipt$",
}
PORTAL = b"<!doctype html><title>Welcome</title><p>Please sign in to the guest network.</p>"


class Reset(Exception):
    """The connection to the client is to be reset, not closed."""


@dataclass
class Request:
    """A request as the proxy has read it; the body is read when somebody wants it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def route(self) -> str:
        """Which of ROUTES it is; "other" where none fits."""
        called = f"{self.method} {urlsplit(self.target).path}"
        return next((name for name, pattern in ROUTES.items() if re.search(pattern, called)), "other")

    def bytes(self, *, body: bytes | None = None, length: int | None = None) -> bytes:
        """Return it as it goes to the server, with another body, or one that says it has another length."""
        content = self.body if body is None else body
        dropped = ("connection", "content-length", "transfer-encoding", "keep-alive", "expect")
        head = "".join(f"{k}: {v}\r\n" for k, v in self.headers.items() if k not in dropped)
        size = len(content) if length is None else length
        line = f"{self.method} {self.target} HTTP/1.1\r\n{head}Content-Length: {size}\r\n\r\n"
        return line.encode("latin-1") + content


@dataclass
class Pack:
    """A pack as a client sent it: its chunks with their sizes, and the status that it heard, 0 for none."""

    chunks: dict[str, int]
    status: int = 0


@dataclass
class Exchange:
    """One request of a client, under way. What a fault is given to act on."""

    proxy: Proxy
    client: socket.socket
    stream: io.BufferedReader
    request: Request
    status: int = 0

    def read(self, fraction: float = 1.0) -> bytes:
        """Read the body, or a part of it, from the client."""
        length = int(self.request.headers.get("content-length", 0))
        if "chunked" in self.request.headers.get("transfer-encoding", ""):
            self.request.body = b"".join(_chunked(self.stream))
        else:
            self.request.body = self.stream.read(int(length * fraction))
        return self.request.body

    def deliver(self, content: bytes | None = None) -> bytes:
        """Send the request (or these bytes instead) to the server and return the bytes of its answer."""
        with contextlib.closing(self.proxy.upstream()) as out:
            with contextlib.suppress(ConnectionError):  # it may have refused before it had read everything
                out.sendall(self.request.bytes() if content is None else content)
            return _response(out)

    def answer(self, content: bytes) -> None:
        """Give the client an answer, as bytes."""
        self.status = int(content[9:12] or 0) if content.startswith(b"HTTP/1.") else 0
        self.client.sendall(_keep_alive(content))


Fault = Callable[[Exchange], None]


@dataclass
class Rule:
    """Once, at the request number `skip` (from 0) that goes to `route`: what happens to it."""

    route: str
    fault: Fault
    skip: int = 0
    name: str = ""

    def fits(self, route: str) -> bool:
        if self.route not in ("any", route):
            return False
        self.skip -= 1
        return self.skip < 0


@dataclass
class Proxy:
    """The proxy: listens on a port of its own and passes on to `port`.

    Attributes:
        rules: what is to go wrong; each is used up by the first request that it fits.
        down: nobody answers: every connection is reset.
        seen: the routes asked for, in order. statuses: what the clients heard.
        packs: the packs that clients sent. met: the names of the rules that struck.
        most_packs: how many packs were under way at once, at most.
        troubles: what the proxy itself stumbled over; there must be nothing.
    """

    port: int
    rules: list[Rule] = field(default_factory=list)
    down: bool = False
    seen: list[str] = field(default_factory=list)
    statuses: list[tuple[str, int]] = field(default_factory=list)
    packs: list[Pack] = field(default_factory=list)
    met: list[str] = field(default_factory=list)
    most_packs: int = 0
    troubles: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._late: list[tuple[int, bytes]] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, end all connections and wait for the threads."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._accepting.join(PATIENCE)
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(t.is_alive() for t in self._threads), "a connection of the proxy hangs"

    def upstream(self) -> socket.socket:
        """Return a new connection to the server. Raises OSError where it does not listen."""
        out = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        out.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return out

    def later(self, after: int, request: bytes) -> None:
        """Deliver these bytes to the server once more when `after` more requests have come by."""
        with self._lock:
            self._late.append((len(self.seen) + after, request))

    def deliver_late(self, all_of_them: bool = True) -> None:
        """Deliver what was held back and is due (or everything)."""
        with self._lock:
            due = [r for at, r in self._late if all_of_them or at <= len(self.seen)]
            self._late = [(at, r) for at, r in self._late if r not in due]
        for request in due:
            with contextlib.suppress(OSError), contextlib.closing(self.upstream()) as out:
                out.sendall(request)
                _response(out)

    def _accept(self) -> None:
        while True:
            try:
                taken, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(taken,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, taken: socket.socket) -> None:
        taken.settimeout(PATIENCE)
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(taken)
        stream = taken.makefile("rb")
        try:
            while not self.down and self._one(taken, stream):
                pass
            if self.down:
                raise Reset
        except Reset:
            with contextlib.suppress(OSError):
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # one of the two sides has gone
        except BaseException as error:
            self.troubles.append(error)
        finally:
            with self._lock:
                self._open.discard(taken)
            stream.close()
            taken.close()

    def _one(self, taken: socket.socket, stream: io.BufferedReader) -> bool:
        """Serve one request; tell whether another one may come on this connection."""
        first = stream.readline().decode("latin-1").split()
        if len(first) < 2:
            return False
        headers: dict[str, str] = {}
        while (head := stream.readline().decode("latin-1").strip()) != "":
            name, _, value = head.partition(":")
            headers[name.lower()] = value.strip()
        exchange = Exchange(self, taken, stream, Request(first[0], first[1], headers))
        self.deliver_late(all_of_them=False)
        fault = self._chosen(exchange)
        try:
            fault(exchange)
        except OSError as error:
            raise Reset from error  # the server has gone, or the client: both see a connection that breaks
        finally:
            self._note(exchange)
        return exchange.status != 0 and "close" not in headers.get("connection", "").lower()

    def _chosen(self, exchange: Exchange) -> Fault:
        route = exchange.request.route
        with self._lock:
            self.seen.append(route)
            self._under_way[route] += 1
            self.most_packs = max(self.most_packs, self._under_way["packs"])
            for rule in self.rules:
                if rule.fits(route):
                    self.rules.remove(rule)
                    self.met.append(f"{rule.name or rule.fault.__name__} at {route}")
                    return rule.fault
        return pass_on

    def _note(self, exchange: Exchange) -> None:
        route = exchange.request.route
        pack = Pack(_members(exchange.request.body), exchange.status) if route == "packs" else None
        with self._lock:
            self._under_way[route] -= 1
            self.statuses.append((route, exchange.status))
            if pack is not None:
                self.packs.append(pack)

    def resent_bytes(self) -> int:
        """Return how many bytes of chunks clients sent beyond once each."""
        sizes: dict[str, int] = {}
        for pack in self.packs:
            sizes.update(pack.chunks)
        return sum(sum(p.chunks.values()) for p in self.packs) - sum(sizes.values())

    def largest_pack(self) -> int:
        """Return how many bytes of chunks the largest pack held that was sent."""
        return max((sum(p.chunks.values()) for p in self.packs), default=0)


def _chunked(stream: io.BufferedReader) -> Iterator[bytes]:
    while size := int(stream.readline().split(b";")[0] or b"0", 16):
        yield stream.read(size)
        stream.readline()
    while stream.readline().strip():
        pass


def _response(out: socket.socket) -> bytes:
    """Return the bytes of an answer, or what arrives of it before the other side closes."""
    with out.makefile("rb") as stream:
        parts = [stream.readline()]
        length, chunked = 0, False
        while parts[-1] not in (b"\r\n", b""):
            parts.append(stream.readline())
            name, _, value = parts[-1].lower().partition(b":")
            if name == b"content-length":
                length = int(value)
            chunked |= name == b"transfer-encoding" and b"chunked" in value
        if not chunked:
            return b"".join([*parts, stream.read(length)])
        size = 1
        while size:
            parts.append(stream.readline())
            size = int(parts[-1].split(b";")[0] or b"0", 16)
            parts.append(stream.read(size + 2))
        return b"".join(parts)


def _keep_alive(answer: bytes) -> bytes:
    """Return an answer without the words with which the server closes its connection to the proxy."""
    head, rest, body = answer.partition(b"\r\n\r\n")
    return re.sub(rb"(?i)\r\nconnection: close", b"", head) + rest + body


def _members(pack: bytes) -> dict[str, int]:
    """Return the chunks of a pack, as far as it goes, with their sizes."""
    found = {}
    with contextlib.suppress(tarfile.TarError, EOFError), tarfile.open(fileobj=io.BytesIO(pack), mode="r:") as tar:
        for member in tar:
            found[member.name] = member.size
    return found


def response(status: int, body: bytes, **headers: str) -> bytes:
    """Return an answer as bytes; `Retry_After="1"` is a header of it."""
    named = {"Content-Type": "text/html", **{k.replace("_", "-"): v for k, v in headers.items()}}
    head = "".join(f"{k}: {v}\r\n" for k, v in named.items())
    return f"HTTP/1.1 {status} X\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


# -- what can happen to a request --------------------------------------------------------------------------------------


def pass_on(exchange: Exchange) -> None:
    """Nothing goes wrong."""
    exchange.read()
    exchange.answer(exchange.deliver())


def reset(exchange: Exchange) -> None:
    """The connection is reset before anything of the body was read."""
    raise Reset


def cut_request(fraction: float) -> Fault:
    """The server gets a part of the body, then both connections are reset."""

    def cut(exchange: Exchange) -> None:
        length = int(exchange.request.headers.get("content-length", 0))
        part = exchange.read(fraction)
        with contextlib.closing(exchange.proxy.upstream()) as out:
            out.sendall(exchange.request.bytes(body=part, length=length))
            time.sleep(0.02)
            out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Reset

    return cut


def short_request(fraction: float) -> Fault:
    """The server gets a part of the body as if it were the whole; its answer goes back."""

    def shorten(exchange: Exchange) -> None:
        whole = exchange.read()
        exchange.answer(exchange.deliver(exchange.request.bytes(body=whole[: int(len(whole) * fraction)])))

    return shorten


def lose_answer(exchange: Exchange) -> None:
    """The server does its work, and nobody hears of it."""
    exchange.read()
    exchange.deliver()
    raise Reset


def cut_answer(fraction: float) -> Fault:
    """The server does its work; its answer breaks off."""

    def cut(exchange: Exchange) -> None:
        exchange.read()
        content = exchange.deliver()
        head = content.index(b"\r\n\r\n") + 4
        end = head + int((len(content) - head) * fraction)
        exchange.client.sendall(_keep_alive(content[:end]))
        exchange.client.shutdown(socket.SHUT_WR)

    return cut


def answer(status: int, body: bytes = b"<html>no</html>", **headers: str) -> Fault:
    """Somebody on the way answers; the server hears of nothing."""

    def instead(exchange: Exchange) -> None:
        exchange.read()
        exchange.answer(response(status, body, **headers))

    return instead


def late(status: int) -> Fault:
    """The server does its work, but a gateway has lost patience and says so."""

    def too_late(exchange: Exchange) -> None:
        exchange.read()
        exchange.deliver()
        exchange.answer(response(status, b"gateway time-out"))

    return too_late


def twice(exchange: Exchange) -> None:
    """The request reaches the server twice, one after the other."""
    exchange.read()
    exchange.deliver()
    exchange.answer(exchange.deliver())


def twice_at_once(exchange: Exchange) -> None:
    """The request reaches the server twice at the same time."""
    exchange.read()

    def other() -> None:
        with contextlib.suppress(OSError):
            exchange.deliver()

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    content = exchange.deliver()
    thread.join(PATIENCE)
    exchange.answer(content)


def again_later(after: int) -> Fault:
    """All is well, and the request reaches the server once more when others have come by."""

    def hold_back(exchange: Exchange) -> None:
        exchange.read()
        exchange.answer(exchange.deliver())
        exchange.proxy.later(after, exchange.request.bytes())

    return hold_back


def stall(seconds: float, then: Fault = pass_on) -> Fault:
    """Nothing moves for a while."""

    def hold(exchange: Exchange) -> None:
        time.sleep(seconds)
        then(exchange)

    return hold


def trickle(seconds: float) -> Fault:
    """The answer comes drop by drop."""

    def drip(exchange: Exchange) -> None:
        exchange.read()
        content = _keep_alive(exchange.deliver())
        step = max(1, len(content) // 20)
        for start in range(0, len(content), step):
            exchange.client.sendall(content[start : start + step])
            time.sleep(seconds / 20)
        exchange.status = int(content[9:12])

    return drip


def acting(action: Callable[[], object], when: str = "before") -> Fault:
    """Do something at this request: before the server sees it, when it has half of it, or when it has answered."""

    def act(exchange: Exchange) -> None:
        body = exchange.read()
        if when == "before":
            action()
            exchange.answer(exchange.deliver())
        elif when == "midway":
            content = exchange.request.bytes()
            half = len(content) - len(body) // 2
            with contextlib.closing(exchange.proxy.upstream()) as out:
                out.sendall(content[:half])
                time.sleep(0.01)
                action()
                out.sendall(content[half:])
                exchange.answer(_response(out))
        else:
            content = exchange.deliver()
            action()
            exchange.answer(content)

    return act
