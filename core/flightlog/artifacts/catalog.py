"""What the artifact records of a run directory add up to: its versions and how each stands, aliases, what was used.

An `artifact` record says under `action` what happened (docs/artifacts.md): `begin` a version is being copied, `log` it
is whole, `damaged` it is not and will not be, `pruned` its files were let go, `use` the run took a version in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DamagedError
from ..journal.record import Record
from ..journal.scan import RunJournal
from ..protocol.manifest import is_safe_path, is_sha256
from ..protocol.names import name_fault
from ..rundir import RunDir, discover
from .kept import kept

COPYING, LOGGED, DAMAGED, PRUNED = "copying", "logged", "damaged", "pruned"


@dataclass(slots=True)
class Version:
    """A version as the records tell of it.

    Attributes:
        name, version, type, digest, size, metadata: who it is; `digest` is "" before it is whole.
        state: "copying" (or was, when its process died), "logged", "damaged" or "pruned".
        manifest: where its manifest is, relative to `files/`.
        at: when it was last logged, UTC seconds. writer: who wrote that.
        reason: of a damaged version, why.
    """

    name: str
    version: str
    type: str = "artifact"
    state: str = COPYING
    digest: str = ""
    size: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)
    manifest: str = ""
    at: float = 0.0
    writer: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A version that a run took in: which, of which project, made by which run, and when."""

    project: str
    name: str
    version: str
    digest: str
    made_by: str
    at: float


class Catalog:
    """The versions of one run directory; fed with its artifact records in order.

    Attributes:
        versions: by (name, version). aliases: by (name, alias) the version that has it. uses: what was taken in.
    """

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], Version] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.uses: list[Use] = []

    @classmethod
    def read(cls, directory: RunDir) -> Catalog:
        """Return what the journals of a run directory say, whatever else has become of it."""
        catalog = cls()
        for writer, record in RunJournal([directory.journal]).records(frozenset({"artifact"}), hidden=True):
            catalog.add(writer, record)
        return catalog

    def add(self, writer: str, record: Record) -> None:
        """Take the next record; one that makes no sense is passed over."""
        data = record.data
        name, action = data.get("name"), data.get("action")
        if record.kind != "artifact" or name_fault(name) is not None:
            return
        if action == "use":
            self._use(str(name), record)
        elif isinstance(data.get("version"), str) and action in _ACTIONS:
            key = (str(name), data["version"])
            version = self.versions.get(key) or Version(*key)
            _ACTIONS[action](self, version, writer, record)

    def named(self, name: str) -> list[Version]:
        """Return an artifact's versions that are whole, in the order in which they were last logged."""
        found = [v for v in self.versions.values() if v.name == name and v.state == LOGGED]
        return sorted(found, key=lambda v: v.at)

    def aliases_of(self, version: Version) -> tuple[str, ...]:
        """Return the aliases that a version has, `latest` first."""
        found = [
            alias for (name, alias), held in self.aliases.items() if (name, held) == (version.name, version.version)
        ]
        return tuple(sorted(found, key=lambda alias: (alias != "latest", alias)))

    def find(self, name: str, which: str) -> Version | None:
        """Return the version with an alias, or of that very name, None where there is none that is whole."""
        version = self.versions.get((name, self.aliases.get((name, which), which)))
        return version if version is not None and version.state == LOGGED else None

    @property
    def incomplete(self) -> list[Version]:
        """The versions that were begun and neither became whole nor were given up: their process died, or lives."""
        return [v for v in self.versions.values() if v.state == COPYING]

    def _begin(self, version: Version, writer: str, record: Record) -> None:
        if version.state in (LOGGED, PRUNED):  # a copied directory went on elsewhere; what is whole stays so
            return
        version.type, version.state = _text(record.data, "type", "artifact"), COPYING
        version.size, version.at, version.writer = _number(record.data, "size"), record.t, writer
        self.versions[version.name, version.version] = version

    def _log(self, version: Version, writer: str, record: Record) -> None:
        data = record.data
        if not is_sha256(data.get("digest")) or not is_safe_path(_text(data, "manifest")):
            return
        self._close(version.name, data.get("begun"))
        version.type, version.state = _text(data, "type", "artifact"), LOGGED
        version.digest, version.manifest = str(data["digest"]), str(data["manifest"])
        version.size, version.at, version.writer = _number(data, "size"), record.t, writer
        if isinstance(data.get("metadata"), dict):
            version.metadata = data["metadata"]
        self.versions[version.name, version.version] = version
        for alias in data["aliases"] if isinstance(data.get("aliases"), list) else []:
            if name_fault(alias) is None:
                self.aliases[version.name, alias] = version.version

    def _close(self, name: str, begun: object) -> None:
        """Forget a version that was begun and turned out to be one that is here already."""
        if isinstance(begun, str) and (there := self.versions.get((name, begun))) and there.state == COPYING:
            del self.versions[name, begun]

    def _damaged(self, version: Version, writer: str, record: Record) -> None:
        version.state, version.at, version.writer = DAMAGED, record.t, writer
        version.reason = _text(record.data, "reason")
        self.versions[version.name, version.version] = version

    def _pruned(self, version: Version, writer: str, record: Record) -> None:
        version.state = PRUNED
        self.versions[version.name, version.version] = version

    def _use(self, name: str, record: Record) -> None:
        data = record.data
        if is_sha256(data.get("digest")):
            project, version, made_by = (_text(data, key) for key in ("project", "version", "run"))
            self.uses.append(Use(project, name, version, str(data["digest"]), made_by, record.t))


_ACTIONS = {
    "begin": Catalog._begin,
    "log": Catalog._log,
    "damaged": Catalog._damaged,
    "pruned": Catalog._pruned,
}


def _text(data: dict[str, Any], key: str, otherwise: str = "") -> str:
    value = data.get(key)
    return value if isinstance(value, str) else otherwise


def _number(data: dict[str, Any], key: str) -> int:
    value = data.get(key)
    return value if type(value) is int else 0


def catalogs(root: Path, name: str | None = None) -> Iterator[tuple[RunDir, str, str, Catalog]]:
    """Yield the run directories at or below a folder, each with its run's id, project, and catalog.

    So it does for what is left of those that were cleaned and whose artifacts were kept.

    Args:
        root: the folder. name: only directories that keep something of this artifact.
    """
    places: dict[Path, None] = {root: None}
    for directory in discover(root):
        places[directory.path.parent] = None
        if not _keeps(directory, name):
            continue
        with contextlib.suppress(OSError):
            who = _who(directory)
            if who is not None:
                yield directory, *who, Catalog.read(directory)
    for left in (left for place in places for left in kept(place)):
        if _keeps(left.directory, name):
            catalog = Catalog()
            for writer, record in left.records:
                catalog.add(writer, record)
            yield left.directory, left.id, left.project, catalog


def _keeps(directory: RunDir, name: str | None) -> bool:
    return name is None or (directory.files / "artifacts" / name).is_dir()


def _who(directory: RunDir) -> tuple[str, str] | None:
    """Return a run's id and project, from the spec or else from the journal."""
    try:
        spec: dict[str, Any] = directory.read_spec()
    except DamagedError:
        fold = RunJournal([directory.journal]).fold()
        spec = {"id": fold.id, "project": fold.project}
    run_id, project = spec.get("id"), spec.get("project")
    return (run_id, str(project or "uncategorized")) if isinstance(run_id, str) else None
