"""Artifacts: named, versioned sets of files (checkpoints, data, models) that a run keeps or used."""

from .version import ArtifactVersion

__all__ = ["ArtifactVersion"]
