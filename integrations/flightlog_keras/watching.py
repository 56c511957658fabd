"""What Keras does not tell a callback: which other callbacks are in its list, and from which file a model was loaded.

Three public functions of Keras are wrapped to know that, once, when this package is imported: `set_params` of the
callbacks that concern us (all callbacks of a list are given the same mapping), `Model.load_weights` and `load_model`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import weakref
from collections.abc import Callable
from typing import Any, Final

import keras

_KINDS: Final = ("ModelCheckpoint", "OrbaxCheckpoint", "BackupAndRestore", "EarlyStopping", "TerminateOnNaN")
_alive: dict[int, weakref.ref[Any]] = {}
_origins: dict[int, tuple[weakref.ref[Any], str]] = {}
_installed = False


def note(callback: Any) -> None:
    """Remember that there is a callback, for `in_list_of`."""
    key = id(callback)
    _alive.pop(key, None)  # in the order of the list that they are in now
    _alive[key] = weakref.ref(callback, lambda _: _alive.pop(key, None))


def in_list_of(callback: Any) -> list[Any]:
    """Return the callbacks of the list that one is in, itself included, in order, as far as they concern us."""
    params = callback.params
    found = [ref() for ref in list(_alive.values())]
    return [one for one in found if one is not None and getattr(one, "params", None) is params]


def came_from(model: Any) -> str | None:
    """Return the file that a model's state was loaded from since this was last forgotten."""
    known = _origins.get(id(model))
    return known[1] if known is not None and known[0]() is model else None


def forget_origin(model: Any) -> None:
    """A model's state is that file's no longer."""
    _origins.pop(id(model), None)


def install() -> None:
    """Wrap what is to be watched; the second call does nothing."""
    global _installed
    if _installed:
        return
    _installed = True
    for name in _KINDS:
        kind = getattr(keras.callbacks, name, None)
        if isinstance(kind, type):
            _wrap(kind, "set_params", lambda result, callback, *args, **kwargs: note(callback))
    _wrap(keras.Model, "load_weights", lambda result, model, path=None, *args, **kwargs: _loaded(model, path, kwargs))
    for module in (keras.models, keras.saving):
        _wrap(module, "load_model", lambda result, path=None, *args, **kwargs: _loaded(result, path, kwargs))


def _wrap(owner: Any, name: str, afterwards: Callable[..., object]) -> None:
    before = getattr(owner, name)

    @functools.wraps(before)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = before(*args, **kwargs)
        with contextlib.suppress(Exception):  # whatever it is, the framework's own call is through
            afterwards(result, *args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def _loaded(model: Any, path: Any, named: dict[str, Any]) -> None:
    path = named.get("filepath", path)
    if isinstance(path, str | os.PathLike) and model is not None:
        key = id(model)
        _origins[key] = (weakref.ref(model, lambda _: _origins.pop(key, None)), os.fspath(path))
