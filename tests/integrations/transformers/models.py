"""What the tests train: a BERT of 3,000 parameters that tells sequences by their first token."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from flightlog_transformers import FlightlogCallback

torch.set_num_threads(1)  # more of them only wait for each other
gc.freeze()  # each training collects garbage, and would look at all that the frameworks have made


class Sequences(torch.utils.data.Dataset[dict[str, Any]]):
    """Sequences of eight tokens, always the same; beyond `fails_at`, an exception in the midst of a training."""

    def __init__(self, count: int = 32, fails_at: int | None = None) -> None:
        tokens = torch.Generator().manual_seed(0)
        self._tokens = torch.randint(0, 50, (count, 8), generator=tokens)
        self._fails_at = fails_at
        self._given = 0

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self._given += 1
        if self._fails_at is not None and self._given > self._fails_at:
            raise RuntimeError("the disk with the data went away")
        tokens = self._tokens[index]
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": int(tokens[0] > 25)}


def tiny() -> BertForSequenceClassification:
    """Return the model, always with the same weights."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    return BertForSequenceClassification(config)


def arguments(folder: Path | str = "out", **how: Any) -> TrainingArguments:
    """Return arguments of a short training on the CPU that says nothing."""
    known: dict[str, Any] = {
        "max_steps": 8, "per_device_train_batch_size": 4, "logging_steps": 2, "save_steps": 4, "learning_rate": 1e-3,
        "use_cpu": True, "disable_tqdm": True, "report_to": "none",
    }  # fmt: skip
    return TrainingArguments(str(folder), **{**known, **how})


def trainer(*callbacks: Any, data: Any = None, model: Any = None, how: type[Trainer] = Trainer, **more: Any) -> Trainer:
    """Return a Trainer of the tiny model with our callbacks; arguments as those of `arguments`."""
    made = how(
        tiny() if model is None else model,
        arguments(**more),
        train_dataset=Sequences() if data is None else data,
        eval_dataset=Sequences(8),
        callbacks=list(callbacks),
    )
    made.remove_callback(PrinterCallback)
    return made


class _Slowly(TrainerCallback):
    """Waits at each step, so that there is time to end the process."""

    def __init__(self, pause: float) -> None:
        self._pause = pause

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        time.sleep(self._pause)


def job(steps: int, pause: float = 0.0) -> None:
    """Train up to a step and evaluate; it goes on from its last checkpoint by itself, as the Trainer's users write it.

    Args:
        steps: how many in all. pause: seconds to wait at each.
    """
    several = {"ddp_backend": "gloo"} if "RANK" in os.environ else {}
    made = trainer(
        FlightlogCallback("digits", checkpoints="last"), _Slowly(pause), max_steps=steps, logging_steps=1,
        save_steps=3, save_total_limit=2, eval_strategy="steps", eval_steps=6, **several,
    )  # fmt: skip
    made.train(resume_from_checkpoint=get_last_checkpoint("out") if Path("out").exists() else None)
    made.evaluate(metric_key_prefix="final")
