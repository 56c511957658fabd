"""The examples of both frameworks are trainings that learn something, and that go on where they were."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate import tracking
from accelerate.state import AcceleratorState, GradientState, PartialState

from flightlog import current
from flightlog.reading.views import RunView

EXAMPLES = Path(__file__).parents[3] / "examples"
Runs = Callable[[], list[RunView]]


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run an example as a script, in this process."""

    def run(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        current.finish()
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()

    return run


def test_the_text_model_learns_and_goes_on(run_example: Callable[..., None], runs: Runs) -> None:
    """Started again with more steps, it is the same run, and its loss on unseen texts is better than a guess."""
    run_example("transformers_text.py", "--steps", 8, "--width", 16)
    run_example("transformers_text.py", "--steps", 20, "--width", 16)
    (view,) = runs()
    assert (view.project, view.state, view.config["model_config"]["model_type"]) == ("python-docs", "finished", "gpt2")
    assert [row["_step"] for row in view.history(["loss"])] == [5, 10, 15, 20]
    losses = [row["eval_loss"] for row in view.history(["eval_loss"])]
    assert losses[-1] < losses[0] and losses[-1] < 6.9, "a guess among 1,000 has 6.9"
    assert view.history(["perf/tokens_per_second"])


@pytest.mark.skipif(not hasattr(tracking, "register_tracker_class"), reason="accelerate before 1.15")
def test_the_digits_are_told_and_it_goes_on(run_example: Callable[..., None], runs: Runs) -> None:
    """Started again with more epochs, it is the same run, and it tells most of the digits."""
    run_example("accelerate_digits.py", "--epochs", 1)
    run_example("accelerate_digits.py", "--epochs", 2)
    (view,) = runs()
    assert (view.project, view.state) == ("digits", "finished")
    assert [row["epoch"] for row in view.history(["accuracy", "epoch"]) if "accuracy" in row] == [1, 2]
    assert view.summary["accuracy"] > 0.8
