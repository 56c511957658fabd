"""What a run's config says of a training with Lightning: Trainer, model, optimizers, the command line's config."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from flightlog.training import Training

_SETTINGS = (
    "max_epochs",
    "max_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "log_every_n_steps",
    "val_check_interval",
    "check_val_every_n_epoch",
    "num_nodes",
    "num_devices",
    "world_size",
    "precision",
)


def record(trainer: Any, module: Any, training: Training, prefix: str) -> None:
    """Record what is known of a training when its loop begins. What was recorded before is not again.

    Args:
        trainer, module: Lightning's. training: what records. prefix: of the metrics' names.
    """
    settings = {name: value for name in _SETTINGS if (value := getattr(trainer, name, None)) is not None}
    settings["accelerator"] = type(trainer.accelerator).__name__
    settings["strategy"] = type(trainer.strategy).__name__
    settings["version"] = _version(trainer)
    if getattr(trainer.state.fn, "value", "") == "fit":
        training.configure({"trainer": settings})
        training.describe_model(module)
        training.describe_optimizers(trainer.optimizers, [_scheduler(each) for each in trainer.lr_scheduler_configs])
        _define_goals(trainer, training, prefix)
    _record_command_line(trainer, training)


def _version(trainer: Any) -> str:
    import sys

    package = sys.modules[type(trainer).__module__.split(".")[0]]
    return str(getattr(package, "__version__", ""))


def _scheduler(config: Any) -> dict[str, Any]:
    """Return what a Trainer knows of a learning rate scheduler."""
    return {
        "class": type(config.scheduler).__qualname__,
        "interval": config.interval,
        "frequency": config.frequency,
        "monitor": config.monitor,
    }


def _define_goals(trainer: Any, training: Training, prefix: str) -> None:
    """What is watched by a ModelCheckpoint or EarlyStopping has a direction in which it gets better."""
    for callback in trainer.callbacks:
        monitor, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
        if isinstance(monitor, str) and mode in ("min", "max"):
            training.define(f"{prefix}{monitor}", goal="minimize" if mode == "min" else "maximize")


def _record_command_line(trainer: Any, training: Training) -> None:
    """Record what LightningCLI was given: under config["cli"], and as it can be given to it again in config.yaml."""
    for callback in trainer.callbacks:
        parser: Any = getattr(callback, "parser", None)
        config: Any = getattr(callback, "config", None)
        if not (hasattr(parser, "dump") and hasattr(config, "as_dict")):
            continue
        training.configure({"cli": config.as_dict()})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.yaml"
            path.write_text(parser.dump(config, skip_none=False))
            training.run.save(path, base_path=folder, policy="now")
