"""Objects: immutable bytes under a key, in a local folder.

`put` returns when the object would survive a power cut: temp file beside its place, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

from flightlog.journal.writer import fsync_folder
from flightlog.locks import try_lock

INCOMING = "incoming"  # objects in the making
_UNFINISHED_SECONDS = 24 * 3600.0  # no upload takes so long


class Staged(Protocol):
    """An object that is being made: `file` is written and read at will, then it is stored, or nothing is left of it."""

    file: IO[bytes]

    def store(self, key: str) -> None:
        """Make it the object under a key, durably. Raises OSError; then there is no object."""
        ...


class Objects(Protocol):
    """What the server asks of a place for objects."""

    def stage(self, purpose: str = "") -> AbstractContextManager[Staged]:
        """Return what an object is made in, near to where it will lie. Raises OSError.

        Args:
            purpose: a word on it, without "-", for whoever finds it left behind.
        """
        ...

    def put(self, key: str, content: IO[bytes]) -> None:
        """Store a stream under a key, durably. Raises OSError; then there is no object."""
        ...

    def read(self, key: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`. Raises OSError where they are not there."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        ...

    def list(self) -> Iterator[tuple[str, float]]:
        """Yield every key and when it was stored (the store's clock), those of objects in the making among them."""
        ...

    def left_behind(self) -> Iterator[tuple[str, Staged]]:
        """Yield what killed processes left of objects in the making, each with its purpose; afterwards it is gone."""
        ...


class _StagedFile:
    def __init__(self, folder: Path, file: IO[bytes]) -> None:
        self._folder = folder
        self.file = file

    def store(self, key: str) -> None:
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file.flush()
        os.fsync(self.file.fileno())
        os.replace(self.file.name, path)
        for folder in (path.parent, *path.parent.parents):
            fsync_folder(folder)
            if folder == self._folder:
                break


class LocalObjects:
    """Objects as files below a folder; keys are made by the server and contain no "..": they are its paths."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def stage(self, purpose: str = "") -> Iterator[Staged]:
        incoming = self._folder / INCOMING
        incoming.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=incoming, prefix=f"{purpose}-", delete=False) as file:
            try_lock(file.fileno())
            with self._unless_stored(file) as staged:
                yield staged

    @contextlib.contextmanager
    def _unless_stored(self, file: IO[bytes]) -> Iterator[Staged]:
        """Give a file to be stored; it is removed where that does not come about."""
        try:
            yield _StagedFile(self._folder, file)
        finally:
            with contextlib.suppress(FileNotFoundError):  # it has been renamed
                os.unlink(file.name)

    def put(self, key: str, content: IO[bytes]) -> None:
        with self.stage() as staged:
            while block := content.read(1 << 20):
                staged.file.write(block)
            staged.store(key)

    def list(self) -> Iterator[tuple[str, float]]:
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = Path(folder) / name
                with contextlib.suppress(FileNotFoundError):
                    yield path.relative_to(self._folder).as_posix(), path.lstat().st_mtime

    def left_behind(self) -> Iterator[tuple[str, Staged]]:
        for path in sorted((self._folder / INCOMING).glob("*")):
            with contextlib.suppress(OSError), open(path, "r+b") as file:
                if _is_abandoned(path, file):
                    with self._unless_stored(file) as staged:
                        yield path.name.rpartition("-")[0], staged

    def read(self, key: str, offset: int, size: int) -> bytes:
        with open(self._folder / key, "rb") as file:
            content = os.pread(file.fileno(), size, offset)
        if len(content) != size:
            raise OSError(f"object {key} ends before {offset + size}")
        return content

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._folder / key).unlink()


def _is_abandoned(path: Path, file: IO[bytes]) -> bool:
    """Tell whether nobody is at an object in the making any more. An empty one has perhaps just been begun."""
    facts = os.fstat(file.fileno())
    is_free = try_lock(file.fileno())
    if is_free is None or not facts.st_size:
        return facts.st_mtime < time.time() - _UNFINISHED_SECONDS
    return is_free and os.path.samestat(facts, path.stat())  # it may have been stored meanwhile
