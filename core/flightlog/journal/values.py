"""From whatever a training passes to `log` or `config` to JSON, without importing the libraries it comes from.

Numbers of numpy, torch and jax are known by their `item()`, enums and paths by their type; NaN and the infinities
become the strings "NaN", "Infinity" and "-Infinity", and their keys are listed, since JSON has no word for them.
"""

from __future__ import annotations

import contextlib
import enum
import math
import operator
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import orjson

from ..errors import UsageError

MAX_DEPTH = 32
MAX_STEP = (1 << 63) - 1
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
        return _dumps(spell(self.values) if self.nonfinite else self.values)


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(_digits(value))


def _digits(value: Any) -> Any:
    """Return a plain value with integers beyond 64 bits as the digits they are, which every JSON reader takes."""
    if type(value) is int and not -_BIG <= value < 2 * _BIG:
        return orjson.Fragment(str(value).encode())
    if type(value) is dict:
        return {k: _digits(v) for k, v in value.items()}
    if type(value) is list:
        return [_digits(v) for v in value]
    return value


def spell(value: Any) -> Any:
    """Return a plain value with NaN and the infinities as the texts that stand for them in a journal."""
    if type(value) is float and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if type(value) is dict:
        return {k: spell(v) for k, v in value.items()}
    if type(value) is list:
        return [spell(v) for v in value]
    return value


def text(value: object) -> str:
    """Return `str(value)` with what UTF-8 cannot say (a file name's odd bytes) escaped. Raises what str() does."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Return `value` as bool, int, float, str, None, list or dict.

    Args:
        value: anything.
        above: the ids of the containers it lies in.

    Raises:
        Unloggable: it has no such form, nests deeper than 32, or holds itself.
    """
    kind = type(value)
    if kind is float or kind is str or kind is bool or value is None:
        return value
    if kind is int:
        if value.bit_length() > 1023:  # no reader could give it as a number, and the whole record would be lost to it
            raise Unloggable(f"an integer of {value.bit_length():,} bits is larger than any float")
        return value
    if len(above) > MAX_DEPTH:
        raise Unloggable(f"it nests deeper than {MAX_DEPTH}")
    if id(value) in above:
        raise Unloggable("it holds itself")
    above = (*above, id(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v, above) for k, v in value.items()}
    if isinstance(value, enum.Enum):
        return plain(value.value, above)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [plain(v, above) for v in items]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), above) for f in fields(value)}
    return _foreign(value, above)


def is_instance(value: Any, module: str, *names: str) -> bool:
    """Tell whether a value is of a class of a module, which need not be imported for that: if it is, it has been."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, tuple(getattr(loaded, name) for name in names))


def _foreign(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, bool | int | float | str):  # subclasses: numpy.float64 is a float, IntEnum an int
        base = next(t for t in (bool, int, float, str) if isinstance(value, t))
        return base(value)
    if is_instance(value, "decimal", "Decimal"):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if is_instance(value, "datetime", "date", "time"):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        raise Unloggable("bytes are not a value; save them in a file and log that")
    shape = getattr(value, "shape", None)
    if shape is not None and callable(getattr(value, "item", None)):
        # A 0-d or one-element array or tensor is a number, whatever library it is of.
        size = math.prod(int(n) for n in shape)
        if size == 1:
            return plain(value.item(), above)
        if callable(getattr(value, "tolist", None)) and size <= 65_536:
            return plain(value.tolist(), above)
        raise Unloggable(f"an array of {size:,} values is not a metric; log a Histogram, an Image or a file")
    if callable(getattr(value, "item", None)):
        return plain(value.item(), above)
    if isinstance(value, type) or callable(value):
        return getattr(value, "__qualname__", None) or repr(value)[:200]
    raise Unloggable(f"{type(value).__module__}.{type(value).__qualname__} has no form in JSON")


def nonfinite_paths(value: Any, path: str | None = None) -> list[str]:
    """Return the dotted paths, within a plain value, of NaN and the infinities."""
    if type(value) is float:
        return [] if math.isfinite(value) else [path or ""]
    if type(value) is dict:
        return [p for k, v in value.items() for p in nonfinite_paths(v, k if path is None else f"{path}.{k}")]
    if type(value) is list:
        return [p for i, v in enumerate(value) for p in nonfinite_paths(v, str(i) if path is None else f"{path}.{i}")]
    return []


def flatten(data: Mapping[Any, Any], prefix: str = "", above: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return nested mappings as one: keys joined by ".", values untouched, mappings too deep or in themselves too."""
    flat: dict[str, Any] = {}
    above = (*above, id(data))
    for key, value in data.items():
        name = f"{prefix}{key_text(key)}"
        # By its type: an object's own __class__ may raise anything.
        if issubclass(type(value), Mapping) and len(above) <= MAX_DEPTH and id(value) not in above:
            with contextlib.suppress(Exception):  # a mapping that raises is none; what it is then costs this key
                flat.update(flatten(value, f"{name}.", above))
                continue
        flat[name] = value
    return flat


def key_text(key: object) -> str:
    """Return a key as text, whatever it is."""
    try:
        return text(key)
    except Exception:  # a __str__ may raise anything; the value is good all the same
        return f"<{type(key).__name__}>"


def encode_values(data: Mapping[Any, Any]) -> tuple[Encoded, dict[str, str]]:
    """Return the values of `data` that have a form in JSON, and by key why the others have none."""
    good: dict[str, Any] = {}
    bad: dict[str, str] = {}
    for key, value in data.items():
        name = key_text(key)
        try:
            found = plain(value)
            _dumps(found)  # lone surrogates and the like
            good[name] = found
        except Unloggable as why:
            bad[name] = str(why)
        except Exception as error:  # any library's item() or __str__ may raise anything
            bad[name] = f"{type(error).__name__}: {error}"[:300]
    return Encoded(good, nonfinite_paths(good)), bad


def as_step(step: Any) -> int:
    """Return a step as an integer, whatever library's number it is. Raises UsageError where it is none of 64 bits."""
    if type(step) is int and -MAX_STEP <= step < MAX_STEP:
        return step
    try:
        at = operator.index(step)
    except Exception:  # whatever its own code raises
        at = _whole_number(step)
    if not -MAX_STEP <= at < MAX_STEP:
        raise UsageError(f"log(step={_shown(step)}): a step has at most 64 bits")
    return at


def _whole_number(step: Any) -> int:
    """Return a step given as 3.0, or as a tensor of it."""
    with contextlib.suppress(Exception):  # whatever its own code raises
        at = int(step)
        if float(step) == at:
            return at
    raise UsageError(f"log(step={_shown(step)}): a step is an integer")


def _shown(value: Any) -> str:
    try:
        return repr(value)[:100]
    except Exception:  # a __repr__ may raise anything
        return f"<{type(value).__name__}>"
