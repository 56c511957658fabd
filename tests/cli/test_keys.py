"""API keys: where they are kept, which goes where, what is said of one that is over, where none is ever seen."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import keyring.errors
import pytest

from flightlog import keychain

from ..server.tools import Command, Proxy, Server, command, environment, on_terminal, proxied, quick, run_dir
from ..server.tools import flightlog as separate
from .tools import recorded

BACKEND = """
    import json, os, pathlib
    from keyring.backend import KeyringBackend

    class Keyring(KeyringBackend):
        priority = 5
        name = "a keyring of the test's"

        def _all(self):
            path = pathlib.Path(os.environ["TEST_KEYRING"])
            return path, json.loads(path.read_text()) if path.exists() else {}

        def get_password(self, service, username):
            return self._all()[1].get(f"{service} {username}")

        def set_password(self, service, username, password):
            path, known = self._all()
            path.write_text(json.dumps({**known, f"{service} {username}": password}))

        def delete_password(self, service, username):
            path, known = self._all()
            known.pop(f"{service} {username}")
            path.write_text(json.dumps(known))
"""


@pytest.fixture
def with_keyring(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has a keyring: a backend of the real library, which keeps to a file."""
    folder = tmp_path / "backends"
    folder.mkdir()
    (folder / "filed.py").write_text(textwrap.dedent(BACKEND))
    return {
        "PYTHONPATH": os.pathsep.join([*environment(tmp_path)["PYTHONPATH"].split(os.pathsep), str(folder)]),
        "PYTHON_KEYRING_BACKEND": "filed.Keyring",
        "TEST_KEYRING": str(tmp_path / "keyring.json"),
    }


def credentials(home: Path) -> Path:
    return home / ".config" / "flightlog" / "credentials.json"


def test_a_key_goes_into_the_keyring_where_there_is_one(
    server: Server, home: Path, place: Path, run_id: str, with_keyring: dict[str, str]
) -> None:
    """login puts it there and nowhere else; sync and whoami take it from there; logout takes it away."""
    run_dir(place / "run-x", run_id)
    said = separate("login", server.url, "--key", "-", home=home, stdin=server.key + "\n", **with_keyring)
    assert said.code == 0 and "in the keyring" in said.out, said
    secret = server.key.rpartition("_")[2]
    assert secret not in credentials(home).read_text()
    assert server.key in Path(with_keyring["TEST_KEYRING"]).read_text()
    assert separate("sync", place, home=home, **with_keyring).code == 0
    assert "admin" in separate("whoami", home=home, **with_keyring).out
    gone = separate("sync", place, "--include-synced", home=home)  # the same home, seen from a machine without it
    assert gone.code == 2 and "keyring" in gone.err and "--no-keyring" in gone.err, gone
    assert separate("logout", home=home, **with_keyring).code == 0
    assert "{}" in Path(with_keyring["TEST_KEYRING"]).read_text()


@pytest.mark.parametrize("named", ["variable", "settings", None])
def test_a_backend_of_plain_files_is_used_where_it_is_named(
    server: Server, home: Path, with_keyring: dict[str, str], named: str | None
) -> None:
    """keyrings.alt has such ones, of a low priority: never by themselves, but whoever asks for one gets it."""
    folder = Path(with_keyring["PYTHONPATH"].rpartition(os.pathsep)[2])
    (folder / "filed.py").write_text(textwrap.dedent(BACKEND).replace("priority = 5", "priority = 0.5"))
    (folder / "plain-1.dist-info").mkdir()
    (folder / "plain-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plain\nVersion: 1\n")
    (folder / "plain-1.dist-info" / "entry_points.txt").write_text("[keyring.backends]\nplain = filed\n")
    if named != "variable":
        del with_keyring["PYTHON_KEYRING_BACKEND"]
    if named == "settings":
        place = home / ".config" / "python_keyring" / "keyringrc.cfg"
        place.parent.mkdir(parents=True)
        place.write_text("[backend]\ndefault-keyring=filed.Keyring\n")
    said = separate("login", server.url, "--key", "-", home=home, stdin=server.key + "\n", **with_keyring)
    assert said.code == 0 and ("in the keyring" in said.out) is (named is not None), said
    assert (server.key in credentials(home).read_text()) is (named is None)
    assert separate("whoami", home=home, **with_keyring).code == 0


def test_a_key_is_kept_in_a_file_where_that_is_wanted_or_nothing_else_is_there(
    server: Server, home: Path, with_keyring: dict[str, str]
) -> None:
    """--no-keyring, and keyring's null and fail backends: a file for its owner alone, and the keyring's copy goes."""
    words = ("login", server.url, "--key", "-")
    assert separate(*words, home=home, stdin=server.key, **with_keyring).code == 0
    said = separate(*words, "--no-keyring", home=home, stdin=server.key, **with_keyring)
    assert said.code == 0 and "credentials.json" in said.out, said
    assert (
        server.key in credentials(home).read_text() and server.key not in Path(with_keyring["TEST_KEYRING"]).read_text()
    )
    for backend in ("keyring.backends.null.Keyring", "keyring.backends.fail.Keyring", "no.such.Backend"):
        credentials(home).unlink()
        said = separate(*words, home=home, stdin=server.key, PYTHON_KEYRING_BACKEND=backend)
        assert said.code == 0 and "credentials.json" in said.out, (backend, said)
        assert credentials(home).stat().st_mode & 0o777 == 0o600


class Stubborn(keyring.backend.KeyringBackend):
    """A keyring that is locked: it waits for a password that nobody types, or says so."""

    priority = 5  # type: ignore[assignment]
    waits = True

    def _locked(self) -> None:
        if self.waits:
            time.sleep(3)
        raise keyring.errors.KeyringLocked(f"locked; the key was {os.environ.get('FLIGHTLOG_API_KEY')}")

    def get_password(self, service: str, username: str) -> str | None:
        self._locked()
        return None

    def set_password(self, service: str, username: str, password: str) -> None:
        self._locked()

    def delete_password(self, service: str, username: str) -> None:
        self._locked()


@pytest.fixture(params=[True, False], ids=["waits", "refuses"])
def locked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A keyring that is locked, and little patience with it."""
    before = keyring.get_keyring()
    backend = Stubborn()
    backend.waits = request.param
    keyring.set_keyring(backend)
    monkeypatch.setattr(keychain, "_SECONDS", 0.3)
    yield
    keyring.set_keyring(before)


def test_a_locked_keyring_holds_nothing_up(server: Server, home: Path, place: Path, run_id: str, locked: None) -> None:
    """login keeps the key in the file; a key that is in there is said to be; FLIGHTLOG_API_KEY needs no look at it."""
    run_dir(place / "run-x", run_id)
    began = time.monotonic()
    said = quick("login", server.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 0 and "credentials.json" in said.out, said
    credentials(home).write_text(json.dumps({"servers": {server.url: {"keyring": True}}, "default": server.url}))
    for words in (("sync", place), ("whoami",)):
        said = quick(*words, home=home)
        assert said.code == 2 and "unlock it" in said.err and said.err.count("\n") == 1, said
    assert "unlock it" in json.loads(quick("status", place, "--json", home=home).out)["blocked"]
    said = quick("logout", home=home)
    assert said.code == 1 and "still holds it" in said.err and server.url not in credentials(home).read_text(), said
    assert quick("sync", place, "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key).code == 0
    assert time.monotonic() - began < 30


def test_a_key_on_the_command_line_is_refused_and_not_repeated(server: Server, home: Path) -> None:
    """`--key VALUE` is status 2 with the advice to use `-`; the value is in no output and nothing is kept."""
    for words in (("--key", server.key), (f"--key={server.key}",)):
        said = quick("login", server.url, *words, home=home)
        assert said.code == 2 and "--key -" in said.err and server.key not in said.err + said.out, said
    assert not credentials(home).exists()


def test_the_prompt_takes_a_key_unseen_and_a_wrong_one_is_not_kept(server: Server, home: Path) -> None:
    """On a terminal the key is typed without an echo, proven, and kept; a wrong one is said, an empty one too."""
    env = environment(home, PYTHON_KEYRING_BACKEND="keyring.backends.null.Keyring", TERM="xterm")
    for typed, code in ((server.key, 0), ("fl_00000000_wrongwrong", 2), ("", 2)):
        said = on_terminal(command("login", server.url), env, home, {"API key for": typed})
        assert said.code == code and (not typed or typed not in said.out), said
    assert server.key in credentials(home).read_text()


def test_ctrl_c_at_the_prompt_is_an_interruption(server: Server, home: Path) -> None:
    """Typed at a real terminal: status 130, as everywhere, and no traceback."""
    pid, terminal = pty.fork()
    if pid == 0:
        words = command("login", server.url)
        os.execvpe(words[0], words, environment(home, TERM="xterm"))
    shown = b""
    with contextlib.suppress(OSError):  # Linux: the other side is closed
        while part := os.read(terminal, 1000):
            shown += part
            if shown.endswith(b": "):
                os.write(terminal, b"\x03")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130, shown
    assert b"interrupted" in shown and b"Traceback" not in shown, shown
    assert not credentials(home).exists()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"servers": []}', '{"servers": {"http://x": 7}}', '{"servers": {}, "default": 3}']
)
def test_a_file_of_keys_that_makes_no_sense_is_named(home: Path, content: str) -> None:
    """Whichever command reads it says which file it is and what to do, status 2."""
    credentials(home).parent.mkdir(parents=True)
    credentials(home).write_text(content)
    for words in (("whoami",), ("logout",), ("status",), ("mode",)):
        said = quick(*words, home=home)
        told = said.out if words == ("mode",) else said.err
        assert f"{credentials(home)} is damaged; remove it" in told, (words, said)
        assert said.code == (0 if words == ("mode",) else 2), (words, said)


def test_several_servers_stand_side_by_side(server: Server, home: Path, place: Path, run_id: str) -> None:
    """Two logins: each server gets its own key, the last one is used, whoami shows both, logout takes one."""
    key = server.create_user(f"other-{run_id}")
    run_dir(place / "run-x", run_id)
    with proxied(server) as proxy:
        assert quick("login", proxy.url, home=home, FLIGHTLOG_API_KEY=key).code == 0
        assert quick("login", server.url, home=home, FLIGHTLOG_API_KEY=server.key).code == 0
        said = quick("whoami", home=home)
        assert (
            said.code == 0 and f"* admin at {server.url}" in said.out and f"other-{run_id} at {proxy.url}" in said.out
        )
        found = json.loads(quick("whoami", "--json", home=home).out)["servers"]
        assert [(s["server"], s["in_use"]) for s in found] == [(server.url, True), (proxy.url, False)]
        assert server.key not in str(found) and key not in str(found)
        assert quick("sync", place, "--server", proxy.url, home=home).code == 0
        owner = "SELECT u.name FROM runs r JOIN users u ON u.id = r.owner_id WHERE r.run_id = ?"
        assert server.query(owner, run_id) == [(f"other-{run_id}",)]
        assert quick("logout", server.url, home=home).code == 0
        assert proxy.url in quick("whoami", home=home).out, "what is left is used"
        (one,) = json.loads(quick("whoami", server.url, "--json", home=home).out)["servers"]
        assert "no API key" in one["error"]
    away = quick("whoami", home=home)
    assert away.code == 1 and "cannot be reached" in away.err, away


# -- keys that are over ------------------------------------------------------------------------------------------------


@pytest.fixture
def of_all_kinds(server: Server, home: Path) -> dict[str, str]:
    """Keys of the admin: expired, revoked, read-only, and one that is none."""

    def made(*words: str) -> str:
        said = quick("server", "create-key", "admin", *words, "--json", "--data", server.data, home=home)
        assert said.code == 0, said
        return str(json.loads(said.out)["api_key"])

    keys = {"expired": made("--expires", "1h"), "revoked": made(), "read-only": made("--read-only")}
    hint = keys["expired"].rpartition("_")[0]
    server.execute("UPDATE api_keys SET expires_at = 1 WHERE hint = ?", hint)
    hint = keys["revoked"].rpartition("_")[0]
    assert quick("server", "revoke-key", hint, "--data", server.data, home=home).code == 0
    return {**keys, "unknown": "fl_00000000_nobodys"}


@pytest.mark.parametrize(
    ("kind", "status", "code", "words"),
    [
        ("expired", 401, "key_expired", "expired on 1970-01-01"),
        ("revoked", 401, "key_revoked", "was revoked on 20"),
        ("unknown", 401, "key_unknown", "no account here has it"),
        ("read-only", 403, "read_only", "for reading only"),
    ],
)
def test_each_key_that_will_not_do_is_told_in_its_own_words(
    server: Server,
    home: Path,
    place: Path,
    run_id: str,
    of_all_kinds: dict[str, str],
    kind: str,
    status: int,
    code: str,
    words: str,
) -> None:
    """The API has a code for each, sync one line and status 2, and nothing is sent; a session ends as its key does."""
    key = of_all_kinds[kind]
    for number in range(2):
        run_dir(place / f"run-{number}", f"{run_id}{number}")
    answer = server.api("PUT", f"runs/admin/p/{run_id}0", {"alive": False}, key=key)
    assert (answer.status, answer.json()["error"]) == (status, code), answer
    said = quick("sync", place, "--server", server.url, home=home, FLIGHTLOG_API_KEY=key)
    assert said.code == 2 and words in said.err and said.err.count("\n") == 1, said
    assert key not in said.err + said.out
    assert server.query("SELECT count(*) FROM runs WHERE run_id LIKE ?", f"{run_id}%") == [(0,)]
    login = quick("login", server.url, home=home, FLIGHTLOG_API_KEY=key)
    assert login.code == (0 if kind == "read-only" else 2), login


def test_a_read_only_key_reads_and_its_session_cannot_write(
    server: Server, home: Path, of_all_kinds: dict[str, str]
) -> None:
    """It sees what its account sees; whoami says what it is; the page's session of it may sign out and no more."""
    key = of_all_kinds["read-only"]
    assert server.api("GET", "projects", key=key).status == 200
    (shown,) = json.loads(quick("whoami", server.url, "--json", home=home, FLIGHTLOG_API_KEY=key).out)["servers"]
    assert shown["may_write"] is False
    assert "for reading only" in quick("whoami", server.url, home=home, FLIGHTLOG_API_KEY=key).out
    signed = server.ask(
        "POST", "/api/v1/session", json.dumps({"api_key": key}).encode(), headers={"Content-Type": "application/json"}
    )
    assert signed.status == 200, signed
    cookie = {"Cookie": signed.headers["set-cookie"].partition(";")[0], "X-Flightlog": "1"}
    body = {**cookie, "Content-Type": "application/json"}
    refused = server.ask("PUT", "/api/v1/runs/admin/p/x", b'{"alive":false}', headers=body)
    assert (refused.status, refused.json()["error"]) == (403, "read_only")
    assert server.ask("GET", "/api/v1/me", headers=cookie).status == 200
    server.execute("UPDATE api_keys SET expires_at = 1 WHERE hint = ?", key.rpartition("_")[0])
    assert server.ask("GET", "/api/v1/me", headers=cookie).status == 401, "the session ended with its key"


def test_keys_are_listed_and_revoked_by_their_public_beginning(
    server: Server, home: Path, of_all_kinds: dict[str, str]
) -> None:
    """list-keys shows no key; revoke-key takes the beginning, or a whole key of which it repeats no more than that."""
    data = ("--data", server.data)
    said = quick("server", "list-keys", "admin", *data, home=home)
    assert "expired" in said.out and "revoked" in said.out and "read-only" in said.out, said
    assert not [key for key in (*of_all_kinds.values(), server.key) if key in said.out]
    states = {
        k["hint"]: k["state"] for k in json.loads(quick("server", "list-keys", "--json", *data, home=home).out)["keys"]
    }
    assert states[of_all_kinds["expired"].rpartition("_")[0]] == "expired"
    key = of_all_kinds["read-only"]
    said = quick("server", "revoke-key", key, *data, home=home)
    assert said.code == 0 and key not in said.out and "is revoked" in said.out, said
    assert server.api("GET", "me", key=key).json()["error"] == "key_revoked"
    for words in (("revoke-key", "fl_nothing"), ("create-key", "nobody"), ("list-keys", "nobody")):
        said = quick("server", *words, *data, home=home)
        assert said.code == 2 and said.err.count("\n") == 1, said
    assert quick("server", "create-key", "admin", "--expires", "soon", *data, home=home).code == 2


# -- bound to their server ---------------------------------------------------------------------------------------------


def heard(proxy: Proxy, key: str) -> bool:
    """Tell whether a key came by, in anything but a request without sign-in."""
    return any("/me" in seen or "/runs" in seen for seen in proxy.seen) or key in str(proxy.seen)


@pytest.mark.parametrize(
    "words", [("sync",), ("sync", "--dry-run"), ("clean",), ("status", "--ask"), ("whoami",), ("receipt",), ("login",)]
)
def test_a_cloned_project_file_harvests_no_key_by_any_verb(
    server: Server, home: Path, place: Path, run_id: str, words: tuple[str, ...]
) -> None:
    """A flightlog.toml of somebody else's names his server: neither FLIGHTLOG_API_KEY nor a stored key goes there."""
    recorded(place / "flightlog", run_id)
    assert quick("login", server.url, home=home, FLIGHTLOG_API_KEY=server.key).code == 0
    if words == ("receipt",):
        words = ("receipt", "export", "-o", str(place / "r.json"))
    with proxied(server) as proxy:
        (place / "flightlog.toml").write_text(f'base_url = "{proxy.url}"\n')
        for more in ({}, {"FLIGHTLOG_API_KEY": server.key}):
            said = quick(*words, home=home, cwd=place, **more)
            assert not heard(proxy, server.key), (words, said, proxy.seen)
            assert server.key not in said.out + said.err


def test_a_netrc_neither_replaces_nor_lends_a_key(server: Server, home: Path, place: Path, run_id: str) -> None:
    """What goes over the wire is our key, also with a ~/.netrc that names the server and with NETRC set."""
    run_dir(place / "run-x", run_id)
    other = server.create_user(f"netrc-{run_id}")
    lines = f"machine 127.0.0.1 login x password {other}\nmachine localhost login x password {other}\n"
    (home / ".netrc").write_text(lines)
    (home / ".netrc").chmod(0o600)
    netrc = {"NETRC": str(home / ".netrc")}
    said = separate("sync", place, "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key, **netrc)
    assert said.code == 0, said
    owner = "SELECT u.name FROM runs r JOIN users u ON u.id = r.owner_id WHERE r.run_id = ?"
    assert server.query(owner, run_id) == [("admin",)]
    for words in (("sync", place, "--include-synced"), ("whoami",), ("clean", place)):
        said = quick(*words, home=home, FLIGHTLOG_BASE_URL=server.url, **netrc)
        assert "no API key" in said.err and said.code in (0, 2), said


def test_a_password_in_an_address_is_not_repeated(home: Path, place: Path, run_id: str) -> None:
    """An address with a user and a password is refused without them in the text."""
    recorded(place, run_id)
    for url in (
        "https://user:hunter2@example.org",
        "https://user:hunter2@example.org/path",
        "https://user:/hunter2@example.org",
        "https://:hunter2@example.org",
        "user:hunter2?@example.org",
    ):
        said = quick("sync", place, "--server", url, home=home, FLIGHTLOG_API_KEY="fl_00000000_x")
        assert said.code == 1 and "hunter2" not in said.err + said.out and "example.org" in said.err, said


def test_a_key_in_the_place_of_an_address_is_not_repeated_nor_looked_up(home: Path, place: Path, run_id: str) -> None:
    """FLIGHTLOG_BASE_URL and FLIGHTLOG_API_KEY exchanged: what it should be is said, by sync and by a training."""
    recorded(place, run_id)
    for url in ("fl_0123abcd_hunter2hunter2", "https://fl_0123abcd_hunter2hunter2"):
        said = quick("sync", place, home=home, FLIGHTLOG_BASE_URL=url)
        assert said.code == 1 and "hunter2" not in said.err and "address" in said.err, said
        more = {"FLIGHTLOG_BASE_URL": url, "FLIGHTLOG_API_KEY": "https://example.org", "FLIGHTLOG_DIR": str(place)}
        words = [sys.executable, "-c", "import flightlog; flightlog.init(); flightlog.finish()"]
        done = subprocess.run(words, env=environment(home, **more), cwd=home, capture_output=True, text=True)
        assert "hunter2" not in done.stderr and "recorded offline" in done.stderr and done.returncode == 0, done


def test_what_a_training_says_shows_no_key(capfd: pytest.CaptureFixture[str]) -> None:
    """A server's error that repeats the key, say, as its follower leaves it for the training."""
    from flightlog.terminal import say

    say("warning: refused: Bearer fl_0123abcd_SecretSecretSecret")
    assert "Secret" not in capfd.readouterr().err


# -- never seen --------------------------------------------------------------------------------------------------------


def test_a_key_is_in_no_process_list_log_run_directory_or_output(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """Every process of a sync is looked at while it runs; afterwards everything that was printed and written."""
    recorded(place / "flightlog", run_id, size=400_000)
    secret = server.key.rpartition("_")[2]
    env = environment(home, FLIGHTLOG_API_KEY=server.key)
    running = Command(command("sync", place, "--server", server.url, "--bandwidth", "300k"), env)
    lines = set()
    while running.process.poll() is None:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.add(process.read_bytes())
            except OSError:
                continue
        time.sleep(0.02)
    said = running.wait()
    running.close()
    assert said.code == 0 and any(b"--bandwidth" in words for words in lines), said
    assert not [words for words in lines if secret.encode() in words]
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}
    out = said.out + said.err
    target = place / "b.tar"
    for words in (
        ("status", place, "--json"),
        ("pack", place, "-o", target, "--include-synced"),
        ("sync", target, "--json"),
        ("receipt", "export", target, "-o", place / "r.json"),
        ("whoami", "--json"),
        ("clean", place, "--json"),
    ):
        done = quick(*words, home=home, **key)
        assert done.code == 0, done
        out += done.out + done.err
    assert secret not in out and secret not in server.stderr
    for folder in (place, home):
        for path in folder.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_an_error_that_names_a_key_shows_its_beginning_alone(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Should a key get into the text of an error, a server's say, what is printed has its public beginning."""
    from flightlog.terminal import without_keys

    said = without_keys("refused: Bearer fl_0123abcd_SecretSecretSecret is wrong (fl_0123abcd)")
    assert said == "refused: Bearer fl_0123abcd_… is wrong (fl_0123abcd)"
    script = textwrap.dedent(
        """
        import sys
        from flightlog import cli, errors
        def fail(*a, **k): raise errors.PermanentError("no: fl_0123abcd_SecretSecretSecret")
        cli.cli.main = fail
        cli.main(["status"])
        """
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(home), capture_output=True, text=True)
    assert done.returncode == 1 and "Secret" not in done.stderr and "fl_0123abcd_…" in done.stderr, done
