"""run.save(): files under their own names, with their bytes, by wandb.save's rules for paths."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog import UsageError
from flightlog.contents import Named, named_files
from flightlog.rundir import RunDir
from flightlog.verify import verify

JournalOf = Callable[[Path], Any]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("top.txt", "a/b/one.txt", "a/b/two.txt", "a/c/one.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def saved(run: Any) -> dict[str, str]:
    place = run.dir / "files" / "saved"
    return {p.relative_to(place).as_posix(): p.read_text() for p in place.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("pattern", "base", "names"),
    [
        ("top.txt", None, {"top.txt"}),
        ("a/b/*", None, {"a/b/one.txt", "a/b/two.txt"}),
        ("a/b/*", "a", {"b/one.txt", "b/two.txt"}),
        ("a/*/one.txt", None, {"a/b/one.txt", "a/c/one.txt"}),
        ("**/two.txt", None, {"a/b/two.txt"}),
        ("{cwd}/a/b/*.txt", None, {"b/one.txt", "b/two.txt"}),
        ("{cwd}/a/b/*.txt", "{cwd}", {"a/b/one.txt", "a/b/two.txt"}),
        ("a", None, set()),
        ("nothing*", None, set()),
        ("a\0b", None, set()),
    ],
)
def test_names_are_as_wandb_has_them(tree: Path, pattern: str, base: str | None, names: set[str]) -> None:
    """Relative patterns keep their folders, absolute ones the last of them, base_path says otherwise."""
    run = flightlog.init()
    paths = run.save(pattern.format(cwd=tree), base and base.format(cwd=tree))
    assert set(saved(run)) == names
    assert {p.relative_to(run.dir / "files" / "saved").as_posix() for p in paths} == names


def test_out_of_the_base_is_misuse(tree: Path) -> None:
    """A pattern above its base would need names with ".."; a policy must be one."""
    os.chdir(tree / "a")
    run = flightlog.init(dir=tree / "flightlog")
    for arguments in (
        {"glob_str": "../top.txt"},
        {"glob_str": "b/*", "base_path": "c"},
        {"glob_str": "b/*", "policy": "x"},
    ):
        with pytest.raises(UsageError):
            run.save(**arguments)
    assert not saved(run)


def test_live_now_and_end(tree: Path, journal: JournalOf) -> None:
    """`now` is what it was, `end` what it is at the end, `live` both; the later record counts, and all is sound."""
    run = flightlog.init()
    for name, policy in (("a/b/one.txt", "now"), ("a/b/two.txt", "end"), ("a/c/one.txt", "live"), ("top.txt", "live")):
        run.save(name, policy=policy)
    assert set(saved(run)) == {"a/b/one.txt", "a/c/one.txt", "top.txt"}
    for name in ("a/b/one.txt", "a/b/two.txt", "a/c/one.txt"):
        (tree / name).write_text("changed")
    (tree / "top.txt").unlink()
    run.finish()
    assert saved(run) == {
        "a/b/one.txt": "a/b/one.txt", "a/b/two.txt": "changed", "a/c/one.txt": "changed", "top.txt": "top.txt",
    }  # fmt: skip
    named = Named()
    for record in journal(run.dir).of("artifact"):
        named.add_record(record)
    files, _, faults = named_files(RunDir(run.dir), named)
    assert set(files) == {f"saved/{name}" for name in saved(run)} and not faults
    assert verify(RunDir(run.dir)).sound


def test_a_large_file_is_saved_in_the_background(tmp_path: Path, dice: random.Random, capfd: Any) -> None:
    """As it was at the call, deleted or not; written to before its copy, it is said not to be kept."""
    from .test_artifacts_changes import held_up

    content = dice.randbytes(9 << 20)
    run = flightlog.init()
    with held_up(run):
        for name in ("deleted", "changed"):
            (tmp_path / name).write_bytes(content)
            run.save(name, policy="now")
        (tmp_path / "deleted").unlink()
        (tmp_path / "changed").write_bytes(b"x")
    run.finish()
    place = run.dir / "files" / "saved"
    assert (place / "deleted").read_bytes() == content and {p.name for p in place.iterdir()} == {"deleted"}
    assert capfd.readouterr().err.count("is not kept") == 1
    assert verify(RunDir(run.dir)).sound


def test_runs_do_not_save_themselves(tree: Path) -> None:
    """save("**") leaves out the folder of the runs."""
    run = flightlog.init()
    run.save("**")
    run.save("**")
    assert set(saved(run)) == {"top.txt", "a/b/one.txt", "a/b/two.txt", "a/c/one.txt"}


def test_a_name_that_is_anothers_folder_costs_itself(tmp_path: Path, capfd: Any) -> None:
    """Saved as a file first and as a folder later: the later one is left out, with one warning."""
    run = flightlog.init()
    (tmp_path / "x").write_text("file")
    run.save("x", policy="now")
    (tmp_path / "x").unlink()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y").write_text("y")
    run.save("x/y", policy="now")
    run.log({"a": 1})
    run.finish()
    assert saved(run) == {"x": "file"} and "is not kept" in capfd.readouterr().err


def test_what_a_script_puts_into_the_run_directory_is_kept(tmp_path: Path, journal: JournalOf) -> None:
    """As wandb keeps what lies in run.dir: asked for by save(), or found at finish; what is the run's own is not."""
    run = flightlog.init()
    (run.dir / "model.h5").write_text("first")
    assert run.save(f"{run.dir}/model.h5") == [run.dir / "files" / "saved" / "model.h5"]
    (run.dir / "model.h5").write_text("second")
    (run.dir / "sub" / "deep").mkdir(parents=True)
    (run.dir / "sub" / "deep" / "x.txt").write_text("x")
    (run.dir / "late.txt").write_text("late")
    (run.dir / ".hidden").write_text("no")
    assert run.save(f"{run.dir}/files/journal/**") == []
    run.finish()
    assert saved(run) == {"model.h5": "second", "sub/deep/x.txt": "x", "late.txt": "late"}
    assert verify(run.rundir).sound
    with flightlog.init() as bare:
        pass
    assert not (bare.dir / "files" / "saved").exists() and not bare._keepers
