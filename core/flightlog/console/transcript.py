"""From console records back to the lines that the terminal showed (docs/console.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .outbox import STREAMS

# Whoever reads may show this on a terminal, and whoever wrote it may not be a friend: colours pass, nothing else does.
_UNSHOWABLE = re.compile(r"\x1b(?!\[[0-9;]{0,80}m)|[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]")
_MAX_NUMBER = 1 << 62


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """A line: its number in its writer, where it went, its text, and how many lines before it were left out."""

    number: int
    stream: str
    text: str
    left_out: int = 0


class Transcript:
    """The console of one writer, put together from its records in order of seq.

    Args:
        stream: only this one of "stdout" and "stderr".
    """

    def __init__(self, stream: str | None = None) -> None:
        self._stream = stream
        self._lines: dict[int, TranscriptLine] = {}
        self._left_out: dict[str, int] = dict.fromkeys(STREAMS, 0)

    def add(self, data: Mapping[str, Any]) -> None:
        """Take in the data of a console record; what does not look like one is passed over."""
        stream, lines, dropped = data.get("stream"), data.get("lines"), data.get("dropped", 0)
        if stream not in STREAMS or not isinstance(lines, list) or self._stream not in (None, stream):
            return
        if type(dropped) is int and dropped > 0:
            self._left_out[stream] += dropped
        for line in lines:
            if _is_line(line):
                self._put(line[0], stream, line[1])

    def _put(self, number: int, stream: str, text: str) -> None:
        earlier = self._lines.get(number)
        if earlier is None:  # what was left out stood before the first line that is new
            missing, self._left_out[stream] = self._left_out[stream], 0
        else:
            missing = earlier.left_out
        self._lines[number] = TranscriptLine(number, stream, _UNSHOWABLE.sub("\ufffd", text), missing)

    def lines(self) -> list[TranscriptLine]:
        """Return the lines in the order in which they were begun."""
        return [self._lines[number] for number in sorted(self._lines)]


def render(records: Iterable[Mapping[str, Any]], stream: str | None = None) -> list[str]:
    """Return the lines of a console as the terminal showed them.

    Args:
        records: the data of the console records of one writer, in order of seq.
        stream: only "stdout" or "stderr".

    Returns:
        A text for each line, with no control characters but tabs and colours (SGR); where lines were left out there is
        a line that says how many.
    """
    transcript = Transcript(stream)
    for data in records:
        transcript.add(data)
    shown: list[str] = []
    for line in transcript.lines():
        if line.left_out:
            shown.append(f"[{line.left_out:,} lines left out]")
        shown.append(line.text)
    return shown


def _is_line(line: Any) -> bool:
    return (
        isinstance(line, list | tuple)
        and len(line) == 2
        and type(line[0]) is int
        and 0 < line[0] < _MAX_NUMBER
        and isinstance(line[1], str)
    )
