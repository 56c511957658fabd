"""A small model, some samples, and a Keras that says nothing; the backend is torch where KERAS_BACKEND names none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flightlog.journal.scan import RunJournal
from flightlog.rundir import discover

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras", exc_type=ImportError)

WARNINGS = (
    "ignore:`shuffle=True` was passed, but will be ignored:UserWarning",
    "ignore:Your input ran out of data; interrupting training:UserWarning",
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:.*np.object.*:FutureWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Filter what Keras itself warns of, in this folder only."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for each in reversed(WARNINGS):
                item.add_marker(pytest.mark.filterwarnings(each))


def samples(count: int = 80, seed: int = 20) -> tuple[Any, Any]:
    """Return inputs (count, 4) and their classes, made from a seed that is printed."""
    import numpy as np

    print("seed", seed)
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 4)).astype("float32")
    return x, (x.sum(axis=1) > 0).astype("int32")


def classifier(optimizer: Any = None, **compiled: Any) -> Any:
    """Return a compiled model of 4 inputs and 2 classes, with 4 * 3 + 3 + 3 * 2 + 2 = 23 parameters."""
    layers = keras.layers
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [layers.Input((4,)), layers.Dense(3, "relu", name="hidden"), layers.Dense(2, "softmax", name="out")]
    )
    model.compile(
        optimizer or keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"], **compiled
    )
    return model


@pytest.fixture(autouse=True)
def each_batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record each batch, as of a model of usual size: those of these models take no time at all."""
    if not request.module.__name__.endswith("test_pace"):
        monkeypatch.setattr("flightlog_keras.pace.SHARE", float("inf"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower on several threads, and much slower where other tests run beside."""
    if os.environ["KERAS_BACKEND"] != "torch":
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def records(tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Return a function that gives the data of all records of a kind in the test's folder, in order."""

    def read(kind: str) -> list[dict[str, Any]]:
        journal = RunJournal([d.journal for d in discover(tmp_path / "flightlog")])
        return [record.data for _, record in journal.records(frozenset({kind}), hidden=True)]

    return read


@pytest.fixture
def fit() -> Callable[..., Any]:
    """Return a function that fits a model to the samples: 8 batches of 10 an epoch."""

    def run(model: Any, *callbacks: Any, epochs: int = 2, **how: Any) -> Any:
        x, y = samples()
        return model.fit(
            x, y, **{"batch_size": 10, "epochs": epochs, "verbose": 0, "callbacks": list(callbacks), **how}
        )

    return run
