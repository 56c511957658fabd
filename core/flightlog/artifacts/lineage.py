"""What was made by which run and used by which, from the runs on this disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import DamagedError, NotFound
from ..rundir import RunDir
from .catalog import LOGGED, PRUNED, Catalog, Use, Version, catalogs
from .versions import ArtifactVersion


@dataclass(frozen=True, slots=True)
class Made:
    """A version, and the run that logged it."""

    run: str
    project: str
    version: Version
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Used:
    """A run, and a version that it took in."""

    run: str
    project: str
    use: Use


class Lineage:
    """Which runs made and used which artifact versions.

    Attributes:
        made: all versions that are whole, or were before a rule let them go. used: all uses.
    """

    def __init__(self, root: Path) -> None:
        """Read the runs at or below `root`, a folder of run directories or one of them."""
        self.made: list[Made] = []
        self.used: list[Used] = []
        for _, run, project, catalog in catalogs(root):
            self.made += [
                Made(run, project, v, catalog.aliases_of(v))
                for v in catalog.versions.values()
                if v.state in (LOGGED, PRUNED)
            ]
            self.used += [Used(run, project, use) for use in catalog.uses]

    def outputs_of(self, run: str) -> list[Made]:
        """Return what a run, named by its id, has made."""
        return [made for made in self.made if made.run == run]

    def inputs_of(self, run: str) -> list[Use]:
        """Return what a run, named by its id, has used."""
        return [used.use for used in self.used if used.run == run]

    def makers_of(self, digest: str) -> list[Made]:
        """Return who has made a version with this digest."""
        return [made for made in self.made if made.version.digest == digest]

    def users_of(self, digest: str) -> list[Used]:
        """Return who has used a version with this digest."""
        return [used for used in self.used if used.use.digest == digest]


def find(root: Path, project: str, name: str, which: str) -> ArtifactVersion | None:
    """Return a version from the runs at or below a folder: of several that answer to it, the one logged last.

    Args:
        root: the folder. project, name: what it is a version of. which: an alias, or v0, v1 ….

    Returns:
        The version, None where there is none.

    Raises:
        DamagedError: there are some, and none of them can be read.
    """
    found: list[tuple[Version, ArtifactVersion]] = []
    for directory, run, its_project, catalog in catalogs(root, name):
        version = catalog.find(name, which)
        if version is not None and its_project == project:
            found.append((version, _handle(directory, run, project, version, catalog)))
    fault: DamagedError | None = None
    for _, handle in sorted(found, key=lambda pair: pair[0].at, reverse=True):
        try:
            manifest = handle.manifest
        except NotFound:  # let go, or delivered and cleaned
            continue
        except DamagedError as error:
            fault = fault or error
            continue
        handle.description = manifest.description
        return handle
    if fault is not None:
        raise fault
    return None


def _handle(directory: RunDir, run: str, project: str, version: Version, catalog: Catalog) -> ArtifactVersion:
    return ArtifactVersion(
        version.name,
        version.version,
        (directory.files / version.manifest).parent,
        type=version.type,
        project=project,
        made_by=run,
        size=version.size,
        aliases=catalog.aliases_of(version),
        metadata=version.metadata,
        digest=version.digest,
    )
