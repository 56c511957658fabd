"""The JSON files that media are kept in, with the journal's spelling of what JSON cannot say."""

from __future__ import annotations

from typing import Any

from ..journal.values import Encoded, nonfinite_paths


def dump(document: dict[str, Any]) -> bytes:
    """Return a document of plain values as JSON.

    A NaN or infinity is the text "NaN", "Infinity" or "-Infinity", and `nonfinite` lists where, keys joined by ".".

    Raises:
        TypeError: it holds something that is no plain value.
    """
    paths = nonfinite_paths(document)
    return Encoded({**document, "nonfinite": paths} if paths else document, paths).json()
