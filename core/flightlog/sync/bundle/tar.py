"""Tar archives: written so that the same runs give the same bytes, and read although anybody may have made them.

The reader is our own, since the standard library's keeps extended headers of any size in memory, follows what headers
say of offsets, and knows links, devices and sparse files, none of which a bundle has any business with. Format: POSIX
ustar and pax (IEEE Std 1003.1, "pax Interchange Format"), and GNU's long names.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from ...errors import DamagedError
from ...protocol.manifest import is_safe_path
from ...rundir import SPEC
from ...terminal import printable

Advance = Callable[[int], None]  # told the bytes of content as they go by

BLOCK = 512
END = bytes(2 * BLOCK)
_RECORD = 20 * BLOCK  # what tar programs fill an archive up to
_COPY = 1 << 20
_MAX_EXTENDED = 64 << 10
_MAX_SIZE = 1 << 50
_MOST_HEADERS = 8  # extended headers before one member
_MAX_MTIME = 1 << 40
_KINDS = {
    b"1": "a hard link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"g": "a header for all that follows",
}


# The links beside runs, which lead to the newest; a tar of their folder has them. Nothing is made of them.
_OUR_LINKS = {"latest": r"run-[^/]+", SPEC: re.escape(f"latest/{SPEC}"), "files": "latest/files"}


# -- writing -----------------------------------------------------------------------------------------------------------


def header(name: str, size: int, mtime: float = 0.0) -> bytes:
    """Return the header of a regular file; nothing in it depends on who writes it, where or when."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, max(0, int(mtime)), 0o644
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """Return what fills a content of so many bytes up to a whole block."""
    return bytes(-size % BLOCK)


def ending(size: int) -> bytes:
    """Return what ends an archive that is so many bytes long without it."""
    return END + bytes(-(size + len(END)) % _RECORD)


# -- reading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive: its path, which stays inside any folder, its size in bytes, and when it last changed."""

    name: str
    size: int
    mtime: float
    is_folder: bool


def _is_our_link(path: str, block: bytes) -> bool:
    target = _OUR_LINKS.get(path.rpartition("/")[2])
    return bool(target and re.fullmatch(target, block[157:257].rstrip(b"\0").decode(errors="replace")))


class TarReader:
    """Reads an archive from its beginning to its end, once.

    Args:
        stream: the archive, uncompressed; it need not be seekable.
        what: what to call it in errors.
    """

    def __init__(self, stream: IO[bytes], what: str) -> None:
        self._stream = stream
        self._what = what
        self._left = 0  # bytes of the current member that have not been read
        self._pad = 0
        self._name = ""

    def members(self) -> Iterator[Member]:
        """Yield the members in order; the content of each can be read until the next is asked for.

        Raises:
            DamagedError: it is cut off, no tar, or holds what a bundle may not hold; the text names the member.
        """
        while (member := self._next()) is not None:
            yield member
            self._skip()

    def read(self, most: int = _COPY) -> bytes:
        """Return up to so many bytes more of the current member; b"" at its end. Raises DamagedError."""
        wanted = min(most, self._left)
        data = self._exactly(wanted) if wanted else b""
        self._left -= len(data)
        return data

    def _next(self) -> Member | None:
        said: dict[str, str] = {}
        for _ in range(_MOST_HEADERS):
            block = self._exactly(BLOCK)
            if block == bytes(BLOCK):
                if said or self._exactly(BLOCK) != bytes(BLOCK):
                    raise self._fault("a block of zeros stands where no end can be")
                return None
            kind, size = self._checked(block)
            if kind in (b"x", b"L"):
                said.update(self._extended(kind, size))
                continue
            return self._member(block, kind, size, said)
        raise self._fault(f"{_MOST_HEADERS} extended headers precede one member")

    def _member(self, block: bytes, kind: bytes, size: int, said: dict[str, str]) -> Member:
        name = said.get("path") or self._name_in(block)
        is_folder = kind == b"5" or (kind in (b"0", b"\0") and name.endswith("/"))
        path = name.rstrip("/") if is_folder else name
        path = path[2:] if path.startswith("./") else path
        self._name = path
        if kind == b"2" and _is_our_link(path, block):
            return Member(".", 0, 0.0, is_folder=True)
        if kind not in (b"0", b"\0", b"5"):
            raise self._fault(f"is {_KINDS.get(kind, f'of the unknown kind {kind!r}')}")
        if any(key.startswith("GNU.sparse") for key in said):
            raise self._fault("is a sparse file")
        if is_folder and path in ("", "."):
            path = "."
        elif not is_safe_path(path):
            raise self._fault("its path leads out of the folder")
        size = self._number(said["size"]) if "size" in said else size
        mtime = self._time(said["mtime"]) if "mtime" in said else float(self._octal(block[136:148]))
        self._left = 0 if is_folder else size
        self._pad = -self._left % BLOCK
        return Member(path, self._left, min(mtime, _MAX_MTIME), is_folder)

    def _checked(self, block: bytes) -> tuple[bytes, int]:
        """Return a header's kind and size, given that its sum is right."""
        unsigned = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
        stated = block[148:156].strip(b" \0")
        if not stated.isdigit() or b"8" in stated or b"9" in stated or int(stated, 8) != unsigned:
            raise self._fault("is followed by what is no tar header" if self._name else "is no tar archive")
        return block[156:157], self._octal(block[124:136])

    def _extended(self, kind: bytes, size: int) -> dict[str, str]:
        if size > _MAX_EXTENDED:
            raise self._fault(f"is followed by an extended header of {size:,} bytes")
        content = self._exactly(size + (-size % BLOCK))[:size]
        if kind == b"L":
            return {"path": self._text(content.rstrip(b"\0"))}
        said = {}
        while content:
            length_text, _, _ = content.partition(b" ")
            length = int(length_text) if length_text.isdigit() and len(length_text) < 8 else 0
            pair, content = content[:length], content[length:]
            key, equals, value = pair[len(length_text) + 1 : -1].partition(b"=")
            if not (length and len(pair) == length and equals and pair.endswith(b"\n")):
                raise self._fault("is followed by an extended header that makes no sense")
            said[self._text(key)] = self._text(value)
        return said

    def _name_in(self, block: bytes) -> str:
        name = self._text(block[:100].split(b"\0")[0])
        prefix = self._text(block[345:500].split(b"\0")[0]) if block[257:263] == b"ustar\0" else ""
        return f"{prefix}/{name}" if prefix else name

    def _text(self, content: bytes) -> str:
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise self._fault("is followed by a name that is no UTF-8") from None

    def _octal(self, field: bytes) -> int:
        if field[0] & 0x80:  # GNU: the number itself, base 256
            number = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        else:
            text = field.strip(b" \0")
            try:
                number = int(text, 8) if text else 0
            except ValueError:
                raise self._fault("is no tar archive, or damaged: a number in a header is none") from None
        return self._sane(number)

    def _number(self, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise self._fault(f"its size is {text[:40]!r}")
        return self._sane(int(text))

    def _time(self, text: str) -> float:
        try:
            return max(0.0, min(float(text), float(_MAX_MTIME)))
        except ValueError:
            raise self._fault(f"its time is {text[:40]!r}") from None

    def _sane(self, number: int) -> int:
        if not 0 <= number <= _MAX_SIZE:
            raise self._fault("a number in a header is beyond all bounds")
        return number

    def _skip(self) -> None:
        while self._left:
            self.read()
        if self._pad:
            self._exactly(self._pad)
            self._pad = 0

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._stream.read(size)
            if not part:
                raise self._fault("it is cut off here: copy it again")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _fault(self, why: str) -> DamagedError:
        at = f": {printable(self._name[:300])}" if self._name else ""
        return DamagedError(f"{self._what}{at}: {why}")
