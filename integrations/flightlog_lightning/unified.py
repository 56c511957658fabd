"""The logger and the callback for the package `lightning`."""

from __future__ import annotations

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from .callback import CallbackHooks
from .logger import LoggerHooks


class FlightlogCallback(CallbackHooks, Callback):
    """What a Trainer tells callbacks only; added to each by an entry point."""


class FlightlogLogger(LoggerHooks, Logger):
    """Records a training with `lightning`; see `LoggerHooks` for the arguments."""

    callback_class = FlightlogCallback
