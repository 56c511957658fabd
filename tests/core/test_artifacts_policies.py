"""How bytes get into the run, what they cost on the disk, and that the run ends self-contained."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog import UsageError
from flightlog.protocol.manifest import Manifest
from flightlog.run import Run

from .test_artifacts_changes import held_up

JournalOf = Callable[[Path], Any]
BIG = 9 << 20


def used(folder: Path) -> int:
    """Return the bytes that a folder takes on the disk; a file of several names counts once."""
    seen = {(f.st_dev, f.st_ino): f.st_blocks * 512 for p in folder.rglob("*") for f in [p.lstat()] if p.is_file()}
    return sum(seen.values())


@pytest.fixture
def run() -> Run:
    return flightlog.init("artifacts")


@pytest.fixture
def model(tmp_path: Path, dice: random.Random) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(dice.randbytes(BIG))
    return path


def test_a_link_costs_nothing_until_the_end(model: Path, run: Run) -> None:
    """policy="link" shares the bytes while the run goes on; then the run has its own, and changing ours is safe."""
    version = run.log_artifact(model, policy="link")
    assert version is not None
    kept = version.wait().file()
    assert kept.samefile(model)
    run.finish()
    assert not kept.samefile(model) and model.stat().st_nlink == 1
    version.verify()
    model.write_bytes(b"changed")
    version.verify()


def test_a_link_whose_other_name_has_gone_is_not_copied(model: Path, run: Run) -> None:
    """What the framework has rotated away by the end is the run's own already: the very same inode stays."""
    inode = model.stat().st_ino
    version = run.log_artifact(model, policy="link")
    again = run.log_artifact(model, name="other", policy="link")
    model.unlink()
    run.finish()
    assert version is not None and again is not None
    assert version.file().stat().st_ino == again.file().stat().st_ino == inode


def test_two_links_to_one_file_become_one_copy(model: Path, run: Run) -> None:
    """Two artifacts that link one file share one copy at the end."""
    versions = [run.log_artifact(model, name=name, policy="link") for name in ("a", "b")]
    run.finish()
    (first, second) = (v.file() for v in versions if v)
    assert first.samefile(second) and not first.samefile(model)


def test_the_same_content_again_costs_nothing(tmp_path: Path, model: Path, run: Run, journal: JournalOf) -> None:
    """Under another path, in another artifact, in a folder with other files: the bytes are in the run once."""
    (tmp_path / "folder").mkdir()
    shutil.copy(model, tmp_path / "folder" / "renamed.bin")
    (tmp_path / "folder" / "more").write_bytes(b"more")
    for path, name in ((model, "a"), (model, "b"), (tmp_path / "folder", "c"), (model, "a")):
        version = run.log_artifact(path, name=name)
        assert version is not None and version.wait().state == "logged"
    run.finish()
    assert BIG <= used(run.dir) < BIG * 1.1
    logged = [r.data for r in journal(run.dir).of("artifact") if r.data["action"] == "log"]
    assert [(d["name"], d["version"], d.get("begun")) for d in logged] == [
        ("a", "v0", None),
        ("b", "v0", None),
        ("c", "v0", None),
        ("a", "v0", "v1"),
    ]


def test_holes_stay_holes(tmp_path: Path, run: Run) -> None:
    """A sparse file of 300 MB with data at three places takes no more room in the run, and is the same."""
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        for at in (0, 123_456_789, 299_999_990):
            file.seek(at)
            file.write(b"data")
        file.truncate(300_000_000)
    version = run.log_artifact(path)
    assert version is not None and version.wait().size == 300_000_000
    version.verify()
    assert version.file().stat().st_blocks * 512 < 20 << 20
    assert subprocess.run(["cmp", str(path), str(version.file())]).returncode == 0


def test_a_reference_keeps_no_bytes(model: Path, tmp_path: Path, run: Run) -> None:
    """Address, size and hash are recorded; a download finds the file, and refuses it when it has changed."""
    version = run.log_artifact(model, policy="reference")
    assert version is not None
    (there,) = version.references
    assert (there.path, there.uri, there.size) == ("model.bin", model.as_uri(), BIG) and version.entries == ()
    assert used(run.dir) < 100_000
    assert (version.download(tmp_path / "copy") / "model.bin").read_bytes() == model.read_bytes()
    model.write_bytes(b"other")
    with pytest.raises(flightlog.errors.DamagedError, match="not what was recorded"):
        version.download(tmp_path / "copy")


def test_across_file_systems_a_link_becomes_a_copy(run: Run, dice: random.Random) -> None:
    """A hard link cannot leave its file system: the bytes are copied instead."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == run.dir.stat().st_dev:
        pytest.skip("there is no second file system here")
    path = shm / f"flightlog-test-{os.getpid()}"
    path.write_bytes(dice.randbytes(BIG))
    try:
        version = run.log_artifact(path, name="far", policy="link")
        assert version is not None and version.wait().state == "logged"
        version.verify()
    finally:
        path.unlink()


@pytest.fixture
def reflinking(tmp_path: Path) -> Iterator[Path]:
    """An XFS, on which files can share their bytes."""
    image, place = tmp_path / "xfs.img", tmp_path / "xfs"
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    place.mkdir()
    for command in (["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], ["mount", "-o", "loop", str(image), str(place)]):
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not here")
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{command[0]}: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # also if a failed test holds it


def free(place: Path) -> int:
    os.sync()
    facts = os.statvfs(place)
    return facts.f_bfree * facts.f_frsize


@pytest.mark.parametrize("size", [30 << 20, 80 << 20], ids=["at the call", "in the background"])
def test_where_the_file_system_can_a_version_costs_no_bytes(reflinking: Path, dice: random.Random, size: int) -> None:
    """Versions of 30 and 80 MB on XFS: their bytes are shared, and overwriting ours in place does not reach them."""
    path = reflinking / "model.bin"
    content = dice.randbytes(size)
    path.write_bytes(content)
    with flightlog.init(dir=reflinking / "flightlog") as run:
        before = free(reflinking)
        with held_up(run):
            version = run.log_artifact(path)
            if size < 64 << 20:  # shared at the call already: what happens now cannot harm it
                with open(path, "r+b") as file:
                    file.write(b"changed")
        assert version is not None and version.wait().state == "logged"
        assert before - free(reflinking) < 4 << 20
        with open(path, "r+b") as file:
            file.write(b"changed")
        version.verify()
        assert version.file().read_bytes() == content
        assert version.download(reflinking / "copy") and before - free(reflinking) < 8 << 20
        linked = run.log_artifact(path, name="linked", policy="link")
    assert linked is not None and not linked.file().samefile(path) and before - free(reflinking) < 8 << 20
    linked.verify()


def test_what_is_no_file_is_passed_over_or_refused(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Pipes, sockets, devices: left out of a folder, refused alone, never waited for."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "real").write_bytes(b"x")
    os.mkfifo(folder / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    os.chdir(folder)
    listening.bind("socket")
    (folder / "null").symlink_to("/dev/null")
    version = run.log_artifact(folder)
    assert version is not None and [e.path for e in version.entries] == ["real"]
    for name in ("pipe", "socket", "null"):
        assert run.log_artifact(folder / name) is None
    listening.close()
    assert capfd.readouterr().err.count("is not kept") == 3


def test_links_out_of_a_folder_are_followed_and_said(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """The layout of a Hugging Face cache: a snapshot of links into ../../blobs is kept with its content."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0a1b").write_bytes(b"weights")
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/0a1b")
    version = run.log_artifact(snapshot, name="hub")
    assert version is not None and version.file("model.safetensors").read_bytes() == b"weights"
    assert not version.file("model.safetensors").is_symlink()
    assert f"is a link to {tmp_path}/blobs/0a1b" in capfd.readouterr().err


def test_a_folder_that_cannot_be_read_is_not_half_kept(tmp_path: Path, script: Callable[..., Any]) -> None:
    """A sub-folder without permission: the artifact is not kept, and the warning names it."""
    (tmp_path / "data" / "closed").mkdir(parents=True)
    (tmp_path / "data" / "closed").chmod(0)
    done = script(
        """
import os

import flightlog

run = flightlog.init()
open("first", "w").close()
assert run.log_artifact("first")
for folder in (os.getcwd(), *(str(p) for p in run.dir.parents[1].parents)):
    if folder.startswith("/tmp/"):
        os.chmod(folder, 0o755)
if os.getuid() == 0:  # whom no permission stops
    os.seteuid(65534)
print(run.log_artifact("data"))
if os.getuid() == 0:
    os.seteuid(0)
"""
    )
    assert done.stdout == "None\n" and "data/closed" in done.stderr


def test_a_file_that_says_it_is_empty_is_read(run: Run) -> None:
    """What /proc holds has no size: its content is kept all the same."""
    version = run.log_artifact("/proc/self/cmdline")
    assert version is not None and b"python" in version.file().read_bytes()


def test_the_working_directory_may_change(tmp_path: Path, run: Run, model: Path) -> None:
    """A relative path means where the training was when it logged, however late the copy."""
    (tmp_path / "elsewhere").mkdir()
    with held_up(run):
        version = run.log_artifact("model.bin", policy="reference")
        os.chdir(tmp_path / "elsewhere")
    assert version is not None and version.wait().references[0].uri == model.as_uri()


def test_without_threads_the_caller_copies(model: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread can be started, at the very end of the interpreter say: the version is whole when the call returns."""

    def refuse(thread: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", refuse)
        version = run.log_artifact(model)
    assert version is not None and version.state == "logged"


def test_threads_log_at_the_same_time(tmp_path: Path, run: Run, journal: JournalOf) -> None:
    """Eight threads, small and large: every version is there, and every number was given once."""

    def work(thread: int) -> None:
        for number in range(4):
            path = tmp_path / f"{thread}-{number}"
            path.write_bytes(bytes([thread, number]) * (5 << 20 if number == 2 else 5000))
            run.log_artifact(path, name="shared", keep_last=40)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()
    logged = [r.data["version"] for r in journal(run.dir).of("artifact") if r.data["action"] == "log"]
    assert sorted(logged) == sorted(f"v{n}" for n in range(32))


@pytest.mark.parametrize("policy", ["", "hardlink", None, 5])
def test_a_policy_that_is_none_is_misuse(model: Path, run: Run, policy: Any) -> None:
    """Nothing is made."""
    with pytest.raises(UsageError, match="policy"):
        run.log_artifact(model, policy=policy)
    assert not (run.dir / "files" / "artifacts").exists()


def test_an_empty_folder_is_a_version_of_no_files(tmp_path: Path, run: Run) -> None:
    """Nothing in it, nothing wrong with it."""
    (tmp_path / "empty").mkdir()
    version = run.log_artifact(tmp_path / "empty")
    assert version is not None and version.state == "logged" and version.entries == ()
    assert Manifest.from_json((version.path / "manifest.json").read_bytes()).size == 0
