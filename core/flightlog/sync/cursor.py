"""Reading what a writer's journal has grown by, without reading again what was there before.

A cursor knows the segment and offset that it has come to. It is for following a sound journal closely: where anything
is other than expected (a hole, a segment that shrank), it raises OutOfStep, and a whole sync, which reads everything,
decides what that means.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from pathlib import Path

from ..journal.reader import open_regular, segments
from ..journal.record import MAX_LINE, Line, check

BLOCK = 4 << 20
_NEWLINE = 0x0A
# On a network file system bytes may appear as zeros before they appear as what they are.
_UNSETTLED_SECONDS = 5.0


class OutOfStep(Exception):
    """The journal, or the server, is not as it was left: a whole sync must look at it."""


class Cursor:
    """Follows one writer.

    Args:
        folder: the writer's folder.
        last: the last seq that is known already.

    Attributes:
        at_end: the newest segment has been read as far as it went.
    """

    def __init__(self, folder: Path, last: int) -> None:
        self.folder = folder
        self.last = last
        self._segment = _segment_behind(folder, last)
        self._offset = 0
        self._seen: tuple[int, int] | None = None
        self._grew = 0.0
        self.at_end = True

    @property
    def _path(self) -> Path:
        return self.folder / f"{self._segment:06d}.jsonl"

    def read(self) -> list[Line]:
        """Return the next lines, a few MB of them at most; nothing where there are none yet.

        Raises:
            OutOfStep: what follows is not the next seq, or the segment has shrunk.
        """
        while True:
            following = (self.folder / f"{self._segment + 1:06d}.jsonl").exists()  # asked first: then this one is whole
            lines = self._read_segment()
            if lines or (self.at_end and not following):
                return lines
            if self.at_end:
                self._segment += 1
                self._offset, self._seen = 0, None

    def _read_segment(self) -> list[Line]:
        """Return the next lines of the segment, having looked at its size first: mostly nothing has happened."""
        try:
            facts = self._path.lstat()
            if facts.st_size < self._offset:
                raise OutOfStep(f"{self._path} has shrunk")
            now = time.monotonic()
            if (facts.st_size, facts.st_mtime_ns) != self._seen:
                self._seen, self._grew = (facts.st_size, facts.st_mtime_ns), now
            elif self.at_end and now - self._grew > _UNSETTLED_SECONDS:
                return []
            self.at_end = True
            if facts.st_size == self._offset:
                return []
            with open_regular(self._path) as file:
                data = os.pread(file.fileno(), BLOCK, self._offset)
        except FileNotFoundError:
            if self._seen is not None or self.last:
                raise OutOfStep(f"{self._path} is not there any more") from None
            self.at_end = True
            return []
        self.at_end = self._offset + len(data) >= facts.st_size
        lines, used = self._take(data)
        if not used and not self.at_end:  # megabytes that are no line
            used = data.rfind(b"\n") + 1 or len(data)
        self._offset += used
        return lines

    def _take(self, data: bytes) -> tuple[list[Line], int]:
        """Return the new lines in some bytes, and how many of these are done with: up to the last sound line."""
        lines: list[Line] = []
        position = used = 0
        for raw in io.BytesIO(data):
            if raw[-1] != _NEWLINE:
                break
            position += len(raw)
            line = check(raw)
            if line is None:  # half a line that was written again, or bytes that have not arrived yet
                continue
            if line.seq > self.last:
                if line.seq != self.last + 1:
                    raise OutOfStep(f"{self._path}: seq {line.seq} follows {self.last}")
                lines.append(line)
                self.last = line.seq
            used = position
        return lines, used


def _segment_behind(folder: Path, last: int) -> int:
    """Return the number of the newest segment that begins no later than behind `last`."""
    paths = segments(folder)
    for path in reversed(paths[1:]):
        first = _first_line(path)
        if first is not None and first.seq <= last + 1:
            return int(path.stem)
    return int(paths[0].stem) if paths else 1


def _first_line(path: Path) -> Line | None:
    with contextlib.suppress(OSError), open_regular(path) as file:
        for raw in io.BytesIO(file.read(MAX_LINE + 1)):
            line = check(raw)
            if line is not None:
                return line
    return None
