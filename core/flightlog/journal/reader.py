"""Reading a journal back, whatever has happened to it.

A bad line at the end of a writer's newest segment is a torn tail: the process died while writing, nothing that was
acknowledged is missing. Anywhere else it is damage: the reader goes on with the next good line and reports which seqs
are missing. Nothing in here raises for the bytes it meets. A run may have thousands of writers, all of which are read
at once in order to be merged: files are read a block at a time, and none is held open in between.
"""

from __future__ import annotations

import errno
import io
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
BLOCK = 1 << 20
_SMALL_BLOCK = 8 << 10
_NEWLINE = 0x0A
_BLOCKS_TOGETHER = 64 << 20
_MOST_DAMAGE = 10_000
_O_BENEATH = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class Damage(NamedTuple):
    """A stretch of a segment that no record could be read from; line 0 stands for a whole folder."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.reason}" if self.line else f"{self.path}: {self.reason}"


@dataclass(slots=True)
class WriterReport:
    """What reading a writer's folder found besides good lines. Complete once the lines have been exhausted.

    Of the damage the first ten thousand stretches are named; of the seqs that are missing all.
    """

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


def read_upto(file: BinaryIO, most: int) -> bytes:
    """Return a small file's bytes, but not more than `most`: room for only so many as there are is far cheaper."""
    return file.read(min(most, os.fstat(file.fileno()).st_size + 1))


def regular_file(fd: int, name: object) -> BinaryIO:
    """Return an open descriptor as a file; closes it and raises OSError, naming it, where it is no regular file."""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{name} is not a regular file")
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def block_for(writers: int) -> int:
    """Return how many bytes to read at a time, so that so many writers read at once do not fill the memory."""
    return min(BLOCK, max(_SMALL_BLOCK, _BLOCKS_TOGETHER // max(writers, 1)))


def writer_folders(journal: Path) -> list[Path]:
    """Return the folders of a journal's writers, sorted by name.

    No link is followed: a stranger's run directory could name the journals of a run that only its reader may see.

    Raises:
        OSError: the journal is there and cannot be looked into; or it, or the `files` that it is in, is a link.
    """
    for place in (journal.parent, journal):
        if place.is_symlink():
            raise OSError(errno.ELOOP, "it is a link, and none is followed", str(place))
    try:
        with os.scandir(journal) as entries:
            return sorted(
                Path(e.path) for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def segments(folder: Path) -> list[Path]:
    """Return a writer's segments in order. Raises OSError where its folder is there and cannot be looked into."""
    try:
        with os.scandir(folder) as entries:
            found = [Path(e.path) for e in entries if _SEGMENT.fullmatch(e.name) and e.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda p: int(p.stem))


def read_writer(
    folder: Path, report: WriterReport, sizes: dict[str, int] | None = None, *, block: int = BLOCK
) -> Iterator[Line]:
    """Yield a writer's good lines in order of seq, each seq once; fill in `report` on the way.

    Args:
        folder: the writer's folder.
        report: filled while reading.
        sizes: by segment name, read no further than this many bytes (a snapshot of a journal that is growing).
        block: bytes to read at a time; see `block_for`.
    """
    try:
        paths = segments(folder)
    except OSError as error:
        report.damage.append(_unreadable(folder, 0, error))
        return
    expected = 1
    held: dict[int, Line] = {}
    held_bytes = 0
    for number, path in enumerate(paths):
        limit = None if sizes is None else sizes.get(path.name, 0)
        lines = _lines(path, limit, block)
        for line in _read_segment(path, lines, report, newest=number == len(paths) - 1):
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


def _read_segment(path: Path, lines: Iterator[bytes], report: WriterReport, *, newest: bool) -> Iterator[Line]:
    bad: list[Damage] = []
    number = last_bad = 0
    try:
        for number, raw in enumerate(lines, 1):
            line = check(raw)
            if line is not None:
                if bad:
                    _note(report.damage, bad)
                yield line
                continue
            if not bad or last_bad != number - 1:  # one entry for a stretch of bad lines
                bad.append(Damage(path, number, _why(raw)))
            last_bad = number
            if whole := _within(raw):
                _note(report.damage, bad)
                yield from whole
    except OSError as error:  # a bad block, say; what lies behind it may have been written again elsewhere
        bad.append(_unreadable(path, number + 1, error))
        newest = False
    # Bad lines with no good one after them: the tail that a dying process left, if this is where it was writing.
    _note(report.torn if newest else report.damage, bad)


def _note(known: list[Damage], found: list[Damage]) -> None:
    known.extend(found[: max(0, _MOST_DAMAGE - len(known))])
    found.clear()


def _unreadable(path: Path, line: int, error: OSError) -> Damage:
    return Damage(path, line, f"cannot be read: {error.strerror or error}")


def _lines(path: Path, limit: int | None, block: int) -> Iterator[bytes]:
    """Yield a file's lines with their newlines; of one that is longer than a line may be no more than that.

    Args:
        path: the file. limit: read no further than this; None for all. block: bytes to read at a time.

    Raises:
        OSError: it cannot be opened, or not be read any further.
    """
    offset, rest, too_long = 0, b"", False
    while True:
        wanted = max(block, len(rest))  # as much again of a line that goes on: what is copied stays linear
        wanted = wanted if limit is None else min(wanted, limit - offset)
        data, ended = _read_at(path, offset, wanted)
        offset += len(data)
        if too_long:
            newline = data.find(b"\n")
            too_long, data = newline < 0, data[newline + 1 :] if newline >= 0 else b""
        for line in io.BytesIO(rest + data):
            if line[-1] != _NEWLINE:
                rest = line
                break
            yield line if len(line) <= MAX_LINE else line[: MAX_LINE + 1]
        else:
            rest = b""
        if ended:
            break
        if len(rest) > MAX_LINE:
            yield rest[: MAX_LINE + 1]
            rest, too_long = b"", True
    if rest:
        yield rest[: MAX_LINE + 1]


def _read_at(path: Path, offset: int, wanted: int) -> tuple[bytes, bool]:
    """Return bytes of a file, and whether it ends with them. What lies before a bad block is read as well."""
    parts: list[bytes] = []
    with open_regular(path) as file:
        while wanted > 0:
            try:
                part = os.pread(file.fileno(), wanted, offset)
            except OSError:
                if parts:
                    return b"".join(parts), False  # the next read will raise it again, if it still stands
                raise
            if not part:
                return b"".join(parts), True
            parts.append(part)
            offset += len(part)
            wanted -= len(part)
    return b"".join(parts), not parts


def _within(raw: bytes) -> list[Line]:
    """Return the good lines within a bad one: where a newline was damaged, those on both sides of it are whole."""
    starts = [match.start() for match in HEAD.finditer(raw)]
    if raw[-1:] != b"\n" or starts in ([], [0]):
        return []
    pieces = [raw[a:b] for a, b in zip(starts, [*starts[1:], len(raw)], strict=True)]
    return [line for piece in pieces if (line := check(piece[:-1] + b"\n"))]


def _why(raw: bytes) -> str:
    if raw[-1:] != b"\n":
        return "longer than 1 MiB" if len(raw) > MAX_LINE else "ends without a newline"
    if raw.strip(b"\0\n") == b"":
        return "holds zeros"
    return "its check does not fit its bytes"
