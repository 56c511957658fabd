"""Text too long for a value in a record."""

from __future__ import annotations

from typing import Any

from ..journal.values import text
from .base import Media


class Text(Media):
    """A text kept as a file: `log({"sample": flightlog.Text(long_text)})`. Long strings become one by themselves."""

    kind = "text"

    def __init__(self, text: str, caption: str | None = None) -> None:
        self._text = str(text)
        self._caption = caption

    def encode(self) -> tuple[bytes, str, dict[str, Any]]:
        facts = {} if self._caption is None else {"caption": text(self._caption)}
        return self._text.encode("utf-8", "replace"), ".txt", facts
