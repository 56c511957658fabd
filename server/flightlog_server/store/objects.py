"""Objects: immutable bytes under a key, in a local folder.

`put` returns when the object would survive a power cut: temp file beside its place, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import IO, Protocol

from flightlog.journal.writer import fsync_folder


class Objects(Protocol):
    """What the server asks of a place for objects."""

    def put(self, key: str, content: IO[bytes]) -> None:
        """Store a stream under a key, durably. Raises OSError; then there is no object."""
        ...

    def read(self, key: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`. Raises OSError where they are not there."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        ...


class LocalObjects:
    """Objects as files below a folder; keys are made by the server and contain no "..": they are its paths."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, key: str, content: IO[bytes]) -> None:
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=".put.", dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                while block := content.read(1 << 20):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            for folder in (path.parent, *path.parent.parents):
                fsync_folder(folder)
                if folder == self._folder:
                    break
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def read(self, key: str, offset: int, size: int) -> bytes:
        with open(self._folder / key, "rb") as file:
            content = os.pread(file.fileno(), size, offset)
        if len(content) != size:
            raise OSError(f"object {key} ends before {offset + size}")
        return content

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._folder / key).unlink()
