"""`flightlog sync --watch`: new and growing runs of whole folders, on a machine that only shares the file system."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flightlog.process import hostname

from ..server.tools import Server, begin, command, environment, line, local_journal, logs, quick, run_dir
from .tools import Trainings, until

FINISH = line(22, "finish", {"state": "finished"})


class Watching:
    """A watch in a process of its own, whose JSON lines go to a file."""

    def __init__(self, words: tuple[str | Path, ...], home: Path, env: dict[str, str]) -> None:
        self._log = home / "watch.log"
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                command("sync", "--watch", "--json", "--interval", "0.1", *words),
                env=environment(home, **env),
                cwd=home,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def events(self) -> list[dict[str, Any]]:
        """What it has told so far."""
        found = []
        for text in self._log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(text))
        return found

    def told(self, event: str, run: str | None = None) -> bool:
        """Whether it has told this of a run."""
        return any(e["event"] == event and (run is None or e.get("id") == run) for e in self.events())

    def stop(self) -> int:
        """Send SIGTERM, and return the exit status."""
        self.process.terminate()
        status = self.process.wait(30)
        print(self._log.read_text())
        return status

    def close(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)


@pytest.fixture
def watch(home: Path, server: Server) -> Iterator[Any]:
    """Start watches of the shared server, or of what `url` and `key` say."""
    started: list[Watching] = []

    def start(*words: str | Path, url: str = server.url, key: str = server.key) -> Watching:
        started.append(Watching(words, home, {"FLIGHTLOG_BASE_URL": url, "FLIGHTLOG_API_KEY": key}))
        return started[-1]

    yield start
    for watching in started:
        watching.close()


def test_new_growing_and_finished_runs_of_a_folder_are_delivered(
    server: Server, watch: Any, place: Path, home: Path, run_id: str, trainings: Trainings
) -> None:
    """One that was there, one that appears deep below, one that is being recorded: each is told of, all arrive."""
    run_dir(place / "run-old", f"{run_id}old")
    watching = watch(place)
    until(lambda: watching.told("delivered", f"{run_id}old"))
    deep = run_dir(place / "a" / "b" / "run-new", f"{run_id}new")
    script = """
        flightlog.init(mode="offline")
        while not os.path.exists("go"):
            flightlog.log({"loss": 1})
            time.sleep(0.01)
    """
    training = trainings.start(script, run_id, None)
    until(lambda: watching.told("following", run_id))
    until(lambda: training.seen(server) > 50)
    (home / "go").touch()
    assert training.wait().code == 0
    until(lambda: watching.told("delivered", run_id) and watching.told("delivered", f"{run_id}new"))
    assert watching.stop() == 0
    assert training.is_delivered(server)
    assert server.journal(f"{run_id}new") == local_journal(deep)
    for event in ("found", "delivered"):
        assert [e["event"] for e in watching.events() if e.get("id") == run_id].count(event) == 1


def test_a_run_that_has_just_begun_is_not_taken_for_dead(server: Server, watch: Any, place: Path, run_id: str) -> None:
    """A directory whose journal and latest.spec are still to be written is waited for."""
    run = place / "run-x"
    (run / "files" / "journal").mkdir(parents=True)
    watching = watch(place)
    until(lambda: watching.told("watching"))
    time.sleep(1.0)
    run_dir(run, run_id, {"w" * 16: [begin(run_id), *logs(2, 21), FINISH]})
    until(lambda: watching.told("delivered", run_id))
    assert watching.stop() == 0
    assert [e.get("ended") for e in watching.events() if e["event"] == "delivered"] == ["finished"]


def test_a_run_that_goes_on_after_its_end_is_delivered_again(
    server: Server, watch: Any, place: Path, run_id: str, trainings: Trainings
) -> None:
    """The first watch has delivered it; a second life in the same folder is noticed by the next one."""
    training = trainings.start('flightlog.init(mode="offline"); flightlog.log({"a": 1})', run_id, None)
    training.wait()
    assert watch(place, "--until-finished").process.wait(30) == 0
    trainings.start('flightlog.init(mode="offline"); flightlog.log({"a": 2})', run_id, None).wait()
    assert not training.is_delivered(server)
    assert watch(place, "--until-finished").process.wait(30) == 0
    assert training.is_delivered(server)


def test_until_finished_ends_by_itself(server: Server, watch: Any, place: Path, run_id: str) -> None:
    """With all runs that there are delivered, it ends with status 0."""
    runs = [run_dir(place / f"run-{n}", f"{run_id}x{n}") for n in range(3)]
    watching = watch(place, "--until-finished")
    assert watching.process.wait(30) == 0, watching.events()
    assert all(server.journal(f"{run_id}x{n}") == local_journal(run) for n, run in enumerate(runs))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
def test_other_users_runs_are_left_alone_unless_asked_for(server: Server, watch: Any, place: Path, run_id: str) -> None:
    """A run that belongs to another user is not delivered; with --all-users it is."""
    run_dir(place / "run-mine", f"{run_id}mine")
    os.chown(run_dir(place / "run-theirs", f"{run_id}theirs"), 12345, 12345)
    watching = watch(place, "--until-finished")
    assert watching.process.wait(30) == 0
    assert server.journal(f"{run_id}mine") and not server.journal(f"{run_id}theirs")
    assert not watching.told("found", f"{run_id}theirs")
    assert watch(place, "--until-finished", "--all-users").process.wait(30) == 0
    assert server.journal(f"{run_id}theirs")


def test_a_server_that_is_away_is_told_of_once_and_again_when_it_is_back(
    own_server: Server, watch: Any, place: Path, run_id: str
) -> None:
    """Waiting and back are a line each; a stop meanwhile has status 1."""
    run = run_dir(place / "run-x", run_id)
    own_server.stop()
    first = watch(place, url=own_server.url, key=own_server.key)
    until(lambda: first.told("waiting"))
    assert first.stop() == 1
    second = watch(place, url=own_server.url, key=own_server.key)
    until(lambda: second.told("waiting"))
    own_server.start()
    until(lambda: second.told("delivered", run_id))
    assert second.stop() == 0
    assert [e["event"] for e in second.events()].count("waiting") == 1 and second.told("back")
    assert own_server.journal(run_id) == local_journal(run)


def test_a_refused_key_and_a_wrong_path_end_it_with_status_2(watch: Any, place: Path, run_id: str) -> None:
    """Both are said in one line."""
    run_dir(place / "run-x", run_id)
    refused = watch(place, key="fl_00000000_wrong")
    assert refused.process.wait(30) == 2 and refused.told("refused")
    assert watch(place / "nothing").process.wait(30) == 2


def test_damage_does_not_stop_the_rest(server: Server, watch: Any, place: Path, run_id: str) -> None:
    """A damaged run is told of, what can be read of it arrives, the others too, and the status is 3."""
    good = run_dir(place / "run-good", f"{run_id}good")
    torn = run_dir(
        place / "run-torn", f"{run_id}torn", {"w" * 16: [begin(f"{run_id}torn"), *logs(2, 9), *logs(12, 21), FINISH]}
    )
    watching = watch(place, "--until-finished")
    assert watching.process.wait(30) == 3, watching.events()
    assert watching.told("damaged", f"{run_id}torn") and watching.told("delivered", f"{run_id}good")
    assert server.journal(f"{run_id}good") == local_journal(good)
    assert server.journal(f"{run_id}torn") == local_journal(torn)


def test_a_journal_that_is_damaged_while_it_is_followed_arrives_as_far_as_it_can_be_read(
    server: Server, watch: Any, place: Path, run_id: str
) -> None:
    """A hole in the middle of what is followed is left to a whole sync, which declares it; the rest goes on."""
    run = run_dir(place / "run-x", run_id, {"w" * 16: [begin(run_id), *logs(2, 9)]}, finished=False)
    spec = json.loads((run / "latest.spec").read_bytes())
    (run / "latest.spec").write_text(json.dumps({**spec, "host": "elsewhere"}))
    watching = watch(place)
    until(lambda: watching.told("following", run_id))
    journal = run / "files" / "journal" / ("w" * 16) / "000001.jsonl"
    with journal.open("ab") as file:
        file.write(b"".join(logs(12, 15)))
    until(lambda: server.journal(run_id) == local_journal(run))
    with journal.open("ab") as file:
        file.write(b"".join(logs(16, 30)))
    until(lambda: server.journal(run_id) == local_journal(run))
    watching.stop()


def test_ctrl_c_ends_it_as_sigterm_does(watch: Any, place: Path, run_id: str) -> None:
    """With everything delivered the status is 0."""
    run_dir(place / "run-x", run_id)
    watching = watch(place)
    until(lambda: watching.told("delivered", run_id))
    watching.process.send_signal(signal.SIGINT)
    assert watching.process.wait(30) == 0


def test_the_options_of_a_sync_hold_for_a_watch(server: Server, watch: Any, place: Path, run_id: str) -> None:
    """Workspace, project, uploads and bandwidth: also for what is sent as it grows."""
    run = run_dir(place / "run-x", run_id, {"w" * 16: [begin(run_id), *logs(2, 9)]}, finished=False)
    words = ("--workspace", "admin", "--project", "other", "-n", "1", "--bandwidth", "5M")
    watching = watch(place, *words)
    until(lambda: watching.told("following", run_id))
    with (run / "files" / "journal" / ("w" * 16) / "000001.jsonl").open("ab") as file:
        file.write(b"".join(logs(10, 30)))
    until(lambda: server.journal(run_id) == local_journal(run))
    watching.stop()
    assert server.api("GET", f"runs/admin/other/{run_id}").status == 200
    assert server.api("GET", f"runs/admin/p/{run_id}").status == 404


def test_a_watch_with_clean_deletes_what_is_proven_and_nothing_else(
    server: Server, watch: Any, place: Path, run_id: str
) -> None:
    """A finished run goes, one that still runs and one that just crashed stay; it says so, and the status is 0."""
    done = run_dir(place / "run-done", f"{run_id}done")
    names = {"running": {"host": "elsewhere"}, "crashed": {"host": hostname(), "pid": 0}}
    for name, spec in names.items():
        lines = {"w" * 16: [begin(f"{run_id}{name}"), *logs(2, 9)]}
        run_dir(place / f"run-{name}", f"{run_id}{name}", lines, finished=False, spec=spec)
    watching = watch(place, "--clean")
    until(lambda: watching.told("cleaned", f"{run_id}done"))
    until(lambda: watching.told("following", f"{run_id}running"))
    until(lambda: watching.told("delivered", f"{run_id}crashed"))
    assert watching.stop() == 0
    assert not done.exists() and (place / "run-running").exists() and (place / "run-crashed").exists()
    assert (place / ".delivered" / f"{run_id}done.spec").exists()
    [kept] = [e["kept"] for e in watching.events() if e["event"] == "delivered" and e["id"] == f"{run_id}crashed"]
    assert "24 hours" in kept
    assert not watching.told("missing")


def test_a_watch_that_is_quiet_tells_only_what_went_wrong(watch: Any, place: Path, run_id: str) -> None:
    """As JSON, too."""
    run_dir(place / "run-good", f"{run_id}good")
    run_dir(place / "run-torn", f"{run_id}torn", {"w" * 16: [begin(f"{run_id}torn"), *logs(3, 9), FINISH]})
    watching = watch(place, "--quiet", "--until-finished")
    assert watching.process.wait(30) == 3
    assert {e["event"] for e in watching.events()} <= {"damaged", "failed"} and watching.told(
        "damaged", f"{run_id}torn"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--watch", "--id", "x"),
        ("--watch", "--dry-run"),
        ("--watch", "--include-synced"),
        ("--watch", "--restore-deleted"),
        ("--watch", "--timeout", "9"),
        ("--watch", "--keep-artifacts"),
        ("--interval", "9"),
        ("--until-finished",),
        ("--all-users",),
        ("--give-up-after", "9"),
    ],
)
def test_no_option_is_passed_over_in_silence(words: tuple[str, ...], place: Path, home: Path) -> None:
    """What a watch has no use for is refused with the reason, and so is what only a watch has."""
    said = quick("sync", *words, place, home=home)
    assert said.code == 2 and said.err.count("\n") == 1, said
    assert words[-1 if words[-1].startswith("--") else -2] in said.err
