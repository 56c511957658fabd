"""How a checkpoint callback's files are found without guessing: it is lent the model with a pair of eyes on it.

ModelCheckpoint and BackupAndRestore save by `self.model.save(path)` and `self.model.save_weights(path)`. What they are
given for a model is all that the model is, and says which file was written when it was. OrbaxCheckpoint saves by its
own `checkpointer`, and is lent that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

Told = Callable[[Any, str, str], None]


class Watched:
    """A model as it is lent to a callback.

    Args:
        model: the model. owner: the callback. told: called with the callback, the path and "full" or "weights" when
            it has saved.
    """

    __slots__ = ("__weakref__", "_flightlog")

    def __init__(self, model: Any, owner: Any, told: Told) -> None:
        object.__setattr__(self, "_flightlog", (model, owner, told))

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(object.__getattribute__(self, "_flightlog")[0])

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_flightlog")[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_flightlog")[0], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(object.__getattribute__(self, "_flightlog")[0], name)

    def __dir__(self) -> list[str]:
        return dir(object.__getattribute__(self, "_flightlog")[0])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return object.__getattribute__(self, "_flightlog")[0](*args, **kwargs)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Save the model, and say so."""
        return _saved(self, "save", "full", filepath, args, kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Save the model's weights, and say so."""
        return _saved(self, "save_weights", "weights", filepath, args, kwargs)


def _saved(watched: Watched, method: str, kind: str, path: Any, args: Any, kwargs: Any) -> Any:
    model, owner, told = object.__getattribute__(watched, "_flightlog")
    _part_links(path)
    result = getattr(model, method)(path, *args, **kwargs)
    if isinstance(path, str | os.PathLike):
        told(owner, os.fspath(path), kind)
    return result


def _part_links(path: Any) -> None:
    """Keras writes into a file that is there already; one that an artifact holds by a link must stay what it was."""
    try:
        if Path(path).lstat().st_nlink > 1 and Path(path).is_file():
            Path(path).unlink()
    except (OSError, TypeError, ValueError):
        pass


class WatchedCheckpointer:
    """An Orbax checkpointer as it is lent to its callback; arguments as those of `Watched`."""

    def __init__(self, checkpointer: Any, owner: Any, told: Told) -> None:
        self.lent = checkpointer
        self._owner = owner
        self._told = told

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.lent, name)
        if not (name.startswith("save_") and callable(found)):
            return found

        def save(step: int, *args: Any, **kwargs: Any) -> Any:
            result = found(step, *args, **kwargs)
            if result is not False:  # which says that it was not the time for it
                self._told(self._owner, os.path.join(os.fspath(self._owner.directory), str(step)), "orbax")  # noqa: PTH118
            return result

        return save


def lend(callback: Any, model: Any, told: Told) -> None:
    """Lend a checkpoint callback what it saves with, in the place of the thing itself.

    Each `fit` gives it the model anew.
    """
    if is_orbax(callback):
        own = callback.checkpointer
        callback.checkpointer = WatchedCheckpointer(getattr(own, "lent", own), callback, told)
    elif isinstance(callback, keras.callbacks.ModelCheckpoint | keras.callbacks.BackupAndRestore):
        callback.set_model(Watched(model, callback, told))


def is_orbax(callback: Any) -> bool:
    """Whether a callback saves by Orbax: folders, maybe in the background."""
    kind = getattr(keras.callbacks, "OrbaxCheckpoint", None)
    return isinstance(kind, type) and isinstance(callback, kind)


def best_of(checkpoint: Any) -> tuple[str | None, str | None]:
    """Return the metric that a ModelCheckpoint goes by, and "min" or "max" as far as it is decided."""
    metric = getattr(checkpoint, "monitor", None)
    mode = getattr(checkpoint, "mode", None)
    if mode not in ("min", "max"):
        compare = getattr(checkpoint, "monitor_op", None)
        if compare is not None:
            mode = "min" if bool(compare(1.0, 2.0)) else "max"
        else:  # as it will be decided at the end of the first epoch
            mode = "min" if metric is not None and metric.removeprefix("val_") == "loss" else None
    return metric, mode


def best_alias(checkpoint: Any, others: list[Any]) -> str:
    """Return the alias of a checkpoint callback's best: "best" for the first in the list that saves whole models.

    Args:
        checkpoint: the callback. others: all in the list, itself included.
    """
    all_of_them = saving(others)
    whole = (one for one in all_of_them if not _only_weights(one))
    first = next(whole, all_of_them[0] if all_of_them else checkpoint)
    parts = ["best"]
    if is_side(checkpoint, others):
        parts.append("weights")
    if checkpoint.monitor != first.monitor:
        parts.append(re.sub(r"[^\w.]", "_", str(checkpoint.monitor)))
    return "-".join(parts)


def is_side(checkpoint: Any, others: list[Any]) -> bool:
    """Whether a callback saves weights alone, and another one in the list whole models."""
    return _only_weights(checkpoint) and not all(_only_weights(one) for one in saving(others))


def monitored(callbacks: list[Any]) -> set[str]:
    """Return the metrics that checkpoint callbacks go by."""
    return {str(one.monitor) for one in saving(callbacks)}


def saving(callbacks: list[Any]) -> list[Any]:
    """Return those that save checkpoints, in order."""
    return [one for one in callbacks if isinstance(one, keras.callbacks.ModelCheckpoint) or is_orbax(one)]


def _only_weights(checkpoint: Any) -> bool:
    return bool(getattr(checkpoint, "save_weights_only", False))
