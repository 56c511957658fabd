"""The file of a table: its columns, their types, and its rows as JSON, media by their entries (docs/media.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import UsageError
from ..journal.values import Encoded, nonfinite_paths
from .base import Entry, KeyFolder, Media
from .payload import check_size

MAX_BYTES = 256 << 20
MAX_MEDIA = 20_000
_BLOCK = 1 << 20
_BLOCK_ROWS = 1000
_WORDS = {bool: "boolean", int: "number", float: "number", str: "string", list: "json", dict: "json"}
_PLAIN = {*_WORDS.values(), "mixed", "null"}

Row = list[Any]


def column_type(cells: Iterable[Any]) -> str:
    """Say what a column's cells are, None aside.

    "number", "boolean", "string", "json", or a kind of media, where all are; "media" where some are media, "mixed"
    where none is, "null" where there is nothing.
    """
    kinds = {*map(type, cells)} - {type(None)}
    words = {kind.kind if issubclass(kind, Media) else _WORDS[kind] for kind in kinds}
    if len(words) <= 1:
        return words.pop() if words else "null"
    return "media" if any(issubclass(kind, Media) for kind in kinds) else "mixed"


def with_entries(rows: list[Row], types: list[str], folder: KeyFolder) -> list[Row]:
    """Return the rows with each media cell written and replaced by its entry.

    In a column that holds media every object is an entry, so a mapping there becomes its JSON as a text.
    """
    places = [at for at, kind in enumerate(types) if kind not in _PLAIN]
    if not places:
        return rows
    written: dict[int, Entry] = {}
    found = [list(row) for row in rows]
    for row in found:
        for at in places:
            cell = row[at]
            if isinstance(cell, Media):
                if id(cell) not in written:
                    _check_count(len(written) + 1)
                    written[id(cell)] = cell.write(folder)
                row[at] = written[id(cell)]
            elif isinstance(cell, dict):
                row[at] = Encoded(cell, nonfinite_paths(cell)).json().decode()
    return found


def _check_count(media: int) -> None:
    if media > MAX_MEDIA:
        raise UsageError(f"Table(): more than {MAX_MEDIA:,} media; log a folder of files as an artifact")


def table_json(columns: list[str], types: list[str], rows: list[Row]) -> bytes:
    """Return the table's file; block by block, so that one too large is refused before it fills the memory."""
    parts = [Encoded({"columns": columns, "types": types}).json()[:-1], b',"rows":[']
    nonfinite: list[str] = []
    size = sum(map(len, parts))
    long = [at for at, kind in enumerate(types) if kind not in ("number", "boolean", "null")]
    floating = [at for at, kind in enumerate(types) if kind not in ("string", "boolean", "null")]
    for start, block in _blocks(rows, long):
        paths = [path for at in floating for path in _nonfinite(block, start, at)]
        parts.append((b"," if start else b"") + Encoded({"rows": block}, paths).json()[len(b'{"rows":[') : -len(b"]}")])
        nonfinite += paths
        size += len(parts[-1])
        check_size(size, MAX_BYTES, "Table()")
    parts.append(b"]" + (b',"nonfinite":' + Encoded({"": nonfinite}).json()[4:-1] if nonfinite else b"") + b"}")
    return b"".join(parts)


def _blocks(rows: list[Row], long: list[int]) -> Iterator[tuple[int, list[Row]]]:
    """Yield rows in blocks of about a mebibyte, each with the number of its first row.

    Args:
        rows: the rows.
        long: the columns whose cells may be long.
    """
    start = weight = total = 0
    for at, row in enumerate(rows):
        own = len(row)
        for column in long:
            cell = row[column]
            if isinstance(cell, str | list | dict):
                own += len(cell)
        total += own
        check_size(total, MAX_BYTES, "Table()")
        if at > start and (weight + own > _BLOCK or at - start >= _BLOCK_ROWS):
            yield start, rows[start:at]
            start, weight = at, 0
        weight += own
    if rows:
        yield start, rows[start:]


def _nonfinite(block: list[Row], start: int, column: int) -> list[str]:
    """Return the places of NaN and infinities in a column of some rows, the first of which is row `start`."""
    places: list[str] = []
    for number, row in enumerate(block, start):
        cell = row[column]
        if type(cell) is float:
            if cell - cell != 0:  # infinity minus itself is NaN
                places.append(f"{number}.{column}")
        elif type(cell) is list or type(cell) is dict:
            places += nonfinite_paths(cell, f"{number}.{column}")
    return places
