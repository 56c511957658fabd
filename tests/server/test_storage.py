"""Where the server keeps what it was given: in SQL, in objects, and on the disk before it says so."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import zstandard

from flightlog_server.store import folding
from flightlog_server.store.database import Database
from flightlog_server.store.migrate import migrate
from flightlog_server.store.objects import LocalObjects
from flightlog_server.store.schema import metadata

from .tools import Server, add_media, begin, line, local_journal, logs, pack_of, pack_request, run_dir, until

WRITER = "w" * 16
SEED = 20261129


def noisy(first: int, last: int, chance: random.Random) -> list[bytes]:
    """Lines that do not compress well."""
    return [line(seq, step=seq, data={"x": chance.randbytes(150).hex()}) for seq in range(first, last + 1)]


# -- folding -----------------------------------------------------------------------------------------------------------


def test_long_journals_move_to_objects_and_stay_what_they_are(own_server: Server, place: Path, home: Path) -> None:
    """Read, receipt, appending, filling and cleaning work on what lies in objects as on what stands in SQL."""
    chance = random.Random(SEED)
    print("seed", SEED)
    lines = [begin("long"), *noisy(2, 80_000, chance)]
    run = run_dir(place / "run", "long", {WRITER: lines}, finished=False)
    shutil.copytree(run, place / "copy")
    segment = place / "copy" / "files" / "journal" / WRITER / "000001.jsonl"
    segment.write_bytes(b"".join([*lines[:5000], *lines[5003:]]))
    assert own_server.sync(place / "copy", home=home).code == 3
    moved = own_server.query("SELECT object, count(*), sum(size) FROM batches WHERE lines IS NULL GROUP BY object")
    assert moved and all(size >= folding.FOLD_BYTES for _, _, size in moved)
    (loose,) = own_server.query("SELECT loose FROM writers")[0]
    assert (loose,) == own_server.query("SELECT coalesce(sum(size), 0) FROM batches WHERE lines IS NOT NULL")[0]
    assert own_server.sync(run, home=home).code == 0, "the gap lies in an object"
    assert own_server.journal("long") == local_journal(run)
    with (run / "files" / "journal" / WRITER / "000001.jsonl").open("ab") as file:
        file.write(b"".join(logs(80_001, 80_100)))
    assert own_server.sync(run, home=home).code == 0
    assert own_server.journal("long") == local_journal(run)
    shown = own_server.api("GET", "runs/admin/p/long/records?kind=log&kind=run").body
    assert shown == b"".join(WRITER.encode() + b" " + raw for raw in local_journal(run)[WRITER].splitlines(True))
    key = moved[0][0]
    with tarfile.open(own_server.data / "objects" / key) as tar:
        first = next(iter(tar))
        content = tar.extractfile(first)
        assert re.fullmatch(rf"admin/p/long/{WRITER}/\d+-\d+\.jsonl\.zst", first.name) and content is not None
        assert zstandard.ZstdDecompressor().decompress(content.read()) in local_journal(run)[WRITER]


def test_small_runs_that_have_ended_are_folded_together(own_server: Server, place: Path, home: Path) -> None:
    """One object of many runs, not one for each; those that are still running stay in SQL."""
    chance = random.Random(SEED)
    for n in range(100):
        lines = [begin(f"r{n}"), *noisy(2, 600, chance)]
        lines.append(line(601, "finish", {"state": "finished"}) if n % 10 else logs(601, 601)[0])
        run_dir(place / f"run-{n:02d}", f"r{n}", {WRITER: lines}, finished=bool(n % 10))
    assert own_server.sync(place, home=home).code == 0
    objects = own_server.query("SELECT object, sum(size) FROM batches WHERE object IS NOT NULL GROUP BY object")
    assert objects and all(size >= folding.FOLD_BYTES for _, size in objects)
    running = own_server.query(
        "SELECT count(*) FROM batches b JOIN writers w ON w.id = b.writer_id JOIN runs r ON r.id = w.run_id "
        "WHERE r.state = 'running' AND b.lines IS NULL"
    )
    assert running == [(0,)]
    for n in range(100):
        assert own_server.journal(f"r{n}") == local_journal(place / f"run-{n:02d}")


def test_orphans_are_found_and_nothing_else(own_server: Server, place: Path, home: Path) -> None:
    """What a crash left behind is deleted after a grace; what a row refers to never."""
    run = run_dir(place / "run", "r", {WRITER: [begin("r"), *noisy(2, 60_000, random.Random(SEED))]})
    path = add_media(run, "a.bin", b"x" * 100_000)
    assert own_server.sync(run, home=home).code == 0
    own_server.stop()
    objects = LocalObjects(own_server.data / "objects")
    database = Database(f"sqlite:///{own_server.data / 'flightlog.db'}")
    try:
        orphans = ["packs/1/aaaa.tar", "journals/1/bbbb.tar", "incoming/tmpx"]
        for key in orphans:
            objects.put(key, io.BytesIO(b"left behind"))
        assert folding.collect_orphans(database, objects) == []
        assert sorted(folding.collect_orphans(database, objects, grace=-60.0)) == sorted(orphans)
    finally:
        database.close()
    own_server.start()
    assert own_server.journal("r") == {**local_journal(run)}
    assert own_server.api("GET", f"runs/admin/p/r/files/{path}").body == b"x" * 100_000


# -- before it says so -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_receipt_speaks_only_of_what_was_synced(own_server: Server, place: Path, home: Path, tmp_path: Path) -> None:
    """The server's system calls: what an answer speaks of has been fsync'd before, folders and log included."""
    trace = tmp_path / "trace"
    assert own_server.process is not None
    calls = "openat,fsync,fdatasync,rename,renameat,renameat2,sendto,write,writev,pwrite64,sendmsg,close"
    words = [
        "strace",
        "-f",
        "-y",
        "-s",
        "80",
        "-e",
        f"trace={calls}",
        "-o",
        str(trace),
        "-p",
        str(own_server.process.pid),
    ]
    tracer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        if "attached" not in attached:
            pytest.skip(f"this machine lets nobody be traced: {attached}")
        run = run_dir(place / "run", "r", {WRITER: [begin("r"), *noisy(2, 60_000, random.Random(SEED))]})
        add_media(run, "a.bin", random.Random(SEED).randbytes(3 << 20))
        assert own_server.sync(run, home=home).code == 0
        time.sleep(0.2)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=30)
    seen = _check_order(trace.read_text(errors="replace").splitlines(), own_server.data)
    assert seen["receipt"] >= 1 and seen["objects"] >= 2 and seen["commits"] >= 3, seen


def _check_order(lines: list[str], data: Path) -> dict[str, int]:
    """Go through a trace: at every answer nothing may be on its way to the disk that has not been fsync'd."""
    wal, objects = f"{data}/flightlog.db-wal", f"{data}/objects/"
    written: set[str] = set()  # to be fsync'd before an answer: the log, and folders that have got an object
    synced: set[str] = set()  # files that were fsync'd
    seen = {"receipt": 0, "objects": 0, "commits": 0}
    for text in lines:
        call = re.match(r"\d+\s+(\w+)\(", text)
        if not call:
            continue
        name = call[1]
        if name == "pwrite64" and f"<{wal}>" in text:
            written.add(wal)
        elif name in ("fsync", "fdatasync"):
            path = re.search(r"<([^>]*)>", text)
            if path:
                seen["commits"] += path[1] == wal
                written.discard(path[1])
                synced.add(path[1])
        elif name.startswith("rename") and objects in text:
            source, target = re.findall(r'"([^"]*)"', text)[:2]
            assert source in synced, f"an object was put in its place before it was on the disk: {text}"
            seen["objects"] += 1
            written.add(str(Path(target).parent))
        elif name in ("sendto", "write", "writev", "sendmsg") and "HTTP/1.1 200" in text:
            assert not written, f"an answer left before {written} was on the disk: {text}"
        if name in ("sendto", "write", "writev", "sendmsg") and '{\\"writers\\":' in text:
            seen["receipt"] += 1
    return seen


# -- databases ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL server."""
    pytest.importorskip("psycopg")
    # Debian keeps its programs off the path.
    places = os.pathsep.join([os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
    initdb, postgres = (shutil.which(name, path=places) for name in ("initdb", "postgres"))
    if not (initdb and postgres):
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("postgresql")
    user = "nobody" if os.getuid() == 0 else None  # it refuses to run as root
    if user:
        for path in (folder, *folder.parents):
            if path == Path("/tmp"):
                break
            path.chmod(path.stat().st_mode | 0o711)
        shutil.chown(folder, user)
    run = {"cwd": folder, "user": user, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    made = subprocess.run([initdb, "-D", folder / "data", "-A", "trust", "-U", "flightlog"], check=False, **run)  # type: ignore[call-overload]
    if made.returncode:
        pytest.skip("PostgreSQL cannot be set up here")
    process = subprocess.Popen([postgres, "-D", folder / "data", "-k", folder, "-h", "", "-F"], **run)  # type: ignore[call-overload]
    try:
        for _ in range(200):
            if (folder / ".s.PGSQL.5432").exists():
                break
            time.sleep(0.05)
        yield f"postgresql+psycopg://flightlog@/postgres?host={folder}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_the_schema_and_ingestion_run_on_postgresql(postgresql: str, tmp_path: Path) -> None:
    """Migrations from nothing, then as on SQLite: lines stored, filled, branched, by several at once."""
    from flightlog.protocol.digest import JournalDigest
    from flightlog.protocol.messages import branch_name
    from flightlog_server import accounts, ingest
    from flightlog_server.runs import ensure_run

    database, objects = Database(postgresql), LocalObjects(tmp_path / "objects")
    empty = JournalDigest().upto(0)
    try:
        migrate(database)
        migrate(database)
        there = sa.inspect(database.engine)
        assert {t.name for t in metadata.sorted_tables} <= set(there.get_table_names())
        with database.write() as connection:
            accounts.create_user(connection, "ada")
        with database.write() as connection:
            users = connection.execute(sa.text("SELECT id, name FROM users")).one()
            account = accounts.Account(users.id, users.name, False)
            run = ensure_run(connection, account, "ada", "p", "r", alive=False)
        lines = [begin("r"), *logs(2, 9000)]
        parts = [(1, [*lines[:3000], *lines[3100:5000]], [(3001, 3100)]), (5001, lines[5000:], [])]
        for first, part, lost in parts:
            digest = JournalDigest()
            for seq, raw in enumerate(lines[: first - 1], 1):
                if not 3001 <= seq <= 3100:
                    digest.add(seq, raw)
            batch = ingest.Batch(first, digest.upto(first - 1) if first > 1 else empty, b"".join(part), lost)
            with database.write() as connection:
                ingest.store(connection, objects, run, WRITER, batch)
        whole = ingest.Batch(1, empty, b"".join(lines), [])
        states = []

        def again() -> None:
            with database.write() as connection:
                states.append(ingest.store(connection, objects, run, WRITER, whole))

        threads = [threading.Thread(target=again) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        digest = JournalDigest()
        for seq, raw in enumerate(lines, 1):
            digest.add(seq, raw)
        assert [(s.last, s.digest, s.lost) for s in states] == [(9000, digest.upto(9000), [])] * 4
        prefix = JournalDigest()
        for seq, raw in enumerate(lines[:100], 1):
            prefix.add(seq, raw)
        other = line(101, data={"loss": -1.0})
        with database.write() as connection:
            name = branch_name(WRITER, other)
            state = ingest.store(connection, objects, run, name, ingest.Batch(101, prefix.upto(100), other, [], WRITER))
            assert state.base == (WRITER, 100)
        with database.read() as connection:
            assert len(list(ingest.lines_of_run(connection, objects, run.id))) == 9001
    finally:
        database.close()


def test_an_older_database_is_cut_anew(tmp_path: Path) -> None:
    """What was stored by an earlier version is cut at the digest's blocks, and its digests are noted."""
    from alembic import command

    from flightlog.protocol.digest import JournalDigest
    from flightlog_server.store.migrate import config

    database = Database(f"sqlite:///{tmp_path / 'old.db'}")
    lines = [begin("r"), *logs(2, 10_000)]
    digest = JournalDigest()
    for seq, raw in enumerate(lines, 1):
        digest.add(seq, raw)
    settings = config()
    try:
        with database.write() as connection:
            settings.attributes["connection"] = connection
            command.upgrade(settings, "0002")
            for statement in (
                "INSERT INTO users VALUES (1, 'a', 0, 0)",
                "INSERT INTO workspaces VALUES (1, 'a', 'personal')",
                "INSERT INTO projects VALUES (1, 1, 'p', 0)",
                "INSERT INTO runs (id, workspace_id, origin_project, run_id, project_id, owner_id, name, tags, state, "
                "alive, config, summary, step, records, created_at, updated_at, standing, version) "
                "VALUES (1, 1, 'p', 'r', 1, 1, 'r', '[]', 'running', 0, '{}', '{}', 0, 0, 0, 0, '{}', 0)",
                "INSERT INTO writers (id, run_id, name, last_seq, blocks, lost, parents, floor, depth, at) "
                "VALUES (1, 1, 'w', 10000, x'', '[]', '{}', 0, 0, 0)",
            ):
                connection.execute(sa.text(statement))
            for first in (1, 7001):
                part = zstandard.ZstdCompressor().compress(b"".join(lines[first - 1 : first + 6999]))
                row = {"f": first, "l": min(first + 6999, 10_000), "b": part}
                connection.execute(sa.text("INSERT INTO batches VALUES (1, :f, :l, :b)"), row)
        migrate(database)
        with database.read() as connection:
            rows = connection.execute(sa.text("SELECT first_seq, last_seq, lines, size FROM batches ORDER BY 1")).all()
            assert connection.execute(sa.text("SELECT digest, loose FROM writers")).one() == (
                digest.upto(10_000), sum(row.size for row in rows)
            )  # fmt: skip
        assert all((first - 1) // 4096 == (last - 1) // 4096 for first, last, _, _ in rows)
        stored = b"".join(zstandard.ZstdDecompressor().decompress(row.lines) for row in rows)
        assert stored == b"".join(lines)
    finally:
        database.close()


def test_a_killed_server_keeps_what_had_arrived_whole_of_its_packs(
    own_server: Server, home: Path, place: Path, run_id: str
) -> None:
    """Three packs are under way at SIGKILL: of each, all but the chunk that was being sent need not be sent again."""
    assert own_server.sync(run_dir(place / "run", run_id, {WRITER: [begin(run_id)]}), home=home).code == 0
    packs = [[f"{run_id} {lane} {n}".encode() * 20_000 for n in range(8)] for lane in range(3)]
    incoming = own_server.data / "objects" / "incoming"
    with contextlib.ExitStack() as connections:
        for pack in packs:
            body = pack_of(*pack)
            connection = socket.create_connection(("127.0.0.1", own_server.port), timeout=10)
            connections.enter_context(connection)
            connection.sendall(pack_request(own_server.key, len(body)) + body[: -len(pack[-1])])
        sent = sum(len(pack_of(*pack)) - len(pack[-1]) for pack in packs)
        until(lambda: sum(path.stat().st_size for path in incoming.glob("*")) > sent - 30_000)
        own_server.kill()
    own_server.start()
    assert not any(incoming.iterdir())
    for pack in packs:
        names = [hashlib.sha256(chunk).hexdigest() for chunk in pack]
        said = own_server.api("POST", "projects/admin/p/chunks/missing", {"chunks": names}).json()
        assert said == {"missing": names[-1:]}
        files = [{"path": f"media/{name}", "size": len(chunk), "sha256": name, "chunks": [[name, len(chunk)]]}
                 for name, chunk in zip(names[:-1], pack, strict=False)]  # fmt: skip
        assert own_server.api("POST", f"runs/admin/p/{run_id}/files", {"files": files}).status == 200
        for name, chunk in zip(names[:-1], pack, strict=False):
            assert own_server.api("GET", f"runs/admin/p/{run_id}/files/media/{name}").body == chunk
    assert own_server.stderr == ""


def test_what_is_no_pack_any_more_is_removed_at_the_start(own_server: Server) -> None:
    """Nonsense, packs of projects that are gone, and other objects in the making go; what somebody is at stays."""
    own_server.stop()
    incoming = own_server.data / "objects" / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    for name in ("tmpx", "-journal", "pack.1-nonsense", "pack.x-y", "pack.9-gone", "pack.99999999999999999999-x"):
        (incoming / name).write_bytes(pack_of(name.encode()) if "nonsense" not in name else b"half a pack")
    (incoming / "-old").touch()
    os.utime(incoming / "-old", (time.time() - 100_000, time.time() - 100_000))
    (incoming / "-just_begun").touch()
    (incoming / "somebody's").mkdir()
    objects = LocalObjects(own_server.data / "objects")
    with objects.stage("pack.1") as staged:
        staged.file.write(b"under way")
        staged.file.flush()
        own_server.start()
        left = sorted(path.name for path in incoming.iterdir())
        assert left == sorted(["-just_begun", "somebody's", Path(staged.file.name).name])
    assert own_server.stderr == ""
