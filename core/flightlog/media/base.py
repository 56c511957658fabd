"""What every kind of media has in common: a value that becomes files of the run, and an entry that names them.

`write` puts the files below `media/<key>/`, named by content, and returns the entry of the media record
(docs/media.md). Files that belong to another one (a picture in a table's cell, an image's masks) are named by entries
of the type "part" beside it, so that whoever delivers the run finds every file by its records alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ..errors import FlightlogError, UsageError
from ..journal.values import key_text
from ..journal.writer import fsync_folder
from ..rundir import atomic_write
from .payload import HeldFile, Payload

Entry = dict[str, Any]

MAX_CAPTION = 4096
MAX_ENTRIES = 1000
MAX_DEPTH = 8
MAX_RECORD = 512 << 10
_UNSAFE = re.compile(r"[^\w.+=@ -]|^\.+")


class Encoding(NamedTuple):
    """A value as a file: its content, its suffix (".png"), and what else its entry says (width, caption …)."""

    content: Payload
    suffix: str
    facts: dict[str, Any]


class Media(ABC):
    """A value of `log()` that is kept as a file, or as an entry of its own."""

    kind: str

    @abstractmethod
    def write(self, folder: KeyFolder) -> Entry:
        """Write the value's files and return its entry.

        Raises:
            Exception: the value could not be made into a file, or written; its text says why.
        """

    def save(self, files: Path, key: str) -> Entry:
        """Write the value below a run's `files/` and return its entry; the same content twice is stored once.

        Raises what `write` does.
        """
        return self.write(KeyFolder(files, key))


class FileMedia(Media):
    """A value that is one file."""

    @abstractmethod
    def encode(self) -> tuple[Payload, str, dict[str, Any]]:
        """Return the file's content, its suffix (".png"), and what else its entry says (width, caption …).

        Raises:
            Exception: the value could not be made into a file; its text says why.
        """

    def write(self, folder: KeyFolder) -> Entry:
        content, suffix, facts = self.encode()
        return {"type": self.kind, **folder.put(content, suffix), **facts}


class CapturedMedia(FileMedia):
    """A file made at construction, because what it is made of could change before it is logged.

    What goes wrong in the making is kept, and raised by `encode`: it costs the key at `log()`, and nothing before.
    """

    _encoding: Encoding | None = None
    _fault: Exception | None = None

    def _capture(self, make: Callable[[], Encoding]) -> None:
        try:
            self._encoding = make()
        except Exception as error:  # whatever a plotting, imaging or array library raises
            self._fault = as_fault(error, type(self).__name__)

    def encode(self) -> tuple[Payload, str, dict[str, Any]]:
        if self._encoding is None:
            raise self._fault or UsageError(f"{type(self).__name__}(): nothing was given")
        return self._encoding


def as_fault(error: Exception, what: str) -> Exception:
    """Return an error to be raised later: with a text that says it all, and without the frames that hold the data."""
    if isinstance(error, FlightlogError | OSError):
        error.__context__ = error.__cause__ = None
        return error.with_traceback(None)
    return UsageError(f"{what}(): {type(error).__name__}: {key_text(error)[:500]}")


def caption_fact(caption: object) -> dict[str, Any]:
    """Return the fact that holds a caption, cut at 4096 characters; none for None."""
    return {} if caption is None else {"caption": key_text(caption)[:MAX_CAPTION]}


# -- files -------------------------------------------------------------------------------------------------------------


class KeyFolder:
    """The folder of one key in a run's `files/`, where its media are written as `<sha256, 32 digits><suffix>`.

    Attributes:
        parts: entries of the files that other files refer to, by path.
        above: the ids of the tables that are being written into it, the outermost first.
    """

    def __init__(
        self,
        files: Path,
        key: str,
        parts: dict[str, Entry] | None = None,
        of_parts: bool = False,
        above: tuple[int, ...] = (),
    ) -> None:
        self._files = files
        self._key = key
        self._folder = Path("media", *(_folder_name(part) for part in key.split("/")[:8]))
        self._of_parts = of_parts
        self.parts = {} if parts is None else parts
        self.above = above

    def for_parts(self, of: Media | None = None) -> KeyFolder:
        """Return the same folder for files that another one refers to: each is noted under `parts`.

        Args:
            of: the medium that refers to them, where it may hold media of its own kind.
        """
        above = self.above if of is None else (*self.above, id(of))
        if len(above) > MAX_DEPTH:
            raise UsageError(f"tables in tables, more than {MAX_DEPTH} deep")
        return KeyFolder(self._files, self._key, self.parts, of_parts=True, above=above)

    def put(self, content: Payload, suffix: str) -> Entry:
        """Write a file and return {path, size, sha256}, the path relative to `files/`.

        Raises:
            OSError: it could not be written, or what it is copied from is gone or changed.
        """
        found = self._copy(content, suffix) if isinstance(content, HeldFile) else self._store(content, suffix)
        if self._of_parts:
            self.parts[found["path"]] = {"type": "part", **found}
        return found

    def _store(self, content: bytes, suffix: str) -> Entry:
        digest = hashlib.sha256(content).hexdigest()
        path, target = self._place(digest, suffix)
        if not _holds(target, len(content)):
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(target, content)
        _remember(self._files, digest, path)
        return {"path": path.as_posix(), "size": len(content), "sha256": digest}

    def _copy(self, source: HeldFile, suffix: str) -> Entry:
        """Copy a large file block by block; its name is known only once it has been read."""
        folder = self._files / self._folder
        folder.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=".copy.", dir=folder)
        try:
            digest = _copy_blocks(source, fd)
            path, target = self._place(digest, suffix)
            if not _holds(target, source.size):
                os.replace(temporary, target)
                with contextlib.suppress(OSError):
                    fsync_folder(folder)
            _remember(self._files, digest, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return {"path": path.as_posix(), "size": source.size, "sha256": digest}

    def _place(self, digest: str, suffix: str) -> tuple[Path, Path]:
        """Return where a content is, or goes: below this key's folder, if it is not below another's already."""
        known = _known.get((str(self._files), digest))
        path = known if known is not None and known.name.endswith(suffix) else self._folder / f"{digest[:32]}{suffix}"
        return path, self._files / path


# Where this process has put which content of which run: the same under another key is the same file.
_known: dict[tuple[str, str], Path] = {}
_MAX_KNOWN = 20_000


def _remember(files: Path, digest: str, path: Path) -> None:
    if len(_known) < _MAX_KNOWN:
        _known.setdefault((str(files), digest), path)


def _copy_blocks(source: HeldFile, fd: int) -> str:
    """Write a file's blocks to a descriptor, sync and close it; return their SHA-256."""
    whole = hashlib.sha256()
    with os.fdopen(fd, "wb", buffering=0) as target:
        for block in source.blocks():
            whole.update(block)
            view = memoryview(block)
            while view:
                view = view[target.write(view) :]
        os.fchmod(target.fileno(), 0o644)
        os.fsync(target.fileno())
    return whole.hexdigest()


def _holds(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _folder_name(part: str) -> str:
    return _UNSAFE.sub("_", part).encode()[:80].decode("utf-8", "ignore") or "_"


# -- entries -----------------------------------------------------------------------------------------------------------


def save_all(files: Path, key: str, value: Media | Sequence[Media]) -> Entry | list[Entry]:
    """Write what was logged under a key and return what its media record says.

    Args:
        files: the run's `files/`.
        key: the key.
        value: one value, or several that belong together.

    Returns:
        The entry; a list where there are several, or parts, which come first: no entry is ever read before its parts.

    Raises:
        Exception: one of them could not be made into a file, or written; the key is left out.
    """
    folder = KeyFolder(files, key)
    if isinstance(value, Media):
        entry = value.write(folder)
        return [*folder.parts.values(), entry] if folder.parts else entry
    entries = [item.write(folder) for item in value]
    return [*folder.parts.values(), *entries]


def divide(entries: Mapping[str, Entry | list[Entry]]) -> Iterator[dict[str, Entry | list[Entry]]]:
    """Divide what was logged at one step into records: at most 1000 entries and 512 KiB each, in order."""
    record: dict[str, Entry | list[Entry]] = {}
    count = size = 0
    for key, value in entries.items():
        for entry in value if isinstance(value, list) else [value]:
            length = len(orjson.dumps(entry)) + len(key.encode("utf-8", "replace"))
            if record and (count >= MAX_ENTRIES or size + length > MAX_RECORD):
                yield record
                record, count, size = {}, 0, 0
            _add(record, key, entry, several=isinstance(value, list))
            count, size = count + 1, size + length
    if record:
        yield record


def _add(record: dict[str, Entry | list[Entry]], key: str, entry: Entry, *, several: bool) -> None:
    held = record.setdefault(key, [] if several else entry)
    if isinstance(held, list):
        held.append(entry)
