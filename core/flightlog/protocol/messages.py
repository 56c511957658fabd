"""The messages between client and server (docs/protocol.md), checked where they come in."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .manifest import FileEntry, is_safe_path, is_sha256

VERSION = 1
MAX_BATCH = 16 << 20  # bytes of lines in one records request, before compression
MAX_PACK = 64 << 20  # bytes of one pack
MAX_CHUNK = 8 << 20
MAX_SPAN = 1 << 26  # seqs from the first to the last of one records request, lost ones included
MAX_DIGESTS = 64  # seqs in one question for digests
MAX_ASKED = 10_000  # chunks in one question, files in one commit
MAX_VERSIONS = 200  # artifact versions in one commit
MAX_HELD_RUNS = 200  # runs in one question for holdings
MAX_HELD_WRITERS = 2_000  # of all of them

Ranges = list[tuple[int, int]]
# Whether a server holds what it has once acknowledged of a run. gone: it was deleted there; unknown: it is in a
# workspace that the account does not see, which is all that it is told.
Held = Literal["held", "lacking", "gone", "unknown"]
_BEYOND = 1 << 62


@dataclass(frozen=True, slots=True)
class WriterState:
    """What a server holds of a writer: all up to `last`, but for the `lost` ranges; `digest` is over those lines.

    `base` is, of a branch, the writer whose lines it shares, and up to which seq.
    """

    last: int
    digest: str
    lost: Ranges = field(default_factory=list)
    base: tuple[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"last": self.last, "digest": self.digest, "lost": [list(r) for r in self.lost]}
        return {**shown, "base": list(self.base)} if self.base else shown

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WriterState:
        """Raises KeyError, TypeError or ValueError where `data` is nothing of the kind."""
        last = int(data["last"])
        lost = [(int(a), int(b)) for a, b in data.get("lost", [])]
        base = data.get("base")
        shared = (str(base[0]), int(base[1])) if base else None
        if not _can_be(last, lost) or (shared and not 0 < shared[1] <= last):
            raise ValueError("these are no seqs of a journal")
        return cls(last, str(data["digest"]), lost, shared)


def _can_be(last: int, lost: Ranges) -> bool:
    """Tell whether a journal can end with this seq and lack these ranges."""
    before = 0
    for a, b in lost:
        if not before < a <= b:
            return False
        before = b
    return before <= last < _BEYOND


@dataclass(frozen=True, slots=True)
class Receipt:
    """A server's word on what it holds durably of a run.

    Attributes:
        writers: how far it has each.
        files: size and SHA-256 by path. former: those that were at a path before, and are held as well: another
            directory of the run may have them there.
    """

    writers: dict[str, WriterState]
    files: dict[str, tuple[int, str]]
    former: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def holds(self, path: str, facts: tuple[int, str]) -> bool:
        """Tell whether a file of this size and SHA-256 is held at a path."""
        return self.files.get(path) == facts or facts in self.former.get(path, ())

    def to_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {
            "writers": {name: state.to_json() for name, state in self.writers.items()},
            "files": {path: _file(facts) for path, facts in self.files.items()},
        }
        if self.former:
            said["former"] = {path: [_file(facts) for facts in each] for path, each in self.former.items()}
        return said

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Receipt:
        """Raises KeyError, TypeError or ValueError where `data` is nothing of the kind."""
        return cls(
            {name: WriterState.from_json(state) for name, state in data["writers"].items()},
            {path: _facts(file) for path, file in data["files"].items()},
            {path: [_facts(file) for file in each] for path, each in data.get("former", {}).items()},
        )


def _file(facts: tuple[int, str]) -> dict[str, Any]:
    return {"size": facts[0], "sha256": facts[1]}


def _facts(file: Mapping[str, Any]) -> tuple[int, str]:
    return int(file["size"]), str(file["sha256"])


@dataclass(frozen=True, slots=True)
class Holding:
    """What a server has once acknowledged of a run: of its writers the last seq and the digest, and how many files."""

    workspace: str
    project: str
    id: str
    writers: Mapping[str, tuple[int, str]]
    files: int

    def to_json(self) -> dict[str, Any]:
        return {
            "workspace": self.workspace,
            "project": self.project,
            "id": self.id,
            "writers": {name: list(state) for name, state in self.writers.items()},
            "files": self.files,
        }


@dataclass(frozen=True, slots=True)
class ChunkedFile:
    """A file and the chunks that make it up, in order, each (SHA-256, size)."""

    entry: FileEntry
    chunks: tuple[tuple[str, int], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.entry.path,
            "size": self.entry.size,
            "sha256": self.entry.sha256,
            "chunks": [list(c) for c in self.chunks],
        }

    @classmethod
    def from_json(cls, data: object) -> ChunkedFile:
        """Raises ValueError, naming what is wrong."""
        if not isinstance(data, dict):
            raise ValueError("a file is an object")
        path, size, sha256, chunks = (data.get(k) for k in ("path", "size", "sha256", "chunks"))
        if not isinstance(path, str) or not is_safe_path(path):
            raise ValueError(f"{path!r} is no path inside a run")
        if type(size) is not int or not is_sha256(sha256) or not isinstance(chunks, list):
            raise ValueError(f"{path}: a file has a size, a sha256 and chunks")
        parts = []
        for chunk in chunks:
            if not (isinstance(chunk, list) and len(chunk) == 2 and is_sha256(chunk[0]) and type(chunk[1]) is int):
                raise ValueError(f"{path}: a chunk is [sha256, size]")
            if not 0 < chunk[1] <= MAX_CHUNK:
                raise ValueError(f"{path}: a chunk has at most {MAX_CHUNK} bytes")
            parts.append((str(chunk[0]), int(chunk[1])))
        if sum(length for _, length in parts) != size:
            raise ValueError(f"{path}: its chunks do not add up to its size")
        return cls(FileEntry(path, size, str(sha256)), tuple(parts))


def branch_name(writer: str, line: bytes) -> str:
    """Return the name of the branch that leaves a writer with this line, the first that is another there.

    The line is never written again, so the name stays however far both go on.
    """
    return f"{writer}~{hashlib.sha256(line).hexdigest()[:8]}"


def format_ranges(ranges: Ranges) -> str:
    """Return ranges as they stand in a URL: "5-9,12-12"."""
    return ",".join(f"{a}-{b}" for a, b in ranges)


def contains(ranges: Ranges, seq: int) -> int | None:
    """Return the index of the range, of several in order, that a seq lies in; None where it is in none."""
    index = bisect_right(ranges, (seq, _BEYOND)) - 1
    return index if index >= 0 and ranges[index][1] >= seq else None


def difference(ranges: Ranges, others: Ranges, upto: int) -> Ranges:
    """Return ranges without what lies in others or beyond `upto`; both are in order."""
    left: Ranges = []
    for a, b in ranges:
        b = min(b, upto)
        for c, d in others[max(0, bisect_right(others, (a, _BEYOND)) - 1) :]:
            if c > b or a > b:
                break
            if d >= a:
                if c > a:
                    left.append((a, c - 1))
                a = d + 1
        if a <= b:
            left.append((a, b))
    return left


def parse_ranges(text: str) -> Ranges:
    """Read "5-9,12-12". Raises ValueError where it is malformed, out of order or longer than 10,000 ranges."""
    ranges: Ranges = []
    for part in text.split(",") if text else []:
        first, _, last = part.partition("-")
        a, b = int(first), int(last)
        if not 0 < a <= b or (ranges and a <= ranges[-1][1]) or len(ranges) >= 10_000:
            raise ValueError(f"{part!r} is no range of seqs in its place")
        ranges.append((a, b))
    return ranges


def files_named_by(kind: str, data: Mapping[str, Any]) -> list[FileEntry]:
    """Return the files that a record names: media by its entries, code. (Artifacts: see contents.)"""
    from .manifest import parse_file

    values = list(data.values()) if kind == "media" else [data.get("files")] if kind == "provenance" else []
    found: list[FileEntry] = []
    for value in values:
        for entry in value if isinstance(value, list) else [value]:
            try:
                found.append(parse_file(entry))
            except ValueError:
                continue  # a kind of entry that names no file
    return found
