"""Reading all writers of a run together: in order, as rewinds and definitions say, and folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from .define import Definitions, from_data
from .fold import Fold
from .order import merge, parents_of
from .reader import WriterReport, open_regular, read_writer, segments, writer_folders
from .record import Line, Record
from .rewind import Rewinds

# What says how other records are to be seen, and is therefore read before them.
_GUIDES = {"define": b'define"', "rewind": b'rewind"'}
_BLOCK = 4 << 20
_MAX_SEQ = 10**18


class RunJournal:
    """The journals of one run.

    Args:
        journals: the journal folders, of one or several directories of the run. A writer that stands in several (a
            copied directory) is read where it is longest.

    Attributes:
        reports: by writer, what reading found; filled by `records`.
    """

    def __init__(self, journals: Sequence[Path]) -> None:
        self.reports: dict[str, WriterReport] = {}
        self._folders = _longest([f for j in journals for f in writer_folders(j)])

    @cached_property
    def beginnings(self) -> dict[str, Record]:
        """By writer, its first record, which says who it is; not of those where that is not readable."""
        found = {name: _beginning(folder) for name, folder in self._folders.items()}
        return {name: record for name, record in found.items() if record}

    def leave_out(self, writers: set[str]) -> None:
        """Read no more of these writers."""
        for name in writers:
            self._folders.pop(name, None)

    @cached_property
    def _guides(self) -> list[tuple[str, Record]]:
        """The records that say how others are to be seen, in order of time."""
        found = []
        for name, folder in self._folders.items():
            if _mentions_guides(folder):
                lines = read_writer(folder, WriterReport(name))
                found += [(name, r) for line in lines if line.kind in _GUIDES and (r := _parsed(line))]
        return sorted(found, key=lambda each: (each[1].t, each[0], each[1].seq))

    @cached_property
    def rewinds(self) -> Rewinds:
        """What is hidden from views."""
        rewinds = Rewinds()
        for _, record in self._guides:
            if record.kind == "rewind":
                rewinds.add(record.data)
        return rewinds

    def rewind_all(self, step: int) -> None:
        """See the run as if a rewind to this step applied to all that is there."""
        self.rewinds.add({"step": step, "writers": dict.fromkeys(self._folders, _MAX_SEQ)})

    @cached_property
    def definitions(self) -> Definitions:
        """What is said of the metrics."""
        found = (from_data(record.data) for _, record in self._guides if record.kind == "define")
        return Definitions(definition for definition in found if definition)

    def records(self, kinds: frozenset[str] | None = None, *, hidden: bool = False) -> Iterator[tuple[str, Record]]:
        """Yield (writer, record) in order.

        Args:
            kinds: only these; others are passed over without being parsed.
            hidden: also what a rewind hides.
        """
        streams: dict[str, Iterator[Line]] = {}
        for name, folder in self._folders.items():
            report = self.reports[name] = WriterReport(name)
            streams[name] = read_writer(folder, report)
        parents = {name: parents_of(record.data) for name, record in self.beginnings.items()}
        rewinds = Rewinds() if hidden else self.rewinds
        for name, line in merge(streams, parents):
            if kinds is None or line.kind in kinds:
                record = _parsed(line)
                if record is not None and not (rewinds and rewinds.hide(name, record)):
                    yield name, record

    def fold(self, start: Fold | None = None) -> Fold:
        """Return what the records add up to.

        Args:
            start: what is known of records that are no longer here; it is carried on.
        """
        fold = start or Fold()
        earlier = fold.records
        fold.define(self.definitions)
        for writer, record in self.records():
            fold.add(writer, record)
        fold.records = earlier + sum(report.records for report in self.reports.values())
        return fold

    @property
    def last_seqs(self) -> dict[str, int]:
        """By writer, the last seq that `records` met."""
        return {name: report.last_seq for name, report in self.reports.items() if report.last_seq}


def _parsed(line: Line) -> Record | None:
    try:
        return line.record()
    except (ValueError, KeyError, TypeError):
        return None  # its CRC is right, so a program wrote it so; it is kept and passed on, but no view can use it


def _longest(folders: list[Path]) -> dict[str, Path]:
    chosen: dict[str, Path] = {}
    for folder in folders:
        known = chosen.get(folder.name)
        if known is None or _bytes(folder) > _bytes(known):
            chosen[folder.name] = folder
    return chosen


def _bytes(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.iterdir() if p.suffix == ".jsonl")


def _beginning(folder: Path) -> Record | None:
    line = next(read_writer(folder, WriterReport(folder.name)), None)
    return _parsed(line) if line is not None and line.kind == "run" else None


def _mentions_guides(folder: Path) -> bool:
    """Tell, at a hundredth of the cost of reading it, whether a journal may hold rewinds or definitions."""
    longest = max(map(len, _GUIDES.values()))
    for path in segments(folder):
        try:
            with open_regular(path) as file:
                end = b""
                while block := file.read(_BLOCK):
                    whole = end + block
                    if any(word in whole for word in _GUIDES.values()):
                        return True
                    end = whole[-longest:]
        except OSError:  # said by whoever reads the lines
            continue
    return False
