"""Bundles: one tar of run directories, for machines that never see a network (docs/bundles.md).

The same runs make the same bundle, byte for byte. Its first member is a list of what follows. Whoever unpacks one may
not know who made it: nothing is ever made outside of the folder, and whatever is unreasonable is refused.
"""

from .index import INDEX
from .packing import PackedRun, look, opened_for_writing, write
from .unpacking import Bounds, identities, is_bundle, place_of, unpacked

__all__ = [
    "INDEX",
    "Bounds",
    "PackedRun",
    "identities",
    "is_bundle",
    "look",
    "opened_for_writing",
    "place_of",
    "unpacked",
    "write",
]
