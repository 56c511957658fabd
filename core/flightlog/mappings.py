"""`run.config` and `run.summary`: mappings with attribute access whose changes become records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from .errors import UsageError
from .journal.values import Unloggable, is_instance, key_text, plain
from .terminal import warn_once

Emit = Callable[[dict[str, Any]], dict[str, Any]]


_MAX_DEPTH = 32
# How libraries of settings give theirs as plain ones: pydantic, attrs' and ml_collections' and transformers' configs.
_TO_MAPPING = ("model_dump", "to_dict")


def as_mapping(what: str, values: object) -> Mapping[str, Any]:
    """Return a mapping, argparse.Namespace, dataclass instance or None as a mapping of its values.

    So are what OmegaConf, pydantic, attrs, ml_collections and transformers keep settings in.

    Raises:
        UsageError: it is none of these.
    """
    if values is None:
        return {}
    found = _settings(values)
    if found is not None:
        return found
    raise UsageError(f"{what} takes a mapping, an argparse.Namespace or a dataclass, not {type(values).__name__}")


def unfolded(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Return a setting with all that holds settings in it as mappings and lists; what does not stays as it is.

    Args:
        value: the setting. above: the ids of what it lies in.
    """
    kind = type(value)
    if kind in (float, int, str, bool) or value is None or len(above) > _MAX_DEPTH or id(value) in above:
        return value
    above = (*above, id(value))
    try:
        found = _settings(value)
        if found is None and is_instance(value, "omegaconf", "ListConfig"):
            found = _of_omegaconf(value)
    except Exception:  # whatever a library's own code raises: recording it says what is wrong with it
        return value
    if isinstance(found, Mapping):
        return {key: unfolded(item, above) for key, item in found.items()}
    items = found if isinstance(found, list) else value
    if isinstance(items, list | tuple):
        return [unfolded(item, above) for item in items]
    return value


def recordable(path: str, value: Any, above: tuple[int, ...] = ()) -> Any:
    """Return a setting without what in it has no form in JSON, each with a warning; the very value where all has.

    Args:
        path: what a warning calls it. value: the setting; where it is no dict or list, whoever records it sees to it.
        above: the ids of what it lies in.
    """
    if type(value) not in (dict, list) or len(above) > _MAX_DEPTH or id(value) in above:
        return value
    above = (*above, id(value))
    kept = {
        key: recordable(f"{path}.{key_text(key)}", item, above)
        for key, item in (value.items() if isinstance(value, dict) else enumerate(value))
        if _has_form(f"{path}.{key_text(key)}", item)
    }
    if len(kept) == len(value) and all(kept[key] is value[key] for key in kept):
        return value
    return kept if isinstance(value, dict) else list(kept.values())


def _has_form(path: str, item: Any) -> bool:
    if type(item) in (dict, list):
        return True
    try:
        plain(item)
    except Unloggable as why:
        warn_once(f"value {path}", f"{path} is left out: {why}.")
        return False
    except Exception as error:  # whatever a value's own code raises
        warn_once(f"value {path}", f"{path} is left out: {type(error).__name__}: {str(error)[:300]}.")
        return False
    return True


def _settings(value: Any) -> Mapping[str, Any] | None:
    """Return what holds settings as a mapping; None for everything else."""
    if is_instance(value, "omegaconf", "DictConfig"):
        plain_one = _of_omegaconf(value)
        return plain_one if isinstance(plain_one, Mapping) else None
    if isinstance(value, Mapping):
        return value
    if is_instance(value, "argparse", "Namespace") or is_instance(value, "types", "SimpleNamespace"):
        found: Mapping[str, Any] = vars(value)
        return found
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    attributes = getattr(type(value), "__attrs_attrs__", None)
    if attributes is not None:
        return {attribute.name: getattr(value, attribute.name) for attribute in attributes}
    if hasattr(value, "shape") or hasattr(value, "parameters"):  # a DataFrame, or a model
        return None
    for method in _TO_MAPPING:
        if callable(getattr(value, method, None)):
            given = getattr(value, method)()
            return given if isinstance(given, Mapping) else None
    return None


def _of_omegaconf(value: Any) -> Any:
    import importlib

    convert = importlib.import_module("omegaconf").OmegaConf.to_container
    try:
        return convert(value, resolve=True)
    except Exception:  # an interpolation that cannot be resolved: as it was written, then
        return convert(value, resolve=False)


class _Recorded(MutableMapping[str, Any]):
    """A mapping of plain values; `emit` records a change and returns the values as they were recorded."""

    __slots__ = ("_emit", "_values")
    _what = "a mapping"

    def __init__(self, values: dict[str, Any], emit: Emit) -> None:
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_emit", emit)

    def __getitem__(self, key: str) -> Any:
        return self._values[key if isinstance(key, str) else key_text(key)]

    def __setitem__(self, key: str, value: Any) -> None:
        self._change({key: value})

    def __delitem__(self, key: str) -> None:
        raise UsageError(f"{self._what}[{key!r}] cannot be deleted: what was recorded stays; set it to None instead")

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"{self._what} has no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        return repr(self._values)

    def as_dict(self) -> dict[str, Any]:
        """Return the values as a dict of their own."""
        return dict(self._values)

    def _change(self, values: Mapping[str, Any]) -> None:
        self._values.update(self._emit(dict(values)))


class Config(_Recorded):
    """The run's hyper-parameters: `run.config["lr"]`, `run.config.lr`, `run.config.update({...})`."""

    __slots__ = ()
    _what = "config"

    def update(self, values: object = None, /, allow_val_change: bool = False, **more: Any) -> None:
        """Set several values; takes what init(config=) takes.

        Args:
            values: a mapping, argparse.Namespace or dataclass.
            allow_val_change: say that changing a value is meant. Without it the change is recorded all the same, with
                one warning, since it is more often a mistake.
            more: further values by keyword.

        Raises:
            UsageError: `values` is nothing that holds names and values.
        """
        self._assign({**as_mapping("config.update()", values), **more}, allow_val_change)

    def setdefaults(self, values: object) -> None:
        """Set those of several values that have none yet."""
        self._assign({k: v for k, v in as_mapping("config.setdefaults()", values).items() if k not in self}, True)

    def _assign(self, values: Mapping[str, Any], allow_val_change: bool) -> None:
        values = {key: unfolded(value) for key, value in values.items()}
        if not allow_val_change:
            for key, value in values.items():
                if key in self:
                    _warn_if_changed(str(key), self._values[key], value)
        if values:
            self._change(values)

    def __setitem__(self, key: str, value: Any) -> None:
        self._assign({key: value}, False)


def _warn_if_changed(key: str, old: Any, new: Any) -> None:
    try:
        new = plain(new)  # as it is recorded: a tuple is no other value than the list it became
        same = bool(old == new) or (old != old and new != new)
    except Exception:  # no form in JSON, or whatever a value's own code raises; recording it says so
        return
    if not same:
        import reprlib

        from .redact import redact_mapping

        if redact_mapping({key: new}) == redact_mapping({key: old}):  # a secret, of which nothing is said
            return

        warn_once(
            f"config {key}",
            f"config.{key} changes from {reprlib.repr(old)} to {reprlib.repr(new)}; allow_val_change=True says that it "
            "is meant.",
        )


class Summary(_Recorded):
    """The latest value of every metric, and what the script sets itself: `run.summary["best"] = 0.98`."""

    __slots__ = ()
    _what = "summary"

    def update(self, values: object = None, /, **more: Any) -> None:
        """Set several values."""
        self._change({**as_mapping("summary.update()", values), **more})
