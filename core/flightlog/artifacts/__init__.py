"""Artifacts: named, versioned sets of files (checkpoints, data, models) that a run keeps or used."""

from .artifact import Artifact
from .keeper import Keeper
from .lineage import Lineage
from .versions import ArtifactVersion

__all__ = ["Artifact", "ArtifactVersion", "Keeper", "Lineage"]
