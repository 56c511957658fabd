"""What the tests of server, sync and reading share: real servers, real commands, and journals made line by line."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import re
import select
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock
from urllib.parse import urlsplit

import orjson
import zstandard

from flightlog import cli
from flightlog.journal import record
from flightlog.protocol.digest import JournalDigest

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
ROOMS = [str(ROOT / room) for room in ("core", "integrations", "server")]
EMPTY = JournalDigest().upto(0)
T0 = 1_700_000_000.0


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a process that sees this checkout, and nothing of its user's own settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLIGHTLOG_", "WANDB_")) and not name.lower().endswith("_proxy")
    }
    paths = os.pathsep.join([*ROOMS, *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "XDG_STATE_HOME": str(home / ".state")}
    return {**kept, **own, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **more}


def command(*words: str | Path) -> list[str]:
    """Return a command line of flightlog."""
    return [sys.executable, "-m", "flightlog", *map(str, words)]


@dataclass(frozen=True)
class Said:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs of `sync --json`."""
        found: list[dict[str, Any]] = json.loads(self.out)["runs"]
        return found

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


def flightlog(*words: str | Path, home: Path, cwd: Path | None = None, stdin: str = "", **more: str) -> Said:
    """Run a flightlog command in a process of its own, without a terminal."""
    done = subprocess.run(
        command(*words),
        env=environment(home, **more),
        cwd=cwd or home,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def quick(*words: str | Path, home: Path, cwd: Path | None = None, **more: str) -> Said:
    """Run a flightlog command in this process: the same code and exit code, without the start of an interpreter."""
    out, err = (io.TextIOWrapper(BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code: Any = 0
    before = Path.cwd()
    with (
        mock.patch.dict(os.environ, environment(home, **more), clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        os.chdir(cwd or home)
        try:
            cli.main(list(map(str, words)))
        except SystemExit as ended:
            code = ended.code
        finally:
            os.chdir(before)
    return Said(int(code or 0), *(_content(stream) for stream in (out, err)))


def _content(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, BytesIO)
    return stream.buffer.getvalue().decode()


@dataclass
class Answer:
    """What a server said to one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, which must be JSON of the strict kind: no NaN, no Infinity."""
        return json.loads(self.body, parse_constant=_no_such_constant)


def _no_such_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


@dataclass
class Server:
    """A flightlog server in a process of its own."""

    folder: Path
    url: str = ""
    key: str = ""
    said: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def start(self) -> Server:
        """Start it: on a free port the first time, on the same one from then on."""
        first = not self.key
        with (self.folder / "stderr").open("a") as errors:
            self.process = subprocess.Popen(
                command("server", "--data", self.data, "--port", str(self.port if self.url else 0)),
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(self.folder),
                text=True,
            )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        found = re.search(r"http://\S+:\d+", self.said)
        assert found, f"the server did not start: {self.said!r} {self.stderr}"
        self.url = found[0]
        while first and not self.said.count("Accounts for others"):
            line = self.process.stdout.readline()
            assert line, self.stderr
            self.said += line
            if line.strip().startswith("fl_"):
                self.key = line.strip()
        self._wait()
        return self

    def _wait(self) -> None:
        for _ in range(400):
            try:
                if self.get("/healthz").status == 200:
                    return
            except OSError:
                time.sleep(0.025)
        raise AssertionError(f"the server does not answer: {self.stderr}")

    def kill(self) -> None:
        """SIGKILL it, as a power cut would end it."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as a service manager does."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def sync(
        self, *paths: Path, home: Path, url: str | None = None, key: str | None = None, options: tuple[str, ...] = ()
    ) -> Said:
        """Sync runs to it with the admin's key, or another, and return what `--json` says."""
        words: tuple[str | Path, ...] = ("sync", *paths, "--server", url or self.url, "--json", *options)
        return quick(*words, home=home, FLIGHTLOG_API_KEY=key or self.key)

    def create_user(self, name: str) -> str:
        """Make an account and return its key."""
        done = flightlog("server", "create-user", name, "--json", "--data", self.data, home=self.folder)
        assert done.code == 0, done
        return str(json.loads(done.out)["api_key"])

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        chunked: bool = False,
    ) -> Answer:
        """Make one request, exactly as written: no client tidies up its path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        with closing(connection):
            parts: Any = _pieces(body) if chunked and body is not None else body
            connection.request(method, path, parts, sent, encode_chunked=chunked)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def get(self, path: str, **more: Any) -> Answer:
        return self.ask("GET", path, **more)

    def api(self, method: str, path: str, body: object = None, *, key: str | None = None, **more: Any) -> Answer:
        """Make a request below /api/v1 with the admin's key, or another."""
        content = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        headers = {} if isinstance(body, bytes) or body is None else {"Content-Type": "application/json"}
        return self.ask(method, f"/api/v1/{path}", content, key=key or self.key, headers=headers, **more)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the server's database itself."""
        with closing(sqlite3.connect(self.data / "flightlog.db", timeout=30)) as connection:
            return connection.execute(sql, values).fetchall()

    def execute(self, sql: str, *values: object) -> None:
        """Change the server's database itself."""
        with closing(sqlite3.connect(self.data / "flightlog.db", timeout=30)) as connection, connection:
            connection.execute(sql, values)

    def journal(self, run_id: str) -> dict[str, bytes]:
        """Return the lines that are stored of each writer of a run, as they came."""
        found: dict[str, bytes] = {}
        rows = self.query(
            "SELECT w.name, b.lines, b.object, b.offset, b.size "
            "FROM runs r JOIN writers w ON w.run_id = r.id JOIN batches b ON b.writer_id = w.id "
            "WHERE r.run_id = ? ORDER BY w.name, b.first_seq",
            run_id,
        )
        for name, blob, key, offset, size in rows:
            stored = blob if key is None else (self.data / "objects" / key).read_bytes()[offset : offset + size]
            found[name] = found.get(name, b"") + zstandard.ZstdDecompressor().decompressobj().decompress(stored)
        return found


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 1 << 16):
        yield body[start : start + (1 << 16)]


# -- journals and run directories --------------------------------------------------------------------------------------


def line(seq: int, kind: str = "log", data: object = None, step: int | None = None, t: float | None = None) -> bytes:
    """Return a line of a journal."""
    values = {"loss": seq / 2} if data is None else data
    at = T0 + seq if t is None else t
    return record.encode(seq, at, kind, record.body(orjson.dumps(values), step))


def begin(run_id: str, project: str = "p", **more: object) -> bytes:
    """Return a writer's first line."""
    return line(1, "run", {"format": 1, "id": run_id, "project": project, **more})


def logs(first: int, last: int, **more: Any) -> list[bytes]:
    """Return lines first..last, each a log of the step that is its seq."""
    return [line(seq, step=seq, **more) for seq in range(first, last + 1)]


def run_dir(
    place: Path,
    run_id: str,
    writers: Mapping[str, list[bytes]] | None = None,
    *,
    spec: Mapping[str, object] | None = None,
    finished: bool = True,
) -> Path:
    """Make a run directory `place` by hand; without `writers` of one writer with twenty logs and a finish record."""
    if writers is None:
        writers = {"w" * 16: [begin(run_id), *logs(2, 21), line(22, "finish", {"state": "finished"})]}
    for name, lines in writers.items():
        folder = place / "files" / "journal" / name
        folder.mkdir(parents=True)
        (folder / "000001.jsonl").write_bytes(b"".join(lines))
    (place / "files" / "journal").mkdir(parents=True, exist_ok=True)
    facts = {"format": 1, "id": run_id, "project": "p", "name": run_id, "state": "finished" if finished else "running"}
    (place / "latest.spec").write_bytes(orjson.dumps({**facts, "host": "elsewhere", **(spec or {})}))
    return place


def local_journal(directory: Path) -> dict[str, bytes]:
    """Return a run directory's journal by writer: all segments one after the other."""
    return {
        folder.name: b"".join(p.read_bytes() for p in sorted(folder.glob("*.jsonl")))
        for folder in sorted((directory / "files" / "journal").iterdir())
        if any(folder.glob("*.jsonl"))
    }


def add_media(directory: Path, name: str, content: bytes, *, writer: str = "media") -> str:
    """Add a file to a run directory, with a writer whose record names it. Returns its path below files/."""
    path = f"media/{name}"
    file = directory / "files" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    entry = {"type": "text", "path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    folder = directory / "files" / "journal" / writer
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "000001.jsonl").write_bytes(line(1, "media", {"text": entry}, step=0))
    return path


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def pack_of(*chunks: bytes) -> bytes:
    """Return a pack of these chunks."""
    whole = BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for chunk in chunks:
            member = tarfile.TarInfo(hashlib.sha256(chunk).hexdigest())
            member.size = len(chunk)
            tar.addfile(member, BytesIO(chunk))
    return whole.getvalue()


def pack_request(key: str, size: int) -> bytes:
    """Return how a request with a pack of so many bytes begins, for whoever sends its body bit by bit."""
    return (
        "POST /api/v1/projects/admin/p/packs HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {size}\r\n\r\n"
    ).encode()


def until(look: Callable[[], T], seconds: float = 30.0) -> T:
    """Look again and again until what is seen is true; return it. Fails after a bounded time."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not seen within {seconds} s"
        time.sleep(0.05)


# -- a terminal --------------------------------------------------------------------------------------------------------


def on_terminal(words: list[str], env: Mapping[str, str], cwd: Path, typed: Mapping[str, str] | None = None) -> Said:
    """Run a command on a terminal of its own; when it shows a key of `typed`, the value is typed."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        words, env=dict(env), cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    shown, waiting, until = b"", dict(typed or {}), time.monotonic() + 60
    try:
        while time.monotonic() < until:
            if not select.select([ours], [], [], 0.2)[0]:
                continue
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed
                part = b""
            if not part:
                break
            shown += part
            for question in [q for q in waiting if q.encode() in shown]:
                os.write(ours, waiting.pop(question).encode() + b"\n")
        else:
            process.kill()
    finally:
        os.close(ours)
    return Said(process.wait(30), shown.decode(errors="replace"), "")


# -- a network that fails ----------------------------------------------------------------------------------------------


@dataclass
class Request:
    """A request as the proxy has read it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def is_for(self, what: str) -> bool:
        return f"{self.method} {self.path}".startswith(what) or re.search(what, self.path) is not None


Fault = Callable[["Proxy", Request, socket.socket], None]


class Proxy:
    """A TCP proxy on loopback that understands HTTP just enough to fail at chosen requests.

    `faults` is a list of (pattern of the address, what happens): the first entry that fits a request is used up by it.
    """

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.faults: list[tuple[str, Fault]] = []
        self.seen: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                taken, _ = self._socket.accept()
            except OSError:
                return
            with closing(taken):
                taken.settimeout(20)
                try:
                    self._one(taken)
                except OSError:
                    continue  # the client has gone

    def _one(self, taken: socket.socket) -> None:
        reader = taken.makefile("rb")
        with closing(reader):
            first = reader.readline().decode("latin-1").split()
            if len(first) < 2:
                return
            headers: dict[str, str] = {}
            while (head := reader.readline().decode("latin-1").strip()) != "":
                name, _, value = head.partition(":")
                headers[name.lower()] = value.strip()
            body = reader.read(int(headers.get("content-length", 0)))
        request = Request(first[0], first[1], headers, body)
        self.seen.append(f"{request.method} {urlsplit(request.path).path}")
        for index, (pattern, fault) in enumerate(self.faults):
            if request.is_for(pattern):
                del self.faults[index]
                fault(self, request, taken)
                return
        forward(self, request, taken)

    def pass_on(self, request: Request, body: bytes | None = None) -> bytes:
        """Send a request to the server and return the bytes of its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=20)
        dropped = ("connection", "content-length", "host", "accept-encoding")
        with closing(connection):
            headers = {k: v for k, v in request.headers.items() if k not in dropped}
            connection.request(request.method, request.path, request.body if body is None else body, headers)
            answer = connection.getresponse()
            content = answer.read()
            return _answer(answer.status, dict(answer.getheaders()), content)


def _answer(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    kept = {k: v for k, v in headers.items() if k.lower() not in ("content-length", "connection", "transfer-encoding")}
    head = "".join(f"{k}: {v}\r\n" for k, v in kept.items())
    return f"HTTP/1.1 {status} X\r\n{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def forward(proxy: Proxy, request: Request, taken: socket.socket) -> None:
    taken.sendall(proxy.pass_on(request))


def reset(proxy: Proxy, request: Request, taken: socket.socket) -> None:
    """The connection is reset before the server has seen anything."""
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_mid_body(proxy: Proxy, request: Request, taken: socket.socket) -> None:
    """The server gets half of the body, then everything is reset."""
    with closing(socket.create_connection(("127.0.0.1", proxy.upstream))) as out:
        head = "".join(f"{k}: {v}\r\n" for k, v in request.headers.items())
        half = request.body[: len(request.body) // 2]
        out.sendall(f"{request.method} {request.path} HTTP/1.1\r\n{head}\r\n".encode() + half)
        time.sleep(0.05)
        out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reset(proxy, request, taken)


def lose_answer(proxy: Proxy, request: Request, taken: socket.socket) -> None:
    """The server does its work, and nobody hears of it."""
    proxy.pass_on(request)
    reset(proxy, request, taken)


def truncate(proxy: Proxy, request: Request, taken: socket.socket) -> None:
    """The server does its work; the answer breaks off."""
    answer = proxy.pass_on(request)
    head, _, body = answer.partition(b"\r\n\r\n")
    taken.sendall(head + b"\r\n\r\n" + body[: len(body) // 2])


def twice(proxy: Proxy, request: Request, taken: socket.socket) -> None:
    """The request reaches the server twice."""
    proxy.pass_on(request)
    forward(proxy, request, taken)


def late(proxy: Proxy, request: Request, taken: socket.socket) -> None:
    """A gateway says 504 although the server has done its work."""
    proxy.pass_on(request)
    taken.sendall(_answer(504, {}, b"gateway time-out"))


def status(code: int, body: bytes = b"<html>no</html>", **headers: str) -> Fault:
    """Somebody on the way answers with this status."""

    def answer(proxy: Proxy, request: Request, taken: socket.socket) -> None:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        taken.sendall(_answer(code, {"Content-Type": "text/html", **named}, body))

    return answer


@contextmanager
def proxied(server: Server) -> Iterator[Proxy]:
    """A proxy in front of a server."""
    proxy = Proxy(server.port)
    try:
        yield proxy
    finally:
        proxy.close()


class Command:
    """A command running in a process of its own, to be killed or waited for."""

    def __init__(self, words: list[str], env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            words, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def kill(self) -> None:
        self.process.kill()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait(self) -> Said:
        out, err = self.process.communicate(timeout=60)
        return Said(self.process.returncode, out, err)

    def close(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.process.wait(30)
