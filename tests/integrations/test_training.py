"""The recorder that all callbacks share: runs, checkpoints, resuming, ends."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog import terminal
from flightlog.errors import FlightlogError, UsageError
from flightlog.reading import Api
from flightlog.reading.views import RunView
from flightlog.throughput import Throughput, batch_size, token_count
from flightlog.training import Training, as_marker, model_facts, optimizer_facts, read_marker
from flightlog.training.facts import learning_rates

OnlyRun = Callable[[], RunView]


def write(path: Path, content: str) -> Path:
    """Write a checkpoint as frameworks do: beside, then renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(content)
    beside.rename(path)
    return path


def versions(name: str) -> dict[str, set[str]]:
    """Return the aliases of each version that is kept, by the content of its file."""
    (found,) = Api("flightlog").runs()
    kept: dict[str, set[str]] = {}
    for number in range(20):
        try:
            view = Api("flightlog").artifact(f"{found.project}/{name}:v{number}")
        except flightlog.FlightlogError:
            continue
        (file,) = view.files
        with view._open(file.path) as parts:
            kept[b"".join(parts).decode()] = set(view.aliases)
    return kept


def test_a_run_is_opened_when_something_is_recorded_and_has_the_id_that_was_known_before(only_run: OnlyRun) -> None:
    """Nothing is written before the first record; the run then has the id that `id` gave."""
    training = Training(project="p")
    known = training.id
    assert not Path("flightlog").exists()
    training.log({"loss": 1.0}, step=3, epoch=0)
    training.finish()
    view = only_run()
    assert (view.id, view.state, view.project) == (known, "finished", "p")
    assert [(row["_step"], row["loss"], row["epoch"]) for row in view.history()] == [(3, 1.0, 0)]


def test_the_scripts_own_run_is_taken_and_not_ended(only_run: OnlyRun) -> None:
    """A run that `init` began before is recorded into; neither finish() nor an exception in the loop ends it."""
    run = flightlog.init(project="own")
    training = Training()
    training.log({"loss": 1.0})
    training.failed(ValueError("caught by the script"))
    training.finish()
    assert run.state == "running" and training.run is run
    run.finish()
    assert only_run().state == "finished"


def test_a_given_run_does_not_go_with_arguments_for_another() -> None:
    """run= beside project= is refused, and so are a wrong policy, a name with a slash, and something that is no run."""
    run = flightlog.init(project="own")
    for wrong in ({"run": run, "project": "other"}, {"checkpoints": "some"}, {"run": "night-3"}, {"project": "a/b"}):
        with pytest.raises(UsageError):
            Training(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="projekt"):
        Training(projekt="p")


@pytest.mark.parametrize(
    "wrong", [{"group": 3}, {"tags": 3}, {"notes": ["n"]}, {"config": "lr=1"}, {"console": "loud"}, {"save_code": 1.5}]
)
def test_what_init_refuses_is_refused_when_the_training_is_made(wrong: dict[str, Any]) -> None:
    """In a hook it would cost the whole run, and no more than a warning would tell of it."""
    with pytest.raises(FlightlogError, match=f"{next(iter(wrong))}="):
        Training(**wrong)


def test_an_ended_run_goes_on_when_more_is_recorded(only_run: OnlyRun) -> None:
    """What is logged after a failure goes to the same run, which has then not failed any more."""
    training = Training(project="p")
    training.log({"loss": 1.0})
    training.failed(ValueError("out of memory"))
    assert only_run().state == "failed"
    training.log({"test/loss": 0.5})
    training.finish()
    assert only_run().state == training.run.state == "finished"
    assert only_run().summary["test/loss"] == 0.5 and only_run().summary["loss"] == 1.0


def test_a_run_that_the_script_begins_during_a_training_is_not_ended_by_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the training brings goes to the new run, whose own log() goes on; one warning says so."""
    training = Training(project="p")
    training.log({"loss": 1.0}, step=0)
    first = training.run
    own = flightlog.init("other")
    for step in (1, 2):
        training.log({"loss": 1.0 - step / 10}, step=step)
        own.log({"mine": step}, step=step)
    training.finish()
    assert first.state == "finished" and own.state == "running"
    assert capsys.readouterr().err.count(f"has begun run {own.id}") == 1
    own.finish()
    views = {view.id: view for view in Api("flightlog").runs()}
    assert [row["loss"] for row in views[first.id].history()] == [1.0]
    assert [(row["loss"], row["mine"]) for row in views[own.id].history()] == [(0.9, 1), (0.8, 2)]


def test_settings_that_are_known_are_not_recorded_again(tmp_path: Path) -> None:
    """The same hyper-parameters, also as a tuple that became a list, add no record; a change adds what changed."""
    training = Training()
    training.configure({"lr": 0.1, "betas": (0.9, 0.99)})
    before = training.run.records
    training.configure({"lr": 0.1, "betas": (0.9, 0.99)})
    assert training.run.records == before
    training.configure({"lr": 0.2, "betas": [0.9, 0.99]})
    assert training.run.records == before + 1 and training.run.config["lr"] == 0.2


def test_metrics_of_epochs_are_drawn_over_the_epoch(only_run: OnlyRun) -> None:
    """What is logged with an axis is defined so, once; the rest stays over the step."""
    training = Training()
    for epoch in range(2):
        training.log({"loss": 1.0}, step=epoch * 10)
        training.log({"val_loss": 2.0}, step=epoch * 10 + 9, epoch=epoch, axis="epoch")
    training.finish()
    axes = {d["name"]: d.get("step_metric") for d in only_run().definitions}
    assert axes == {"epoch": None, "val_loss": "epoch"}


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    """Rank 1 records no metrics, settings, or checkpoints, and opens no run for them."""
    training = Training(rank=1)
    training.log({"loss": 1.0})
    training.configure({"lr": 1})
    training.checkpoint_saved(write(tmp_path / "a.ckpt", "a"), step=1)
    assert not training.is_open and not Path("flightlog").exists()


def test_an_error_inside_never_reaches_the_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hook that goes wrong costs one warning, also where the run cannot be opened at all."""
    monkeypatch.setattr(terminal, "raise_internal_errors", False)
    training = Training(project="p")
    training.describe_model(object())
    training.describe_model(object())
    assert capsys.readouterr().err.count("describe_model() failed") == 1
    broken = Training(project="p", id="x", resume="must", dir="nowhere")
    broken.log({"loss": 1.0})
    broken.log({"loss": 1.0})
    assert capsys.readouterr().err.count("log() failed and is skipped") == 1


# -- checkpoints -------------------------------------------------------------------------------------------------------


def saves(policy: str, folder: Path, others: bool = False) -> dict[str, set[str]]:
    """Save four checkpoints that the framework rotates, the second being the best; return what is kept."""
    training = Training(project="p", checkpoints=policy, artifact="m")
    scores = [0.5, 0.1, 0.3, 0.4]
    for epoch, score in enumerate(scores):
        path = write(folder / f"epoch={epoch}.ckpt", f"weights {epoch}")
        best = score == min(scores[: epoch + 1])
        top = sorted(range(epoch + 1), key=lambda n: scores[n])[:2]
        training.checkpoint_saved(
            path, step=epoch * 10, epoch=epoch, best=best, metric="loss", score=score, mode="min", write_once=True,
            others=[folder / f"epoch={n}.ckpt" for n in top] if others else None,
        )  # fmt: skip
        for old in set(range(epoch + 1)) - set(top):
            (folder / f"epoch={old}.ckpt").unlink(missing_ok=True)
    training.finish()
    return versions("m")


@pytest.mark.parametrize(
    ("policy", "others", "kept"),
    [
        ("none", False, {}),
        ("best", False, {1: {"best", "latest"}}),
        ("best", True, {1: {"best"}, 2: {"latest"}}),
        ("last", False, {3: {"latest"}}),
        ("best_and_last", False, {1: {"best"}, 3: {"latest"}}),
        ("best_and_last", True, {1: {"best"}, 2: set(), 3: {"latest"}}),
        ("all", False, {0: set(), 1: {"best"}, 2: set(), 3: {"latest"}}),
    ],
)
def test_a_policy_keeps_what_it_says(tmp_path: Path, policy: str, others: bool, kept: dict[int, set[str]]) -> None:
    """Each policy keeps its checkpoints through the framework's rotation, with their aliases, and no others."""
    expected = {f"weights {n}": more | {f"step-{n * 10}", f"epoch-{n}"} for n, more in kept.items()}
    assert saves(policy, tmp_path / "c", others) == expected


def test_what_is_let_go_is_said_before_it_is_deleted(
    tmp_path: Path, artifact_records: Callable[[], list[dict[str, Any]]]
) -> None:
    """The versions that the rotation lets go have `pruned` records, and their files are gone."""
    saves("last", tmp_path / "c")
    pruned = [data for data in artifact_records() if data["action"] == "pruned"]
    assert [data["version"] for data in pruned] == ["v0", "v1", "v2"]
    kept = (tmp_path / "flightlog" / "latest").resolve() / "files" / "artifacts" / "m"
    assert [p.parts[-3] for p in kept.rglob("*.ckpt")] == ["v3"]


def test_a_checkpoint_that_is_the_same_as_an_earlier_one_is_not_let_go_with_it(tmp_path: Path) -> None:
    """Frozen weights, saved again at a later step: they are one version, and the newest needs it."""
    training = Training(project="p", checkpoints="last", artifact="m")
    for step in (10, 20, 30, 40):
        training.checkpoint_saved(write(tmp_path / f"{step}" / "m.ckpt", "frozen"), step=step, sidecar=False)
    training.finish()
    assert versions("m") == {"frozen": {"latest", "step-10", "step-20", "step-30", "step-40"}}


def test_a_checkpoint_that_is_saved_twice_is_kept_once(tmp_path: Path) -> None:
    """`last.ckpt` of the same step, a link to it, and the same file again are no versions of their own."""
    training = Training(project="p", checkpoints="all", artifact="m")
    best = write(tmp_path / "c" / "epoch=0.ckpt", "weights 0")
    last = write(tmp_path / "c" / "last.ckpt", "weights 0 and another path")
    link = tmp_path / "c" / "link.ckpt"
    link.symlink_to("epoch=0.ckpt")
    training.checkpoint_saved(best, step=10)
    training.checkpoint_saved(last, step=10, best=True)
    training.checkpoint_saved(link, step=10)
    training.checkpoint_saved(best, step=10)
    training.checkpoint_saved(write(tmp_path / "c" / "w.ckpt", "only weights"), step=10, kind="weights")
    training.finish()
    assert versions("m") == {"weights 0": {"best"}, "only weights": {"latest", "step-10"}}


@pytest.mark.parametrize("policy", ["best", "best_and_last", "all"])
def test_a_checkpoint_has_the_score_that_it_is_given_when_it_is_saved_again(tmp_path: Path, policy: str) -> None:
    """Saved first after a batch, then by its score: the version with a score is kept, and has all of its aliases."""
    training = Training(project="p", checkpoints=policy, artifact="m")
    by_step, by_score = write(tmp_path / "c" / "step.ckpt", "as of step 10"), write(tmp_path / "c" / "s.ckpt", "scored")
    training.checkpoint_saved(by_step, step=10, best="best-newest", write_once=True)
    training.checkpoint_saved(by_score, step=10, best=True, metric="loss", score=0.5, mode="min", write_once=True)
    training.checkpoint_saved(by_step, step=10, metric="accuracy", score=0.9, mode="max", write_once=True)
    training.finish()
    assert versions("m") == {"scored": {"best", "best-newest", "latest", "step-10"}}
    metadata = Api("flightlog").artifact("p/m:best").metadata
    assert (metadata["metric"], metadata["score"], metadata["mode"], metadata["loss"]) == ("loss", 0.5, "min", 0.5)


def test_the_best_may_move_back(tmp_path: Path) -> None:
    """`best` goes to a version that is there already, without another one being made."""
    training = Training(project="p", checkpoints="all", artifact="m")
    first = write(tmp_path / "a.ckpt", "a")
    training.checkpoint_saved(first, step=1, best=True)
    training.checkpoint_saved(write(tmp_path / "b.ckpt", "b"), step=2, best=True)
    training.checkpoints.best_is(first)
    training.finish()
    assert versions("m") == {"a": {"step-1", "best"}, "b": {"step-2", "latest"}}


def test_a_folder_is_kept_whole_with_its_marker(tmp_path: Path) -> None:
    """A sharded checkpoint is one version of all its files, and the marker lies inside it."""
    training = Training(project="p", checkpoints="last", artifact="m")
    folder = tmp_path / "step-5"
    for shard in range(3):
        write(folder / "shards" / f"{shard}.bin", f"shard {shard}")
    training.checkpoint_saved(folder, step=5)
    training.finish()
    view = Api("flightlog").artifact("p/m:step-5")
    assert {f.path for f in view.files} == {"flightlog.json", "shards/0.bin", "shards/1.bin", "shards/2.bin"}
    marker = read_marker(folder)
    assert marker is not None and marker.step == 5


def test_a_checkpoint_that_is_written_later_is_kept_then(tmp_path: Path) -> None:
    """What an asynchronous saver has not written yet at the hook is kept when it is there."""
    training = Training(project="p", checkpoints="all", artifact="m")
    training.checkpoint_saved(tmp_path / "a.ckpt", step=1)
    write(tmp_path / "a.ckpt", "a")
    training.paused()
    training.finish()
    assert versions("m") == {"a": {"step-1", "latest"}}


# -- resuming ----------------------------------------------------------------------------------------------------------


def train(steps: range, training: Training, folder: Path) -> None:
    for step in steps:
        training.log({"loss": 100.0 - step}, step=step)
        if step % 10 == 9:
            training.checkpoint_saved(write(folder / f"{step}.ckpt", f"weights {step}"), step=step, best=True)


def test_a_training_goes_on_from_a_checkpoint_without_any_flag(tmp_path: Path, only_run: OnlyRun) -> None:
    """Resumed from step 19 of 25, another Training continues the same run there: one curve, and its checkpoints."""
    first = Training(project="p", artifact="m")
    train(range(25), first, tmp_path / "c")
    first.failed(RuntimeError("the node went away"))
    marker = first.marker(19)

    second = Training(artifact="m")
    assert second.resume_from_checkpoint(tmp_path / "c" / "19.ckpt")
    assert second.id == marker["run"] and not second.is_open
    train(range(20, 30), second, tmp_path / "c")
    second.finish()
    view = only_run()
    assert [row["_step"] for row in view.history()] == list(range(30))
    assert view.state == "finished" and view.project == "p"
    assert versions("m") == {"weights 29": {"step-29", "latest", "best"}}


def test_an_evaluation_from_a_checkpoint_hides_nothing(tmp_path: Path, only_run: OnlyRun) -> None:
    """Without a rewind the run goes on with all that was logged."""
    first = Training(project="p")
    train(range(15), first, tmp_path / "c")
    first.finish()
    second = Training()
    assert second.resume_from_checkpoint(tmp_path / "c" / "9.ckpt", rewind=False)
    second.log({"test/loss": 1.0})
    second.finish()
    assert [row["_step"] for row in only_run().history()] == list(range(16))


def test_the_script_has_the_last_word_on_which_run_it_is(tmp_path: Path) -> None:
    """An id, resume="never", or a run of the script's own: the checkpoint's marker does not count."""
    first = Training(project="p")
    marker = first.marker(3)
    first.finish()
    assert not Training(id="mine").resume_from_marker(marker)
    assert not Training(resume="never").resume_from_marker(marker)
    own = flightlog.init(project="p")
    third = Training()
    assert not third.resume_from_marker(marker) and third.run is own
    own.finish()


def test_a_run_in_use_is_rewound_where_it_is(tmp_path: Path, only_run: OnlyRun) -> None:
    """Fitting again from a checkpoint in the same process goes back in the same run."""
    training = Training(project="p")
    train(range(15), training, tmp_path / "c")
    assert training.resume_from_checkpoint(tmp_path / "c" / "9.ckpt")
    train(range(10, 12), training, tmp_path / "c")
    training.finish()
    assert [row["_step"] for row in only_run().history()] == list(range(12))


def test_a_run_that_another_process_records_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two trainings from one checkpoint do not write into each other's run: the second begins a new one."""
    source = (
        "import sys, json\nfrom flightlog.training import Training\n"
        "training = Training(project='p')\ntraining.log({'loss': 1})\n"
        "print(json.dumps(training.marker(0)), flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(flightlog.__file__).parents[1])},
    ) as other:  # fmt: skip
        assert other.stdout is not None
        marker = json.loads(other.stdout.readline())
        second = Training()
        assert not second.resume_from_marker(marker)
        assert "still being recorded" in capsys.readouterr().err
        assert second.id != marker["run"]
        other.communicate("")
    assert Training().resume_from_marker(marker)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"run": "../x", "project": "p"},
        {"run": "x", "project": 3},
        {"run": "x" * 999, "project": "p"},
    ],
)
def test_what_is_no_marker_leads_nowhere(data: object) -> None:
    """Garbage in a checkpoint is no marker; a path out of the folder is no id."""
    assert as_marker(data) is None


def test_a_markers_step_and_folder_are_checked(tmp_path: Path) -> None:
    """A step that is no step and a folder that is no absolute path are not known; a huge file is not read whole."""
    marker = as_marker({"run": "x", "project": "p", "step": "9", "dir": "relative"})
    assert marker is not None and marker.step is None and marker.dir == ""
    (tmp_path / "a.ckpt.flightlog.json").write_bytes(b"[" * 100_000)
    assert read_marker(tmp_path / "a.ckpt") is None


def test_a_marker_leads_to_no_folder_without_its_run(tmp_path: Path, only_run: OnlyRun) -> None:
    """A checkpoint from somebody else cannot have a run recorded in any folder that it names."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    training = Training()
    assert training.resume_from_marker({"run": "theirs", "project": "p", "step": 3, "dir": str(elsewhere)})
    training.log({"loss": 1.0}, step=4)
    training.finish()
    assert only_run().id == "theirs" and not list(elsewhere.iterdir())


def test_a_run_id_that_is_none_is_refused_at_once() -> None:
    """It would be a part of paths before the run is opened."""
    with pytest.raises(UsageError, match="run id"):
        Training(id="../../x")


# -- other processes ---------------------------------------------------------------------------------------------------


def test_a_pickled_training_opens_the_same_run(only_run: OnlyRun) -> None:
    """Pickled before the run is open, the copy opens the run that the original would have; open, it joins it."""
    training = Training(project="p", checkpoints="last")
    copy: Training = pickle.loads(pickle.dumps(training))
    copy.log({"loss": 1.0}, step=0)
    copy.finish()
    training.log({"test": 2.0}, step=1)
    again: Training = pickle.loads(pickle.dumps(training))
    assert again.run is training.run and again.checkpoints.policy == "last"
    training.finish()
    assert only_run().summary == {"loss": 1.0, "test": 2.0}


def test_a_spawned_process_tells_which_run_it_has_continued(only_run: OnlyRun) -> None:
    """Where a child goes on from a checkpoint, what its parent and the next child record goes to that run, too."""
    first = Training(project="p")
    marker = first.marker(0)
    first.finish()
    parent = Training(project="p")
    reserved = parent._reserved

    def spawn(source: str) -> None:
        code = f"import json, pickle, sys\ntraining = pickle.load(sys.stdin.buffer)\n{source}training.finish()\n"
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(marker)], input=pickle.dumps(parent), check=True,
            env={**os.environ, "PYTHONPATH": str(Path(flightlog.__file__).parents[1])},
        )  # fmt: skip

    spawn("assert training.resume_from_marker(json.loads(sys.argv[1]))\ntraining.log({'loss': 1.0}, step=1)\n")
    spawn("training.log({'validation': 1.5})\n")
    assert parent.id == marker["run"]
    spawn("training.log({'late': 3.0})\n")
    parent.log({"test": 2.0})
    parent.finish()
    assert only_run().summary == {"loss": 1.0, "validation": 1.5, "late": 3.0, "test": 2.0}
    for run_id in (reserved, marker["run"]):
        assert not list(Path(tempfile.gettempdir()).glob(f"flightlog-{run_id}*"))


def test_other_processes_join_by_invitation(tmp_path: Path, only_run: OnlyRun) -> None:
    """A second process that was invited records into the run as rank 1, and does not close it."""
    first = Training(project="p")
    invitation = first.invitation(2)
    assert invitation is not None
    source = (
        "import json, sys\nfrom flightlog.training import Training\n"
        "training = Training(project='p')\n"
        "training.join(json.loads(sys.argv[1]), 1, 1)\ntraining.log({'loss': 3})\n"
        "assert training.run.rank == 1, training.run.rank\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, json.dumps(invitation)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(flightlog.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first.log({"loss": 1.0})
    assert only_run().state == "running" and len(list((first.run.dir / "files" / "journal").iterdir())) == 2
    first.finish()
    assert only_run().state == "finished" and only_run().summary["loss"] == 1.0


# -- speed and facts ---------------------------------------------------------------------------------------------------


def test_throughput_counts_steps_samples_tokens_and_the_waiting() -> None:
    """Rates are over the training's own time: waiting for data counts, a pause does not."""
    now = [0.0]
    meter = Throughput(scale=2, clock=lambda: now[0])
    meter.start()
    for _ in range(4):
        now[0] += 1.0
        meter.batch_ready()
        now[0] += 3.0
        meter.step_done(samples=8, tokens=100)
    meter.pause()
    now[0] += 1000.0
    assert meter.read() == {
        "perf/steps_per_second": 4 / 16,
        "perf/step_seconds": 4.0,
        "perf/data_seconds": 1.0,
        "perf/samples_per_second": 4.0,
        "perf/tokens_per_second": 50.0,
    }
    assert meter.read() == {}


def test_a_tracked_loader_gives_its_batches_and_records_their_rate(only_run: OnlyRun) -> None:
    """`run.track` passes batches on, has the loader's length, and adds rates to the step that was logged last."""
    import numpy as np

    run = flightlog.init(project="p")
    loader = [{"input_ids": np.zeros((4, 16))} for _ in range(7)]
    tracked = run.track(loader, epoch=2, every=3)
    assert len(tracked) == 7
    for batch in tracked:
        assert batch["input_ids"].shape == (4, 16)
        run.log({"loss": 1.0})
    run.finish()
    rows = list(only_run().history())
    assert [row["_step"] for row in rows if "perf/tokens_per_second" in row] == [2, 5, 6]
    assert rows[2]["epoch"] == 2 and rows[2]["loss"] == 1.0
    with pytest.raises(TypeError):
        len(run.track(iter(loader)))


def test_a_tracked_loop_that_is_left_keeps_its_rates(only_run: OnlyRun) -> None:
    """After `break`, or zipped with a shorter loader, the rates of the steps until then are there; after none, none."""
    run = flightlog.init(project="p")
    for number in run.track(range(9)):
        run.log({"loss": 1.0})
        if number == 4:
            break
    for _ in zip(range(3), run.track(range(9)), strict=False):
        run.log({"loss": 1.0})
    for _ in run.track(range(9)):
        break
    run.finish()
    assert [row["_step"] for row in only_run().history() if "perf/step_seconds" in row] == [4, 7]


def test_rates_of_a_loop_that_logs_nothing_stand_with_what_is_logged_after_it(only_run: OnlyRun) -> None:
    """One record an epoch, behind its loop: each row has the rates and the number of its own epoch."""
    run = flightlog.init(project="p")
    for epoch in range(3):
        for _ in run.track(range(8), epoch=epoch, every=5):
            pass
        run.log({"val_loss": 1.0 / (epoch + 1), "epoch": epoch})
    run.finish()
    assert [(row["_step"], row["epoch"], "perf/step_seconds" in row) for row in only_run().history()] == [
        (0, 0, True), (1, 1, True), (2, 2, True),
    ]  # fmt: skip


def test_of_several_ranks_the_first_records_its_loops_rates(only_run: OnlyRun, tmp_path: Path) -> None:
    """Each rank that torchrun started tracks its share of the data: one record, of the samples of all of them."""
    script = tmp_path / "loop.py"
    script.write_text(
        "import time, flightlog\n"
        "run = flightlog.init(project='p')\n"
        "for number in run.track([[1, 2, 3, 4]] * 5):\n"
        "    time.sleep(0.01)\n"
        "    if run.rank == 0:\n"
        "        run.log({'loss': 1.0})\n"
    )
    job = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "loop"}
    for rank in "01":
        own = {**os.environ, **job, "RANK": rank, "LOCAL_RANK": rank}
        subprocess.run([sys.executable, str(script)], env=own, cwd=tmp_path, check=True, timeout=60)
    (row,) = [row for row in only_run().history() if "perf/step_seconds" in row]
    assert row["_step"] == 4
    assert row["perf/samples_per_second"] == pytest.approx(2 * 4 * row["perf/steps_per_second"])


def test_batches_of_all_kinds_have_a_size() -> None:
    """The first array in a batch says how many samples it has, whatever it lies in; a batch without one has none."""
    import numpy as np

    assert batch_size((np.zeros((3, 2)), np.zeros(3))) == 3
    assert batch_size({"x": [np.zeros((5, 2))]}) == 5
    assert batch_size([1, 2]) == 2 and batch_size("text") is None and batch_size(None) is None
    assert token_count({"input_ids": np.zeros((3, 7))}) == 21 and token_count(np.zeros(3)) is None


def test_a_models_and_optimizers_facts() -> None:
    """Parameters, trainable share and dtypes are counted, tied weights once; groups of an optimizer are told apart."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 4, dtype=torch.float16))
    model[0].weight.requires_grad = False
    model.append(model[0])
    facts = model_facts(model)
    assert facts["parameters"] == 15 + 16 and facts["trainable"] == 3 + 16
    assert facts["dtypes"] == {"float32": 15, "float16": 16} and facts["bytes"] == 15 * 4 + 16 * 2
    assert facts["children"] == {"0": 15, "1": 16}
    assert model_facts(torch.nn.LazyLinear(3))["uninitialized"] == 2
    groups = [{"params": [model[0].bias]}, {"params": [model[1].bias], "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    assert optimizer_facts(optimizer)["lr"] == [0.1, 0.5] and optimizer_facts(optimizer)["momentum"] == 0.9
    assert learning_rates([optimizer]) == {"lr/group-0": 0.1, "lr/group-1": 0.5}
    assert learning_rates([torch.optim.Adam(model[0].parameters())]) == {"lr": 0.001}
