"""log_artifact: the bytes as they are now, in versions, and nothing that stops a training."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog import UsageError
from flightlog.protocol.manifest import Manifest

JournalOf = Callable[[Path], Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.ckpt"
    path.write_bytes(os.urandom(100_000))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {"a.txt": b"a", "deep/er/b.bin": b"bb", "deep/empty": b"", "ü ä.txt": b"c"}.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "data"


def test_a_file_is_kept_as_it_is_now(model: Path, journal: JournalOf) -> None:
    """Deleted right after, or written over, it is still there; the record and the manifest say what it is."""
    content = model.read_bytes()
    run = flightlog.init()
    version = run.log_artifact(model, type="model", aliases="best", metadata={"epoch": 3})
    model.write_bytes(b"written over")
    model.unlink()
    run.finish()
    assert version is not None
    assert (version.name, version.version, version.type, version.aliases) == (
        "model",
        "v0",
        "model",
        ("latest", "best"),
    )
    assert (version.files / "model.ckpt").read_bytes() == content and version.size == len(content)
    record = journal(run.dir).of("artifact")[0].data
    assert record["metadata"] == {"epoch": 3} and record["aliases"] == ["latest", "best"] and record["files"] == 1
    manifest = Manifest.from_json((run.dir / "files" / record["manifest"]).read_bytes())
    assert manifest.digest == record["digest"] == version.digest
    assert manifest.files[0].sha256 == hashlib.sha256(content).hexdigest()


def test_a_folder_is_kept_with_all_below_it(folder: Path) -> None:
    """Empty files, folders in folders, links to files; not pipes, nor what leads to nowhere."""
    (folder / "link").symlink_to(folder / "a.txt")
    (folder / "broken").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    version = flightlog.init().log_artifact(folder, name="digits", type="dataset")
    assert version is not None
    found = {p.relative_to(version.files).as_posix(): p.read_bytes() for p in version.files.rglob("*") if p.is_file()}
    assert found == {"a.txt": b"a", "deep/er/b.bin": b"bb", "deep/empty": b"", "ü ä.txt": b"c", "link": b"a"}
    assert not any(p.is_symlink() for p in version.files.rglob("*"))


def test_versions_count_and_the_same_content_again_costs_nothing(model: Path, journal: JournalOf) -> None:
    """New content is the next version; the same again is the one before, with a record of its own for its aliases."""
    run = flightlog.init()
    versions = [run.log_artifact(model, aliases=["one"])]
    model.write_bytes(b"two")
    versions += [run.log_artifact(model), run.log_artifact(model, aliases=["best"])]
    run.finish()
    assert [v.version for v in versions if v] == ["v0", "v1", "v1"]
    assert {p.name for p in (run.dir / "files" / "artifacts" / "model").iterdir()} == {"v0", "v1"}
    assert [r.data["aliases"] for r in journal(run.dir).of("artifact")] == [
        ["latest", "one"],
        ["latest"],
        ["latest", "best"],
    ]


@pytest.mark.parametrize("missing", ["nowhere", "no/where", "", "a\0b"])
def test_nothing_there_is_one_warning(missing: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A path that is not there does not stop a training: None, a warning that names it, and nothing half-made."""
    run = flightlog.init()
    if missing:
        assert run.log_artifact(missing, name="kept") is None
        assert "artifact 'kept' is not kept" in capfd.readouterr().err
    assert not list((run.dir / "files").glob("artifacts/*/*"))


@pytest.mark.parametrize(
    "wrong",
    [{"name": "a/b"}, {"name": ".."}, {"name": ""}, {"type": "a/b"}, {"aliases": "a/b"}, {"aliases": ["v3"]},
     {"aliases": 5},
     {"metadata": 5}],
    ids=str,
)  # fmt: skip
def test_names_that_cannot_be_used_are_misuse(model: Path, wrong: dict[str, Any]) -> None:
    """Names with a slash, aliases that are versions' names; nothing is made."""
    run = flightlog.init()
    with pytest.raises(UsageError):
        run.log_artifact(model, **wrong)
    assert not (run.dir / "files" / "artifacts").exists()


@pytest.mark.parametrize("name", ["model", "checkpoint-1", ".hidden", "--x", "ü", "x" * 150, "a:b"])
def test_a_name_is_made_of_the_paths(tmp_path: Path, name: str) -> None:
    """Any file name gives a name that can be used."""
    (tmp_path / name).write_bytes(b"x")
    version = flightlog.init().log_artifact(tmp_path / name)
    assert version is not None and version.files.is_dir()


def test_a_file_name_that_cannot_be_kept_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A name that no other system could hold: the artifact is not kept, and the warning says why."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a\\b").write_bytes(b"")
    assert flightlog.init().log_artifact("data") is None
    assert "a\\\\b" in capfd.readouterr().err


def test_a_file_that_cannot_be_read_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, journal: JournalOf, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file that is gone before it can be read: None, one warning, nothing half-made, and the training goes on."""
    run = flightlog.init()
    listed = os.scandir

    def vanish(path: Any) -> Any:
        found = contextlib.nullcontext(list(listed(path)))
        (folder / "a.txt").unlink(missing_ok=True)
        return found

    for _ in range(2):
        (folder / "a.txt").write_bytes(b"a")
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", vanish)
            assert run.log_artifact(folder, name="digits") is None
    run.log({"x": 1})
    run.finish()
    assert journal(run.dir).logged("x") == [1] and not journal(run.dir).of("artifact")
    assert not list((run.dir / "files").glob("artifacts/digits/*"))
    assert capfd.readouterr().err.count("artifact 'digits' is not kept") == 1


def test_metadata_of_every_kind(model: Path, journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """Numbers beyond JSON and beyond 64 bits, and what has no form: the artifact is kept."""
    run = flightlog.init()
    metadata = {"nan": math.nan, "big": 10**30, "bad": object(), "nested": {"a": (1, math.inf)}}
    run.log_artifact(model, metadata=metadata)
    version = run.log_artifact(model, metadata=metadata)
    assert version is not None and version.version == "v0"
    run.finish()
    found = json.loads((version.path / "manifest.json").read_bytes())["metadata"]
    assert (
        found
        == {"nan": "NaN", "big": 1e30, "nested": {"a": [1, "Infinity"]}}
        == journal(run.dir).of("artifact")[0].data["metadata"]
    )
    assert "bad is left out" in capfd.readouterr().err


def test_huge_metadata_leaves_the_record_readable(model: Path, journal: JournalOf) -> None:
    """Two megabytes of metadata stand in the manifest; the record does without them and can be read."""
    run = flightlog.init()
    run.log_artifact(model, metadata={"text": "x" * (2 << 20)})
    run.finish()
    found = journal(run.dir)
    assert found.sound and "metadata" not in found.of("artifact")[0].data and found.of("artifact")[0].data["digest"]


def test_a_run_with_a_giant_identity_is_still_readable(journal: JournalOf) -> None:
    """Notes of 2 MB do not make the first record, which names the run, unreadable."""
    run = flightlog.init(id="giant", notes="n" * (2 << 20))
    run.log({"x": 1})
    run.finish()
    found = journal(run.dir)
    assert found.sound and found.fold.id == "giant" and found.logged("x") == [1]


def test_a_working_directory_can_be_an_artifact(tmp_path: Path) -> None:
    """log_artifact(".") keeps what lies there, but not the runs recorded below it, and so does not grow by itself."""
    (tmp_path / "model.bin").write_bytes(b"weights")
    run = flightlog.init(dir=tmp_path / "flightlog")
    sizes = []
    for _ in range(2):
        version = run.log_artifact(tmp_path, name="all")
        assert version is not None
        sizes.append(sorted(p.relative_to(version.files).as_posix() for p in version.files.rglob("*") if p.is_file()))
    assert "model.bin" in sizes[0] and not [name for name in sizes[0] if "run-" in name]
    assert sizes[0] == sizes[1]
