"""flightlog for Lightning: a logger for `lightning` and for `pytorch_lightning`.

    from flightlog_lightning import FlightlogLogger

    trainer = L.Trainer(logger=FlightlogLogger(project="digits", checkpoints="all"))

The names below are made for the package that the program has imported, or else for the one that is installed; those of
`flightlog_lightning.unified` are for `lightning`, those of `flightlog_lightning.classic` for `pytorch_lightning`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .unified import FlightlogCallback, FlightlogLogger

__all__ = ["FlightlogCallback", "FlightlogLogger"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'flightlog_lightning' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_flavour()}", __name__), name)


def _flavour() -> str:
    """Return which of the two modules fits the program."""
    for package, module in (("lightning.pytorch", "unified"), ("pytorch_lightning", "classic")):
        if package in sys.modules:
            return module
    return "classic" if importlib.util.find_spec("lightning") is None else "unified"
