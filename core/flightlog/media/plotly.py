"""Figures of plotly, as the JSON that plotly.js draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from ..journal.values import plain
from .base import CapturedMedia, Encoding, caption_fact
from .documents import dump
from .payload import check_size

MAX_BYTES = 64 << 20


class Plotly(CapturedMedia):
    """A figure of plotly for `log()`; a figure that is logged as it is becomes one by itself.

    Args:
        val: a plotly figure, or what its `to_dict()` gives: a mapping with `data`, of at most 64 MiB as JSON.
        caption: a line of text to go with it.

    The figure is encoded here, so later changes do not reach it. A matplotlib figure is an Image.
    """

    kind = "plotly"

    def __init__(self, val: Any, caption: str | None = None) -> None:
        def make() -> Encoding:
            content = _json(val)
            check_size(len(content), MAX_BYTES, "Plotly()")
            return Encoding(content, ".plotly.json", caption_fact(caption))

        self._capture(make)


def _json(val: Any) -> bytes:
    if callable(getattr(val, "to_plotly_json", None)) and callable(getattr(val, "to_json", None)):
        return str(val.to_json()).encode("utf-8", "replace")
    if isinstance(val, Mapping) and "data" in val:
        return dump(plain(val))
    if callable(getattr(val, "savefig", None)):
        raise UsageError("Plotly(): a matplotlib figure is logged as it is, or as an Image")
    raise UsageError(f"Plotly(): a plotly figure is needed, not {type(val).__name__}")
