"""The console of real processes: killed, forked, interrupted, with children and C libraries that print."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flightlog.console.transcript import Transcript

from .conftest import environment

Script = Callable[..., "subprocess.CompletedProcess[str]"]

START = """
import os, sys, time, signal, subprocess, ctypes
from pathlib import Path
from flightlog.console import Console
console = Console(Path("journal"), sys.argv[1] if len(sys.argv) > 1 else "wrap")
console.start()
"""


def lines_of(journal: Path, stream: str | None = None) -> list[str]:
    """Return what a journal's console records show, writer by writer in order of their first record."""
    from flightlog.journal.record import check

    shown: list[str] = []
    for writer in sorted(journal.iterdir(), key=lambda folder: (folder / "000001.jsonl").read_bytes()[8:40]):
        transcript = Transcript(stream)
        for segment in sorted(writer.glob("*.jsonl")):
            for raw in segment.read_bytes().splitlines(keepends=True):
                line = check(raw)
                assert line is not None and line.kind == "console"
                transcript.add(line.record().data)
        shown += [line.text for line in transcript.lines()]
    return shown


def eventually(journal: Path, wanted: Callable[[list[str]], bool], seconds: float = 20.0) -> list[str]:
    """Wait for what a process that outlives the script brings into the journal."""
    until = time.monotonic() + seconds
    while True:
        found = lines_of(journal) if journal.exists() else []
        if wanted(found) or time.monotonic() > until:
            return found
        time.sleep(0.05)


# -- however a process ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["wrap", "fd"])
@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os._exit(3)", 3),
        ("ctypes.string_at(0)", -signal.SIGSEGV),
    ],
)
def test_a_sudden_end_loses_no_line(script: Script, tmp_path: Path, mode: str, end: str, status: int) -> None:
    """Killed, exited at once or crashed: the last line is in the journal, and on the terminal."""
    done = script(START + f"for i in range(50): print('line', i, flush=True)\n{end}\n", mode, expect=status)
    expected = [f"line {i}" for i in range(50)]
    assert eventually(tmp_path / "journal", lambda lines: lines == expected) == expected
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("mode", ["wrap", "fd"])
def test_an_exception_and_its_traceback_are_kept(script: Script, tmp_path: Path, mode: str) -> None:
    """Together with the line that had no end yet, when the console is stopped at exit."""
    source = (
        START + "import atexit; atexit.register(console.stop)\nprint('half', end='')\nraise ValueError('the end')\n"
    )
    done = script(source, mode, expect=1)
    lines = lines_of(tmp_path / "journal")
    assert lines[0] == "half" and lines[-1] == "ValueError: the end" and "Traceback" in lines[1]
    assert done.stdout == "half" and done.stderr.splitlines() == lines[1:]


def test_a_signal_handler_prints_in_the_midst_of_printing(script: Script, tmp_path: Path) -> None:
    """Thousands of times: no deadlock, and every line that is no mixture of both is there."""
    source = (
        START
        + """
hits = 0
def handler(number, frame):
    global hits
    hits += 1
    sys.stderr.write(f"signal {hits}\\n")
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for i in range(20000):
    sys.stdout.write(f"line {i}\\n")
signal.setitimer(signal.ITIMER_REAL, 0)
console.stop()
os.write(2, f"hits {hits}\\n".encode())
"""
    )
    done = script(source)
    hits = int(done.stderr.splitlines()[-1].split()[1])
    assert hits > 10
    assert lines_of(tmp_path / "journal", "stderr")[-1] == f"signal {hits}"
    assert lines_of(tmp_path / "journal", "stdout")[-1] == "line 19999"


def test_forked_children_print_and_record_nothing_twice(script: Script, tmp_path: Path) -> None:
    """By fork in the midst of threads that print; the parent's console goes on, and a child may have one of its own."""
    source = (
        START
        + """
import threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
stop = threading.Event()
def chatter():
    while not stop.is_set():
        sys.stderr.write("chatter\\n")
threads = [threading.Thread(target=chatter) for _ in range(3)]
for thread in threads: thread.start()
for i in range(20):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        sys.stdout.write(f"child {i}\\n"); sys.stdout.flush()
        if i == 0:
            own = Console(Path("own")); own.start(); print("own console"); own.stop()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, i
stop.set()
for thread in threads: thread.join()
print("parent"); console.stop()
"""
    )
    done = script(source)
    # A child copies what its parent had buffered; what it adds itself goes to the terminal and not to the journal.
    assert all(f"child {i}" in done.stdout for i in range(20))
    assert lines_of(tmp_path / "journal", "stdout") == ["parent"]
    assert lines_of(tmp_path / "own") == ["own console"]


# -- file descriptors --------------------------------------------------------------------------------------------------


def test_descriptors_hear_children_and_c_libraries(script: Script, tmp_path: Path) -> None:
    """What went where goes there still; both are put back at the end."""
    source = (
        START
        + """
print("python", flush=True)
subprocess.run(["sh", "-c", "echo child; echo complaint >&2"], check=True)
ctypes.CDLL(None).puts(b"C library"); ctypes.CDLL(None).fflush(None)
os.write(2, b"raw\\n")
console.stop()
print("after"); sys.stdout.flush()
assert not Path(f"/proc/self/fd/1").readlink().name.startswith("flightlog")
"""
    )
    done = script(source, "fd")
    assert done.stdout.splitlines() == ["python", "child", "C library", "after"]
    assert done.stderr.splitlines() == ["complaint", "raw"]
    assert lines_of(tmp_path / "journal", "stdout") == ["python", "child", "C library"]
    assert lines_of(tmp_path / "journal", "stderr") == ["complaint", "raw"]


def test_c_code_that_holds_the_interpreters_lock_does_not_deadlock(script: Script, tmp_path: Path) -> None:
    """It writes much more than a pipe holds while no thread of this process can run."""
    source = (
        START
        + """
block = b"x" * 99 + b"\\n"
write = ctypes.PyDLL(None).write  # PyDLL keeps the lock
write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
for _ in range(50):
    data, at = block * 1000, 0
    while at < len(data):
        at += write(1, data[at:], len(data) - at)
console.stop()
"""
    )
    done = script(source, "fd")
    assert len(done.stdout) == 50 * 100_000
    lines = lines_of(tmp_path / "journal")
    assert lines and set(lines) == {"x" * 99}


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_an_unbuffered_stream_loses_nothing_to_signals(script: Script, tmp_path: Path, stream: str) -> None:
    """`python -u` drops what one write(2) into a full pipe leaves when a signal ends it; into a file it never does."""
    source = (
        START
        + """
stream = getattr(sys, sys.argv[2])
signal.signal(signal.SIGALRM, lambda number, frame: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for i in range(60):
    print(f"{i:03d} " + "é" * 200_000, file=stream)
    if i % 20 == 0 and os.fork() == 0:
        print("forked", file=stream)
        os._exit(0)
signal.setitimer(signal.ITIMER_REAL, 0, 0)
console.stop()
assert "write" not in stream.__dict__
"""
    )
    with (tmp_path / "seen").open("wb") as seen:
        (tmp_path / "script.py").write_text(source)
        subprocess.run(
            [sys.executable, "-u", "script.py", "fd", stream],
            cwd=tmp_path, env=environment(), stdout=seen, stderr=seen, timeout=60, check=True,
        )  # fmt: skip
    shown = (tmp_path / "seen").read_text()  # with a warning that tells of fork() and the child, from Python 3.12 on
    assert shown.count("é") == 60 * 200_000 and shown.count("forked") == 3


def test_children_outlive_a_killed_training(tmp_path: Path) -> None:
    """They go on printing where they printed, and what they print is recorded until nobody is left."""
    source = (
        START
        + """
subprocess.Popen(["sh", "-c", "echo early; read line < gate; echo late"])
time.sleep(0.3)
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    os.mkfifo(tmp_path / "gate")
    (tmp_path / "script.py").write_text(source)
    process = subprocess.Popen(
        [sys.executable, "script.py", "fd"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "early\n" and process.wait(30) == -signal.SIGKILL
    (tmp_path / "gate").write_text("go\n")
    assert process.stdout.read() == "late\n"  # and then the end, since nobody holds it any more
    process.stdout.close()
    assert eventually(tmp_path / "journal", lambda lines: len(lines) == 2) == ["early", "late"]


def test_signals_for_the_training_do_not_end_the_recording(script: Script, tmp_path: Path) -> None:
    """A batch system sends them to every process of the job."""
    source = (
        START
        + """
helper = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()
          and b"flightlog.console.tee" in (p / "cmdline").read_bytes() and str(Path("journal").absolute()).encode()
          in (p / "cmdline").read_bytes()]
assert len(helper) == 1
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    os.kill(helper[0], number)
time.sleep(0.2)
print("still here", flush=True)
console.stop()
"""
    )
    script(source, "fd")
    assert lines_of(tmp_path / "journal") == ["still here"]


def test_a_killed_recording_process_does_not_stop_the_training(script: Script, tmp_path: Path) -> None:
    """Nothing that is printed is lost to the terminal, not even by a child that still has the pipe."""
    source = (
        START
        + """
child = subprocess.Popen(["sh", "-c", "read line; i=0; while [ $i -lt 3000 ]; do echo child $i; i=$((i+1)); done"],
                         stdin=subprocess.PIPE)
helper = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()
          and b"flightlog.console.tee" in (p / "cmdline").read_bytes() and str(Path("journal").absolute()).encode()
          in (p / "cmdline").read_bytes()]
print("before", flush=True)
console.flush()
os.kill(helper[0], signal.SIGKILL)
while Path(f"/proc/{helper[0]}").exists(): time.sleep(0.01)  # what it had read already would go down with it
for i in range(3000): print("line", i, flush=True)
child.communicate(b"go\\n")
console.flush()
console.stop()
print("end", flush=True)
"""
    )
    done = script(source, "fd")
    out = done.stdout.splitlines()
    assert [line for line in out if line.startswith("line")] == [f"line {i}" for i in range(3000)]
    assert "end" in out and lines_of(tmp_path / "journal")[0] == "before"
    assert [line for line in out if line.startswith("child")] == [f"child {i}" for i in range(3000)]
    assert "the process that records the console has ended" in done.stderr


def test_a_descriptor_that_somebody_replaced_is_left_to_him(script: Script, tmp_path: Path) -> None:
    """As programs do that send their output elsewhere for a while, or for good."""
    source = (
        START
        + """
print("first", flush=True)
file = os.open("elsewhere", os.O_CREAT | os.O_WRONLY)
os.dup2(file, 1)
console.stop()
print("second", flush=True)
"""
    )
    done = script(source, "fd")
    assert done.stdout == "first\n" and (tmp_path / "elsewhere").read_text() == "second\n"


def test_closed_descriptors_and_no_interpreter_are_no_hindrance(script: Script, tmp_path: Path) -> None:
    """As in a daemon; without a Python of its own to start, what Python prints is followed."""
    (tmp_path / "daemon.py").write_text(START + "print('x')\nconsole.flush()\nconsole.stop()\nPath('ended').touch()\n")
    for mode in ("wrap", "fd"):
        command = f"exec '{sys.executable}' daemon.py {mode} >&- 2>&-"
        subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment(), check=True, timeout=60)
        (tmp_path / "ended").unlink()
    source = "import sys; sys.executable = ''\n" + START + "print('followed')\nconsole.stop()\n"
    done = script(source, "fd")
    assert done.stdout == "followed\n" and "not possible here" in done.stderr
    assert "followed" in lines_of(tmp_path / "journal")


def test_a_terminal_stays_a_terminal(tmp_path: Path) -> None:
    """Of the size that the real one has; what arrives there are the very bytes that were printed."""
    source = (
        START
        + """
assert os.isatty(1) and os.isatty(2) and tuple(os.get_terminal_size(1)) == (91, 33), os.get_terminal_size(1)
print("\\x1b[31mred\\x1b[0m", flush=True)
for i in range(5): print(f"\\r{i}", end="", flush=True)
print(flush=True)
console.stop()
print("back", os.ttyname(1) == sys.argv[2], flush=True)
"""
    )
    (tmp_path / "script.py").write_text(source)
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 91, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "script.py", "fd", os.ttyname(theirs)],
        cwd=tmp_path, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = _read_terminal(ours)
    assert process.wait(30) == 0, seen
    os.close(ours)
    assert seen == b"\x1b[31mred\x1b[0m\r\n\r0\r1\r2\r3\r4\r\nback True\r\n"
    assert lines_of(tmp_path / "journal") == ["\x1b[31mred\x1b[0m", "4"]


def _read_terminal(descriptor: int, seconds: float = 30.0) -> bytes:
    seen = b""
    while select.select([descriptor], [], [], seconds)[0]:
        try:
            data = os.read(descriptor, 1000)
        except OSError:  # how a terminal says that nobody is there any more
            break
        seen += data
    return seen


@pytest.mark.parametrize("mode", ["wrap", "fd"])
def test_a_reader_who_goes_away(tmp_path: Path, mode: str) -> None:
    """As with `| head`: the training meets what it always met, or nothing at all; the console goes on."""
    source = (
        START
        + """
try:
    for i in range(2000): print("line", i, flush=True)
except BrokenPipeError:
    sys.stdout = None
console.stop()
Path("ended").touch()
os._exit(0)
"""
    )
    (tmp_path / "script.py").write_text(source)
    process = subprocess.Popen(
        [sys.executable, "script.py", mode], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    assert process.wait(30) == 0 and (tmp_path / "ended").exists()
    lines = lines_of(tmp_path / "journal")
    assert lines[0] == "line 0" and (mode == "wrap" or lines[-1] == "line 1999")


def test_modules_that_nobody_asked_for_are_not_loaded(script: Script) -> None:
    """Following Python's streams needs no process, and loads nothing that starts one."""
    source = (
        START.replace(", subprocess, ctypes", "")
        + """
console.stop()
print(*sorted({"ctypes", "flightlog.console.tee", "flightlog.console.descriptors"} & set(sys.modules)))
"""
    )
    assert script(source).stdout == "\n"
