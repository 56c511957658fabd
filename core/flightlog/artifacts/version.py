"""Versions of an artifact inside a run: `files/artifacts/<name>/v0/{manifest.json,files/…}`."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..protocol.manifest import Manifest
from ..protocol.names import checked_name, name_fault
from ..rundir import atomic_write
from .staging import sources, stage

_VERSION = re.compile(r"v[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class ArtifactVersion:
    """A version of an artifact as it was logged: `version` counts within the run until a server numbers it."""

    name: str
    version: str
    type: str
    digest: str
    size: int
    aliases: tuple[str, ...]
    path: Path

    @property
    def files(self) -> Path:
        """The folder that holds the version's files."""
        return self.path / "files"


def checked_aliases(aliases: object) -> tuple[str, ...]:
    """Return aliases without repetition, `latest` first. Raises UsageError where one cannot be an alias."""
    given = [aliases] if isinstance(aliases, str) else list(aliases or ())  # type: ignore[call-overload]
    for alias in given:
        checked_name("alias", alias)
        if _VERSION.fullmatch(alias):
            raise UsageError(f"alias {alias!r}: v0, v1 … are the versions' own names")
    return tuple(dict.fromkeys(["latest", *given]))


def name_from_path(path: Path) -> str:
    """Return an artifact name for a file or folder that was logged without one."""
    try:
        stem = path.resolve().stem
    except (OSError, ValueError, RuntimeError):  # a NUL, links in a circle: there is nothing at it, which is said later
        stem = ""
    name = re.sub(r"[^\w.+ -]", "_", stem).strip().lstrip(".~-")[:100]
    return name if name_fault(name) is None else "artifact"


def stage_version(
    files: Path, path: Path, name: str, kind: str, aliases: tuple[str, ...], metadata: dict[str, Any]
) -> tuple[ArtifactVersion, dict[str, Any]]:
    """Take a file or folder into the run as the next version of `name`.

    Returns:
        The version, and the data of the record that announces it.

    Raises:
        OSError: there is nothing at `path`, or it could not be read or written.
    """
    found = sources(path)
    home = files / "artifacts" / name
    home.mkdir(parents=True, exist_ok=True)
    folder = _next_folder(home)
    try:
        entries = tuple(stage(source, folder / "files" / inner, inner) for inner, source in found)
        manifest = Manifest(name, kind, entries, metadata)
        before = _same_version(home, folder, manifest)
        if before is not None:  # the same content again costs nothing
            shutil.rmtree(folder)
            folder = before
        else:
            atomic_write(folder / "manifest.json", manifest.to_json())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    version = ArtifactVersion(name, folder.name, kind, manifest.digest, manifest.size, aliases, folder)
    return version, {
        "action": "log",
        "name": name,
        "type": kind,
        "version": folder.name,
        "digest": manifest.digest,
        "size": manifest.size,
        "files": len(entries),
        "aliases": list(aliases),
        "metadata": metadata,
        "manifest": (folder / "manifest.json").relative_to(files).as_posix(),
    }


def _next_folder(home: Path) -> Path:
    taken = [int(p.name[1:]) for p in home.iterdir() if _VERSION.fullmatch(p.name)]
    number = max(taken, default=-1) + 1
    while True:  # another writer of the same run may take a number at the same moment
        folder = home / f"v{number}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def _same_version(home: Path, new: Path, manifest: Manifest) -> Path | None:
    for folder in sorted(home.iterdir()):
        if folder == new or not _VERSION.fullmatch(folder.name):
            continue
        try:
            old = Manifest.from_json((folder / "manifest.json").read_bytes())
        except (OSError, ValueError):
            continue
        if (old.digest, old.type, old.metadata) == (manifest.digest, manifest.type, manifest.metadata):
            return folder
    return None
