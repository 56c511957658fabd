"""What Lightning's Trainers call for callbacks of other packages (entry points `….callbacks_factory`).

Every program that makes a Trainer comes here, so nothing is imported where no FlightlogLogger can be: whoever has made
one has imported its module. And nothing that goes wrong here keeps a Trainer from being made.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def lightning() -> list[Any]:
    """Return a callback for a Trainer of `lightning`."""
    return _callbacks("unified")


def pytorch_lightning() -> list[Any]:
    """Return a callback for a Trainer of `pytorch_lightning`."""
    return _callbacks("classic")


def _callbacks(flavour: str) -> list[Any]:
    if f"{__package__}.logger" not in sys.modules:
        return []
    from flightlog.terminal import contained

    with contained("flightlog's callback"):
        return [importlib.import_module(f".{flavour}", __package__).FlightlogCallback()]
    return []
