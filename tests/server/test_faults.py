"""A network that fails in every way at every request: never "synced" after a failure, nothing double."""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from . import tools
from .tools import (
    Fault,
    Proxy,
    Server,
    add_media,
    begin,
    command,
    environment,
    local_journal,
    logs,
    proxied,
    quick,
    run_dir,
)

ROUTES = [
    "GET /api/v1/hello",
    "GET /api/v1/me",
    "PUT /api/v1/runs",
    "/records/",
    "/missing",
    "/packs",
    "/files$",
    "/receipt",
]
FLEETING: dict[str, Fault] = {
    "reset": tools.reset,
    "reset mid-body": tools.reset_mid_body,
    "answer lost": tools.lose_answer,
    "answer truncated": tools.truncate,
    "502": tools.status(502),
    "503": tools.status(503, b'{"error": "busy", "detail": "Later."}', Content_Type="application/json"),
    "504 although done": tools.late,
    "429": tools.status(429, Retry_After="0"),
    "408": tools.status(408),
    "duplicated": tools.twice,
}
LASTING: dict[str, Fault] = {
    "captive portal": tools.status(200, b"<html>Please sign in to the guest network</html>"),
    "captive json": tools.status(200, b"[]", Content_Type="application/json"),
    "redirect": tools.status(302, Location="https://portal.example/"),
    "permanent redirect": tools.status(308, Location="https://portal.example/"),
    "404": tools.status(404),
    "413": tools.status(413),
}


@pytest.fixture
def run(place: Path, run_id: str) -> Path:
    """A run with two writers and a file of some chunks."""
    run = run_dir(place / "run-x", run_id, {"w0": [begin(run_id), *logs(2, 300)], "w1": [begin(run_id), *logs(2, 30)]})
    content = random.Random(run_id).randbytes(700_000)
    add_media(run, f"{run_id}.bin", content)
    return run


def proven(server: Server, run: Path, run_id: str) -> None:
    """Compare server and disk: every line, every file, each once."""
    assert server.journal(run_id) == local_journal(run)
    total = sum(journal.count(b"\n") for journal in local_journal(run).values())
    assert server.query("SELECT records FROM runs WHERE run_id = ?", run_id) == [(total,)]
    (file,) = (run / "files" / "media").iterdir()
    answer = server.api("GET", f"runs/admin/p/{run_id}/files/media/{file.name}")
    assert answer.status == 200 and answer.body == file.read_bytes()


def is_marked(run: Path) -> bool:
    """Tell whether sync.json says that a server has everything."""
    path = run / "sync.json"
    return path.exists() and any(s["complete"] for s in json.loads(path.read_bytes())["servers"].values())


@pytest.mark.parametrize("name", FLEETING)
def test_a_pack_is_sent_until_its_chunks_are_there_and_not_once_more(
    server: Server, proxy: Proxy, run: Path, home: Path, run_id: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each fleeting fault the server is asked what it lacks: a pack whose answer was lost is not sent again."""
    monkeypatch.setattr("flightlog.client._pause", lambda stopped, seconds: None)
    proxy.faults = [("/packs", FLEETING[name])]
    said = server.sync(run, home=home, url=proxy.url, options=("--timeout", "500"))
    assert said.code == 0 and not proxy.faults, said
    asked, sent = (sum(seen.endswith(route) for seen in proxy.seen) for route in ("/missing", "/packs"))
    assert sent <= asked <= 2, proxy.seen
    proven(server, run, run_id)
    assert is_marked(run)


@pytest.mark.parametrize("name", [*FLEETING, *LASTING])
def test_trouble_while_the_server_is_asked_what_it_still_has(
    server: Server, proxy: Proxy, run: Path, home: Path, run_id: str, name: str
) -> None:
    """A run that was delivered, and each fault at the question for it: an error in words or a true "up to date"."""
    assert server.sync(run, home=home, url=proxy.url).code == 0
    proxy.faults = [("/holdings", {**FLEETING, **LASTING}[name])]
    said = server.sync(run, home=home, url=proxy.url, options=("--timeout", "0"))
    assert not proxy.faults and "Traceback" not in said.err, said
    assert said.code == 1 or (said.code == 0 and said.runs[0]["status"] in ("up_to_date", "delivered")), said
    assert server.sync(run, home=home, url=proxy.url).code == 0
    proven(server, run, run_id)
    assert is_marked(run)


@pytest.mark.parametrize("route", [route for route in ROUTES if route != "/packs"])
def test_what_passes_is_tried_again_until_it_works(
    server: Server, proxy: Proxy, run: Path, home: Path, run_id: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fleeting fault, once each at this request: one sync gets through all of them, and nothing is double."""
    monkeypatch.setattr("flightlog.client._pause", lambda stopped, seconds: None)
    proxy.faults = [(route, fault) for fault in FLEETING.values()]
    said = server.sync(run, home=home, url=proxy.url, options=("--timeout", "500"))
    assert said.code == 0, said
    left = [pattern for pattern, _ in proxy.faults]
    assert len(left) <= (1 if "/receipt" in route else 0), f"not met at {route}: {left} of {proxy.seen}"
    proven(server, run, run_id)
    assert is_marked(run)


# Every third pair: each fault at several requests, each request with several faults, in a bounded time.
PAIRS = [
    (route, name) for i, route in enumerate(ROUTES) for j, name in enumerate([*FLEETING, *LASTING]) if (i + j) % 3 == 0
]


@pytest.mark.parametrize(("route", "name"), PAIRS)
def test_a_sync_that_failed_marks_nothing_and_the_next_goes_on(
    server: Server, proxy: Proxy, run: Path, home: Path, run_id: str, route: str, name: str
) -> None:
    """Without time to try again, the fault ends the sync with status 1 and a sentence; the next delivers the rest."""
    fault = {**FLEETING, **LASTING}[name]
    proxy.faults = [(route, fault)]
    said = server.sync(run, home=home, url=proxy.url, options=("--timeout", "0"))
    if name == "duplicated" or (proxy.faults and route == "/packs"):
        assert said.code == 0, said
    else:
        assert said.code == 1, said
        assert not is_marked(run)
        text = said.err if "/hello" in route or "/me" in route else str(said.runs[0]["error"])
        assert proxy.url in text and "Traceback" not in text, said
    again = server.sync(run, home=home, url=proxy.url)
    assert again.code == 0, again
    proven(server, run, run_id)
    assert is_marked(run)


def test_a_receipt_that_lies_is_not_believed(server: Server, proxy: Proxy, run: Path, home: Path, run_id: str) -> None:
    """A run counts as synced only when the receipt equals what is computed from disk, not because status 200 came."""

    def lie(proxy: Proxy, request: tools.Request, taken: object) -> None:
        body = b'{"writers": {}, "files": {}}'
        tools.status(200, body, Content_Type="application/json")(proxy, request, taken)  # type: ignore[arg-type]

    proxy.faults = [("/receipt", tools.forward), ("/receipt", lie)]
    said = server.sync(run, home=home, url=proxy.url, options=("--clean",))
    assert said.code == 3 and "receipt" in " ".join(said.runs[0]["faults"]), said
    assert run.is_dir() and not is_marked(run)
    assert server.sync(run, home=home, url=proxy.url).code == 0


def test_retry_after_is_respected(
    server: Server, proxy: Proxy, run: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own wish is waited for where it is longer than our own pause; a senseless one is passed over."""
    waits: list[float] = []
    monkeypatch.setattr("flightlog.client._pause", lambda stopped, seconds: waits.append(seconds))
    proxy.faults = [
        ("/records/", tools.status(429, Retry_After="7")),
        ("/records/", tools.status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")),
        ("/records/", tools.status(503, Retry_After="-5")),
    ]
    assert server.sync(run, home=home, url=proxy.url).code == 0
    assert len(waits) == 3 and waits[0] >= 7.0 and all(0 < w < 7.0 for w in waits[1:])


def test_a_server_that_asks_for_more_patience_than_there_is_ends_the_sync(
    server: Server, proxy: Proxy, run: Path, home: Path
) -> None:
    """Retry-After beyond --timeout: status 1 at once, not a wait of an hour."""
    proxy.faults = [("/records/", tools.status(429, Retry_After="3600"))] * 3
    began = time.monotonic()
    said = server.sync(run, home=home, url=proxy.url, options=("--timeout", "5"))
    assert said.code == 1 and time.monotonic() - began < 5


def test_the_last_attempt_is_made_when_the_time_is_over(
    server: Server, proxy: Proxy, run: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --timeout 30 a server that is away for 29 seconds is waited for, however long the pauses have become."""
    now, real = [0.0], time.monotonic
    monkeypatch.setattr("flightlog.client._pause", lambda stopped, seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr("flightlog.client.time.monotonic", lambda: real() + now[0])

    def away(proxy: Proxy, request: tools.Request, taken: object) -> None:
        if now[0] < 29:
            proxy.faults.append(("/records/", away))
            tools.reset(proxy, request, taken)  # type: ignore[arg-type]
        else:
            tools.forward(proxy, request, taken)  # type: ignore[arg-type]

    proxy.faults = [("/records/", away)]
    assert server.sync(run, home=home, url=proxy.url).code == 0


def test_nobody_at_the_address(home: Path, run: Path) -> None:
    """A refused connection is retried for --timeout seconds, then one sentence says what is the matter."""
    said = quick("sync", run, "--server", "http://127.0.0.1:9", "--timeout", "0.5", home=home, FLIGHTLOG_API_KEY="k")
    assert said.code == 1 and "cannot be reached (Connection refused)" in said.err, said
    assert not (run / "sync.json").exists()


def test_something_else_at_the_address(server: Server, proxy: Proxy, home: Path, run: Path) -> None:
    """Another program's JSON, or a server of another protocol, gets no key."""
    for body, sentence in (
        (b'{"hello": "world"}', "no flightlog server"),
        (b'{"server": "flightlog", "server_id": "x", "protocol": {"min": 7, "max": 9}}', "speaks protocol 7 to 9"),
        (b'{"server": "flightlog", "protocol": {"min": "1", "max": []}}', "flightlog"),
    ):
        proxy.faults = [("/hello", tools.status(200, body, Content_Type="application/json"))]
        said = server.sync(run, home=home, url=proxy.url)
        assert said.code == 1 and sentence in said.err and said.err.count("\n") == 1, said
        assert proxy.seen[-1] == "GET /api/v1/hello"


# -- processes that die ------------------------------------------------------------------------------------------------


def test_a_server_stopped_in_the_middle_and_started_again_is_waited_for(
    own_server: Server, place: Path, home: Path
) -> None:
    """The sync holds on while nobody answers and goes on where it was, without being started again."""
    writers = {f"w{n}": [begin("patient"), *logs(2, 6000)] for n in range(8)}
    run = run_dir(place / "run-x", "patient", writers)
    reached = threading.Event()

    def stop_here(proxy: Proxy, request: tools.Request, taken: object) -> None:
        own_server.stop()
        reached.set()
        tools.reset(proxy, request, taken)  # type: ignore[arg-type]

    with proxied(own_server) as proxy:
        proxy.faults = [("/records/w5", stop_here)]
        with closing(
            tools.Command(
                command("sync", run, "--server", proxy.url), environment(home, FLIGHTLOG_API_KEY=own_server.key)
            )
        ) as client:
            assert reached.wait(30)
            time.sleep(0.5)
            assert client.process.poll() is None
            own_server.start()
            said = client.wait()
    assert said.code == 0 and "trying again" in said.err, said
    assert own_server.journal("patient") == local_journal(run)


def test_interrupting_says_that_it_goes_on_from_there(
    server: Server, proxy: Proxy, run: Path, home: Path, run_id: str
) -> None:
    """Ctrl-C ends a sync with status 130 and one line."""
    held = threading.Event()

    def hold(proxy: Proxy, request: tools.Request, taken: object) -> None:
        held.set()
        time.sleep(1)

    proxy.faults = [("/packs", hold)]
    words = command("sync", run, "--server", proxy.url)
    with closing(tools.Command(words, environment(home, FLIGHTLOG_API_KEY=server.key))) as client:
        assert held.wait(30)
        client.interrupt()
        said = client.wait()
    assert said.code == 130 and said.err.strip().count("\n") == 0 and "goes on from there" in said.err, said
    assert server.sync(run, home=home).code == 0
    proven(server, run, run_id)
