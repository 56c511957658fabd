"""A training as a script: `train_line.py FOLDER [SIGNAL STEP]` sends itself the signal at the end of that step."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

sys.path.insert(0, str(Path(__file__).parent))
from models import Line

from flightlog_lightning import FlightlogLogger


class Signals(L.Callback):
    """Sends a signal at the end of a step."""

    def __init__(self, name: str, step: int) -> None:
        self.number, self.step = getattr(signal, name), step

    def on_train_batch_end(self, trainer: Any, *where: Any) -> None:
        if trainer.global_step == self.step + 1:
            os.kill(os.getpid(), self.number)


def main(folder: str, name: str = "", step: str = "0") -> None:
    """Train three epochs, from where the folder's last checkpoint says."""
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    saved = sorted(Path(folder).glob("c/*.ckpt"), key=lambda path: path.stat().st_mtime)
    callbacks: list[Any] = [
        ModelCheckpoint(dirpath=Path(folder) / "c", save_top_k=-1),
        OnExceptionCheckpoint(Path(folder) / "c", "rescued"),
        *([Signals(name, int(step))] if name else []),
    ]
    trainer = L.Trainer(
        max_epochs=3, logger=FlightlogLogger(project="signals"), callbacks=callbacks, log_every_n_steps=1,
        default_root_dir=folder, accelerator="cpu", devices=1, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Line(), ckpt_path=saved[-1] if saved else "last")


if __name__ == "__main__":
    main(*sys.argv[1:])
