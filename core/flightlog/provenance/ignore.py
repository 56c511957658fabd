"""Which files `.flightlogignore` leaves out: patterns as in a .gitignore (gitignore(5)).

A pattern is matched part by part between the slashes, so that no pattern, however odd, takes long.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = ".flightlogignore"
_MAX_FILE = 64 << 10
_MAX_PATTERNS = 1000
_MAX_PARTS = 32


@dataclass(frozen=True, slots=True)
class _Pattern:
    parts: tuple[str, ...]
    keeps: bool
    folders_only: bool


class Ignore:
    """Patterns; the last that fits decides.

    Args:
        lines: the lines of a .flightlogignore.
    """

    def __init__(self, lines: Iterable[str] = ()) -> None:
        found = [pattern for line in lines if (pattern := _parse(line)) is not None]
        self._patterns = found[:_MAX_PATTERNS]

    @classmethod
    def beside(cls, folder: Path) -> Ignore:
        """Read a folder's .flightlogignore; nothing is left out where there is none."""
        try:
            with open(folder / FILE, encoding="utf-8", errors="replace") as file:
                return cls(file.read(_MAX_FILE).splitlines())
        except OSError:
            return cls()

    def leaves_out(self, path: str, *, folder: bool = False) -> bool:
        """Tell whether a path, relative with "/" between, is left out by itself. (Of a folder that is, ask no further.)

        Args:
            path: the path.
            folder: it is one.
        """
        parts = tuple(path.split("/"))
        for pattern in reversed(self._patterns):
            if (folder or not pattern.folders_only) and _fits(pattern.parts, parts):
                return not pattern.keeps
        return False

    def leaves_out_with_parents(self, path: str) -> bool:
        """Tell whether a file is left out, by itself or because a folder above it is."""
        parts = path.split("/")
        above = ("/".join(parts[:i]) for i in range(1, len(parts)))
        return any(self.leaves_out(folder, folder=True) for folder in above) or self.leaves_out(path)


def _parse(line: str) -> _Pattern | None:
    line = re.sub(r"(?<!\\) +$", "", line.rstrip("\r\n"))
    if not line or line.startswith("#"):
        return None
    keeps = line.startswith("!")
    line = line[1:] if keeps else line
    folders_only = line.endswith("/")
    line = line.rstrip("/") if folders_only else line
    if not line:
        return None
    anchored = "/" in line
    parts = [part for i, part in enumerate(line.split("/")) if part or i]
    if not anchored:
        parts = ["**", *parts]
    if len(parts) > _MAX_PARTS or "" in parts:
        return None
    return _Pattern(tuple(parts), keeps, folders_only)


def _fits(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    """Tell whether the parts of a pattern, "**" for any number of folders, fit those of a path."""
    # Which tails of the path the rest of the pattern begins at: a set, so that several "**" do not multiply.
    at = {0}
    for i, piece in enumerate(pattern):
        last = i == len(pattern) - 1
        if piece == "**":
            first = min(at)
            at = set(range(first + 1 if last else first, len(parts) + 1))
        else:
            at = {n + 1 for n in at if n < len(parts) and _expression(piece).fullmatch(parts[n])}
        if not at:
            return False
    return len(parts) in at


@lru_cache(maxsize=4096)
def _expression(piece: str) -> re.Pattern[str]:
    """Return what one part of a pattern means; "*" and "?" stay between the slashes, since there are none in a part."""
    translated: list[str] = []
    at = 0
    while at < len(piece):
        sign = piece[at]
        if sign == "\\":
            at += 1
            translated.append(_literally(piece[at : at + 1]))
        elif sign == "[" and (end := _end_of_set(piece, at)):
            inside = piece[at + 1 : end]
            translated.append(f"[{'!' + inside[1:] if inside[:1] in ('^', '!') else inside}]")
            at = end
        elif sign == "[":
            return re.compile(r"(?!)")  # a set without an end fits nothing
        else:
            translated.append(sign)
        at += 1
    return re.compile(fnmatch.translate("".join(translated)), re.DOTALL)


def _literally(sign: str) -> str:
    return f"[{sign}]" if sign in ("*", "?", "[") else sign


def _end_of_set(piece: str, at: int) -> int:
    """Return where a set that begins at `at` ends, 0 where it does not; "]" right after the beginning belongs to it."""
    start = at + 2 if piece[at + 1 : at + 2] in ("^", "!") else at + 1
    return max(0, piece.find("]", start + 1))
