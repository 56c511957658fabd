"""What a terminal would show of a stream: the last lines of a screen, on which carriage returns, backspaces and cursor
movements act, so that a progress bar is one line and not ten thousand.

The sequences are those of ECMA-48 that progress bars and `rich` use. Colours (SGR) are kept, every other sequence acts
or vanishes; so a line holds no control characters but tabs and `ESC [ … m`. A character counts as one column. Lines
have numbers, and a line that changes after it was told is told again under its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..journal.values import text as utf8

HEIGHT = 64
WIDTH = 16 << 10
# How long a line that goes on changing waits between two tellings, in seconds: a fiftieth of its age, within bounds. A
# bar of a day's training is told a few thousand times, not once for each of its updates.
MIN_WAIT = 1.0
MAX_WAIT = 10.0
_AGE_SHARE = 50.0
_MAX_HELD = 4096
_MAX_STYLES = 500

Line = tuple[int, str]

# Text; a control sequence (CSI); an operating system command and its like, up to BEL or ST; another escape; a control.
_TOKEN = re.compile(
    r"[^\x00-\x08\x0a-\x1f\x7f-\x9f]+"
    r"|\x1b\[[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[\x20-\x2f]*[\x30-\x4f\x51-\x57\x59\x5a\x5c\x60-\x7e]"
    r"|[\x00-\x1f\x7f-\x9f]"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[\x20-\x3f]*|[\]PX^_][^\x07\x1b]*\x1b?|[\x20-\x2f]*)\Z")
# SGR codes by what they set, and by what they end (ECMA-48, 8.3.117, and the bright colours of aixterm).
_SETS = {
    **dict.fromkeys((1, 2), "weight"), 3: "slant", 4: "underline", 5: "blink", 6: "blink", 7: "inverse", 8: "hidden",
    9: "strike", **dict.fromkeys((*range(30, 38), *range(90, 98)), "ink"),
    **dict.fromkeys((*range(40, 48), *range(100, 108)), "paper"), 53: "overline",
}  # fmt: skip
_ENDS = {
    22: "weight", 23: "slant", 24: "underline", 25: "blink", 27: "inverse", 28: "hidden", 29: "strike", 39: "ink",
    49: "paper", 55: "overline",
}  # fmt: skip
_EXTENDED = {38: "ink", 48: "paper"}


class _Row:
    """One line of the screen. `styles` are (column, style) where a style begins; a style is the inside of an SGR."""

    __slots__ = ("cut", "dirty", "due", "finished", "number", "since", "styles", "text", "touched")

    def __init__(self) -> None:
        self.number = 0  # given when something is written there: the other stream's lines may come first
        self.text = ""
        self.styles: list[tuple[int, str]] = []
        self.cut = self.touched = self.dirty = self.finished = False
        self.since = self.due = 0.0

    def write(self, column: int, text: str, style: str) -> None:
        """Put text at a column, over what is there."""
        before = self.text
        length = len(before)
        end = column + len(text)
        if column < length:
            self.text = before[:column] + text + before[end:]
            self.touched = True
        else:
            self.text = before + " " * (column - length) + text
        if style or self.styles:
            self._paint(column, end, style, length)

    def erase(self, start: int, end: int) -> None:
        """Clear the columns from `start` on, up to `end`."""
        if end >= len(self.text):
            self.text = self.text[:start]
            self.styles = [run for run in self.styles if run[0] < start]
            self.touched, self.cut = True, False
        elif end > start:
            self.write(start, " " * (end - start), "")

    def _paint(self, start: int, end: int, style: str, length: int) -> None:
        """Note the style of the columns from `start` to `end` of a line that was `length` long before."""
        if len(self.styles) >= _MAX_STYLES:
            return
        if len(self.styles) == _MAX_STYLES - 1:  # from here on without colours
            style = ""
        if start == length:
            if style != (self.styles[-1][1] if self.styles else ""):
                self.styles.append((start, style))
            return
        after = self._style_at(end) if end < length else ""
        runs = [run for run in self.styles if run[0] < start]
        if start > length and runs and runs[-1][1]:
            runs.append((length, ""))
        runs.append((start, style))
        if end < length:
            runs += [(end, after), *(run for run in self.styles if run[0] > end)]
        self.styles = [run for i, run in enumerate(runs) if run[1] != (runs[i - 1][1] if i else "")]

    def _style_at(self, column: int) -> str:
        return next((style for start, style in reversed(self.styles) if start <= column), "")

    def shown(self) -> str:
        """Return the line as text, each coloured part with its own beginning and end."""
        text = self.text.rstrip(" ") if self.touched else self.text
        styled = self._coloured(text) if self.styles else text
        if len(styled) > 2 * WIDTH:
            styled = text
        if self.cut:
            styled += "…"
        return styled if styled.isascii() else utf8(styled)

    def _coloured(self, text: str) -> str:
        ends = [start for start, _ in self.styles[1:]] + [len(text)]
        parts = [text[: self.styles[0][0]]]
        for (start, style), end in zip(self.styles, ends, strict=True):
            piece = text[start:end]
            parts.append(f"\x1b[{style}m{piece}\x1b[0m" if style and piece else piece)
        return "".join(parts)

    def told(self, now: float) -> Line:
        """Return number and text, and note that they have been told."""
        self.dirty = False
        self.due = now + min(max((now - self.since) / _AGE_SHARE, MIN_WAIT), MAX_WAIT)
        return self.number, self.shown()


class Screen:
    """The last `HEIGHT` lines of one stream.

    Args:
        numbers: where the lines' numbers come from; the screens of two streams may share it.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._rows = [_Row()]
        self._at = 0
        self._column = 0
        self._home: int | None = None  # the row that a cleared screen began with
        self._look: dict[str, str] = {}
        self._style = ""
        self._held = ""

    def feed(self, text: str, now: float) -> list[Line]:
        """Show what was written and return the lines that it finished.

        Args:
            text: any part of a stream; it may begin and end within an escape sequence.
            now: a monotonic time in seconds.
        """
        if self._held:
            text, self._held = self._held + text, ""
        if "\x1b" in text and (unfinished := _UNFINISHED.search(text)):
            text, held = text[: unfinished.start()], unfinished[0]
            self._held = held if len(held) <= _MAX_HELD else ""
        finished: list[Line] = []
        for token in _TOKEN.findall(text):
            first = token[0]
            if (first >= " " or first == "\t") and not "\x7f" <= first <= "\x9f":
                self._write(token, now)
            elif first in "\n\x0b\x0c":
                self._new_line(finished, now)
            elif first == "\r":
                self._column = 0
            elif first == "\b":
                self._column = max(0, self._column - 1)
            elif first == "\x1b":
                self._escape(token, finished, now)
        return finished

    @property
    def in_line(self) -> bool:
        """Whether a line has been begun that has no end yet."""
        row = self._rows[self._at]
        return bool(row.number) and not row.finished

    def changed(self, now: float, *, all: bool = False) -> list[Line]:
        """Return the lines that have changed since they were told, and whose time to be told again has come.

        Args:
            now: as for `feed`.
            all: do not wait for that time.
        """
        return [row.told(now) for row in self._rows if row.dirty and (all or now >= row.due)]

    # -- writing -------------------------------------------------------------------------------------------------------

    def _write(self, text: str, now: float) -> None:
        row = self._touch(now)
        room = WIDTH - self._column
        if len(text) > room:
            text = text[:room]
            row.cut = True
        row.write(self._column, text, self._style)
        self._column += len(text)

    def _touch(self, now: float) -> _Row:
        row = self._rows[self._at]
        if not row.number:
            row.number = next(self._numbers)
            row.since, row.due = now, now + MIN_WAIT
        row.dirty = True
        return row

    def _new_line(self, finished: list[Line], now: float) -> None:
        row = self._rows[self._at]
        if not row.finished:
            self._touch(now).finished = True
            finished.append(row.told(now))
        self._column = 0
        self._at += 1
        if self._at == len(self._rows):
            self._rows.append(_Row())
            if len(self._rows) > HEIGHT:
                self._scroll(finished, now)

    def _scroll(self, finished: list[Line], now: float) -> None:
        gone = self._rows.pop(0)
        self._at -= 1
        if self._home is not None:
            self._home = max(0, self._home - 1)
        if gone.dirty:
            finished.append(gone.told(now))

    # -- escape sequences ----------------------------------------------------------------------------------------------

    def _escape(self, token: str, finished: list[Line], now: float) -> None:
        if len(token) < 3 or token[1] != "[" or token[2] in "<=>?":
            return
        action, words = token[-1], token[2:-1].replace(":", ";").split(";")
        numbers = [int(word) if word.isdecimal() and len(word) < 7 else 0 for word in words[:32]]
        if action == "m":
            self._dress(numbers)
        elif action in "ABCDEFG":
            self._move(action, numbers[0] or 1)
        elif action == "K":
            self._erase_in_line(numbers[0], now)
        elif action == "J":
            self._erase_in_screen(numbers[0], finished, now)
        elif action in "Hf" and self._home is not None:
            self._go_to(numbers[0] or 1, numbers[1] if len(numbers) > 1 else 1, now)

    def _move(self, action: str, count: int) -> None:
        if action in "AF":
            self._at = max(0, self._at - count)
        elif action in "BE":
            self._at = min(len(self._rows) - 1, self._at + count)
        if action == "C":
            self._column = min(WIDTH, self._column + count)
        elif action == "D":
            self._column = max(0, self._column - count)
        elif action == "G":
            self._column = min(WIDTH, count - 1)
        elif action in "EF":
            self._column = 0

    def _erase_in_line(self, what: int, now: float) -> None:
        if not self._rows[self._at].number:
            return  # nothing there yet: no line comes to be by being erased
        row = self._touch(now)
        row.erase(0 if what else self._column, self._column + 1 if what == 1 else WIDTH)

    def _erase_in_screen(self, what: int, finished: list[Line], now: float) -> None:
        if what == 0:
            self._erase_in_line(0, now)
            for row in self._rows[self._at + 1 :]:
                if row.text:
                    row.erase(0, WIDTH)
                    row.dirty = True
        elif what in (2, 3):
            # A terminal forgets; a record does not: what was on the screen stays above, and a new one begins.
            finished += self.changed(now, all=True)
            self._rows, self._at, self._column, self._home = [_Row()], 0, 0, 0

    def _go_to(self, line: int, column: int, now: float) -> None:
        target = min((self._home or 0) + line - 1, HEIGHT - 1)
        while len(self._rows) <= target:
            self._at = len(self._rows) - 1
            self._touch(now)
            self._rows.append(_Row())
        self._at, self._column = target, min(WIDTH, max(0, column - 1))

    def _dress(self, codes: list[int]) -> None:
        """Take over the codes of a "select graphic rendition"."""
        rest = iter(codes)
        for code in rest:
            if code == 0:
                self._look.clear()
            elif code in _SETS:
                self._look[_SETS[code]] = str(code)
            elif code in _ENDS:
                self._look.pop(_ENDS[code], None)
            elif code in _EXTENDED:  # 38;5;<colour> or 38;2;<red>;<green>;<blue>
                kind = next(rest, 0)
                values = [str(next(rest, 0)) for _ in range({5: 1, 2: 3}.get(kind, 0))]
                if values:
                    self._look[_EXTENDED[code]] = ";".join([str(code), str(kind), *values])
        self._style = ";".join(self._look.values())
