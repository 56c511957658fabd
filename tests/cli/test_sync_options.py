"""The options of `flightlog sync`, its bars and its words."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flightlog.cli import options
from flightlog.rundir import RunDir
from flightlog.sync import session
from flightlog.sync.pace import Pace

from ..server.tools import (
    Proxy,
    Request,
    Server,
    add_media,
    command,
    environment,
    forward,
    lose_answer,
    on_terminal,
    proxied,
    quick,
    run_dir,
)
from .tools import content, recorded


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """Names, places and sizes are told, the delivered run as up to date; neither disk nor server changes."""
    done, new = recorded(place, f"{run_id}done"), recorded(place, f"{run_id}new", size=123_456)
    assert server.sync(done.path, home=home).code == 0
    before, runs = content(place), server.query("SELECT count(*) FROM runs")
    said = server.sync(place, home=home, options=("--dry-run",))
    assert said.code == 0 and {r["id"]: r["status"] for r in said.runs} == {
        f"{run_id}done": "up_to_date",
        f"{run_id}new": "pending",
    }, said
    (size,) = (r["bytes"] for r in said.runs if r["status"] == "pending")
    assert 123_456 < size < 140_000
    words = quick("sync", place, "--dry-run", "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert f"would send name-{run_id}new" in words.out and f"admin/p/{run_id}new" in words.out, words
    assert "1 run of up to" in words.out and "1 up to date" in words.out
    assert content(place) == before and server.query("SELECT count(*) FROM runs") == runs
    assert new.path.exists()


def test_runs_go_to_another_project_workspace_and_id(server: Server, home: Path, place: Path, run_id: str) -> None:
    """--project and --id rename a run on its way; --id for several different runs is refused; so are bad names."""
    one, _ = recorded(place, f"{run_id}a"), recorded(place, f"{run_id}b")
    said = server.sync(one.path, home=home, options=("--project", f"q{run_id}", "--id", f"{run_id}new"))
    assert said.code == 0 and said.runs[0]["url"].endswith(f"/q{run_id}/runs/{run_id}new"), said
    said = server.sync(place, home=home, options=("--id", f"{run_id}all"))
    assert said.code == 2 and "one run of these 2" in said.err, said
    for wrong in (("--project", "a/b"), ("--id", ".."), ("--workspace", ""), ("-n", "0"), ("--bandwidth", "fast")):
        assert server.sync(place, home=home, options=wrong).code == 2, wrong
    said = server.sync(one.path, home=home, options=("--workspace", "nobody"))
    assert said.code == 1 and "workspace" in str(said.runs[0]["error"]), said


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e+300", "-1", "soon"])
@pytest.mark.parametrize("verb", ["sync", "clean"])
def test_a_timeout_that_is_no_time_is_a_wrong_command(home: Path, place: Path, verb: str, seconds: str) -> None:
    """--timeout takes what FLIGHTLOG_SYNC_TIMEOUT takes: a number of seconds that can be waited for."""
    run_dir(place / "run-a", "a")
    for said in (
        quick(verb, place, f"--timeout={seconds}", home=home),
        quick(verb, place, home=home, FLIGHTLOG_SYNC_TIMEOUT=seconds),
    ):
        assert said.code == 2 and seconds in said.err.lower() and "Traceback" not in said.err, said


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10M", 10e6),
        ("500k", 500e3),
        ("1.5G", 1.5e9),
        ("2000", 2000),
        ("10Mbit", 1.25e6),
        ("10Mbit/s", 1.25e6),
        ("8Mbps", 1e6),
        ("1MB/s", 1e6),
        ("1MiB/s", 1 << 20),
        ("64Ki", 65536),
    ],
)
def test_rates_are_read_as_people_write_them(text: str, rate: float) -> None:
    """Bytes a second with k, M, G; bits where it says bit or b."""
    import click

    command = click.Command("x", params=[click.Option(["--bandwidth"], callback=options.rate)])
    with command.make_context("x", ["--bandwidth", text]) as context:
        assert context.params["bandwidth"] == rate


@pytest.mark.parametrize("text", ["", "fast", "-1M", "0", "10", "1e99M", "M", "10T", "10 M M", "nan", "1i"])
def test_rates_that_make_no_sense_are_a_wrong_command(text: str) -> None:
    """Nothing, nonsense, and less than a hundred bytes a second."""
    import click

    command = click.Command("x", params=[click.Option(["--bandwidth"], callback=options.rate)])
    with pytest.raises(click.BadParameter):
        command.make_context("x", ["--bandwidth", text])


def test_threads_share_one_pace() -> None:
    """Four threads that take 25 kB each at 100 kB/s are through no sooner than one that takes it all."""
    pace = Pace(100_000)

    def take() -> None:
        for _ in range(50):
            pace.take(500)

    threads = [threading.Thread(target=take) for _ in range(4)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began >= 0.74


def test_bandwidth_holds_for_what_is_sent_and_everything_arrives(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """400 kB that nothing compresses, at 400 kB/s: a second at least, less the burst; and what arrives is whole."""
    run = run_dir(place / "run-x", run_id)
    path = add_media(run, "noise.bin", os.urandom(400_000))
    began = time.monotonic()
    assert server.sync(place, home=home, options=("--bandwidth", "400k")).code == 0
    assert time.monotonic() - began >= 0.74
    assert server.api("GET", f"runs/admin/p/{run_id}/files/{path}").body == (run / "files" / path).read_bytes()


def test_bars_show_each_run_and_all_with_rate_and_time_left(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """On a terminal there is a bar for each run and one for all; afterwards a line for each, with its address."""
    for number in range(3):
        add_media(run_dir(place / f"run-{number}", f"{run_id}{number}"), "noise.bin", os.urandom(600_000))
    env = environment(home, TERM="xterm-256color", FLIGHTLOG_API_KEY=server.key, LINES="40")
    words = command("sync", place, "--server", server.url, "--bandwidth", "1M")
    said = on_terminal(words, env, home)
    assert said.code == 0 and "all 3 runs" in said.out and "━" in said.out, said
    assert all(f"{run_id}{n}" in said.out[: said.out.index("delivered ")] for n in range(3))
    assert re.search(r"[0-9.]+ [kM]B/s", said.out) and re.search(r"\d\d:\d\d", said.out), "rate and time left"
    shown = said.out[said.out.rindex("delivered  ") :]
    assert f"{server.url}/w/admin/p/runs/" in shown and "3 delivered to" in shown
    dumb = on_terminal(
        command("sync", place, "--include-synced", "--server", server.url), {**env, "TERM": "dumb"}, home
    )
    assert dumb.code == 0 and "\x1b" not in dumb.out and "3 delivered" in dumb.out, dumb
    quiet = on_terminal(command("sync", place, "--include-synced", "--quiet", "--server", server.url), env, home)
    assert quiet.code == 0 and quiet.out.strip() == "", quiet


class Counted:
    """A progress that adds up what it is told."""

    total = dealt_with = 0

    def begin(self, name: str, total: int) -> Counted:
        self.total += total
        return self

    def more(self, total: int) -> None:
        self.total += total

    def advance(self, size: int) -> None:
        self.dealt_with += size

    def end(self) -> None:
        pass


def test_what_is_shown_as_sent_has_been_sent(server: Server, home: Path, place: Path, run_id: str) -> None:
    """A file counts as its bytes leave, not as they are read; a pack that is sent again is counted once."""
    run = run_dir(place / "run-a", run_id)
    add_media(run, "noise.bin", os.urandom(3_000_000))
    shown = Counted()
    at_question: list[int] = []

    def look(proxy: Proxy, request: Request, taken: socket.socket) -> None:
        at_question.append(shown.dealt_with)
        forward(proxy, request, taken)

    with proxied(server) as proxy:
        proxy.faults = [("/missing", look), ("/packs", lose_answer), ("/missing", look)]
        there = session.Server(proxy.url, trusted=True)
        report = session.sync([RunDir(run)], there, server.key, progress=shown)
        assert report.exit_status == 0 and at_question[0] < 100_000, (report, at_question)
        assert shown.dealt_with == shown.total > 3_000_000
        again = run_dir(place / "run-b", f"{run_id}b")
        add_media(again, "noise.bin", (run / "files" / "media" / "noise.bin").read_bytes())
        assert session.sync([RunDir(again)], there, server.key, progress=shown).exit_status == 0
    assert shown.dealt_with == shown.total > 6_000_000, "what is there already has been dealt with, too"


def test_packs_that_have_been_sent_are_not_kept_in_memory(server: Server, home: Path, place: Path, run_id: str) -> None:
    """A file of 300 MB is delivered in less than 200 MB of memory."""
    run = run_dir(place / "run-a", run_id)
    add_media(run, "noise.bin", os.urandom(300_000_000))
    script = """if True:
        import pathlib, sys
        from flightlog import cli
        try:
            cli.main(sys.argv[1:])
        finally:
            print(pathlib.Path("/proc/self/status").read_text())
    """
    said = subprocess.run(
        [sys.executable, "-c", script, "sync", str(place), "--server", server.url],
        env=environment(home, FLIGHTLOG_API_KEY=server.key),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    peak = re.search(r"VmHWM:\s+(\d+) kB", said.stdout)
    assert "1 delivered" in said.stdout and peak and int(peak[1]) < 200_000, said


def test_quiet_says_what_went_wrong_alone(server: Server, home: Path, place: Path, run_id: str) -> None:
    """A damaged run among good ones: its name and its faults on stderr, status 3, nothing on stdout."""
    run_dir(place / "run-a", f"{run_id}good")
    hurt = run_dir(place / "run-b", f"{run_id}hurt")
    (hurt / "files" / add_media(hurt, "a.txt", b"hello")).unlink()
    said = quick("sync", place, "--quiet", "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 3 and said.out == "" and "a.txt" in said.err and f"{run_id}hurt" in said.err, said
    assert f"{run_id}good" not in said.err


def test_a_run_deleted_on_the_server_is_neither_sent_nor_cleaned_unless_asked_back(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """ "gone" is said and is no failure; --restore-deleted brings the run back whole."""
    run = recorded(place, run_id)
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}
    assert server.sync(place, home=home).code == 0
    server.execute("UPDATE runs SET deleted_at = 1 WHERE run_id = ?", run_id)
    said = quick("sync", place, "--clean", home=home, **key)
    assert said.code == 0 and "--restore-deleted" in said.out and "1 deleted on the server" in said.out, said
    again = quick("sync", place, "--json", home=home, **key)
    assert [r["status"] for r in again.runs] == ["gone"] and again.code == 0, again
    said = quick("clean", place, home=home, **key)
    assert said.code == 0 and "deleted on" in said.out and run.path.exists(), said
    found = json.loads(quick("status", place, "--json", home=home, **key).out)["runs"]
    assert [(r["status"], r["pending"]) for r in found] == [("gone", False)]
    said = quick("receipt", "export", place, "-o", place.parent / "r.json", home=home, **key)
    assert said.code == 1 and "any more" in said.err, said
    planned = quick("sync", place, "--dry-run", "--json", "--restore-deleted", home=home, **key)
    assert [r["status"] for r in planned.runs] == ["pending"], planned
    said = quick("sync", place, "--restore-deleted", "--json", home=home, **key)
    assert [r["status"] for r in said.runs] == ["delivered"], said
    assert "1 run cleaned" in quick("clean", place, home=home, **key).out


def test_an_interrupted_sync_is_one_line_and_goes_on_from_there(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """Ctrl-C in the midst of an upload: status 130, no traceback, and the same command ends the work."""
    run = run_dir(place / "run-x", run_id)
    add_media(run, "noise.bin", os.urandom(3_000_000))
    with proxied(server) as proxy:
        words = command("sync", place, "--server", proxy.url, "--bandwidth", "500k")
        running = subprocess.Popen(
            words, env=environment(home, FLIGHTLOG_API_KEY=server.key), stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        until = time.monotonic() + 20
        while not any("PUT" in seen for seen in proxy.seen) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert running.returncode == 130 and err.count(b"\n") == 1 and b"goes on from there" in err, (out, err)
    assert server.sync(place, home=home).code == 0


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf"])
def test_a_time_limit_that_is_none_is_a_wrong_command(
    server: Server, home: Path, place: Path, run_id: str, value: str
) -> None:
    """FLIGHTLOG_SYNC_TIMEOUT that is no number of seconds is named, status 2."""
    recorded(place, run_id)
    more = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_SYNC_TIMEOUT": value}
    said = quick("sync", place, "--server", server.url, home=home, **more)
    assert said.code == 2 and "FLIGHTLOG_SYNC_TIMEOUT" in said.err, said
