"""What a ModelCheckpoint has just saved, as `flightlog.training` wants to know it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Scanner:
    """Looks at ModelCheckpoints when they say that they have saved.

    They are handed over as weak proxies, so what is remembered of them is by their `state_key`.
    """

    def __init__(self) -> None:
        self._others: dict[str, list[str]] = {}
        self._saved: set[str] = set()

    def remember(self, trainer: Any) -> None:
        """Take note of what was saved before the training was interrupted, of which it deletes some when it goes on."""
        for callback in getattr(trainer, "checkpoint_callbacks", []):
            newest = (getattr(callback, name, "") for name in ("best_model_path", "last_model_path"))
            paths = map(str, (*getattr(callback, "best_k_models", ()), *newest))
            self._saved.update(path for path in paths if path and "://" not in path)

    def look(self, callback: Any, trainer: Any) -> list[dict[str, Any]]:
        """Return what has just been saved, as arguments of `Training.checkpoint_saved`; nothing where it is not known.

        Args:
            callback: the ModelCheckpoint. trainer: its Trainer; None where it is not known.
        """
        path = str(getattr(callback, "_last_checkpoint_saved", "") or callback.last_model_path)
        if not path or "://" in path:
            return []
        saving = [each for each in getattr(trainer, "checkpoint_callbacks", []) if hasattr(each, "save_weights_only")]
        monitor, weights_only = callback.monitor, bool(callback.save_weights_only)
        best = os.path.abspath(callback.best_model_path) == os.path.abspath(path) if callback.best_model_path else False  # noqa: PTH100
        self._others[str(callback.state_key)] = _others(callback)
        self._saved.add(path)
        step = _whole(getattr(callback, "_last_global_step_saved", None), getattr(trainer, "global_step", None))
        facts: dict[str, Any] = {
            "path": path,
            "step": step or 0,
            "epoch": _whole(getattr(trainer, "current_epoch", None)),
            "best": _alias(callback, saving) if best else False,
            "metric": monitor,
            "score": _score(callback, path, trainer),
            "mode": callback.mode if monitor else None,
            "kind": "weights" if weights_only else "full",
            "write_once": _is_written_once(path, trainer),
            "others": self._all_others(),
            "metadata": _scores_of_others(callback, saving, trainer),
            "is_side": _is_side(callback, saving),
        }
        return [facts]

    def rescued(self, trainer: Any) -> list[dict[str, Any]]:
        """Return, as `look` does, what OnExceptionCheckpoints have just saved; they tell no logger of it."""
        return [
            {
                "path": callback.ckpt_path,
                "step": trainer.global_step,
                "epoch": trainer.current_epoch,
                "write_once": _is_written_once(callback.ckpt_path, trainer),
                "others": self._all_others(),
            }
            for callback in getattr(trainer, "checkpoint_callbacks", [])
            if type(callback).__name__ == "OnExceptionCheckpoint" and "://" not in str(callback.ckpt_path)
        ]

    def _all_others(self) -> list[str]:
        return [other for others in self._others.values() for other in others]

    def tidy(self, removed: Callable[[str], object]) -> None:
        """Tell of those that are no longer there."""
        for path in [path for path in self._saved if not Path(path).exists()]:
            self._saved.discard(path)
            removed(path)


def _alias(callback: Any, saving: list[Any]) -> str | bool:
    """Return the alias of a ModelCheckpoint's best one: `best` for the first that watches a metric and saves all.

    Another one's alias says what it watches. Without a metric the newest is the best to Lightning; here only where no
    better is to be known.

    Args:
        callback: the ModelCheckpoint. saving: all of the Trainer, itself included.
    """
    watching = [each for each in saving if each.monitor is not None]
    first = next((each for each in watching if not each.save_weights_only), watching[0] if watching else callback)
    if callback.monitor is None and watching:
        return False
    parts = ["best"]
    if _is_side(callback, saving):
        parts.append("weights")
    if callback.monitor != first.monitor:
        parts.append(re.sub(r"[^\w.-]", "_", str(callback.monitor)))
    return "-".join(parts)


def _is_side(callback: Any, saving: list[Any]) -> bool:
    """Tell whether a ModelCheckpoint saves weights alone, and another one of the Trainer all."""
    return bool(callback.save_weights_only) and not all(each.save_weights_only for each in saving)


def _others(callback: Any) -> list[str]:
    """Return the checkpoints that a callback counts among its best; where it counts all, only the best."""
    if callback.save_top_k == -1:
        return [callback.best_model_path] if callback.best_model_path else []
    return [str(path) for path in callback.best_k_models]


def _whole(*candidates: object) -> int | None:
    return next((value for value in candidates if type(value) is int), None)


def _score(callback: Any, path: str, trainer: Any) -> float | None:
    if callback.monitor is None:
        return None
    value = callback.best_k_models.get(path)
    return _metric(trainer, callback.monitor) if value is None else _number(value)


def _scores_of_others(callback: Any, saving: list[Any], trainer: Any) -> dict[str, float]:
    """Return what the other ModelCheckpoints watch of a checkpoint, which is kept once for all of them.

    Only where it is saved at the end of an epoch or validation: between them, some metrics are those of the last one.
    """
    if callback.monitor is None or not _is_of_epochs(callback):
        return {}
    names = {each.monitor for each in saving if each.monitor not in (None, callback.monitor) and _is_of_epochs(each)}
    values = {name: _metric(trainer, name) for name in sorted(names)}
    return {name: value for name, value in values.items() if value is not None}


def _is_of_epochs(callback: Any) -> bool:
    by_steps, by_time = (getattr(callback, f"_{name}", None) for name in ("every_n_train_steps", "train_time_interval"))
    return not by_steps and by_time is None


def _metric(trainer: Any, name: str) -> float | None:
    metrics = getattr(trainer, "callback_metrics", None)
    return _number(metrics.get(name)) if isinstance(metrics, Mapping) else None


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _is_written_once(path: str, trainer: Any) -> bool:
    """Tell whether a file is never written to again: Lightning's own way of saving puts a new file in its place."""
    strategy = getattr(trainer, "strategy", None)
    saver = type(getattr(strategy, "checkpoint_io", None)).__name__
    return saver == "TorchCheckpointIO" and Path(path).is_file()
