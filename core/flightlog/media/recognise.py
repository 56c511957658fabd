"""Which values of `log()` are media although nobody said so: figures, pictures, tables and long texts.

It is asked about every value that is no plain number, so it looks at types only, remembers what it found of each, and
imports nothing: what a library makes can only arrive where that library has been imported.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

from .base import Media

LONG_TEXT = 64 << 10
MAX_LIST = 100_000
MAX_TYPES = 512

Maker = Callable[[Any], Media]

_makers: dict[type, Maker | None] = {}


def recognise(key: str, value: Any) -> Media | list[Media] | None:
    """Return a logged value as media, or None where it is something else. Never raises.

    Args:
        key: what it is logged under.
        value: Media, or a list or tuple of these; a figure of matplotlib (or axes, or pyplot itself) or of plotly; a
            PIL image; a DataFrame of pandas or polars; a string of more than 64 Ki characters. Lists of figures or PIL
            images are lists of media, too.
    """
    kind = type(value)  # never isinstance: it asks the value for its class, and a proxy may answer with an exception
    if issubclass(kind, str):
        return _text(value) if len(value) > LONG_TEXT else None
    if issubclass(kind, list | tuple):
        return _several(value)
    return _one(value)


def _one(value: Any) -> Media | None:
    if is_media(value):
        media: Media = value
        return media
    make = _pyplot(value) if issubclass(type(value), types.ModuleType) else maker(type(value))
    return make(value) if make is not None else None


def _several(values: Sequence[Any]) -> list[Media] | None:
    """Return a list of media; None where the first is none, so that a list of numbers costs one look."""
    if not values or len(values) > MAX_LIST or not _becomes_media(values[0]):
        return None
    if not all(_becomes_media(value) for value in values):
        return None
    return [media for media in map(_one, values) if media is not None]


def _becomes_media(value: Any) -> bool:
    return is_media(value) or maker(type(value)) is not None


def is_media(value: Any) -> bool:
    """Tell whether a value is Media, without asking the value."""
    return issubclass(type(value), Media)


def maker(kind: type) -> Maker | None:
    """Return what makes media of the values of a type; None where they are no media."""
    if kind not in _makers:
        if len(_makers) >= MAX_TYPES:
            _makers.clear()
        _makers[kind] = _maker(kind)
    return _makers[kind]


def _maker(kind: type) -> Maker | None:
    bases = {(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__}
    if not bases.isdisjoint((("pandas", "DataFrame"), ("polars", "DataFrame"))):
        return _table
    if ("plotly", "BaseFigure") in bases:
        return _plotly
    if ("PIL", "Image") in bases or callable(getattr(kind, "savefig", None)) or ("matplotlib", "Axes") in bases:
        return _image
    return None


def _pyplot(module: Any) -> Maker | None:
    return _image if callable(getattr(module, "savefig", None)) else None


def _image(value: Any) -> Media:
    from .image import Image

    return Image(value)


def _plotly(value: Any) -> Media:
    from .plotly import Plotly

    return Plotly(value)


def _table(value: Any) -> Media:
    from .table import Table

    return Table(dataframe=value)


def _text(value: str) -> Media:
    from .text import Text

    return Text(value)
