"""HTML: a page of one's own, kept as a file that only a sandbox ever shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .base import CapturedMedia, Encoding, caption_fact
from .payload import check_size, read_file

MAX_BYTES = 64 << 20
# Its charset where the page names none, and links that leave the frame it is shown in. Nothing is fetched.
_HEAD = b'<meta charset="utf-8"><base target="_blank"><style>body{font-family:sans-serif}</style>'


class Html(CapturedMedia):
    """A page for `log()`, of at most 64 MiB.

    Args:
        data: HTML as a text; a pathlib.Path, or a text ending in ".html" or ".htm" that is no HTML, is the path of a
            file; or an open file.
        inject: put a charset, a plain font and `target="_blank"` into its head. False keeps it byte for byte.
        data_is_not_path: True takes any text as HTML.
        caption: a line of text to go with it.

    Paths and open files are read here. The page is shown in a sandboxed frame of an origin of its own: its scripts
    reach neither the server nor what else is on the page.
    """

    kind = "html"

    def __init__(
        self, data: Any, inject: bool = True, data_is_not_path: bool = False, caption: str | None = None
    ) -> None:
        def make() -> Encoding:
            content = _content(data, data_is_not_path)
            check_size(len(content), MAX_BYTES, "Html()")
            return Encoding(_injected(content) if inject else content, ".html", caption_fact(caption))

        self._capture(make)


def _content(data: Any, data_is_not_path: bool) -> bytes:
    if isinstance(data, os.PathLike) or (isinstance(data, str) and not data_is_not_path and _is_path(data)):
        return read_file(Path(data), MAX_BYTES, f"Html({os.fspath(data)!r})")
    read = getattr(data, "read", None)
    if callable(read):
        data = read(MAX_BYTES + 1)
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode("utf-8", "replace")
    raise UsageError(f"Html(): a text, a path or an open file is needed, not {type(data).__name__}")


def _is_path(text: str) -> bool:
    return len(text) < 4096 and text.lower().endswith((".html", ".htm")) and "<" not in text and "\n" not in text


def _injected(content: bytes) -> bytes:
    """Put our lines behind <head>, or behind <html> or the doctype, or in front."""
    start = content[:65_536].lower()
    for tag in (b"<head", b"<html", b"<!doctype"):
        at = start.find(tag)
        # "<header" begins like "<head" and is none
        if at >= 0 and start[at + len(tag) : at + len(tag) + 1] in (b">", b" ", b"\n", b"\t", b"\r"):
            end = content.find(b">", at) + 1
            if end:
                return content[:end] + _HEAD + content[end:]
    return _HEAD + content
