"""Tables, pictures and other media as files of an artifact: `artifact.add(table, "predictions")`, `version.get(…)`.

A medium is the file that `log()` would make of it, called by its name and its kind: `predictions.table.json`,
`sample.png`. What a table's cells refer to lies beside it under the paths that the table names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from ..errors import DamagedError, UsageError
from ..journal.record import restore

_KINDS = {
    ".table.json": "table", ".plotly.json": "plotly", ".html": "html", ".txt": "text",
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aac", ".m4a", ".weba"), "audio"),
    **dict.fromkeys((".mp4", ".webm", ".m4v", ".mov", ".mkv", ".ogv"), "video"),
}  # fmt: skip
_MAX_TABLE = 256 << 20


def write_media(value: Any, folder: Path, name: str) -> list[tuple[Path, str]]:
    """Write a medium below a folder; return its files, each with its name inside the artifact, its own first.

    Raises:
        UsageError: it is no medium, cannot be made into a file, or has none (a Histogram).
    """
    from ..media.base import KeyFolder, Media
    from ..media.recognise import recognise

    found = value if isinstance(value, Media) else recognise(name, value)
    if not isinstance(found, Media):
        raise UsageError(f"add(): a Table, an Image or another medium is needed, not {type(value).__name__}")
    place = KeyFolder(folder, name)
    try:
        entry = found.write(place)
    except Exception as error:  # what a library or the disk may raise
        raise UsageError(f"add({name!r}): {error}") from None
    if "path" not in entry:
        raise UsageError(f"add({name!r}): a {type(found).__name__} has no file; log it, or keep its numbers in a Table")
    path = Path(entry["path"])
    suffix = path.name[path.name.index(".") :]
    own = name if name.endswith(suffix) else f"{name}{suffix}"
    return [(folder / path, own), *((folder / part, part) for part in place.parts)]


def read_media(name: str, paths: list[str], file: Callable[[str], Path]) -> Any:
    """Return what `add` put under a name; None where there is nothing.

    Args:
        name: with or without its ending. paths: all names of the version. file: gives the path of one of them.

    Raises:
        DamagedError: a table is none.
    """
    for suffix, kind in _KINDS.items():
        for wanted in (name, f"{name}{suffix}"):
            if wanted.endswith(suffix) and wanted in paths:
                return _table(file(wanted), file) if kind == "table" else _medium(kind, file(wanted))
    return None


def _medium(kind: str, path: Path) -> Any:
    from .. import media

    if kind == "text":
        return media.Text(path.read_text(encoding="utf-8", errors="replace"))
    if kind == "html":
        return media.Html(path, inject=False)
    if kind == "plotly":
        return media.Plotly(orjson.loads(path.read_bytes()))
    return {"image": media.Image, "audio": media.Audio, "video": media.Video}[kind](path)


def _table(path: Path, file: Callable[[str], Path]) -> Any:
    from .. import media
    from ..media.payload import read_file

    try:
        found = orjson.loads(read_file(path, _MAX_TABLE, f"table {path}"))
        columns, types, rows = found["columns"], found["types"], found["rows"]
        for place in found.get("nonfinite", []):
            restore(found, f"rows.{place}")
        for at, kind in enumerate(types):
            if kind in ("image", "audio", "video", "html", "text", "plotly", "media"):
                for row in rows:
                    row[at] = _cell(row[at], file)
        return media.Table(columns=columns, data=rows)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DamagedError(f"{path} is no table ({type(error).__name__}: {error})") from None


def _cell(value: Any, file: Callable[[str], Path]) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("path"), str) and value.get("type") in _KINDS.values():
        return _medium(str(value["type"]), file(value["path"]))
    return value
