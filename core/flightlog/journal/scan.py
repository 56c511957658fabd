"""Reading all writers of a run together: in order, and folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .fold import Fold
from .order import merge, parents_of
from .reader import WriterReport, read_writer, writer_folders
from .record import Line, Record


def read_run(
    journals: Sequence[Path], reports: dict[str, WriterReport], kinds: frozenset[str] | None = None
) -> Iterator[tuple[str, Record]]:
    """Yield (writer, record) of a run in order, from one or several directories of it.

    Args:
        journals: the journal folders. A writer that stands in several (a copied directory) is read where it is longest.
        reports: filled by writer with what reading found.
        kinds: only these kinds; others are passed over without being parsed.
    """
    folders = _longest([f for j in journals for f in writer_folders(j)])
    streams: dict[str, Iterator[Line]] = {}
    parents: dict[str, dict[str, int]] = {}
    for name, folder in folders.items():
        reports[name] = WriterReport(name)
        streams[name] = read_writer(folder, reports[name])
        parents[name] = _first_parents(folder)
    for name, line in merge(streams, parents):
        if kinds is None or line.kind in kinds:
            try:
                yield name, line.record()
            except (ValueError, KeyError, TypeError):
                continue  # its CRC is right, so a program wrote it so; it is kept and passed on, but no view can use it


def _longest(folders: list[Path]) -> dict[str, Path]:
    chosen: dict[str, Path] = {}
    for folder in folders:
        known = chosen.get(folder.name)
        if known is None or _bytes(folder) > _bytes(known):
            chosen[folder.name] = folder
    return chosen


def _bytes(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.iterdir() if p.suffix == ".jsonl")


def _first_parents(folder: Path) -> dict[str, int]:
    for line in read_writer(folder, WriterReport(folder.name)):
        if line.kind != "run":
            break
        try:
            return parents_of(line.record().data)
        except (ValueError, KeyError, TypeError):
            break
    return {}


def fold_directories(journals: Sequence[Path]) -> tuple[Fold, dict[str, int]]:
    """Return what the journals of a run add up to, and the last seq of each writer."""
    fold = Fold()
    reports: dict[str, WriterReport] = {}
    for writer, record in read_run(journals, reports):
        fold.add(writer, record)
    return fold, {name: report.last_seq for name, report in reports.items() if report.last_seq}
