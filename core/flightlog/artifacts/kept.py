"""Artifacts that stay on this disk when the run that made them has been delivered and cleaned (`--keep-artifacts`).

Their files stay where they are, below `files/artifacts/` of a folder that is no run directory any more; what the
journal said of them is left in `.delivered/<run id>.artifacts`, line for line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ..journal.reader import open_regular
from ..journal.record import Record, check
from ..journal.scan import RunJournal, parsed
from ..protocol.names import name_fault
from ..rundir import RunDir, atomic_write

FOLDER = ".delivered"
FORMAT = 1
_MAX = 512 << 20


class Kept(NamedTuple):
    """What is left of one run directory: its place, its run's id and project, and its artifact records in order."""

    directory: RunDir
    id: str
    project: str
    records: list[tuple[str, Record]]


def records_of(directory: RunDir) -> list[tuple[str, str]]:
    """Return the artifact records of a run directory as (writer, line), in order."""
    found = RunJournal([directory.journal]).records(frozenset({"artifact"}), hidden=True)
    return [(writer, record.line.decode()) for writer, record in found]


def keep(root: Path, run_id: str, project: str, name: str, records: list[tuple[str, str]]) -> None:
    """Leave the artifact records of a run directory that is to be cleaned.

    Args:
        root: the folder that holds it. run_id, project: its run. name: what the directory is called there.
        records: as `records_of` has returned them.

    Raises:
        OSError: they could not be written.
    """
    path = _place(root, run_id, project)
    known = _read(path)
    directories = known["directories"] if known else {}
    directories[name] = [list(pair) for pair in records]
    content = {"format": FORMAT, "id": run_id, "project": project, "directories": directories}
    path.parent.mkdir(exist_ok=True)
    atomic_write(path, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def kept(root: Path) -> Iterator[Kept]:
    """Yield what has been kept of the run directories of a folder; what makes no sense is passed over."""
    for path in sorted((root / FOLDER).glob("*.artifacts")):
        known = _read(path)
        for name, lines in known["directories"].items() if known else ():
            place = root / name
            if name_fault(name) is None and isinstance(lines, list) and (place / "files" / "artifacts").is_dir():
                assert known is not None
                yield Kept(RunDir(place), known["id"], known["project"], _records(lines))


def _place(root: Path, run_id: str, project: str) -> Path:
    plain = root / FOLDER / f"{run_id}.artifacts"
    known = _read(plain)
    return plain if known is None or known["project"] == project else plain.with_name(f"{run_id}@{project}.artifacts")


def _read(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        with open_regular(path) as file:
            content = orjson.loads(file.read(_MAX))
        if (
            isinstance(content, dict)
            and content.get("format") == FORMAT
            and isinstance(content.get("id"), str)
            and isinstance(content.get("project"), str)
            and isinstance(content.get("directories"), dict)
        ):
            return content
    return None


def _records(lines: list[Any]) -> list[tuple[str, Record]]:
    found = []
    for pair in lines:
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            writer, text = pair
            line = check(text.encode())
            record = parsed(line) if line is not None else None
            if record is not None:
                found.append((str(writer), record))
    return found
