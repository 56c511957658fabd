"""Two spawned processes train, from a checkpoint where one is named; then this one records, too."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import lightning as L

sys.path.insert(0, str(Path(__file__).parent))
from models import Line

from flightlog_lightning import FlightlogLogger

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logger = FlightlogLogger(project="spawn", checkpoints="all")
    logger.log_hyperparams({"said": "early"})
    trainer = L.Trainer(
        max_epochs=1, logger=logger, devices=2, accelerator="cpu", strategy="ddp_spawn", log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(Line(), ckpt_path=sys.argv[1] if sys.argv[1:] else None)
    logger.log_metrics({"after": 1.0})
