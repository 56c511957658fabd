"""mode="online": delivered while it runs, whatever happens to the server, the network or the training."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from flightlog import followed, terminal
from flightlog.process import birth_of, hostname
from flightlog.rundir import RunDir
from flightlog.waiting import Waiting

from ..server.tools import Server, flightlog, run_dir
from .tools import Trainings, until

STEPS = """
run = flightlog.init(**{})
for step in range({}):
    flightlog.log({{"loss": 1 / (step + 1)}})
    time.sleep(0.01)
"""


def steps(count: int, **arguments: object) -> str:
    """Return a training of so many steps, 10 ms apart."""
    return STEPS.format(arguments, count)


def test_a_run_is_delivered_while_it_is_recorded(server: Server, trainings: Trainings, run_id: str) -> None:
    """Records and files are there before it ends, all of it at its end, and the script says where."""
    training = trainings.start(
        steps(20)
        + """
        flightlog.log({"note": flightlog.Text("hello")})
        open("weights", "w").write("w" * 100_000)
        flightlog.log_artifact("weights", name="weights", type="model")
        while not os.path.exists("go"):
            time.sleep(0.02)
        """.replace("\n        ", "\n"),
        run_id,
        server,
    )
    home = Path(str(trainings._home))
    until(lambda: training.seen(server) > 20)
    until(
        lambda: (
            len(server.query("SELECT 1 FROM runs r JOIN files f ON f.run_id = r.id WHERE r.run_id = ?", run_id)) >= 3
        )
    )
    assert training.state(server) == "running"
    (home / "go").touch()
    said = training.wait()
    assert said.code == 0 and said.err.count("\n") == 4, said
    assert f"delivered: {server.url}/w/admin/p/runs/{run_id}" in said.err
    assert training.is_delivered(server) and training.state(server) == "finished"
    assert not (training.dir / "files" / "saved").exists(), "what the follower leaves is no part of the run"
    until(lambda: not training.follower.is_running)  # type: ignore[union-attr]


def test_the_training_opens_no_socket(server: Server, trainings: Trainings, run_id: str) -> None:
    """Neither socket module nor HTTP library is imported, and python's audit sees no socket, from init to the end."""
    training = trainings.start(
        """
        seen = []
        sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("socket.") else None)
        """.replace("\n        ", "\n")
        + steps(20)
        + """
flightlog.finish()
print([name for name in ("socket", "requests", "urllib3", "zstandard", "click") if name in sys.modules], seen)
""",
        run_id,
        server,
    )
    said = training.wait()
    assert said.out == "[] []\n" and "delivered:" in said.err, said


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_thread_of_the_training_asks_the_kernel_for_a_network(
    server: Server, trainings: Trainings, run_id: str, tmp_path: Path
) -> None:
    """By strace: all calls for an internet socket come from the follower, none from the training or its threads."""
    log = tmp_path / "trace"
    calls = "trace=socket,connect,execve,clone,clone3,fork,vfork"
    more = {"FLIGHTLOG_SYSTEM_INTERVAL": "1", "FLIGHTLOG_CONSOLE": "wrap"}
    training = trainings.start(
        steps(60), run_id, server, wrapper=("strace", "-f", "-qq", "-e", calls, "-o", str(log)), **more
    )
    said = training.wait()
    if "ptrace" in said.err and said.code:
        pytest.skip("strace may not trace here")
    assert "delivered:" in said.err, said
    until(lambda: not training.follower.is_running)  # type: ignore[union-attr]
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    threads = {lines[0][0]}
    for pid, call in lines:  # a thread's threads are the training's, a process's are not
        made = re.search(r"= (\d+)$", call)
        if pid in threads and made and "CLONE_THREAD" in call:
            threads.add(made[1])
    network = {pid for pid, call in lines if call.startswith("socket(AF_INET")}
    assert network and not network & threads, (threads, network)


def test_a_server_that_is_down_at_the_start_is_delivered_to_when_it_is_up(
    own_server: Server, trainings: Trainings, run_id: str
) -> None:
    """The training says so in one line, ends as usual, and its follower delivers when the server is there."""
    own_server.stop()
    training = trainings.start(steps(20), run_id, own_server, FLIGHTLOG_FINISH_TIMEOUT="3")
    said = training.wait()
    assert said.code == 0 and said.err.count("cannot be reached") == 1, said
    assert f"to go on with that: flightlog sync {training.dir} --server {own_server.url}\n" in said.err
    standing = training.follower
    assert standing is not None and standing.is_running and standing.state == "waiting"
    own_server.start()
    until(lambda: not training.follower.is_running, 45)  # type: ignore[union-attr]
    assert training.is_delivered(own_server) and training.state(own_server) == "finished"


def test_a_server_killed_in_the_middle_misses_nothing(own_server: Server, trainings: Trainings, run_id: str) -> None:
    """SIGKILL to the server while records arrive, and a start a while later: every record is there once."""
    training = trainings.start(steps(400), run_id, own_server)
    until(lambda: training.seen(own_server) > 30)
    own_server.kill()
    until(lambda: training.follower.state == "waiting")  # type: ignore[union-attr]
    own_server.start()
    said = training.wait()
    assert said.code == 0 and "delivered:" in said.err, said
    assert said.err.count("warning") <= 1, said
    assert training.is_delivered(own_server)


@pytest.mark.slow
def test_a_server_that_dies_at_the_end_gets_the_rest_from_a_sync(
    own_server: Server, trainings: Trainings, run_id: str, home: Path
) -> None:
    """finish() waits no longer than its limit; the command that it prints delivers what is left."""
    training = trainings.start(
        steps(30) + 'open("ready", "w")\nwhile os.path.exists("ready"): time.sleep(0.02)\nflightlog.log({"last": 1})\n',
        run_id,
        own_server,
        FLIGHTLOG_FINISH_TIMEOUT="2",
        FLIGHTLOG_FOLLOW_TIMEOUT="0",
    )
    until(lambda: training.seen(own_server) > 30)
    own_server.kill()
    (home / "ready").unlink()
    said = training.wait()
    assert said.code == 0 and "delivered:" not in said.err, said
    until(lambda: training.follower.state == "given up")  # type: ignore[union-attr]
    own_server.start()
    assert not training.is_delivered(own_server)
    command = re.search(r"flightlog (sync \S+)$", said.err, re.MULTILINE)
    assert command, said
    named = {"FLIGHTLOG_BASE_URL": own_server.url, "FLIGHTLOG_API_KEY": own_server.key}
    assert flightlog(*command[1].split(), home=home, **named).code == 0
    assert training.is_delivered(own_server)


@pytest.mark.slow
def test_a_server_restored_from_a_backup_gets_the_run_again(
    own_server: Server, trainings: Trainings, run_id: str, tmp_path: Path
) -> None:
    """A server that forgot the run in the middle is given all of it anew, by the follower, without a word."""
    own_server.stop()
    shutil.copytree(own_server.data, tmp_path / "backup")
    own_server.start()
    training = trainings.start(steps(400), run_id, own_server)
    until(lambda: training.seen(own_server) > 30)
    own_server.kill()
    shutil.rmtree(own_server.data)
    shutil.copytree(tmp_path / "backup", own_server.data)
    own_server.start()
    said = training.wait()
    assert "delivered:" in said.err and training.is_delivered(own_server), said


def test_a_killed_training_is_delivered_as_crashed(server: Server, trainings: Trainings, run_id: str) -> None:
    """SIGKILL to the training's whole group: the follower is not in it, sees it dead, delivers, and ends."""
    training = trainings.start(steps(5000), run_id, server)
    until(lambda: training.seen(server) > 20)
    os.killpg(training.process.pid, signal.SIGKILL)
    training.process.wait(10)
    until(lambda: training.state(server) == "crashed")
    until(lambda: not training.follower.is_running)  # type: ignore[union-attr]
    assert training.is_delivered(server)


def test_a_follower_that_was_killed_is_started_again_at_the_end(
    server: Server, trainings: Trainings, run_id: str, home: Path
) -> None:
    """The end of the run finds it dead, starts another, and everything is delivered."""
    training = trainings.start(
        steps(20) + 'while not os.path.exists("go"): time.sleep(0.02)\nflightlog.log({"last": 1})\n', run_id, server
    )
    until(lambda: training.seen(server) > 20)
    standing = training.follower
    assert standing is not None
    os.kill(standing.pid, signal.SIGKILL)
    (home / "go").touch()
    said = training.wait()
    assert "delivered:" in said.err and training.is_delivered(server), said


def test_sigterm_ends_at_once_and_the_follower_delivers(own_server: Server, trainings: Trainings, run_id: str) -> None:
    """A batch system's grace period is not spent on a server that does not answer."""
    training = trainings.start(steps(5000), run_id, own_server, FLIGHTLOG_FINISH_TIMEOUT="600")
    until(lambda: training.seen(own_server) > 20)
    own_server.kill()
    training.process.terminate()
    said = training.wait()
    assert said.code == -signal.SIGTERM and f"flightlog sync {training.dir}" in said.err, said
    own_server.start()
    until(lambda: training.state(own_server) == "preempted", 45)


def test_ctrl_c_stops_the_waiting_only(own_server: Server, trainings: Trainings, run_id: str) -> None:
    """The run has ended by then; the script goes on behind finish()."""
    own_server.stop()
    script = steps(3) + 'try:\n    flightlog.finish()\nfinally:\n    print("on")\n'
    training = trainings.start(script, run_id, own_server, FLIGHTLOG_FINISH_TIMEOUT="600")
    spec = until(lambda: next(training.dir.parent.glob("run-*/latest.spec"), None))
    until(lambda: json.loads(spec.read_bytes())["state"] == "finished")
    time.sleep(0.5)
    training.process.send_signal(signal.SIGINT)
    said = training.wait()
    assert said.code == 0 and said.out == "on\n" and "flightlog sync" in said.err, said


def test_a_wrong_key_is_said_once_and_not_tried_again(server: Server, trainings: Trainings, run_id: str) -> None:
    """One line in the training, status in follower.json, no follower left; the run is on the disk."""
    training = trainings.start(steps(20), run_id, server, FLIGHTLOG_API_KEY="fl_00000000_wrong")
    said = training.wait()
    assert said.code == 0 and said.err.count("warning") == 1 and "API key" in said.err, said
    standing = training.follower
    assert standing is not None and standing.state == "refused" and not standing.is_running
    assert (training.dir / followed.LOG).read_text().count("refused") == 1


def test_a_key_that_the_follower_cannot_have_is_said_once(
    server: Server, trainings: Trainings, home: Path, run_id: str
) -> None:
    """It is in a keyring that nobody has unlocked: one line with the way out, and the end waits for nothing."""
    place = home / ".config" / "flightlog" / "credentials.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"servers": {server.url: {"keyring": True, "insecure": False}}, "default": server.url}))
    training = trainings.start(steps(20), run_id, None)
    said = training.wait()
    assert said.code == 0 and said.err.count("warning") == 1 and "flightlog login --no-keyring" in said.err, said
    assert "waiting up to" not in said.err, said
    standing = training.follower
    assert standing is not None and standing.state == "refused" and not standing.is_running


def test_a_refused_run_is_said_once_and_its_follower_ends_with_it(
    server: Server, trainings: Trainings, run_id: str
) -> None:
    """A workspace that the key's account has no part in: one line, nothing waits for long, the run is on the disk."""
    training = trainings.start(steps(20), run_id, server, FLIGHTLOG_WORKSPACE="somebody-else")
    said = training.wait()
    assert said.code == 0 and said.err.count("warning") == 1 and "somebody-else" in said.err, said
    standing = training.follower
    assert standing is not None and standing.state == "stopped" and not standing.is_running
    assert len(list((training.dir / "files" / "journal").iterdir())) == 1


def test_a_run_of_several_processes_has_one_follower(server: Server, trainings: Trainings, run_id: str) -> None:
    """A forked child records into the same run; what it says arrives by the one follower."""
    script = """
        import multiprocessing
        flightlog.init()
        def work(number):
            flightlog.log({"child": number})
        for number in range(3):
            child = multiprocessing.get_context("fork").Process(target=work, args=(number,))
            child.start()
            child.join()
        flightlog.log({"parent": 1})
    """
    training = trainings.start(script, run_id, server)
    said = training.wait()
    assert "delivered:" in said.err and training.is_delivered(server), said
    assert len(server.journal(run_id)) == 4
    assert (training.dir / followed.LOG).read_text().count(" delivered ") == 1


def test_the_ranks_of_a_job_have_one_follower(server: Server, trainings: Trainings, run_id: str) -> None:
    """Two ranks on one disk: the first one's follower delivers both."""
    facts = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    ranks = [
        trainings.start(steps(30 + 60 * rank), run_id, server, RANK=str(rank), LOCAL_RANK=str(rank), **facts)
        for rank in range(2)
    ]
    said = [rank.wait() for rank in ranks]
    assert [s.code for s in said] == [0, 0] and "delivered:" in said[0].err, said
    until(lambda: ranks[0].is_delivered(server))
    assert len(server.journal(run_id)) == 2
    logs = list(ranks[0].dir.parent.rglob(followed.LOG))
    assert logs == [ranks[0].dir / followed.LOG]


def test_a_resumed_run_is_followed_again(server: Server, trainings: Trainings, run_id: str) -> None:
    """The second life of a run, in the same directory, has a follower of its own and arrives as well."""
    for _ in range(2):
        training = trainings.start(steps(20), run_id, server)
        said = training.wait()
        assert "delivered:" in said.err, said
    assert training.is_delivered(server) and len(server.journal(run_id)) == 2
    answer = server.api("GET", f"runs/admin/p/{run_id}").json()
    assert answer["state"] == "finished" and answer["step"] == 40


@pytest.mark.slow
def test_the_time_from_log_to_server(server: Server, trainings: Trainings, run_id: str) -> None:
    """Measured and printed, for this machine as busy as it is: how far the server is behind at 100 records a second."""
    training = trainings.start(steps(300), run_id, server)
    until(lambda: training.seen(server) > 20)
    behind = []
    while training.process.poll() is None and len(behind) < 40:
        here = sum(p.read_bytes().count(b"\n") for p in training.dir.glob("files/journal/*/*.jsonl"))
        behind.append((here - training.seen(server)) / 100)
        time.sleep(0.03)
    training.wait()
    print(f"behind by (s): median {sorted(behind)[len(behind) // 2]:.2f}, most {max(behind):.2f}")
    assert len(behind) > 5


def test_a_follower_that_nobody_has_buried_is_not_waited_for(tmp_path: Path) -> None:
    """In a container whose first process is the training, one that was killed stays a zombie: it does not run."""
    with subprocess.Popen(["sleep", "60"]) as process:
        standing = followed.Standing(process.pid, hostname(), birth_of(process.pid), state="following")
        assert standing.is_running
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not standing.is_running


def test_a_run_that_logs_without_a_pause_does_not_hold_up_its_files(
    server: Server, trainings: Trainings, run_id: str, tmp_path: Path
) -> None:
    """Before it ends its text is on the server, and the training can see that its follower gets on."""
    script = """
    flightlog.init()
    while not os.path.exists("go"):
        flightlog.log({"loss": 1})
        if flightlog.run.step == 1000:
            flightlog.log({"note": flightlog.Text("hello")})
    """
    training = trainings.start(script, run_id, server)
    files = "SELECT path FROM files f JOIN runs r ON f.run_id = r.id WHERE r.run_id = ? AND path LIKE '%media%'"
    until(lambda: server.query(files, run_id))
    until(lambda: training.follower is not None and training.follower.state == "following")
    (tmp_path / "home" / "go").touch()
    assert training.wait().code == 0
    assert training.is_delivered(server)


def test_a_run_that_is_cleaned_while_it_is_waited_for_is_delivered(tmp_path: Path) -> None:
    """Another process delivers and cleans it: the wait ends at once, and no follower is started where nothing is."""
    run = RunDir(run_dir(tmp_path / "run-x", "cleaned"))
    followed.save(run, followed.Standing(server="http://s", state="following", url="http://s/run", updated_at=2.0))
    restarted: list[bool] = []

    def clean() -> None:
        aside = run.path.rename(tmp_path / ".aside")
        time.sleep(0.3)
        (tmp_path / ".delivered").mkdir()
        shutil.move(aside / "latest.spec", tmp_path / ".delivered" / "cleaned.spec")
        shutil.rmtree(aside)

    threading.Timer(0.3, clean).start()
    waiting = Waiting(run, "http://s", 1.0, lambda: restarted.append(True))
    assert waiting.until_delivered(100) == "http://s/run"
    assert not restarted


@pytest.mark.parametrize("columns", [60, 0])
def test_the_line_that_changes_fits_into_a_row(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """On a narrow terminal it is cut, since what wraps cannot be drawn over; one of unknown width counts as 80."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(theirs, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        terminal.redraw("waiting 7 s more (Ctrl-C: no longer): " + "x" * 300)
        terminal.redraw("")
        monkeypatch.undo()
        drawn = os.read(ours, 1000).decode()
    os.close(ours)
    first, _, last = drawn.removeprefix("\r\x1b[K").partition("\r\x1b[K")
    assert first.startswith("flightlog: waiting 7 s more") and first.endswith("x…") and last == "", drawn
    assert len(first) == (columns or 80) - 1
