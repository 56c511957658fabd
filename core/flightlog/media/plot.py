"""Plots: charts as data, which a page draws in its own style (docs/media.md, "Plots"). Made by `flightlog.plot`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..journal.values import key_text
from .base import MAX_CAPTION, CapturedMedia, Encoding
from .documents import dump
from .payload import check_size

MAX_BYTES = 64 << 20


class Plot(CapturedMedia):
    """A chart as data.

    Args:
        plot: which chart: "line", "scatter", "bar", "histogram", "confusion_matrix", "pr_curve" or "roc_curve".
        title: what stands over it; may be empty.
        make: returns what else the chart consists of, of plain values. What it raises costs the key at `log()`.
    """

    kind = "plot"

    def __init__(self, plot: str, title: str, make: Callable[[], dict[str, Any]]) -> None:
        def encode() -> Encoding:
            head = {"plot": plot, "title": key_text(title)[:MAX_CAPTION]}
            content = dump({**head, **make()})
            check_size(len(content), MAX_BYTES, f"plot.{plot}()")
            return Encoding(content, ".plot.json", head)

        self._capture(encode)
