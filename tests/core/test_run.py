"""A run: steps, config, summary, its end, and what is misuse."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flightlog
from flightlog import UsageError, current, recorder, rundir, terminal
from flightlog.errors import FlightlogError
from flightlog.media.base import Media

JournalOf = Callable[[Path], Any]


@dataclasses.dataclass
class Options:
    lr: float = 0.1
    layers: tuple[int, ...] = (1, 2)
    lock: Any = dataclasses.field(default_factory=threading.Lock)  # nothing that could be copied


def steps(found: Any) -> list[int]:
    return [r.step for r in found.of("log")]


# -- steps -------------------------------------------------------------------------------------------------------------


def test_the_run_counts_steps_by_itself(journal: JournalOf) -> None:
    """Without a step each call is the next one; `step` says which comes."""
    run = flightlog.init()
    for i in range(3):
        assert run.step == i
        run.log({"x": i})
    run.finish()
    assert steps(journal(run.dir)) == [0, 1, 2]


def test_commit_false_writes_at_once_and_keeps_the_step(journal: JournalOf) -> None:
    """Several calls add to one step, and each is in the journal before the next."""
    run = flightlog.init()
    run.log({"a": 1}, commit=False)
    assert steps(journal(run.dir)) == [0] and run.step == 0
    run.log({"b": 2}, commit=False)
    run.log({"c": 3})
    run.log({"d": 4}, step=10, commit=False)
    assert run.step == 10
    run.log({"e": 5})
    run.log({"f": 6})
    run.finish()
    assert steps(journal(run.dir)) == [0, 0, 0, 10, 10, 11]


def test_any_step_in_any_order(journal: JournalOf) -> None:
    """Earlier steps, negative ones, and those of other libraries' integers; the counter never goes back."""
    run = flightlog.init()
    for step in (5, 2, -3, np.int64(7), np.array(8), 9.0, np.float32(4.0), (1 << 63) - 2):
        run.log({"x": 1}, step=step)  # type: ignore[arg-type]
    assert run.step == (1 << 63) - 1
    run.finish()
    assert steps(journal(run.dir)) == [5, 2, -3, 7, 8, 9, 4, (1 << 63) - 2]


@pytest.mark.parametrize("step", ["a", 1.5, math.nan, math.inf, 1 << 63, -(1 << 63) - 1, [1], object()])
def test_what_is_no_step_is_misuse(step: Any) -> None:
    """A step is an integer of 64 bits, and the error says so."""
    run = flightlog.init()
    with pytest.raises(UsageError, match="step"):
        run.log({"x": 1}, step=step)
    assert run.step == 0


@pytest.mark.parametrize("data", ["x", 5, None, [("a", 1)], {"a"}])
def test_what_is_no_mapping_is_misuse(data: Any) -> None:
    """log() takes names and values, and a UsageError is a ValueError for those who do not know flightlog."""
    with pytest.raises(UsageError, match="mapping") as caught:
        flightlog.init().log(data)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, FlightlogError)


def test_an_empty_call_is_a_step(journal: JournalOf) -> None:
    """log({}) records that a step went by."""
    run = flightlog.init()
    run.log({})
    run.log({"x": 1})
    run.finish()
    assert steps(journal(run.dir)) == [0, 1]


# -- after the end -----------------------------------------------------------------------------------------------------


def test_everything_after_finish_is_misuse(tmp_path: Path) -> None:
    """log, config, summary and artifacts of a finished run raise; a second finish does nothing."""
    run = flightlog.init()
    run.finish()
    run.finish()
    calls: list[Callable[[], object]] = [
        lambda: run.log({"x": 1}),
        lambda: run.log({"x": "text"}),
        lambda: run.config.update({"a": 1}),
        lambda: run.summary.update({"a": 1}),
        lambda: run.log_artifact(tmp_path),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="finished"):
            call()


def test_the_module_without_a_run() -> None:
    """Each function names itself and init(); `run` is None; finish() is harmless."""
    assert flightlog.run is None
    flightlog.finish()
    for call in (
        lambda: flightlog.log({"x": 1}),
        lambda: flightlog.log_artifact("x"),
        lambda: flightlog.config,
        lambda: flightlog.summary,
    ):
        with pytest.raises(UsageError, match=r"flightlog\.init"):
            call()


def test_the_module_speaks_of_the_current_run(journal: JournalOf) -> None:
    """init, log, config, summary, log_artifact and finish as functions are those of the current run."""
    run = flightlog.init(project="p", config={"a": 1})
    assert flightlog.run is run
    flightlog.log({"x": 1}, 4)
    flightlog.config.b = 2
    flightlog.summary["best"] = 3
    Path("model.bin").write_bytes(b"weights")
    assert flightlog.log_artifact("model.bin", type="model").name == "model"
    flightlog.finish(exit_code=2)
    assert flightlog.run is None
    found = journal(run.dir)
    assert found.fold.config == {"a": 1, "b": 2} and found.fold.summary == {"x": 1, "best": 3}
    assert (found.fold.state, found.fold.exit_code, found.fold.step) == ("failed", 2, 5)
    assert [r.kind for r in found.records] == ["run", "config", "log", "config", "summary", "artifact", "finish"]


def test_log_racing_with_finish_is_kept_or_refused(journal: JournalOf) -> None:
    """Threads that log while another finishes: each call is in the journal or has raised, never neither."""
    for _ in range(5):
        run = flightlog.init()
        kept: list[list[int]] = [[] for _ in range(4)]
        refused: list[int] = []

        def work(
            thread: int, run: flightlog.Run = run, kept: list[list[int]] = kept, refused: list[int] = refused
        ) -> None:
            n = 0
            while True:
                try:
                    run.log({"n": thread * 1_000_000 + n} if n % 2 else {"n": thread * 1_000_000 + n, "t": "text"})
                except UsageError:
                    refused.append(thread)
                    return
                kept[thread].append(thread * 1_000_000 + n)
                n += 1

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        run.finish()
        for thread in threads:
            thread.join()
        found = journal(run.dir)
        assert sorted(refused) == [0, 1, 2, 3] and found.sound
        assert set(found.logged("n")) >= {n for own in kept for n in own}
        assert len(rundir.RunDir(run.dir).journal_sizes()) == 1


# -- how it ends -------------------------------------------------------------------------------------------------------


def test_a_context_manager_finishes(journal: JournalOf) -> None:
    """Leaving the block ends the run; sys.exit(0) in it is no failure."""
    with flightlog.init() as run:
        run.log({"x": 1})
    assert run.state == "finished" and journal(run.dir).fold.state == "finished"
    with pytest.raises(SystemExit), flightlog.init() as run:
        raise SystemExit(0)
    assert run.state == "finished"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [ValueError("wrong"), KeyboardInterrupt(), SystemExit(3), Unspeakable(), OSError("\udcff"), ValueError("x" * 9**6)],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_a_failing_block_is_a_failed_run(error: BaseException, journal: JournalOf) -> None:
    """Whatever the exception, it is passed on as it is, and its traceback is in the journal."""
    with pytest.raises(type(error)) as caught, flightlog.init() as run:
        raise error
    assert caught.value is error
    fold = journal(run.dir).fold
    assert (fold.state, fold.exit_code) == ("failed", 1)
    assert fold.error is not None and fold.error["type"] == type(error).__name__
    assert "test_a_failing_block_is_a_failed_run" in fold.error["traceback"] or len(fold.error["traceback"]) > 60_000
    assert run.rundir.read_spec()["state"] == "failed"


def test_a_second_init_finishes_the_first() -> None:
    """One run at a time is current, and the one before is ended properly."""
    first = flightlog.init()
    second = flightlog.init()
    assert (first.state, second.state, flightlog.run) == ("finished", "running", second)
    assert first.rundir.read_spec()["state"] == "finished" and first.id != second.id


# -- config, summary ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [{"lr": 0.1, "layers": (1, 2)}, argparse.Namespace(lr=0.1, layers=[1, 2]), Options()],
    ids=["dict", "namespace", "dataclass"],
)
def test_config_takes_what_holds_names_and_values(config: Any, journal: JournalOf) -> None:
    """At init and at update: a mapping, an argparse.Namespace, a dataclass; also with fields that cannot be copied."""
    run = flightlog.init(config=config)
    assert run.config.lr == 0.1 and run.config["layers"] == [1, 2]
    run.config.update(config)
    run.config.update({"new": 1}, more=2)
    run.config.setdefaults({"new": 5, "newer": 3})
    run.config.lr = 0.1
    run.finish()
    assert journal(run.dir).fold.config == {"lr": 0.1, "layers": [1, 2], "new": 1, "more": 2, "newer": 3}
    assert run.rundir.read_spec()["config"].items() <= run.config.as_dict().items()


def test_settings_within_settings_are_kept(journal: JournalOf) -> None:
    """Namespaces, dataclasses, OmegaConf, pydantic, attrs, in any depth; what has no form costs itself alone."""
    import types

    import attr
    import pydantic
    from omegaconf import OmegaConf

    class Model(pydantic.BaseModel):
        width: int = 8
        inner: dict[str, Any] = {"a": [1]}

    @attr.s(auto_attribs=True)
    class Data:
        path: str = "x"
        sizes: tuple[int, ...] = (1, 2)

    class Broken:
        def to_dict(self) -> dict[str, Any]:
            raise RuntimeError("no")

    hydra = OmegaConf.create({"base": 2, "twice": "${base}", "list": [1, {"b": "${base}"}], "open": "???"})
    settings = {
        "model": Model(),
        "data": [Data(), argparse.Namespace(a=types.SimpleNamespace(b=Options()))],
        "hydra": hydra,
        "broken": Broken(),
    }
    with flightlog.init(config=settings) as run:
        run.config.update(Model(width=9))
        run.config.update({"part": hydra.list})
        assert isinstance(run.config["broken"], Broken)
    expected = {
        "model": {"width": 8, "inner": {"a": [1]}},
        "data": [{"path": "x", "sizes": [1, 2]}, {"a": {"b": {"lr": 0.1, "layers": [1, 2]}}}],
        "hydra": {"base": 2, "twice": 2, "list": [1, {"b": 2}], "open": "???"},
        "width": 9, "inner": {"a": [1]}, "part": [1, {"b": 2}],
    }  # fmt: skip
    assert journal(run.dir).fold.config == expected
    with flightlog.init(config=hydra) as other:
        assert other.config["twice"] == 2
    with flightlog.init(config=Data()) as other:
        assert other.config["path"] == "x"


def test_settings_that_hold_themselves_cost_their_key(capfd: pytest.CaptureFixture[str]) -> None:
    """Twice over, so that who went around would go for ever."""
    loop: dict[str, Any] = {"a": 1}
    loop["again"] = [loop, loop, argparse.Namespace(loop=loop)]
    with flightlog.init(config={"loop": loop, "lr": 1}) as run:
        assert run.config["loop"]["a"] == 1
    assert run.rundir.read_spec()["config"] == {"lr": 1}
    assert "loop is left out" in capfd.readouterr().err


def test_config_of_one_run_may_be_given_to_the_next() -> None:
    """A Config is a mapping like any other."""
    first = flightlog.init(config={"a": 1})
    assert flightlog.init(config=first.config).config.as_dict() == {"a": 1}


@pytest.mark.parametrize("config", [5, "lr=1", [("a", 1)], Options, 0, ""])
def test_what_is_no_config_is_misuse(config: Any) -> None:
    """It raises before anything is made on disk, and in update() as well."""
    with pytest.raises(UsageError, match="mapping"):
        flightlog.init(config=config)
    assert not Path("flightlog").exists()
    run = flightlog.init()
    for call in (run.config.update, run.config.setdefaults, run.summary.update):
        with pytest.raises(UsageError, match="mapping"):
            call(config)


def test_a_changed_config_value_is_warned_of_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Changing is more often a mistake; the same value in another form, or one meant to change, is none."""
    run = flightlog.init(config={"lr": 0.1, "betas": (0.9, 0.99), "nan": math.nan, "a": np.float32(0.5)})
    run.config.update({"betas": [0.9, 0.99], "lr": 0.1, "nan": math.nan, "a": np.array(0.5)})
    run.config.update({"lr": np.zeros((2, 2))}, allow_val_change=True)
    assert "changes" not in capfd.readouterr().err
    run.config.lr = 0.2
    run.config.lr = 0.3
    run.config.update({"betas": "x" * 10_000})
    said = capfd.readouterr().err
    assert said.count("config.lr changes from") == 1 and "allow_val_change" in said
    assert len(said) < 1500
    assert run.config.lr == 0.3


def test_config_and_summary_are_mappings() -> None:
    """They read as dicts do; what was recorded cannot be deleted; a missing name is an AttributeError."""
    run = flightlog.init(config={"a": 1})
    assert (
        dict(run.config) == {"a": 1} and len(run.config) == 1 and "a" in run.config and repr(run.config) == "{'a': 1}"
    )
    assert run.config.get("nope", 7) == 7
    with pytest.raises(AttributeError, match="nope"):
        run.config.nope  # noqa: B018
    with pytest.raises(KeyError):
        run.summary["nope"]
    with pytest.raises(UsageError, match="deleted"):
        del run.config["a"]


def test_summary_is_the_latest_of_every_metric(journal: JournalOf) -> None:
    """Logged values, what the script sets itself, and at the end the same from the journal and latest.spec."""
    run = flightlog.init()
    for i in range(5):
        run.log({"loss": 5 - i, "acc": np.float32(i / 10)})
    run.summary["best"] = np.float32(0.5)
    run.summary.update({"loss": "set by hand", "nan": math.nan})
    run.finish()
    assert run.summary.as_dict() | {"nan": 0} == {
        "loss": "set by hand",
        "acc": pytest.approx(0.4),
        "best": 0.5,
        "nan": 0,
    }
    assert repr(journal(run.dir).fold.summary) == repr(run.summary.as_dict())
    assert run.rundir.read_spec()["summary"]["nan"] == "NaN"


# -- latest.spec -------------------------------------------------------------------------------------------------------


def test_latest_spec_says_who_the_run_is_and_how_it_stands() -> None:
    """All fields of the design are there from the first second, with config, and kept up to the end."""
    before = time.time()
    run = flightlog.init(
        project="digits", name="n", id="abc", config={"lr": 1}, tags=["a", "b", "a"], notes="why", group="g",
        job_type="train", workspace="lab",
    )  # fmt: skip
    spec = run.rundir.read_spec()
    assert spec.keys() >= {
        "format", "id", "project", "workspace", "name", "group", "job_type", "tags", "notes", "state", "started_at",
        "updated_at", "host", "pid", "command", "config", "summary", "step", "records", "bytes",
    }  # fmt: skip
    assert (spec["format"], spec["id"], spec["project"], spec["workspace"], spec["name"]) == (
        1,
        "abc",
        "digits",
        "lab",
        "n",
    )
    assert (spec["tags"], spec["notes"], spec["group"], spec["job_type"]) == (["a", "b"], "why", "g", "train")
    assert (spec["state"], spec["pid"], spec["config"]) == ("running", os.getpid(), {"lr": 1})
    assert before <= spec["started_at"] <= spec["updated_at"] <= time.time()
    run.log({"x": 10**40, "y": math.inf})
    run.finish(exit_code=1)
    spec = run.rundir.read_spec()
    assert (spec["state"], spec["exit_code"], spec["step"], spec["records"]) == ("failed", 1, 1, 4)
    assert spec["summary"] == {"x": 1e40, "y": "Infinity"} and spec["finished_at"] >= spec["started_at"]
    assert spec["bytes"] == sum(n for s in run.rundir.journal_sizes().values() for n in s.values())
    assert json.loads((run.dir / "latest.spec").read_bytes()) == spec


def test_latest_spec_follows_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The housekeeper writes it anew when something changed."""
    monkeypatch.setattr(recorder, "SPEC_SECONDS", 0.0)
    run = flightlog.init()
    run.log({"x": 1})
    deadline = time.monotonic() + 10
    while run.rundir.read_spec()["step"] != 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run.rundir.read_spec()["summary"] == {"x": 1} and run.rundir.read_spec()["state"] == "running"


def test_a_reader_of_latest_spec_never_sees_half_of_it() -> None:
    """While it is replaced again and again, every look finds a whole one, and no temporary file is left."""
    run = flightlog.init(config={"text": "x" * 50_000})
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            run._recorder.write_spec()

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        for _ in range(100):
            assert run.rundir.read_spec()["id"] == run.id
    finally:
        stop.set()
        thread.join()
    assert sorted(p.name for p in run.dir.iterdir()) == ["files", "latest.spec"]


def test_a_heartbeat_shows_that_a_silent_run_lives(monkeypatch: pytest.MonkeyPatch, journal: JournalOf) -> None:
    """Without any log() the journal grows now and then."""
    monkeypatch.setattr(recorder, "HEARTBEAT_SECONDS", 0.0)
    run = flightlog.init()
    deadline = time.monotonic() + 10
    while not journal(run.dir).of("heartbeat") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert journal(run.dir).of("heartbeat")


# -- nothing stops a training ------------------------------------------------------------------------------------------


def test_a_run_directory_removed_under_it(journal: JournalOf) -> None:
    """rm -rf of the whole root while it records: nothing is missing afterwards, and the root is as it was."""
    run = flightlog.init()
    run.log({"x": 1})
    run._recorder.writer.sync()
    shutil.rmtree("flightlog")
    run.log({"x": 2})
    run._recorder._tick()
    run.log({"x": 3})
    run.finish()
    assert journal(run.dir).logged("x") == [1, 2, 3] and journal(run.dir).sound
    assert run.rundir.read_spec()["state"] == "finished"
    assert Path("flightlog/.gitignore").read_text() == "*\n" and Path("flightlog/latest").resolve() == run.dir.resolve()


def test_latest_spec_replaced_by_a_folder(capfd: pytest.CaptureFixture[str], journal: JournalOf) -> None:
    """It cannot be written then; one warning, and the journal holds everything."""
    run = flightlog.init()
    (run.dir / "latest.spec").unlink()
    (run.dir / "latest.spec").mkdir()
    run.log({"x": 1})
    run._recorder.write_spec()
    run.finish()
    assert journal(run.dir).fold.state == "finished"
    assert capfd.readouterr().err.count("latest.spec cannot be written") == 1


def test_a_closed_stderr_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that raises whatever it likes is not worth a training."""

    class Broken:
        def write(self, text: str) -> int:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    monkeypatch.setattr("sys.stderr", Broken())
    flightlog.init().log({"x": object()})
    monkeypatch.setattr("sys.stderr", None)
    flightlog.finish()


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch, journal: JournalOf) -> None:
    """Where the system gives no more threads the run records all the same."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    run = flightlog.init()
    run.log({"x": 1})
    run.finish()
    assert journal(run.dir).logged("x") == [1] and run.rundir.read_spec()["state"] == "finished"


def test_an_internal_error_is_one_warning_outside_of_tests(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What goes wrong inside the recorder reaches a training as one line; misuse is raised all the same."""

    class Broken(Media):
        kind = "broken"

        def write(self, files: Path, key: str) -> Any:
            raise ValueError("no picture")

    monkeypatch.setattr(terminal, "raise_internal_errors", False)
    run = flightlog.init()
    for _ in range(3):
        with terminal.guarded("the recorder's own work"):
            raise ZeroDivisionError
        run.log({"x": 1, "picture": Broken()})
    assert capfd.readouterr().err.count("ZeroDivisionError") == 1
    with pytest.raises(UsageError), terminal.guarded("this"):
        raise UsageError("the caller's own")


def test_logging_from_a_destructor_in_the_midst_of_logging(journal: JournalOf) -> None:
    """A `__del__` that the garbage collector runs inside log() may log itself."""
    run = flightlog.init()
    fired = 0

    class Noisy:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            nonlocal fired
            fired += 1
            run.log({"gone": fired}, commit=False)

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for i in range(300):
            Noisy()
            run.log({"x": i, "t": "text"})
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    run.finish()
    found = journal(run.dir)
    assert found.sound and found.logged("x") == list(range(300)) and len(found.logged("gone")) == fired == 300


def test_silence(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """FLIGHTLOG_SILENT says nothing at all."""
    monkeypatch.setenv("FLIGHTLOG_SILENT", "true")
    run = flightlog.init()
    run.log({"x": object()})
    run.finish()
    assert capfd.readouterr() == ("", "")


def test_what_is_said(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it writes at the start; what was recorded, and the command that delivers it, at the end."""
    monkeypatch.setenv("PWD", str(Path.cwd()))
    run = flightlog.init(name="my run")
    flightlog.log({"x": 1})
    flightlog.finish()
    said = capfd.readouterr()
    assert said.out == ""
    assert f"run my run ({run.id}) records in flightlog/{run.dir.name}" in said.err
    assert "3 records" in said.err and f"flightlog sync flightlog/{run.dir.name}" in said.err


# -- disabled ----------------------------------------------------------------------------------------------------------


def test_disabled_writes_nothing_and_takes_everything(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every call of a script works, nothing is written anywhere and nothing said."""
    run = flightlog.init(mode="disabled", config=Options(), project="p", tags="a,b", name="n")
    flightlog.log({"x": object()}, step=3)
    flightlog.config.update({"more": 1})
    flightlog.summary["best"] = 1
    assert flightlog.log_artifact("nowhere") is None
    assert run.config.lr == 0.1 and run.config.more == 1 and run.summary["best"] == 1
    assert (run.project, run.name, run.tags, run.recording, run.state) == ("p", "n", ("a", "b"), False, "running")
    repr(run)
    flightlog.finish()
    assert run.state == "finished" and flightlog.run is None
    with pytest.raises(ValueError, match="x"), flightlog.init(mode="disabled") as run:
        raise ValueError("x")
    assert run.state == "failed"
    current.finish()
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


# -- what may never be raised ------------------------------------------------------------------------------------------


class Evil:
    """A value whose every answer is an exception."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__

    def __radd__(self, other: object) -> Any:
        raise ValueError("no sum")


class EvilInt(int):
    def __radd__(self, other: object) -> Any:
        raise ValueError("no sum")


class EvilMapping(Mapping[str, Any]):
    def __iter__(self) -> Any:
        raise ValueError("no names")

    def __getitem__(self, key: str) -> Any:
        raise ValueError("no values")

    def __len__(self) -> int:
        return 1


class EvilDict(dict[str, Any]):
    def values(self) -> Any:
        raise ValueError("no values")


def test_whatever_raises_costs_only_itself(journal: JournalOf) -> None:
    """Numbers, mappings and names with code of their own that raises: the other values of the call are kept."""
    run = flightlog.init()
    run.log({"n": EvilInt(3), "good": 1})
    run.log({"nested": EvilMapping(), "good": 2})
    run.log(EvilDict(good=3))
    run.alert(Evil(), Evil(), wait_duration=None)  # type: ignore[arg-type]
    run.tags = None  # type: ignore[assignment]
    run.notes = os.fsdecode(b"exp\xff.yaml")
    run.name = run.group = "\udcff"
    with pytest.raises(UsageError, match="a step is an integer"):
        run.log({"x": 1}, step=Evil())  # type: ignore[arg-type]
    run.finish()
    assert journal(run.dir).logged("good") == [1, 2, 3]
    assert run.rundir.read_spec()["state"] == "finished" and len(journal(run.dir).of("alert")) == 1


def test_config_keeps_what_cannot_be_recorded(capfd: pytest.CaptureFixture[str]) -> None:
    """A dtype, a range, an object: the journal has what it can say, the script all that it gave."""
    given = {"dtype": np.dtype("f4"), "span": range(3), 5: "five", "lr": 0.1}
    run = flightlog.init(config=given)
    assert run.config["dtype"] == np.dtype("f4") and run.config["span"] == range(3) and run.config[5] == "five"  # type: ignore[index]
    run.finish()
    assert run.rundir.read_spec()["config"].keys() >= {"5", "lr"}


def test_when_there_are_no_descriptors_left(script: Callable[..., Any], tmp_path: Path, journal: JournalOf) -> None:
    """A training that has used up its descriptors goes on being recorded through the one that is open, and ends."""
    script(
        "import flightlog, resource, os\n"
        "run = flightlog.init(); run.log({'x': 0.5})\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "held = []\n"
        "try:\n"
        "    while True: held.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError: pass\n"
        "for i in range(100): run.log({'phase': 'train', 'i': i})\n"
        "run.finish()\n"
    )
    assert journal(tmp_path / "flightlog").logged("i") == list(range(100))
    assert journal(tmp_path / "flightlog").fold.state == "finished"


def test_a_limit_of_the_size_of_files(script: Callable[..., Any], tmp_path: Path, journal: JournalOf) -> None:
    """RLIMIT_FSIZE bounds each file, and a run has as many as it needs."""
    script(
        "import flightlog, resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "run = flightlog.init()\n"
        "for i in range(8000): run.log({'i': i})\n"
    )
    assert journal(tmp_path / "flightlog").logged("i") == list(range(8000))
