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

INCOMING = "incoming"  # objects in the making


class Staged(Protocol):
    """An object that is being made: `file` is written and read at will, then it is stored, or nothing is left of it."""

    file: IO[bytes]

    def store(self, key: str) -> None:
        """Make it the object under a key, durably. Raises OSError; then there is no object."""
        ...


class Objects(Protocol):
    """What the server asks of a place for objects."""

    def stage(self) -> AbstractContextManager[Staged]:
        """Return what an object is made in, near to where it will lie. Raises OSError."""
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

    def drop_unfinished(self, age: float) -> int:
        """Delete what killed processes left of objects in the making, older than `age` seconds; return how many."""
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
    def stage(self) -> Iterator[Staged]:
        incoming = self._folder / INCOMING
        incoming.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=incoming, delete=False) as file:
            staged = _StagedFile(self._folder, file)
            try:
                yield staged
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

    def drop_unfinished(self, age: float) -> int:
        dropped = 0
        for path in sorted((self._folder / INCOMING).glob("*")):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < time.time() - age:
                    path.unlink()
                    dropped += 1
        return dropped

    def read(self, key: str, offset: int, size: int) -> bytes:
        with open(self._folder / key, "rb") as file:
            content = os.pread(file.fileno(), size, offset)
        if len(content) != size:
            raise OSError(f"object {key} ends before {offset + size}")
        return content

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._folder / key).unlink()
