"""What a fit with the callback leaves in its run."""

from __future__ import annotations

import contextlib
import copy
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import flightlog
from flightlog import terminal
from flightlog.errors import UsageError
from flightlog.reading.views import RunView
from flightlog_keras import FlightlogCallback
from flightlog_keras.predictions import Predictions

from .conftest import classifier, samples

OnlyRun = Callable[[], RunView]
Records = Callable[[str], list[dict[str, Any]]]
Fit = Callable[..., Any]


def rows(view: RunView, metric: str) -> dict[int, Any]:
    """Return a metric's values by step."""
    return {row["_step"]: row[metric] for row in view.history() if row.get(metric) is not None}


def test_batches_stand_over_the_step_and_epochs_over_the_epoch(fit: Fit, only_run: OnlyRun) -> None:
    """Each batch is one record at the optimizer's count, each epoch one more with the validation's metrics."""
    cb = FlightlogCallback(project="digits")
    history = fit(classifier(), cb, validation_data=samples(20, 3))
    cb.finish()
    view = only_run()
    assert (view.project, view.state) == ("digits", "finished")
    assert list(rows(view, "batch/loss")) == list(range(1, 17))
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        assert list(rows(view, name).values()) == pytest.approx(history.history[name])
        assert list(rows(view, name)) == [8, 16]
    assert rows(view, "epoch") == {8: 1, 16: 2}
    axes = {d["name"]: d.get("step_metric") for d in view.definitions}
    assert axes["val_loss"] == axes["loss"] == axes["learning_rate"] == "epoch"
    assert axes["batch/*"] is None
    assert rows(view, "learning_rate") == pytest.approx({8: 0.01, 16: 0.01})
    assert set(rows(view, "perf/steps_per_second")) == set(rows(view, "perf/samples_per_second")) == {8, 16}


def test_model_optimizer_and_how_it_is_compiled_are_in_the_config(fit: Fit, only_run: OnlyRun) -> None:
    """Parameter counts, the trainable share, dtypes, the optimizer, its schedule, loss, metrics and backend."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model = classifier(keras.optimizers.SGD(schedule, momentum=0.9))
    model.get_layer("hidden").trainable = False
    model.compile(model.optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    cb = FlightlogCallback(config={"seed": 7})
    fit(model, cb)
    cb.finish()
    config = only_run().config
    summary = config["model_summary"]
    assert (summary["parameters"], summary["trainable"], summary["bytes"]) == (23, 8, 92)
    assert summary["trainable_share"] == pytest.approx(8 / 23)
    assert summary["dtypes"] == {"float32": 23} and summary["children"] == {"hidden": 15, "out": 8}
    assert config["optimizers"][0]["class"] == "SGD" and config["optimizers"][0]["momentum"] == 0.9
    assert config["schedulers"][0]["class"] == "ExponentialDecay" and config["schedulers"][0]["decay_rate"] == 0.5
    assert config["keras"]["loss"] == "sparse_categorical_crossentropy" and config["keras"]["epochs"] == 2
    assert config["keras"]["backend"] == keras.backend.backend() and config["keras"]["steps_per_epoch"] == 8
    assert config["seed"] == 7


def test_a_schedules_rate_is_the_one_of_its_step(fit: Fit, only_run: OnlyRun) -> None:
    """The learning rate of a schedule is that of the step it stands at, within epochs and at their ends."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    cb = FlightlogCallback()
    cb._next_rate = -1e9
    fit(classifier(keras.optimizers.SGD(schedule)), cb)
    cb.finish()
    within, ends = rows(only_run(), "batch/learning_rate"), rows(only_run(), "learning_rate")
    assert ends == pytest.approx({8: 0.1 * 0.5**0.8, 16: 0.1 * 0.5**1.6})
    first = {1: 0.1, 9: 0.1 * 0.5**0.8}  # before the first update of the epoch
    assert {step: within[step] for step in first} == pytest.approx(first)
    assert all(within[step] == pytest.approx(0.1 * 0.5 ** (step / 10)) for step in within if step not in first)


def test_a_schedules_rate_is_the_one_of_its_optimizer(
    fit: Fit, only_run: OnlyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second optimizer has a count of its own, and goes through its schedule from the beginning."""
    monkeypatch.setattr("flightlog_keras.callback._RATE_SHARE", float("inf"))  # with each batch
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    cb = FlightlogCallback()
    for _ in range(2):
        fit(classifier(keras.optimizers.SGD(schedule)), cb, epochs=1)
    cb.finish()
    within = list(rows(only_run(), "batch/learning_rate").values())
    assert len(within) == 16 and within[8:] == pytest.approx(within[:8])


def test_a_rate_that_was_reduced_shows_in_the_next_epoch(fit: Fit, only_run: OnlyRun) -> None:
    """ReduceLROnPlateau, before or behind the callback: each epoch has the rate that it was trained with."""
    for place in (0, 1):
        model = classifier(keras.optimizers.SGD(0.1))
        cb = FlightlogCallback(project=f"p{place}", dir=f"runs{place}")
        reduce = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=100.0)
        fit(model, *([cb, reduce] if place else [reduce, cb]), epochs=3)
        cb.finish()
        (view,) = flightlog.Api(f"runs{place}").runs()
        assert rows(view, "learning_rate") == pytest.approx({8: 0.1, 16: 0.1, 24: 0.01})
        assert rows(view, "batch/learning_rate")[17] == pytest.approx(0.01)


def test_samples_are_counted_where_nobody_says_how_many(only_run: OnlyRun) -> None:
    """A generator of unequal batches and unknown length: samples a second count each sample once."""
    x, y = samples(60)
    cuts = [0, 7, 30, 60]

    def batches() -> Any:
        yield from ((x[a:b], y[a:b]) for a, b in itertools.pairwise(cuts))

    cb = FlightlogCallback(log_every=None)
    classifier().fit(batches(), verbose=0, callbacks=[cb])
    seconds = cb._speed.seconds
    cb.finish()
    ((step, rate),) = rows(only_run(), "perf/samples_per_second").items()
    assert rate == pytest.approx(60 / seconds)
    # On tensorflow the optimizer also counts the batch that the generator no longer had.
    assert step == int(keras.backend.backend() == "tensorflow") + 3
    assert rows(only_run(), "batch/loss") == {} and rows(only_run(), "epoch") == {step: 1}


def test_a_dataset_of_keras_own_kind(only_run: OnlyRun) -> None:
    """A PyDataset is trained on and its first batch predicted."""

    class Pairs(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 4

        def __getitem__(self, at: int) -> Any:
            x, y = samples(40)
            return x[at * 10 : at * 10 + 10], y[at * 10 : at * 10 + 10]

    cb = FlightlogCallback(predictions=Pairs(), prediction_rows=5)
    classifier().fit(Pairs(), epochs=1, verbose=0, callbacks=[cb])
    cb.finish()
    assert list(rows(only_run(), "batch/loss")) == [1, 2, 3, 4]
    assert [entry["step"] for entry in only_run().media()] == [4]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a DataLoader is torch's")
def test_a_data_loader(only_run: OnlyRun) -> None:
    """torch's DataLoader is trained on, and waiting for it is measured."""
    import torch

    x, y = samples(40)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y).long()), batch_size=8
    )
    cb = FlightlogCallback(predictions=loader)
    classifier().fit(loader, epochs=1, verbose=0, callbacks=[cb, keras.callbacks.TerminateOnNaN()])
    cb.finish()
    assert list(rows(only_run(), "batch/loss")) == [1, 2, 3, 4, 5]
    (waited,) = rows(only_run(), "perf/data_seconds").values()
    assert 0 < waited < rows(only_run(), "perf/step_seconds")[5]


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch takes one step at a time")
def test_several_steps_in_one_execution(fit: Fit, only_run: OnlyRun) -> None:
    """A hook that stands for three batches is recorded at the last of them, in the epoch's last two of them as well."""
    cb = FlightlogCallback()
    fit(classifier(steps_per_execution=3), cb)
    cb.finish()
    assert set(rows(only_run(), "loss")) == {8, 16}
    assert list(rows(only_run(), "batch/loss")) == [3, 6, 8, 11, 14, 16]


accumulates = pytest.mark.skipif(
    not hasattr(keras.optimizers.SGD(), "gradient_accumulation_steps"), reason="an older Keras"
)


@accumulates
@pytest.mark.parametrize("is_scaled", [False, True])
def test_accumulated_gradients_are_one_step(fit: Fit, only_run: OnlyRun, is_scaled: bool) -> None:
    """With four batches to an update the axis counts updates, also where mixed precision scales the loss."""
    cb = FlightlogCallback()
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    fit(classifier(keras.optimizers.LossScaleOptimizer(optimizer) if is_scaled else optimizer), cb)
    cb.finish()
    assert set(rows(only_run(), "loss")) == {2, 4} and set(rows(only_run(), "batch/loss")) == {0, 1, 2, 3, 4}


@accumulates
def test_an_update_may_span_two_epochs(fit: Fit, only_run: OnlyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batches to an update, eight to an epoch: the ninth completes one, and schedules go on with each batch."""
    monkeypatch.setattr("flightlog_keras.callback._RATE_SHARE", float("inf"))  # with each batch
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    cb = FlightlogCallback()
    cb.async_safe = False  # the batches of a step in their order
    fit(classifier(keras.optimizers.SGD(schedule, gradient_accumulation_steps=3)), cb)
    cb.finish()
    assert list(rows(only_run(), "batch/loss")) == [0, 1, 2, 3, 4, 5] and set(rows(only_run(), "loss")) == {2, 5}
    expected = {step: 0.1 * 0.5 ** (batch / 10) for step, batch in enumerate([2, 5, 8, 11, 14, 16])}
    assert rows(only_run(), "batch/learning_rate") == pytest.approx(expected)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a train_step is written for its backend")
def test_a_train_step_of_ones_own(fit: Fit, only_run: OnlyRun) -> None:
    """Where the optimizer's count stands still, batches are counted; a second fit goes on behind the first."""

    class Odd(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.out = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.out(x)

        def train_step(self, data: Any) -> dict[str, float]:
            return {"odd": 1.0}

    model = Odd()
    model.compile("sgd", "mse")
    cb = FlightlogCallback(log_every=4)
    fit(model, cb)
    fit(model, cb, epochs=1)
    cb.finish()
    assert list(rows(only_run(), "odd")) == [8, 16, 24]
    assert list(rows(only_run(), "batch/odd")) == [4, 8, 12, 16, 20, 24]
    assert rows(only_run(), "perf/samples_per_second") == {}


def test_a_second_fit_goes_on(fit: Fit, only_run: OnlyRun) -> None:
    """Fitted again, compiled anew, and compiled with another optimizer: one run, one rising step."""
    model = classifier()
    cb = FlightlogCallback()
    fit(model, cb)
    fit(model, cb, epochs=3, initial_epoch=2)
    model.compile("sgd", "sparse_categorical_crossentropy")
    fit(model, cb, epochs=1)
    cb.finish()
    assert list(rows(only_run(), "loss")) == [8, 16, 24, 32]
    assert list(rows(only_run(), "epoch").values()) == [1, 2, 3, 1]
    assert list(rows(only_run(), "batch/loss")) == list(range(1, 33))
    assert only_run().config["optimizers"][0]["class"] == "SGD"


def test_evaluate_and_predict_go_to_the_same_run(fit: Fit, only_run: OnlyRun) -> None:
    """What is evaluated after a fit, or within it by the script's own callback, is told from the validation."""
    model, data = classifier(), samples(20, 3)
    cb = FlightlogCallback()

    class Within(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            classifier().evaluate(*data, verbose=0, callbacks=[cb])

    fit(model, cb, Within(), validation_data=data)
    assert list(rows(only_run(), "test_loss")) == [8, 16] and list(rows(only_run(), "batch/loss")) == list(range(1, 17))
    found = model.evaluate(*data, verbose=0, callbacks=[cb], return_dict=True)
    model.predict(data[0], verbose=0, callbacks=[cb])
    cb.finish()
    view = only_run()
    assert view.summary["test_loss"] == pytest.approx(found["loss"]) and view.summary["test_accuracy"] is not None
    assert view.summary["predict/seconds"] > 0
    assert view.state == "finished" and list(rows(view, "val_loss")) == [8, 16]


def test_an_evaluation_alone_is_a_run(only_run: OnlyRun) -> None:
    """A model that is only evaluated has a run, too."""
    cb = FlightlogCallback(project="p")
    classifier().evaluate(*samples(), verbose=0, callbacks=[cb])
    cb.finish()
    assert set(only_run().summary) == {"test_loss", "test_accuracy"}


def test_what_stopped_the_training_is_noted(fit: Fit, only_run: OnlyRun) -> None:
    """EarlyStopping says when, and which epoch's weights were restored; a loss that is no number is an alert."""
    cb = FlightlogCallback(project="p", dir="early")
    stop = keras.callbacks.EarlyStopping("loss", min_delta=100.0, patience=1, restore_best_weights=True)
    fit(classifier(), cb, stop, epochs=9)
    cb.finish()
    (view,) = flightlog.Api("early").runs()
    stopped = view.summary["stopped"]
    assert stopped == {"by": "EarlyStopping", "epoch": 2, "best_epoch": 1, "restored_best_weights": True}

    nan = FlightlogCallback(project="p")
    model = classifier(keras.optimizers.SGD(float("inf")))
    fit(model, nan, keras.callbacks.TerminateOnNaN(), epochs=3)
    nan.finish()
    assert only_run().summary["stopped"] == {"by": "TerminateOnNaN", "epoch": 1}
    assert any("not finite" in alert["title"] for alert in only_run().alerts())
    assert len(rows(only_run(), "batch/accuracy")) < 8


def test_samples_of_another_evaluation_are_not_the_epochs(fit: Fit, only_run: OnlyRun) -> None:
    """A callback before ours evaluates the model at the end of each epoch: what it counted is no rate of training."""

    class Evaluating(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.evaluate(*samples(20, 3), verbose=0)

    cb = FlightlogCallback()
    fit(classifier(), Evaluating(), cb)
    cb.finish()
    assert set(rows(only_run(), "perf/steps_per_second")) == {8, 16}
    assert rows(only_run(), "perf/samples_per_second") == {}


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="Keras dispatches there in the same thread")
def test_asynchronous_dispatch_is_kept(fit: Fit, only_run: OnlyRun) -> None:
    """Beside no other callback the hooks of batches come from other threads, and none of them is lost."""
    threads = set()

    class Noting(FlightlogCallback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            threads.add(threading.get_ident())
            super().on_train_batch_end(batch, logs)

    cb = Noting()
    fit(classifier(), cb, batch_size=2)
    cb.finish()
    assert threading.get_ident() not in threads
    assert list(rows(only_run(), "batch/loss")) == list(range(1, 81))
    assert {40, 80} <= set(rows(only_run(), "perf/steps_per_second")) and not rows(only_run(), "perf/data_seconds")


def test_the_batch_hooks_leave_the_models_state_where_it_is(fit: Fit) -> None:
    """Within an epoch `self.model` is never asked for: jax would bring all weights back for it."""
    asked = []

    class Guarded(FlightlogCallback):
        @property
        def model(self) -> Any:
            asked.append(self._batches)
            return super().model

    cb = Guarded(predictions=samples(4))
    fit(classifier(), cb, keras.callbacks.TerminateOnNaN())
    assert asked == [8, 8]  # for the table, at the ends of the two epochs


def test_predictions_are_a_table_with_images(only_run: OnlyRun) -> None:
    """Inputs that are images are shown as such, beside target, prediction and score."""
    random = np.random.default_rng(5)
    x = random.random((12, 6, 6, 1)).astype("float32")
    y = keras.utils.to_categorical(random.integers(0, 3, 12), 3)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "categorical_crossentropy")
    cb = FlightlogCallback(predictions=(x, y), prediction_rows=3)
    model.fit(x, y, verbose=0, callbacks=[cb])
    cb.finish()
    table = cb._predictions.table(model)  # type: ignore[union-attr]
    assert table.columns == ["row", "input", "target", "prediction", "score", "output"] and len(table.data) == 3
    assert [row[2] for row in table.data] == y[:3].argmax(axis=1).tolist()
    assert [(entry["key"], entry["step"]) for entry in only_run().media()] == [("predictions", 1)]


def test_the_scripts_own_run_is_used_and_left_open(fit: Fit, only_run: OnlyRun) -> None:
    """A run that is passed, or was begun before, gets the records; the script ends it."""
    run = flightlog.init(project="mine")
    fit(classifier(), FlightlogCallback(), epochs=1)
    fit(classifier(), FlightlogCallback(run=run), epochs=1)
    assert run.state == "running"
    run.finish()
    assert only_run().summary["loss"] is not None


def test_two_trackers_at_once(fit: Fit, only_run: OnlyRun, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside a CSVLogger all is the same; of two of ours one records, and says that the other does not."""
    fit(classifier(), FlightlogCallback(), FlightlogCallback(), keras.callbacks.CSVLogger("log.csv"))
    flightlog.finish()
    assert len(Path("log.csv").read_text().splitlines()) == 3
    assert list(rows(only_run(), "batch/loss")) == list(range(1, 17))
    assert capsys.readouterr().err.count("two FlightlogCallbacks") == 1


@pytest.mark.parametrize("fails", [False, True])
def test_a_fit_within_a_fit_is_no_end_of_the_outer_one(fit: Fit, fails: bool) -> None:
    """A callback trains a probe with a run of its own after each epoch: the outer run ends as the outer training."""

    class Probe(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            inner = FlightlogCallback(project="probes", id=f"probe-{epoch}")
            fit(classifier(), inner, epochs=1)
            inner.finish()
            if fails and epoch == 1:
                raise ValueError("after the second probe")

    outer = FlightlogCallback(project="p", id="outer")
    with pytest.raises(ValueError, match="second probe") if fails else contextlib.nullcontext():
        fit(classifier(), outer, Probe(), epochs=2)
    outer.finish()
    views = {view.id: view for view in flightlog.Api("flightlog").runs()}
    assert {name: view.state for name, view in views.items()} == {
        "outer": "failed" if fails else "finished", "probe-0": "finished", "probe-1": "finished",
    }  # fmt: skip
    assert list(rows(views["outer"], "batch/loss")) == list(range(1, 17))
    assert list(rows(views["probe-1"], "batch/loss")) == list(range(1, 9))


def test_a_copy_is_a_run_of_its_own(fit: Fit) -> None:
    """A tuner copies its callbacks for each trial: each trial is a run."""
    original = FlightlogCallback(project="search", config={"units": 3})
    for _ in range(2):
        trial = copy.deepcopy(original)
        fit(classifier(), trial, epochs=1)
        trial.finish()
    runs = flightlog.Api("flightlog").runs()
    assert len(runs) == 2 and {view.project for view in runs} == {"search"}


def leaves_nothing_behind(fit: Fit) -> None:
    cb = FlightlogCallback()
    fit(classifier(), cb, keras.callbacks.ModelCheckpoint("m.keras"), epochs=1)
    classifier().evaluate(*samples(), verbose=0, callbacks=[cb])
    cb.finish()
    assert Path("m.keras").exists() and not Path("flightlog").exists()


def test_only_the_first_rank_of_a_launch_records(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank that torchrun started trains and saves, and leaves no record."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    leaves_nothing_behind(fit)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's process groups")
def test_only_the_first_process_of_a_group_records(fit: Fit) -> None:
    """Another process of a group that the script made itself leaves no record, either."""
    from torch import distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        leaves_nothing_behind(fit)
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("config", "rank"),
    [
        ("", 0),
        ('{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 1}}', 1),
        ('{"cluster": {"chief": ["a"], "worker": ["b"]}, "task": {"type": "worker", "index": 0}}', 1),
        ('{"cluster": {"chief": ["a"], "worker": ["b"]}, "task": {"type": "chief", "index": 0}}', 0),
        ('{"cluster": {"worker": ["a"], "ps": ["b"]}, "task": {"type": "ps", "index": 0}}', 1),
    ],
)
def test_a_cluster_has_one_chief(config: str, rank: int) -> None:
    """TF_CONFIG names the task; one of them records."""
    from flightlog_keras.processes import _of_cluster

    assert _of_cluster(config) == rank


def test_misuse_is_refused_when_the_callback_is_made() -> None:
    """Arguments that cannot be used raise at once, with words."""
    for wrong in ({"log_every": 0}, {"checkpoints": "some"}, {"predictions": 3}, {"run": "x"}, {"project": "../p"}):
        with pytest.raises(UsageError):
            FlightlogCallback(**wrong)  # type: ignore[arg-type]
    x, y = samples(4)
    for pair in ((x, y[:3]), (x, None), (x[:0], y[:0]), (x,), (1, 2)):
        with pytest.raises(UsageError, match="predictions="):
            FlightlogCallback(predictions=pair)
    for rows_wanted in (0, -3, "x", 1.5, True):
        with pytest.raises(UsageError, match="prediction_rows="):
            FlightlogCallback(predictions=(x, y), prediction_rows=rows_wanted)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'projct'"):
        FlightlogCallback(projct="p")


def test_an_error_inside_never_reaches_the_training(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong in the recorder, the training ends well."""
    monkeypatch.setattr(terminal, "raise_internal_errors", False)
    cb = FlightlogCallback()
    monkeypatch.setattr(cb._axis, "at", lambda batch: 1 // 0)
    monkeypatch.setattr(cb, "_describe", lambda model: 1 // 0)
    history = fit(classifier(), cb)
    assert len(history.history["loss"]) == 2
    assert capsys.readouterr().err.count("on_train_batch_end() failed and is skipped") == 1


def test_the_context_manager_knows_the_exception(fit: Fit, only_run: OnlyRun, records: Records) -> None:
    """An exception that leaves the block is the run's end, with its traceback."""

    class Failing(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise MemoryError("no room")

    with pytest.raises(MemoryError), FlightlogCallback() as cb:
        fit(classifier(), cb, Failing())
    assert only_run().state == "failed"
    (end,) = records("finish")
    assert end["error"]["message"] == "no room" and "on_epoch_end" in end["error"]["traceback"]


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="Keras dispatches there in the same thread")
@pytest.mark.skipif(hasattr(keras.callbacks.CallbackList, "__del__"), reason="an older Keras drops what still waits")
def test_a_batch_that_is_told_after_the_end_does_not_begin_the_run_again(only_run: OnlyRun, records: Records) -> None:
    """Data that breaks off while Keras' threads still wait for batches: the exception is the run's one and only end."""
    ended, told = threading.Event(), threading.Semaphore(0)

    class Waiting(keras.callbacks.Callback):  # type: ignore[misc]
        async_safe = True

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            ended.wait(30)

    class Telling(keras.callbacks.Callback):  # type: ignore[misc]
        async_safe = True

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            told.release()

    def batches() -> Any:
        yield from [samples(10)] * 3
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"), FlightlogCallback() as cb:
        classifier().fit(batches(), verbose=0, callbacks=[Waiting(), cb, Telling()])
    ended.set()
    assert all(told.acquire(timeout=30) for _ in range(3))
    (end,) = records("finish")
    assert only_run().state == "failed" and end["error"]["message"] == "no such file"


def test_a_schedule_without_a_config_is_described_by_its_class(fit: Fit, only_run: OnlyRun) -> None:
    """A schedule of the user's own that Keras cannot serialize: the run has its class and rates, and all else."""

    class Rising(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __call__(self, step: Any) -> Any:
            return 0.001 * keras.ops.cast(step, "float32")

    cb = FlightlogCallback()
    fit(classifier(keras.optimizers.SGD(Rising())), cb)
    cb.finish()
    assert only_run().config["optimizers"][0]["class"] == "SGD"
    assert only_run().config["schedulers"][0]["class"] == "Rising"
    assert rows(only_run(), "learning_rate") == pytest.approx({8: 0.008, 16: 0.016})


def test_what_cannot_be_described_costs_no_checkpoint_and_no_metric(
    fit: Fit, only_run: OnlyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts of a model that cannot be told, and samples that it does not take: all else is recorded, files are kept."""
    monkeypatch.setattr(terminal, "raise_internal_errors", False)
    cb = FlightlogCallback(artifact="m", predictions=(np.zeros((4, 9), "float32"), np.zeros(4, "int32")))
    monkeypatch.setattr("flightlog_keras.facts.model_facts", lambda model: 1 // 0)
    fit(classifier(), cb, keras.callbacks.ModelCheckpoint("m.keras", "loss"))
    cb.finish()
    assert list(rows(only_run(), "loss")) == [8, 16] and list(rows(only_run(), "epoch").values()) == [1, 2]
    assert flightlog.Api("flightlog").artifact("uncategorized/m:best").metadata["step"] == 16


class Says:
    """A model that says what it is told to."""

    def __init__(self, said: Any, *names: str) -> None:
        self.said = said
        self.output_names = names

    def predict_on_batch(self, inputs: Any) -> Any:
        return self.said


def test_each_of_several_outputs_has_columns_of_its_own() -> None:
    """Outputs by name or in a list, targets by name or in a list: columns are named as the outputs are."""
    x, y = samples(3)
    said = {"kind": np.eye(2)[y], "sum": x.sum(axis=1, keepdims=True)}
    by_name = {"kind": y, "sum": x.sum(axis=1)}
    for outputs in (said, list(said.values())):
        for targets in (by_name, list(by_name.values())):
            table = Predictions((x, targets), 3).table(Says(outputs, "kind", "sum"))
            assert table.columns == [
                "row", "target kind", "prediction kind", "score kind", "output kind",
                "target sum", "prediction sum", "output sum",
            ]  # fmt: skip
            assert [row[2] for row in table.data] == y.tolist()
            assert [row[6] for row in table.data] == pytest.approx(x.sum(axis=1))


def test_numbers_are_not_taken_for_classes() -> None:
    """Two numbers to be met, or several labels at once, are no scores of classes: they are shown as they are."""
    x, _ = samples(3)
    said = np.array([[0.5, -2.0], [1.5, 0.25], [0.0, 3.0]])
    for target in (x[:, :2], np.array([[1, 1], [0, 1], [0, 0]])):
        table = Predictions((x, target), 3).table(Says(said))
        assert table.columns == ["row", "target", "prediction", "output"]
        assert [row[1:3] for row in table.data] == [[t, p] for t, p in zip(target.tolist(), said.tolist(), strict=True)]


def test_a_huge_output_is_told_by_its_shape() -> None:
    """An image or a large vocabulary for each sample: the table stays small."""
    x, y = samples(3)
    table = Predictions((x, np.zeros((3, 64, 64))), 3).table(Says(np.zeros((3, 64, 64), "float32")))
    assert table.columns == ["row", "target", "prediction"]
    assert table.data[0] == [0, "float64 of 64 x 64", "float32 of 64 x 64"]
    table = Predictions((x, y), 3).table(Says(keras.utils.to_categorical(y, 50_000)))
    assert table.columns == ["row", "target", "prediction", "score"]
    assert [row[1:] for row in table.data] == [[label, label, 1.0] for label in y.tolist()]


def test_a_log_without_a_proper_name_costs_itself_alone(
    fit: Fit, only_run: OnlyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a callback adds to the logs under a number or nothing at all: the epoch's metrics are recorded."""
    monkeypatch.setattr(terminal, "raise_internal_errors", False)

    class Odd(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs.update({3: 4.0, "": 2.0, "a*b": 1.0})

    cb = FlightlogCallback()
    fit(classifier(), Odd(), cb)
    cb.finish()
    assert list(rows(only_run(), "loss")) == [8, 16] and list(rows(only_run(), "epoch").values()) == [1, 2]
