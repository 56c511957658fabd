"""A file between log_artifact and its copy: kept as it was at the call, or reported, never silently wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog.artifacts.held import Held, settle, spare_descriptors
from flightlog.contents import Named
from flightlog.run import Run

JournalOf = Callable[[Path], Any]
BIG = 9 << 20


@contextlib.contextmanager
def held_up(run: Run) -> Iterator[None]:
    """Let no copy begin before the block has ended."""
    go_on = threading.Event()
    run._keeper._copier.submit(lambda: go_on.wait() and None)
    try:
        yield
    finally:
        go_on.set()


@pytest.fixture
def run() -> Run:
    return flightlog.init("artifacts")


@pytest.fixture
def content(dice: random.Random) -> bytes:
    return dice.randbytes(BIG)


def delete(path: Path, content: bytes) -> None:
    path.unlink()


def protect(path: Path, content: bytes) -> None:
    path.chmod(0o400)


def link_elsewhere(path: Path, content: bytes) -> None:
    os.link(path, path.with_suffix(".kept"))


def rotate(path: Path, content: bytes) -> None:
    path.rename(path.with_suffix(".old"))
    path.write_bytes(b"the next one")


def replace(path: Path, content: bytes) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(content[::-1])
    os.replace(other, path)


@pytest.mark.parametrize("harmless", [delete, rotate, replace, protect, link_elsewhere])
@pytest.mark.parametrize("policy", ["auto", "copy", "link"])
def test_what_leaves_the_bytes_alone_does_no_harm(
    tmp_path: Path, run: Run, content: bytes, harmless: Callable[[Path, bytes], None], policy: str
) -> None:
    """Deleted, rotated away or replaced by a rename: the version is what the file was at the call."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with held_up(run):
        version = run.log_artifact(path, policy=policy)
        assert version is not None and version.state == "copying"
        harmless(path, content)
    assert version.wait().state == "logged"
    version.verify()
    assert version.file().read_bytes() == content
    run.finish()
    version.verify()
    assert version.file().stat().st_nlink == 1


def truncate(path: Path, content: bytes) -> None:
    with open(path, "wb"):
        pass


def shorten(path: Path, content: bytes) -> None:
    os.truncate(path, BIG // 2)


def overwrite(path: Path, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(BIG // 2)
        file.write(b"a few other bytes")


def overwrite_whole(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content[::-1])


def append(path: Path, content: bytes) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def rewrite_and_set_back(path: Path, content: bytes) -> None:
    """As `cp -p` onto a file: the same size, and the time that the new content's source has."""
    before = path.stat()
    overwrite_whole(path, content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


HARMS = [
    (harm, policy)
    for harm in (truncate, shorten, overwrite, overwrite_whole, append, rewrite_and_set_back)
    for policy in ("auto", "copy", "link", "reference")
    if (harm, policy) != (rewrite_and_set_back, "link")  # the file has two names: nothing shows it until the end
]


@pytest.mark.parametrize(("harm", "policy"), HARMS)
def test_a_file_written_to_before_its_copy_is_reported(
    tmp_path: Path,
    run: Run,
    content: bytes,
    harm: Callable[[Path, bytes], None],
    policy: str,
    journal: JournalOf,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Truncated or overwritten in place: damaged, one warning, a record that names the file, and nothing left."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with held_up(run):
        version = run.log_artifact(path, policy=policy)
        harm(path, content)
    assert version is not None and version.wait().state == "damaged" and version.digest == ""
    with pytest.raises(flightlog.errors.DamagedError, match="damaged"):
        version.file()
    said = capfd.readouterr().err
    assert said.count("is damaged and not kept") == 1 and ("under a new path" in said or 'policy="copy"' in said)
    begun, damaged = (r.data for r in journal(run.dir).of("artifact"))
    assert (begun["action"], damaged["action"], damaged["files"]) == ("begin", "damaged", ["model.ckpt"])
    assert not list(version.path.iterdir())
    after = run.log_artifact(path, policy="copy")
    assert after is not None and after.wait().version == "v1" and after.aliases == ("latest",)


def test_a_change_within_one_tick_of_the_clock_is_seen(tmp_path: Path, run: Run, content: bytes) -> None:
    """Written, logged and overwritten in place at once, size and all: never delivered as what it was not."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    for number in range(5):
        with open(path, "r+b") as file:
            file.write(bytes([number]) * 16)
        expected = hashlib.sha256(path.read_bytes()).hexdigest()
        with open(path, "r+b") as file:
            file.write(bytes([number]) * 16)  # its time is now, as close to the call as can be
            file.flush()
            with held_up(run):
                version = run.log_artifact(path, policy="copy")
                os.pwrite(file.fileno(), b"!" * 16, 0)
        assert version is not None
        assert version.wait().state == "damaged" or version.entries[0].sha256 == expected


def test_only_the_changed_files_of_a_folder_are_named(
    tmp_path: Path, run: Run, content: bytes, journal: JournalOf
) -> None:
    """The version is lost as a whole; its record says which files did it."""
    for number in range(4):
        (tmp_path / "shards" / f"{number}.bin").parent.mkdir(exist_ok=True)
        (tmp_path / "shards" / f"{number}.bin").write_bytes(content)
    with held_up(run):
        version = run.log_artifact(tmp_path / "shards")
        for number in (1, 3):
            truncate(tmp_path / "shards" / f"{number}.bin", b"")
    assert version is not None and version.wait().state == "damaged"
    assert journal(run.dir).of("artifact")[-1].data["files"] == ["1.bin", "3.bin"]


def test_torch_checkpoints_saved_over_one_path(tmp_path: Path, run: Run) -> None:
    """torch.save over the same path again and again: every version that is there loads as what was logged."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    versions = []
    for epoch in range(4):
        torch.save({"epoch": torch.tensor(epoch), "weights": torch.full((3 << 20,), float(epoch))}, path)
        versions.append(run.log_artifact(path, name="model"))
    run.finish()
    assert versions[-1].state == "logged"
    for epoch, version in enumerate(versions):
        if version.state == "logged":
            loaded = torch.load(version.file())
            assert loaded["epoch"] == epoch and loaded["weights"].eq(float(epoch)).all()
        else:
            assert version.state == "damaged"


def test_hdf5_changed_in_place(tmp_path: Path, run: Run, dice: random.Random) -> None:
    """A file that h5py opens again and writes into is reported; logged once more, it is what it is then."""
    h5py = pytest.importorskip("h5py")
    numpy = pytest.importorskip("numpy")
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file["weights"] = numpy.frombuffer(dice.randbytes(BIG), "u1")
    with held_up(run):
        version = run.log_artifact(path)
        with h5py.File(path, "r+") as file:
            file["weights"][5] = 7
            file.attrs["epoch"] = 2
    assert version.wait().state == "damaged"
    again = run.log_artifact(path).wait()
    with h5py.File(again.file(), "r") as file:
        assert file.attrs["epoch"] == 2 and file["weights"][5] == 7


def test_a_zip_rewritten_as_keras_does(tmp_path: Path, run: Run, content: bytes) -> None:
    """A .keras file is a zip written anew into the same file; the version is never a mixture of two."""
    path = tmp_path / "model.keras"
    logged = []
    for epoch in range(3):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", f'{{"epoch": {epoch}}}')
            archive.writestr("model.weights.h5", content)
        logged.append(run.log_artifact(path))
    run.finish()
    assert logged[-1].state == "logged"
    for epoch, version in enumerate(logged):
        if version.state == "logged":
            with zipfile.ZipFile(version.file()) as archive:
                assert archive.testzip() is None and archive.read("metadata.json") == f'{{"epoch": {epoch}}}'.encode()


def test_safetensors_rotated_away(tmp_path: Path, run: Run) -> None:
    """Three checkpoints of safetensors, of which the framework keeps one: all three load."""
    numpy = pytest.importorskip("numpy")
    saving = pytest.importorskip("safetensors.numpy")
    versions = []
    with held_up(run):
        for step in range(3):
            path = tmp_path / f"checkpoint-{step}" / "model.safetensors"
            path.parent.mkdir()
            saving.save_file({"w": numpy.full(3 << 20, step, "f4")}, path)
            versions.append(run.log_artifact(path.parent, name="checkpoint", policy="link"))
            if step:
                (tmp_path / f"checkpoint-{step - 1}" / "model.safetensors").unlink()
    run.finish()
    for step, version in enumerate(versions):
        assert (saving.load_file(version.file())["w"] == step).all()


def test_a_file_declared_write_once_and_written_to_is_found_at_the_end(
    tmp_path: Path, run: Run, content: bytes, journal: JournalOf, capfd: pytest.CaptureFixture[str]
) -> None:
    """The link's inode was overwritten after it had been logged: the run says so itself, and the version is out."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "sound").write_bytes(content)
    path = path.rename(tmp_path / "both" / "model.ckpt")
    version = run.log_artifact(tmp_path / "both", name="model", policy="link")
    assert version is not None and version.wait().state == "logged"
    overwrite(path, content)
    run.finish()
    said = capfd.readouterr().err
    assert version.state == "damaged" and "declared write-once" in said and 'policy="copy"' in said
    # What it was overwritten with is the user's file and stays there only; the sound one may have no other name by now.
    assert [p.name for p in version.files.iterdir()] == ["sound"] and path.stat().st_nlink == 1
    named = Named()
    for record in journal(run.dir).of("artifact"):
        named.add_record(record)
    assert not named.artifacts and list(named.damaged) == ["model:v0"]


def test_a_small_file_others_append_to_is_kept_as_it_stood(tmp_path: Path, run: Run) -> None:
    """A log that another thread writes to without pause: a prefix of it is kept, whole lines of what was written."""
    path = tmp_path / "train.log"
    path.write_bytes(b"line\n" * 1000)
    stop = threading.Event()

    def write() -> None:
        with open(path, "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"line\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        versions = [run.log_artifact(path) for _ in range(5)]
    finally:
        stop.set()
        writer.join()
    for version in versions:
        assert version is not None
        kept = version.file().read_bytes()
        assert len(kept) >= 5000 and kept == b"line\n" * (len(kept) // 5)


def test_more_files_than_may_be_open_are_found_again_by_path(
    tmp_path: Path, run: Run, content: bytes, dice: random.Random
) -> None:
    """A folder of more large files than descriptors: whole if it is left alone, damaged if one of them goes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(150):
        (shards / f"{number:03d}").write_bytes(dice.randbytes(100_000 + number))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert spare_descriptors() == 64
        with held_up(run):
            version = run.log_artifact(shards, name="whole")
            assert spare_descriptors() == 0
        assert version is not None and version.wait().state == "logged" and spare_descriptors() == 64
        version.verify()
        with held_up(run):
            version = run.log_artifact(shards, name="gone")
            for path in shards.iterdir():
                path.unlink()
        assert version is not None and version.wait().state == "damaged" and "deleted" in version.reason
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_settling_waits_for_fresh_files_only(tmp_path: Path) -> None:
    """After it, a change shows in the time of a file written a moment ago; one of long ago costs nothing."""
    path = tmp_path / "a"
    path.write_bytes(b"1")
    held = Held.see(str(path))
    settle([held])
    path.write_bytes(b"2")
    assert Held.see(str(path)).mtime_ns != held.mtime_ns
    os.utime(path, (1, 1))
    settle([Held.see(str(path))])
