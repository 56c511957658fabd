"""Three real trainings: digits classifiers on scikit-learn's 1,797 images, with different learning rates.

While a model trains, everything it logs is also noted down on the side, in plain Python: the comparison at the end is
against these notes, not against anything that flightlog wrote.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import confusion_matrix, log_loss
from sklearn.model_selection import train_test_split

import flightlog

PROJECT = "digits"
RATES = (0.3, 0.03, 0.003)
EPOCHS = 8
BATCH = 64


@dataclass(slots=True)
class Notes:
    """What was logged, noted down beside flightlog: rows by step, config, the image's pixels, the checkpoint's hash."""

    id: str
    name: str
    config: dict[str, Any]
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    image: Any = None
    checkpoint: str = ""
    checkpoint_name: str = ""


def train_all(runs: Path, scratch: Path) -> list[Notes]:
    """Train the models one after the other, recording into `runs`, and return what was logged."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images / 16.0, labels, test_size=0.25, random_state=7, stratify=labels)
    return [_train(rate, split, runs, scratch) for rate in RATES]


def _train(rate: float, split: list[Any], runs: Path, scratch: Path) -> Notes:
    x, x_val, y, y_val = split
    config = {
        "learning_rate": rate,
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "model": {"kind": "SGDClassifier", "loss": "log_loss", "alpha": 1e-4},
        "classes": [int(c) for c in np.unique(y)],
    }
    run = flightlog.init(
        PROJECT, name=f"lr={rate:g}", config=config, tags=["demo"], job_type="train", dir=runs, mode="offline"
    )
    notes = Notes(run.id, run.name, config)
    model: Any = SGDClassifier(loss="log_loss", alpha=1e-4, learning_rate="constant", eta0=rate, random_state=7)
    order = np.random.default_rng(7)
    step = 0
    for epoch in range(EPOCHS):
        for batch in np.array_split(order.permutation(len(x)), len(x) // BATCH):
            model.partial_fit(x[batch], y[batch], classes=config["classes"])
            values = {
                "train/loss": float(log_loss(y[batch], model.predict_proba(x[batch]), labels=model.classes_)),
                "train/accuracy": model.score(x[batch], y[batch]),
                "epoch": epoch,
            }
            _log(run, notes, values, step)
            step += 1
        validation = {
            "val/loss": float(log_loss(y_val, model.predict_proba(x_val), labels=model.classes_)),
            "val/accuracy": model.score(x_val, y_val),
        }
        _log(run, notes, validation, step - 1)
    _keep(run, notes, model, confusion_matrix(y_val, model.predict(x_val)), step - 1, scratch)
    run.summary["val/best"] = notes.summary["val/best"] = max(r.get("val/accuracy", 0.0) for r in notes.rows.values())
    run.finish()
    return notes


def _log(run: flightlog.Run, notes: Notes, values: dict[str, Any], step: int) -> None:
    run.log(values, step=step)
    notes.rows.setdefault(step, {}).update(values)
    notes.summary.update(values)


def _keep(run: flightlog.Run, notes: Notes, model: Any, confusion: Any, step: int, scratch: Path) -> None:
    """Log the confusion matrix as an image and the model as a checkpoint."""
    notes.image = picture(confusion)
    run.log({"val/confusion": flightlog.Image(notes.image, caption="rows: true digit, columns: predicted")}, step=step)
    path = scratch / f"{run.id}.pickle"
    path.write_bytes(pickle.dumps(model))
    notes.checkpoint = hashlib.sha256(path.read_bytes()).hexdigest()
    notes.checkpoint_name = path.name
    run.log_artifact(
        path,
        name="digits-model",
        type="model",
        aliases=[run.name.replace("=", "-")],
        metadata={"learning_rate": notes.config["learning_rate"], "accuracy": notes.summary["val/accuracy"]},
    )
    path.unlink()  # as a framework rotates its checkpoints away: the run keeps its own


def picture(confusion: Any) -> Any:
    """Return a confusion matrix as an RGB picture, 24 pixels a cell: white to blue, by the square root of its share."""
    share = np.sqrt(confusion / confusion.sum(axis=1, keepdims=True))[:, :, None]
    white, blue = np.array([250.0, 250.0, 252.0]), np.array([26.0, 85.0, 190.0])
    cells = np.rint(white + (blue - white) * share).astype(np.uint8)
    return cells.repeat(24, axis=0).repeat(24, axis=1)
