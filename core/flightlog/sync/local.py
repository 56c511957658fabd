"""A run directory as sync sees it: who it is, whether it is alive, and what its records name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .. import rundir
from ..errors import DamagedError
from ..journal.record import Line
from ..journal.scan import fold_directories
from ..protocol.manifest import MAX_MANIFEST, FileEntry, Manifest, is_safe_path
from ..protocol.messages import files_named_by
from ..protocol.names import name_fault
from ..rundir import RunDir
from .beneath import open_beneath


@dataclass(frozen=True, slots=True)
class Identity:
    """What a run is called on every server, and how it stands."""

    id: str
    project: str
    workspace: str | None
    name: str
    state: str
    started_at: float
    spec_fault: str | None = None

    @property
    def ended(self) -> bool:
        return self.state != "running"


def identify(directory: RunDir) -> Identity:
    """Return who a run is: by its latest.spec, or by its journal where that is damaged.

    Raises:
        DamagedError: neither says so.
    """
    fault: str | None = None
    try:
        spec: dict[str, Any] = directory.read_spec()
    except DamagedError as error:
        fault = str(error)
        fold, _ = fold_directories([directory.journal])
        if fold.id is None:
            raise DamagedError(
                f"{directory.path}: neither latest.spec nor the journal says which run this is"
            ) from None
        spec = {
            "id": fold.id,
            "project": fold.project,
            "state": fold.state,
            "started_at": fold.started_at,
            **fold.identity,
        }
    run_id, project = spec["id"], spec.get("project") or "uncategorized"
    for what, value in (("id", run_id), ("project", project)):
        why = name_fault(value)
        if why:
            raise DamagedError(f"{directory.spec_path}: the {what} {value!r} cannot be used: {why}")
    workspace, started = spec.get("workspace"), spec.get("started_at")
    return Identity(
        id=run_id,
        project=project,
        workspace=workspace if name_fault(workspace) is None else None,
        name=str(spec.get("name") or run_id)[:200],
        state=str(spec.get("state") or "running"),
        started_at=float(started) if isinstance(started, int | float) else 0.0,
        spec_fault=fault,
    )


def alive(directory: RunDir) -> bool:
    """Tell whether a run is still being written."""
    try:
        spec = directory.read_spec()
    except DamagedError:
        spec = {}
    return spec.get("state", "running") == "running" and rundir.is_alive(directory, spec)


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
    """The files and artifact versions that a run's records name; `faults` says what could not be made out."""

    files: dict[str, FileEntry] = field(default_factory=dict)
    artifacts: list[ArtifactRecord] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Take note of what a line names."""
        if line.kind not in ("media", "artifact"):
            return
        try:
            data = line.record().data
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        for entry in files_named_by(line.kind, data):
            self.files[entry.path] = entry
        if line.kind == "artifact" and data.get("action") == "log":
            self._add_artifact(data, line.t)

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
