"""A training that goes on from a checkpoint goes on in its run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

import flightlog
from flightlog.reading.views import RunView
from flightlog_keras import FlightlogCallback, markers

from .conftest import classifier, samples
from .test_fit import rows

OnlyRun = Callable[[], RunView]
Fit = Callable[..., Any]


class Stop(Exception):
    """What ends a training in these tests."""


class StopsAt(keras.callbacks.Callback):  # type: ignore[misc]
    """Leaves fit in the midst of an epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.at = (epoch, batch)
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == self.at:
            raise Stop


@pytest.mark.parametrize("place", ["before", "behind"])
def test_backup_and_restore_goes_on_in_the_same_run(fit: Fit, only_run: OnlyRun, place: str) -> None:
    """A new callback and a new model: the run goes on from the backup's step, what came after it is hidden."""

    def attempt(*more: Any) -> FlightlogCallback:
        cb, backup = FlightlogCallback(project="p"), keras.callbacks.BackupAndRestore("backup")
        both = [cb, backup] if place == "before" else [backup, cb]
        try:
            fit(classifier(), *both, *more, epochs=4)
        finally:
            cb.finish()
        return cb

    with pytest.raises(Stop):
        attempt(StopsAt(2, 4))
    assert only_run().state == "failed"
    assert not Path("backup/flightlog.json").exists() and Path("backup.flightlog.json").exists()
    attempt()
    view = only_run()
    assert view.state == "finished"
    assert list(rows(view, "batch/loss")) == list(range(1, 33)) and list(rows(view, "epoch").values()) == [1, 2, 3, 4]
    assert not Path("backup").exists() and not Path("backup.flightlog.json").exists()
    attempt()  # nothing is there to go on from: another run
    assert len(flightlog.Api("flightlog").runs()) == 2


def test_a_fit_that_is_tried_again_goes_back(fit: Fit, only_run: OnlyRun) -> None:
    """The same callback, model and process: after the restored epoch the steps are as if nothing had happened."""
    model, cb = classifier(), FlightlogCallback()
    backup = keras.callbacks.BackupAndRestore("backup")
    with pytest.raises(Stop):
        fit(model, cb, backup, StopsAt(1, 5), epochs=3)
    assert cb.run.step == 15
    fit(model, cb, backup, epochs=3)
    cb.finish()
    view = only_run()
    assert view.state == "finished" and list(rows(view, "batch/loss")) == list(range(1, 25))
    assert list(rows(view, "loss")) == [8, 16, 24]


def test_a_backup_within_an_epoch(fit: Fit, only_run: OnlyRun) -> None:
    """A backup of every five batches: the run goes on from there, as Keras does, with the epoch begun anew."""
    cb = FlightlogCallback()
    with pytest.raises(Stop):
        fit(classifier(), cb, keras.callbacks.BackupAndRestore("b", save_freq=5), StopsAt(1, 6), epochs=2)
    cb.finish()
    assert json.loads(Path("b.flightlog.json").read_text())["step"] == 15
    second = FlightlogCallback()
    fit(classifier(), second, keras.callbacks.BackupAndRestore("b", save_freq=5), epochs=2)
    second.finish()
    assert list(rows(only_run(), "batch/loss")) == list(range(1, 24)) and rows(only_run(), "epoch") == {8: 1, 23: 2}


@pytest.mark.parametrize("order", ["before", "behind"])
@pytest.mark.parametrize("freq", ["epoch", 3])
def test_a_backup_is_whole_before_its_marker_is_written(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, order: str, freq: str | int
) -> None:
    """Keras saves the weights and then which epoch they are of: the callback does not draw out the time between."""
    backups: list[tuple[int, int]] = []  # the step by what Keras has written, and the marker's
    leave = markers.leave

    def left(checkpoint: Any, marker: Any, updates: Any) -> None:
        leave(checkpoint, marker, updates)
        if (place := Path("b/training_metadata.json")).exists():
            said = json.loads(place.read_text())
            backups.append((said["epoch"] * 8 + (0 if freq == "epoch" else said["batch"] + 1), marker["step"]))

    monkeypatch.setattr(markers, "leave", left)
    cb, backup = FlightlogCallback(), keras.callbacks.BackupAndRestore("b", save_freq=freq)
    fit(classifier(), *([cb, backup] if order == "before" else [backup, cb]), epochs=2)
    cb.finish()
    assert len(backups) == (2 if freq == "epoch" else 5) and all(said == step for said, step in backups), backups


@pytest.mark.parametrize("how", ["model", "weights"])
def test_a_loaded_checkpoint_goes_on_in_its_run(fit: Fit, only_run: OnlyRun, how: str) -> None:
    """load_model and load_weights lead back to the run, at the checkpoint's step, and the project is the run's."""
    first = FlightlogCallback(project="p", artifact="m")
    weights = how == "weights"
    name = "{epoch}.weights.h5" if weights else "{epoch}.keras"
    fit(classifier(), first, keras.callbacks.ModelCheckpoint(name, save_weights_only=weights), epochs=3)
    first.finish()
    if weights:
        model = classifier()
        model.optimizer.build(model.trainable_variables)
        model.load_weights("2.weights.h5")
    else:
        model = keras.models.load_model("2.keras")
    second = FlightlogCallback(artifact="m")
    fit(model, second, epochs=4, initial_epoch=2)
    assert second.run.resumed and second.run.id == first.run.id
    second.finish()
    view = only_run()
    assert view.project == "p" and list(rows(view, "epoch").values()) == [1, 2, 3, 4]
    assert list(rows(view, "batch/loss")) == list(range(1, 33))


def test_a_loaded_checkpoint_is_evaluated_into_its_run(fit: Fit, only_run: OnlyRun) -> None:
    """Evaluating an earlier checkpoint hides nothing of what came after it."""
    first = FlightlogCallback(project="p")
    fit(classifier(), first, keras.callbacks.ModelCheckpoint("{epoch}.keras"), epochs=2)
    first.finish()
    second = FlightlogCallback()
    keras.models.load_model("1.keras").evaluate(*samples(), verbose=0, callbacks=[second])
    second.finish()
    view = only_run()
    assert list(rows(view, "batch/loss")) == list(range(1, 17)) and list(rows(view, "test_loss")) == [8]


def test_weights_alone_are_another_training(fit: Fit) -> None:
    """A model compiled anew after it was loaded, and a checkpoint without a marker: these are runs of their own."""
    first = FlightlogCallback(project="p")
    fit(classifier(), first, keras.callbacks.ModelCheckpoint("m.keras"), epochs=1)
    first.finish()
    model = keras.models.load_model("m.keras")
    model.compile("sgd", "sparse_categorical_crossentropy")
    second = FlightlogCallback(project="p")
    fit(model, second, epochs=1)
    second.finish()
    model = classifier()
    model.fit(*samples(), verbose=0)
    model.save("n.keras")
    Path("n.keras.flightlog.json").write_text('{"run": "../x", "project": "p", "step": 3}')
    third = FlightlogCallback(project="p")
    fit(keras.models.load_model("n.keras"), third, epochs=1)
    third.finish()
    assert len({first.run.id, second.run.id, third.run.id}) == 3


@pytest.mark.parametrize("beside", ["none", "before", "behind"])
@pytest.mark.parametrize("only_best", [False, True])
def test_the_best_stays_the_best_of_the_whole_run(fit: Fit, only_best: bool, beside: str) -> None:
    """A new process does not take its first checkpoint for the best; one from hidden steps is none any more.

    Nor does a second callback, which saves at the same steps and goes by another metric, take the score away.
    """

    class Scored(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["score"] = [3.0, 9.0, 4.0, 5.0, 6.0, 7.0][epoch]

    def train(model: Any, begin: int, end: int) -> None:
        cb = FlightlogCallback(artifact="m", project="p", checkpoints="all")
        save = keras.callbacks.ModelCheckpoint("{epoch}.keras", "score", mode="max", save_best_only=only_best)
        other = keras.callbacks.ModelCheckpoint("newest.keras", "loss", save_freq=8)
        around = {"none": [save, cb], "before": [save, other, cb], "behind": [cb, save, other]}[beside]
        fit(model, Scored(), *around, initial_epoch=begin, epochs=end)
        cb.finish()

    def best() -> Any:
        known = flightlog.Api("flightlog").artifact("p/m:best").metadata
        assert known["scores"].keys() == ({"score"} if beside == "none" else {"score", "loss"})
        assert known["score"] == known["scores"][known["metric"]]
        return known["scores"]["score"]

    train(classifier(), 0, 2)
    train(keras.models.load_model("2.keras"), 2, 4)
    assert best() == 9.0
    train(keras.models.load_model("1.keras"), 4, 6)
    assert best() == 7.0
    assert len(flightlog.Api("flightlog").runs()) == 1


def test_a_run_continued_by_name_goes_on_behind_what_is_there(fit: Fit, only_run: OnlyRun) -> None:
    """With a new model and the id of an earlier run, steps follow those of the run."""
    for _ in range(2):
        cb = FlightlogCallback(project="p", id="r1")
        fit(classifier(), cb, epochs=1)
        cb.finish()
    assert list(rows(only_run(), "batch/loss")) == list(range(1, 17))


@pytest.mark.parametrize("content", [b"", b"[" * 20_000, b"[]", b'{"run": "x"}', b"\xff\xfe", b'{"updates": -3}'])
def test_what_is_no_marker_leads_nowhere(tmp_path: Path, content: bytes) -> None:
    """Garbage beside a checkpoint is no marker."""
    (tmp_path / "m.keras.flightlog.json").write_bytes(content)
    assert markers.find(tmp_path / "m.keras") is None


def test_a_marker_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """Beside a checkpoint from elsewhere there may be anything."""
    (tmp_path / "real").write_text('{"run": "x", "project": "p"}')
    (tmp_path / "m.keras.flightlog.json").symlink_to(tmp_path / "real")
    assert markers.find(tmp_path / "m.keras") is None


def test_a_checkpoint_file_holds_its_marker(fit: Fit, tmp_path: Path) -> None:
    """Taken away from what lies beside it, a .keras file still leads to its run; it loads as ever."""
    cb = FlightlogCallback(project="p")
    fit(classifier(), cb, keras.callbacks.ModelCheckpoint("m.keras"))
    cb.finish()
    elsewhere = tmp_path / "else" / "where.keras"
    elsewhere.parent.mkdir()
    Path("m.keras").rename(elsewhere)
    found = markers.find(elsewhere)
    assert found is not None and found.marker.id == cb.run.id and (found.marker.step, found.updates) == (16, 16)
    assert keras.models.load_model(elsewhere).optimizer.iterations == 16


def test_an_archive_that_cannot_take_a_marker_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in the midst of it: the checkpoint is byte for byte what Keras saved."""
    path = tmp_path / "m.keras"
    classifier().save(path)
    before = path.read_bytes()

    def half(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
        assert archive.fp is not None
        archive.fp.seek(archive.start_dir)
        archive.fp.write(b"half of it" * 500)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", half)
    with pytest.raises(OSError, match="No space"):
        markers.leave(path, {"run": "x", "project": "p"}, 3)
    assert path.read_bytes() == before


def test_a_marker_in_an_archive_is_read_to_a_bound(tmp_path: Path) -> None:
    """A member that unpacks to gigabytes is read for 16 KiB; a broken archive, or one with a password, for nothing."""
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flightlog.json", b"[" * 50_000_000)
    assert markers.find(tmp_path / "m.keras") is None
    (tmp_path / "n.keras").write_bytes((tmp_path / "m.keras").read_bytes()[:-30])
    assert markers.find(tmp_path / "n.keras") is None
