"""What a stranger or an attacker tries first: other people's servers, cut journals, bodies and answers without end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import flightlog
from flightlog.client import Client
from flightlog.errors import RetryableError
from flightlog.rundir import RunDir
from flightlog.sync.pace import Pace

from .tools import (
    Proxy,
    Request,
    Server,
    add_media,
    on_terminal,
    pack_of,
    pack_request,
    proxied,
    quick,
    run_dir,
    status,
    until,
)
from .tools import flightlog as separate


def finished_run(place: Path, run_id: str, steps: int = 100) -> RunDir:
    """Record a run with this process's own recorder."""
    with flightlog.init("p", id=run_id, dir=place / "flightlog") as run:
        for step in range(steps):
            run.log({"loss": 1 / (step + 1)})
    return run.rundir


def segment(run: RunDir) -> Path:
    (path,) = run.journal.glob("*/000001.jsonl")
    return path


def cut(run: RunDir) -> None:
    os.truncate(segment(run), 3000)


def empty(run: RunDir) -> None:
    os.truncate(segment(run), 0)


def remove(run: RunDir) -> None:
    shutil.rmtree(run.journal)


def remove_all(run: RunDir) -> None:
    shutil.rmtree(run.files)


def flip_last(run: RunDir) -> None:
    content = bytearray(segment(run).read_bytes())
    content[-30] ^= 1
    segment(run).write_bytes(content)


def link(run: RunDir) -> None:
    kept = run.path.parent / "kept.jsonl"
    segment(run).rename(kept)
    next(iter(run.journal.iterdir())).joinpath("000001.jsonl").symlink_to(kept)


@pytest.mark.parametrize("damage", [cut, empty, remove, remove_all, flip_last, link])
def test_a_journal_shorter_than_its_run_was_is_damage(
    server: Server, home: Path, place: Path, run_id: str, damage: Callable[[RunDir], None]
) -> None:
    """What finish() has written and is not there any more is told (status 3), and such a run is never cleaned."""
    whole, hurt = finished_run(place, f"{run_id}whole"), finished_run(place, run_id)
    damage(hurt)
    for words in ((), ("--clean",)):
        said = quick("sync", place, *words, "--json", "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key)
        assert said.code == 3, said
        assert {r["id"]: r["status"] for r in said.runs if r["id"] == run_id} == {run_id: "damaged"}, said
        assert any("latest.spec says" in fault for r in said.runs for fault in r.get("faults", [])), said
    assert hurt.path.exists() and not whole.path.exists()
    assert quick("verify", place, home=home).code == 1


@pytest.mark.parametrize("words", [("login",), ("login", "--key", "-"), ("whoami",)])
def test_no_command_gives_the_key_to_an_address_from_a_project_file(
    server: Server, proxy: Proxy, home: Path, place: Path, words: tuple[str, ...]
) -> None:
    """In a cloned repository whose flightlog.toml names a server, FLIGHTLOG_API_KEY stays where it is: status 2."""
    (place / "flightlog.toml").write_text(f'base_url = "{proxy.url}"\n')
    said = separate(*words, home=home, cwd=place, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 2 and said.err.count("\n") == 1, said
    assert not [seen for seen in proxy.seen if "/me" in seen]
    assert not list(home.rglob("credentials.json"))


def test_login_takes_nothing_for_a_key_from_an_empty_stdin(server: Server, home: Path) -> None:
    """`login --key -` with nothing coming in is an error, and does not fall back to the environment."""
    said = separate("login", server.url, "--key", "-", home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 2 and "stdin" in said.err, said


def test_a_proxy_from_the_environment_is_not_used_on_this_machine(
    server: Server, proxy: Proxy, home: Path, place: Path, run_id: str
) -> None:
    """With http_proxy set, a sync to a server on loopback goes there directly: the proxy sees neither run nor key."""
    finished_run(place, run_id)
    url = server.url.replace("127.0.0.1", "localhost")
    said = separate(
        "sync",
        place,
        "--server",
        url,
        home=home,
        FLIGHTLOG_API_KEY=server.key,
        http_proxy=proxy.url,
        HTTP_PROXY=proxy.url,
    )
    assert said.code == 0 and proxy.seen == [], said


def test_without_a_key_a_server_that_is_down_is_not_waited_for(home: Path, place: Path, run_id: str) -> None:
    """A stranger's first sync, with no server and no key, says at once what is missing: one line, status 2."""
    finished_run(place, run_id)
    said = separate("sync", place, home=home)
    assert said.code == 2 and said.err.count("\n") == 1 and "FLIGHTLOG_API_KEY" in said.err, said


def test_the_prompt_for_the_key_stays_visible(server: Server, home: Path, place: Path, run_id: str) -> None:
    """On a terminal the question stands before any bar is drawn, and the typed key delivers."""
    from .tools import command, environment

    finished_run(place, run_id)
    said = on_terminal(
        command("sync", place, "--server", server.url), environment(home), place, {"API key for": server.key + "\n"}
    )
    assert said.code == 0 and "delivered" in said.out, said
    before = said.out[: said.out.index("API key for")]
    assert "\x1b[?25l" not in before, "a bar hid the cursor before the question"


MALFORMED = [b"[" * 200_000, b'{"user":["x"]}', b"{}", b"[]", b'{"user":{"name":1}}', b'{"run":[]}', b'"x"']


@pytest.mark.parametrize("body", MALFORMED, ids=lambda b: b[:20].decode())
@pytest.mark.parametrize("address", ["/me", "PUT /api/v1/runs", "/receipt"])
def test_malformed_answers_are_one_line(
    server: Server, proxy: Proxy, home: Path, place: Path, run_id: str, body: bytes, address: str
) -> None:
    """Whatever a broken server answers, the client says that it is none, without a traceback."""
    finished_run(place, run_id)
    malformed = status(200, body, Content_Type="application/json")
    # A parcel that is answered so is sent anew, each run by itself.
    proxy.faults = [("/parcels", malformed), *[(address, malformed)] * 3]
    said = quick("sync", place, "--server", proxy.url, "--timeout", "0", home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code in (1, 3) and "Traceback" not in said.err, said
    if address == "/me":
        proxy.faults = [("/me", status(200, body, Content_Type="application/json"))]
        assert quick("whoami", proxy.url, home=home, FLIGHTLOG_API_KEY=server.key).code == 1


@pytest.mark.parametrize("body", [b"<html>Gone</html>", b"", b'{"error":"no such host"}'], ids=["page", "none", "json"])
def test_a_410_of_somebody_on_the_way_is_no_deletion(
    server: Server, proxy: Proxy, home: Path, place: Path, run_id: str, body: bytes
) -> None:
    """Only the server's own word makes a run deleted; it stays pending after a proxy's, and the status is 1."""
    finished_run(place, run_id)
    proxy.faults = [("/parcels", status(410, body)), ("PUT /api/v1/runs", status(410, body))]
    said = quick("sync", place, "--server", proxy.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 1 and "status 410" in said.err, said
    said = quick("sync", place, "--server", proxy.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 0 and "1 delivered" in said.out, said


def test_a_401_of_somebody_on_the_way_says_nothing_of_the_key(
    server: Server, proxy: Proxy, home: Path, place: Path, run_id: str
) -> None:
    """A proxy that wants a sign-in of its own: status 1, as of a server that cannot be reached, and not 2."""
    finished_run(place, run_id)
    proxy.faults = [("/me", status(401, b"<html>Sign in</html>"))]
    said = quick("sync", place, "--server", proxy.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 1 and "status 401" in said.err, said


@pytest.fixture
def endless() -> Iterator[str]:
    """A server whose every answer goes on for as long as somebody listens (64 MiB at most)."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                taken, _ = listening.accept()
            except OSError:
                return
            with closing(taken):
                try:
                    taken.recv(65536)
                    taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
                    for _ in range(64):
                        taken.sendall(b" " * (1 << 20))
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)


def test_an_answer_without_end_is_not_read_to_its_end(endless: str, home: Path, place: Path, run_id: str) -> None:
    """hello is read to a megabyte and no further."""
    finished_run(place, run_id)
    said = quick("sync", place, "--server", endless, home=home, FLIGHTLOG_API_KEY="fl_00000000_x")
    assert said.code == 1 and "without end" in said.err, said


def test_a_server_cannot_act_on_the_terminal(
    server: Server, proxy: Proxy, home: Path, place: Path, run_id: str
) -> None:
    """Escape sequences in a refusal, an account's name or a run's address are printed without effect."""
    finished_run(place, run_id)
    evil = b'{"error":"unauthorized","detail":"no\\u001b]0;owned\\u0007\\r\\n"}'

    def rewrite(proxy: Proxy, request: Request, taken: socket.socket) -> None:
        answer = proxy.pass_on(request)
        head, _, body = answer.partition(b"\r\n\r\n")
        body = body.replace(b'"name":"admin"', b'"name":"admin\\u001b]0;owned\\u0007"').replace(
            b'"url":"/w', b'"url":"\\u001b]0;owned\\u0007/w'
        )
        kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
        taken.sendall(b"\r\n".join([*kept, b"Content-Length: %d" % len(body), b"", body]))

    for faults in ([("/me", status(401, evil, Content_Type="application/json"))], [("/me", rewrite), ("PUT", rewrite)]):
        proxy.faults = list(faults)
        said = quick("sync", place, "--server", proxy.url, home=home, FLIGHTLOG_API_KEY=server.key)
        assert "owned" in said.out + said.err, said
        assert "\x1b" not in said.out + said.err and "\x07" not in said.out + said.err


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v1/session"), ("PUT", "/api/v1/runs/a/b/c"), ("POST", "/api/v1/projects/a/b/chunks/missing")],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_are_turned_away_unread(server: Server, method: str, path: str, chunked: bool) -> None:
    """A body longer than any JSON that the route takes is 413 or, without a sign-in, 401; it is not kept in memory."""
    body = b"[" * (2 << 20)
    for key in (None, server.key):
        try:
            answer = server.ask(
                method, path, body, key=key, chunked=chunked, headers={"Content-Type": "application/json"}
            )
        except (BrokenPipeError, ConnectionResetError):
            continue  # it did not even wait for the end
        assert answer.status == (401 if key is None and "session" not in path else 413), answer
    assert server.get("/healthz").status == 200


def test_a_request_without_a_sign_in_is_not_even_parsed(server: Server) -> None:
    """Bad JSON without a key is 401, not a lecture on JSON."""
    answer = server.ask("PUT", "/api/v1/runs/a/b/c", b"{not json", headers={"Content-Type": "application/json"})
    assert answer.status == 401


def test_a_renamed_run_is_renamed_on_the_server(server: Server, home: Path, place: Path, run_id: str) -> None:
    """run.name = … and run.tags = … reach the server, whatever came first."""
    with flightlog.init("p", id=run_id, dir=place / "flightlog", tags=["old"]) as run:
        run.name, run.tags, run.notes = "renamed", ("new",), "why"
    assert quick("sync", place, "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key).code == 0
    shown = server.api("GET", f"runs/admin/p/{run_id}").json()
    assert (shown["name"], shown["tags"], shown["notes"]) == ("renamed", ["new"], "why")


def test_a_damaged_database_is_one_line(tmp_path: Path, home: Path) -> None:
    """Garbage in the place of flightlog.db names the folder and ends the server, without a traceback."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "flightlog.db").write_bytes(b"garbage" * 1000)
    said = separate("server", "--data", tmp_path / "bad", "--port", "0", home=home)
    assert said.code == 1 and "Traceback" not in said.err and "bad" in said.err, said


def test_addresses_with_a_path_are_refused(home: Path, place: Path, run_id: str) -> None:
    """A server below a path is not silently looked for at the root."""
    finished_run(place, run_id)
    said = quick("sync", place, home=home, FLIGHTLOG_BASE_URL="http://127.0.0.1:9/prefix", FLIGHTLOG_API_KEY="fl_x")
    assert said.code == 1 and "without a path" in said.err, said


@pytest.mark.skipif(sys.platform != "linux", reason="PID namespaces are Linux's")
def test_a_run_in_another_container_is_judged_by_its_growth(place: Path, run_id: str) -> None:
    """The same host name but another table of processes: the pid says nothing, a journal that grows does."""
    from flightlog.rundir import is_alive

    run = finished_run(place, run_id)
    spec = {**run.read_spec(), "state": "running", "pid": 1 << 22, "pid_namespace": "pid:[1]"}
    assert is_alive(run, spec)
    os.utime(segment(run), (1, 1))
    assert not is_alive(run, spec)
    assert not is_alive(run, {**spec, "pid_namespace": os.readlink("/proc/self/ns/pid")})


@pytest.fixture
def small_server(tmp_path: Path) -> Iterator[Server]:
    """A server whose data lies on a disk of 6 MiB."""
    server = Server(tmp_path / "server")
    server.data.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", server.data]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is refused here: {mounted.stderr.strip()}")
    try:
        yield server.start()
    finally:
        server.stop()
        subprocess.run(["umount", server.data], check=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Leave no byte on a disk, for as long as the block lasts."""
    with open(disk / "ballast", "wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(bytes(1024)):
            pass
    yield
    (disk / "ballast").unlink()


def test_a_full_disk_at_the_server_is_said_and_loses_nothing(
    small_server: Server, home: Path, place: Path, run_id: str
) -> None:
    """On a real small disk that is full the client is told so (status 1); with room again the sync delivers all."""
    run = finished_run(place, run_id, steps=3000)
    with full(small_server.data):
        said = small_server.sync(place, "--timeout", "0", home=home)
    assert said.code == 1 and "disk is full" in said.out, said
    assert small_server.sync(place, home=home).code == 0
    (writer,) = small_server.journal(run_id)
    assert small_server.journal(run_id)[writer] == segment(run).read_bytes()


def test_a_pack_that_breaks_off_as_the_disk_fills_loses_nothing(
    small_server: Server, home: Path, place: Path, run_id: str
) -> None:
    """What the server then says it has can be read back, the rest is asked for again; nothing half written stays."""
    assert small_server.sync(finished_run(place, run_id).path, home=home).code == 0
    chunks = [f"{run_id} {n}".encode() * 5000 for n in range(12)]
    names = [hashlib.sha256(chunk).hexdigest() for chunk in chunks]
    body = pack_of(*chunks)[:-2000]
    head = pack_request(small_server.key, 1 << 20)
    incoming = small_server.data / "objects" / "incoming"
    with socket.create_connection(("127.0.0.1", small_server.port), timeout=10) as connection:
        connection.sendall(head + body)
        until(lambda: any(incoming.glob("*")))
        with full(small_server.data):
            connection.close()
            until(lambda: not any(incoming.glob("*")))
    ask = {"chunks": names}
    missing = small_server.api("POST", "projects/admin/p/chunks/missing", ask).json()["missing"]
    for name, chunk in zip(names, chunks, strict=True):
        file = {"path": f"media/{name}", "size": len(chunk), "sha256": name, "chunks": [[name, len(chunk)]]}
        said = small_server.api("POST", f"runs/admin/p/{run_id}/files", {"files": [file]})
        assert said.status == (409 if name in missing else 200), said
        if name not in missing:
            assert small_server.api("GET", f"runs/admin/p/{run_id}/files/media/{name}").body == chunk
    assert (
        small_server.ask("POST", "/api/v1/projects/admin/p/packs", pack_of(*chunks), key=small_server.key).status == 200
    )
    assert small_server.api("POST", "projects/admin/p/chunks/missing", ask).json()["missing"] == []
    assert "Traceback" not in small_server.stderr


def test_a_killed_server_that_starts_on_a_full_disk_loses_nothing(
    small_server: Server, home: Path, place: Path, run_id: str
) -> None:
    """What cannot be kept then of its pack under way is asked for again; it starts all the same."""
    assert small_server.sync(finished_run(place, run_id).path, home=home).code == 0
    chunks = [f"{run_id} {n}".encode() * 5000 for n in range(12)]
    body = pack_of(*chunks)
    head = pack_request(small_server.key, len(body))
    incoming = small_server.data / "objects" / "incoming"
    with socket.create_connection(("127.0.0.1", small_server.port), timeout=10) as connection:
        connection.sendall(head + body[:-2000])
        until(lambda: sum(path.stat().st_size for path in incoming.glob("*")) > len(body) // 2)
        small_server.kill()
    with full(small_server.data):
        small_server.start()
    assert not any(incoming.glob("*"))
    assert (
        small_server.ask("POST", "/api/v1/projects/admin/p/packs", pack_of(*chunks), key=small_server.key).status == 200
    )
    names = [hashlib.sha256(chunk).hexdigest() for chunk in chunks]
    assert small_server.api("POST", "projects/admin/p/chunks/missing", {"chunks": names}).json()["missing"] == []
    assert "Traceback" not in small_server.stderr, small_server.stderr


@contextlib.contextmanager
def trickling(answer: bytes) -> Iterator[str]:
    """A server that begins its answers with these bytes and goes on with a byte now and then, for a while."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()

        def serve() -> None:
            taken, _ = listening.accept()
            with closing(taken), contextlib.suppress(OSError):
                taken.recv(65536)
                taken.sendall(answer)
                for _ in range(200):
                    if ended.wait(0.05):
                        break
                    taken.sendall(b"a")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        ended.set()
        thread.join(10)


@pytest.mark.parametrize(
    "beginning",
    [
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nX-",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2710\r\n",
        b"HTTP/1.1 500 No\r\nContent-Length: 10000\r\n\r\n",
    ],
    ids=["status", "head", "body", "chunk", "refusal"],
)
@pytest.mark.parametrize("connect", [Client, Pace(1e6).connect], ids=["plain", "paced"])
def test_an_answer_that_trickles_in_is_not_waited_for_without_end(
    beginning: bytes, connect: Callable[[str, str | None], Client]
) -> None:
    """A byte now and then keeps no request alive: an answer has the seconds that it was given, then it is a failure."""
    with trickling(beginning) as url, connect(url, None) as client, pytest.raises(RetryableError) as met:
        client.json("GET", "hello", seconds=1.0)
    assert url in str(met.value) and ("longer than 1 s" in str(met.value) or "status 500" in str(met.value)), met.value


@pytest.mark.parametrize(
    "state", [{"last": 10**30}, {"last": -1}, {"lost": [[10**30, 10**31]]}, {"lost": [[5, 4]]}, {"base": ["w", 10**30]}]
)
def test_a_receipt_of_numbers_that_cannot_be_is_no_proof(
    server: Server, home: Path, place: Path, run_id: str, state: dict[str, object]
) -> None:
    """Seqs that no journal has make a receipt nothing: that run has failed and is not cleaned, the next one goes on."""

    def lie(proxy: Proxy, request: Request, taken: socket.socket) -> None:
        _, _, body = proxy.pass_on(request).partition(b"\r\n\r\n")
        receipt = json.loads(body)
        receipt["writers"] = {name: {**said, **state} for name, said in receipt["writers"].items()}
        status(200, json.dumps(receipt).encode(), Content_Type="application/json")(proxy, request, taken)

    runs = [RunDir(run_dir(place / f"run-{n}", f"{run_id}{n}")) for n in range(2)]
    for run in runs:
        add_media(run.path, "noise.bin", os.urandom(300_000))  # too large for a parcel
    with proxied(server) as proxy:
        proxy.faults = [(f"{run_id}0/receipt", lie)]
        said = quick("sync", place, "--clean", "--server", proxy.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 1 and "receipt that cannot be understood" in said.err, said
    assert "Traceback" not in said.err and [run.path.exists() for run in runs] == [True, False], said
