"""From whatever a training passes to `log` or `config` to JSON, without importing the libraries it comes from.

Numbers of numpy, torch and jax are known by their `item()`, enums and paths by their type; NaN and the infinities
become the strings "NaN", "Infinity" and "-Infinity", and their keys are listed, since JSON has no word for them.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

import orjson

MAX_DEPTH = 32
_BIG = 1 << 63


class Unloggable(Exception):
    """This value has no form in JSON; the text says why."""


@dataclass(slots=True)
class Encoded:
    """Values ready for a record: `values` for Python, `nonfinite` the dotted paths of what JSON cannot say."""

    values: dict[str, Any]
    nonfinite: list[str] = field(default_factory=list)

    def json(self) -> bytes:
        """Return the data as JSON bytes."""
        return orjson.dumps(spell(self.values) if self.nonfinite else self.values, default=_big_int)


def _big_int(value: Any) -> Any:
    if isinstance(value, int):  # beyond 64 bits: the digits as they are, which every JSON reader takes
        return orjson.Fragment(str(value).encode())
    raise TypeError(type(value).__name__)


def spell(value: Any) -> Any:
    """Return a plain value with NaN and the infinities as the texts that stand for them in a journal."""
    if type(value) is float and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if type(value) is dict:
        return {k: spell(v) for k, v in value.items()}
    if type(value) is list:
        return [spell(v) for v in value]
    return value


def plain(value: Any, depth: int = 0) -> Any:
    """Return `value` as bool, int, float, str, None, list or dict.

    Raises:
        Unloggable: it has no such form, or nests deeper than 32.
    """
    kind = type(value)
    if kind is float or kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return value
    if depth > MAX_DEPTH:
        raise Unloggable(f"it nests deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        return {str(k): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, enum.Enum):
        return plain(value.value, depth + 1)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [plain(v, depth + 1) for v in items]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value), depth + 1)
    return _foreign(value, depth)


def _foreign(value: Any, depth: int) -> Any:
    if isinstance(value, bool | int | float | str):  # subclasses: numpy.float64 is a float, IntEnum an int
        base = next(t for t in (bool, int, float, str) if isinstance(value, t))
        return base(value)
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        raise Unloggable("bytes are not a value; save them in a file and log that")
    shape = getattr(value, "shape", None)
    if shape is not None and callable(getattr(value, "item", None)):
        # A 0-d or one-element array or tensor is a number, whatever library it is of.
        size = math.prod(int(n) for n in shape)
        if size == 1:
            return plain(value.item(), depth + 1)
        if callable(getattr(value, "tolist", None)) and size <= 65_536:
            return plain(value.tolist(), depth + 1)
        raise Unloggable(f"an array of {size:,} values is not a metric; log a Histogram, an Image or a file")
    if callable(getattr(value, "item", None)):
        return plain(value.item(), depth + 1)
    if isinstance(value, type) or callable(value):
        return getattr(value, "__qualname__", None) or repr(value)[:200]
    raise Unloggable(f"{type(value).__module__}.{type(value).__qualname__} has no form in JSON")


def nonfinite_paths(value: Any, path: str = "") -> list[str]:
    """Return the dotted paths, within a plain value, of NaN and the infinities."""
    if type(value) is float:
        return [] if math.isfinite(value) else [path]
    if type(value) is dict:
        return [p for k, v in value.items() for p in nonfinite_paths(v, f"{path}.{k}" if path else k)]
    if type(value) is list:
        return [p for i, v in enumerate(value) for p in nonfinite_paths(v, f"{path}.{i}" if path else str(i))]
    return []


def flatten(data: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Return nested mappings as one, keys joined by "."; values untouched.

    Raises:
        Unloggable: it nests deeper than 32 (or within itself).
    """
    if depth > MAX_DEPTH:
        raise Unloggable(f"it nests deeper than {MAX_DEPTH}")
    flat: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}.", depth + 1))
        else:
            flat[name] = value
    return flat


def encode_values(data: Mapping[Any, Any]) -> tuple[Encoded, dict[str, str]]:
    """Return the values of `data` that have a form in JSON, and by key why the others have none."""
    good: dict[str, Any] = {}
    bad: dict[str, str] = {}
    for key, value in data.items():
        name = str(key).encode("utf-8", "replace").decode()
        try:
            found = plain(value)
            orjson.dumps(found, default=_big_int)  # lone surrogates and the like
            good[name] = found
        except Unloggable as why:
            bad[name] = str(why)
        except Exception as error:  # any library's item() or __str__ may raise anything
            bad[name] = f"{type(error).__name__}: {error}"[:300]
    return Encoded(good, nonfinite_paths(good)), bad
