"""A training that Slurm stops and starts again is one run: nothing here says so.

Lightning saves `hpc_ckpt_<n>.ckpt` in `default_root_dir` when Slurm sends SIGUSR1 before the time is up, has the job
put back into the queue, and goes on from there when it starts again. The checkpoint knows its run.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import lightning as L

sys.path.insert(0, str(Path(__file__).parents[1]))
from lightning_digits import Classifier, Digits

from flightlog_lightning import FlightlogLogger


class Slow(L.Callback):
    """A training that would take longer than its job may."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *where: object) -> None:
        time.sleep(self.seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seconds-per-step", type=float, default=0.05)
    arguments = parser.parse_args()
    L.seed_everything(1)
    trainer = L.Trainer(
        max_epochs=arguments.epochs,
        default_root_dir="checkpoints",
        logger=FlightlogLogger(project="digits", name="requeued"),
        callbacks=[Slow(arguments.seconds_per_step)],
        log_every_n_steps=1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), Digits())


if __name__ == "__main__":
    main()
