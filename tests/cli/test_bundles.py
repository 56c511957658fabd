"""The road without a network: pack, deliver elsewhere, bring the receipt back, clean."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path

import pytest

import flightlog
from flightlog.rundir import RunDir
from flightlog.sync import bundle

from ..server.tools import Command, Server, add_media, command, environment, local_journal, quick, run_dir
from ..server.tools import flightlog as separate
from .tools import content, recorded


def carried(*paths: Path, to: Path) -> Path:
    """Carry files to another machine: a folder of its own."""
    to.mkdir(exist_ok=True)
    for path in paths:
        shutil.copy(path, to)
    return to


def test_an_interrupted_tidying_up_is_finished_by_the_next_sync(
    home: Path, place: Path, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C twice, the second while the unpacked runs are removed: they are gone after the next sync of the bundle."""
    run_dir(place / "run-x", run_id)
    assert quick("pack", place, "-o", home / "out.tar", home=home).code == 0

    def interrupted(folder: Path, **_: object) -> None:
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt), bundle.unpacked(home / "out.tar"):
        patched.setattr(shutil, "rmtree", interrupted)
    assert len(list(home.glob(".out.tar.*"))) == 1
    with bundle.unpacked(home / "out.tar"):
        assert len(list(home.glob(".out.tar.*"))) == 1
    assert list(home.glob(".out.tar.*")) == []


def test_a_run_of_a_bundle_is_found_however_deep_it_lies(server: Server, home: Path, place: Path, run_id: str) -> None:
    """A tar of a whole tree: nothing in it is passed over, also where `sync` of the tree would not look so deep."""
    runs = [run_dir(place / "/".join("abcdefghijkl"[:depth]) / "run-x", f"{run_id}{depth}") for depth in (1, 12)]
    with tarfile.open(home / "tree.tar", "w") as tree:
        tree.add(place, "tree")
    said = server.sync(home / "tree.tar", home=home)
    assert said.code == 0 and len(said.runs) == 2, said
    for run, depth in zip(runs, (1, 12), strict=True):
        assert server.journal(f"{run_id}{depth}") == local_journal(run)


def test_the_whole_road_with_processes_of_its_own(server: Server, home: Path, place: Path, tmp_path: Path) -> None:
    """Record and pack without a server, sync and export where there is one, import and clean at home."""
    script = """
        import flightlog
        for n in range(2):
            with flightlog.init("road", name=f"r{n}") as run:
                for step in range(30):
                    run.log({"loss": 1 / (step + 1)})
                open("model.bin", "wb").write(b"weights" * 1000)
                run.log_artifact("model.bin", name="model")
    """
    env = environment(home)
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=place, env=env, check=True, capture_output=True)
    runs = sorted((place / "flightlog").glob("run-*"))
    said = separate("pack", "-o", "out.tar.zst", home=home, cwd=place)
    assert said.code == 0 and "2 runs in out.tar.zst" in said.out and said.err == "", said

    elsewhere = carried(place / "out.tar.zst", to=tmp_path / "elsewhere")
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}
    said = separate("sync", "out.tar.zst", home=home, cwd=elsewhere, **key)
    assert said.code == 0 and said.out.count("delivered  ") == 2 and "receipt export out.tar.zst" in said.out, said
    ids = [json.loads((run / "latest.spec").read_bytes())["id"] for run in runs]
    for run, run_id in zip(runs, ids, strict=True):
        assert server.journal(run_id) == local_journal(run)
    assert [p.name for p in elsewhere.iterdir()] == ["out.tar.zst"], "nothing of the unpacking is left"
    assert separate("receipt", "export", "out.tar.zst", "-o", "r.json", home=home, cwd=elsewhere, **key).code == 0

    carried(elsewhere / "r.json", to=place)
    before = content(place / "flightlog")
    assert "0 runs cleaned" in separate("clean", home=home, cwd=place).out, "without the receipt nothing goes"
    assert content(place / "flightlog") == before
    said = separate("receipt", "import", "r.json", home=home, cwd=place)
    assert said.code == 0 and said.out.count("proven     ") == 2, said
    assert "nothing pending" in separate("status", home=home, cwd=place).out
    said = separate("clean", home=home, cwd=place)
    assert said.code == 0 and "2 runs cleaned" in said.out, said
    assert not any(run.exists() for run in runs)
    assert {p.name for p in (place / "flightlog" / ".delivered").iterdir()} == {
        f"{run_id}.{kind}" for run_id in ids for kind in ("spec", "receipt")
    }


def test_the_same_runs_make_the_same_bundle_and_nothing_of_this_machine_is_in_it(
    home: Path, place: Path, run_id: str
) -> None:
    """Packed twice, to a file and to a pipe, the bytes are the same; owners and times of packing are not in it."""
    for number in range(2):
        recorded(place, f"{run_id}{number}")
    for name in ("a.tar", "b.tar"):
        assert quick("pack", place, "-o", place.parent / name, home=home).code == 0
        time.sleep(0.01)
    one, two = ((place.parent / name).read_bytes() for name in ("a.tar", "b.tar"))
    assert one == two
    piped = subprocess.run(
        command("pack", place, "-o", "-"), env=environment(home), capture_output=True, check=True, cwd=home
    )
    assert piped.stdout == one and b"2 runs in stdout" in piped.stderr
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        assert {(m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in tar} == {
            (0, 0, "", "", 0o644, tarfile.REGTYPE)
        }
        names = tar.getnames()
    assert names[0] == bundle.INDEX and len(set(names)) == len(names)
    assert not [n for n in names if "sync.json" in n]


def test_pending_runs_go_in_and_delivered_ones_only_when_named(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """A run that a server has is left out, unless it is named itself or asked for by --include-synced."""
    done, new = recorded(place, f"{run_id}done"), recorded(place, f"{run_id}new")
    assert server.sync(done.path, home=home).code == 0

    def packed(*words: str | Path) -> list[str]:
        said = quick("pack", *words, "-o", place.parent / "x.tar", "--force", "--json", home=home)
        assert said.code == 0, said
        return sorted(r["id"] for r in said.runs)

    assert packed(place) == [f"{run_id}new"]
    assert packed(place, "--include-synced") == packed(done.path, new.path) == [f"{run_id}done", f"{run_id}new"]
    assert packed(done.spec_path) == [f"{run_id}done"]
    assert server.sync(new.path, home=home).code == 0
    said = quick("pack", place, "-o", place.parent / "y.tar", home=home)
    assert said.code == 0 and "nothing to pack" in said.out and not (place.parent / "y.tar").exists(), said


def test_a_bundle_takes_no_others_place_and_leaves_no_halves(home: Path, place: Path, run_id: str) -> None:
    """A file that is there is not replaced unasked; a folder that is not there is one line, and nothing is left."""
    recorded(place, run_id)
    target = place.parent / "b.tar"
    target.write_text("precious")
    said = quick("pack", place, "-o", target, home=home)
    assert said.code == 1 and "--force" in said.err and target.read_text() == "precious", said
    assert quick("pack", place, "-o", target, "--force", home=home).code == 0 and target.stat().st_size > 10_000
    said = quick("pack", place, "-o", place.parent / "none" / "b.tar", home=home)
    assert said.code == 1 and "cannot be written" in said.err and said.err.count("\n") == 1, said
    assert not [p for p in place.parent.iterdir() if p.name.startswith(".b.tar")]
    assert quick("pack", place, "-o", "-", "--json", home=home).code == 2
    assert quick("pack", place, home=home).code == 2, "-o is needed"


def test_a_device_that_stands_at_the_output_stays_one(home: Path, place: Path, run_id: str) -> None:
    """`-o /dev/null`, or a pipe, is written to; a rename would have put a file in its place."""
    recorded(place, run_id)
    pipe = place.parent / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    assert quick("pack", place, "-o", pipe, home=home).code == 0
    assert pipe.is_fifo() and b"ustar" in reader.communicate(timeout=30)[0]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, home: Path, place: Path, run_id: str) -> None:
    """On a real small disk the bundle does not fit: one line, status 1, and no half of it stays."""
    recorded(place, run_id, size=3 << 20)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is refused here: {mounted.stderr.strip()}")
    try:
        said = quick("pack", place, "-o", disk / "b.tar", home=home)
        assert said.code == 1 and "No space left" in said.err and said.err.count("\n") == 1, said
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_run_that_is_written_while_it_is_packed_makes_a_sound_bundle(
    server: Server, home: Path, place: Path, run_id: str, tmp_path: Path
) -> None:
    """A live training's run goes in as far as it is; delivered, and packed again at its end, it is whole."""
    script = f"""
        import flightlog, time
        run = flightlog.init("p", id={run_id!r})
        print("up", flush=True)
        step = 0
        while step < 40_000:
            run.log({{"loss": step, "text": "x" * 500}})
            step += 1
            time.sleep(0.0005)
            if step % 100 == 0 and __import__("os").path.exists("stop"):
                break
        run.finish()
    """
    training = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=place, env=environment(home), stdout=subprocess.PIPE
    )
    try:
        assert training.stdout is not None and training.stdout.readline() == b"up\n"
        for number in range(3):
            time.sleep(0.1)
            said = quick("pack", "-o", f"live{number}.tar", "--json", home=home, cwd=place)
            assert said.code == 0 and not said.runs[0]["faults"], said
            with tarfile.open(place / f"live{number}.tar") as tar:  # sound by the standard library's reader, too
                assert sum(m.size for m in tar.getmembers()[1:]) == said.runs[0]["bytes"]
            elsewhere = carried(place / f"live{number}.tar", to=tmp_path / "elsewhere")
            delivered = server.sync(elsewhere / f"live{number}.tar", home=home)
            assert delivered.code == 0 and delivered.runs[0]["status"] == "delivered", delivered
    finally:
        (place / "stop").touch()
        training.wait(60)
        training.stdout.close()
    assert quick("pack", "-o", "end.tar", home=home, cwd=place).code == 0
    assert server.sync(place / "end.tar", home=home).code == 0
    (directory,) = (place / "flightlog").glob("run-*")
    assert server.journal(run_id) == local_journal(directory)


def test_what_is_damaged_goes_in_and_is_named(server: Server, home: Path, place: Path, run_id: str) -> None:
    """A changed and a missing file: status 3, both named; the rest is in the bundle, and is delivered as damaged."""
    run = run_dir(place / "run-a", run_id)
    add_media(run, "changed.txt", b"hello", writer="one")
    (run / "files" / add_media(run, "gone.txt", b"hello", writer="two")).unlink()
    (run / "files" / "media" / "changed.txt").write_bytes(b"other")
    sound = run_dir(place / "run-b", f"{run_id}b")
    (place / "run-c" / "files" / "journal").mkdir(parents=True)
    (place / "run-c" / "latest.spec").write_text("{")
    said = quick("pack", place, "-o", place.parent / "b.tar", home=home)
    assert said.code == 1 and "run-c" in said.err, said
    shutil.rmtree(place / "run-c")
    said = quick("pack", place, "-o", place.parent / "b.tar", "--force", home=home)
    assert said.code == 3 and "changed.txt" in said.err and "gone.txt" in said.err, said
    delivered = server.sync(place.parent / "b.tar", home=home)
    assert delivered.code == 3, delivered
    assert {r["id"]: r["status"] for r in delivered.runs} == {run_id: "damaged", f"{run_id}b": "delivered"}
    faults = next(r["faults"] for r in delivered.runs if r["id"] == run_id)
    assert all(f"{place.parent / 'b.tar'}: " in fault and "unpacked" not in fault for fault in faults), faults
    assert server.journal(f"{run_id}b") == local_journal(sound)


def test_a_file_that_shrinks_while_it_is_packed_does_not_spoil_the_others(place: Path, run_id: str) -> None:
    """The bundle stays a sound tar: what is missing is filled up, and named."""
    run, other = recorded(place, run_id), recorded(place, f"{run_id}b")
    taken: set[str] = set()
    looked = [bundle.look(run, taken), bundle.look(other, taken)]
    (file,) = run.files.glob("artifacts/model/v0/files/*.bin")
    os.truncate(file, 100)
    out = io.BytesIO()
    bundle.write(looked, out)
    assert any("shorter" in fault for fault in looked[0].faults) and not looked[1].faults
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert len(tar.getmembers()) == 1 + len(looked[0].files) + len(looked[1].files)


def test_runs_of_one_name_and_strange_folders_get_folders_of_their_own(home: Path, place: Path, run_id: str) -> None:
    """Two machines' run directories of the same name, and one that no file system would take, stand side by side."""
    for number, folder in enumerate(("a/run-1", "b/run-1", "c/~odd:name")):
        run_dir(place / folder, f"{run_id}{number}")
    said = quick("pack", place, "-o", place.parent / "b.tar", "--json", home=home)
    assert said.code == 0 and {"run-1", "run-1.2"} < {r["folder"] for r in said.runs}, said
    with bundle.unpacked(place.parent / "b.tar") as found:
        assert sorted(d.read_spec()["id"] for d in found) == [f"{run_id}{n}" for n in range(3)]


def test_memory_does_not_grow_with_what_is_packed(home: Path, place: Path, run_id: str) -> None:
    """A file of 300 MB, holes and all, is packed and unpacked in far less memory than it has."""
    run = run_dir(place / "run-a", run_id)
    folder = run / "files" / "media"
    folder.mkdir()
    with open(folder / "big.bin", "wb") as file:
        file.truncate(300_000_000)
    import hashlib

    whole = hashlib.sha256()
    for _ in range(300):
        whole.update(bytes(1_000_000))
    entry = {"type": "file", "path": "media/big.bin", "size": 300_000_000, "sha256": whole.hexdigest()}
    from ..server.tools import line

    (run / "files" / "journal" / "media").mkdir()
    (run / "files" / "journal" / "media" / "000001.jsonl").write_bytes(line(1, "media", {"big": entry}, step=0))
    script = (
        "import resource, sys; from flightlog.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (200 << 20, 200 << 20))\n"
        "main(sys.argv[1:])"
    )
    words = [sys.executable, "-c", script, "pack", str(place), "-o", str(place.parent / "b.tar.zst")]
    done = subprocess.run(words, env=environment(home), capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stderr
    assert (place.parent / "b.tar.zst").stat().st_size < 1_000_000


@pytest.mark.parametrize("when", [0.02, 0.3])
def test_a_sync_of_a_bundle_that_is_interrupted_leaves_no_folder(
    server: Server, home: Path, place: Path, run_id: str, when: float
) -> None:
    """Ctrl-C at some moment is status 130 with one line, or the end came first; the unpacked runs are gone."""
    recorded(place / "flightlog", run_id, size=20 << 20)
    assert quick("pack", place, "-o", place.parent / "b.tar", home=home).code == 0
    env = environment(home, FLIGHTLOG_API_KEY=server.key)
    running = Command(command("sync", place.parent / "b.tar", "--server", server.url), env)
    try:
        until = time.monotonic() + 20
        while not list(place.parent.glob(".b.tar.unpacked-*")) and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(when)
        running.interrupt()
        said = running.wait()
    finally:
        running.close()
    # Minus SIGINT: it came when all was done and the interpreter itself was ending.
    assert said.code in (0, 130, -2) and "Traceback" not in said.err, said
    assert not list(place.parent.glob(".b.tar.unpacked-*"))


def test_clean_is_refused_for_a_bundle_and_a_dry_run_sends_nothing(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """`sync --clean bundle.tar` is a misunderstanding, and says so; `--dry-run` unpacks, tells, and sends nothing."""
    recorded(place, run_id)
    assert quick("pack", place, "-o", place.parent / "b.tar", home=home).code == 0
    said = server.sync(place.parent / "b.tar", home=home, options=("--clean",))
    assert said.code == 2 and "receipt export" in said.err, said
    said = server.sync(place.parent / "b.tar", home=home, options=("--dry-run",))
    assert said.code == 0 and said.runs[0]["status"] == "pending" and said.runs[0]["bytes"] > 50_000, said
    assert server.query("SELECT count(*) FROM runs WHERE run_id = ?", run_id) == [(0,)]


# -- receipts ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(server: Server, home: Path, place: Path, run_id: str) -> RunDir:
    """A run that has been packed, delivered from the bundle, and whose receipt is in r.json beside the runs' folder."""
    run = recorded(place, run_id)
    target = place.parent / "b.tar"
    assert quick("pack", place, "-o", target, home=home).code == 0
    assert server.sync(target, home=home).code == 0
    said = quick("receipt", "export", target, "-o", receipt_of(place), "--server", server.url, home=home,
                 FLIGHTLOG_API_KEY=server.key)  # fmt: skip
    assert said.code == 0, said
    return run


def receipt_of(place: Path) -> Path:
    return place.parent / "r.json"


def test_a_run_that_went_on_after_it_was_packed_is_not_proven_and_stays(
    packed: RunDir, home: Path, place: Path, run_id: str
) -> None:
    """A requeued job continued the run: the receipt does not speak of that, import says so, clean keeps it all."""
    with flightlog.init("p", id=run_id, dir=place, resume="must") as run:
        run.log({"loss": 0.5})
    said = quick("receipt", "import", receipt_of(place), place, home=home)
    assert said.code == 1 and "not proven" in said.out and "does not name writer" in said.out, said
    before = content(packed.path)
    said = quick("clean", place, home=home)
    assert said.code == 0 and "0 runs cleaned" in said.out and "does not prove all of it" in said.out, said
    assert content(packed.path) == before


def test_a_file_that_changed_after_it_was_packed_keeps_the_run(packed: RunDir, home: Path, place: Path) -> None:
    """clean reads every byte again: the same size and time with another content is not what was proven."""
    assert quick("receipt", "import", receipt_of(place), place, home=home).code == 0
    (file,) = packed.files.glob("artifacts/model/v0/files/*.bin")
    facts = file.stat()
    whole = bytearray(file.read_bytes())
    whole[100] ^= 1
    file.write_bytes(whole)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    said = quick("clean", place, "--json", home=home)
    (run,) = said.runs
    assert run["status"] == "kept" and "is not what was recorded" in run["reason"], said
    assert packed.path.exists()


@pytest.mark.parametrize("harm", ["flipped", "cut", "json", "another", "format"])
def test_a_receipt_that_came_to_harm_is_refused(packed: RunDir, home: Path, place: Path, harm: str) -> None:
    """A corrupt receipt is one line and imports nothing; one that is damaged where it is kept keeps its run."""
    path = receipt_of(place)
    whole = path.read_bytes()
    data = json.loads(whole)
    data["receipts"][0]["receipt"]["writers"] = {}
    new = {
        "flipped": json.dumps(data).encode(),
        "cut": whole[: len(whole) // 2],
        "json": b"[1,2",
        "another": b'{"runs": []}',
        "format": whole.replace(b'"format": 1', b'"format": 7'),
    }[harm]
    path.write_bytes(new)
    said = quick("receipt", "import", path, place, home=home)
    assert said.code == 1 and str(path) in said.err and said.err.count("\n") == 1, said
    path.write_bytes(whole)
    assert quick("receipt", "import", path, place, home=home).code == 0
    (kept,) = (place / ".delivered").glob("*.receipt")
    kept.write_bytes(new)
    said = quick("clean", place, home=home)
    assert said.code == 1 and str(kept) in said.err and packed.path.exists(), said


def test_receipts_of_other_runs_and_servers_prove_nothing(
    packed: RunDir, server: Server, home: Path, place: Path, run_id: str
) -> None:
    """A receipt is bound to its run: for another run of this disk it says that none is here, and that one stays."""
    other = recorded(place.parent / "others", f"{run_id}other")
    said = quick("receipt", "import", receipt_of(place), other.path.parent, home=home)
    assert said.code == 0 and "elsewhere" in said.out and "0 of 0 runs proven" in said.out, said
    same_id = recorded(place.parent / "again", run_id)
    said = quick("receipt", "import", receipt_of(place), same_id.path.parent, home=home)
    assert said.code == 1 and "not proven" in said.out, said
    assert "0 runs cleaned" in quick("clean", place.parent / "others", place.parent / "again", home=home).out
    assert other.path.exists() and same_id.path.exists()


def test_a_server_that_can_be_asked_counts_for_more_than_its_old_receipt(
    server: Server, packed: RunDir, home: Path, place: Path, run_id: str
) -> None:
    """The run was imported as proven, and the server has lost a record since: asked now, it says so."""
    assert quick("receipt", "import", receipt_of(place), place, home=home).code == 0
    server.execute("UPDATE writers SET last_seq = last_seq - 1 WHERE run_id IN (SELECT id FROM runs WHERE run_id = ?)",
                   run_id)  # fmt: skip
    said = quick("clean", place, "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 0 and "(asked now) does not prove all of it" in said.out and packed.path.exists(), said
    said = quick("clean", place, home=home)
    assert "1 run cleaned" in said.out and "imported receipt" in said.out, said


def test_a_place_that_takes_no_receipt_is_one_line(packed: RunDir, home: Path, place: Path) -> None:
    """Where the receipt cannot be kept, or a bundle not be read, it is said without a traceback: status 1."""
    shutil.rmtree(place / ".delivered", ignore_errors=True)
    (place / ".delivered").write_text("a file")
    said = quick("receipt", "import", receipt_of(place), place, home=home)
    assert said.code == 1 and said.err.count("\n") == 1 and ".delivered" in said.err, said
    (place.parent / "bad.tar").write_bytes(b"no tar" * 200)
    more = {"FLIGHTLOG_API_KEY": "fl_00000000_x"}
    said = quick("receipt", "export", place.parent / "bad.tar", "-o", receipt_of(place), home=home, **more)
    assert said.code == 1 and said.err.count("\n") == 1 and "bad.tar" in said.err, said


def test_an_export_of_what_the_server_lacks_is_said(server: Server, home: Path, place: Path, run_id: str) -> None:
    """One run delivered, one not: a receipt for the first, a line for the other, status 1; - is stdout."""
    here, new = recorded(place, f"{run_id}a"), recorded(place, f"{run_id}b")
    assert server.sync(here.path, home=home).code == 0
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}
    said = quick("receipt", "export", place, "-o", receipt_of(place), home=home, **key)
    assert said.code == 1 and "1 receipt" in said.out and f"name-{run_id}b" in said.err, said
    piped = quick("receipt", "export", here.path, "-o", "-", home=home, **key)
    assert piped.code == 0 and json.loads(piped.out)["receipts"][0]["id"] == f"{run_id}a", piped
    listed = quick("receipt", "export", new.path, "-o", receipt_of(place), "--json", home=home, **key)
    assert listed.code == 1 and json.loads(listed.out)["runs"][0]["error"], listed
    said = quick("receipt", "export", here.path, "-o", receipt_of(place), "--server", server.url, home=home)
    assert said.code == 2, "no key"


def test_a_run_delivered_under_another_name_is_proven_all_the_same(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """Delivered to another project, the receipt is asked for there, and still proves the run as it was recorded."""
    run = recorded(place, run_id)
    target = place.parent / "b.tar"
    assert quick("pack", place, "-o", target, home=home).code == 0
    assert server.sync(target, home=home, options=("--project", f"moved-{run_id}")).code == 0
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}
    words = ("receipt", "export", target, "-o", receipt_of(place))
    assert quick(*words, home=home, **key).code == 1
    assert quick(*words, "--project", f"moved-{run_id}", home=home, **key).code == 0
    assert quick("receipt", "import", receipt_of(place), place, home=home).code == 0
    assert "1 run cleaned" in quick("clean", place, home=home, **key).out
    assert not run.path.exists()


@pytest.mark.parametrize("arguments", [("-cf", "by.hand.tar"), ("--format=v7", "-cf", "v7.tar"), ("-czf", "b.tar.gz")])
def test_a_tar_of_the_folder_that_holds_the_runs(
    server: Server, home: Path, place: Path, run_id: str, arguments: tuple[str, ...]
) -> None:
    """As anybody would make it, with the links to the newest run: delivered; another compression is named."""
    runs = [recorded(place / "flightlog", f"{run_id}{n}") for n in range(2)]
    assert (place / "flightlog" / "latest").is_symlink()
    subprocess.run(["tar", *arguments, "flightlog"], cwd=place, check=True)
    said = server.sync(place / arguments[-1], home=home)
    if "gz" in arguments[-1]:
        assert said.code == 1 and "is compressed with gzip" in said.out, said
        return
    assert said.code == 0 and len(said.runs) == 2, said
    for run in runs:
        assert server.journal(json.loads(run.spec_path.read_bytes())["id"]) == local_journal(run.path)
