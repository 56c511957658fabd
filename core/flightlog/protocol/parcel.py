"""Many small runs in one request (docs/protocol.md, "Small runs").

A parcel is a sequence of runs, each as

    4 bytes     length of the header, big-endian
    header      JSON: who the run is, its writers with the sizes of their lines, its files, its artifact versions
    contents    the writers' lines, then the files, one after the other, as the header names them

All of it is compressed with zstd as one. Nothing in here is trusted: sizes add up, or the parcel is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from .manifest import FileEntry, is_safe_path, parse_file
from .names import name_fault

MAX_RUNS = 1000  # in one parcel
MAX_SMALL_FILE = 256 << 10  # bytes of a file in a parcel: it is one chunk (sync/chunker.py)
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class ArtifactCommit:
    """A version that is to be committed: its manifest's path, the aliases that move to it, and when it was recorded."""

    manifest: str
    aliases: tuple[str, ...]
    at: float


@dataclass(slots=True)
class SmallRun:
    """A run, whole.

    Attributes:
        workspace, project, id: who it is.
        alive: whether it is still being written. restore: bring it back if it was deleted.
        writers: by name all their lines, from seq 1 on.
        files: the files that its records name, with their bytes; each no larger than MAX_SMALL_FILE.
        artifacts: the versions that its records name.
    """

    workspace: str
    project: str
    id: str
    alive: bool
    restore: bool = False
    writers: dict[str, bytes] = field(default_factory=dict)
    files: list[tuple[FileEntry, bytes]] = field(default_factory=list)
    artifacts: list[ArtifactCommit] = field(default_factory=list)

    @property
    def size(self) -> int:
        """About how many bytes it has in a parcel."""
        lines = sum(len(content) + 100 for content in self.writers.values())
        return 1000 + lines + sum(len(content) + len(entry.path) + 150 for entry, content in self.files)


def encode(runs: Iterable[SmallRun]) -> bytes:
    """Return a parcel, not compressed."""
    return b"".join(part for run in runs for part in _parts(run))


def _parts(run: SmallRun) -> Iterator[bytes]:
    header = {
        "workspace": run.workspace,
        "project": run.project,
        "id": run.id,
        "alive": run.alive,
        "restore": run.restore,
        "writers": [[name, len(lines)] for name, lines in run.writers.items()],
        "files": [{"path": e.path, "size": e.size, "sha256": e.sha256} for e, _ in run.files],
        "artifacts": [{"manifest": a.manifest, "aliases": list(a.aliases), "at": a.at} for a in run.artifacts],
    }
    head = orjson.dumps(header)
    yield _LENGTH.pack(len(head))
    yield head
    yield from run.writers.values()
    yield from (content for _, content in run.files)


def decode(content: bytes) -> list[SmallRun]:
    """Read a parcel. Raises ValueError, saying what is wrong with it."""
    found: list[SmallRun] = []
    at = 0
    while at < len(content):
        if len(found) >= MAX_RUNS:
            raise ValueError(f"a parcel holds at most {MAX_RUNS} runs")
        head, at = _take(content, at, _LENGTH.size)
        head, at = _take(content, at, _LENGTH.unpack(head)[0])
        data = orjson.loads(head)
        if not isinstance(data, dict):
            raise ValueError("a run's header is an object")
        run = _run(data)
        for name, size in _pairs(data.get("writers")):
            if name in run.writers:
                raise ValueError(f"writer {name!r} is there twice")
            run.writers[name], at = _take(content, at, size)
        for item in _list(data.get("files")):
            entry = parse_file(item)
            if entry.size > MAX_SMALL_FILE:
                raise ValueError(f"{entry.path} is too large for a parcel")
            body, at = _take(content, at, entry.size)
            run.files.append((entry, body))
        run.artifacts = [_artifact(item) for item in _list(data.get("artifacts"))]
        found.append(run)
    return found


def _take(content: bytes, at: int, size: int) -> tuple[bytes, int]:
    if size < 0 or at + size > len(content):
        raise ValueError("the parcel ends within a run")
    return content[at : at + size], at + size


def _run(data: Mapping[str, Any]) -> SmallRun:
    for key in ("workspace", "project", "id"):
        fault = name_fault(data.get(key))
        if fault:
            raise ValueError(f"the {key} {data.get(key)!r} cannot be used: {fault}")
    workspace, project, run_id = (str(data[key]) for key in ("workspace", "project", "id"))
    alive, restore = data.get("alive") is True, data.get("restore") is True
    return SmallRun(workspace, project, run_id, alive, restore)


def _list(items: object) -> list[Any]:
    if not isinstance(items, list):
        raise ValueError("writers, files and artifacts are lists")
    return items


def _pairs(items: object) -> Iterator[tuple[str, int]]:
    for item in _list(items):
        if not (isinstance(item, list) and len(item) == 2 and type(item[1]) is int) or name_fault(item[0]):
            raise ValueError("a writer is [name, bytes]")
        yield item[0], item[1]


def _artifact(item: object) -> ArtifactCommit:
    data = item if isinstance(item, dict) else {}
    manifest, aliases, at = data.get("manifest"), data.get("aliases"), data.get("at")
    if not (isinstance(manifest, str) and is_safe_path(manifest) and isinstance(aliases, list)):
        raise ValueError("an artifact has a manifest and aliases")
    if any(name_fault(alias) for alias in aliases) or not isinstance(at, int | float) or not 0 <= at < 1e15:
        raise ValueError(f"{manifest}: its aliases or its time cannot be")
    return ArtifactCommit(manifest, tuple(aliases), float(at))
