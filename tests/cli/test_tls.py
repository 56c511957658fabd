"""HTTPS: which certificates are trusted, and proxies, as everything that is built on requests has them."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trustme

from ..server.tools import Server, environment, quick, run_dir

NAME = "flightlog.test"


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes until its end."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Relay:
    """Takes connections on loopback and passes them on, each in threads of its own."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.seen: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                taken, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(taken,), daemon=True).start()

    def _one(self, taken: socket.socket) -> None:
        with closing(taken):
            try:
                onward = self.connect(taken)
            except OSError:
                return
            if onward is None:
                return
            inner, outer = onward
            with closing(outer), closing(inner):
                back = threading.Thread(target=_pump, args=(outer, inner), daemon=True)
                back.start()
                _pump(inner, outer)
                back.join(20)

    def connect(self, taken: socket.socket) -> tuple[socket.socket, socket.socket] | None:
        raise NotImplementedError

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)


class TlsFront(Relay):
    """What nginx does in front of a server: ends TLS, and passes on what is inside."""

    def __init__(self, upstream: int, context: ssl.SSLContext) -> None:
        self._upstream, self._context = upstream, context
        super().__init__()

    def connect(self, taken: socket.socket) -> tuple[socket.socket, socket.socket]:
        inner = self._context.wrap_socket(taken, server_side=True)
        return inner, socket.create_connection(("127.0.0.1", self._upstream))


class WebProxy(Relay):
    """A proxy that knows CONNECT and where flightlog.test is; nobody else does, so who gets there came this way."""

    def __init__(self, target: int) -> None:
        self._target = target
        super().__init__()

    def connect(self, taken: socket.socket) -> tuple[socket.socket, socket.socket] | None:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 65536:
            part = taken.recv(4096)
            if not part:
                return None
            head += part
        self.seen.append(head)
        if not head.startswith(b"CONNECT "):
            taken.sendall(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
            return None
        taken.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        return taken, socket.create_connection(("127.0.0.1", self._target))


@contextmanager
def running(relay: Relay) -> Iterator[Relay]:
    try:
        yield relay
    finally:
        relay.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    """A certificate authority of one's own, and its certificate as a PEM file."""
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return authority, path


@pytest.fixture
def front(server: Server, authority: tuple[trustme.CA, Path]) -> Iterator[TlsFront]:
    """The server by https, with a certificate of that authority for localhost and flightlog.test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert("localhost", NAME).configure_cert(context)
    front = TlsFront(server.port, context)
    yield front
    front.close()


def test_a_certificate_of_ones_own_authority_is_trusted_when_it_is_named(
    server: Server, front: TlsFront, authority: tuple[trustme.CA, Path], home: Path, place: Path, run_id: str
) -> None:
    """Refused by default with the variable that helps; taken with REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE."""
    run_dir(place / "run-x", run_id)
    url = f"https://localhost:{front.port}"
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": url}
    for words in (("sync", place), ("whoami",), ("status", place, "--ask"), ("login", url)):
        said = quick(*words, home=home, **key)
        shown = said.err + said.out
        assert "certificate verify failed" in shown and "REQUESTS_CA_BUNDLE" in shown, said
        assert said.code == (0 if words[0] == "status" else 1) and "Traceback" not in shown, said
    assert server.query("SELECT count(*) FROM runs WHERE run_id = ?", run_id) == [(0,)]
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        bundle = {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "", variable: str(authority[1])}
        said = quick("sync", place, "--include-synced", home=home, **key, **bundle)
        assert said.code == 0 and url in said.out, said
    assert server.query("SELECT count(*) FROM runs WHERE run_id = ?", run_id) == [(1,)]


def test_an_online_run_takes_the_bundle_that_is_named_from_its_folder(
    server: Server, front: TlsFront, authority: tuple[trustme.CA, Path], home: Path, place: Path, run_id: str
) -> None:
    """REQUESTS_CA_BUNDLE=certs/ca.pem, as in the script's own folder, holds for its follower, which works elsewhere."""
    (place / "certs").mkdir()
    shutil.copy(authority[1], place / "certs" / "ca.pem")
    url = f"https://localhost:{front.port}"
    more = {"FLIGHTLOG_BASE_URL": url, "FLIGHTLOG_API_KEY": server.key, "REQUESTS_CA_BUNDLE": "certs/ca.pem"}
    script = f"import flightlog; flightlog.init('p', id={run_id!r}, mode='online').finish()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=place, env=environment(home, **more), capture_output=True, text=True
    )
    assert done.returncode == 0 and f"delivered: {url}/w/admin/p/runs/{run_id}" in done.stderr, done.stderr


def test_a_certificate_for_another_name_or_a_bundle_that_is_not_there_is_said(
    server: Server, front: TlsFront, authority: tuple[trustme.CA, Path], home: Path, place: Path, run_id: str
) -> None:
    """127.0.0.1 is not localhost; a CA bundle that is not there is named; so is https to a port that speaks http."""
    run_dir(place / "run-x", run_id)
    key = {"FLIGHTLOG_API_KEY": server.key, "REQUESTS_CA_BUNDLE": str(authority[1])}
    said = quick("sync", place, "--server", f"https://127.0.0.1:{front.port}", home=home, **key)
    assert said.code == 1 and "127.0.0.1" in said.err and said.err.count("\n") == 1, said
    key["REQUESTS_CA_BUNDLE"] = "/no/such/bundle.pem"
    said = quick("sync", place, "--server", f"https://localhost:{front.port}", "--timeout", "0", home=home, **key)
    assert said.code == 1 and "/no/such/bundle.pem" in said.err and said.err.count("\n") == 1, said
    said = quick("sync", place, "--server", f"https://localhost:{server.port}", "--timeout", "0", home=home, **key)
    assert said.code == 1 and said.err.count("\n") == 1 and "Traceback" not in said.err, said


def test_a_proxy_is_used_for_another_machine_and_sees_no_key(
    server: Server, front: TlsFront, authority: tuple[trustme.CA, Path], home: Path, place: Path, run_id: str
) -> None:
    """Only the proxy knows flightlog.test: HTTPS_PROXY leads there, by CONNECT alone; NO_PROXY leads past it."""
    run_dir(place / "run-x", run_id)
    with running(WebProxy(front.port)) as proxy:
        assert isinstance(proxy, WebProxy)
        more = {
            "FLIGHTLOG_API_KEY": server.key,
            "FLIGHTLOG_BASE_URL": f"https://{NAME}",
            "REQUESTS_CA_BUNDLE": str(authority[1]),
            "HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}",
        }
        said = quick("sync", place, "--timeout", "0", home=home, **more, NO_PROXY=NAME)
        assert said.code == 1 and "cannot be reached" in said.err and proxy.seen == [], said
        said = quick("sync", place, "--bandwidth", "10M", home=home, **more)
        assert said.code == 0 and "1 delivered" in said.out, said
        assert proxy.seen and all(head.startswith(f"CONNECT {NAME}:443 ".encode()) for head in proxy.seen)
        assert server.key.encode() not in b"".join(proxy.seen)
        (home / ".netrc").write_text(f"machine {NAME} login x password y\n")
        (home / ".netrc").chmod(0o600)
        assert quick("whoami", home=home, **more, NETRC=str(home / ".netrc")).code == 0, "our key, and not the netrc's"
    assert server.query("SELECT count(*) FROM runs WHERE run_id = ?", run_id) == [(1,)]


def test_plain_http_to_another_machine_is_refused_also_through_a_proxy(home: Path, place: Path, run_id: str) -> None:
    """The proxy would read the key: it is not even asked, until `login --insecure` has allowed it."""
    run_dir(place / "run-x", run_id)
    with running(WebProxy(9)) as proxy:
        more = {"FLIGHTLOG_API_KEY": "fl_00000000_x", "HTTP_PROXY": f"http://127.0.0.1:{proxy.port}"}
        more["http_proxy"] = more["HTTP_PROXY"]
        said = quick("sync", place, "--server", f"http://{NAME}:8080", home=home, **more)
        assert said.code == 2 and "--insecure" in said.err and proxy.seen == [], said


def test_a_connection_that_breaks_off_in_its_handshake_is_tried_again(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """A TLS connection that is cut is no verdict on the certificate: it is retryable."""
    run_dir(place / "run-x", run_id)

    class Cut(Relay):
        def connect(self, taken: socket.socket) -> None:
            taken.recv(100)
            self.seen.append(b"")

    with running(Cut()) as cut:
        words = ("sync", place, "--server", f"https://localhost:{cut.port}", "--timeout", "1")
        said = quick(*words, home=home, FLIGHTLOG_API_KEY=server.key)
        assert said.code == 1 and "cannot be reached" in said.err and len(cut.seen) > 1, said
