"""Train on two processes of this machine, without a GPU: they record one run.

    torchrun --nproc-per-node=2 examples/ddp_two_processes.py
    python examples/ddp_two_processes.py                      Lightning starts the second process itself
    python examples/ddp_two_processes.py --strategy ddp_spawn

The first process writes the metrics; each writes what it prints, and one of each node the machine's load.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import lightning as L

sys.path.insert(0, str(Path(__file__).parent))
from lightning_digits import Classifier, Digits

from flightlog_lightning import FlightlogLogger


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--strategy", default="ddp")
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    trainer = L.Trainer(
        max_epochs=arguments.epochs,
        devices=2,
        accelerator="cpu",
        strategy=arguments.strategy,
        logger=FlightlogLogger(project="digits", tags=[arguments.strategy]),
        log_every_n_steps=5,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Classifier()
    trainer.fit(model, Digits())
    print(f"process {trainer.global_rank} of {os.environ.get('WORLD_SIZE', trainer.world_size)} is through")
    trainer.test(model, Digits())


if __name__ == "__main__":
    main()
