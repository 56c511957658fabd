"""A small model, and Trainers that say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")

WARNINGS = (
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:You're resuming from a checkpoint that ended before the epoch",
    "ignore:.*exists and is not empty",
    "ignore:The number of training batches",
    "ignore:.*isinstance.treespec, LeafSpec.:FutureWarning",
    "ignore:.*LeafSpec.*",
    "ignore:Please use the new API settings to control TF32",
    "ignore:GPU available but not used",
    "ignore:.*torch.load.*weights_only.*",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Filter what the framework itself warns of, in this folder only."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for each in reversed(WARNINGS):
                item.add_marker(pytest.mark.filterwarnings(each))


def quiet(folder: Path, **how: Any) -> dict[str, Any]:
    """Return a Trainer's arguments for a test."""
    return {
        "default_root_dir": str(folder), "accelerator": "cpu", "devices": 1, "enable_progress_bar": False,
        "enable_model_summary": False, "log_every_n_steps": 1, **how,
    }  # fmt: skip
