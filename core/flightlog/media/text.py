"""Text too long for a value in a record."""

from __future__ import annotations

from typing import Any

from ..journal.values import key_text
from .base import FileMedia, caption_fact
from .payload import check_size

MAX_BYTES = 64 << 20


class Text(FileMedia):
    """A text kept as a file: `log({"sample": flightlog.Text(long_text)})`. Long strings become one by themselves.

    Args:
        text: the text, of at most 64 MiB; anything else is kept as `str()` shows it now.
        caption: a line to go with it.

    A string cannot change, so it is encoded at `log()`.
    """

    kind = "text"

    def __init__(self, text: object, caption: str | None = None) -> None:
        self._text = text if isinstance(text, str) else key_text(text)
        self._caption = caption

    def encode(self) -> tuple[bytes, str, dict[str, Any]]:
        content = self._text.encode("utf-8", "replace")
        check_size(len(content), MAX_BYTES, "Text()")
        return content, ".txt", caption_fact(self._caption)
