"""System metrics: what the machine does while the training runs, sampled in the background (docs/system.md).

One probe per source (processors, memory, the run's processes, disks, network, NVIDIA) behind one small interface; the
sampler asks them every few seconds and hands on one set of values. Nothing here costs the training more than a
thousandth of a core, and a source that is missing, broken or hanging costs one line in the run.
"""

from .hardware import hardware
from .probe import Probe, Source, Unavailable
from .sampler import Sampler

__all__ = ["Probe", "Sampler", "Source", "Unavailable", "hardware"]
