"""Reading all writers of a run together: in order, as rewinds and definitions say, and folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

from .define import Definitions, from_data
from .fold import Fold
from .order import merge, parents_of
from .reader import Damage, WriterReport, block_for, open_regular, read_writer, segments, writer_folders
from .record import Line, Record
from .rewind import Rewinds, is_step

# What says how other records are to be seen, and is therefore read before them.
_GUIDES = {"define": b'define"', "rewind": b'rewind"'}
_SCAN_BLOCK = 4 << 20
_HEAD_BLOCK = 8 << 10
_MAX_SEQ = 10**18
_MAX_DEPTH = 64  # orjson writes 254 levels; our own clients record 32


class RunJournal:
    """The journals of one run.

    Args:
        journals: the journal folders, of one or several directories of the run. A writer that stands in several (a
            copied directory) is read where it is longest.

    Attributes:
        reports: by writer, what reading found; filled by `records`.
        faults: the journals that cannot be looked into at all; whatever is in them is not read.
    """

    def __init__(self, journals: Sequence[Path]) -> None:
        self.reports: dict[str, WriterReport] = {}
        self.faults: list[Damage] = []
        self._folders = _longest([folder for journal in journals for folder in self._writers_in(journal)])

    def _writers_in(self, journal: Path) -> list[Path]:
        try:
            return writer_folders(journal)
        except OSError as error:
            self.faults.append(Damage(journal, 0, f"cannot be read: {error.strerror or error}"))
            return []

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
    def _parents(self) -> dict[str, dict[str, int]]:
        """By writer, the parents that it names."""
        return {name: parents_of(record.data) for name, record in self.beginnings.items()}

    @cached_property
    def _guides(self) -> list[tuple[str, Record]]:
        """The records that say how others are to be seen, in order."""
        guided = {name for name, folder in self._folders.items() if _mentions_guides(folder)}
        needed = dict.fromkeys(guided, _MAX_SEQ)
        if len(guided) > 1:  # what came first is known from those that they descend from, too
            _add_ancestors(needed, self._parents)
        streams = {
            name: _upto(seq, read_writer(self._folders[name], WriterReport(name), block=block_for(len(needed))))
            for name, seq in needed.items()
            if name in self._folders
        }
        parents = self._parents if len(guided) > 1 else {}
        lines = ((name, line) for name, line in merge(streams, parents) if line.kind in _GUIDES)
        return [(name, record) for name, line in lines if (record := parsed(line))]

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
        block = block_for(len(self._folders))
        for name, folder in self._folders.items():
            report = self.reports[name] = WriterReport(name)
            streams[name] = read_writer(folder, report, block=block)
        rewinds = Rewinds() if hidden else self.rewinds
        for name, line in merge(streams, self._parents):
            if kinds is None or line.kind in kinds:
                record = parsed(line)
                if record is not None and not (rewinds and rewinds.hide(name, record)):
                    yield name, record

    def last_seq_of(self, writer: str) -> int:
        """Return the last seq that a writer has come to; 0 where there is none."""
        report = WriterReport(writer)
        for _ in read_writer(self._folders[writer], report) if writer in self._folders else ():
            pass
        return report.last_seq

    def fold(self, start: Fold | None = None, upto: Mapping[str, int] | None = None) -> Fold:
        """Return what the records add up to.

        Args:
            start: what is known of records that are no longer here; it is carried on.
            upto: of these writers only the records up to this seq.
        """
        fold = start or Fold()
        earlier = fold.records
        fold.define(self.definitions)
        limits = upto or {}
        for writer, record in self.records():
            if writer not in limits or record.seq <= limits[writer]:
                fold.add(writer, record)
        fold.records = earlier + sum(report.records for report in self.reports.values())
        return fold

    @property
    def last_seqs(self) -> dict[str, int]:
        """By writer, the last seq that `records` met."""
        return {name: report.last_seq for name, report in self.reports.items() if report.last_seq}


def parsed(line: Line) -> Record | None:
    """Return a line's record, None where no view can use it.

    Its CRC is right, so a program wrote it so, and it is kept and passed on. But a view cannot hold what is not of the
    format's types, a step beyond 64 bits, or data that nests without end.
    """
    try:
        record = line.record()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if record.step is not None and not is_step(record.step):
        return None
    # Counting is a tenth of the cost of looking, and hardly ever leaves anything to be looked at.
    openings = line.raw.count(b"{") + line.raw.count(b"[")
    return record if openings <= _MAX_DEPTH or depth_within(record.data) else None


def depth_within(value: Any, limit: int = _MAX_DEPTH) -> bool:
    """Tell whether lists and objects nest no deeper than this."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return limit > 0 and all(depth_within(v, limit - 1) for v in inner if isinstance(v, dict | list))


def _add_ancestors(needed: dict[str, int], parents: Mapping[str, Mapping[str, int]]) -> None:
    """Add to `needed`, by writer the last seq that matters, the parents of those in it, and theirs."""
    pending = list(needed)
    while pending:
        for parent, seq in parents.get(pending.pop(), {}).items():
            if parent not in needed:
                pending.append(parent)
            needed[parent] = max(seq, needed.get(parent, 0))


def _upto(seq: int, lines: Iterator[Line]) -> Iterator[Line]:
    return takewhile(lambda line: line.seq <= seq, lines)


def _longest(folders: list[Path]) -> dict[str, Path]:
    chosen: dict[str, Path] = {}
    for folder in folders:
        known = chosen.get(folder.name)
        if known is None or _bytes(folder) > _bytes(known):
            chosen[folder.name] = folder
    return chosen


def _bytes(folder: Path) -> int:
    try:
        return sum(path.lstat().st_size for path in segments(folder))
    except OSError:  # said by whoever reads it
        return 0


def _beginning(folder: Path) -> Record | None:
    line = next(read_writer(folder, WriterReport(folder.name), block=_HEAD_BLOCK), None)
    return parsed(line) if line is not None and line.kind == "run" else None


def _mentions_guides(folder: Path) -> bool:
    """Tell, at a hundredth of the cost of reading it, whether a journal may hold rewinds or definitions."""
    longest = max(map(len, _GUIDES.values()))
    try:
        for path in segments(folder):
            with open_regular(path) as file:
                end = b""
                while block := file.read(_SCAN_BLOCK):
                    whole = end + block
                    if any(word in whole for word in _GUIDES.values()):
                        return True
                    end = whole[-longest:]
    except OSError:  # said by whoever reads the lines; what lies behind may still be read by them
        return True
    return False
