"""What images, masks and videos share: Pillow where it is installed, and whether an image file is whole."""

from __future__ import annotations

import zlib
from typing import Any

from ..errors import MissingDependency

MAX_PIXELS = 1 << 27


def pillow(what: str) -> Any:
    """Return Pillow's module of images. Raises MissingDependency."""
    try:
        import PIL.Image
    except ImportError:
        raise MissingDependency(f"{what} needs Pillow for this value: pip install 'flightlog[media]'") from None
    return PIL.Image


def is_whole(content: bytes) -> bool | None:
    """Tell by its marks whether an image file has an end: one that was cut off has none. Nothing is decoded.

    Returns:
        None where they do not tell: of another format, or one whose end may be missing (a camera's JPEG).

    https://www.w3.org/TR/png-3/, ITU T.81 (annex B), GIF89a, https://developers.google.com/speed/webp/docs/riff_container
    """
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _is_whole_png(content)
    if content.startswith(b"\xff\xd8"):
        return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda") > 0 or None
    if content[:6] in (b"GIF87a", b"GIF89a"):
        return content.rstrip(b"\0").endswith(b";")
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return len(content) >= 8 + int.from_bytes(content[4:8], "little")
    if content[:2] == b"BM":
        size = int.from_bytes(content[2:6], "little")
        return len(content) >= size if size > 26 else None
    return None


def _is_whole_png(content: bytes) -> bool:
    """Walk over a PNG's chunks, each with its checksum, up to the last."""
    at = 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content) or zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return False
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False
