"""What Lightning's Trainers call for callbacks of other packages (entry points `….callbacks_factory`).

Every Trainer gets one, so it costs nothing where no FlightlogLogger is; and nothing that goes wrong here keeps a
Trainer from being made.
"""

from __future__ import annotations

from typing import Any

from flightlog.terminal import contained


def lightning() -> list[Any]:
    """Return a callback for a Trainer of `lightning`."""
    with contained("flightlog's callback"):
        from .unified import FlightlogCallback

        return [FlightlogCallback()]
    return []


def pytorch_lightning() -> list[Any]:
    """Return a callback for a Trainer of `pytorch_lightning`."""
    with contained("flightlog's callback"):
        from .classic import FlightlogCallback

        return [FlightlogCallback()]
    return []
