"""Runs that fall silent: what the server says of them by its own clock, and that it takes it back."""

from __future__ import annotations

import os
import signal
import time

from ..server.tools import Server, begin, line, logs, zstd
from .test_online import steps
from .tools import Trainings, until

WRITER = "w" * 16
PASSES = "UPDATE runs SET alive_until = alive_until - ? WHERE run_id = ?"
FOLLOWED, SYNCED = 300.0, 2 * 3600.0


def send(server: Server, run_id: str, lines: list[bytes], first: int, before: str, **more: str) -> str:
    """Send records; return the digest of all up to them."""
    params = "&".join(f"{name}={value}" for name, value in {"first": first, "before": before, **more}.items())
    answer = server.api("POST", f"runs/admin/p/{run_id}/records/{WRITER}?{params}", zstd(b"".join(lines)))
    assert answer.status == 200, answer
    return str(answer.json()["digest"])


def begun(server: Server, run_id: str, **about: object) -> str:
    """Deliver the first records of a run that goes on."""
    answer = server.api("PUT", f"runs/admin/p/{run_id}", {"alive": True, **about})
    assert answer.json()["run"]["state"] == "running"
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    return send(server, run_id, [begin(run_id), *logs(2, 9)], 1, empty)


def states(server: Server, run_id: str) -> set[str]:
    """Return the states that the API says of a run, wherever it does."""
    listed = server.api("GET", "projects/admin/p/runs?limit=1000").json()["runs"]
    one = server.api("GET", f"runs/admin/p/{run_id}").json()
    return {one["state"], *(run["state"] for run in listed if run["id"] == run_id)}


def counted(server: Server) -> int:
    """Return how many runs of the project are counted as running."""
    projects = server.api("GET", "projects").json()["projects"]
    return int(next(project["running"] for project in projects if project["name"] == "p"))


def test_a_followed_run_of_which_nothing_comes_has_crashed_until_something_does(server: Server, run_id: str) -> None:
    """Five minutes without a heartbeat, and the API says so in each place; the next record takes it back."""
    digest = begun(server, run_id, followed=True)
    running = counted(server)
    server.execute(PASSES, FOLLOWED - 60, run_id)
    assert states(server, run_id) == {"running"}
    server.execute(PASSES, 61, run_id)
    assert states(server, run_id) == {"crashed"} and counted(server) == running - 1
    digest = send(server, run_id, [line(10, "heartbeat", {})], 10, digest, followed="true")
    assert states(server, run_id) == {"running"} and counted(server) == running
    send(server, run_id, [line(11, "finish", {"state": "finished"})], 11, digest)
    server.execute(PASSES, SYNCED, run_id)
    assert states(server, run_id) == {"finished"}


def test_a_run_that_is_only_synced_now_and_then_is_believed_for_longer(server: Server, run_id: str) -> None:
    """An hour after a sync that saw it alive it is running, three hours after it is not, until the next sync."""
    begun(server, run_id)
    server.execute(PASSES, 3600.0, run_id)
    assert states(server, run_id) == {"running"}
    server.execute(PASSES, 2 * 3600.0, run_id)
    assert states(server, run_id) == {"crashed"}
    server.api("PUT", f"runs/admin/p/{run_id}", {"alive": True})
    assert states(server, run_id) == {"running"}


def test_what_was_sent_before_is_no_sign_of_life(server: Server, run_id: str) -> None:
    """The same records once more leave a silent run as it is."""
    digest = begun(server, run_id, followed=True)
    lines = [line(10, "heartbeat", {})]
    send(server, run_id, lines, 10, digest, followed="true")
    server.execute(PASSES, FOLLOWED, run_id)
    send(server, run_id, lines, 10, digest, followed="true")
    assert states(server, run_id) == {"crashed"}


def test_records_that_are_followed_show_life_whatever_another_sync_has_said(server: Server, run_id: str) -> None:
    """Somebody syncs the dead directory of a requeued job, or an ended rank's, while another of the run goes on."""
    digest = begun(server, run_id, followed=True)
    server.api("PUT", f"runs/admin/p/{run_id}", {"alive": False})
    assert states(server, run_id) == {"crashed"}
    send(server, run_id, logs(10, 11), 10, digest, followed="true")
    assert states(server, run_id) == {"running"}


def test_where_the_follower_dies_with_the_training_the_server_says_it(
    server: Server, trainings: Trainings, run_id: str
) -> None:
    """Both are killed, as with a whole control group: the server believes in the run for five minutes, no longer."""
    training = trainings.start(steps(10_000), run_id, server)
    until(lambda: training.follower is not None and training.follower.state == "following")
    until(lambda: training.seen(server) > 50)
    assert training.follower is not None
    os.kill(training.follower.pid, signal.SIGKILL)
    training.process.kill()
    training.process.wait(30)
    [(alive_until,)] = server.query("SELECT alive_until FROM runs WHERE run_id = ?", run_id)
    assert time.time() < alive_until < time.time() + FOLLOWED
    assert training.state(server) == "running"
    server.execute(PASSES, FOLLOWED, run_id)
    assert training.state(server) == "crashed"
