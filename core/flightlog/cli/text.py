"""Texts as the command line shows them."""

from __future__ import annotations


def size_text(size: int) -> str:
    """Return a number of bytes in the unit that reads best."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
