"""What a run directory holds besides its journal: the files and artifact versions that its records name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from .beneath import open_beneath
from .errors import DamagedError
from .journal.record import Line, Record
from .protocol.manifest import MAX_MANIFEST, FileEntry, Manifest, is_safe_path
from .protocol.messages import files_named_by
from .protocol.names import name_fault
from .rundir import RunDir


@dataclass(frozen=True, slots=True)
class ArtifactRecord:
    """An artifact version that a record announces."""

    name: str
    digest: str
    manifest: str
    aliases: tuple[str, ...]
    at: float


@dataclass(slots=True)
class Named:
    """The files and artifact versions that a run's records name."""

    files: dict[str, FileEntry] = field(default_factory=dict)
    artifacts: list[ArtifactRecord] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Take note of what a line names."""
        if line.kind not in ("media", "artifact"):
            return
        try:
            self.add_record(line.record())
        except (ValueError, KeyError, TypeError, RecursionError):
            return

    def add_record(self, record: Record) -> None:
        """Take note of what a record names."""
        for entry in files_named_by(record.kind, record.data):
            self.files[entry.path] = entry
        if record.kind == "artifact" and record.data.get("action") == "log":
            self._add_artifact(record.data, record.t)

    def _add_artifact(self, data: dict[str, Any], at: float) -> None:
        name, digest, manifest, aliases = (data.get(k) for k in ("name", "digest", "manifest", "aliases"))
        if isinstance(name, str) and isinstance(digest, str) and isinstance(manifest, str) and is_safe_path(manifest):
            marks = tuple(a for a in aliases if name_fault(a) is None) if isinstance(aliases, list) else ()
            self.artifacts.append(ArtifactRecord(name, digest, manifest, marks, at))


def read_manifest(directory: RunDir, artifact: ArtifactRecord) -> tuple[bytes, Manifest]:
    """Return an artifact's manifest.json and what it says.

    Raises:
        DamagedError: it is missing, or not the one that was recorded.
    """
    where = f"{directory.files / artifact.manifest}"
    try:
        with open_beneath(directory.files, artifact.manifest) as file:
            content = file.read(MAX_MANIFEST + 1)
        manifest = Manifest.from_json(content)
    except (OSError, ValueError) as error:
        raise DamagedError(f"{where}: {error}") from None
    if manifest.digest != artifact.digest:
        raise DamagedError(f"{where} is not the manifest that was recorded")
    return content, manifest


def named_files(directory: RunDir, named: Named) -> tuple[dict[str, FileEntry], list[ArtifactRecord], list[str]]:
    """Return every file that a run's records name, by path: media, manifests, and the files that manifests name.

    Returns:
        The files, the artifact versions whose manifests could be read, and what is wrong with the others, in words.
    """
    entries = dict(named.files)
    ready: list[ArtifactRecord] = []
    faults: list[str] = []
    for artifact in named.artifacts:
        try:
            content, manifest = read_manifest(directory, artifact)
        except DamagedError as error:
            faults.append(f"artifact {artifact.name}: {error}")
            continue
        own = FileEntry(artifact.manifest, len(content), hashlib.sha256(content).hexdigest())
        entries[own.path] = own
        root = artifact.manifest.removesuffix("manifest.json") + "files/"
        for file in manifest.files:
            entries[root + file.path] = FileEntry(root + file.path, file.size, file.sha256)
        ready.append(artifact)
    return entries, ready, faults
