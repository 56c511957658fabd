"""PyTorch's scalars, tensors and pictures, which the core knows without importing torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flightlog

from .conftest import Journal
from .test_media import COLOUR, GRAY, pixels

torch = pytest.importorskip("torch")
JournalOf = Callable[[Path], Journal]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: torch.tensor(0.5), 0.5),
        (lambda: torch.tensor(3), 3),
        (lambda: torch.tensor(True), True),
        (lambda: torch.tensor([0.25]), 0.25),
        (lambda: torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        (lambda: torch.tensor(1.5, dtype=torch.float16), 1.5),
        (lambda: torch.tensor(0.5, requires_grad=True), 0.5),
        (lambda: torch.tensor([1, 2]), [1, 2]),
        (lambda: torch.nn.Parameter(torch.ones(1)), 1.0),
    ],
)
def test_tensors_are_recorded_as_what_they_are(make: Callable[[], Any], expected: Any, journal: JournalOf) -> None:
    """Scalars, 0-d and small tensors of every dtype become numbers or lists, and come back with their type."""
    with flightlog.init() as run:
        run.log({"v": make(), "beside": 1}, step=torch.tensor(8))
    found = journal(run.dir)
    assert found.logged("beside") == [1] and repr(found.logged("v")) == repr([expected])
    assert [r.step for r in found.of("log")] == [8]


@pytest.mark.parametrize("make", [lambda: torch.zeros(100_000), lambda: torch.zeros(2, device="meta")[0]])
def test_tensors_that_are_no_metric_cost_their_key(
    make: Callable[[], Any], journal: JournalOf, capfd: pytest.CaptureFixture[str]
) -> None:
    """A large tensor, or one without data, is left out with a warning; its neighbours are kept."""
    with flightlog.init() as run:
        run.log({"bad": make(), "x": 1})
    assert journal(run.dir).logged("x") == [1] and not journal(run.dir).logged("bad")
    assert capfd.readouterr().err.count("bad is left out") == 1


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: torch.from_numpy(GRAY.copy()), GRAY),
        (lambda: torch.from_numpy(COLOUR.copy()).permute(2, 0, 1), COLOUR),
        (lambda: torch.tensor([[0.0, 1.0]], requires_grad=True), [[0, 255]]),
        (lambda: torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16), [[0, 255]]),
    ],
)
def test_tensors_as_images(make: Callable[[], Any], expected: Any) -> None:
    """Channels first, gradients and bfloat16: the pixels come out as they went in."""
    assert np.array_equal(pixels(flightlog.Image(make())), expected)
