"""The Trainer's callback in one process: what is recorded, in which run, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments

import flightlog
from flightlog import current, endings
from flightlog.errors import UsageError
from flightlog.reading.views import ArtifactView, RunView
from flightlog.training import read_marker
from flightlog_transformers import FlightlogCallback

from .models import Sequences, arguments, tiny, trainer

Runs = Callable[[], list[RunView]]
Versions = Callable[[RunView], dict[int, ArtifactView]]


def logged(view: RunView) -> dict[int, dict[str, Any]]:
    """Return what a run has at each step, without our own measurements."""
    return {
        row["_step"]: {k: v for k, v in row.items() if not k.startswith(("_", "perf/")) and v is not None}
        for row in view.history()
    }


def of_trainer(history: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the same of the Trainer's own log."""
    found: dict[int, dict[str, Any]] = {}
    for entry in history:
        found.setdefault(entry["step"], {}).update({k: v for k, v in entry.items() if k != "step"})
    return found


# -- what is recorded --------------------------------------------------------------------------------------------------


def test_all_that_the_trainer_logs_is_recorded(runs: Runs) -> None:
    """Names, values and steps are those of the Trainer's log, also of an evaluation and a prediction afterwards."""
    made = trainer(FlightlogCallback(project="digits"), eval_strategy="steps", eval_steps=4, save_strategy="no")
    made.train()
    made.evaluate(metric_key_prefix="final")
    predicted = made.predict(Sequences(8)).metrics
    current.finish()
    (view,) = runs()
    expected = of_trainer(made.state.log_history)
    expected[8].update(predicted)
    assert logged(view) == expected
    assert (view.project, view.state) == ("digits", "finished")
    assert {"eval_loss", "train_runtime", "final_loss", "test_loss"} <= expected[8].keys()


def test_what_is_logged_at_once_is_one_record(runs: Runs) -> None:
    """Each call of a hook makes one record, the throughput and a second learning rate included."""
    model = tiny()
    slow = {"params": model.classifier.parameters(), "lr": 1e-4}
    optimizer = torch.optim.AdamW([{"params": model.bert.parameters()}, slow], lr=1e-3)
    callback = FlightlogCallback()
    made = trainer(callback, model=model, include_num_input_tokens_seen="all", save_strategy="no")
    made.optimizer = optimizer
    made.train()
    current.finish()
    (view,) = runs()
    records = [record for _, record in view._records(["log"])]
    assert [record.step for record in records] == [2, 4, 6, 8, 8]
    assert {
        "loss", "grad_norm", "learning_rate", "epoch", "perf/steps_per_second", "perf/step_seconds",
        "perf/data_seconds", "perf/samples_per_second", "perf/tokens_per_second", "learning_rate/group-0",
        "learning_rate/group-1",
    } <= records[0].data.keys()  # fmt: skip
    data = records[0].data
    rates = [data[f"learning_rate/group-{n}"] for n in range(2)]
    assert rates[0] == pytest.approx(10 * rates[1])
    assert transformers.__version__ < "5" or rates[0] == data["learning_rate"]  # before, it was that of the next step
    assert data["perf/samples_per_second"] == pytest.approx(4 * data["perf/steps_per_second"])
    assert data["perf/tokens_per_second"] == pytest.approx(8 * data["perf/samples_per_second"])


def test_settings_model_and_optimizer_are_described(runs: Runs) -> None:
    """The arguments by their names, the model's configuration and size, optimizer, scheduler; and the axes."""
    made = trainer(FlightlogCallback(name="first"), eval_strategy="epoch", save_strategy="no", weight_decay=0.1)
    made.train()
    current.finish()
    (view,) = runs()
    config = view.config
    assert (config["learning_rate"], config["max_steps"], config["lr_scheduler_type"]) == (1e-3, 8, "linear")
    assert config["model_config"]["hidden_size"] == 16
    summary = config["model_summary"]
    assert summary["parameters"] == summary["trainable"] == sum(p.numel() for p in made.model.parameters())
    assert (summary["trainable_share"], summary["dtypes"]) == (1.0, {"float32": summary["parameters"]})
    assert config["optimizers"][0]["class"] == "AdamW" and config["optimizers"][0]["weight_decay"] == [0.1, 0.0]
    assert config["schedulers"] == ["LambdaLR"]
    axes = {d["name"]: d.get("step_metric") for d in view.definitions}
    assert axes["eval_*"] == "epoch" and axes["epoch"] is None
    assert view.name == "first"


def test_the_trainers_arguments_name_the_run_where_nothing_else_does(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run_name and project of TrainingArguments count; less than the script's own, and less than FLIGHTLOG_NAME."""
    known = {"project": "letters"} if "project" in TrainingArguments.__dataclass_fields__ else {}
    trainer(FlightlogCallback(), run_name="warm", save_strategy="no", **known).train()
    trainer(FlightlogCallback("digits"), run_name="cold", save_strategy="no", **known).train()
    monkeypatch.setenv("FLIGHTLOG_NAME", "from outside")
    trainer(FlightlogCallback(), run_name="warm", save_strategy="no").train()
    current.finish()
    named = [(view.name, view.project) for view in runs()]
    project = known.get("project", "uncategorized")
    assert named == [("warm", project), ("cold", "digits"), ("from outside", "uncategorized")]


def test_report_to_finds_it_by_name(runs: Runs) -> None:
    """report_to="flightlog" is enough; with a callback besides, that one records, and there is one run."""
    trainer(report_to="flightlog", save_strategy="no").train()
    made = trainer(FlightlogCallback("digits"), report_to="flightlog", save_steps=4)
    made.train()
    made.train(resume_from_checkpoint="out/checkpoint-4")
    current.finish()
    first, second = runs()
    assert (first.project, second.project) == ("uncategorized", "digits")
    assert [row["_step"] for row in second.history()] == [2, 4, 6, 8]


def test_of_two_callbacks_the_later_one_records_also_when_it_is_added_afterwards(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that add_callback brings takes the place of report_to's, and of one with arguments, which is said."""
    made = trainer(report_to="flightlog", save_strategy="no")
    made.add_callback(FlightlogCallback("added"))
    made.train()
    assert "FlightlogCallbacks" not in capsys.readouterr().err
    made = trainer(FlightlogCallback("passed"), save_strategy="no")
    made.add_callback(FlightlogCallback("instead"))
    made.train()
    current.finish()
    said = capsys.readouterr().err
    assert "two FlightlogCallbacks" in said and "continues in" not in said
    assert [(view.project, len(list(view.history()))) for view in runs()] == [("added", 4), ("instead", 4)]


def test_another_tracker_beside_it_is_not_disturbed(tmp_path: Path, runs: Runs) -> None:
    """With TensorBoard in the same Trainer both have everything."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = trainer(FlightlogCallback(), report_to=["tensorboard"], save_strategy="no")
    made.train()
    current.finish()
    (view,) = runs()
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    other = EventAccumulator(str(events.parent)).Reload()
    losses = {step: row["loss"] for step, row in logged(view).items()}
    assert {e.step: e.value for e in other.Scalars("train/loss")} == pytest.approx(losses)


def test_values_that_cannot_be_recorded_do_not_stop_a_training(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    """An object, a text of megabytes, NaN and a tensor in the log, and functions in the settings: the rest is kept."""

    class Odd(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                made.log({"odd": object(), "long": "x" * 3_000_000, "nan": float("nan"), "one": torch.tensor(1.0)})  # type: ignore[dict-item]

    made = trainer(FlightlogCallback(), Odd(), save_strategy="no")
    made.model.config.hook = print  # type: ignore[assignment]
    made.model.config.id2label = dict.fromkeys(range(500), "label " * 1000)
    made.train()
    current.finish()
    (view,) = runs()
    (first,) = (row for row in view.history() if row["_step"] == 1)
    assert first["one"] == 1.0 and first["nan"] != first["nan"]
    assert view.state == "finished" and view.config["learning_rate"] == 1e-3
    assert "odd" in capsys.readouterr().err


def test_the_model_card_says_where_the_record_is(tmp_path: Path, runs: Runs) -> None:
    """A card written after a training names its run, not an earlier one's."""
    made = trainer(FlightlogCallback("digits"), save_strategy="no")
    made.train()
    made.train()
    made.create_model_card()
    first, second = runs()
    card = Path("out/README.md").read_text()
    assert f"(`{second.id}`) of project `digits`" in card and first.id not in card


def test_a_disabled_run_costs_nothing_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With FLIGHTLOG_MODE=disabled the training and its checkpoints are as without us."""
    monkeypatch.setenv("FLIGHTLOG_MODE", "disabled")
    made = trainer(FlightlogCallback())
    made.train()
    made.evaluate()
    assert not Path("flightlog").exists()
    assert not list(Path("out").rglob("flightlog.json"))
    assert json.loads(Path("out/checkpoint-8/trainer_state.json").read_text())["global_step"] == 8


def test_peft(runs: Runs, versions: Versions) -> None:
    """An adapter's configuration, its share of the parameters, and its checkpoints."""
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny(), peft.LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
    made = trainer(FlightlogCallback(), model=model)
    made.train()
    current.finish()
    (view,) = runs()
    assert view.config["peft_config"]["default"]["target_modules"] == ["query"]
    assert view.config["model_config"]["hidden_size"] == 16
    assert 0 < view.config["model_summary"]["trainable_share"] < 0.2
    assert "adapter_model.safetensors" in {file.path for file in versions(view)[8].files}


# -- which run ---------------------------------------------------------------------------------------------------------


def test_a_run_of_the_scripts_own_is_used_and_not_ended(runs: Runs) -> None:
    """With run=, or a run that init began, all trainings go there, and the script ends it."""
    with flightlog.init(project="own") as run:
        trainer(FlightlogCallback(run=run), save_strategy="no").train()
        made = trainer(FlightlogCallback(), save_strategy="no")
        made.train()
        made.train()
        assert run.state == "running"
    (view,) = runs()
    assert (view.id, view.state) == (run.id, "finished")
    with pytest.raises(UsageError):
        FlightlogCallback("other", run=run)


def test_the_next_training_is_a_run_of_its_own(runs: Runs) -> None:
    """An evaluation before goes to the first one's run, one in between as well; the second training begins anew."""
    made = trainer(FlightlogCallback(), save_strategy="no")
    made.evaluate(metric_key_prefix="before")
    made.train()
    made.evaluate(metric_key_prefix="between")
    made.train()
    current.finish()
    first, second = runs()
    assert "before_loss" in first.summary and "between_loss" in first.summary
    assert [row["_step"] for row in second.history()] == [2, 4, 6, 8]
    assert [view.state for view in (first, second)] == ["finished", "finished"]


def test_a_batch_that_was_too_large_leaves_no_second_run(runs: Runs) -> None:
    """auto_find_batch_size begins anew in the same run, which goes back to where it began."""

    class Short(Trainer):
        def training_step(self, model: Any, inputs: Any, *args: Any) -> Any:
            if len(inputs["labels"]) > 4 and self.state.global_step >= 3:
                raise RuntimeError("CUDA out of memory. Tried to allocate a lot.")
            return super().training_step(model, inputs, *args)

    made = trainer(
        FlightlogCallback(), how=Short, auto_find_batch_size=True, per_device_train_batch_size=8, logging_steps=1,
        save_strategy="no", max_steps=4,
    )  # fmt: skip
    made.train()
    current.finish()
    (view,) = runs()
    assert view.state == "finished"
    assert {s: row["loss"] for s, row in logged(view).items()} == {
        e["step"]: e["loss"] for e in made.state.log_history if "loss" in e
    }
    assert list(view._records(["rewind"])), "a batch of 8 was too large"


def test_a_search_is_a_group_with_a_run_for_each_trial(runs: Runs, versions: Versions) -> None:
    """Each trial has its run with its parameters and its own checkpoints; a pruned one has not failed."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    class LastOne(optuna.pruners.BasePruner):  # type: ignore[misc,name-defined]
        def prune(self, study: Any, trial: Any) -> bool:
            return bool(trial.number == 2)

    made = Trainer(
        args=arguments("sweep", max_steps=4, save_steps=2, eval_strategy="steps", eval_steps=2),
        model_init=tiny,
        train_dataset=Sequences(),
        eval_dataset=Sequences(8),
        callbacks=[FlightlogCallback("digits")],
    )
    made.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)},
        n_trials=3,
        backend="optuna",
        pruner=LastOne(),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    current.finish()
    views = runs()
    assert [(view.name, view.group, view.state) for view in views] == [
        (f"run-{n}", "sweep", "finished") for n in range(3)
    ]
    assert [view.tags for view in views] == [(), (), ("pruned",)]
    assert len({view.config["learning_rate"] for view in views}) == 3
    for number, view in enumerate(views[:2]):
        assert view.config["trial"] == {"learning_rate": view.config["learning_rate"]}
        (kept,) = versions(view).values()
        assert kept.metadata["path"] == str(Path(f"sweep/run-{number}/checkpoint-4").absolute())


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("none", set()), ("best", {2}), ("last", {8}), ("best_and_last", {2, 8}), ("all", {2, 4, 6, 8})],
)
def test_a_policy_keeps_what_it_says(runs: Runs, versions: Versions, policy: str, kept: set[int]) -> None:
    """Through the Trainer's rotation each policy keeps its checkpoints, whole folders, with aliases and scores."""
    scores = iter([0.1, 0.4, 0.3, 0.2])

    class Scored(Trainer):
        def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
            output = super().evaluation_loop(*args, **kwargs)
            output.metrics["eval_error"] = next(scores)  # type: ignore[index]
            return output

    made = trainer(
        FlightlogCallback(checkpoints=policy), how=Scored, eval_strategy="steps", eval_steps=2, save_steps=2,
        save_total_limit=1, metric_for_best_model="error", greater_is_better=False,
    )  # fmt: skip
    made.train()
    current.finish()
    (view,) = runs()
    found = versions(view)
    assert found.keys() == kept
    assert [path.name for path in Path("out").iterdir()] == ["checkpoint-2"]
    for step, version in found.items():
        expected = {f"step-{step}"} | ({"epoch-1"} if step == 8 else set()) | ({"best"} if step == 2 else set())
        assert set(version.aliases) - {"latest"} == expected
        assert ("latest" in version.aliases) == (step == max(kept))
        assert version.metadata["eval_error"] == {2: 0.1, 4: 0.4, 6: 0.3, 8: 0.2}[step]
        assert {"model.safetensors", "optimizer.pt", "trainer_state.json", "flightlog.json"} <= {
            file.path for file in version.files
        }


def test_a_checkpoint_is_pinned_by_a_link_until_the_run_ends(runs: Runs, tmp_path: Path) -> None:
    """While the run goes on, a checkpoint has no second copy on the disk; afterwards it is the run's own."""
    callback = FlightlogCallback(checkpoints="last")
    trainer(callback).train()
    weights = Path("out/checkpoint-8/model.safetensors")
    held = callback.run.dir / "files/artifacts" / f"model-{callback.run.id}" / "v1/files/model.safetensors"
    assert held.samefile(weights)
    current.finish()
    assert not held.samefile(weights) and held.read_bytes() == weights.read_bytes()


def test_saving_the_same_step_anew_does_not_change_what_is_kept(runs: Runs, versions: Versions, tmp_path: Path) -> None:
    """A second training into the same folder writes into the first one's files, while a run still holds them."""
    first = FlightlogCallback("first", checkpoints="last")
    trainer(first).train()
    before = Path("out/checkpoint-8/model.safetensors").read_bytes()
    own = first.run
    other = trainer(FlightlogCallback("second", checkpoints="last", mode="disabled"), learning_rate=0.1)
    with pytest.MonkeyPatch.context() as patch:  # the first one's run stays open, as if its process had been killed
        patch.setattr(current, "finish", lambda: None)
        other.train()
    assert Path("out/checkpoint-8/model.safetensors").read_bytes() != before
    (held,) = own.dir.rglob("model.safetensors")
    assert held.read_bytes() == before
    own.finish()
    current.finish()


# -- resuming ----------------------------------------------------------------------------------------------------------


def test_a_training_goes_on_in_its_run_without_any_flag(runs: Runs, versions: Versions) -> None:
    """After an exception beyond step 5, another Trainer goes on from checkpoint 4: one run, one curve."""
    with pytest.raises(RuntimeError, match="went away"):
        trainer(FlightlogCallback("digits"), data=Sequences(fails_at=28), logging_steps=1).train()
    (failed,) = runs()
    assert failed.state == "failed" and failed.step > 6
    again = trainer(FlightlogCallback(), logging_steps=1)
    again.train(resume_from_checkpoint=True)
    again.evaluate()
    current.finish()
    (view,) = runs()
    assert (view.id, view.project, view.state) == (failed.id, "digits", "finished")
    assert logged(view) == of_trainer(again.state.log_history)
    assert set(versions(view)) == {8}
    assert len(list(view._records(["config"]))) <= 7, "what was known was recorded again"


def test_callback_states_may_be_restored_from_the_checkpoint(runs: Runs) -> None:
    """With restore_callback_states_from_checkpoint the Trainer makes a new callback; ours keeps what it was given."""
    with pytest.raises(RuntimeError):
        trainer(FlightlogCallback("digits"), data=Sequences(fails_at=28)).train()
    callback = FlightlogCallback("digits", tags=["again"], checkpoints="all")
    again = trainer(callback, restore_callback_states_from_checkpoint=True)
    again.train(resume_from_checkpoint=True)
    (restored,) = (c for c in again.callback_handler.callbacks if isinstance(c, FlightlogCallback))
    assert restored is not callback and restored.training.checkpoints.policy == "all"
    current.finish()
    (view,) = runs()
    assert [row["_step"] for row in view.history()] == [2, 4, 6, 8]
    assert (view.state, view.tags) == ("finished", ("again",))


def test_a_checkpoint_that_was_made_without_us_begins_a_run(runs: Runs) -> None:
    """It can be resumed from, is saved again with our marker, and the run has the steps since then."""
    trainer(max_steps=4).train()
    made = trainer(FlightlogCallback())
    made.train(resume_from_checkpoint=True)
    current.finish()
    (view,) = runs()
    assert [row["_step"] for row in view.history()] == [6, 8]
    marker = read_marker("out/checkpoint-8")
    assert marker is not None and (marker.id, marker.step) == (view.id, 8)
    stored = json.loads(Path("out/checkpoint-8/trainer_state.json").read_text())["stateful_callbacks"]
    assert stored["FlightlogCallback"]["attributes"]["marker"]["run"] == view.id


def test_the_marker_beside_the_states_is_enough(runs: Runs) -> None:
    """Where trainer_state.json does not know us, flightlog.json in the folder leads to the run."""
    trainer(FlightlogCallback(), max_steps=4).train()
    current.finish()
    state = Path("out/checkpoint-4/trainer_state.json")
    known = json.loads(state.read_text())
    del known["stateful_callbacks"]["FlightlogCallback"]
    state.write_text(json.dumps(known))
    trainer(FlightlogCallback()).train(resume_from_checkpoint=True)
    current.finish()
    (view,) = runs()
    assert [row["_step"] for row in view.history()] == [2, 4, 6, 8]


def test_garbage_in_a_checkpoint_begins_a_new_run(runs: Runs) -> None:
    """What is no marker leads nowhere, and stops nothing."""
    trainer(max_steps=4).train()
    state = Path("out/checkpoint-4/trainer_state.json")
    known = json.loads(state.read_text())
    wrong: list[Any] = [None, "x", {"attributes": []}, [{"attributes": {"marker": {"run": "../x", "project": "p"}}}]]
    for garbage in wrong:
        known["stateful_callbacks"]["FlightlogCallback"] = garbage
        state.write_text(json.dumps(known))
        Path("out/checkpoint-4/flightlog.json").write_text(json.dumps(garbage))
        made = trainer(FlightlogCallback(), max_steps=6, save_strategy="no")
        made.train(resume_from_checkpoint="out/checkpoint-4")
    current.finish()
    assert [[row["_step"] for row in view.history()] for view in runs()] == [[6]] * len(wrong)


def test_going_back_in_the_same_process_goes_back_in_the_run(runs: Runs) -> None:
    """train(resume_from_checkpoint=) of an earlier step, in the Trainer that saved it, rewinds its run."""
    made = trainer(FlightlogCallback())
    made.train()
    made.train(resume_from_checkpoint="out/checkpoint-4")
    current.finish()
    (view,) = runs()
    assert logged(view) == of_trainer(made.state.log_history)


# -- how it ends -------------------------------------------------------------------------------------------------------


def test_an_exception_is_known_at_once(runs: Runs) -> None:
    """A script that catches the exception has a failed run, and what it trains next is another one."""
    for error in (RuntimeError("no memory"), KeyboardInterrupt()):

        class Failing(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                raise error  # noqa: B023

        with pytest.raises(type(error)):
            trainer(FlightlogCallback(), Failing(), save_strategy="no").train()
        view = runs()[-1]
        assert view.state == "failed"
        (ended,) = (record for _, record in view._records(["finish"]))
        assert ended.data["error"]["type"] == type(error).__name__
    trainer(FlightlogCallback(), save_strategy="no").train()
    current.finish()
    assert [view.state for view in runs()] == ["failed", "failed", "finished"]


def test_what_fails_before_a_training_begins_has_a_run_that_the_next_goes_on_with(runs: Runs) -> None:
    """With no checkpoint to go on from, the run has failed, with its settings; begun anew it has not failed."""
    made = trainer(FlightlogCallback(), save_strategy="no", run_name="first try")
    with pytest.raises(ValueError, match="No valid checkpoint"):
        made.train(resume_from_checkpoint=True)
    (view,) = runs()
    (ended,) = (record.data for _, record in view._records(["finish"]))
    assert (ended["state"], ended["error"]["type"], view.name) == ("failed", "ValueError", "first try")
    assert view.config["run_name"] == "first try" and view.config["model_summary"]["parameters"] > 0
    made.train()
    current.finish()
    assert [view.state for view in runs()] == ["finished"]


def test_what_fails_before_a_training_begins_does_not_change_the_one_before(runs: Runs) -> None:
    """A finished training's run is not the one that failed when the next cannot even begin."""
    made = trainer(FlightlogCallback(), save_strategy="no")
    made.train()
    with pytest.raises(ValueError, match="No valid checkpoint"):
        made.train(resume_from_checkpoint=True)
    current.finish()
    assert [view.state for view in runs()] == ["finished"]


@pytest.mark.parametrize("own", [False, True], ids=["the callback's run", "the script's run"])
def test_a_checkpoint_on_sigterm_is_kept_and_the_run_is_preempted(
    runs: Runs, versions: Versions, tmp_path: Path, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With enable_jit_checkpoint the Trainer saves on SIGTERM, and ends as if it were through: it was not."""
    if "enable_jit_checkpoint" not in TrainingArguments.__dataclass_fields__:
        pytest.skip("transformers without it")
    from transformers.trainer_jit_checkpoint import CheckpointManager

    class Terminated(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    monkeypatch.setattr(CheckpointManager.__init__, "__defaults__", (0,))  # seconds of grace
    before = signal.getsignal(signal.SIGTERM)
    try:
        if own:
            flightlog.init(project="own")
        made = trainer(FlightlogCallback(), Terminated(), enable_jit_checkpoint=True, save_steps=100)
        made.train()
        assert made.state.global_step < 8
        run = current.current_or_none()
        assert run is not None
        assert signal.getsignal(signal.SIGTERM) is endings._on_sigterm, "the next one is heard of, too"
        endings._at_exit()
    finally:
        signal.signal(signal.SIGTERM, before)
    (view,) = runs()
    assert view.state == "preempted"
    (saved,) = Path("out").iterdir()
    assert [f"checkpoint-{step}" for step in versions(view)] == [saved.name]
