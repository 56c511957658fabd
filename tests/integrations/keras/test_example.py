"""The example is a real training, and does what it says."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import flightlog
from flightlog.reading.views import RunView

from .test_fit import rows

EXAMPLE = Path(__file__).parents[3] / "examples" / "keras_digits.py"


def test_the_digits_are_learned_and_recorded(only_run: Callable[[], RunView], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three epochs on the digits: it learns them, and run, table, checkpoints and evaluation are there."""
    pytest.importorskip("sklearn")
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--epochs", "3", "--batch-size", "64"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    flightlog.finish()
    view = only_run()
    assert view.project == "digits" and view.state == "finished" and view.config["lr"] == 0.05
    assert view.summary["test_accuracy"] > 0.7
    assert len(rows(view, "val_loss")) == 3 and view.media()
    assert flightlog.Api("flightlog").artifact(f"digits/model-{view.id}:best").metadata["metric"] == "val_loss"
