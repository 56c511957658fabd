"""`flightlog clean` and `sync --clean`: what goes is proven, what is not stays, and artifacts can be kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import flightlog
from flightlog.errors import NotFound
from flightlog.rundir import RunDir

from ..server.tools import Command, Server, add_media, command, environment, line, quick, run_dir
from .tools import age, content, recorded


@pytest.fixture
def key(server: Server) -> dict[str, str]:
    return {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}


def test_what_was_delivered_earlier_goes_after_a_new_proof(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """Delivered runs go, the one that never was stays, and the links lead to what is left; a dry run only tells."""
    done = [recorded(place, f"{run_id}{n}") for n in range(2)]
    assert server.sync(place, home=home).code == 0
    new = recorded(place, f"{run_id}new")
    before = content(place)
    said = quick("clean", place, "--dry-run", home=home, **key)
    assert said.code == 0 and said.out.count("would clean ") == 2, said
    assert said.out.count(f", proven by {server.url} (asked now)\n") == 2, said
    assert f"kept        name-{run_id}new" in said.out and content(place) == before, said
    said = quick("clean", place, "--json", home=home, **key)
    assert said.code == 0 and sorted(r["status"] for r in said.runs) == ["cleaned", "cleaned", "kept"], said
    assert not any(run.path.exists() for run in done) and new.path.exists()
    assert (place / "latest").resolve() == new.path
    assert (place / ".delivered" / f"{run_id}0.spec").exists()
    with flightlog.init("p", id=f"{run_id}0", dir=place, resume="must") as run:
        assert run.step == 20, "a requeued job goes on"


def test_only_runs_older_than_that_go(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """--older-than counts from the journal's last growth; nonsense is a wrong command."""
    old, young = recorded(place, f"{run_id}old"), recorded(place, f"{run_id}young")
    assert server.sync(place, home=home).code == 0
    age(old, 8 * 86400)
    said = quick("clean", place, "--older-than", "7d", home=home, **key)
    assert said.code == 0 and not old.path.exists() and young.path.exists(), said
    assert "younger than was asked for" in said.out
    for wrong in ("7", "d7", "-1d", "7 years", "1e9d", ""):
        assert quick("clean", place, "--older-than", wrong, home=home, **key).code == 2, wrong
    assert young.path.exists()
    assert quick("clean", place, "--older-than", "0", home=home, **key).code == 0 and not young.path.exists()


@pytest.mark.parametrize("verb", ["clean", "sync"])
def test_a_run_that_is_alive_or_only_just_dead_stays(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str], verb: str
) -> None:
    """While it runs, and for 24 hours after it was killed, a run stays; after that it goes."""
    script = f"""
        import flightlog, time
        run = flightlog.init("p", id={run_id!r})
        run.log({{"loss": 1}})
        print("up", flush=True)
        time.sleep(60)
    """
    training = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=place, env=environment(home), stdout=subprocess.PIPE
    )
    words = ("clean", place) if verb == "clean" else ("sync", place, "--clean")
    try:
        assert training.stdout is not None and training.stdout.readline() == b"up\n"
        assert server.sync(place, home=home).code == 0
        said = quick(*words, home=home, **key)
        assert said.code == 0 and "it is still running" in said.out, said
    finally:
        training.kill()
        training.wait(30)
        training.stdout.close()
    (directory,) = (RunDir(p) for p in (place / "flightlog").glob("run-*"))
    assert server.sync(place, home=home).code == 0
    assert "24 hours" in quick(*words, home=home, **key).out
    assert directory.path.exists()
    age(directory, 25 * 3600)
    said = quick(*words, home=home, **key)
    assert said.code == 0 and not directory.path.exists(), said


def test_a_run_with_lost_records_never_goes(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """Bytes in the middle of a journal are broken: delivered as damaged, and kept by clean whatever is asked."""
    run = recorded(place, run_id)
    (segment,) = run.journal.glob("*/000001.jsonl")
    whole = bytearray(segment.read_bytes())
    whole[len(whole) // 2] ^= 1
    segment.write_bytes(whole)
    assert server.sync(place, home=home).code == 3
    age(run, 30 * 86400)
    said = quick("clean", place, "--older-than", "7d", home=home, **key)
    assert said.code == 0 and "does not prove all of it" in said.out and run.path.exists(), said


def test_a_diverged_copy_never_goes(server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]) -> None:
    """A copied directory whose journal was continued with other bytes is not what the server has: it stays."""
    run = recorded(place, run_id)
    assert server.sync(place, home=home).code == 0
    (segment,) = run.journal.glob("*/000001.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([*lines[:-1], line(len(lines), "finish", {"state": "failed"})]))
    said = quick("clean", place, home=home, **key)
    assert said.code == 0 and "other records" in said.out and run.path.exists(), said


def test_somebodys_own_files_stay_and_are_no_run_any_more(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """What no record names is kept and listed; all that is proven goes, and no later sync takes the rest for a run."""
    run = run_dir(place / "run-x", run_id)
    add_media(run, "a.txt", b"hello")
    (run / "files" / "notes.txt").write_text("mine")
    (run / "files" / "link").symlink_to("/etc/passwd")
    assert server.sync(place, home=home).code == 0
    said = quick("clean", place, home=home, **key)
    assert said.code == 0 and "no record names it: files/notes.txt" in said.out, said
    assert content(run) == {"files/link": "-> /etc/passwd", "files/notes.txt": content(run)["files/notes.txt"]}
    assert "no runs" in quick("sync", home=home, cwd=place, **key).out


def test_what_a_killed_writer_of_our_own_files_left_goes_with_the_run(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """A half-written sync.json or latest.spec beside the whole one is ours; a link, or a file like it, is not."""
    run = recorded(place, run_id)
    assert server.sync(place, home=home).code == 0
    for name in (".sync.json.0a1b2c3d", ".latest.spec.zzzzzzzz"):
        (run.path / name).write_bytes(b"{")
    assert "1 run cleaned" in quick("clean", place, home=home, **key).out and not run.path.exists()
    other = recorded(place, f"{run_id}b")
    assert server.sync(place, home=home).code == 0
    (other.path / ".sync.json.mine").write_bytes(b"{")
    (other.path / ".sync.json.00000000").symlink_to("/etc/passwd")
    assert "1 run cleaned" in quick("clean", place, home=home, **key).out
    assert sorted(p.name for p in other.path.iterdir()) == [".sync.json.00000000", ".sync.json.mine"]


@pytest.mark.parametrize("verb", ["clean", "sync"])
def test_kept_artifacts_can_be_used_offline(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str], verb: str
) -> None:
    """With --keep-artifacts journals and media go; use_artifact, its aliases, and numbers go on from this disk."""
    run = recorded(place, run_id, project=run_id)
    (weights,) = (p.read_bytes() for p in run.files.glob("artifacts/model/v0/files/*.bin"))
    assert server.sync(place, home=home).code == 0
    words = ("clean", place) if verb == "clean" else ("sync", place, "--clean")
    said = quick(*words, "--keep-artifacts", home=home, **key)
    assert said.code == 0 and "2 files of artifacts" in said.out, said
    assert not run.journal.exists() and not run.spec_path.exists()
    with flightlog.init(run_id, dir=place) as later:
        used = later.use_artifact("model:best")
        assert used.version == "v0" and used.made_by == run_id and Path(used.file()).read_bytes() == weights
        used.verify()
        with pytest.raises(NotFound):
            later.use_artifact("model:v1")
    with flightlog.init(run_id, id=run_id, dir=place, resume="must") as again:
        (place.parent / "other.bin").write_bytes(b"other")
        again.log_artifact(str(place.parent / "other.bin"), name="model").wait()
    with flightlog.init(run_id, dir=place) as last:
        assert last.use_artifact("model:v1").size == 5, "its number is not given twice"
        assert last.use_artifact("model:best").version == "v0"
    (place / ".delivered" / f"{run_id}.artifacts").write_text('{"format": 1, "directories": 3}')
    with flightlog.init(run_id, dir=place) as robust:
        assert robust.use_artifact("model:v1").size == 5


def test_keep_artifacts_needs_clean(server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]) -> None:
    """`sync --keep-artifacts` alone is a wrong command, as are other combinations that mean nothing."""
    recorded(place, run_id)
    for words in (
        ("--keep-artifacts",),
        ("--clean", "--dry-run"),
        ("--watch", "--keep-artifacts"),
        ("--watch", "--dry-run"),
    ):
        said = quick("sync", place, *words, home=home, **key)
        assert said.code == 2 and said.err.count("\n") <= 3, said
    assert server.query("SELECT count(*) FROM runs WHERE run_id = ?", run_id) == [(0,)]


def test_a_run_whose_journal_is_not_there_yet_is_as_old_as_its_spec(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """A copy of a run that is on its way, its latest.spec first, stays for the 24 hours of every unfinished run."""
    directory = RunDir(run_dir(place / "run-a", run_id, {}, finished=False))
    said = quick("sync", place, "--clean", home=home, **key)
    assert said.code == 0 and "24 hours" in said.out and directory.path.exists(), said
    said = quick("clean", place, "--older-than", "1h", home=home, **key)
    assert said.code == 0 and "24 hours" in said.out and directory.path.exists(), said
    age(directory, 25 * 3600)
    assert quick("clean", place, home=home, **key).code == 0 and not directory.path.exists()


def test_what_is_in_the_way_of_cleaning_is_named(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """A file where the folder of what is left behind would be: status 1, its path, and the run as it was."""
    run = recorded(place, run_id)
    assert server.sync(place, home=home).code == 0
    before = content(run.path)
    (place / ".delivered").write_text("")
    said = quick("clean", place, home=home, **key)
    assert said.code == 1 and f"{place / '.delivered'}: " in said.err and content(run.path) == before, said


def test_a_run_that_killed_cleanings_have_put_aside_is_called_by_its_own_name(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """However often it was put aside: what is said of it, and what stays of it, has the name that it once had."""
    run = recorded(place, run_id)
    (run.path / "notes.txt").write_text("mine")
    os.rename(run.path, f"{run.path}.cleaning.cleaning")
    said = quick("sync", place, "--clean", "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 0 and f"freed in {run.path}\n" in said.out, said
    assert [p.name for p in place.iterdir() if p.name.startswith("run-")] == [run.path.name]
    assert [p.name for p in run.path.iterdir()] == ["notes.txt"]


def test_a_folder_whose_runs_are_all_cleaned_is_no_wrong_path(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """A sync from cron that cleans finds nothing the next time: status 0; a folder that never held runs is status 2."""
    recorded(place, run_id)
    assert quick("sync", place, "--clean", home=home, **key).code == 0
    for verb in ("sync", "sync --clean", "clean", "status", "verify"):
        said = quick(*verb.split(), place, home=home, **key)
        assert said.code == 0 and "no runs" in said.out, said
    assert quick("sync", place.parent / "home", home=home, **key).code == 2


def test_a_journal_that_leaps_to_an_endless_seq_is_not_read_to_there(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """A stranger's line with a seq of sixteen digits costs neither memory nor time: the run stays, and is named."""
    run = recorded(place, run_id)
    assert server.sync(place, home=home).code == 0
    writer = sorted(run.journal.iterdir())[0]
    (writer / "000002.jsonl").write_bytes(line(9_007_199_254_740_993, t=1.7e9))
    said = quick("clean", place, home=home, **key)
    assert said.code == 0 and "seq 9007199254740993 follows" in said.out and run.path.exists(), said


def test_without_a_server_to_ask_clean_deletes_nothing(home: Path, place: Path, run_id: str) -> None:
    """No key, a server that is down, a wrong key: said in one line, and everything stays."""
    recorded(place, run_id)
    before = content(place)
    said = quick("clean", place, home=home)
    assert said.code == 0 and "no API key" in said.err and "0 runs cleaned" in said.out, said
    down = {"FLIGHTLOG_API_KEY": "fl_00000000_x", "FLIGHTLOG_BASE_URL": "http://127.0.0.1:9"}
    said = quick("clean", place, "--timeout", "0", home=home, **down)
    assert said.code == 0 and "cannot be reached" in said.err and "imported receipts alone" in said.err, said
    said = quick("clean", place, "--timeout", "0", "--server", "http://127.0.0.1:9", home=home, **down)
    assert said.code == 1 and said.err.count("\n") == 1, said
    assert content(place) == before


def test_a_wrong_key_is_not_taken_for_a_server_that_is_away(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """clean with a key that the server refuses is status 2, before anything is looked at."""
    recorded(place, run_id)
    said = quick("clean", place, home=home, FLIGHTLOG_API_KEY="fl_00000000_x", FLIGHTLOG_BASE_URL=server.url)
    assert said.code == 2 and "no account here has it" in said.err, said


def test_clean_never_asks_a_server_that_a_run_directory_names(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """A sync.json from elsewhere names another server: it is neither asked nor given a key."""
    import socket

    run = recorded(place, run_id)
    with socket.create_server(("127.0.0.1", 0)) as evil:
        evil.settimeout(0.2)
        origin = f"http://127.0.0.1:{evil.getsockname()[1]}"
        from flightlog.sync import state

        entry = state.Synced("evil", "w", "p", origin, run.journal_sizes(), complete=True, synced_at=9e9)
        state.save(run, {origin: entry})
        said = quick("clean", place, home=home, FLIGHTLOG_API_KEY=server.key, FLIGHTLOG_BASE_URL=server.url)
        assert said.code == 0 and run.path.exists(), said
        with pytest.raises(TimeoutError):
            evil.accept()


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 12))])
def test_a_cleaning_that_is_killed_loses_nothing(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str], seed: int
) -> None:
    """SIGKILL at a random moment: what the server has is whole, and the same command ends the work."""
    import random
    import time

    chosen = random.Random(seed)
    run = recorded(place, run_id)
    for number in range(30):
        add_media(run.path, f"{number}.txt", os.urandom(1000), writer=f"m{number}")
    (run.path / "files" / "notes.txt").write_text("mine")
    assert server.sync(place, home=home).code == 0
    lines = server.journal(run_id)
    for _ in range(3):
        cleaning = Command(command("clean", place), environment(home, **key))
        time.sleep(0.4 + chosen.random() * 0.8)
        cleaning.kill()
        cleaning.close()
        said = server.sync(place, home=home)
        assert said.code in (0, 2), (seed, said)  # 2: no run is left
        assert not [r for r in said.runs if r["status"] not in ("delivered", "up_to_date")] if said.out else True
        assert server.journal(run_id) == lines, seed
    recorded(place, f"{run_id}next")  # what a killed cleaning had decided is finished by the next one in that folder
    assert server.sync(place, home=home).code == 0
    assert quick("clean", place, home=home, **key).code == 0
    left = [p for p in place.rglob("*") if p.is_file() and ".delivered" not in p.parts]
    assert sorted(p.name for p in left) == [".gitignore", "CACHEDIR.TAG", "notes.txt"], seed


@pytest.mark.parametrize("words", [("sync", "--clean"), ("clean",)])
def test_a_disk_without_room_for_what_is_left_behind(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str], words: tuple[str, ...]
) -> None:
    """The run keeps its name and its place, and what is the matter is said; with room the same command cleans it."""
    run = recorded(place, run_id)
    assert server.sync(place, home=home).code == 0
    (place / ".delivered").write_text("what stands here takes the place of a folder")
    before = content(run.files)
    said = quick(*words, place, home=home, **key)
    assert said.code == 1 and "File exists" in said.err and "moved or deleted" not in said.err, said
    assert content(run.files) == before and [p.name for p in place.glob("run-*")] == [run.path.name]
    (place / ".delivered").unlink()
    said = quick(*words, place, home=home, **key)
    assert said.code == 0 and not run.path.exists(), said


def test_a_cleaning_killed_on_a_full_disk_leaves_the_spec_later(
    server: Server, home: Path, place: Path, run_id: str, key: dict[str, str]
) -> None:
    """It had decided, and there was no room yet for what stays: the next cleaning leaves that behind."""
    run = recorded(place, run_id)
    recorded(place, f"{run_id}next")
    assert server.sync(place, home=home).code == 0
    shutil.rmtree(run.files)
    run.path.rename(place / f".flightlog-trash-{run.path.name}")
    assert quick("clean", place, home=home, **key).code == 0
    left = sorted(p.name for p in (place / ".delivered").iterdir())
    assert left == [f"{run_id}.spec", f"{run_id}next.spec"]
    assert not list(place.glob(".flightlog-trash-*"))


@pytest.mark.parametrize("words", [("sync", "--clean"), ("clean",)])
def test_cleaning_frees_a_disk_that_is_full_to_the_last_byte(
    server: Server, home: Path, tmp_path: Path, run_id: str, key: dict[str, str], words: tuple[str, ...]
) -> None:
    """On a real small disk, without room for the spec that stays, the delivered runs go all the same, and it stays."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "size=2m,nr_inodes=300"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is refused here: {mounted.stderr.strip()}")
    try:
        runs = [recorded(disk / "runs", f"{run_id}{n}") for n in range(2)]
        assert server.sync(disk, home=home).code == 0
        with (disk / "full").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        with contextlib.suppress(OSError):  # nor is there room for one more file or folder
            for number in range(1000):
                (disk / f"empty{number}").touch()
        said = quick(*words, disk / "runs", home=home, **key)
        assert said.code == 0 and not any(run.path.exists() for run in runs), said
        left = sorted(p.name for p in (disk / "runs" / ".delivered").iterdir())
        assert left == [f"{run_id}{n}.spec" for n in range(2)]
    finally:
        subprocess.run(["umount", disk], check=True)
