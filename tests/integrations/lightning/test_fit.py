"""What a training with Lightning leaves behind, and where it goes on."""

from __future__ import annotations

import argparse
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.loggers import CSVLogger

import flightlog
from flightlog.reading import Api
from flightlog.reading.views import RunView
from flightlog_lightning import FlightlogLogger

from .conftest import quiet
from .models import Line

OnlyRun = Callable[[], RunView]


def fit(folder: Path, logger: Any, model: Any = None, ckpt_path: Any = None, **how: Any) -> L.Trainer:
    """Train two epochs of eight steps, or as `how` says."""
    how.setdefault("max_epochs", 2)
    trainer = L.Trainer(logger=logger, **quiet(folder, **how))
    trainer.fit(model or Line(), ckpt_path=ckpt_path)
    return trainer


def column(view: RunView, metric: str) -> dict[int, Any]:
    return {row["_step"]: row[metric] for row in view.history() if metric in row}


def aliases(name: str) -> dict[str, set[str]]:
    """Return the aliases of each version that is kept, by its file's name."""
    (found,) = Api("flightlog").runs()
    kept: dict[str, set[str]] = {}
    for number in range(20):
        try:
            view = Api("flightlog").artifact(f"{found.project}/{name}:v{number}")
        except flightlog.FlightlogError:
            continue
        kept[view.files[0].path] = set(view.aliases)
    return kept


def test_a_training_and_its_test_are_one_run(
    tmp_path: Path, only_run: OnlyRun, artifact_records: Callable[[], list[dict[str, Any]]]
) -> None:
    """Metrics, settings, axes, rates and the best checkpoint are there; the end of fit and of test ends nothing."""
    torch.manual_seed(1)
    logger = FlightlogLogger(project="digits", name="first", tags=["x"])
    checkpoint = ModelCheckpoint(monitor="val_loss", save_last=True)
    model = Line()
    trainer = fit(tmp_path, logger, model, callbacks=[checkpoint])
    assert logger.experiment.state == "running"
    trainer.test(model, verbose=False)
    assert logger.experiment.state == "running" and logger.version in str(checkpoint.best_model_path)
    logger.training.finish()

    view = only_run()
    assert (view.project, view.name, view.tags, view.state) == ("digits", "first", ("x",), "finished")
    assert list(column(view, "train_loss")) == list(range(16))
    assert list(column(view, "val_loss")) == [7, 15] and list(column(view, "test_loss")) == [16]
    assert set(column(view, "lr").values()) == {0.1, 0.05}
    assert list(column(view, "epoch").values()) == [0] * 8 + [1] * 8 + [2]
    for rate in ("steps_per_second", "samples_per_second", "data_seconds"):
        assert len(column(view, f"perf/{rate}")) == 16 and min(column(view, f"perf/{rate}").values()) >= 0
    records = [r for _, r in view._records(["log"])]
    assert len(records) == 16 + 2 + 1  # one for each hook: a batch, a validation, the test
    assert view.config["lr"] == 0.1 and view.config["betas"] == [0.9, 0.99]
    assert view.config["model_summary"]["parameters"] == 3 and view.config["model_summary"]["dtypes"] == {"float32": 3}
    assert view.config["optimizers"][0]["class"] == "SGD" and view.config["optimizers"][0]["momentum"] == 0.5
    assert view.config["schedulers"][0] | {"class": "StepLR", "interval": "epoch"} == view.config["schedulers"][0]
    assert view.config["trainer"]["max_epochs"] == 2 and view.config["trainer"]["version"] == L.__version__
    axes = {d["name"]: d for d in view.definitions}
    assert axes["val_loss"]["step_metric"] == "epoch" and axes["val_loss"]["goal"] == "minimize"
    assert "train_loss" not in axes
    logged = [data for data in artifact_records() if data["action"] == "log"]
    assert len(logged) == 2  # of each epoch one, and not again as last.ckpt
    assert aliases(f"model-{view.id}") == {"epoch=1-step=16.ckpt": {"latest", "best", "step-16", "epoch-1"}}
    score = logged[-1]["metadata"]
    assert score["metric"] == "val_loss" and score["score"] == pytest.approx(view.summary["val_loss"])


def test_an_exception_fails_the_run_and_the_next_fit_goes_on_with_it(tmp_path: Path, only_run: OnlyRun) -> None:
    """An exception makes the run failed, with what it was, once callbacks have saved; a later fit mends it."""
    logger = FlightlogLogger(project="p")
    rescues = "save_on_exception" in inspect.signature(ModelCheckpoint).parameters  # from Lightning 2.6 on
    rescue = ModelCheckpoint(dirpath=tmp_path / "c", **({"save_on_exception": True} if rescues else {}))
    with pytest.raises(ArithmeticError):
        fit(tmp_path, logger, Line(fail_at=5), callbacks=[rescue])
    view = only_run()
    assert view.state == "failed"
    (finish,) = [r.data for _, r in view._records(["finish"])]
    assert finish["error"]["type"] == "ArithmeticError"
    assert len(aliases(f"model-{view.id}")) == int(rescues)  # what the exception made it save
    fit(tmp_path, logger, max_epochs=1)
    logger.training.finish()
    assert only_run().state == "finished" and list(column(only_run(), "train_loss")) == list(range(8))


@pytest.mark.filterwarnings("ignore:.*was called without a model", "ignore:.*there is no last checkpoint available")
def test_what_an_exception_makes_a_callback_save_is_kept(tmp_path: Path, only_run: OnlyRun) -> None:
    """OnExceptionCheckpoint's file is the newest version; the training goes on from it, and another one follows."""
    for fail_at in (3, 6):
        last = tmp_path / "on_exception.ckpt"
        with pytest.raises(ArithmeticError):
            fit(
                tmp_path, FlightlogLogger(project="p"), Line(fail_at=fail_at), last if last.exists() else None,
                callbacks=[OnExceptionCheckpoint(tmp_path)],
            )  # fmt: skip
        view = only_run()
        assert view.state == "failed" and list(column(view, "train_loss"))[:3] == [0, 1, 2]
        assert aliases(f"model-{view.id}") == {last.name: {"latest", f"step-{fail_at}", "epoch-0"}}


def test_an_interrupt_from_the_keyboard_is_told(tmp_path: Path, only_run: OnlyRun) -> None:
    """Ctrl-C, which Lightning turns into an exit, leaves a failed run that names KeyboardInterrupt."""

    class Interrupted(Line):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3:
                raise KeyboardInterrupt

    import signal

    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            fit(tmp_path, FlightlogLogger(), Interrupted())
    finally:
        signal.signal(signal.SIGINT, before)
    (finish,) = [r.data for _, r in only_run()._records(["finish"])]
    assert (finish["state"], finish["error"]["type"]) == ("failed", "KeyboardInterrupt")


def test_an_error_before_the_loop_leaves_a_failed_run_with_its_settings(tmp_path: Path, only_run: OnlyRun) -> None:
    """What fails while the Trainer prepares is recorded, too."""

    class Broken(Line):
        def configure_optimizers(self) -> Any:
            raise ArithmeticError("no optimizer")

    logger = FlightlogLogger()
    logger.log_hyperparams({"seed": 7})
    with pytest.raises(ArithmeticError):
        fit(tmp_path, logger, Broken())
    assert only_run().state == "failed" and only_run().config["seed"] == 7


@pytest.mark.parametrize("hook", ["prepare_data", "setup", "configure_model", "on_fit_start"])
def test_an_error_before_anything_is_recorded_leaves_a_failed_run(
    tmp_path: Path, only_run: OnlyRun, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    """A data set that is not there, say: the run names the exception, and the next fit goes on with it."""

    def fails(self: Any, stage: str = "") -> None:
        raise FileNotFoundError("train.csv")

    logger = FlightlogLogger(project="p")
    with monkeypatch.context() as broken, pytest.raises(FileNotFoundError):
        broken.setattr(Line, hook, fails)
        fit(tmp_path, logger)
    (finish,) = [r.data for _, r in only_run()._records(["finish"])]
    assert (finish["state"], finish["error"]["type"]) == ("failed", "FileNotFoundError")
    fit(tmp_path, logger, max_epochs=1)
    logger.training.finish()
    assert only_run().state == "finished"


@pytest.mark.parametrize("way", ["named", "default folder"])
def test_a_resumed_training_continues_its_run_without_a_flag(tmp_path: Path, only_run: OnlyRun, way: str) -> None:
    """From a checkpoint of the first epoch, a new logger continues the same run there, and makes the same curve."""
    torch.manual_seed(1)
    folder = {"dirpath": tmp_path / "c"} if way == "named" else {}
    first = FlightlogLogger(project="digits")
    checkpoint = ModelCheckpoint(monitor="val_loss", save_top_k=-1, **folder)
    fit(tmp_path, first, callbacks=[checkpoint])
    whole = column(only_run(), "train_loss")
    first.training.finish()

    second = FlightlogLogger()
    second.log_hyperparams({"again": True})  # before the Trainer knows the checkpoint: it must not open a run
    saved = {path: Path(path) for path in checkpoint.best_k_models}
    path = next(path for path in saved if "epoch=0" in path)
    again = ModelCheckpoint(monitor="val_loss", save_top_k=-1, **folder)
    fit(tmp_path, second, Line(), path, callbacks=[again], max_epochs=3)
    second.training.finish()
    view = only_run()
    assert view.id == first.version == second.version and view.project == "digits" and view.config["again"] is True
    assert list(column(view, "train_loss")) == list(range(24)) and list(column(view, "val_loss")) == [7, 15, 23]
    assert {s: v for s, v in column(view, "train_loss").items() if s < 16} == pytest.approx(whole)
    assert again.dirpath == checkpoint.dirpath and len(again.best_k_models) == 3


def test_a_marker_goes_with_a_checkpoint_of_an_earlier_program(tmp_path: Path) -> None:
    """Lightning deletes it when the training has gone on; what is beside it is not left behind."""
    for epochs in (1, 2):
        callbacks = [ModelCheckpoint(dirpath=tmp_path / "c", save_last=True)]
        last = tmp_path / "c" / "last.ckpt"
        fit(tmp_path, FlightlogLogger(), Line(), last if epochs > 1 else None, callbacks=callbacks, max_epochs=epochs)
        flightlog.finish()
    left = {path.name.removesuffix(".flightlog.json") for path in (tmp_path / "c").iterdir()}
    assert left == {"last.ckpt", "epoch=1-step=16.ckpt"}


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_an_evaluation_from_a_checkpoint_goes_to_the_run_that_saved_it(tmp_path: Path, only_run: OnlyRun) -> None:
    """A test in a later program joins the training's run at its end, from a full checkpoint and from mere weights."""
    for weights_only in (False, True):
        folder = tmp_path / f"c{weights_only}"
        first = FlightlogLogger(project="p", dir=folder / "flightlog")
        checkpoint = ModelCheckpoint(save_weights_only=weights_only, dirpath=folder / "c")
        fit(tmp_path, first, callbacks=[checkpoint], max_epochs=1)
        first.training.finish()
        trainer = L.Trainer(logger=FlightlogLogger(), **quiet(tmp_path))
        trainer.test(Line(), ckpt_path=checkpoint.best_model_path, verbose=False)
        flightlog.finish()
        (view,) = Api(folder / "flightlog").runs()
        assert list(column(view, "test_loss")) == [8] and len(column(view, "train_loss")) == 8
    assert not (tmp_path / "flightlog").exists()


def test_what_comes_without_its_epoch_is_drawn_over_the_step(tmp_path: Path, only_run: OnlyRun) -> None:
    """What a model or callback passes to the logger by itself has no place on the axis of the epochs."""

    class Talks(Line):
        def on_validation_epoch_end(self) -> None:
            self.logger.log_metrics({"own": 1.0}, step=self.global_step)  # type: ignore[union-attr]

    logger = FlightlogLogger(project="p")
    fit(tmp_path, logger, Talks(), callbacks=[LearningRateMonitor("epoch")])
    logger.training.finish()
    assert list(column(only_run(), "own")) == [0, 8, 16] and list(column(only_run(), "lr-SGD")) == [0, 8]
    axes = {definition["name"]: definition.get("step_metric") for definition in only_run().definitions}
    assert axes["val_loss"] == "epoch" and not {"own", "lr-SGD"} & axes.keys()


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_an_evaluation_replaces_nothing_of_the_training(tmp_path: Path, only_run: OnlyRun) -> None:
    """What `validate` finds, in this program and in later ones, has steps of its own; the curves stay as they were."""
    checkpoint = ModelCheckpoint(dirpath=tmp_path / "c")
    trainer = fit(tmp_path, FlightlogLogger(project="p"), callbacks=[checkpoint])
    before = [column(only_run(), name) for name in ("val_loss", "epoch")]
    other = torch.utils.data.DataLoader(torch.zeros(4, 2))
    trainer.validate(Line(), other, verbose=False)
    flightlog.finish()
    for _ in range(2):
        trainer = L.Trainer(logger=FlightlogLogger(), **quiet(tmp_path))
        trainer.validate(Line(), other, ckpt_path=checkpoint.best_model_path, verbose=False)
        flightlog.finish()
    val_loss, epoch = (column(only_run(), name) for name in ("val_loss", "epoch"))
    assert list(val_loss) == [7, 15, 16, 17, 18] and {step: val_loss[step] for step in (7, 15)} == before[0]
    assert epoch == {**before[1], 16: 2}  # the Trainers that have trained nothing do not know it


def test_a_run_that_the_script_began_is_used_and_left_open(tmp_path: Path, only_run: OnlyRun) -> None:
    """Passed as run=, or simply current: the logger records into it, also its own log calls between."""
    run = flightlog.init(project="mine")
    for number, logger in enumerate((FlightlogLogger(run=run), FlightlogLogger())):
        fit(tmp_path, logger, max_epochs=1, callbacks=[ModelCheckpoint(dirpath=tmp_path / str(number))])
        assert logger.experiment is run and run.state == "running"
        flightlog.log({"between": number})
    run.finish()
    assert only_run().project == "mine" and len(column(only_run(), "between")) == 2


def test_two_trackers_at_once(tmp_path: Path, only_run: OnlyRun) -> None:
    """Beside another logger, in either order, both have all metrics, and one folder of checkpoints."""
    csv = CSVLogger(tmp_path / "csv")
    logger = FlightlogLogger()
    trainer = L.Trainer(logger=[csv, logger], max_epochs=1, **quiet(tmp_path))
    trainer.fit(Line())
    logger.training.finish()
    assert len(column(only_run(), "train_loss")) == 8
    assert (Path(csv.log_dir) / "metrics.csv").read_text().count("\n") > 8
    assert trainer.checkpoint_callback is not None and csv.name in trainer.checkpoint_callback.best_model_path


def test_of_two_loggers_of_ours_the_first_records(
    tmp_path: Path, only_run: OnlyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process has one run at a time: the second logger is silent and says so; the first one's run stays whole."""
    first, second = FlightlogLogger(project="p"), FlightlogLogger(project="q")
    trainer = fit(tmp_path, [first, second], max_epochs=1)
    second.experiment.log({"nowhere": 1})
    trainer.test(Line(), verbose=False)
    first.training.finish()
    view = only_run()
    assert view.project == "p" and len(column(view, "train_loss")) == 8 and "nowhere" not in view.summary
    said = capsys.readouterr().err
    assert said.count("two FlightlogLoggers") == 1 and "continues in" not in said
    fit(tmp_path, second, max_epochs=1)
    second.training.finish()
    assert {each.project for each in Api("flightlog").runs()} == {"p", "q"}


def test_a_checkpoint_that_the_script_saves_after_a_fit_leads_to_its_step(tmp_path: Path, only_run: OnlyRun) -> None:
    """trainer.save_checkpoint() between two fits leads to the first one's end; what the second logged is hidden."""
    logger = FlightlogLogger(project="p")
    trainer = fit(tmp_path, logger, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    trainer.fit_loop.max_epochs = 3
    trainer.fit(Line())
    logger.training.finish()
    assert max(column(only_run(), "train_loss")) == 23
    again = FlightlogLogger()
    fit(tmp_path, again, ckpt_path=tmp_path / "mine.ckpt", max_epochs=2)
    again.training.finish()
    assert again.version == logger.version
    assert list(column(only_run(), "train_loss")) == list(range(16))


class Folders(TorchCheckpointIO):
    """Saves a checkpoint as a folder of shards, as distributed strategies do."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        super().save_checkpoint(checkpoint, Path(path) / "shard.bin")

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        return super().load_checkpoint(Path(path) / "shard.bin", *args, **kwargs)

    def remove_checkpoint(self, path: Any) -> None:
        import shutil

        shutil.rmtree(path)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_checkpoints_that_are_folders(tmp_path: Path, only_run: OnlyRun) -> None:
    """A sharded checkpoint is one version of its files; the folder that Lightning rotates away is kept, and resumes."""
    logger = FlightlogLogger(project="p", checkpoints="all", artifact="shards")
    checkpoint = ModelCheckpoint(dirpath=tmp_path / "c")
    fit(tmp_path, logger, callbacks=[checkpoint], plugins=[Folders()])
    logger.training.finish()
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["epoch=1-step=16.ckpt"]
    for epoch in (0, 1):
        view = Api("flightlog").artifact(f"p/shards:epoch-{epoch}")
        assert {f.path for f in view.files} == {"shard.bin", "flightlog.json"}
        assert view.download(tmp_path / f"back{epoch}").joinpath("shard.bin").stat().st_size > 1000
    again = FlightlogLogger()
    fit(tmp_path, again, ckpt_path=tmp_path / "back0", plugins=[Folders()])
    again.training.finish()
    assert only_run().id == logger.version == again.version


def test_several_model_checkpoints_keep_what_they_watch(tmp_path: Path) -> None:
    """Each has an alias for its best; a link called last, and saving without a metric, add nothing twice."""
    logger = FlightlogLogger(project="p", artifact="m", checkpoints="best_and_last")
    callbacks = [
        ModelCheckpoint(dirpath=tmp_path / "a", filename="a-{epoch}", monitor="val_loss", save_last="link"),
        ModelCheckpoint(dirpath=tmp_path / "b", filename="b-{epoch}", monitor="train_loss", mode="max"),
        ModelCheckpoint(dirpath=tmp_path / "w", filename="w-{epoch}", save_weights_only=True),
    ]
    fit(tmp_path, logger, callbacks=callbacks, max_epochs=2)
    logger.training.finish()
    kept = aliases("m")
    held = {alias: name for name, found in kept.items() for alias in found if alias.startswith("best")}
    assert set(held) == {"best", "best-train_loss"} and not any(name.startswith("w-") for name in held.values())
    assert sum(name.startswith("w-") for name in kept) == 1
    assert len(kept) <= 3
    assert not [p for p in tmp_path.rglob("*.flightlog.json") if not p.with_name(p.name[:-15]).exists()]


def test_the_best_has_its_score_whichever_model_checkpoint_saves_it_first(tmp_path: Path, only_run: OnlyRun) -> None:
    """At one step three save the same: by steps, and by two metrics; it is kept once, with the values of both."""
    logger = FlightlogLogger(project="p", artifact="m", checkpoints="all")
    callbacks = [
        ModelCheckpoint(dirpath=tmp_path, filename="s-{step}", every_n_train_steps=8, save_top_k=-1),
        ModelCheckpoint(dirpath=tmp_path, filename="a-{epoch}", monitor="val_loss"),
        ModelCheckpoint(dirpath=tmp_path, filename="b-{epoch}", monitor="train_loss"),
    ]
    fit(tmp_path, logger, callbacks=callbacks)
    logger.training.finish()
    assert {name.split("-")[0] for name in aliases("m")} == {"a"} and len(aliases("m")) == 2
    losses = {name: column(only_run(), name) for name in ("val_loss", "train_loss")}
    for alias in ("best", "best-train_loss"):
        metadata = Api("flightlog").artifact(f"p/m:{alias}").metadata
        assert metadata["metric"] == "val_loss" and metadata["score"] == metadata["val_loss"]
        for name, values in losses.items():
            assert metadata[name] == pytest.approx(values[metadata["step"] - 1])


@pytest.mark.parametrize("first", ["models", "weights"])
def test_weights_do_not_take_the_names_of_whole_checkpoints(tmp_path: Path, first: str) -> None:
    """Saved side by side, in either order: `best`, `latest`, `step-N` and `epoch-N` are what one goes on from."""
    logger = FlightlogLogger(project="p", artifact="m", checkpoints="all")
    both = [
        ModelCheckpoint(dirpath=tmp_path, filename="all-{epoch}", monitor="epoch", mode="max", save_top_k=-1),
        ModelCheckpoint(dirpath=tmp_path, filename="w-{epoch}", monitor="step", mode="max", save_weights_only=True),
    ]
    fit(tmp_path, logger, callbacks=both if first == "models" else both[::-1])
    logger.training.finish()
    assert aliases("m") == {
        "all-epoch=0.ckpt": {"step-8", "epoch-0"},
        "all-epoch=1.ckpt": {"step-16", "epoch-1", "latest", "best"},
        "w-epoch=0.ckpt": {"step-8-weights", "epoch-0-weights"},
        "w-epoch=1.ckpt": {"step-16-weights", "epoch-1-weights", "best-weights-step"},
    }


def test_the_loggers_contract(tmp_path: Path, only_run: OnlyRun) -> None:
    """Names are never None and open no run; hyper-parameters come as they like, repeatedly; media are recorded."""
    logger = FlightlogLogger(project="p", prefix="a/")
    names = (logger.name, logger.version, logger.save_dir, logger.root_dir, logger.log_dir)
    assert all(isinstance(name, str) and name for name in names) and not Path("flightlog").exists()
    logger.log_hyperparams(argparse.Namespace(lr=0.1, path=tmp_path))
    logger.log_hyperparams({"lr": 0.1, "nested": {"deep": [1, (2,)]}})
    logger.log_hyperparams(params={"lr": 0.1})
    logger.log_metrics(metrics={"x": 1.0, "t": torch.tensor(2.0)}, step=3)
    before = logger.experiment.records
    logger.log_hyperparams({"lr": 0.1, "nested": {"deep": [1, (2,)]}})
    assert logger.experiment.records == before
    logger.log_image("picture", [np.zeros((4, 4, 3), np.uint8)] * 2, step=3, caption=["one", "two"])
    logger.log_table("table", columns=["a", "b"], data=[[1, "x"], [2, "y"]], step=3)
    logger.log_text("words", "some text", step=3)
    logger.log_text("rows", columns=["t"], data=[["some"]], step=3)
    logger.log_audio("sound", [np.zeros(800, np.float32)], step=3, sample_rate=[8000])
    with pytest.raises(TypeError):
        logger.log_image("picture", np.zeros((4, 4)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 items, but 1"):
        logger.log_image("picture", [np.zeros((4, 4))] * 2, caption=["one"])
    with pytest.raises(ValueError, match="none has neither columns nor rows"):
        logger.log_table("none")  # in a training a warning
    logger.save()
    logger.log_graph(Line(), torch.zeros(1, 2))
    logger.finalize("success")
    logger.finalize("finished")
    assert logger.experiment.state == "running"
    copy: Any = pickle.loads(pickle.dumps(logger))
    assert copy.version == logger.version and copy.experiment is logger.experiment
    logger.training.finish()
    view = only_run()
    assert view.config["path"] == str(tmp_path) and view.config["nested"] == {"deep": [1, [2]]}
    assert view.summary["a/x"] == 1.0 and view.summary["a/t"] == 2.0
    assert view.summary["a/words"] == "some text"
    assert {media["key"] for media in view.media()} == {"a/picture", "a/table", "a/rows", "a/sound"}


def test_images_without_a_step_stand_at_the_trainings(tmp_path: Path, only_run: OnlyRun) -> None:
    """What a validation shows is not beyond the checkpoint that is saved after it: it is seen when that goes on."""

    class Shows(Line):
        def on_validation_epoch_end(self) -> None:
            if not self.trainer.sanity_checking:
                self.logger.log_image("seen", [np.zeros((4, 4, 3), np.uint8)])  # type: ignore[union-attr]
                self.logger.log_table("rows", ["epoch"], [[self.current_epoch]])  # type: ignore[union-attr]

    for epochs in (2, 3):
        checkpoint = ModelCheckpoint(dirpath=tmp_path / "c", save_last=True)
        last = tmp_path / "c" / "last.ckpt" if epochs == 3 else None
        fit(tmp_path, FlightlogLogger(project="p"), Shows(), last, callbacks=[checkpoint], max_epochs=epochs)
        flightlog.finish()
    for key in ("seen", "rows"):
        assert [media["step"] for media in only_run().media() if media["key"] == key] == [7, 15, 23]


def test_the_experiment_is_a_run_from_the_first_use(tmp_path: Path, only_run: OnlyRun) -> None:
    """What stands for the run before it is open opens it, in the model's own hooks as well."""

    class Talks(Line):
        def on_train_start(self) -> None:
            self.logger.experiment.log({"hello": 1}, step=0)  # type: ignore[union-attr]

    logger = FlightlogLogger(project="p")
    assert not Path("flightlog").exists() and logger.experiment.project == "p"
    logger.experiment.notes = "said early"
    fit(tmp_path, logger, Talks(), max_epochs=1)
    logger.training.finish()
    assert only_run().notes == "said early" and column(only_run(), "hello") == {0: 1}


def test_other_ranks_write_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On rank 1 every call of the contract is taken, and none opens a run."""
    from lightning_utilities.core.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = FlightlogLogger(project="p")
    logger.log_metrics({"x": 1.0}, 1)
    logger.log_hyperparams({"lr": 1})
    logger.log_graph(Line())
    logger.log_table("t", ["a"], [[1]])
    logger.experiment.log({"x": 1})
    logger.experiment.config["a"]["b"] = 1
    assert not logger.experiment and isinstance(logger.version, str)
    logger.finalize("success")
    assert not Path("flightlog").exists()


def test_the_command_lines_config_is_captured(
    tmp_path: Path, only_run: OnlyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LightningCLI takes the logger's options; its whole config stands in the run's, and as a file for another time."""
    from lightning.pytorch.cli import LightningCLI

    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    named = {"project": "cli", "dir": str(tmp_path / "flightlog"), "tags": ["a", "b"], "config": {"seen": 1}}
    logger = {"class_path": "flightlog_lightning.unified.FlightlogLogger", "init_args": named}
    arguments = [
        "fit", "--seed_everything=1", "--model.lr=0.25", "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu", "--trainer.devices=1",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.log_every_n_steps=1",
    ]  # fmt: skip
    cli = LightningCLI(
        Line, args=arguments, trainer_defaults={"logger": logger}, save_config_kwargs={"overwrite": True}
    )
    cli.trainer.loggers[0].training.finish()  # type: ignore[attr-defined]
    view = only_run()
    assert view.project == "cli" and view.tags == ("a", "b") and view.config["seen"] == 1 and view.config["lr"] == 0.25
    assert view.config["cli"]["model"]["lr"] == 0.25 and view.config["cli"]["trainer"]["max_epochs"] == 1
    assert b"lr: 0.25" in next((tmp_path / "flightlog").rglob("saved/config.yaml")).read_bytes()


def test_nothing_happens_without_the_logger(tmp_path: Path) -> None:
    """The callback that every Trainer gets does nothing without a FlightlogLogger: checkpoints know nothing of it."""
    trainer = L.Trainer(logger=False, max_epochs=1, **quiet(tmp_path))
    trainer.fit(Line())
    assert any(type(c).__name__ == "FlightlogCallback" for c in trainer.callbacks)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert not any("flightlog" in str(key).lower() for key in (*saved, *saved["callbacks"]))
    assert not Path("flightlog").exists()


def test_a_program_without_the_logger_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no FlightlogLogger was imported, the entry point imports nothing and adds no callback."""
    from flightlog_lightning import factory

    assert len(factory.lightning()) == 1
    monkeypatch.delitem(sys.modules, "flightlog_lightning.logger")
    assert factory.lightning() == [] == factory.pytorch_lightning()
    code = "import sys, flightlog_lightning.factory as f; f.lightning(); sys.exit('flightlog' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


def test_without_the_entry_point_the_logger_brings_the_callback(tmp_path: Path, only_run: OnlyRun) -> None:
    """In a checkout that is not installed the first stage adds the callback; passed by hand it works just once."""
    from flightlog_lightning import FlightlogCallback

    logger = FlightlogLogger()
    trainer = L.Trainer(logger=logger, max_epochs=1, **quiet(tmp_path))
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, FlightlogCallback)]
    trainer.fit(Line())
    logger.training.finish()
    assert "perf/steps_per_second" in only_run().summary
    second = FlightlogLogger(dir="second")
    trainer = L.Trainer(logger=second, max_epochs=1, callbacks=[FlightlogCallback()], **quiet(tmp_path))
    trainer.fit(Line())
    second.training.finish()
    (view,) = Api("second").runs()
    assert len([r for _, r in view._records(["log"])]) == 9


def test_the_other_package_works_as_well(tmp_path: Path, only_run: OnlyRun) -> None:
    """With `pytorch_lightning` the same is recorded, and resumed."""
    pl = pytest.importorskip("pytorch_lightning")
    from flightlog_lightning.classic import FlightlogLogger as Classic

    class Old(pl.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.layer(batch).pow(2).mean()
            self.log("train_loss", loss)
            return loss

        configure_optimizers = Line.configure_optimizers
        train_dataloader = Line.train_dataloader
        lr = 0.1

    for epochs, path in ((1, None), (2, tmp_path / "a.ckpt")):
        logger = Classic(project="p")
        trainer = pl.Trainer(logger=logger, max_epochs=epochs, **quiet(tmp_path))
        trainer.fit(Old(), ckpt_path=path)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        logger.training.finish()
    assert isinstance(logger, pl.loggers.Logger)
    assert list(column(only_run(), "train_loss")) == list(range(16))
