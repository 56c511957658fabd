"""Where a run comes from: the command, the code, the packages, the machine, the batch system (docs/provenance.md).

`quick` is for the first record and costs microseconds; `slow` asks git, the file system and the hardware. `Collector`
does that on a thread of its own while the training begins.
"""

from __future__ import annotations

from .collect import Collector, quick, slow

__all__ = ["Collector", "quick", "slow"]
