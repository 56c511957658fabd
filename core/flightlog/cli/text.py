"""Texts as the command line shows them."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text from a run without what would act on a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


def size_text(size: int) -> str:
    """Return a number of bytes in the unit that reads best."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
