"""What an artifact version is: the list of its files, and the digest over that list which is its identity."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

FORMAT = 1
MAX_FILES = 1_000_000
MAX_MANIFEST = 512 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
# RFC 3986, 3.1. Two letters at least, or C:\\model.pt would be one.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:.+")


@dataclass(frozen=True, slots=True, order=True)
class FileEntry:
    """A file of a run or artifact: `path` relative to it with "/" between, `size` in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A part of an artifact that lies elsewhere: its `uri`, and of its content what is known ("" and -1: nothing)."""

    path: str
    uri: str
    size: int = -1
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of one artifact version, and what it only refers to."""

    name: str
    type: str
    files: tuple[FileEntry, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    description: str | None = None

    @property
    def digest(self) -> str:
        """The version's identity.

        SHA-256 over `path NUL size NUL sha256 LF` of each file, by path (as UTF-8), then, by path too,
        `path NUL size NUL sha256 NUL uri LF` of each reference, with nothing for a size or SHA-256 that is not known.
        """
        whole = hashlib.sha256()
        for entry in sorted(self.files, key=lambda f: f.path.encode()):
            whole.update(f"{entry.path}\0{entry.size}\0{entry.sha256}\n".encode())
        for there in sorted(self.references, key=lambda r: r.path.encode()):
            size = "" if there.size < 0 else there.size
            whole.update(f"{there.path}\0{size}\0{there.sha256}\0{there.uri}\n".encode())
        return whole.hexdigest()

    @property
    def size(self) -> int:
        return sum(f.size for f in self.files)

    def to_json(self) -> bytes:
        """Return the manifest.json."""
        shown: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "type": self.type,
            "digest": self.digest,
            "metadata": self.metadata,
            "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in self.files],
        }
        if self.references:
            shown["references"] = [shown_reference(r) for r in self.references]
        if self.description is not None:
            shown["description"] = self.description
        return orjson.dumps(shown, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Read a manifest.json.

        Raises:
            ValueError: it is none, or its digest is not that of its files.
        """
        data = orjson.loads(content)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError("not a manifest of format 1")
        files = parse_files(data.get("files"))
        references = parse_references(data.get("references", []), files)
        name, kind, metadata = data.get("name"), data.get("type"), data.get("metadata", {})
        if not (isinstance(name, str) and isinstance(kind, str) and isinstance(metadata, dict)):
            raise ValueError("a manifest has a name, a type and metadata")
        description = data.get("description")
        manifest = cls(name, kind, files, metadata, references, description if isinstance(description, str) else None)
        if manifest.digest != data.get("digest"):
            raise ValueError("the manifest's digest is not that of its files")
        return manifest


def shown_reference(there: Reference) -> dict[str, Any]:
    """Return a reference as manifests and answers have it: {path, uri}, size and sha256 where they are known."""
    known = {"size": there.size} if there.size >= 0 else {}
    return {"path": there.path, "uri": there.uri, **known, **({"sha256": there.sha256} if there.sha256 else {})}


def parse_references(items: object, files: tuple[FileEntry, ...]) -> tuple[Reference, ...]:
    if not isinstance(items, list) or len(items) + len(files) > MAX_FILES:
        raise ValueError(f"references is a list; with the files at most {MAX_FILES:,}")
    found = tuple(_parse_reference(item) for item in items)
    together = [*files, *(FileEntry(r.path, 0, "") for r in found)]
    if len({e.path for e in together}) != len(together) or not safe_paths(together):
        raise ValueError("a path is named twice, or is also the folder of another")
    return found


def _parse_reference(item: object) -> Reference:
    if not isinstance(item, dict):
        raise ValueError("a reference is an object with path and uri")
    path, uri, size, sha256 = item.get("path"), item.get("uri"), item.get("size", -1), item.get("sha256", "")
    if not isinstance(path, str) or not is_safe_path(path):
        raise ValueError(f"{path!r} is no path inside an artifact")
    if not isinstance(uri, str) or not is_uri(uri):
        raise ValueError(f"{path}: {uri!r} is no address")
    if type(size) is not int or not -1 <= size < 1 << 60 or not (sha256 == "" or is_sha256(sha256)):
        raise ValueError(f"{path}: its size is {size!r}, its sha256 {sha256!r}")
    return Reference(path, uri, size, sha256)


def is_uri(text: str) -> bool:
    """Tell whether a text can be the address of something: `scheme:…`, of at most 4,000 printable characters."""
    return bool(_URI.fullmatch(text)) and text.isprintable() and len(text) <= 4000


def parse_files(items: object) -> tuple[FileEntry, ...]:
    """Check a list of {path, size, sha256} that came from outside. Raises ValueError naming what is wrong with it."""
    if not isinstance(items, list) or len(items) > MAX_FILES:
        raise ValueError(f"files is a list of at most {MAX_FILES:,}")
    entries = [parse_file(item) for item in items]
    if len({e.path for e in entries}) != len(entries):
        raise ValueError("a path is named twice")
    if not safe_paths(entries):
        raise ValueError("a path is also the folder of another")
    return tuple(entries)


def parse_file(item: object) -> FileEntry:
    """Check one {path, size, sha256} that came from outside. Raises ValueError."""
    if not isinstance(item, dict):
        raise ValueError("a file is an object with path, size and sha256")
    path, size, sha256 = item.get("path"), item.get("size"), item.get("sha256")
    if not isinstance(path, str) or not is_safe_path(path):
        raise ValueError(f"{path!r} is no path inside a run")
    if type(size) is not int or not 0 <= size < 1 << 60:
        raise ValueError(f"{path}: its size is {size!r}")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"{path}: its sha256 is {sha256!r}")
    return FileEntry(path, size, sha256)


def is_sha256(text: object) -> bool:
    """Tell whether a text is a SHA-256 in lower-case hex."""
    return isinstance(text, str) and bool(_SHA256.fullmatch(text))


def is_safe_path(path: str) -> bool:
    """Tell whether a relative path with "/" stays inside its folder on every system."""
    if not path or len(path.encode("utf-8", "replace")) > 1000 or "\\" in path or path.startswith("/"):
        return False
    if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in path):
        return False
    return all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in path.split("/"))


def safe_paths(entries: Iterable[FileEntry]) -> bool:
    """Tell whether no path is also the folder of another."""
    paths = {e.path for e in entries}
    return not any(
        "/".join(parts[:i]) in paths for p in paths for parts in [p.split("/")] for i in range(1, len(parts))
    )
