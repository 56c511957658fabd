"""Artifact, the handle of a version, use_artifact from earlier runs, and who made and used what."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog import UsageError
from flightlog.artifacts import Artifact, ArtifactVersion, Lineage
from flightlog.errors import DamagedError, NotFound

JournalOf = Callable[[Path], Any]


def made_by(project: str, content: bytes, *aliases: str, **more: Any) -> tuple[str, ArtifactVersion]:
    """Record a run that logs `data`; return its id and the version."""
    Path("data.bin").write_bytes(content)
    with flightlog.init(project) as run:
        version = run.log_artifact("data.bin", name="data", type="dataset", aliases=aliases, **more)
    assert version is not None
    return run.id, version


# -- Artifact ----------------------------------------------------------------------------------------------------------


def test_an_artifact_of_many_parts(tmp_path: Path, journal: JournalOf) -> None:
    """Files under other names, folders, a new file, a reference: one version, whose digest covers all of it."""
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a").write_bytes(b"a")
    (tmp_path / "weights").write_bytes(b"w")
    artifact = Artifact("set", "dataset", "digits, cleaned", {"rows": 3})
    artifact.add_file("weights", "model/weights.bin")
    artifact.add_dir("data", "raw")
    with artifact.new_file("notes/ü.txt") as file:
        file.write("für später")
    with artifact.new_file("blob", "wb") as file:
        file.write(b"\0\1")
    artifact.add_reference("s3://bucket/key/part-0.parquet?versionId=1")
    artifact.add_reference("https://example.org/x", "there/x", size=3, sha256="0" * 64)
    artifact.metadata["late"] = True
    run = flightlog.init()
    version = run.log_artifact(artifact, aliases="v-one")
    assert version is not None
    assert {e.path: e.size for e in version.entries} == {
        "model/weights.bin": 1, "raw/deep/a": 1, "notes/ü.txt": 12, "blob": 2,
    }  # fmt: skip
    assert [(r.path, r.uri, r.size) for r in version.references] == [
        ("part-0.parquet", "s3://bucket/key/part-0.parquet?versionId=1", -1),
        ("there/x", "https://example.org/x", 3),
    ]
    assert (version.type, version.description) == ("dataset", "digits, cleaned")
    data = journal(run.dir).of("artifact")[0].data
    assert data["metadata"] == {"rows": 3, "late": True} and data["description"] == "digits, cleaned"
    artifact.add_reference("https://example.org/y", "there/x", size=3, sha256="0" * 64)
    other = run.log_artifact(artifact)
    assert other is not None and other.version == "v1" and other.digest != version.digest


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: a.add_file("x", "../x"),
        lambda a: a.add_file("x", "/x"),
        lambda a: a.add_file("x", "a\0b"),
        lambda a: a.add_dir("x", "a/../b"),
        lambda a: a.add_file("x", policy="symlink"),
        lambda a: a.add_reference("no address"),
        lambda a: a.add_reference("C:\\model.pt"),
        lambda a: a.add_reference("s3://bucket/\x1b[2J", "x"),
        lambda a: a.add_reference("s3://bucket/", ".."),
        lambda a: a.add_reference("s3://bucket/x", size=-1),
        lambda a: a.add_reference("s3://bucket/x", sha256="ABC"),
        lambda a: a.new_file("../x").__enter__(),
        lambda a: a.new_file("x", "r").__enter__(),
        lambda a: Artifact("a/b"),
        lambda a: Artifact("a", ""),
        lambda a: Artifact("a", metadata=5),
    ],
)
def test_what_cannot_be_added_is_misuse(wrong: Callable[[Artifact], object]) -> None:
    """Names that lead out, addresses that are none: UsageError, where the mistake is made."""
    with pytest.raises(UsageError):
        wrong(Artifact("a"))


@pytest.mark.parametrize("act", ["log_artifact('')", "log_model('')", "log_artifact(Path(''), name='here')"])
def test_an_empty_path_is_misuse(act: str, tmp_path: Path) -> None:
    """It is more often a variable that was never set than the working directory, which is called "."."""
    (tmp_path / "private").write_text("not meant")
    run = flightlog.init(dir=tmp_path / "runs")
    if "Path" in act:
        version = run.log_artifact(Path(), name="here")
        assert version is not None and "private" in [entry.path for entry in version.entries]
        return
    with pytest.raises(UsageError, match="empty path"):
        getattr(run, act.partition("(")[0])("")
    with pytest.raises(UsageError, match="empty path"):
        Artifact("a").add_file("")


def test_what_is_added_by_value_comes_back(tmp_path: Path) -> None:
    """A table with pictures, a picture, a page, a text; by name with and without its ending; bad ones are misuse."""
    import numpy as np

    table = flightlog.Table(columns=["image", "score", "note"])
    table.add_data(flightlog.Image(np.zeros((3, 5), np.uint8)), float("nan"), "a")
    table.add_data(None, float("inf"), {"deep": [float("-inf")]})
    artifact = Artifact("kept")
    artifact.add(table, "eval/table")
    artifact["picture"] = flightlog.Image(np.full((2, 2), 255, np.uint8))
    artifact.add(flightlog.Html("<b>x</b>", inject=False), "page")
    artifact.add(flightlog.Text("words"), "text")
    artifact.add(flightlog.Text("others"), "text", overwrite=True)
    for wrong in (lambda: artifact.add(flightlog.Histogram([1]), "h"), lambda: artifact.add(3, "n"),
                  lambda: artifact.add(flightlog.Text("x"), "text"), lambda: artifact.add(flightlog.Text("x"), "../x"),
                  lambda: artifact.add(flightlog.Image("missing.png"), "m")):  # fmt: skip
        with pytest.raises(UsageError):
            wrong()
    with flightlog.init("p") as run:
        with pytest.raises(UsageError, match="log_artifact"):
            artifact.version  # noqa: B018
        run.log_artifact(artifact)
        assert artifact.wait() is artifact and artifact.version == "v0" and artifact.state == "logged"
        version = run.use_artifact(artifact)
        found = version.get("eval/table")
        assert found.columns == ["image", "score", "note"] and found.data[0][1] != found.data[0][1]
        assert found.data[1] == [None, float("inf"), {"deep": [float("-inf")]}]
        assert found.data[0][0].encode()[2] == {"width": 5, "height": 3}
        assert version["picture"].encode()[0] == version.file("picture.png").read_bytes()
        assert version.get("page.html").encode()[0] == b"<b>x</b>" and version.get("text").encode()[0] == b"others"
        assert version.get("nothing") is None
        path = version.get_path("text.txt")
        assert Path(path.download(tmp_path / "out")) == tmp_path / "out" / "text.txt" and path.size == 6
        assert Path(path.local_path()).read_text() == "others" and path.digest == path.sha256
        assert version.download(root=tmp_path / "all") == tmp_path / "all"
        (version.file("eval/table.table.json")).write_text("[]")
        with pytest.raises(DamagedError, match="no table"):
            version.get("eval/table")


def test_a_file_written_by_a_block_that_fails_is_not_added() -> None:
    """new_file is all or nothing."""
    artifact = Artifact("a")
    with pytest.raises(KeyError), artifact.new_file("x") as file:
        file.write("half")
        raise KeyError
    with artifact.new_file("x") as file:
        file.write("whole")
    with pytest.raises(UsageError, match="already"), artifact.new_file("x"):
        pass
    version = flightlog.init().log_artifact(artifact)
    assert version is not None and version.file().read_text() == "whole"


@pytest.mark.parametrize("second", ["a", "a/b"])
def test_two_parts_of_one_name_are_a_warning(second: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Twice the same name, or a name that is another's folder: not kept, and said."""
    Path("x").write_bytes(b"x")
    artifact = Artifact("twice")
    artifact.add_file("x", "a")
    artifact.add_file("x", second)
    assert flightlog.init().log_artifact(artifact) is None
    assert "artifact 'twice' is not kept" in capfd.readouterr().err


# -- the handle --------------------------------------------------------------------------------------------------------


def test_a_version_is_verified_and_downloaded(tmp_path: Path) -> None:
    """A download is a copy, with what stood there replaced; a file that was changed in the run is refused."""
    _, version = made_by("p", b"rows")
    place = version.download()
    assert place == Path("artifacts/data-v0") and (place / "data.bin").read_bytes() == b"rows"
    (place / "data.bin").write_bytes(b"mine")
    version.verify()
    version.download(place)
    assert (place / "data.bin").read_bytes() == b"rows"
    version.file().write_bytes(b"ROWS")
    for act in (version.verify, lambda: version.download(tmp_path / "other")):
        with pytest.raises(DamagedError, match=r"data\.bin"):
            act()
    assert not list((tmp_path / "other").iterdir())
    version.file().unlink()
    with pytest.raises(DamagedError, match="No such file"):
        version.verify()


def test_a_download_does_not_leave_its_folder(tmp_path: Path) -> None:
    """A link that stands in the folder already leads it nowhere else."""
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "sub" / "x").write_bytes(b"x")
    version = flightlog.init().log_artifact("data")
    (tmp_path / "out").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "sub").symlink_to(tmp_path / "out")
    assert version is not None
    with pytest.raises(DamagedError, match="leads out"):
        version.download(tmp_path / "target")
    assert not list((tmp_path / "out").iterdir())


def test_one_file_of_several(tmp_path: Path) -> None:
    """file() needs a name where there are several, and one that is there."""
    (tmp_path / "data").mkdir()
    for name in "ab":
        (tmp_path / "data" / name).write_text(name)
    version = flightlog.init().log_artifact("data")
    assert version is not None and version.file("b").read_text() == "b"
    with pytest.raises(UsageError, match="2 files"):
        version.file()
    with pytest.raises(NotFound):
        version.file("c")


# -- use_artifact ------------------------------------------------------------------------------------------------------


def test_an_earlier_runs_artifact_is_used_offline(journal: JournalOf) -> None:
    """By alias, by version, of another project; and both sides know of each other."""
    maker, version = made_by("p", b"rows", "clean")
    made_by("p", b"more rows")
    other, _ = made_by("q", b"rows of q")
    run = flightlog.init("p")
    assert run.use_artifact("data").file().read_bytes() == b"more rows"
    for name in ("data:clean", "p/data:clean"):
        used = run.use_artifact(name, type="dataset")
        assert (used.file().read_bytes(), used.made_by, used.digest) == (b"rows", maker, version.digest)
        assert used.aliases == ("latest", "clean") and used.state == "logged" and used.wait() is used
    assert run.use_artifact("q/data:v0").file().read_bytes() == b"rows of q"
    with pytest.raises(UsageError, match="of type 'dataset'"):
        run.use_artifact("data:clean", type="model")
    for missing in ("data:v7", "data:none", "nothing", "r/data"):
        with pytest.raises(NotFound):
            run.use_artifact(missing)
    for wrong in ("", "a/b/c/d", "a//c", "/b/c", "a:b:c", ":x", "a:", 5, "../x"):
        with pytest.raises(UsageError, match="named as"):
            run.use_artifact(wrong)  # type: ignore[arg-type]
    run.finish()
    uses = [r.data for r in journal(run.dir).of("artifact")]
    assert [(d["action"], d["project"], d["version"], d["run"]) for d in uses[1:]] == [
        ("use", "p", "v0", maker),
        ("use", "p", "v0", maker),
        ("use", "q", "v0", other),
    ]
    lineage = Lineage(run.dir.parent)
    assert {use.made_by for use in lineage.inputs_of(run.id)} >= {maker, other}
    assert [used.run for used in lineage.users_of(version.digest)] == [run.id, run.id]
    assert [made.run for made in lineage.makers_of(version.digest)] == [maker]
    assert [(made.version.name, made.aliases) for made in lineage.outputs_of(maker)] == [("data", ("latest", "clean"))]
    assert lineage.outputs_of("nobody") == lineage.inputs_of(maker) == []


def test_the_runs_own_version_is_waited_for(tmp_path: Path, dice: random.Random) -> None:
    """use_artifact right after log_artifact gives what was just logged, when it has been copied."""
    (tmp_path / "big").write_bytes(dice.randbytes(9 << 20))
    run = flightlog.init()
    logged = run.log_artifact("big")
    used = run.use_artifact("big")
    assert logged is not None and used.digest == logged.digest and used.made_by == run.id


def test_what_is_not_here_is_asked_for_elsewhere() -> None:
    """The one seam for a server: it is asked for project, name and alias, and what it gives is recorded as used."""
    _, version = made_by("p", b"rows")
    run = flightlog.init("q")
    asked: list[tuple[str, ...]] = []

    def fetch(*what: str) -> ArtifactVersion | None:
        asked.append(what)
        return version if what[1] == "remote" else None

    run._keeper.elsewhere = fetch
    assert run.use_artifact("remote:best") is version
    with pytest.raises(NotFound):
        run.use_artifact("p/nowhere")
    assert run.use_artifact("w/p/remote") is version
    assert asked == [("q", "remote", "best", None), ("p", "nowhere", "latest", None), ("p", "remote", "latest", "w")]


def test_a_damaged_earlier_version_is_said_to_be(tmp_path: Path) -> None:
    """Its manifest has been changed: DamagedError, not some other version, and not nothing."""
    _, version = made_by("p", b"rows")
    (version.path / "manifest.json").write_text("{}")
    with pytest.raises(DamagedError, match="manifest"):
        flightlog.init("p").use_artifact("data")


def test_latest_is_what_was_logged_last_and_not_what_was_copied_last(tmp_path: Path, dice: random.Random) -> None:
    """A small version is whole before a large one that was logged earlier: it is the latest all the same."""
    (tmp_path / "x").write_bytes(dice.randbytes(9 << 20))
    run = flightlog.init()
    large = run.log_artifact("x", aliases="best")
    (tmp_path / "x").unlink()
    (tmp_path / "x").write_bytes(b"small")
    small = run.log_artifact("x")
    run.finish()
    assert large is not None and small is not None and large.state == small.state == "logged"
    run = flightlog.init()
    assert run.use_artifact("x").digest == small.digest and run.use_artifact("x:best").digest == large.digest


# -- processes ---------------------------------------------------------------------------------------------------------


def _child(run: Any, version: Any, answers: Any) -> None:
    try:
        version.wait()
    except UsageError as error:
        answers.put(str(error))
    Path("child.bin").write_bytes(os.urandom(9 << 20))
    run.log_artifact("child.bin", name="x").wait()
    answers.put([len(list(Path("/proc/self/fd").iterdir())), run.log_artifact("small", name="x").version])
    run.finish()


def test_a_forked_child_keeps_its_own(tmp_path: Path, dice: random.Random) -> None:
    """It does not wait for its parent's copies, nor holds their files open, and counts on where the parent is."""
    from .test_artifacts_changes import held_up

    (tmp_path / "big").write_bytes(dice.randbytes(9 << 20))
    (tmp_path / "small").write_bytes(b"small")
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    run = flightlog.init()
    with held_up(run):
        version = run.log_artifact("big", name="x")
        descriptor = next(iter(run._keeper._waiting.values())).batch.parts[0].held.fd
        assert os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path / "big")
        child = fork.Process(target=_child, args=(run, version, answers))
        child.start()
        child.join(60)
    assert child.exitcode == 0
    assert "is copying it" in answers.get()
    assert answers.get()[1] == "v2"
    run.finish()
    assert version is not None and version.state == "logged"
    assert {p.parent.name for p in (run.dir / "files/artifacts/x").glob("*/manifest.json")} == {"v0", "v1", "v2"}
