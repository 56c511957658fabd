"""Where the two frameworks look up a tracker by its name, and ours is put.

transformers has no other way for this than its table; accelerate has a function for it since 1.15, and before that a
tracker is passed as an object: `log_with=FlightlogTracker("digits")`.
"""

from __future__ import annotations

from typing import Any

NAME = "flightlog"


def register_callback(callback: type[Any]) -> None:
    """Let `report_to="flightlog"` of TrainingArguments mean a callback's class."""
    from transformers.integrations import integration_utils

    integration_utils.INTEGRATION_TO_CALLBACK[NAME] = callback


def register_tracker(tracker: type[Any]) -> None:
    """Let `log_with="flightlog"` of Accelerator mean a tracker's class."""
    from accelerate import tracking

    if NAME not in tracking.LOGGER_TYPE_TO_CLASS and hasattr(tracking, "register_tracker_class"):
        tracking.register_tracker_class(tracker)
