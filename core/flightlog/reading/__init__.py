"""Runs as data: the same API over local directories and over a server."""

from .api import Api
from .views import ArtifactView, RunView

__all__ = ["Api", "ArtifactView", "RunView"]
