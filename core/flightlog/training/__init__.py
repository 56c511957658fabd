"""The framework-neutral recorder that all callbacks share.

A framework's integration turns its hooks into calls of one `Training`: it opens the run, records what it is told,
keeps checkpoints as artifacts, continues a run from the marker in a checkpoint, and tells how it ended. How to write
one: docs/integrations.md.
"""

from .checkpoints import POLICIES, Checkpoints
from .facts import model_facts, optimizer_facts
from .marker import Marker, as_marker, read_marker, write_marker
from .session import Training, hook

__all__ = [
    "POLICIES",
    "Checkpoints",
    "Marker",
    "Training",
    "as_marker",
    "hook",
    "model_facts",
    "optimizer_facts",
    "read_marker",
    "write_marker",
]
