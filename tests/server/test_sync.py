"""`flightlog sync`, as a user meets it: which runs, which key, what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from flightlog.rundir import RunDir
from flightlog.sync import state

from .tools import (
    Server,
    add_media,
    begin,
    command,
    environment,
    flightlog,
    line,
    local_journal,
    logs,
    on_terminal,
    quick,
    run_dir,
)

SCRIPT = """
    import flightlog, sys
    for project in ("digits", "digits", "words"):
        with flightlog.init(project=project, config={"lr": 0.1}) as run:
            for i in range(20):
                run.log({"loss": 1 / (i + 1)})
"""


def record_runs(folder: Path, home: Path, script: str = SCRIPT) -> list[Path]:
    """Record runs with a real training script."""
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=folder,
        env=environment(home),
        check=True,
        capture_output=True,
    )
    return sorted((folder / "flightlog").glob("run-*"))


def test_all_pending_runs_below_the_working_directory_are_delivered_and_then_nothing_is_sent(
    own_server: Server, place: Path, home: Path
) -> None:
    """The whole way with real processes: record, sync, compare line for line, sync again."""
    recorded = record_runs(place, home)
    said = flightlog("sync", "--server", own_server.url, home=home, cwd=place, FLIGHTLOG_API_KEY=own_server.key)
    assert said.code == 0, said
    assert said.out.count("delivered  ") == 3 and "3 delivered" in said.out and said.err == ""
    assert "\x1b" not in said.out, "plain lines where there is no terminal"
    for directory in recorded:
        run = json.loads((directory / "latest.spec").read_bytes())["id"]
        assert own_server.journal(run) == local_journal(directory)
    before = own_server.query("SELECT run_id, version, records FROM runs ORDER BY run_id")
    again = flightlog("sync", "--server", own_server.url, home=home, cwd=place, FLIGHTLOG_API_KEY=own_server.key)
    assert again.code == 0 and "nothing to sync" in again.out, again
    assert own_server.query("SELECT run_id, version, records FROM runs ORDER BY run_id") == before


def test_a_path_means_that_run_or_those_below_it(server: Server, place: Path, home: Path, run_id: str) -> None:
    """A run directory is one run, a folder all below it; the links `latest` and `latest.spec` lead to a run."""
    run_dir(place / "a" / "run-1", f"{run_id}-1")
    run_dir(place / "b" / "run-2", f"{run_id}-2")
    run_dir(place / "b" / "deep" / "run-3", f"{run_id}-3")
    (place / "latest").symlink_to("a/run-1")
    (place / "latest.spec").symlink_to("latest/latest.spec")
    for link in ("latest", "latest.spec"):
        assert [r["id"] for r in server.sync(place / link, home=home).runs] == [f"{run_id}-1"]
    below = server.sync(place / "b", home=home)
    assert {r["id"] for r in below.runs} == {f"{run_id}-2", f"{run_id}-3"}
    everything = server.sync(place, home=home)
    assert [r["status"] for r in everything.runs] == ["up_to_date"] * 3
    assert all(r["id"] and r["project"] == "p" for r in everything.runs)


@pytest.mark.parametrize("kind", ["file", "folder", "missing", "inside", "circle"])
def test_a_path_that_is_no_run_is_said_and_nothing_is_sent(
    server: Server, place: Path, home: Path, run_id: str, kind: str
) -> None:
    """Exit status 2, one line naming the path, also when another path is a run."""
    run = run_dir(place / "run-x", run_id)
    (place / "file").write_text("no run")
    (place / "folder").mkdir()
    (place / "circle").symlink_to("circle")
    path = {"inside": run / "files" / "journal"}.get(kind, place / kind)
    said = server.sync(run, path, home=home)
    assert said.code == 2, said
    assert said.err.count("\n") == 1 and str(path) in said.err
    assert server.query("SELECT count(*) FROM runs WHERE run_id = ?", run_id) == [(0,)]


def test_without_any_run_sync_says_so_and_is_content(server: Server, place: Path, home: Path) -> None:
    """An empty folder is nothing wrong, and no server is needed to say so."""
    said = quick("sync", "--server", "http://127.0.0.1:9", home=home, cwd=place)
    assert said.code == 0 and "no runs" in said.out
    assert quick("sync", "--json", home=home, cwd=place).runs == []


# -- keys --------------------------------------------------------------------------------------------------------------


def test_without_a_key_and_without_a_terminal_it_ends_with_one_clear_line(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """Exit status 2, at once, naming the variable and the command that help."""
    run_dir(place / "run-x", run_id)
    began = time.monotonic()
    said = flightlog("sync", place, "--server", server.url, home=home)
    assert said.code == 2 and time.monotonic() - began < 15, said
    assert said.out == "" and said.err.count("\n") == 1
    assert "FLIGHTLOG_API_KEY" in said.err and f"flightlog login {server.url}" in said.err


@pytest.mark.parametrize("key", ["fl_00000000_wrong", "x", "fl_é", "a b"])
def test_a_wrong_key_is_said_once_and_nothing_is_marked_synced(
    server: Server, place: Path, home: Path, run_id: str, key: str
) -> None:
    """Exit status 2 whatever the key looks like; the run stays pending and the key is not shown."""
    run = run_dir(place / "run-x", run_id)
    said = quick("sync", place, "--server", server.url, home=home, FLIGHTLOG_API_KEY=key)
    assert said.code == 2 and said.err.count("\n") == 1 and key not in said.err.split(), said
    assert not (run / "sync.json").exists()


def test_the_key_is_taken_from_the_environment_before_the_stored_login(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """A run belongs to the account of the key that was in force."""
    first, second = (server.create_user(f"{name}-{run_id}") for name in ("stored", "env"))
    assert quick("login", server.url, home=home, FLIGHTLOG_API_KEY=first).code == 0
    run_dir(place / "run-1", f"{run_id}-1")
    assert quick("sync", place, home=home).code == 0
    run_dir(place / "run-2", f"{run_id}-2")
    assert quick("sync", place, home=home, FLIGHTLOG_API_KEY=second).code == 0
    owners = "SELECT r.run_id, u.name FROM runs r JOIN users u ON u.id = r.owner_id WHERE r.run_id LIKE ? ORDER BY 1"
    assert server.query(owners, f"{run_id}%") == [
        (f"{run_id}-1", f"stored-{run_id}"),
        (f"{run_id}-2", f"env-{run_id}"),
    ]


def test_login_logout_whoami(server: Server, home: Path, run_id: str) -> None:
    """login proves the key, keeps it for its owner's eyes only, and makes the server the one that is used."""
    key = server.create_user(run_id)
    wrong = quick("login", server.url, home=home, FLIGHTLOG_API_KEY="fl_00000000_wrong")
    credentials = home / ".config" / "flightlog" / "credentials.json"
    assert wrong.code == 2 and not credentials.exists()
    piped = flightlog("login", server.url, "--key", "-", home=home, stdin=f"{key}\n")
    assert piped.code == 0 and run_id in piped.out and key not in piped.out + piped.err, piped
    assert credentials.stat().st_mode & 0o777 == 0o600
    assert credentials.parent.stat().st_mode & 0o077 == 0
    assert json.loads(quick("whoami", "--json", home=home).out)["servers"][0]["user"]["name"] == run_id
    assert run_id in quick("whoami", home=home).out
    assert "signed out" in quick("logout", home=home).out
    assert key not in credentials.read_text()
    assert quick("whoami", "--server", server.url, home=home).code == 2
    assert quick("logout", server.url, home=home).code == 0


def test_damaged_credentials_are_named(server: Server, place: Path, home: Path, run_id: str) -> None:
    """A credentials file that is no JSON is one line and exit status 2, not a traceback."""
    run_dir(place / "run-x", run_id)
    credentials = home / ".config" / "flightlog" / "credentials.json"
    credentials.parent.mkdir(parents=True)
    credentials.write_text("{oh")
    said = quick("sync", place, home=home)
    assert said.code == 2 and str(credentials) in said.err and said.err.count("\n") == 1


def test_the_key_is_asked_for_at_a_terminal_and_the_progress_is_drawn_there(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """On a pty the key is typed unseen, a bar is drawn, and the key is neither shown nor kept in the run."""
    run = run_dir(place / "run-x", run_id)
    add_media(run, "large.bin", os.urandom(3 << 20))
    words = command("sync", place, "--server", server.url)
    said = on_terminal(words, environment(home, TERM="xterm-256color"), home, {"API key": server.key})
    assert said.code == 0, said
    assert "\x1b[" in said.out and "━" in said.out, "a bar, drawn with escape sequences"
    assert "delivered" in said.out and server.key not in said.out
    for path in run.rglob("*"):
        assert not path.is_file() or server.key.encode() not in path.read_bytes()


def test_a_name_cannot_act_on_the_terminal(server: Server, place: Path, home: Path, run_id: str) -> None:
    """Escape sequences in a run's name are not passed on."""
    run_dir(place / "run-x", run_id, spec={"name": "\x1b]0;owned\x07[bold]x"})
    words = command("sync", place, "--server", server.url)
    said = on_terminal(words, environment(home, TERM="xterm", FLIGHTLOG_API_KEY=server.key), home)
    assert said.code == 0 and "\x1b]0;" not in said.out and "\x07" not in said.out


def test_a_server_that_a_project_file_names_does_not_get_the_key_unasked(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """An address from flightlog.toml never receives FLIGHTLOG_API_KEY; a stored login for it is used instead."""
    run_dir(place / "run-x", run_id)
    (place / "flightlog.toml").write_text(f'base_url = "{server.url}"\n')
    said = quick("sync", home=home, cwd=place, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 2 and "flightlog.toml" in said.err and said.err.count("\n") == 1, said
    assert server.query("SELECT count(*) FROM runs WHERE run_id = ?", run_id) == [(0,)]
    key = server.create_user(run_id)
    assert quick("login", server.url, home=home, FLIGHTLOG_API_KEY=key).code == 0
    again = quick("sync", home=home, cwd=place, FLIGHTLOG_API_KEY=server.key)
    assert again.code == 0, again
    owner = "SELECT u.name FROM runs r JOIN users u ON u.id = r.owner_id WHERE r.run_id = ?"
    assert server.query(owner, run_id) == [(run_id,)]


def test_a_netrc_is_never_read(server: Server, place: Path, home: Path, run_id: str) -> None:
    """requests would send ~/.netrc's password where no key is set, and instead of ours: neither happens."""
    run_dir(place / "run-x", run_id)
    (home / ".netrc").write_text(f"machine 127.0.0.1 login user password {server.key}\n")
    (home / ".netrc").chmod(0o600)
    assert flightlog("sync", place, "--server", server.url, home=home).code == 2
    said = flightlog("sync", place, "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 0, said


@pytest.mark.parametrize(
    "origin", ["http://192.0.2.1:8080", "http://127.0.0.1.example.org", "http://localhost.example"]
)
def test_no_key_goes_over_plain_http_to_another_machine(origin: str, home: Path) -> None:
    """It is refused before anything is sent, also for names that merely begin like this machine's."""
    from flightlog.errors import KeyNeeded
    from flightlog.keys import Server as Target
    from flightlog.keys import find_key

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(home))
        patch.setenv("FLIGHTLOG_API_KEY", "fl_00000000_secret")
        with pytest.raises(KeyNeeded, match="plain http"):
            find_key(Target(origin, True))


@pytest.mark.parametrize(
    "address", ["http://[::1", "ftp://x", "http://", "http://a:99999", "http://u:p@h", "http:///x"]
)
def test_an_address_that_is_none_is_one_line(address: str, place: Path, home: Path, run_id: str) -> None:
    """Whatever --server says, there is no traceback."""
    run_dir(place / "run-x", run_id)
    said = quick("sync", place, "--server", address, home=home, FLIGHTLOG_API_KEY="k")
    assert said.code in (1, 2) and said.err.count("\n") == 1 and "address" in said.err, said


# -- runs in every state -----------------------------------------------------------------------------------------------


def test_one_damaged_run_of_three_does_not_stop_the_others(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """Bad bytes in the middle of a journal: exit status 3, the damage named, everything readable delivered."""
    for number in (1, 2, 3):
        run_dir(place / f"run-{number}", f"{run_id}-{number}")
    segment = place / "run-2" / "files" / "journal" / ("w" * 16) / "000001.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([*lines[:9], lines[9][:20] + b"\0\xff\0" + lines[9][23:], *lines[10:]]))
    said = flightlog("sync", place, "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 3, said
    assert said.out.count("delivered  ") == 2 and "damaged" in said.out
    assert f"{segment}, line 10" in said.err and "seq 10-10" in said.err
    assert server.journal(f"{run_id}-1")["w" * 16] == server.journal(f"{run_id}-1")["w" * 16]
    assert server.journal(f"{run_id}-2")["w" * 16] == b"".join([*lines[:9], *lines[10:]])
    states = {r["id"]: r["status"] for r in server.sync(place, home=home).runs}
    assert states == {f"{run_id}-1": "up_to_date", f"{run_id}-2": "damaged", f"{run_id}-3": "up_to_date"}
    cleaned = server.sync(place / "run-2", home=home, options=("--clean",))
    assert cleaned.code == 3 and (place / "run-2").is_dir(), "a damaged run is never cleaned"


@pytest.mark.parametrize("strange", [b"w\xff", b"w\n", b"w~00000000"])
def test_a_folder_with_a_name_that_no_writer_has_costs_only_itself(
    server: Server, place: Path, home: Path, run_id: str, strange: bytes
) -> None:
    """What is sound of the run arrives, the folder is named and stays, and the other run is delivered."""
    run = run_dir(place / "run-1", run_id)
    run_dir(place / "run-2", f"{run_id}2")
    whole = local_journal(run)
    journal = run / "files" / "journal"
    shutil.copytree(os.fsencode(journal / ("w" * 16)), os.fsencode(journal) + b"/" + strange)
    for options in ((), ("--clean",)):
        said = server.sync(place, home=home, options=options)
        assert said.code == 3 and "has a name that no writer has" in said.runs[0]["faults"][0], said
    assert server.journal(run_id) == whole and server.journal(f"{run_id}2")
    assert run.is_dir() and not (place / "run-2").exists()


def test_a_damaged_run_below_a_path_that_is_no_text_is_named(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """Any bytes may be in a path: the damage is told and noted, also of the next sync and by status."""
    run = run_dir(place / os.fsdecode(b"bad\xff\n") / "run-1", run_id)
    file = run / "files" / add_media(run, "a.txt", b"as it was")
    file.write_bytes(b"changed")
    for _ in range(2):
        said = server.sync(place, home=home)
        assert said.code == 3 and "has changed since it was recorded" in said.runs[0]["faults"][0], said
    noted = state.load(RunDir(run))[server.url]
    assert "has changed since it was recorded" in noted.faults[0] and not noted.complete


def test_a_journal_with_thousands_of_damaged_lines_is_delivered_around_them(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """Every second line damaged: the lost ranges do not fit one request's address, and need not."""
    lines = [begin(run_id), *logs(2, 9001)]
    bad = [raw if seq % 2 else b"#" + raw[1:] for seq, raw in enumerate(lines, 1)]
    run_dir(place / "run-x", run_id, {"w" * 16: bad})
    said = server.sync(place, home=home)
    assert said.code == 3 and said.runs[0]["records"] == 4501, said.err
    assert server.journal(run_id)["w" * 16] == b"".join(raw for seq, raw in enumerate(lines, 1) if seq % 2)


def test_a_copy_damaged_where_the_server_has_everything_still_delivers_what_is_new(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """Damage below the server's high-water mark costs nothing there, however much is new above it."""
    name = "w" * 16
    lines = [begin(run_id), *logs(2, 40)]
    run = run_dir(place / "run-x", run_id, {name: lines})
    assert server.sync(run, home=home).code == 0
    more = [line(seq, data={"text": "x" * 60_000}, step=seq) for seq in range(41, 241)]
    damaged = [*lines[:9], b"#" + lines[9][1:], *lines[10:], *more]
    (run / "files" / "journal" / name / "000001.jsonl").write_bytes(b"".join(damaged))
    said = server.sync(run, home=home)
    assert said.code == 3 and "seq 10-10" in " ".join(said.runs[0]["faults"]), said
    assert server.journal(run_id)[name] == b"".join([*lines, *more])


def test_a_torn_tail_is_no_damage(server: Server, place: Path, home: Path, run_id: str) -> None:
    """Half a line at the end is what a killed process leaves: everything acknowledged is delivered, status 0."""
    name = "w" * 16
    lines = [begin(run_id), *logs(2, 9)]
    run_dir(place / "run-x", run_id, {name: [*lines, line(10)[:30]]}, finished=False)
    assert server.sync(place, home=home).code == 0
    assert server.journal(run_id) == {name: b"".join(lines)}


@pytest.mark.parametrize("spec", ["missing", "garbage", "not an object", "no id", "link"])
def test_without_a_readable_spec_the_journal_is_delivered(
    server: Server, place: Path, home: Path, run_id: str, spec: str
) -> None:
    """latest.spec is a cache: its loss is said, and nothing else is lost."""
    run = run_dir(place / "run-x", run_id)
    path = run / "latest.spec"
    path.unlink()
    if spec == "link":
        path.symlink_to("/etc/passwd")
    elif spec != "missing":
        path.write_text({"garbage": "\0\0{", "not an object": "[1]", "no id": '{"format": 1}'}[spec])
    said = server.sync(run, home=home)
    assert said.code == 0 and said.runs[0]["status"] == "delivered", said
    assert "latest.spec" in said.runs[0]["faults"][0] and "root:" not in said.out
    assert server.journal(run_id) == local_journal(run)


def test_an_empty_run_directory_is_delivered_or_passed_over(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """A spec without a journal is a run without records; one killed before its spec and first record is nothing yet."""
    run_dir(place / "run-1", run_id, {})
    (place / "run-2" / "files" / "journal").mkdir(parents=True)
    said = server.sync(place, home=home)
    assert said.code == 0
    assert [(Path(r["path"]).name, r["status"], r["error"]) for r in said.runs] == [("run-1", "delivered", None)]


def test_segments_without_bytes_are_nothing_wrong(server: Server, place: Path, home: Path, run_id: str) -> None:
    """A segment that was begun and never written, before or after others, and a writer of only such."""
    name = "w" * 16
    run = run_dir(place / "run-x", run_id, {name: [begin(run_id), *logs(2, 5)], "empty": []})
    folder = run / "files" / "journal" / name
    (folder / "000002.jsonl").write_bytes(b"")
    (folder / "000003.jsonl").write_bytes(b"".join(logs(6, 8)))
    (folder / "000004.jsonl").write_bytes(b"")
    said = server.sync(run, home=home)
    assert said.code == 0 and said.runs[0]["records"] == 8, said
    assert server.journal(run_id) == {name: b"".join([begin(run_id), *logs(2, 8)])}


def test_a_directory_that_cannot_be_written_keeps_its_state_elsewhere(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """Delivered, and known as delivered, although nothing can be noted beside the run."""
    run = run_dir(place / "run-x", run_id)
    (run / "sync.json").mkdir()  # root may write everywhere: this it cannot replace
    assert server.sync(run, home=home).code == 0
    assert server.sync(run, home=home).runs[0]["status"] == "up_to_date"
    assert list((home / ".state" / "flightlog" / "sync").iterdir())


def test_an_older_state_beside_the_run_does_not_hide_the_newer_one(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """A directory that became read-only still holds what was known before."""
    run = run_dir(place / "run-x", run_id)
    assert server.sync(run, home=home).code == 0
    old = (run / "sync.json").read_bytes()
    with (run / "files" / "journal" / ("w" * 16) / "000001.jsonl").open("ab") as segment:
        segment.write(line(23))
    (run / "sync.json").unlink()
    (run / "sync.json").mkdir()
    assert server.sync(run, home=home).code == 0
    (run / "sync.json").rmdir()
    (run / "sync.json").write_bytes(old)
    assert server.sync(run, home=home).runs[0]["status"] == "up_to_date"


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\0" * 100, b"[]", b'{"format": 1, "servers": {"x": 5}}', b'{"format": 1, "servers": null}', b"{}"],
)
def test_a_lost_or_senseless_sync_json_costs_only_a_question(
    server: Server, place: Path, home: Path, run_id: str, content: bytes | None
) -> None:
    """The server is the authority: it is asked again, nothing is sent twice, and the file is made anew."""
    run = run_dir(place / "run-x", run_id)
    assert server.sync(run, home=home).code == 0
    if content is None:
        (run / "sync.json").unlink()
    else:
        (run / "sync.json").write_bytes(content)
    said = server.sync(run, home=home)
    assert said.code == 0 and said.runs[0]["records_sent"] == 0 and said.runs[0]["status"] == "delivered"
    assert server.sync(run, home=home).runs[0]["status"] == "up_to_date"
    assert server.journal(run_id) == local_journal(run)


def test_another_server_at_the_same_address_makes_everything_pending_again(
    own_server: Server, place: Path, home: Path, run_id: str
) -> None:
    """Its data folder was lost: the address is the same, the server is not, and nobody is told "synced"."""
    run = run_dir(place / "run-x", run_id)
    assert own_server.sync(run, home=home).code == 0
    own_server.stop()
    shutil.rmtree(own_server.data)
    own_server.key = ""
    own_server.start()
    said = own_server.sync(run, home=home)
    assert said.code == 0 and said.runs[0]["records_sent"] == 22
    assert own_server.journal(run_id) == local_journal(run)


def test_a_copied_directory_is_the_same_run(server: Server, place: Path, home: Path, run_id: str) -> None:
    """A copy, older or newer or longer than the other, adds what it has and doubles nothing."""
    run = run_dir(place / "run-x", run_id)
    shutil.copytree(run, place / "copy")
    with (run / "files" / "journal" / ("w" * 16) / "000001.jsonl").open("ab") as segment:
        segment.write(b"".join(logs(23, 30)))
    assert server.sync(place / "copy", home=home).runs[0]["records_sent"] == 22
    assert server.sync(run, home=home).runs[0]["records_sent"] == 8
    (place / "copy" / "sync.json").unlink()
    older = server.sync(place / "copy", home=home)
    assert older.code == 0 and older.runs[0]["records_sent"] == 0 and older.runs[0]["faults"] == []
    assert server.journal(run_id) == local_journal(run)


def test_a_run_that_grows_while_it_is_synced_is_delivered_bit_by_bit(
    own_server: Server, place: Path, home: Path
) -> None:
    """A real training logs on while it is synced again and again; in the end both hold the same."""
    script = """
        import flightlog, time
        with flightlog.init(project="p", id="growing") as run:
            for i in range(1500):
                run.log({"loss": i})
                time.sleep(0.001)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=place, env=environment(home, FLIGHTLOG_SILENT="1")
    )
    seen = []
    while process.poll() is None:
        if list((place / "flightlog").glob("run-*/files/journal/*/*.jsonl")):
            said = own_server.sync(place, home=home)
            assert said.code == 0, said
            seen += [run["records"] for run in said.runs if "records" in run]  # none where nothing was new
        time.sleep(0.05)
    assert process.returncode == 0
    assert own_server.sync(place, home=home).code == 0
    (run,) = (place / "flightlog").glob("run-*")
    assert own_server.journal("growing") == local_journal(run)
    assert seen == sorted(seen) and len(set(seen)) > 2
    assert own_server.api("GET", "runs/admin/p/growing").json()["state"] == "finished"


def test_a_run_that_dies_after_it_was_synced_is_shown_as_crashed(own_server: Server, place: Path, home: Path) -> None:
    """Nothing has grown since, but the next sync still tells the server that nobody writes any more."""
    script = """
        import flightlog, time
        run = flightlog.init(project="p", id="dying")
        run.log({"loss": 1.0})
        print("ready", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=place, env=environment(home), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        assert own_server.sync(place, home=home).code == 0
        assert own_server.api("GET", "runs/admin/p/dying").json()["state"] == "running"
        assert own_server.sync(place, home=home, options=("--clean",)).runs[0]["cleaned"]["reason"], "it is running"
        process.kill()
        process.wait()
    assert own_server.sync(place, home=home).code == 0
    assert own_server.api("GET", "runs/admin/p/dying").json()["state"] == "crashed"
    again = own_server.sync(place, home=home)
    assert again.runs[0]["status"] == "up_to_date"
    young = own_server.sync(place, home=home, options=("--clean",))
    assert "24 hours" in young.runs[0]["cleaned"]["reason"] and len(list((place / "flightlog").glob("run-*"))) == 1


def test_two_syncs_of_one_run_at_once_double_nothing(own_server: Server, place: Path, home: Path) -> None:
    """Four processes deliver the same directory at the same moment."""
    writers = {f"w{n}": [begin("shared"), *logs(2, 3000)] for n in range(3)}
    run = run_dir(place / "run-x", "shared", writers)
    add_media(run, "file.bin", os.urandom(2 << 20))
    processes = [
        subprocess.Popen(
            command("sync", run, "--server", own_server.url, "--json"),
            env=environment(home, FLIGHTLOG_API_KEY=own_server.key),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for process in processes:
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, out.decode() + err.decode()
    assert own_server.journal("shared") == local_journal(run)
    assert own_server.query("SELECT records FROM runs") == [(9001,)]
    assert own_server.query("SELECT sum(count) FROM series WHERE name = 'loss'") == [(8997,)]


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", "~root", "a\\b", "a%2fb", "x" * 300, 7, None, ""])
@pytest.mark.parametrize("what", ["id", "project", "workspace"])
def test_hostile_names_in_a_spec_reach_no_address(
    server: Server, place: Path, home: Path, run_id: str, what: str, name: object
) -> None:
    """A name that could lead elsewhere fails that run with one sentence; as a workspace it is passed over."""
    run_dir(place / "run-x", run_id, spec={what: name})
    said = server.sync(place, home=home)
    assert said.code in (0, 1), said
    if said.code:
        assert "cannot be used" in said.runs[0]["error"]
    strange = (
        "SELECT count(*) FROM runs JOIN projects ON projects.id = runs.project_id "
        "WHERE instr(run_id || projects.name, ?)"
    )
    assert server.query(strange, "/") == [(0,)]


def test_a_workspace_that_is_not_there_is_told_with_the_way_out(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """entity="me" of a script, say: the refusal names the workspaces one may write to and the option, which helps."""
    run_dir(place / "run-x", run_id, spec={"workspace": "me"})
    said = server.sync(place, home=home)
    assert said.code == 1, said
    assert (
        "no workspace 'me'" in said.runs[0]["error"] and "`flightlog sync --workspace admin`" in said.runs[0]["error"]
    )
    said = server.sync(place, home=home, options=("--workspace", "admin"))
    assert said.code == 0 and said.runs[0]["workspace"] == "admin", said


def test_a_run_that_was_killed_as_it_began_is_in_nobodys_way(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """Half a first record or none, no latest.spec: no damage, as `flightlog verify` says; the others are delivered."""
    run_dir(place / "run-x", run_id)
    for name, content in (("run-none", b""), ("run-half", begin("gone")[:50])):
        (place / name / "files" / "journal" / "w").mkdir(parents=True)
        (place / name / "files" / "journal" / "w" / "000001.jsonl").write_bytes(content)
        assert flightlog("verify", place / name, home=home).code == 0
    said = server.sync(place, home=home)
    assert said.code == 0 and [run["id"] for run in said.runs] == [run_id], said
    (place / "run-half" / "files" / "journal" / "w" / "000001.jsonl").write_bytes(b"x" * 100 + b"\n" + line(2))
    said = server.sync(place, home=home)
    assert said.code == 1 and "says which run this is" in str(said.runs), said


def test_a_journal_whose_numbers_make_no_sense_ends_in_an_error(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """A sound line with an enormous seq neither fills the memory here nor there."""
    run_dir(place / "run-x", run_id, {"w" * 16: [begin(run_id), line(10**12, t=1_700_000_002.0)]})
    said = server.sync(place, home=home)
    assert said.code == 1 and "1000000000000" in said.runs[0]["error"], said


def test_json_names_every_run_and_nothing_else_is_printed(server: Server, place: Path, home: Path, run_id: str) -> None:
    """`--json` is one document with what a script needs to know."""
    run_dir(place / "run-x", run_id)
    said = flightlog("sync", place, "--server", server.url, "--json", home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 0 and said.err == ""
    document = json.loads(said.out)
    assert document["server"] == server.url and document["account"] == "admin"
    (run,) = document["runs"]
    assert (run["id"], run["project"], run["status"], run["error"]) == (run_id, "p", "delivered", None)
    assert run["records"] == run["records_sent"] == 22 and run["faults"] == []
    assert run["url"] == f"{server.url}/w/admin/p/runs/{run_id}"


def test_the_key_is_in_no_output_no_log_and_no_run_directory(own_server: Server, place: Path, home: Path) -> None:
    """A script that has the key in its environment and arguments leaves it nowhere; the server stores its hash only."""
    key = own_server.key
    subprocess.run(
        [sys.executable, "-c", "import flightlog; flightlog.init(project='p').log({'a': 1})", "--api-key", key],
        cwd=place,
        env=environment(home, FLIGHTLOG_API_KEY=key),
        check=True,
        capture_output=True,
    )
    said = flightlog("sync", place, "--server", own_server.url, home=home, FLIGHTLOG_API_KEY=key)
    assert said.code == 0 and key not in said.out + said.err
    own_server.stop()
    assert key not in own_server.stderr
    secret = key.encode()
    for path in [*place.rglob("*"), *own_server.data.rglob("*")]:
        assert not path.is_file() or secret not in path.read_bytes(), path


# -- clean -------------------------------------------------------------------------------------------------------------


def test_clean_deletes_what_is_proven_and_leaves_the_spec_for_a_resumer(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """A finished, delivered run goes; what stays lets a requeued job go on."""
    run = run_dir(place / "run-x", run_id)
    path = add_media(run, "a.txt", b"hello")
    said = server.sync(run, home=home, options=("--clean",))
    assert said.code == 0 and said.runs[0]["cleaned"] == {**said.runs[0]["cleaned"], "reason": None, "kept": []}, said
    assert not run.exists()
    assert json.loads((place / ".delivered" / f"{run_id}.spec").read_bytes())["id"] == run_id
    assert server.api("GET", f"runs/admin/p/{run_id}/files/{path}").body == b"hello"


def test_clean_keeps_what_no_record_names(server: Server, place: Path, home: Path, run_id: str) -> None:
    """Somebody's own file in a run directory is not ours to delete."""
    run = run_dir(place / "run-x", run_id)
    add_media(run, "a.txt", b"hello")
    (run / "files" / "notes.txt").write_text("mine")
    said = server.sync(run, home=home, options=("--clean",))
    assert said.code == 0 and said.runs[0]["cleaned"]["kept"] == ["files/notes.txt"], said
    assert (run / "files" / "notes.txt").read_text() == "mine"
    assert not (run / "files" / "media" / "a.txt").exists()


def test_clean_deletes_nothing_that_the_server_lacks(server: Server, place: Path, home: Path, run_id: str) -> None:
    """A file that changed since it was recorded is not on the server, so nothing of the run is deleted."""
    run = run_dir(place / "run-x", run_id)
    path = add_media(run, "a.txt", b"hello")
    (run / "files" / path).write_bytes(b"other")
    before = sorted(p.relative_to(run) for p in run.rglob("*"))
    said = server.sync(run, home=home, options=("--clean",))
    assert said.code == 3 and said.runs[0]["cleaned"]["reason"], said
    assert sorted(p.relative_to(run) for p in run.rglob("*") if p.name != "sync.json") == before


def test_clean_asks_the_server_again_and_not_the_cache(own_server: Server, place: Path, home: Path) -> None:
    """sync.json says "complete", but the server has lost its data since: nothing is deleted before it is sent again."""
    run = run_dir(place / "run-x", "precious")
    path = add_media(run, "a.txt", b"hello")
    assert own_server.sync(run, home=home).code == 0
    for table in ("files", "chunks", "packs"):
        own_server.execute(f"DELETE FROM {table}")
    said = own_server.sync(run, home=home, options=("--clean",))
    assert said.code == 0 and not run.exists()
    assert own_server.api("GET", f"runs/admin/p/precious/files/{path}").body == b"hello"


def test_the_state_tells_a_changed_journal_by_its_sizes(place: Path, run_id: str) -> None:
    """What is kept beside the run is per server and is forgotten as soon as anything has grown."""
    from flightlog.rundir import RunDir

    run = RunDir(run_dir(place / "run-x", run_id))
    entry = state.Synced("one", "w", "p", "u", run.journal_sizes(), complete=True, inode=state.inode_of(run))
    state.save(run, {"http://a": entry})
    assert not state.is_pending(run, "http://a", "one")
    copy = RunDir(Path(shutil.copytree(run.path, place / "a-copy")))
    assert state.load(copy) == state.load(run) and state.is_pending(copy, "http://a", "one")
    assert state.is_pending(run, "http://a", "two") and state.is_pending(run, "http://b", "one")
    with (run.journal / ("w" * 16) / "000001.jsonl").open("ab") as segment:
        segment.write(line(23))
    assert state.is_pending(run, "http://a", "one")
