"""The files of ModelCheckpoint as versions of an artifact."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

import flightlog
from flightlog_keras import FlightlogCallback, markers, saving

from .conftest import classifier, samples

Fit = Callable[..., Any]


def kept(name: str = "m") -> dict[str, set[str]]:
    """Return the aliases of each version that is kept, by its file's name and number."""
    (run,) = flightlog.Api("flightlog").runs()
    found: dict[str, set[str]] = {}
    for number in range(20):
        try:
            view = flightlog.Api("flightlog").artifact(f"{run.project}/{name}:v{number}")
        except flightlog.FlightlogError:
            continue
        (file,) = view.files
        found[f"v{number} {file.path}"] = set(view.aliases)
    return found


@pytest.mark.parametrize("place", ["before", "behind"])
def test_names_with_epoch_and_score_are_found(fit: Fit, place: str) -> None:
    """Files named by epoch and score are kept under their names, numbered as they are, with score and mode."""
    cb = FlightlogCallback(checkpoints="all", artifact="m")
    save = keras.callbacks.ModelCheckpoint("c/{epoch:02d}-{val_loss:.2f}.keras")
    fit(classifier(), *([cb, save] if place == "before" else [save, cb]), epochs=3, validation_data=samples(20, 3))
    cb.finish()
    files = sorted(Path("c").glob("*.keras"))
    assert len(files) == 3
    found = kept()
    assert list(found) == [f"v{n} {file.name}" for n, file in enumerate(files)]
    for number, (key, aliases) in enumerate(found.items(), 1):
        assert {f"epoch-{number}", f"step-{number * 8}"} <= aliases
        view = flightlog.Api("flightlog").artifact(f"uncategorized/m:epoch-{number}")
        assert view.metadata["mode"] == "min" and view.metadata["metric"] == "val_loss"
        assert f"{view.metadata['score']:.2f}" == key.removesuffix(".keras").split("-", 1)[1]
    assert sum("best" in aliases for aliases in found.values()) == 1


def test_a_file_that_is_written_over_is_kept_as_it_was(fit: Fit, tmp_path: Path) -> None:
    """One name for all epochs: each version holds what the file held then, and loads."""
    cb = FlightlogCallback(checkpoints="all", artifact="m")
    weights: list[Any] = []

    class Noting(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            weights.append(self.model.get_weights()[0])

    fit(classifier(), cb, Noting(), keras.callbacks.ModelCheckpoint("model.keras"), epochs=3)
    cb.finish()
    for number in range(3):
        folder = flightlog.Api("flightlog").artifact(f"uncategorized/m:v{number}").download(tmp_path / str(number))
        assert (keras.models.load_model(folder / "model.keras").get_weights()[0] == weights[number]).all()


def test_a_linked_file_is_parted_before_it_is_written_to(tmp_path: Path) -> None:
    """Keras truncates the file that is there; what an artifact holds by a link stays whole."""
    model, told = classifier(), []
    first = tmp_path / "01.keras"
    model.save(first)
    held = tmp_path / "held"
    held.hardlink_to(first)
    before = held.read_bytes()
    owner = keras.callbacks.ModelCheckpoint(str(first))
    saving.lend(owner, model, lambda *what: told.append(what))
    owner.model.save(str(first))
    assert held.read_bytes() == before and zipfile.is_zipfile(first)
    assert told == [(owner, str(first), "full")]


def test_only_the_best_and_its_score(fit: Fit) -> None:
    """save_best_only: what is saved is the best, whichever way round; of the others nothing is there."""
    cb = FlightlogCallback(checkpoints="best", artifact="m")
    save = keras.callbacks.ModelCheckpoint("best.weights.h5", "accuracy", save_best_only=True, save_weights_only=True)
    history = fit(classifier(), save, cb, epochs=4)
    cb.finish()
    best = max(history.history["accuracy"])
    (aliases,) = kept().values()
    view = flightlog.Api("flightlog").artifact("uncategorized/m:best")
    assert {"best", "latest", f"epoch-{history.history['accuracy'].index(best) + 1}"} <= aliases
    assert view.metadata["score"] == pytest.approx(best)
    assert (view.metadata["mode"], view.metadata["kind"]) == ("max", "weights")


@pytest.mark.parametrize("place", ["before", "behind"])
def test_files_within_an_epoch(fit: Fit, place: str) -> None:
    """save_freq in batches: each file at its step, with the score at that step; the newest stays under "last"."""
    cb = FlightlogCallback(checkpoints="last", artifact="m")
    save = keras.callbacks.ModelCheckpoint("c/{epoch:02d}-{batch:02d}.keras", "loss", save_freq=3)
    fit(classifier(), *([cb, save] if place == "before" else [save, cb]))
    cb.finish()
    files = sorted(file.name for file in Path("c").glob("*.keras"))
    assert files == ["01-03.keras", "01-06.keras", "02-01.keras", "02-04.keras", "02-07.keras"]
    ((last, aliases),) = kept().items()
    assert last == "v4 02-07.keras" and aliases - {"best"} == {"latest", "step-15", "epoch-2"}
    for file, step in zip(files, (3, 6, 9, 12, 15), strict=True):
        found = markers.find(f"c/{file}")
        assert found is not None and (found.marker.step, found.updates) == (step, step)
    score = flightlog.Api("flightlog").artifact("uncategorized/m:latest").metadata["loss"]
    (at_step,) = [row for row in flightlog.Api("flightlog").runs()[0].history() if row["_step"] == 15]
    assert score == pytest.approx(at_step["batch/loss"])


def test_several_checkpoints_at_one_step_are_one_version(fit: Fit) -> None:
    """The same model saved under two names is kept once; its weights alone are something else."""
    cb = FlightlogCallback(checkpoints="all", artifact="m")
    save = keras.callbacks.ModelCheckpoint
    fit(
        classifier(), cb, save("a-{epoch}.keras", "loss"), save("best.keras", "loss", save_best_only=True),
        save("w.weights.h5", "loss", save_weights_only=True), epochs=1,
    )  # fmt: skip
    cb.finish()
    found = {key.split()[1]: aliases for key, aliases in kept().items()}
    assert found.keys() == {"a-1.keras", "w.weights.h5"}
    assert "best" in found["a-1.keras"] and "best-weights" in found["w.weights.h5"]


def test_nothing_is_kept_where_nothing_shall_be(fit: Fit) -> None:
    """checkpoints="none": no versions; the marker beside the file is there all the same."""
    cb = FlightlogCallback(checkpoints="none")
    fit(classifier(), cb, keras.callbacks.ModelCheckpoint("m.keras"))
    cb.finish()
    assert not list(Path("flightlog").rglob("*.keras"))
    found = markers.find("m.keras")
    assert found is not None and found.marker.id == cb.run.id


def test_a_callback_of_ones_own_that_saves_is_left_alone(fit: Fit) -> None:
    """Only checkpoint callbacks are watched; the model itself is not changed."""
    model = classifier()
    cb = FlightlogCallback(checkpoints="all", artifact="m")

    class Own(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            assert type(self.model) is type(model)
            self.model.save("own.keras")

    fit(model, cb, Own())
    cb.finish()
    assert "save" not in vars(model) and kept() == {}


def test_a_lent_model_is_all_that_the_model_is() -> None:
    """It passes for the model's class, gives and takes attributes, and computes."""
    model = classifier()
    lent = saving.Watched(model, None, lambda *what: None)
    x, _ = samples(3)
    assert isinstance(lent, keras.Model) and lent.built and "fit" in dir(lent)
    lent.stop_training = True
    assert model.stop_training
    assert (keras.ops.convert_to_numpy(lent(x)) == keras.ops.convert_to_numpy(model(x))).all()


def test_the_best_of_two_metrics_have_names_of_their_own(fit: Fit) -> None:
    """Of two callbacks that go by different metrics the first one's best is "best"."""
    cb = FlightlogCallback(checkpoints="best", artifact="m")
    save = keras.callbacks.ModelCheckpoint
    by_loss, by_accuracy = save("a-{epoch}.keras", "loss"), save("b-{epoch}.keras", "accuracy", save_freq=12)
    fit(classifier(), cb, by_loss, by_accuracy, epochs=3)
    cb.finish()
    aliases = set().union(*kept().values())
    assert {"best", "best-accuracy"} <= aliases
    view = flightlog.Api("flightlog").artifact("uncategorized/m:best-accuracy")
    assert view.metadata["metric"] == "accuracy" and view.metadata["step"] in (12, 24)


def test_orbax_folders_are_kept(fit: Fit, tmp_path: Path) -> None:
    """OrbaxCheckpoint saves folders in the background and deletes the older ones: kept whole, at their steps."""
    pytest.importorskip("orbax.checkpoint")
    if not hasattr(keras.callbacks, "OrbaxCheckpoint"):
        pytest.skip("an older Keras")
    for place in (0, 1):
        cb = FlightlogCallback(checkpoints="all", artifact="m", dir=f"runs{place}")
        orbax = keras.callbacks.OrbaxCheckpoint(str(tmp_path / f"o{place}"), monitor="loss", max_to_keep=1)
        fit(classifier(), *([cb, orbax] if place else [orbax, cb]), epochs=2)
        cb.finish()
        for number in (1, 2):
            view = flightlog.Api(f"runs{place}").artifact(f"uncategorized/m:epoch-{number}")
            assert view.metadata["step"] == number * 8 and len(view.files) > 3
        found = markers.find(tmp_path / f"o{place}")
        assert found is not None and (found.marker.id, found.marker.step) == (cb.run.id, 16)


@pytest.mark.parametrize("first", ["models", "weights"])
def test_weights_do_not_take_the_names_of_whole_models(fit: Fit, first: str) -> None:
    """Saved side by side, in either order: `latest`, `step-N` and `epoch-N` are whole models."""
    cb = FlightlogCallback(checkpoints="all", artifact="m")
    both = [
        keras.callbacks.ModelCheckpoint("{epoch}.keras", "loss"),
        keras.callbacks.ModelCheckpoint("w.weights.h5", "loss", save_weights_only=True),
    ]
    fit(classifier(), cb, *(both if first == "models" else reversed(both)))
    cb.finish()
    found = {key.split()[1]: aliases for key, aliases in kept().items()}
    assert {"latest", "step-16", "epoch-2", "best"} == found["2.keras"] and {"step-8", "epoch-1"} == found["1.keras"]
    assert found["w.weights.h5"] == {"step-16-weights", "epoch-2-weights", "best-weights"}
