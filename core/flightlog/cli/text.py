"""Texts as the command line shows them."""

from __future__ import annotations


def size_text(size: int) -> str:
    """Return a number of bytes in the unit that reads best."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def age_text(seconds: float) -> str:
    """Return how long ago something was, in the unit that reads best."""
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{max(0, round(seconds))} s"


def counted(number: int, what: str) -> str:
    """Return a number with its noun, in the plural where that is due."""
    return f"{number:,} {what}{'s' * (number != 1)}"
