"""Streams that are closed or take few characters, paths that are no UTF-8, and printed commands that are typed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flightlog.rundir import RunDir

from ..server.tools import Said, Server, command, environment, flightlog, quick, run_dir
from .tools import recorded

STRANGE = os.fsdecode(b"not \xff\xfe utf-8")


def shell(line: str, home: Path, cwd: Path, **more: str) -> Said:
    """Run a line in a shell, where `flightlog` is the command."""
    script = f'flightlog() {{ {shlex.join(command())} "$@"; }}\n{line}'
    env = environment(home, **more)
    done = subprocess.run(["sh", "-c", script], env=env, cwd=cwd, capture_output=True, text=True, timeout=60)
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("login --key - {url} <&-", 2, "nothing came in on stdin"),
        ("pack flightlog -o - >&-", 2, "stdout is closed; name a file with -o"),
        ("receipt export flightlog -o - >&-", 2, "stdout is closed; name a file with -o"),
        ("pack flightlog -o a.tar 2>&-", 0, ""),
        ("sync flightlog 2>&-", 0, ""),
        ("status flightlog 0<&- 1>&- 2>&-", 0, ""),
    ],
)
def test_a_closed_stream_is_no_reason_to_fail_unless_it_is_needed(
    server: Server, home: Path, place: Path, run_id: str, line: str, code: int, words: str
) -> None:
    """One that is needed is named, status 2; without the others the command does its work, status 0."""
    recorded(place / "flightlog", run_id)
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}
    said = shell(f"flightlog {line.format(url=server.url)}", home, place, **key)
    assert said.code == code and words in said.err and "Traceback" not in said.err, said
    assert " a.tar" not in line or (place / "a.tar").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("to", "code"),
    [
        (">/dev/full", 1),
        (">/dev/full 2>&1", 1),
        ("--json >/dev/full", 1),
        ("--quiet >/dev/full", 0),
        ("2>/dev/full", 0),
    ],
)
def test_a_log_on_a_full_disk_does_not_stop_the_work(
    server: Server, home: Path, place: Path, run_id: str, to: str, code: int
) -> None:
    """All runs are delivered and cleaned, which frees it; what could not be said is status 1, and no traceback."""
    for n in range(130):
        run_dir(place / f"run-{n:03}", f"{run_id}n{n}")
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}
    said = shell(f"flightlog sync -n 1 --clean . {to}", home, place, **key)
    assert said.code == code and "Traceback" not in said.err, said
    assert not list(place.glob("run-*")), said
    assert ("stdout cannot be written: No space left" in said.err) is (code == 1 and "2>&1" not in to), said


@pytest.mark.parametrize("verb", ["pack", "receipt export"])
def test_what_is_wanted_on_stdout_and_does_not_fit_is_status_1(
    server: Server, home: Path, place: Path, run_id: str, verb: str
) -> None:
    """The bundle, or the receipts, are the work itself: it ends at once, in one line."""
    assert server.sync(recorded(place, run_id).path, home=home).code == 0
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}
    run = next(place.glob("run-*")).name
    said = shell(f"flightlog {verb} -o - {run} >/dev/full", home, place, **key)
    assert said.code == 1 and said.err == "flightlog: stdout cannot be written: No space left on device\n", said


def test_what_a_terminal_cannot_show_does_not_end_a_command(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """With a Latin-1 stdout two runs named in Japanese are listed and delivered, the second as well as the first."""
    import flightlog as recorder

    for n in range(2):
        with recorder.init("p", id=f"{run_id}n{n}", dir=place, name="日本") as run:
            run.log({"a": 1})
    more = {"PYTHONIOENCODING": "latin-1", "FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}
    said = flightlog("status", place, home=home, **more)
    assert said.code == 0 and said.out.count("pending    ??") == 2, said
    said = flightlog("sync", place, home=home, **more)
    assert said.code == 0 and said.out.count("delivered  ??") == 2, said


@pytest.mark.parametrize(
    "words", ["status --all", "verify", "sync --dry-run", "sync", "clean --dry-run", "pack --force -o b.tar"]
)
def test_json_names_a_path_that_is_no_utf8(server: Server, home: Path, place: Path, run_id: str, words: str) -> None:
    """It is one document that Python's json reads, and the path in it is the one on the disk, byte for byte."""
    directory = recorded(place / STRANGE, run_id)
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}
    verb, *options = words.split()
    said = quick(verb, place, "--json", *options, home=home, cwd=place, **key)
    assert said.code == 0, said
    (run,) = json.loads(said.out)["runs"]
    assert os.fsencode(run["path"]) == os.fsencode(directory.path)


def test_a_run_begins_in_a_folder_whose_name_is_no_utf8(home: Path, place: Path) -> None:
    """init() does not raise there, and what is spawned joins the run as elsewhere."""
    (place / STRANGE).mkdir()
    script = place / STRANGE / "train.py"
    script.write_text(
        "import flightlog, multiprocessing\n"
        "def child(): flightlog.log({'child': 1})\n"
        "if __name__ == '__main__':\n"
        "    run = flightlog.init('p')\n"
        "    process = multiprocessing.get_context('spawn').Process(target=child)\n"
        "    process.start(); process.join()\n"
        "    run.log({'parent': 1}); run.finish()\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=place / STRANGE, env=environment(home), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    (directory,) = (place / STRANGE / "flightlog").glob("run-*")
    journal = b"".join(p.read_bytes() for p in RunDir(directory).journal.rglob("*.jsonl"))
    assert b'"child":1' in journal and b'"parent":1' in journal


def test_the_commands_that_are_printed_can_be_typed(server: Server, home: Path, place: Path, run_id: str) -> None:
    """Of a folder and of files with a space and an apostrophe, and of a script that has changed its folder."""
    work = place / "it's mine"
    (work / "elsewhere").mkdir(parents=True)
    script = "import os, flightlog; os.chdir('elsewhere'); flightlog.init('p', id=os.environ['ID']).finish()"
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url, "ID": run_id, "PWD": str(work)}
    env = environment(home, **key, FLIGHTLOG_MODE="offline")
    done = subprocess.run([sys.executable, "-c", script], cwd=work, env=env, capture_output=True, text=True, timeout=60)
    lines = [done.stderr.partition("deliver it with: ")[2].splitlines()[0]]
    said = shell(lines[0].replace(" sync ", " pack -o 'a b.tar' "), home, work, **key)
    lines.append(said.out.partition("can be reached:  ")[2].strip())
    for marker in ("were recorded:  ", "were recorded:  "):
        said = shell(lines[-1], home, work, **key)
        assert said.code == 0, said
        lines.append(said.out.partition(marker)[2].strip())
    assert lines[-1].startswith("flightlog receipt import"), lines
    assert shell(lines[-1], home, work, **key).code == 0
    assert shell(lines[0], home, work, **key).code == 0
