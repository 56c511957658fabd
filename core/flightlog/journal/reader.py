"""Reading a journal back, whatever has happened to it.

A bad line at the end of a writer's newest segment is a torn tail: the process died while writing, nothing that was
acknowledged is missing. Anywhere else it is damage: the reader goes on with the next good line and reports which seqs
are missing. Nothing in here raises for the bytes it meets; only files that cannot be opened at all raise OSError.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .record import HEAD, MAX_LINE, Line, check
from .writer import MEMORY_LIMIT

_SEGMENT = re.compile(r"[0-9]{6,}\.jsonl")
_O_BENEATH = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class Damage(NamedTuple):
    """A stretch of a segment that no record could be read from."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.reason}"


@dataclass(slots=True)
class WriterReport:
    """What reading a writer's folder found besides good lines. Complete once the lines have been exhausted."""

    name: str
    last_seq: int = 0
    records: int = 0
    bytes: int = 0
    torn: list[Damage] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """True when no record is missing between those that are there."""
        return not self.missing


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading only if it is a regular one and no link, so that a hostile run directory names no other.

    Raises:
        OSError: it is missing, a link, a device, a pipe.
    """
    return regular_file(os.open(path, _O_BENEATH), path)


def regular_file(fd: int, name: object) -> BinaryIO:
    """Return an open descriptor as a file; closes it and raises OSError, naming it, where it is no regular file."""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{name} is not a regular file")
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def writer_folders(journal: Path) -> list[Path]:
    """Return the folders of a journal's writers, sorted by name; links are not followed."""
    try:
        with os.scandir(journal) as entries:
            return sorted(
                Path(e.path) for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def segments(folder: Path) -> list[Path]:
    """Return a writer's segments in order."""
    try:
        with os.scandir(folder) as entries:
            found = [Path(e.path) for e in entries if _SEGMENT.fullmatch(e.name) and e.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda p: int(p.stem))


def read_writer(folder: Path, report: WriterReport, sizes: dict[str, int] | None = None) -> Iterator[Line]:
    """Yield a writer's good lines in order of seq, each seq once; fill in `report` on the way.

    Args:
        folder: the writer's folder.
        report: filled while reading.
        sizes: by segment name, read no further than this many bytes (a snapshot of a journal that is growing).
    """
    paths = segments(folder)
    expected = 1
    held: dict[int, Line] = {}
    held_bytes = 0
    for number, path in enumerate(paths):
        limit = None if sizes is None else sizes.get(path.name, 0)
        for line in _read_segment(path, report, newest=number == len(paths) - 1, limit=limit):
            # A segment begun after a failed fdatasync repeats lines; what the failed one lost comes back in order.
            if line.seq < expected:
                continue
            if line.seq > expected:
                held.setdefault(line.seq, line)
                held_bytes += len(line.raw)
                if held_bytes > MEMORY_LIMIT:  # more than a writer keeps to write again: what is missing stays so
                    yield from _release(held, report, expected)
                    expected, held_bytes = report.last_seq + 1, 0
                continue
            yield _count(line, report)
            expected += 1
            while expected in held:
                yield _count(held.pop(expected), report)
                expected += 1
            if not held:
                held_bytes = 0
    yield from _release(held, report, expected)


def _release(held: dict[int, Line], report: WriterReport, expected: int) -> Iterator[Line]:
    for seq in sorted(held):
        if seq > expected:
            report.missing.append((expected, seq - 1))
        yield _count(held.pop(seq), report)
        expected = seq + 1


def _count(line: Line, report: WriterReport) -> Line:
    report.last_seq = line.seq
    report.records += 1
    report.bytes += len(line.raw)
    return line


def _read_segment(path: Path, report: WriterReport, *, newest: bool, limit: int | None) -> Iterator[Line]:
    bad: list[Damage] = []
    last_bad = 0
    try:
        file = open_regular(path)
    except OSError as error:
        report.damage.append(Damage(path, 0, f"cannot be opened: {error.strerror or error}"))
        return
    with file:
        offset = number = 0
        while True:
            room = MAX_LINE + 1 if limit is None else min(MAX_LINE + 1, limit - offset)
            try:
                raw = file.readline(room) if room > 0 else b""
            except OSError as error:  # a bad block; what lies behind it may have been written again elsewhere
                report.damage.append(Damage(path, number + 1, f"cannot be read: {error.strerror or error}"))
                break
            if not raw:
                break
            offset += len(raw)
            number += 1
            line = check(raw)
            if line is None:
                if raw[-1:] != b"\n" and len(raw) > MAX_LINE:
                    offset += _skip_line(file)
                if not bad or last_bad != number - 1:  # one entry for a stretch of bad lines
                    bad.append(Damage(path, number, _why(raw)))
                last_bad = number
                if whole := _within(raw):
                    report.damage.extend(bad)
                    bad.clear()
                    yield from whole
                continue
            report.damage.extend(bad)
            bad.clear()
            yield line
    # Bad lines with no good one after them: the tail that a dying process left, if this is where it was writing.
    (report.torn if newest else report.damage).extend(bad)


def _within(raw: bytes) -> list[Line]:
    """Return the good lines within a bad one: where a newline was damaged, those on both sides of it are whole."""
    starts = [match.start() for match in HEAD.finditer(raw)]
    if raw[-1:] != b"\n" or starts in ([], [0]):
        return []
    pieces = [raw[a:b] for a, b in zip(starts, [*starts[1:], len(raw)], strict=True)]
    return [line for piece in pieces if (line := check(piece[:-1] + b"\n"))]


def _skip_line(file: BinaryIO) -> int:
    skipped = 0
    while True:
        part = file.readline(MAX_LINE)
        skipped += len(part)
        if not part or part[-1:] == b"\n":
            return skipped


def _why(raw: bytes) -> str:
    if raw[-1:] != b"\n":
        return "longer than 1 MiB" if len(raw) > MAX_LINE else "ends without a newline"
    if raw.strip(b"\0\n") == b"":
        return "holds zeros"
    return "its check does not fit its bytes"
