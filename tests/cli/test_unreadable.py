"""Folders that may not be entered: every verb says which, and why, for runs may be in them."""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flightlog.rundir import discover

from ..server.tools import Said, Server, command, environment, run_dir, until

DENIED = "cannot be searched for runs: Permission denied"
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2
_libc = ctypes.CDLL(None)


def _obey_modes() -> None:
    """Let modes hold for root, too, from the next program on."""
    for right in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        _libc.prctl(_PR_CAPBSET_DROP, right, 0, 0, 0)


def started(*words: str | Path, home: Path, **more: str) -> subprocess.Popen[str]:
    """Start a command for which modes hold."""
    return subprocess.Popen(
        command(*words),
        env=environment(home, **more),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_obey_modes,  # nothing else runs in this process
    )


def obeying(*words: str | Path, home: Path, **more: str) -> Said:
    """Run a command for which modes hold."""
    process = started(*words, home=home, **more)
    out, err = process.communicate(timeout=60)
    return Said(process.returncode, out, err)


@contextmanager
def mode(path: Path, wanted: int) -> Iterator[None]:
    """Give a folder another mode within the block."""
    before = path.stat().st_mode
    path.chmod(wanted)
    try:
        yield
    finally:
        path.chmod(before)


@pytest.fixture
def key(server: Server) -> dict[str, str]:
    return {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}


@pytest.mark.parametrize(
    "words", ["sync", "sync --dry-run", "clean", "status", "verify", "pack -o", "receipt export -o"]
)
@pytest.mark.parametrize("wanted", [0o000, 0o600], ids=["closed", "listed"])
def test_a_folder_that_cannot_be_entered_is_named(
    home: Path, place: Path, run_id: str, key: dict[str, str], words: str, wanted: int
) -> None:
    """It may be a run, or hold some: it is named with the reason, the others are dealt with, and the status is 1."""
    run_dir(place / "run-open", f"{run_id}open", finished=True)
    shut = run_dir(place / "run-shut", f"{run_id}shut")
    verb = [*words.split(), *([home / "out"] if words.endswith("-o") else [])]
    with mode(shut, wanted):
        said = obeying(*verb, place, home=home, **key)
        assert said.code == 1 and f"{shut} {DENIED}" in said.err and "Traceback" not in said.err, said
        assert f"name-{run_id}open" in said.out or f"{run_id}open" in said.out or (home / "out").exists(), said
        said = obeying(*verb, *(["--force"] if "pack" in words else []), "--json", place, home=home, **key)
        assert said.code == 1, said
        assert json.loads(said.out)["unreadable"] == [{"path": str(shut), "error": "Permission denied"}], said


def test_a_path_in_a_folder_that_cannot_be_entered_is_named(
    home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """No traceback, but the path and the reason: 1, and 2 for a watch, which would have nothing to look at."""
    run = run_dir(place / "group" / "run-a", run_id)
    with mode(place / "group", 0):
        for words, code in (("sync", 1), ("status", 1), ("clean", 1), ("verify", 1), ("sync --watch", 2)):
            said = obeying(*words.split(), run, home=home, **key)
            assert said.code == code and f"{run} " in said.err and "Permission denied" in said.err, said
            assert "Traceback" not in said.err, said


def test_more_folders_than_are_looked_at_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    """Where the bound on the number of folders is reached, the folder is told of as one that may hold more runs."""
    for n in range(5):
        run_dir(tmp_path / f"run-{n}", f"r{n}")
    told: list[str] = []
    found = list(discover(tmp_path, max_folders=4, unreadable=lambda folder: told.append(str(folder))))
    assert len(found) == 3 and len(told) == 1 and "more than 4 folders" in told[0], (found, told)
    assert len(list(discover(tmp_path, max_folders=6, unreadable=lambda folder: pytest.fail(str(folder))))) == 5


def test_a_run_that_cannot_be_read_does_not_end_a_watch(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """A journal and a directory without permission are named, the rest is delivered; what is opened later arrives."""
    names = [f"{run_id}{name}" for name in ("journal", "shut", "open")]
    journal, shut, _ = (run_dir(place / f"run-{name}", name) for name in names)
    with mode(journal / "files" / "journal", 0):
        with mode(shut, 0):
            watching = started("sync", "--watch", "--interval", "0.1", place, home=home, **key)
            until(lambda: server.journal(names[2]) != {})
        until(lambda: server.journal(names[1]) != {})
        watching.send_signal(signal.SIGTERM)
        out, err = watching.communicate(timeout=30)
    said = Said(watching.returncode, out, err)
    assert said.code == 1 and "Traceback" not in said.err, said
    assert said.err.count(f"{shut} {DENIED}") == 1 and said.err.count(f"{journal}/files/journal: Perm") == 1, said
    assert server.journal(names[0]) == {}


def test_a_run_of_which_nothing_may_be_read_is_told_of_with_the_reason(
    home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """Neither latest.spec nor the journal: that nobody can say which run it is has a reason, and that is said."""
    run = run_dir(place / "run-a", run_id)
    with mode(run / "latest.spec", 0), mode(run / "files" / "journal", 0):
        said = obeying("sync", place, home=home, **key)
    assert said.code == 1 and f"({run}/files/journal: cannot be read: Permission denied)" in said.err, said


def test_a_run_that_may_not_be_deleted_is_told_of_as_delivered(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """`sync --clean` where nothing may be deleted: the run arrived, its cleaning failed, and the status is 1."""
    run = run_dir(place / "run-a", run_id)
    with mode(place, 0o500):
        said = obeying("sync", place, "--clean", home=home, **key)
    assert said.code == 1 and f"delivered, but not cleaned: {run}: Permission denied" in said.err, said
    assert set(server.journal(run_id)) == {"w" * 16} and run.exists()


def test_one_run_that_nobody_can_name_does_not_keep_the_other_receipts_back(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """`receipt export` of a folder with a run without an id: the fault is named, the others' receipts are written."""
    good = run_dir(place / "run-good", run_id)
    assert server.sync(good, home=home).code == 0
    (place / "run-blank" / "files" / "journal").mkdir(parents=True)
    (place / "run-blank" / "latest.spec").write_text("{")
    said = obeying("receipt", "export", place, "-o", home / "receipts.json", home=home, **key)
    assert said.code == 1 and f"{place / 'run-blank'}: " in said.err and "1 receipt of" in said.out, said
    assert run_id in (home / "receipts.json").read_text()
