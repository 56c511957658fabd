"""Many small runs in one request, and several uploads at once: the same outcome as one by one, only sooner."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from flightlog.client import Client, Patience
from flightlog.errors import AuthError, RetryableError
from flightlog.keys import Server as Address
from flightlog.protocol.manifest import FileEntry
from flightlog.protocol.parcel import ArtifactCommit, SmallRun, decode, encode
from flightlog.rundir import RunDir
from flightlog.sync.pool import Pool
from flightlog.sync.session import Result, plan, sync

from . import tools
from .tools import Proxy, Server, add_media, begin, line, local_journal, logs, run_dir, zstd


class Ignored:
    """Progress that nobody looks at."""

    def begin(self, name: str, total: int) -> Ignored:
        return self

    def more(self, total: int) -> None: ...
    def advance(self, size: int) -> None: ...
    def end(self) -> None: ...


def deliver(server: Server, runs: list[Path], url: str | None = None, **more: Any) -> list[Result]:
    """Sync as a program does."""
    address = Address(url or server.url, "argument")
    return sync([RunDir(run) for run in runs], address, server.key, progress=Ignored(), **more).results


def test_a_parcel_comes_back_as_it_went() -> None:
    """Encoded and decoded: writers, files and artifacts of several runs."""
    entry = FileEntry("media/a", 5, hashlib.sha256(b"hello").hexdigest())
    runs = [
        SmallRun("w", "p", "one", True, writers={"a": b"1\n", "b": b""}, files=[(entry, b"hello")]),
        SmallRun("w", "p", "two", False, restore=True, artifacts=[ArtifactCommit("a/manifest.json", ("best",), 2.5)]),
    ]
    assert decode(encode(runs)) == runs and decode(b"") == []


SEED = 20261128


def test_no_bytes_break_a_parcel() -> None:
    """Cut off or changed anywhere, it is read or refused; nothing else is raised."""
    entry = FileEntry("media/a", 5, hashlib.sha256(b"hello").hexdigest())
    whole = encode([SmallRun("w", "p", "one", True, writers={"a": b"1\n"}, files=[(entry, b"hello")])])
    chance = random.Random(SEED)
    print("seed", SEED)
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] = chance.randrange(256)
        for content in (whole[:at], bytes(changed)):
            try:
                decode(content)
            except ValueError:
                continue


@pytest.mark.parametrize(
    "change",
    [{"id": "../x"}, {"workspace": None}, {"writers": {}}, {"writers": [["a", -1]]}, {"writers": [["a", 10**9]]},
     {"writers": [["a", 0], ["a", 0]]}, {"files": [{"path": "../x", "size": 0, "sha256": "0" * 64}]},
     {"files": [{"path": "x", "size": 1 << 40, "sha256": "0" * 64}]}, {"artifacts": [{"manifest": "/etc", "at": 1}]}],
)  # fmt: skip
def test_a_parcel_that_makes_no_sense_is_refused_whole(server: Server, run_id: str, change: dict[str, Any]) -> None:
    """422, whatever is wrong with it; no run is made."""
    header = {"workspace": "admin", "project": "p", "id": run_id, "writers": [], "files": [], "artifacts": [], **change}
    head = orjson.dumps(header)
    answer = server.api("POST", "parcels", zstd(struct.pack(">I", len(head)) + head))
    assert answer.status == 422 and answer.json()["error"] == "malformed"
    assert server.api("GET", f"runs/admin/p/{run_id}").status == 404


def test_one_bad_run_of_a_parcel_does_not_touch_the_others(server: Server, run_id: str) -> None:
    """Each is stored whole or not at all, and answered for in order."""
    lines = b"".join([begin(run_id), *logs(2, 5)])
    wrong = FileEntry("media/a", 5, "0" * 64)
    parcel = encode(
        [
            SmallRun("admin", "p", f"{run_id}-1", False, writers={"w": lines}),
            SmallRun("admin", "p", f"{run_id}-2", False, writers={"w": lines, "v": b"no line\n"}),
            SmallRun("admin", "p", f"{run_id}-3", False, writers={"w": lines}, files=[(wrong, b"hello")]),
            SmallRun("nobody", "p", f"{run_id}-4", False, writers={"w": lines}),
            SmallRun("admin", "p", f"{run_id}-5", False, writers={"w": lines}),
        ]
    )
    answers = server.api("POST", "parcels", zstd(parcel)).json()["runs"]
    assert [a.get("status") for a in answers] == [None, 422, 422, 404, None]
    assert answers[0]["new"] == 5 and answers[0]["receipt"]["writers"]["w"]["last"] == 5
    there = [server.api("GET", f"runs/admin/p/{run_id}-{n}").status for n in (1, 2, 3, 5)]
    assert there[0] == there[3] == 200 and server.journal(f"{run_id}-2") == {} == server.journal(f"{run_id}-3")
    again = server.api("POST", "parcels", zstd(parcel)).json()["runs"]
    assert again[0]["new"] == 0 and again[0]["receipt"] == answers[0]["receipt"]


def test_runs_of_all_kinds_at_once(own_server: Server, place: Path, home: Path) -> None:
    """Small, large, damaged, diverged, with files and without: each its own outcome, in the order that they came in."""
    runs = []
    for n in range(30):
        run = run_dir(place / f"run-{n:02d}", f"r{n}")
        add_media(run, "a.txt", b"content %d" % (n % 3))
        runs.append(run)
    runs.insert(5, run_dir(place / "large", "large", {"w" * 16: [begin("large"), *logs(2, 9000)]}))
    segment = place / "run-03" / "files" / "journal" / ("w" * 16) / "000001.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([*lines[:5], b"#\n", *lines[6:]]))
    (place / "run-04" / "files" / "media" / "a.txt").write_bytes(b"another")
    (place / "run-06" / "latest.spec").write_bytes(orjson.dumps({"id": "..", "project": "p"}))
    copy = shutil.copytree(runs[0], place / "copy")
    for run, value in ((runs[0], 1.0), (copy, 2.0)):
        with (run / "files" / "journal" / ("w" * 16) / "000001.jsonl").open("ab") as file:
            file.write(line(23, data={"loss": value}))
    done: list[Result] = []
    results = deliver(own_server, [*runs, copy], done=done.append)
    assert [r.directory.path for r in results] == [*runs, copy] and len(done) == len(results)
    statuses = {r.directory.path.name: r.status for r in results}
    expected = {run.name: "delivered" for run in [*runs, copy]}
    assert statuses == expected | {"run-03": "damaged", "run-04": "damaged", "run-06": "failed"}
    assert own_server.journal("r7") == local_journal(runs[8]) and own_server.journal("large") == local_journal(runs[5])
    again = deliver(own_server, [*runs, copy])
    assert sum(r.up_to_date for r in again) == 29


def test_a_parcel_whose_answer_is_lost_doubles_nothing(server: Server, proxy: Proxy, place: Path, run_id: str) -> None:
    """It is sent again, and everything in it is known by then."""
    runs = [run_dir(place / f"r{n}", f"{run_id}-{n}") for n in range(3)]
    proxy.faults = [("/parcels", tools.lose_answer), ("/parcels", tools.late)]
    results = deliver(server, runs, url=proxy.url, timeout=30)
    assert [r.status for r in results] == ["delivered"] * 3, results
    for n, run in enumerate(runs):
        assert server.journal(f"{run_id}-{n}") == local_journal(run)
        assert server.query("SELECT records FROM runs WHERE run_id = ?", f"{run_id}-{n}") == [(22,)]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("route", ["PUT", "/parcels", "/records/", "/receipt"])
@pytest.mark.parametrize("how", ["moved", "deleted", "journal", "shorter"])
def test_a_run_that_is_taken_away_meanwhile_is_never_delivered(
    server: Server, proxy: Proxy, place: Path, run_id: str, large: bool, route: str, how: str
) -> None:
    """Moved, cleaned or cut by another process at any request: failed with a clear sentence, or delivered as it was."""
    run = run_dir(place / "run", run_id, {"w" * 16: [begin(run_id), *logs(2, 6000 if large else 20)]})
    before = local_journal(run)

    def take_away(proxy: Proxy, request: tools.Request, taken: Any) -> None:
        segment = run / "files" / "journal" / ("w" * 16) / "000001.jsonl"
        if how == "moved":
            run.rename(place / "elsewhere")
        elif how == "deleted":
            shutil.rmtree(run)
        elif how == "journal":
            segment.unlink()
        else:
            segment.write_bytes(segment.read_bytes()[:1000])
        tools.forward(proxy, request, taken)

    proxy.faults = [(route, take_away)]
    (result,) = deliver(server, [run], url=proxy.url)
    if proxy.faults:  # no such request for a run of this size
        assert result.status == "delivered" and large == (route == "/parcels")
        return
    if result.status == "delivered":  # cut before any of it was read, it is a shorter run
        assert how in ("shorter", "journal") and server.journal(run_id) == before
    elif result.status == "damaged":  # it was looked at again, and what it is now is not what has been delivered
        assert how in ("shorter", "journal") and result.outcome and result.outcome.faults
    else:
        assert result.status == "failed" and result.error, result
        assert how in ("shorter", "journal") or not (run / "sync.json").exists()


# -- what the caller learns --------------------------------------------------------------------------------------------


def test_the_plan_says_what_would_be_sent_and_sends_nothing(server: Server, place: Path, run_id: str) -> None:
    """Pending with the bytes that have grown; not pending once it is delivered; and pending as another run."""
    run = run_dir(place / "run", run_id)
    address = Address(server.url, "argument")
    (planned,) = plan([RunDir(run)], address, server.key)
    assert planned.pending and planned.workspace == "admin" and planned.identity and planned.identity.id == run_id
    assert planned.bytes == sum(map(len, local_journal(run).values()))
    assert server.api("GET", f"runs/admin/p/{run_id}").status == 404
    assert deliver(server, [run])[0].status == "delivered"
    (planned,) = plan([RunDir(run)], address, server.key)
    assert not planned.pending and planned.bytes == 0 and deliver(server, [run])[0].status == "up to date"
    (planned,) = plan([RunDir(run)], address, server.key, project="other", run_id=f"{run_id}-x")
    assert planned.pending and planned.identity and planned.identity.project == "other"
    assert deliver(server, [run], project="other", run_id=f"{run_id}-x")[0].status == "delivered"
    assert server.journal(f"{run_id}-x") == local_journal(run)
    with (run / "files" / "journal" / ("w" * 16) / "000001.jsonl").open("ab") as segment:
        segment.write(line(23))
    (planned,) = plan([RunDir(run)], address, server.key)
    assert planned.pending and planned.bytes == len(line(23))
    with pytest.raises(AuthError):
        plan([RunDir(run)], address, "fl_wrong")


@pytest.mark.parametrize("large", [False, True])
def test_a_deleted_run_is_neither_pending_nor_cleaned_nor_a_failure(
    server: Server, place: Path, run_id: str, large: bool
) -> None:
    """It stays as it is on this disk, until it is asked to be restored."""
    run = run_dir(place / "run", run_id, {"w" * 16: [begin(run_id), *logs(2, 9000 if large else 10)]})
    assert deliver(server, [run])[0].status == "delivered"
    server.execute("UPDATE runs SET deleted_at = 1.0 WHERE run_id = ?", run_id)
    assert server.api("GET", f"runs/admin/p/{run_id}").status == 410
    listed = server.api("GET", "projects/admin/p/runs?limit=1000").json()["runs"]
    assert run_id not in [r["id"] for r in listed]
    (result,) = deliver(server, [run], clean_up=True)
    assert result.status == "gone" and not result.retryable and run.exists()
    assert [r.status for r in deliver(server, [run])] == ["gone"]
    (planned,) = plan([RunDir(run)], Address(server.url, "argument"), server.key)
    assert planned.gone and not planned.pending
    assert deliver(server, [run], restore_deleted=True)[0].status == "delivered"
    assert server.api("GET", f"runs/admin/p/{run_id}").status == 200 and deliver(server, [run])[0].up_to_date


@pytest.mark.parametrize(
    ("fault", "retryable"),
    [(tools.status(503), True), (tools.status(200, b"<html>sign in</html>"), True), (tools.status(422), False)],
)
def test_what_may_pass_is_told_from_what_will_not(
    server: Server, proxy: Proxy, place: Path, run_id: str, fault: tools.Fault, retryable: bool
) -> None:
    """A server that is down or a captive portal's page may pass; a refusal will not. Nothing counts as delivered."""
    run = run_dir(place / "run", run_id)
    proxy.faults = [("/parcels", fault)] + [("PUT", fault)] * 9
    (result,) = deliver(server, [run], url=proxy.url, timeout=0)
    assert result.status == "failed" and result.retryable is retryable, result
    assert not (run / "sync.json").exists()


def test_retry_after_may_be_a_date_and_the_clock_may_be_wrong(server: Server, proxy: Proxy, place: Path) -> None:
    """The date is read by the answer's own: a server whose clock is years away is not waited for so long."""
    told: list[float | None] = []
    dates = {"Retry_After": "Thu, 01 Jan 2037 00:00:20 GMT", "Date": "Thu, 01 Jan 2037 00:00:00 GMT"}
    for headers in (dates, {"Retry_After": "7"}, {"Retry_After": "soon"}, {"Retry_After": "nan"}):
        proxy.faults = [("/hello", tools.status(503, **headers))]
        with Client(proxy.url, None) as client, pytest.raises(RetryableError) as caught:
            client.hello()
        told.append(caught.value.retry_after)
    assert told == [20.0, 7.0, None, None]


# -- threads -----------------------------------------------------------------------------------------------------------


def test_a_pool_does_all_tasks_and_passes_on_what_goes_wrong() -> None:
    """All results once; never more at once than there are threads; the first exception ends it, and nobody hangs."""
    under_way, most, lock = 0, 0, threading.Lock()

    def work(task: int, client: Client) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        if task == 500:
            raise ValueError(task)
        with lock:
            under_way -= 1
        return task * 2

    def make() -> Client:
        return Client("http://127.0.0.1:9", None)

    with Pool(3, make, work, Patience(0)) as pool:
        assert sorted(pool.results(range(300))) == [2 * n for n in range(300)]
    assert 1 <= most <= 3
    patience = Patience(60)
    with pytest.raises(ValueError, match="500"), Pool(3, make, work, patience) as pool:
        list(pool.results(range(400, 600)))
    with pytest.raises(RetryableError, match="stopped"):
        patience.call(lambda: None)

    def broken() -> Client:
        raise RetryableError("no client")

    with pytest.raises(RetryableError, match="no client"), Pool(2, broken, work, Patience(0)) as pool:
        list(pool.results([1]))


def test_packs_of_several_runs_at_once(own_server: Server, place: Path) -> None:
    """Files of several packs each, of which runs share some: every one arrives whole, every chunk is there once."""
    chance = random.Random(SEED)
    shared = chance.randbytes(20 << 20)
    runs = []
    for n in range(4):
        run = run_dir(place / f"run-{n}", f"big{n}", {"w" * 16: [begin(f"big{n}"), *logs(2, 20)]})
        add_media(run, "shared.bin", shared, writer="m1")
        add_media(run, "own.bin", chance.randbytes(9 << 20), writer="m2")
        runs.append(run)
    results = deliver(own_server, runs, uploads=4, clean_up=True)
    assert [r.status for r in results] == ["delivered"] * 4
    assert all(r.cleaned and r.cleaned.reason is None for r in results) and not any(run.exists() for run in runs)
    for n in range(4):
        assert own_server.api("GET", f"runs/admin/p/big{n}/files/media/shared.bin").body == shared
    assert own_server.query("SELECT sum(size) FROM chunks")[0][0] == (20 + 4 * 9) << 20
    assert list((own_server.data / "objects" / "incoming").iterdir()) == []


def test_a_key_that_is_revoked_meanwhile_ends_the_sync(own_server: Server, place: Path) -> None:
    """401 is for all runs: it is raised, and nobody hangs."""
    runs = [run_dir(place / f"r{n}", f"r{n}", {"w" * 16: [begin(f"r{n}"), *logs(2, 4000)]}) for n in range(6)]
    with tools.proxied(own_server) as proxy:
        proxy.faults = [("/records/", tools.status(401, b'{"error": "unauthorized", "detail": "revoked"}'))]
        with pytest.raises(AuthError, match="revoked"):
            deliver(own_server, runs, url=proxy.url)
    assert [r.status for r in deliver(own_server, runs)].count("failed") == 0
    for n, run in enumerate(runs):
        assert own_server.journal(f"r{n}") == local_journal(run)


def test_many_writers_at_once_are_waited_for(own_server: Server, place: Path) -> None:
    """Sixteen threads write to SQLite at the same time: none is told that the database is locked."""
    failures: list[int] = []

    def work(number: int) -> None:
        for n in range(5):
            run = f"r{number}-{n}"
            parcel = encode([SmallRun("admin", "p", run, False, writers={"w": b"".join([begin(run), *logs(2, 50)])})])
            failures.append(own_server.api("POST", "parcels", zstd(parcel)).status)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [200] * 80 and own_server.query("SELECT count(*), sum(records) FROM runs") == [(80, 4000)]


def test_a_plain_sync_is_told_by_the_server_what_is_no_longer_there(server: Server, place: Path, run_id: str) -> None:
    """Of runs that were delivered one has lost records there, one a file, one was deleted: each is dealt with anew."""
    runs = [run_dir(place / f"run-{n}", f"{run_id}-{n}") for n in range(4)]
    path = add_media(runs[2], "a.txt", b"hello")
    assert [r.status for r in deliver(server, runs)] == ["delivered"] * 4
    assert [r.status for r in deliver(server, runs)] == ["up to date"] * 4
    rows = [server.query("SELECT id FROM runs WHERE run_id = ?", f"{run_id}-{n}")[0][0] for n in range(4)]
    of_it = "(SELECT id FROM writers WHERE run_id = ?)"
    server.execute(
        f"DELETE FROM series_chunks WHERE series_id IN (SELECT id FROM series WHERE writer_id IN {of_it})", rows[1]
    )
    for table, column in (("series", "writer_id"), ("batches", "writer_id"), ("writers", "id")):
        server.execute(f"DELETE FROM {table} WHERE {column} IN {of_it}", rows[1])
    server.execute("DELETE FROM files WHERE run_id = ?", rows[2])
    server.execute("UPDATE runs SET deleted_at = 1.0 WHERE id = ?", rows[3])
    planned = plan([RunDir(run) for run in runs], Address(server.url, "argument"), server.key)
    assert [p.pending for p in planned] == [False, True, True, True]
    assert [r.status for r in deliver(server, runs)] == ["up to date", "delivered", "delivered", "gone"]
    assert server.journal(f"{run_id}-1") == local_journal(runs[1])
    assert server.api("GET", f"runs/admin/p/{run_id}-2/files/{path}").body == b"hello"
    server.execute("UPDATE runs SET deleted_at = NULL WHERE id = ?", rows[3])
    assert [r.status for r in deliver(server, runs)] == ["up to date"] * 3 + ["delivered"]


@pytest.mark.parametrize(
    "lie",
    [
        {"writers": {"w" * 16: [-1, "d"]}}, {"writers": {"w" * 16: [1, "d" * 100]}}, {"writers": {"w" * 300: [1, "d"]}},
        {"files": -5}, {"files": "many"}, {"workspace": 7}, {"project": ["p"]}, {"run_id": "r" * 2_000_000},
    ],
)  # fmt: skip
def test_a_senseless_sync_json_is_no_obstacle(server: Server, place: Path, run_id: str, lie: dict[str, object]) -> None:
    """What one run's sync.json says beyond sense costs a closer look at it, and nothing of the others."""
    runs = [run_dir(place / f"run-{n}", f"{run_id}-{n}") for n in range(2)]
    assert [r.status for r in deliver(server, runs)] == ["delivered"] * 2
    document = json.loads((runs[0] / "sync.json").read_bytes())
    document["servers"][server.url].update(lie)
    (runs[0] / "sync.json").write_text(json.dumps(document))
    assert {r.status for r in deliver(server, runs)} <= {"delivered", "up to date"}
    assert [r.status for r in deliver(server, runs)] == ["up to date"] * 2


def test_what_is_held_is_told_only_to_those_who_may_see_it(server: Server, place: Path, run_id: str) -> None:
    """Runs are held as far as was acknowledged or farther, by the same digest; for a stranger nothing is there."""
    run = run_dir(place / "run", run_id)
    (result,) = deliver(server, [run])
    assert result.outcome is not None
    writer = "w" * 16
    last, digest = result.outcome.acknowledged[writer]

    def ask(last: int, digest: str, key: str | None = None, **more: object) -> object:
        asked = {"workspace": "admin", "project": "p", "id": run_id, "writers": {writer: [last, digest]}, "files": 0}
        return server.api("POST", "holdings", {"runs": [{**asked, **more}]}, key=key).json()["runs"][0]

    assert ask(last, digest) == "held" and ask(last - 1, "0" * 64) == "held"
    assert ask(last, "0" * 64) == "lacking" and ask(last + 1, digest) == "lacking"
    assert ask(last, digest, files=1) == "lacking" and ask(last, digest, id="another") == "lacking"
    stranger = server.create_user(f"stranger-{run_id}")
    assert ask(last, digest, key=stranger) == ask(0, "", key=stranger, workspace="nowhere") == "unknown"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"runs": [{}] * 201},
        {"runs": [{"workspace": "w", "project": "p", "id": "r", "writers": {"a": [1]}, "files": 0}]},
        {"runs": [{"workspace": "w", "project": "p", "id": "r", "writers": {"a": [-1, "d"]}, "files": 0}]},
        {"runs": [{"workspace": "w", "project": "p", "id": "r", "writers": {}, "files": 2**62}]},
        {"runs": [{"workspace": "w", "project": "p", "id": "r" * 201, "writers": {}, "files": 0}]},
    ],
)
def test_a_senseless_question_for_holdings_is_refused(server: Server, body: object) -> None:
    """What is no such question is 422, and never the server's own failure."""
    assert server.api("POST", "holdings", body).status == 422


def test_a_question_for_holdings_has_a_bound_on_its_writers(server: Server) -> None:
    """More writers than one request may name are 413; a client never sends them."""
    writers = {f"w{n}": [1, "d"] for n in range(2001)}
    asked = {"workspace": "admin", "project": "p", "id": "r", "writers": writers, "files": 0}
    assert server.api("POST", "holdings", {"runs": [asked]}).status == 413


def test_small_runs_with_many_files_are_sent_once(
    own_server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More bytes of files than one parcel may have go in several: none is refused, and nothing is sent again."""
    chance = random.Random(SEED)
    runs = [run_dir(place / f"run-{n:02d}", f"r{n}") for n in range(24)]
    for run in runs:
        for number in range(4):
            add_media(run, f"{number}.bin", chance.randbytes(240_000), writer=f"media{number}")
    sent: list[tuple[str, int]] = []
    send = Client.json

    def counted(client: Client, method: str, path: str, **more: Any) -> dict[str, Any]:
        sent.append((path.split("/")[0], len(more.get("data") or b"")))
        return send(client, method, path, **more)

    monkeypatch.setattr(Client, "json", counted)
    assert {result.status for result in deliver(own_server, runs)} == {"delivered"}
    content = sum(size for _, size in sent)
    assert {path for path, _ in sent} == {"hello", "me", "parcels"} and content < 1.1 * 24 * 4 * 240_000
    for n, run in enumerate(runs):
        assert own_server.journal(f"r{n}") == local_journal(run)
