"""Real processes: scripts as they stand, killed, forked, signalled, and cut off from the network."""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flightlog

JournalOf = Callable[[Path], Any]
Script = Callable[..., "subprocess.CompletedProcess[str]"]

ISSUE = """
import flightlog as wandb
wandb.init(mode="offline")
for i in range(10):
    wandb.log({"metric": i, "loss": 10 - i})
wandb.finish()
"""
NO_SOCKETS = """
import socket
def forbidden(*args, **kwargs):
    raise AssertionError("the network was touched")
socket.socket = socket.create_connection = socket.getaddrinfo = forbidden
"""


def assert_issue_script_recorded(root: Path, journal: JournalOf) -> None:
    for place in (root, root / "latest"):
        assert (place / "latest.spec").is_file() and (place / "files").is_dir()
        spec = json.loads((place / "latest.spec").read_bytes())
        assert (spec["state"], spec["step"], spec["summary"]) == ("finished", 10, {"metric": 9, "loss": 1})
    found = journal(root)
    assert found.logged("metric") == list(range(10)) and found.logged("loss") == list(range(10, 0, -1))
    assert found.sound and found.fold.state == "finished"
    assert (root / ".gitignore").read_text() == "*\n"


# -- scripts as they stand ---------------------------------------------------------------------------------------------


def test_the_issues_script_runs_as_it_stands(script: Script, tmp_path: Path, journal: JournalOf) -> None:
    """It leaves flightlog/latest.spec and flightlog/files/, and the same under flightlog/latest/; stdout is its own."""
    done = script(ISSUE)
    assert done.stdout == ""
    assert_issue_script_recorded(tmp_path / "flightlog", journal)


def test_it_runs_with_sockets_forbidden(script: Script, tmp_path: Path, journal: JournalOf) -> None:
    """A training process never touches the network."""
    script(NO_SOCKETS + ISSUE)
    assert_issue_script_recorded(tmp_path / "flightlog", journal)


def test_it_runs_without_any_network(tmp_path: Path, journal: JournalOf) -> None:
    """Under a kernel that shows it no network at all."""
    cut = ["unshare", "-rn"]
    if shutil.which("unshare") is None or subprocess.run([*cut, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare -rn is not allowed here")
    core = Path(__file__).parents[2] / "core"
    environment = {**os.environ, "PYTHONPATH": str(core)}
    subprocess.run([*cut, sys.executable, "-c", ISSUE], env=environment, check=True, capture_output=True, timeout=60)
    assert_issue_script_recorded(tmp_path / "flightlog", journal)


def test_a_folder_named_flightlog_in_the_way_of_the_import(script: Script, tmp_path: Path, journal: JournalOf) -> None:
    """The folder of runs beside the script does not hide the package, in the second run either."""
    script(ISSUE)
    script(ISSUE)
    done = subprocess.run(
        [sys.executable, "-c", ISSUE + "print(wandb.__file__)"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "core")},
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert Path(done.stdout.strip()).parts[-2:] == ("flightlog", "__init__.py")
    assert len(list((tmp_path / "flightlog").glob("run-*"))) == 3


def test_the_import_is_light(script: Script) -> None:
    """Importing and recording load neither the server's client, nor the terminal's colours, nor any framework."""
    done = script(
        ISSUE + "import sys; print([m for m in ('requests', 'rich', 'click', 'psutil', 'zstandard', 'numpy', 'torch', "
        "'PIL', 'pyfastcdc', 'fastapi', 'asyncio') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]"


def test_arguments_that_are_no_utf8(script: Script, tmp_path: Path, journal: JournalOf) -> None:
    """A file name's odd bytes on the command line or in a variable are no reason not to record."""
    script(ISSUE, b"--data=\xff\xfe", FLIGHTLOG_NAME="\udcff name", FLIGHTLOG_TAGS="\udcfe")
    assert_issue_script_recorded(tmp_path / "flightlog", journal)
    spec = json.loads((tmp_path / "flightlog" / "latest.spec").read_bytes())
    assert (
        spec["command"][-1] == "--data=\\udcff\\udcfe"
        and spec["name"] == "\\udcff name"
        and spec["tags"] == ["\\udcfe"]
    )


# -- ends that nobody wrote --------------------------------------------------------------------------------------------


def test_a_script_without_finish_is_finished(script: Script, tmp_path: Path, journal: JournalOf) -> None:
    """At its end the run is ended for it."""
    script("import flightlog; flightlog.init(); flightlog.log({'x': 1})")
    assert journal(tmp_path / "flightlog").fold.state == "finished"


@pytest.mark.parametrize("ending", ["raise ValueError('went wrong')", "raise KeyboardInterrupt"])
def test_an_uncaught_exception_is_a_failed_run(script: Script, tmp_path: Path, journal: JournalOf, ending: str) -> None:
    """Its traceback is in the journal and on stderr as ever."""
    done = script(f"import flightlog; flightlog.init(); flightlog.log({{'x': 1}})\n{ending}\n", expect=None)
    assert done.returncode != 0 and "Traceback" in done.stderr
    fold = journal(tmp_path / "flightlog").fold
    assert fold.state == "failed" and fold.error is not None and "script.py" in fold.error["traceback"]


def test_threads_that_outlive_main_are_recorded(script: Script, tmp_path: Path, journal: JournalOf) -> None:
    """Non-daemon threads go on logging after the main one has ended; the run ends after them."""
    script(
        "import flightlog, threading, time\n"
        "flightlog.init()\n"
        "def work():\n    time.sleep(0.2)\n    for i in range(5): flightlog.log({'x': i})\n"
        "threading.Thread(target=work).start()\n"
    )
    found = journal(tmp_path / "flightlog")
    assert found.logged("x") == list(range(5)) and found.fold.state == "finished"


def test_logging_while_the_interpreter_shuts_down(script: Script, tmp_path: Path, journal: JournalOf) -> None:
    """A destructor, or an earlier-registered atexit function, that logs too late neither hangs nor crashes."""
    done = script(
        "import atexit, flightlog\n"
        "def late():\n"
        "    try: flightlog.log({'late': 1})\n"
        "    except flightlog.UsageError: print('refused')\n"
        "atexit.register(late)\n"
        "class Late:\n    def __del__(self): late()\n"
        "kept = Late(); kept.me = kept\n"
        "run = flightlog.init()\nflightlog.log({'x': 1})\n"
    )
    assert "refused" in done.stdout
    assert journal(tmp_path / "flightlog").fold.state == "finished"


def test_sigterm_whose_handler_finishes(tmp_path: Path, journal: JournalOf) -> None:
    """A handler that logs, finishes and exits, in the midst of a loop that does nothing but log."""
    source = """
import flightlog, signal, sys
run = flightlog.init()
def stop(signum, frame):
    flightlog.log({"stopped": 1})
    flightlog.finish(exit_code=1)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
i = 0
while True:
    run.log({"x": i}); i += 1
"""
    for delay in (0.0, 0.03, 0.06):
        process = start(source)
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        found = journal(tmp_path / "flightlog")
        assert found.logged("x") == list(range(len(found.logged("x"))))
        assert found.logged("stopped") == [1] and found.fold.state == "failed" and found.sound
        assert json.loads((tmp_path / "flightlog" / "latest.spec").read_bytes())["state"] == "failed"


def start(source: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a script and wait until it has printed its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "core")},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        ready = process.stdout.readline()
    if not ready:
        process.kill()
        process.wait()
        raise AssertionError("the script did not start")
    return process


# -- killed ------------------------------------------------------------------------------------------------------------

KILLED = """
import flightlog, mmap, sys, threading
file = open(sys.argv[1], "r+b")
counters = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")  # one store per count, which a kill cannot halve
run = flightlog.init(config={"a": 1})
def work(slot):
    n = 0
    while True:
        run.log({"n": n, "slot": slot} if n % 7 else {"n": n, "slot": slot, "text": "x" * (n % 300)})
        n += 1
        counters[slot] = n
threading.Thread(target=work, args=(1,), daemon=True).start()
print("ready", flush=True)
work(0)
"""


@pytest.mark.parametrize("round_", range(10))
def test_sigkill_loses_nothing_that_was_acknowledged(
    tmp_path: Path, dice: random.Random, journal: JournalOf, round_: int
) -> None:
    """Killed at a random moment, with two threads logging: every log() that had returned is read back, once."""
    counters = tmp_path / "counters"
    counters.write_bytes(bytes(16))
    process = start(KILLED, str(counters))
    time.sleep(dice.uniform(0, 0.15))
    process.kill()
    process.wait(20)
    with counters.open("r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        acknowledged = struct.unpack("qq", shared[:])
    found = journal(tmp_path / "flightlog")
    for slot, count in enumerate(acknowledged):
        numbers = [r.data["n"] for r in found.of("log") if r.data["slot"] == slot]
        assert numbers == list(range(len(numbers))) and count <= len(numbers) <= count + 1
    (report,) = found.reports.values()
    assert report.sound and not report.damage and len(report.torn) <= 1
    assert found.fold.state == "running" and found.fold.config == {"a": 1}
    assert json.loads((tmp_path / "flightlog" / "latest.spec").read_bytes())["state"] == "running"


# -- forked ------------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child and return its exit status; a child that hangs is killed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    for _ in range(2000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the child hung")


pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


def test_a_forked_child_has_a_writer_of_its_own(journal: JournalOf) -> None:
    """Parent and child log to one run, each in its own folder; the child's parent is the writer it was copied from."""
    run = flightlog.init()
    run.log({"who": "before"})

    def child() -> None:
        run.log({"who": "child"})
        run.finish()

    assert in_child(child) == 0
    assert in_child(lambda: run.log({"who": "child"})) == 0
    run.log({"who": "after"})
    assert run.rundir.read_spec()["state"] == "running"
    run.finish()
    found = journal(run.dir)
    assert sorted(found.logged("who")) == ["after", "before", "child", "child"] and found.sound
    assert len(found.reports) == 3
    assert [set(r.data.get("parents", {}).values()) for r in found.of("run")] == [set(), {2}, {2}]
    assert found.fold.state == "finished" and len(found.of("finish")) == 2


def test_a_child_that_does_not_log_leaves_no_trace(journal: JournalOf) -> None:
    """A data loader's worker, say: nothing is written for it, also when it ends like a script."""
    run = flightlog.init()
    assert in_child(lambda: None) == 0
    run.finish()
    assert len(journal(run.dir).reports) == 1


def test_a_fork_in_the_midst_of_others_appends(journal: JournalOf) -> None:
    """Children forked while other threads hold the run's locks neither hang nor disturb the parent."""
    run = flightlog.init()
    stop = threading.Event()
    counts = [0, 0]

    def work(slot: int) -> None:
        while not stop.is_set():
            run.log({f"t{slot}": counts[slot]})
            counts[slot] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()

    def child() -> None:
        for n in range(3):
            run.log({"child": n})
        run.config.update({"from_child": 1})
        run.finish()

    try:
        for _ in range(12):
            assert in_child(child) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    run.finish()
    found = journal(run.dir)
    assert found.sound and len(found.reports) == 13
    assert sorted(found.logged("child")) == sorted(list(range(3)) * 12)
    for slot in range(2):
        assert found.logged(f"t{slot}") == list(range(counts[slot]))
    assert found.fold.state == "finished"


def test_multiprocessing_children(script: Script, tmp_path: Path, journal: JournalOf) -> None:
    """Workers of a fork pool log to the run; the run ends with its main process."""
    script(
        "import flightlog, multiprocessing, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "def work(i): flightlog.log({'worker': i})\n"
        "if __name__ == '__main__':\n"
        "    flightlog.init()\n"
        "    with multiprocessing.get_context('fork').Pool(3) as pool: pool.map(work, range(20))\n"
        "    flightlog.log({'main': 1})\n"
    )
    found = journal(tmp_path / "flightlog")
    assert sorted(found.logged("worker")) == list(range(20)) and found.fold.state == "finished" and found.sound


def test_a_child_may_begin_a_run_of_its_own(journal: JournalOf) -> None:
    """init() in a forked child ends only the child's part of the old run."""
    run = flightlog.init()

    def child() -> None:
        own = flightlog.init(id="own")
        own.log({"x": 2})
        own.finish()

    assert in_child(child) == 0
    run.log({"x": 1})
    run.finish()
    assert journal(run.dir).logged("x") == [1] and journal(run.dir).fold.state == "finished"
    (own,) = Path("flightlog").glob("run-*-own")
    assert journal(own).logged("x") == [2]


def test_a_daemon_that_closed_all_descriptors(tmp_path: Path, journal: JournalOf) -> None:
    """A child that closes everything and opens files of its own does not lose them to the recorder."""
    run = flightlog.init()

    def child() -> None:
        os.closerange(3, 64)
        mine = [os.open(tmp_path / f"mine{i}", os.O_CREAT | os.O_WRONLY) for i in range(20)]
        run.log({"x": 1})
        run.finish()
        for fd in mine:
            os.write(fd, b"mine")

    assert in_child(child) == 0
    run.finish()
    assert journal(run.dir).logged("x") == [1]
    assert all((tmp_path / f"mine{i}").read_bytes() == b"mine" for i in range(20))


# -- where nothing can be written --------------------------------------------------------------------------------------


def test_a_full_disk_does_not_stop_a_training(script: Script, tmp_path: Path) -> None:
    """On a small file system that fills up and is cleared: the script runs to its end, and no record is missing."""
    room = tmp_path / "small"
    room.mkdir()
    source = """
import flightlog, os, shutil
run = flightlog.init(dir="small/flightlog")
for i in range(6000):
    run.log({f"metric_{k}": i + k for k in range(12)})
    if i == 4000:
        os.unlink("small/ballast")
for _ in range(3):
    run._recorder.writer.sync(patient=False)
run.log({"last": 1})
run.finish()
import flightlog.journal.scan as scan
whole = scan.RunJournal([run.rundir.journal])
found = [r.data["metric_0"] for _, r in whole.records() if "metric_0" in r.data]
print(found == list(range(6000)), all(r.sound for r in whole.reports.values()))
"""
    mount = "mount -t tmpfs -o size=4m none small && head -c 3700000 /dev/zero > small/ballast"
    mounted = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, source],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "core")},
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "unshare" in mounted.stderr or "mount" in mounted.stderr:
        pytest.skip("mounting is not allowed here")
    assert mounted.returncode == 0, mounted.stderr
    assert mounted.stdout.split() == ["True", "True"], mounted.stderr
    assert mounted.stderr.count("cannot be written (No space left on device)") == 1
