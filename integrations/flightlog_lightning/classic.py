"""The logger and the callback for the package `pytorch_lightning`."""

from __future__ import annotations

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from .callback import CallbackHooks
from .logger import LoggerHooks


class FlightlogCallback(CallbackHooks, Callback):
    """What a Trainer tells callbacks only; added to each by an entry point."""


class FlightlogLogger(LoggerHooks, Logger):
    """Records a training with `pytorch_lightning`; see `LoggerHooks` for the arguments."""

    callback_class = FlightlogCallback
