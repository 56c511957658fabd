"""Texts as the command line shows them."""

from __future__ import annotations

import json
from typing import Any

import click
import orjson

from ..terminal import without_keys


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


def json_text(facts: dict[str, Any]) -> str:
    """Return facts as one line of JSON, without keys.

    A path need not be UTF-8: its other bytes are then escaped as Python has them, "\\udcff" say.
    """
    try:
        text = orjson.dumps(facts).decode()
    except TypeError:
        text = json.dumps(facts, separators=(",", ":"))
    return without_keys(text)


def print_json(facts: dict[str, Any]) -> None:
    """Print facts as one document of JSON."""
    click.echo(json_text(facts).encode())
