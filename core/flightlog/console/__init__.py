"""The console of a run: what went to stdout and stderr, as the terminal showed it (docs/console.md).

`screen` says what a terminal shows, `outbox` how much of it is kept, `recorder` brings both together and hands over,
`sink` appends to the journal. `capture.Console` is what a run holds: it follows Python's streams (`streams`), or the
descriptors 1 and 2 themselves (`descriptors`, with `tee` in a process of its own). `transcript` is the readers' side,
imported by them.
"""

from __future__ import annotations

from .capture import MODES, Console

__all__ = ["MODES", "Console"]
