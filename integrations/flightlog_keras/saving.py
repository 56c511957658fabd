"""How a checkpoint callback's files are found without guessing: it is lent the model with a pair of eyes on it.

ModelCheckpoint and BackupAndRestore save by `self.model.save(path)` and `self.model.save_weights(path)`. What they are
given for a model is all that the model is, and says which file was written when it was.
"""

from __future__ import annotations

import os
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


def lend(callback: Any, model: Any, told: Told) -> None:
    """Lend a model to a callback, in the place of the model itself. Each `fit` gives it the model anew."""
    callback.set_model(Watched(model, callback, told))


def best_of(checkpoint: Any) -> tuple[str | None, str | None]:
    """Return the metric that a ModelCheckpoint goes by, and "min" or "max" as far as it is decided."""
    metric = getattr(checkpoint, "monitor", None)
    mode = getattr(checkpoint, "mode", None)
    if mode not in ("min", "max"):
        compare = getattr(checkpoint, "monitor_op", None)
        mode = "max" if compare is keras.ops.greater else "min" if compare is keras.ops.less else None
        if mode is None and metric is not None and metric.removeprefix("val_") == "loss":
            mode = "min"
    return metric, mode
