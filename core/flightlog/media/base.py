"""What every kind of media has in common: bytes that become a file, named by content, and an entry that names it."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ..rundir import atomic_write

_UNSAFE = re.compile(r"[^\w.+=@ -]|^\.+")


class Media(ABC):
    """A value of `log()` that is kept as a file."""

    kind: str

    @abstractmethod
    def encode(self) -> tuple[bytes, str, dict[str, Any]]:
        """Return the file's bytes, its suffix (".png"), and what else its entry says (width, caption …).

        Raises:
            Exception: the value could not be made into a file; its text says why.
        """

    def save(self, files: Path, key: str) -> dict[str, Any]:
        """Write the file below a run's `files/` and return its entry; the same content twice is stored once.

        Raises:
            OSError: it could not be written.
        """
        content, suffix, facts = self.encode()
        return {"type": self.kind, **store(files, key, content, suffix), **facts}


def store(files: Path, key: str, content: bytes, suffix: str) -> dict[str, Any]:
    """Write bytes as `media/<key>/<sha256><suffix>`; return {path, size, sha256}, the path relative to `files`."""
    digest = hashlib.sha256(content).hexdigest()
    folder = Path("media", *(_folder_name(part) for part in key.split("/")[:8]))
    path = folder / f"{digest[:32]}{suffix}"
    target = files / path
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, content)
    return {"path": path.as_posix(), "size": len(content), "sha256": digest}


def _folder_name(part: str) -> str:
    return _UNSAFE.sub("_", part).encode()[:80].decode("utf-8", "ignore") or "_"
