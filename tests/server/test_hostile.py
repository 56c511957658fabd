"""A server that is spoken to by something else than our client: every request ends in a clear no, none in a failure."""

from __future__ import annotations

import hashlib
import io
import json
import random
import sqlite3
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import zstandard

from flightlog.protocol.digest import JournalDigest
from flightlog.protocol.manifest import FileEntry, Manifest

from .tools import EMPTY, Answer, Server, begin, flightlog, line, logs, pack_of, zstd


def register(
    server: Server, run_id: str, *, project: str = "p", key: str | None = None, workspace: str = "admin"
) -> str:
    """Make a run known and return its address below /api/v1."""
    path = f"runs/{quote(workspace)}/{quote(project)}/{run_id}"
    answer = server.api("PUT", path, {"alive": True}, key=key)
    assert answer.status == 200, answer
    return path


def send(
    server: Server,
    run: str,
    lines: bytes,
    *,
    first: object = 1,
    before: str = EMPTY,
    lost: str = "",
    writer: str = "w",
    **more: Any,
) -> Answer:
    """Send a batch of records."""
    query = f"?first={quote(str(first))}&before={before}" + (f"&lost={quote(lost)}" if lost else "")
    return server.api("POST", f"{run}/records/{quote(writer, safe='')}{query}", zstd(lines), **more)


def is_no(answer: Answer, *statuses: int) -> bool:
    """Tell whether a request was refused in the way docs/api.md promises."""
    body = answer.json()
    return answer.status in statuses and set(body) >= {"error", "detail"} and "Traceback" not in body["detail"]


# -- accounts and keys -------------------------------------------------------------------------------------------------


def test_the_first_start_makes_an_admin_and_says_once_how_to_sign_in(own_server: Server) -> None:
    """The key stands in the first output only, signs in, and is stored as a hash."""
    assert own_server.said.startswith(f"flightlog server at {own_server.url}")
    assert own_server.said.count(own_server.key) == 1 and f"flightlog login {own_server.url}" in own_server.said
    me = own_server.api("GET", "me").json()
    assert me["user"] == {"name": "admin", "is_admin": True} and me["default_workspace"] == "admin"
    own_server.stop()
    own_server.start()
    assert own_server.process is not None and "fl_" not in own_server.said
    assert own_server.api("GET", "me").status == 200
    digest = hashlib.sha256(own_server.key.encode()).digest()
    assert own_server.query("SELECT hash FROM api_keys") == [(digest,)]
    assert own_server.data.stat().st_mode & 0o077 == 0, "nobody else on the machine reads the data folder"


def test_users_are_made_while_the_server_runs(server: Server, home: Path, run_id: str) -> None:
    """With and without --json; a name that is taken or impossible is one line and exit status 2."""
    key = server.create_user(run_id)
    assert server.api("GET", "me", key=key).json()["user"] == {"name": run_id, "is_admin": False}
    said = flightlog("server", "create-user", f"{run_id}-text", "--data", server.data, home=home)
    assert said.code == 0 and "fl_" in said.out
    other_way = flightlog("server", "--data", server.data, "create-user", f"{run_id}-other", home=home)
    assert other_way.code == 0, other_way
    assert server.query("SELECT count(*) FROM users WHERE name = ?", f"{run_id}-other") == [(1,)]
    for name in (run_id, run_id.upper(), "../x", "", "a/b", "x" * 200):
        said = flightlog("server", "create-user", "--data", server.data, "--", name, home=home)
        assert said.code == 2 and said.err.count("\n") == 1, said


def test_a_user_who_took_the_name_admin_first_is_no_obstacle(tmp_path: Path, home: Path) -> None:
    """Accounts made before the first start: the admin gets another name, and the server starts."""
    server = Server(tmp_path)
    made = flightlog("server", "create-user", "admin", "--data", server.data, home=home)
    assert made.code == 0, made
    server.start()
    try:
        assert server.api("GET", "me").json()["user"] == {"name": "admin-2", "is_admin": True}
    finally:
        server.stop()


def test_a_folder_or_port_that_cannot_be_used_is_one_line(server: Server, tmp_path: Path, home: Path) -> None:
    """No traceback where the port is taken, or a file stands in the way of the folder."""
    taken = flightlog("server", "--data", tmp_path / "d", "--port", str(server.port), home=home)
    assert taken.code == 1 and str(server.port) in taken.err and taken.err.count("\n") == 1, taken
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "below", tmp_path / "file"):
        said = flightlog("server", "--data", folder, "--port", "0", home=home)
        assert said.code in (1, 2) and str(folder) in said.err and "Traceback" not in said.err, said


def test_a_revoked_key_and_its_sessions_end_at_once(server: Server, run_id: str) -> None:
    """401 for the key and for the browser that signed in with it."""
    key = server.create_user(run_id)
    signed = server.api("POST", "session", {"api_key": key}, key="x")
    cookie = signed.headers["set-cookie"].split(";")[0]
    assert server.get("/api/v1/me", headers={"Cookie": cookie}).status == 200
    server.execute("UPDATE api_keys SET revoked_at = 1.0 WHERE hash = ?", hashlib.sha256(key.encode()).digest())
    assert is_no(server.api("GET", "me", key=key), 401)
    assert is_no(server.get("/api/v1/me", headers={"Cookie": cookie}), 401)
    assert is_no(server.api("POST", "session", {"api_key": key}), 401)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic YWRtaW46", "bearer  x", "Bearer fl_x", "Bearer \xff\xfe", "Bearer " + "x" * 9000],
)
def test_whatever_stands_in_the_authorization_header(server: Server, header: str) -> None:
    """401, never a failure; `bearer` in any case is understood."""
    answer = server.get("/api/v1/me", headers={"Authorization": header.encode("latin-1")})
    assert is_no(answer, 401)
    good = server.get("/api/v1/me", headers={"Authorization": f"bEaReR {server.key}"})
    assert good.status == 200


def test_the_browsers_cookie_is_guarded(server: Server, run_id: str) -> None:
    """HttpOnly, SameSite=Strict; a change needs X-Flightlog; signing out ends the session on the server."""
    signed = server.api("POST", "session", {"api_key": server.key}, key="x")
    cookie = signed.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and server.key not in cookie
    sent = {"Cookie": cookie.split(";")[0], "Content-Type": "application/json"}
    path = f"/api/v1/runs/admin/p/{run_id}"
    assert is_no(server.ask("PUT", path, b'{"alive": true}', headers=sent), 403)
    assert is_no(server.ask("PUT", path, b'{"alive": true}', headers={**sent, "X-Flightlog": "yes"}), 403)
    assert server.ask("PUT", path, b'{"alive": true}', headers={**sent, "X-Flightlog": "1"}).status == 200
    assert is_no(server.ask("DELETE", "/api/v1/session", headers=sent), 403)
    assert server.ask("DELETE", "/api/v1/session", headers={**sent, "X-Flightlog": "1"}).status == 204
    assert is_no(server.get("/api/v1/me", headers=sent), 401)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"api_key": 5}', b'{"api_key": "\\ud800"}', b"\xff" * 99]
)
def test_a_sign_in_that_is_none(server: Server, body: bytes) -> None:
    """A clear no, whatever the body is."""
    assert is_no(server.ask("POST", "/api/v1/session", body, headers={"Content-Type": "application/json"}), 400, 422)


def test_another_users_run_is_not_there(server: Server, run_id: str) -> None:
    """404 on every route, for reading as for writing: not even whether it exists is told."""
    run = register(server, run_id)
    send(server, run, begin(run_id))
    other = server.create_user(run_id)
    artifact = "artifacts/admin/p/model/latest"
    reads = [
        run,
        *(f"{run}/{x}" for x in ("metrics", "series?metric=a", "history", "media", "files/a", "artifacts", "receipt")),
    ]
    for path in [*reads, "projects/admin/p/runs", artifact, f"{artifact}/files/a"]:
        assert is_no(server.api("GET", path, key=other), 404), path
        assert is_no(server.get(f"/api/v1/{path}"), 401), path
    assert is_no(server.api("PUT", run, {"alive": True}, key=other), 404)
    assert is_no(send(server, run, line(2), first=2, key=other), 404)
    assert is_no(server.api("POST", "projects/admin/p/packs", pack_of(b"x"), key=other), 404)
    assert is_no(server.api("POST", "projects/admin/p/chunks/missing", {"chunks": []}, key=other), 404)
    assert is_no(server.api("POST", f"{run}/files", {"files": []}, key=other), 404)
    assert is_no(server.api("POST", f"{run}/manifests", {"artifacts": []}, key=other), 404)
    assert server.api("GET", "projects", key=other).json() == {"projects": []}


def test_a_viewer_may_look_and_not_write(server: Server, run_id: str) -> None:
    """403 on every route that changes something; reading works."""
    run = register(server, run_id)
    send(server, run, begin(run_id))
    viewer = server.create_user(run_id)
    server.execute(
        "INSERT INTO members (workspace_id, user_id, role) "
        "SELECT w.id, u.id, 'viewer' FROM workspaces w, users u WHERE w.name = 'admin' AND u.name = ?",
        run_id,
    )
    assert server.api("GET", run, key=viewer).json()["id"] == run_id
    assert is_no(server.api("PUT", f"{run}-new", {"alive": True}, key=viewer), 403)
    assert is_no(send(server, run, line(2), first=2, key=viewer), 403)
    assert is_no(server.api("POST", "projects/admin/p/packs", pack_of(b"x"), key=viewer), 403)
    assert is_no(server.api("POST", "projects/admin/p/chunks/missing", {"chunks": []}, key=viewer), 403)
    assert is_no(server.api("POST", f"{run}/files", {"files": []}, key=viewer), 403)
    assert is_no(server.api("POST", f"{run}/manifests", {"artifacts": []}, key=viewer), 403)
    server.execute("DELETE FROM members WHERE role = 'viewer'")


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/assets/../../app.py",
        "/assets/..%2f..%2fapp.py",
        "/assets/%2e%2e/%2e%2e/app.py",
        "/assets/%00",
        "/%00",
        "/" + "a" * 300,
        "/" + "a" * 5000,
        "/.%2fapp.py",
        "//etc/passwd",
        "/app.py",
        "/index.html%00.png",
        "/\\..\\app.py",
        "/%ff%fe",
    ],
)
def test_no_address_leads_out_of_the_page(server: Server, path: str) -> None:
    """The page or a no, never another file and never a failure."""
    answer = server.get(path)
    assert answer.status in (200, 400, 404, 503), answer.status
    assert b"root:" not in answer.body and b"create_app" not in answer.body
    assert answer.headers["x-content-type-options"] == "nosniff" or answer.status == 400


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/api/docs", "/api/v1/hello", "/api/v1/me", "/assets/x.js", "/w/a/b"]
)
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "DELETE", "TRACE", "PATCH", "WEIRD"])
def test_methods_that_a_route_does_not_know(server: Server, method: str, path: str) -> None:
    """An answer below 500 with the safe headers; HEAD has no body."""
    answer = server.ask(method, path)
    assert answer.status < 500, answer
    assert "access-control-allow-origin" not in answer.headers
    assert method != "HEAD" or answer.body == b""


def test_health_and_the_description_of_the_api(server: Server) -> None:
    """/healthz needs no key; every route of docs/api.md is described under /api/docs."""
    assert server.get("/healthz").json() == {"status": "ok"}
    assert server.get("/api/docs").status == 200
    described = server.get("/api/openapi.json").json()["paths"]
    for route in (
        "/hello",
        "/session",
        "/me",
        "/projects",
        "/projects/{workspace}/{project}/runs",
        "/runs/{workspace}/{project}/{run_id}",
        *(
            f"/runs/{{workspace}}/{{project}}/{{run_id}}/{x}"
            for x in ("metrics", "series", "history", "media", "artifacts")
        ),
        "/artifacts/{workspace}/{project}/{name}/{which}",
    ):
        assert f"/api/v1{route}" in described
    assert is_no(server.get("/api/v1/nothing"), 401) and is_no(server.get("/api"), 404)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "~x", "-x", " x", "a/b", "a\\b", "a:b", "a\0b", "x" * 129, "a\u202eb"]
)
def test_names_that_cannot_be(server: Server, run_id: str, name: str) -> None:
    """Project, run and writer: refused, and nothing is made."""
    quoted = quote(name.encode("utf-8", "surrogatepass"), safe="")
    for path in (f"runs/admin/{quoted}/{run_id}", f"runs/admin/p/{quoted}", f"runs/{quoted}/p/{run_id}"):
        answer = server.api("PUT", path, {"alive": True})
        assert answer.status in (400, 404, 405, 422), (path, answer)
    run = register(server, run_id)
    # A writer may hold "~": `<name>~<digest8>` is how a diverged copy is called.
    answer = server.api("POST", f"{run}/records/{quoted}?first=1&before={EMPTY}", zstd(begin(run_id)))
    assert answer.status in (400, 404, 405, 422), answer
    assert server.query("SELECT count(*) FROM writers w JOIN runs r ON r.id = w.run_id WHERE r.run_id = ?", run_id) == [
        (0,)
    ]


def test_names_of_all_kinds_that_can_be(server: Server, run_id: str) -> None:
    """Spaces, quotes, other scripts, SQL: kept, found again, and quoted in the address of the page."""
    for project in ("my project", "a'b; DROP TABLE runs--", "数字", "ä&b=c", "%41".replace("%", "+")):
        run = register(server, run_id, project=project)
        shown = server.api("GET", run).json()
        assert shown["project"] == project
        assert shown["url"] == f"/w/admin/{quote(project, safe='')}/runs/{run_id}"
        assert {p["name"] for p in server.api("GET", "projects").json()["projects"]} >= {project}


# -- records -----------------------------------------------------------------------------------------------------------


BAD_BATCHES: list[tuple[str, Callable[[str], tuple[bytes, dict[str, Any]]]]] = [
    ("a bad CRC", lambda r: (begin(r)[:-4] + b"00" + begin(r)[-2:], {})),
    ("an empty line", lambda r: (begin(r) + b"\n", {})),
    ("seq 0", lambda r: (_resealed(begin(r).replace(b'"seq":1', b'"seq":0')), {})),
    ("seq 2^63", lambda r: (_resealed(begin(r).replace(b'"seq":1', b'"seq":9223372036854775808')), {"first": 2**63})),
    ("a negative seq", lambda r: (_resealed(begin(r).replace(b'"seq":1', b'"seq":-1')), {})),
    ("a seq that is a float", lambda r: (_resealed(begin(r).replace(b'"seq":1', b'"seq":1.0')), {})),
    ("a hole", lambda r: (begin(r) + line(3), {})),
    ("backwards", lambda r: (line(2) + begin(r), {})),
    ("twice the same", lambda r: (begin(r) * 2, {})),
    ("not from first", lambda r: (line(2), {})),
    ("nothing", lambda r: (b"", {})),
    ("zeros", lambda r: (b"\0" * 5000, {})),
    ("first 0", lambda r: (begin(r), {"first": 0})),
    ("first no number", lambda r: (begin(r), {"first": "x"})),
    ("before no digest", lambda r: (begin(r), {"before": "00"})),
    ("lost backwards", lambda r: (begin(r), {"lost": "9-5"})),
    ("lost no number", lambda r: (begin(r), {"lost": "a-b"})),
    ("lost open", lambda r: (begin(r), {"lost": "2-"})),
    ("lost overlapping", lambda r: (begin(r), {"lost": "2-5,4-9"})),
    ("lost what is there", lambda r: (begin(r), {"lost": "1-5"})),
    ("lost negative", lambda r: (begin(r), {"lost": "-5--2"})),
    ("lost not adjacent", lambda r: (begin(r), {"lost": "5-9"})),
    ("lost without end", lambda r: (begin(r), {"lost": "2-900000000000000000"})),
    ("lost beyond 64 bits", lambda r: (begin(r), {"lost": "2-99999999999999999999999"})),
    ("a line of more than 1 MiB", lambda r: (begin(r) + line(2, data={"a": "x" * (1 << 20)}), {})),
]


def _resealed(raw: bytes) -> bytes:
    inside = raw[:-19]
    return inside + b',"crc":"%08x"}\n' % zlib.crc32(inside)


@pytest.mark.parametrize(("what", "make"), BAD_BATCHES, ids=[w for w, _ in BAD_BATCHES])
def test_a_batch_that_is_not_sound_is_refused_whole(
    server: Server, run_id: str, what: str, make: Callable[[str], tuple[bytes, dict[str, Any]]]
) -> None:
    """422 with a sentence, and not a line of it is stored."""
    run = register(server, run_id)
    lines, more = make(run_id)
    assert is_no(send(server, run, lines, **more), 422), what
    assert server.journal(run_id) == {}
    assert send(server, run, begin(run_id)).status == 200


def test_holes_divergence_and_repetition(server: Server, run_id: str) -> None:
    """A hole is told what is expected, other bytes are `diverged`, the same again changes nothing."""
    run = register(server, run_id)
    lines = [begin(run_id), *logs(2, 10)]
    for _ in range(2):
        assert send(server, run, b"".join(lines)).json()["next"] == 11
    hole = send(server, run, line(12), first=12, before="0" * 64)
    assert is_no(hole, 409) and hole.json() == {**hole.json(), "error": "expected", "expected": 11}
    other = send(server, run, line(11), first=11, before="0" * 64)
    assert is_no(other, 409) and other.json()["error"] == "diverged"
    changed = [*lines[:5], line(6, data={"loss": -1}, step=6), *lines[6:]]
    assert send(server, run, b"".join(changed)).json()["error"] == "diverged"
    overlap = b"".join([*lines[4:], *logs(11, 12)])
    digest = JournalDigest()
    for seq, raw in enumerate(lines[:4], 1):
        digest.add(seq, raw)
    assert send(server, run, overlap, first=5, before=digest.upto(4)).json()["next"] == 13
    assert server.journal(run_id) == {"w": b"".join([*lines, *logs(11, 12)])}
    assert server.query("SELECT records FROM runs WHERE run_id = ?", run_id) == [(12,)]


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_that_are_too_large(server: Server, run_id: str, chunked: bool) -> None:
    """413 for a bomb and for a body that is large itself, with and without a Content-Length."""
    run = register(server, run_id)
    bomb = zstandard.ZstdCompressor(level=19).compress(b"\0" * (600 << 20))
    assert len(bomb) < 1 << 20
    answer = server.api("POST", f"{run}/records/w?first=1&before={EMPTY}", bomb, chunked=chunked)
    assert is_no(answer, 413)
    noise = random.Random(1).randbytes(18 << 20)
    try:
        large = server.api("POST", f"{run}/records/w?first=1&before={EMPTY}", noise, chunked=chunked)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has said no and closed before it was sent all
    else:
        assert is_no(large, 413)
    assert server.get("/healthz").status == 200


@pytest.mark.parametrize("body", [b"no zstd", b"\x28\xb5\x2f\xfd", zstd(b"x" * 1000)[:-5], b"\x28\xb5\x2f\xfd" * 1000])
def test_bodies_that_are_no_zstd(server: Server, run_id: str, body: bytes) -> None:
    """422, also for a frame that breaks off."""
    run = register(server, run_id)
    assert is_no(server.api("POST", f"{run}/records/w?first=1&before={EMPTY}", body), 422)


ODD_RECORDS: list[bytes] = [
    b'{"seq":2,"t":1.000000,"kind":"log","step":9223372036854775807,"data":{"a":1}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":18446744073709551615,"data":{"a":1}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":-9223372036854775808,"data":{"a":1}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":9223372036854775806,"data":{"a":1}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":1.5,"data":{"a":1}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":"x","data":{"a":1}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":3,"data":[1,2]',
    b'{"seq":2,"t":1.000000,"kind":"log","step":3,"data":{"a":{"b":[1,{"c":null}]}}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":3,"data":{"a":18446744073709551615,"b":-9223372036854775808}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":3,"data":{"a":123456789012345678901234567890}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":3,"data":{"a":"NaN"},"nonfinite":["a","a.b","",5,"b"]',
    b'{"seq":2,"t":1.000000,"kind":"log","step":3,"data":{"":1,"a\\u0000b":2}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":3,"data":{"a":"\\ud800"}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":3,"data":{"a":1,"a":2}',
    b'{"seq":2,"t":1.000000,"kind":"log","step":3',
    b'{"seq":2,"t":1.000000,"kind":"log","step":3,"data":{"a":%s1%s}' % (b"[" * 300, b"]" * 300),
    b'{"seq":2,"t":1.000000,"kind":"config","data":{"a":%s1%s}' % (b'{"b":' * 900, b"}" * 900),
    b'{"seq":2,"t":1.000000,"kind":"config","data":{"a":%s1%s},"nonfinite":["a%s"]'
    % (b'{"b":' * 900, b"}" * 900, b".b" * 900),
    b'{"seq":2,"t":1.000000,"kind":"run","data":{"name":5,"tags":7,"command":{"a":1},"config":[],"parents":{"x":"y"}}',
    b'{"seq":2,"t":1.000000,"kind":"run","data":{"name":"n","tags":[1,null,"t"],"command":[1,{}],"host":"%s"}'
    % (b"h" * 50_000),
    b'{"seq":2,"t":1.000000,"kind":"finish","data":{"state":["x"],"exit_code":"y","error":1,"closes_run":0}',
    b'{"seq":2,"t":1.000000,"kind":"media","step":1,"data":{"a":[1,null,{"path":7}],"b":{"path":"../../x","size":-1}}',
    b'{"seq":2,"t":1.000000,"kind":"media","data":{"a":{"type":"image"}}',
    b'{"seq":2,"t":1.000000,"kind":"artifact","data":{"action":"log","name":7,"manifest":[]}',
    b'{"seq":2,"t":1.000000,"kind":"never_heard_of","data":{"a":1}',
]


@pytest.mark.parametrize("number", range(len(ODD_RECORDS)))
def test_a_sound_line_is_kept_whatever_it_says(server: Server, run_id: str, number: int) -> None:
    """Its CRC is right, so it is stored as it came; every view of the run still answers, in strict JSON."""
    inside = ODD_RECORDS[number]
    odd = inside + b',"crc":"%08x"}\n' % zlib.crc32(inside)
    run = register(server, run_id)
    assert send(server, run, begin(run_id) + odd + line(3, step=5)).status == 200, inside[:200]
    assert server.journal(run_id) == {"w": begin(run_id) + odd + line(3, step=5)}
    for view in (
        "",
        "/metrics",
        "/series?metric=a",
        "/series?metric=a&points=1",
        "/history",
        "/media",
        "/artifacts",
        "/receipt",
    ):
        answer = server.api("GET", run + view)
        assert answer.status == 200, (view, answer)
        answer.json()
    assert server.api("GET", "projects/admin/p/runs?limit=1000").status == 200
    assert server.api("GET", "projects").status == 200


@pytest.mark.parametrize("head", [b'"seq":2,"t":%s.000000' % (b"9" * 400), b'"seq":2,"t":-1e300', b'"seq":2,"t":true'])
def test_a_senseless_time_is_refused_or_kept(server: Server, run_id: str, head: bytes) -> None:
    """Whatever the reader makes of such a line: no failure, then or when the run is shown."""
    inside = b'{%b,"kind":"log","data":{"a":1}' % head
    run = register(server, run_id)
    answer = send(server, run, begin(run_id) + inside + b',"crc":"%08x"}\n' % zlib.crc32(inside))
    assert answer.status in (200, 422)
    for view in ("", "/history", "/series?metric=a"):
        assert server.api("GET", run + view).status == 200


def test_metric_names_are_only_names(server: Server, run_id: str) -> None:
    """Quotes, wildcards, slashes, SQL, our own columns' names: each is found again under exactly its name."""
    names = [
        "a'b",
        'a"b',
        "a%",
        "a_",
        "a%b",
        "x; DROP TABLE series;--",
        "train/loss",
        "a.b",
        "é",
        "数",
        " ",
        "\t",
        "\\",
        "NULL",
        "a" * 3000,
    ]
    data: dict[str, Any] = {name: index + 0.5 for index, name in enumerate(names)}
    run = register(server, run_id)
    send(server, run, begin(run_id) + line(2, data={**data, "_step": 77, "_timestamp": 78}, step=4))
    assert {m["name"] for m in server.api("GET", f"{run}/metrics").json()["metrics"]} == set(names)
    for name, value in data.items():
        shown = server.api("GET", f"{run}/series?metric={quote(name, safe='')}").json()
        assert (shown["metric"], shown["steps"], shown["values"]) == (name, [4], [value])
    rows = server.api("GET", f"{run}/history?metric={quote(names[2], safe='')}").json()
    assert list(rows["metrics"]) == ["a%"]
    assert server.api("GET", f"{run}/series?metric=_step").json()["count"] == 0


def test_five_thousand_metrics_in_one_record(server: Server, run_id: str) -> None:
    """Wide records are stored, listed, and read back whole, more than once."""
    data = {f"layer{i}/grad": i / 7 for i in range(5000)}
    run = register(server, run_id)
    assert send(server, run, begin(run_id) + line(2, data=data, step=1)).status == 200
    digest = JournalDigest()
    digest.add(1, begin(run_id))
    digest.add(2, line(2, data=data, step=1))
    assert send(server, run, line(3, data=data, step=2), first=3, before=digest.upto(2)).status == 200
    metrics = server.api("GET", f"{run}/metrics").json()["metrics"]
    assert len(metrics) == 5000 and all(m["count"] == 2 for m in metrics)
    rows = server.api("GET", f"{run}/history").json()
    assert {name: column["values"] for name, column in rows["metrics"].items()} == {n: [v, v] for n, v in data.items()}


@pytest.mark.parametrize(
    "query",
    [
        *("series", "series?metric=a&points=0", "series?metric=a&points=100001", "series?metric=a&from=x"),
        *(f"series?metric=a&{end}={value}" for end in ("from", "to") for value in (2**63, -(2**63) - 1)),
        *(
            "history?limit=0",
            "history?limit=100001",
            f"history?after={2**63 - 1}",
            "history?after=1e5",
            "history?after=",
        ),
    ],
)
def test_questions_that_make_no_sense(server: Server, run_id: str, query: str) -> None:
    """422 with the parameter's name."""
    run = register(server, run_id)
    assert is_no(server.api("GET", f"{run}/{query}"), 422)


# -- files -------------------------------------------------------------------------------------------------------------


def _tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=format) as tar:
        for member, content in members:
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return whole.getvalue()


def _member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", pax: dict[str, str] | None = None
) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.pax_headers = kind, link, pax or {}
    return member


_HASH = hashlib.sha256(b"content").hexdigest()
BAD_PACKS: dict[str, bytes] = {
    "nothing": b"",
    "no tar": b"x" * 4096,
    "an empty tar": _tar(),
    "a wrong hash": _tar((_member("0" * 64), b"content")),
    "no hash": _tar((_member("name"), b"content")),
    "an absolute path": _tar((_member("/etc/passwd"), b"content")),
    "a climbing path": _tar((_member(f"../{_HASH}"), b"content")),
    "an upper-case hash": _tar((_member(_HASH.upper()), b"content")),
    "a symbolic link": _tar((_member(_HASH, tarfile.SYMTYPE, "/etc/passwd"), b"")),
    "a hard link": _tar((_member(_HASH), b"content"), (_member("1" * 64, tarfile.LNKTYPE, _HASH), b"")),
    "a folder": _tar((_member(_HASH, tarfile.DIRTYPE), b"")),
    "a device": _tar((_member(_HASH, tarfile.CHRTYPE), b"")),
    "a pipe": _tar((_member(_HASH, tarfile.FIFOTYPE), b"")),
    "a sparse file": _tar((_member(_HASH, pax={"GNU.sparse.map": "0,7", "GNU.sparse.size": "7"}), b"content")),
    "a senseless sparse map": _tar((_member(_HASH, pax={"GNU.sparse.map": "x,y", "GNU.sparse.size": "7"}), b"content")),
    "a senseless sparse version": _tar(
        (_member(_HASH, pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), b"content")
    ),
    "a senseless size": _tar((_member(_HASH, pax={"size": "-9"}), b"content")),
    "a size without end": _tar((_member(_HASH, pax={"size": "9" * 30}), b"content")),
    "an empty chunk": _tar((_member(hashlib.sha256(b"").hexdigest()), b"")),
    "a chunk of 9 MiB": _tar((_member(hashlib.sha256(b"\0" * (9 << 20)).hexdigest()), b"\0" * (9 << 20))),
    "half a pack": pack_of(b"content" * 1000)[:2000],
    "a compressed tar": zstd(pack_of(b"content")),
}


@pytest.mark.parametrize("what", BAD_PACKS)
def test_a_pack_that_is_not_sound_is_refused_whole(server: Server, run_id: str, what: str) -> None:
    """422 with a sentence; no chunk of it is known afterwards, and no object is left."""
    register(server, run_id, project=run_id)
    before = set(server.data.rglob("*.tar"))
    answer = server.api("POST", f"projects/admin/{run_id}/packs", BAD_PACKS[what])
    assert is_no(answer, 422), (what, answer)
    missing = server.api("POST", f"projects/admin/{run_id}/chunks/missing", {"chunks": [_HASH]}).json()
    assert missing == {"missing": [_HASH]}
    assert set(server.data.rglob("*.tar")) == before and not list(server.data.rglob(".put*"))


def test_packs_with_bytes_changed_anywhere(server: Server, run_id: str) -> None:
    """Seeded noise in a sound pack: stored or refused, never a failure, and what is stored is what its name says."""
    register(server, run_id, project=run_id)
    seed = 20261123
    chance = random.Random(seed)
    chunk = chance.randbytes(3000)
    sound = pack_of(chunk, b"second")
    for turn in range(60):
        raw = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            raw[chance.choice([chance.randrange(512), chance.randrange(len(raw))])] = chance.randrange(256)
        answer = server.api("POST", f"projects/admin/{run_id}/packs", bytes(raw))
        assert answer.status in (200, 422), f"seed {seed}, turn {turn}: {answer}"
    for digest, pack, offset, size in server.query(
        "SELECT c.sha256, p.object, c.offset, c.size FROM chunks c JOIN packs p ON p.id = c.pack_id "
        "JOIN projects j ON j.id = c.project_id WHERE j.name = ?",
        run_id,
    ):
        content = (server.data / "objects" / pack).read_bytes()[offset : offset + size]
        assert hashlib.sha256(content).digest() == digest


def test_a_pack_that_is_too_large(server: Server, run_id: str) -> None:
    """413 while it comes in, not after."""
    register(server, run_id, project=run_id)
    try:
        answer = server.api("POST", f"projects/admin/{run_id}/packs", b"\0" * (73 << 20), chunked=True)
    except (BrokenPipeError, ConnectionResetError):
        return
    assert is_no(answer, 413)


def _file(
    path: object = "media/a.txt", size: object = 7, sha256: object = _HASH, chunks: object = None
) -> dict[str, object]:
    return {"path": path, "size": size, "sha256": sha256, "chunks": [[_HASH, 7]] if chunks is None else chunks}


BAD_CHUNKS: list[object] = [[], [[_HASH]], [[_HASH, "7"]], [["x", 7]], [[_HASH, 0], [_HASH, 7]], {}]
BAD_FILES: list[object] = [
    *(None, 5, [], {}, {"files": 5}, {"files": [5]}, {"files": [{}]}, {"files": {"a": 1}}),
    *({"files": [_file(path=p)]} for p in ("../a", "/a", "a//b", "", "a/../b", "a\\b", "a\0", "x" * 1001, "\ud800", 5)),
    *({"files": [_file(size=s)]} for s in (8, -7, "7", 7.0, True)),
    *({"files": [_file(sha256=h)]} for h in ("0" * 64, "", None, _HASH.upper())),
    *({"files": [_file(chunks=c)]} for c in BAD_CHUNKS),
    {"files": [_file(size=1 << 40, chunks=[[_HASH, 1 << 40]])]},
]


@pytest.mark.parametrize("number", range(len(BAD_FILES)))
def test_files_that_cannot_be_committed(server: Server, run_id: str, number: int) -> None:
    """422 with a sentence, and the run has no file."""
    run = register(server, run_id)
    assert server.api("POST", "projects/admin/p/packs", pack_of(b"content")).status == 200
    body = json.dumps(BAD_FILES[number]).encode()
    assert is_no(server.api("POST", f"{run}/files", body), 422), BAD_FILES[number]
    assert server.api("GET", f"{run}/receipt").json()["files"] == {}


def test_a_chunk_of_another_project_is_missing_here(server: Server, run_id: str) -> None:
    """What exists is told per project: a hash alone does not fetch another's bytes."""
    register(server, run_id, project=f"{run_id}-a")
    run = register(server, run_id, project=f"{run_id}-b")
    chunk = run_id.encode()
    digest = hashlib.sha256(chunk).hexdigest()
    assert server.api("POST", f"projects/admin/{run_id}-a/packs", pack_of(chunk)).status == 200
    named = _file(size=len(chunk), sha256=digest, chunks=[[digest, len(chunk)]])
    answer = server.api("POST", f"{run}/files", {"files": [named]})
    assert is_no(answer, 409) and answer.json()["missing"] == [digest]


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("page.html", "application/octet-stream", "attachment"),
        ("image.svg", "application/octet-stream", "attachment"),
        ("script.js", "application/octet-stream", "attachment"),
        ("doc.pdf", "application/octet-stream", "attachment"),
        ("text.txt", "application/octet-stream", "attachment"),
        ("noend", "application/octet-stream", "attachment"),
        ("photo.png", "image/png", "inline"),
        ("photo.jpeg", "image/jpeg", "inline"),
    ],
)
def test_files_of_runs_cannot_act_in_a_browser(server: Server, run_id: str, name: str, kind: str, shown: str) -> None:
    """Only plain images are shown in place; everything else is a download, under rules that let nothing run."""
    run = register(server, run_id)
    content = f"<script>alert(1)</script>{run_id}".encode()
    digest = hashlib.sha256(content).hexdigest()
    server.api("POST", "projects/admin/p/packs", pack_of(content))
    entry = _file(f"media/{name}", len(content), digest, [[digest, len(content)]])
    assert server.api("POST", f"{run}/files", {"files": [entry]}).status == 200
    answer = server.api("GET", f"{run}/files/media/{name}")
    assert answer.status == 200 and answer.body == content
    assert answer.headers["content-type"].split(";")[0] == kind
    assert answer.headers["content-disposition"].split(";")[0] == shown
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "object-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy and "script-src 'unsafe-inline'" not in policy
    assert "private" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "path", ["../receipt", "media/../../receipt", "/etc/passwd", "%2e%2e/receipt", "%00", "x" * 5000, ""]
)
def test_no_path_of_a_file_leads_elsewhere(server: Server, run_id: str, path: str) -> None:
    """404: paths are keys of a table, never of a file system."""
    run = register(server, run_id)
    answer = server.api("GET", f"{run}/files/{path}")
    assert is_no(answer, 404), answer


def test_manifests_that_cannot_be_committed(server: Server, run_id: str) -> None:
    """404 for no such file, 422 for no manifest, 409 where its files are not here; never a version."""
    run = register(server, run_id)

    def put(path: str, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        assert server.api("POST", "projects/admin/p/packs", pack_of(content)).status == 200
        entry = _file(path, len(content), digest, [[digest, len(content)]])
        assert server.api("POST", f"{run}/files", {"files": [entry]}).status == 200

    def commit(path: str, aliases: object = (), at: object = 1.0) -> int:
        wanted = {"manifest": path, "aliases": aliases, "at": at}
        answer = server.api("POST", f"{run}/manifests", {"artifacts": [wanted]})
        if answer.status != 200:
            assert is_no(answer, answer.status)
            return answer.status
        (said,) = answer.json()["artifacts"]
        return int(said["status"]) if said.get("error") and said["detail"] else 200

    missing = FileEntry("weights.bin", 7, _HASH)
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    manifests = {
        "garbage": (b"{", 422),
        "lacking": (Manifest("model", "model", (missing,)).to_json(), 409),
        "named": (Manifest("a/b", "model", ()).to_json(), 422),
        "typed": (Manifest("model", "", ()).to_json(), 422),
        "long": (Manifest("m" * 200, "model", ()).to_json(), 422),
        "deep": (json.dumps({**json.loads(Manifest("m", "m", ()).to_json()), "metadata": {"a": deep}}).encode(), 422),
    }
    for name, (content, status) in manifests.items():
        put(f"artifacts/{name}/v0/manifest.json", content)
        assert commit(f"artifacts/{name}/v0/manifest.json") == status, name
    assert commit("artifacts/none/v0/manifest.json") == 404
    assert commit("../manifest.json") == 422
    put("artifacts/good/v0/manifest.json", Manifest("good", "model", ()).to_json())
    for aliases, at in ((["a/b"], 1.0), ("latest", 1.0), ([5], 1.0), (["x"] * 1001, 1.0), ([], -1), ([], float("nan"))):
        assert commit("artifacts/good/v0/manifest.json", aliases, at) == 422, (aliases, at)
    assert server.api("GET", f"{run}/artifacts").json() == {"artifacts": []}
    assert commit("artifacts/good/v0/manifest.json", ["latest"]) == 200
    assert len(server.api("GET", f"{run}/artifacts").json()["artifacts"]) == 1


def test_the_database_is_whole_after_all_this(server: Server) -> None:
    """SQLite's own check, and no key of a row that is not there."""
    with sqlite3.connect(server.data / "flightlog.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
