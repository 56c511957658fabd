"""init(): where a run goes, what it is called, which settings count, and what is continued."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import flightlog
from flightlog import UsageError, rundir, settings
from flightlog.errors import DamagedError, ResumeError, SettingsError
from flightlog.protocol.names import checked_name, name_fault, random_name
from flightlog.resume import DELIVERED
from flightlog.rundir import RunDir, atomic_write, discover, is_alive, is_run_dir, prepare_root

JournalOf = Callable[[Path], Any]


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


# -- the root and its links --------------------------------------------------------------------------------------------


def test_the_layout_is_that_of_the_design(tmp_path: Path) -> None:
    """Run directory, .gitignore, CACHEDIR.TAG and the three links, and nothing else."""
    run = flightlog.init()
    root = tmp_path / "flightlog"
    assert names(root) == {".gitignore", "CACHEDIR.TAG", "latest", "latest.spec", "files", run.dir.name}
    assert os.readlink(root / "latest") == run.dir.name
    assert os.readlink(root / "latest.spec") == "latest/latest.spec" and os.readlink(root / "files") == "latest/files"
    assert (root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert run.dir.name.startswith("run-2") and run.dir.name.endswith(f"Z-{run.id}"[2:])
    (writer,) = (run.dir / "files" / "journal").iterdir()
    assert names(run.dir) == {"files", "latest.spec"} and names(writer) == {"000001.jsonl"}
    assert len(run.id) == 12 and len(writer.name) == 16
    assert stat.S_IMODE((run.dir / "latest.spec").stat().st_mode) == 0o644


def test_latest_leads_to_the_newest_run(tmp_path: Path) -> None:
    """Each init moves the links, also when a run of the same second and id came before."""
    first = flightlog.init(id="same")
    flightlog.finish()
    (tmp_path / "flightlog" / "latest.spec").unlink()
    second = flightlog.init()
    assert (tmp_path / "flightlog" / "latest").resolve() == second.dir != first.dir
    assert json.loads((tmp_path / "flightlog" / "latest.spec").read_bytes())["id"] == second.id


def test_what_stands_in_the_place_of_a_link_is_left_alone(tmp_path: Path) -> None:
    """Somebody's own file or folder named `latest`, `files` or latest.spec is not replaced."""
    root = tmp_path / "flightlog"
    (root / "latest.spec").mkdir(parents=True)
    (root / "latest").write_text("mine")
    run = flightlog.init(dir=root)
    assert (root / "latest.spec").is_dir() and (root / "latest").read_text() == "mine"
    assert run.rundir.read_spec()["id"] == run.id


def test_where_links_cannot_be_made_a_text_stands_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have no links; the text is replaced by the next run as a link would be."""

    def refuse(self: Path, target: str, target_is_directory: bool = False) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    flightlog.init()
    run = flightlog.init()
    assert (tmp_path / "flightlog" / "latest").read_text() == f"{run.dir.name}\n"
    assert {d.path for d in discover(tmp_path / "flightlog")} >= {run.dir}
    assert not [n for n in names(tmp_path / "flightlog") if n.startswith(".latest")]


@pytest.mark.parametrize("name", ["flightlog", "runs"])
def test_no_gitignore_over_somebodys_files(tmp_path: Path, name: str) -> None:
    """A folder that holds other things, whatever it is called, gets a folder of ours inside, and nothing else."""
    root = tmp_path / name
    root.mkdir()
    (root / "main.py").write_text("print()")
    run = flightlog.init(dir=root)
    assert run.dir.parent == root / "flightlog" and names(root) == {"main.py", "flightlog"}
    assert (root / "flightlog" / ".gitignore").exists()
    assert flightlog.init(dir=root).dir.parent == root / "flightlog"


def test_another_tools_cache_folder_is_not_ours(tmp_path: Path) -> None:
    """A CACHEDIR.TAG of somebody else's makes no root."""
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# cargo\n")
    (tmp_path / "target" / "debug").mkdir()
    assert prepare_root(tmp_path / "target") == tmp_path / "target" / "flightlog"


def test_our_own_folder_is_known_again_without_its_marks(tmp_path: Path) -> None:
    """Copied without dot files and tag it still is the root it was."""
    first = flightlog.init(dir="runs")
    for name in (".gitignore", "CACHEDIR.TAG"):
        (tmp_path / "runs" / name).unlink()
    assert flightlog.init(dir="runs").dir.parent == first.dir.parent == tmp_path / "runs"
    assert (tmp_path / "runs" / ".gitignore").read_text() == "*\n"


@given(st.lists(st.text("abcxyz.", min_size=1, max_size=6), min_size=1, max_size=4, unique=True))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_a_gitignore_never_lies_over_other_content(tmp_path: Path, content: list[str]) -> None:
    """Whatever a folder holds: after prepare_root either it was all ours, or no .gitignore has been added to it."""
    root = tmp_path / random_name(60) / "flightlog"
    root.mkdir(parents=True)
    for name in content:
        if name not in (".", ".."):
            (root / name).write_text("mine")
    held = names(root)
    made = prepare_root(root)
    assert made == root if not held else made == root / "flightlog" and names(root) == held | {"flightlog"}


@pytest.mark.parametrize("as_path", [True, False])
def test_dir_is_an_absolute_or_relative_path_of_either_kind(tmp_path: Path, as_path: bool) -> None:
    """Text or Path, relative or absolute, made with its parents; a later chdir does not matter."""
    for given_ in ("a/b/runs", str(tmp_path / "c" / "runs")):
        run = flightlog.init(dir=Path(given_) if as_path else given_)
        assert run.dir.parent == tmp_path / given_ and run.dir.is_absolute()
    os.chdir("/")
    run.log({"x": 1})
    flightlog.finish()
    assert run.rundir.read_spec()["state"] == "finished"


@pytest.fixture
def spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of last resort, in a temporary folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp" / f"flightlog-{os.getuid()}"


def refuse_runs_in(monkeypatch: pytest.MonkeyPatch, what: str, error: OSError) -> None:
    make = Path.mkdir  # os.mkdir would be the lower edge, but Python 3.10's pathlib holds it by another name

    def refuse(path: Path, *how: Any, **more: Any) -> None:
        if what in str(path):
            raise error
        make(path, *how, **more)

    monkeypatch.setattr(Path, "mkdir", refuse)


@pytest.mark.parametrize("place", ["file", "file/runs", "closed"])
def test_a_folder_that_cannot_be_written_does_not_stop_a_training(
    tmp_path: Path, spare: Path, monkeypatch: pytest.MonkeyPatch, journal: JournalOf,
    capfd: pytest.CaptureFixture[str], place: str,
) -> None:  # fmt: skip
    """A file in the way, a folder without permission: one warning says where the run is recorded instead."""
    (tmp_path / "file").write_text("")
    (tmp_path / "closed").mkdir()
    refuse_runs_in(monkeypatch, "closed/run-", PermissionError(errno.EACCES, "Permission denied"))
    with flightlog.init(dir=place, config={"a": 1}) as run:
        run.log({"x": 1})
    assert run.dir.parent == spare and (spare / "latest").resolve() == run.dir
    assert journal(spare).logged("x") == [1] and journal(spare).fold.config == {"a": 1}
    said = capfd.readouterr().err
    assert said.count("cannot be written") == 1 and str(spare) in said
    assert spare.stat().st_mode & 0o777 == 0o700


def test_a_spare_folder_of_somebody_else_is_not_used(tmp_path: Path, spare: Path) -> None:
    """Where the temporary folder holds a link under our name, another one is made: nobody leads our runs away."""
    (tmp_path / "trap").mkdir()
    spare.symlink_to(tmp_path / "trap")
    (tmp_path / "file").write_text("")
    run = flightlog.init(dir="file")
    assert run.dir.parent != spare and not list((tmp_path / "trap").iterdir())


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path, spare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the folder nor a temporary one: an error that names both."""
    refuse_runs_in(monkeypatch, str(tmp_path), OSError(errno.EROFS, "Read-only file system"))
    with pytest.raises(UsageError, match=r"neither .* nor a temporary folder"):
        flightlog.init(dir="somewhere")


def test_a_disk_full_at_init_does_not_stop_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: JournalOf
) -> None:
    """The run begins in memory and is on disk, from its first record on, once there is room."""
    full = True
    make = Path.mkdir

    def mkdir(path: Path, *how: Any, **more: Any) -> None:
        if full and "run-" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        make(path, *how, **more)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    run = flightlog.init(config={"a": 1})
    run.log({"x": 1})
    assert not run.dir.exists()
    full = False
    run.log({"x": 2})
    run.finish()
    found = journal(run.dir)
    assert found.sound and found.logged("x") == [1, 2] and found.fold.config == {"a": 1}
    assert run.rundir.read_spec()["state"] == "finished"


def test_many_runs_begun_at_once(tmp_path: Path) -> None:
    """Threads that make directories of one id in one second, and move the links, do not collide."""
    root = prepare_root(tmp_path / "flightlog")
    made: list[RunDir] = []

    def begin() -> None:
        for _ in range(10):
            made.append(rundir.create(root, "one", 1e9))
            rundir.point_latest(root, made[-1])

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({d.path for d in made}) == 40 == len(list(discover(root)))
    assert (root / "latest").resolve() in {d.path for d in made}
    assert not [n for n in names(root) if n.startswith((".latest", ".files"))]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    ["", " ", "a/b", "..", ".hidden", "~x", "-x", "a ", "a\\b", "a:b", "a\nb", "a\0b", "x" * 129, "ü" * 101,
     "a\u202eb", "\udcff"],
    ids=ascii,
)  # fmt: skip
def test_names_that_cannot_be_folders_or_addresses(bad: str) -> None:
    """Run ids, projects and workspaces are checked before anything is made, and the error says what is wrong."""
    assert name_fault(bad)
    for argument in ("id", "project", "workspace"):
        if bad or argument == "id":
            with pytest.raises(UsageError):
                flightlog.init(**{argument: bad})
    assert not Path("flightlog").exists()


@pytest.mark.parametrize("good", ["a", "a.b-c_d", "mit Leerzeichen", "数字", "x" * 128, "a=b", "k3v9x2abqmtz"])
def test_names_that_can(good: str) -> None:
    """Letters of any script, digits, dots, dashes and inner spaces."""
    assert checked_name("project", good) == good
    run = flightlog.init(project=good, id=good)
    assert (run.project, run.id) == (good, good) and run.dir.name.endswith(good)


def test_unknown_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    """What wandb knows and flightlog does not is said once and ignored; anything else is a TypeError."""
    flightlog.init(force=True, reinit=True)
    flightlog.init(force=True)
    assert capfd.readouterr().err.count("init(force=)") == 1
    with pytest.raises(TypeError, match="projekt"):
        flightlog.init(projekt="x")


# -- settings ----------------------------------------------------------------------------------------------------------


def test_the_precedence_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, FLIGHTLOG_*, the nearest flightlog.toml, the user's file, WANDB_*, default: the first that speaks."""
    layers: list[Callable[[], object]] = [
        lambda: monkeypatch.setenv("WANDB_PROJECT", "from-wandb"),
        lambda: _write(settings.config_home() / "settings.toml", 'project = "from-user"\nname = "user-name"\n'),
        lambda: _write(tmp_path / "flightlog.toml", 'project = "from-file"\ntags = ["a", "b"]\n'),
        lambda: monkeypatch.setenv("FLIGHTLOG_PROJECT", "from-env"),
    ]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert settings.load().project == "uncategorized"
    for put, expected in zip(layers, ["from-wandb", "from-user", "from-file", "from-env"], strict=True):
        put()
        assert settings.load().project == expected
    found = settings.load(project="from-argument", name=None)
    assert (found.project, found.name, found.tags) == ("from-argument", "user-name", ("a", "b"))
    assert found.sources["project"] == "argument" and found.sources["name"].endswith("settings.toml")
    run = flightlog.init()
    assert (run.project, run.name, run.tags) == ("from-env", "user-name", ("a", "b"))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_every_variable_reaches_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each FLIGHTLOG_* of the design is read."""
    for name, value in {
        "DIR": "elsewhere", "PROJECT": "p", "WORKSPACE": "w", "NAME": "n", "RUN_ID": "i", "GROUP": "g", "JOB_TYPE": "j",
        "TAGS": "a, b,,a", "NOTES": "some notes", "RESUME": "allow", "MODE": "offline",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"FLIGHTLOG_{name}", value)
    spec = flightlog.init().rundir.read_spec()
    assert (spec["project"], spec["workspace"], spec["name"], spec["id"]) == ("p", "w", "n", "i")
    assert (spec["group"], spec["job_type"], spec["tags"], spec["notes"]) == ("g", "j", ["a", "b"], "some notes")
    assert (tmp_path / "elsewhere" / "latest.spec").exists()


def test_wandb_variables_are_announced_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """They are taken for want of ours, in one line; a value that means something there only is passed over."""
    monkeypatch.delenv("FLIGHTLOG_MODE")
    for name, value in {"PROJECT": "p", "MODE": "dryrun", "RESUME": "whatever", "NAME": "n"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    flightlog.init()
    run = flightlog.init()
    said = capfd.readouterr().err
    assert (run.project, run.name) == ("p", "n") and said.count("WANDB_MODE, WANDB_NAME, WANDB_PROJECT") == 1
    assert "WANDB_RESUME" not in said


def test_wandbs_key_is_never_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither init nor settings look at WANDB_API_KEY, and it shows up nowhere in what is written."""

    class Watched(dict[str, str]):
        def __getitem__(self, key: str) -> str:
            assert key != "WANDB_API_KEY"
            return super().__getitem__(key)

        def get(self, key: str, default: Any = None) -> Any:
            assert key != "WANDB_API_KEY"
            return super().get(key, default)

    monkeypatch.setattr(os, "environ", Watched(os.environ, WANDB_API_KEY="0123456789abcdef"))
    flightlog.init(mode="offline").log({"x": 1})
    flightlog.finish()
    for path in (tmp_path / "flightlog").rglob("*"):
        assert not path.is_file() or b"0123456789abcdef" not in path.read_bytes()


@pytest.mark.parametrize(("variable", "value"), [("FLIGHTLOG_MODE", "offlin"), ("FLIGHTLOG_RESUME", "perhaps")])
def test_a_variable_that_means_nothing_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """A typing error is not passed over in silence."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"{variable}.*{value}"):
        flightlog.init()


@pytest.mark.parametrize("text", ["project = ", "\xff", "project = 5", "tags = 5", 'mode = "x"'])
def test_a_settings_file_that_cannot_be_understood_is_named(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says which file."""
    monkeypatch.delenv("FLIGHTLOG_MODE")
    (tmp_path / "flightlog.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"flightlog\.toml"):
        flightlog.init()


def test_a_home_that_cannot_be_found_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container with a user id of no name, or with a home closed to us, there simply are no user settings."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    flightlog.init()

    def closed(self: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "is_file", closed)
    assert settings.load().project == "uncategorized"


# -- resuming ----------------------------------------------------------------------------------------------------------


def begun(journal: JournalOf, **more: Any) -> flightlog.Run:
    """Record a run "r" with three steps that is over."""
    run = flightlog.init(project="p", id="r", name="first", config={"lr": 1, "bs": 2}, tags=["a"], **more)
    for i in range(3):
        run.log({"x": i})
    run.finish(exit_code=1)
    return run


@pytest.mark.parametrize("resume", [None, "allow", "must", "auto", True])
def test_a_run_is_continued(journal: JournalOf, resume: Any) -> None:
    """Step, config, summary, name and tags go on; a new writer names what it had seen; it is one run."""
    first = begun(journal)
    run = flightlog.init(id="r", resume=resume, config={"lr": 5}, tags=["b"])
    assert run.resumed and not first.resumed and run.dir == first.dir
    assert (run.step, run.project, run.name, run.tags) == (3, "p", "first", ("a", "b"))
    assert run.config.as_dict() == {"lr": 5, "bs": 2} and run.summary.as_dict() == {"x": 2}
    spec = run.rundir.read_spec()
    assert (spec["state"], spec["config"], spec["step"]) == ("running", {"lr": 5, "bs": 2}, 3)
    run.log({"x": 3})
    run.finish()
    found = journal(run.dir)
    assert found.logged("x") == [0, 1, 2, 3] and [r.step for r in found.of("log")] == [0, 1, 2, 3]
    assert list(found.of("run")[1].data["parents"].values()) == [6]
    assert (found.fold.state, found.fold.tags, found.fold.step) == ("finished", ["a", "b"], 4)
    spec = run.rundir.read_spec()
    assert spec["started_at"] == first.rundir.read_spec()["started_at"]
    assert spec["records"] == len(found.records) == found.fold.records


def test_auto_takes_the_newest_run_that_did_not_finish(journal: JournalOf) -> None:
    """Without an id: this project's newest, if it failed; a finished one, or none, begins anew."""
    first = begun(journal)
    assert flightlog.init(project="other", resume="auto").resumed is False
    flightlog.finish()
    run = flightlog.init(project="p", resume="auto")
    assert run.id == "r" and run.resumed and run.dir == first.dir
    run.finish()
    assert flightlog.init(project="p", resume="auto").resumed is False


def test_must_and_never(journal: JournalOf) -> None:
    """must raises without the run (or without an id), never with it; nothing is made then."""
    with pytest.raises(ResumeError, match="r"):
        flightlog.init(id="r", resume="must")
    with pytest.raises(ResumeError, match="id"):
        flightlog.init(resume="must")
    begun(journal)
    with pytest.raises(ResumeError, match="r"):
        flightlog.init(id="r", resume="never")
    assert len(list(Path("flightlog").glob("run-*"))) == 1
    assert flightlog.init(id="other", resume="never").id == "other"


def test_what_was_cleaned_away_is_continued_from_its_spec(journal: JournalOf) -> None:
    """After `sync --clean` the spec under .delivered/ gives step, config, summary and name."""
    first = begun(journal)
    home = first.dir.parent / DELIVERED
    home.mkdir()
    first.rundir.spec_path.rename(home / "r.spec")
    first.dir.rename(first.dir.parent.parent / "gone")
    run = flightlog.init(id="r", resume="must")
    assert run.resumed and run.dir.parent == first.dir.parent
    assert (run.step, run.name, run.project, run.tags) == (3, "first", "p", ("a",))
    assert run.config.as_dict() == {"lr": 1, "bs": 2} and run.summary.as_dict() == {"x": 2}
    run.log({"x": 3})
    run.finish()
    assert journal(run.dir).of("log")[0].step == 3
    assert run.rundir.read_spec()["records"] == 6 + 3


def test_a_damaged_remainder_is_said_and_passed_over(capfd: pytest.CaptureFixture[str]) -> None:
    """The run begins without knowing what came before."""
    _write(Path("flightlog") / DELIVERED / "r.spec", "{")
    assert flightlog.init(id="r").resumed is False
    assert "r.spec" in capfd.readouterr().err


def test_a_run_whose_spec_is_lost_is_known_by_its_journal(journal: JournalOf) -> None:
    """latest.spec is a cache: without it, or with rubbish in it, the run is found and continued all the same."""
    first = begun(journal)
    first.rundir.spec_path.write_text("rubbish")
    run = flightlog.init(id="r", resume="must")
    assert (run.step, run.config.lr) == (3, 1)
    assert run.rundir.read_spec()["id"] == "r"


def test_two_processes_of_one_run(script: Any, journal: JournalOf, tmp_path: Path) -> None:
    """While one is alive, a second with its id writes beside it: only the first keeps latest.spec and ends the run."""
    run = flightlog.init(id="r")
    run.log({"who": "first"})
    script("import flightlog; r = flightlog.init(id='r'); r.log({'who': 'second'}); r.finish(exit_code=1)")
    assert run.rundir.read_spec()["pid"] == os.getpid()
    run.finish()
    found = journal(run.dir)
    assert sorted(found.logged("who")) == ["first", "second"] and found.fold.state == "finished"
    assert len(list((tmp_path / "flightlog").glob("run-*"))) == 1


# -- reading a run directory -------------------------------------------------------------------------------------------


def test_discovery_follows_no_links_and_enters_no_files(tmp_path: Path) -> None:
    """Run directories are found by what they hold, to a bounded depth, and not through links, .git or files/."""
    run = flightlog.init(dir="a/b/runs")
    flightlog.finish()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for inside in (run.dir / "files" / "media", tmp_path / ".git", tmp_path / "node_modules"):
        (inside / "fake" / "files").mkdir(parents=True)
        (inside / "fake" / "latest.spec").write_text("{}")
    assert [d.path for d in discover(tmp_path)] == [run.dir]
    assert [d.path for d in discover(run.dir)] == [run.dir]
    assert list(discover(tmp_path, max_depth=2)) == [] == list(discover(tmp_path / "nowhere"))
    assert not is_run_dir(tmp_path / "flightlog")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": 5}', "null", "\0"])
def test_a_damaged_spec_is_named(tmp_path: Path, content: str) -> None:
    """What is no spec raises one kind of error, with the path."""
    (tmp_path / "latest.spec").write_text(content)
    with pytest.raises(DamagedError, match=r"latest\.spec"):
        RunDir(tmp_path).read_spec()
    (tmp_path / "latest.spec").unlink()
    (tmp_path / "latest.spec").symlink_to("/etc/hostname")
    with pytest.raises(DamagedError, match=r"latest\.spec"):
        RunDir(tmp_path).read_spec()


def test_an_atomic_write_that_fails_leaves_the_old_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle, or a failing fsync: the old content stands."""
    target = tmp_path / "f"
    atomic_write(target, b"old")
    write = os.write

    def half(fd: int, data: bytes) -> int:
        if len(data) < 3:
            raise OSError(errno.ENOSPC, "full")
        return write(fd, bytes(data)[: len(data) // 2])

    for name, broken in (("write", half), ("fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "bad")))):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, broken)
            with pytest.raises(OSError, match=r"full|bad"):
                atomic_write(target, b"new content")
        assert target.read_bytes() == b"old" and names(tmp_path) == {"f"}
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:2]))
    atomic_write(target, b"in small pieces")
    assert target.read_bytes() == b"in small pieces"


def test_alive_is_judged_by_the_process_here_and_by_growth_elsewhere() -> None:
    """A pid that now belongs to another process is not our run; on another host only the journal's growth tells."""
    run = flightlog.init()
    spec = run.rundir.read_spec()
    assert is_alive(run.rundir, spec)
    assert not is_alive(run.rundir, {**spec, "process_started_at": spec["process_started_at"] - 1000})
    assert spec["host"] == socket.gethostname()
    elsewhere = {**spec, "host": "another"}
    assert is_alive(run.rundir, elsewhere)
    (segment,) = run.dir.rglob("000001.jsonl")
    os.utime(segment, (1e9, 1e9))
    assert not is_alive(run.rundir, elsewhere)


@pytest.mark.parametrize("value", ["1e9", "nan", "-1", "0.01"])
def test_an_interval_out_of_its_range_is_told_the_range(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends of it."""
    monkeypatch.setenv("FLIGHTLOG_SYSTEM_INTERVAL", value)
    with pytest.raises(SettingsError, match=r"neither 0 \(none\) nor 0\.1 to 1,000,000 seconds"):
        flightlog.init()
