"""What a run directory holds besides its journal: the files and artifact versions that its records name."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import Any

from .beneath import open_beneath
from .errors import DamagedError
from .journal.record import Line, Record
from .protocol.manifest import MAX_MANIFEST, FileEntry, Manifest, is_safe_path, parse_file
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

    def to_json(self) -> dict[str, Any]:
        """Return what commits it on a server."""
        return {"manifest": self.manifest, "digest": self.digest, "aliases": list(self.aliases), "at": self.at}


@dataclass(slots=True)
class Named:
    """The files and artifact versions that a run's records name.

    Attributes:
        files: media and saved files, by path; where a path was written again, what it is now.
        artifacts: the versions that became whole, but for those found damaged later, or let go.
        damaged: by "name:version", why a version is not there.
    """

    files: dict[str, FileEntry] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    _logged: dict[tuple[str, ArtifactRecord], None] = field(default_factory=dict)  # a journal may be read twice
    _pruned: set[tuple[str, str]] = field(default_factory=set)
    _begun: dict[str, None] = field(default_factory=dict)

    @property
    def artifacts(self) -> list[ArtifactRecord]:
        return [
            artifact
            for called, artifact in self._logged
            if called not in self.damaged and (artifact.manifest, artifact.digest) not in self._pruned
        ]

    @property
    def incomplete(self) -> list[str]:
        """The versions, as "name:version", that were being copied by then: no harm, unless the run is dead."""
        return list(self._begun)

    def add(self, line: Line) -> None:
        """Take note of what a line names."""
        if line.kind not in ("media", "artifact", "provenance"):
            return
        try:
            self.add_record(line.record())
        except (ValueError, KeyError, TypeError, RecursionError):
            return

    def add_record(self, record: Record) -> None:
        """Take note of what a record names."""
        for entry in files_named_by(record.kind, record.data):
            self.files[entry.path] = entry
        if record.kind == "artifact":
            act = _ACTIONS.get(str(record.data.get("action")))
            if act is not None:
                act(self, record.data, record.t)

    def _begin(self, data: dict[str, Any], at: float) -> None:
        self._begun[_called(data, "version")] = None

    def _damage(self, data: dict[str, Any], at: float) -> None:
        self._begun.pop(_called(data, "version"), None)
        self.damaged[_called(data, "version")] = str(data.get("reason"))

    def _prune(self, data: dict[str, Any], at: float) -> None:
        self._pruned.add((str(data.get("manifest")), str(data.get("digest"))))

    def _save(self, data: dict[str, Any], at: float) -> None:
        saved = data.get("saved")
        for item in saved if isinstance(saved, list) else []:
            with contextlib.suppress(ValueError):
                entry = parse_file(item)
                self.files[entry.path] = entry

    def _log(self, data: dict[str, Any], at: float) -> None:
        for which in ("version", "begun"):
            self._begun.pop(_called(data, which), None)
        name, digest, manifest, aliases = (data.get(k) for k in ("name", "digest", "manifest", "aliases"))
        if isinstance(name, str) and isinstance(digest, str) and isinstance(manifest, str) and is_safe_path(manifest):
            marks = tuple(a for a in aliases if name_fault(a) is None) if isinstance(aliases, list) else ()
            version = ArtifactRecord(name, digest, manifest, marks, at)
            self._logged[(_called(data, "version"), version)] = None


_ACTIONS = {
    "begin": Named._begin,
    "damaged": Named._damage,
    "log": Named._log,
    "pruned": Named._prune,
    "save": Named._save,
}


def _called(data: dict[str, Any], which: str) -> str:
    return f"{data.get('name')}:{data.get(which)}"


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
