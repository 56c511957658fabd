"""Running the server on a socket."""

from __future__ import annotations

import gc
import socket

import uvicorn

from flightlog.errors import FlightlogError

from .app import create_app
from .data import Data
from .store import packs


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on host and port (0: a free one).

    Raises:
        FlightlogError: the port is taken, or the host is not this machine's.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)  # from here on a client that is quick waits instead of being refused
    except OSError as error:
        raise FlightlogError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return sock


def address_of(sock: socket.socket, host: str) -> str:
    """Return the URL at which a listening socket is reached from this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{sock.getsockname()[1]}"


def run(data: Data, sock: socket.socket) -> None:
    """Serve until the process is told to end (SIGINT, SIGTERM); requests under way are finished first."""
    # A batch of records is a hundred thousand objects that live for a second: looking through all others at every few
    # hundred of them costs a quarter of the time that taking it in needs.
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    packs.take_over(data.database, data.objects)
    config = uvicorn.Config(
        create_app(data.database, data.objects),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )
    uvicorn.Server(config).run(sockets=[sock])
