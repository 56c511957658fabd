"""CallbackHooks: what Lightning tells callbacks, and not loggers.

When the loop begins and ends, the checkpoint that is loaded, each batch, the exception. Every Trainer gets one by an
entry point (factory.py); it does nothing where there is no FlightlogLogger, or where another one is at work already.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

from flightlog.terminal import contained, warn_once
from flightlog.throughput import batch_size, token_count
from flightlog.training import hook

from . import describe
from .logger import LoggerHooks

KEY = "flightlog"


class CallbackHooks:
    """The callback that goes with a FlightlogLogger; its hooks are Lightning's."""

    def __init__(self) -> None:
        super().__init__()
        self._began = False
        self._logger: LoggerHooks | None = None
        self._rates: dict[str, float] | None = None
        self._optimized = 0  # global_step at the end of the last batch

    def logger_of(self, trainer: Any) -> LoggerHooks | None:
        """Return the Trainer's logger that this callback works for, None where it does nothing."""
        working = next((each for each in trainer.callbacks if isinstance(each, CallbackHooks)), None)
        if working is not self:
            return None
        return next((each for each in trainer.loggers if isinstance(each, LoggerHooks)), None)

    # -- the begin -----------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """A stage is being prepared: nothing is recorded yet."""
        self._began = False
        self._logger = logger = self.logger_of(trainer)
        if logger is not None:
            logger.trainer = weakref.ref(trainer)
            _let_one_record(trainer, logger)

    @hook
    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """A checkpoint is loaded: its run goes on."""
        logger = self._logger
        if logger is None:
            return
        before = logger.version
        fits = _fits(trainer)
        logger.training.resume_from_marker(checkpoint.get(KEY), rewind=fits)
        version = logger.version
        if trainer.world_size > 1:
            before, version = trainer.strategy.broadcast((before, version))
        if fits and before != version and trainer.loggers[0] is logger:
            _move_checkpoints(trainer, logger, before, version)

    def _begin(self, trainer: Any, pl_module: Any) -> None:
        """The loop begins: which run it is is settled, and all processes come to it."""
        logger = self._logger
        if logger is None or self._began:
            return
        self._began = True
        training = logger.training
        training.rank = trainer.global_rank
        path = trainer.ckpt_path
        if path and training.is_main and not training.is_open and Path(str(path)).exists():
            training.resume_from_checkpoint(path, rewind=_fits(trainer))
        self._gather(trainer, logger)
        training.throughput.scale = trainer.world_size
        logger.begin()
        if training.is_main:
            with contained("flightlog's description of the training"):
                describe.record(trainer, pl_module, training, logger.prefix)
        training.began()

    def _gather(self, trainer: Any, logger: LoggerHooks) -> None:
        training, size = logger.training, trainer.world_size
        if size == 1:
            training.open()
            return
        invitation = trainer.strategy.broadcast(training.invitation(size) if training.is_main else None)
        if not training.is_main:
            training.join(invitation, trainer.global_rank, trainer.local_rank)

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        """The validation before a training."""
        self._begin(trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The training."""
        self._begin(trainer, pl_module)
        logger = self._logger
        if logger is not None:
            logger.going_on(trainer)
            logger.step = _batches_that_stepped(trainer) - 1
            self._optimized = trainer.global_step
            logger.training.throughput.start()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """A validation, of its own or in a training, whose time it does not count for."""
        self._begin(trainer, pl_module)
        logger = self._logger
        if logger is not None:
            logger.record_beside()
            logger.training.throughput.pause()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """A test."""
        self._begin(trainer, pl_module)

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """A prediction."""
        self._begin(trainer, pl_module)

    # -- batches and epochs --------------------------------------------------------------------------------------------

    @hook
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """The first batch of an epoch is asked for."""
        logger = self._logger
        if logger is not None:
            logger.record_beside()
            logger.axis = None
            logger.training.throughput.start()

    @hook
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A batch is there."""
        logger = self._logger
        if logger is not None:
            logger.record_beside()
            training = logger.training
            training.throughput.batch_ready()
            logs = training.is_main and _logs_now(trainer, _batches_that_stepped(trainer), batch_idx)
            # Before a scheduler changes them.
            self._rates = training.learning_rates(trainer.optimizers) if logs else None

    @hook
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch's step is done; Lightning logs its metrics next."""
        logger = self._logger
        if logger is None:
            return
        logger.step = step = _batches_that_stepped(trainer)
        self._optimized = trainer.global_step
        training = logger.training
        training.throughput.step_done(batch_size(batch), token_count(batch))
        if self._rates is not None:
            values: dict[str, Any] = self._rates
            if logger.log_throughput:
                values.update(training.throughput.read())
            logger.beside(step, values)

    @hook
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """An epoch's batches are done; Lightning logs what was gathered over them next."""
        logger = self._logger
        if logger is not None:
            logger.record_beside()
            logger.axis = "epoch"
            logger.training.throughput.pause()

    @hook
    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """A validation's batches are done; Lightning logs what was gathered over them next."""
        logger = self._logger
        if logger is not None:
            logger.at_end = True
            if _fits(trainer) and trainer.val_check_interval == 1.0:  # else several would stand at one epoch
                logger.axis = "epoch"

    @hook
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """The training goes on."""
        logger = self._logger
        if logger is not None:
            logger.at_end = False
            logger.axis = None
            logger.training.throughput.start()

    @hook
    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """A test's batches are done; Lightning logs what was gathered over them next."""
        logger = self._logger
        if logger is not None:
            logger.at_end = True

    @hook
    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """A test is through."""
        logger = self._logger
        if logger is not None:
            logger.at_end = False

    # -- checkpoints and the end ---------------------------------------------------------------------------------------

    @hook
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """A checkpoint is being made: it gets the marker that leads back to the run."""
        logger = self._logger
        if logger is not None:
            logger.training.throughput.pause()
            step = logger.step
            if step is None:  # the script saves, outside of a loop
                step = _batches_that_stepped(trainer) - 1
            elif trainer.global_step > self._optimized:
                step += 1  # a signal handler saves in the midst of a batch, whose step is done and will not be again
            marker = logger.training.marker(step if step >= 0 else None)
            if marker:
                checkpoint[KEY] = marker

    @hook
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The training is through; checkpoints may still be saved."""
        logger = self._logger
        if logger is not None:
            logger.record_beside()
            logger.axis = None

    @hook
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """A stage was left by an exception; `finalize` comes when all callbacks have saved what they want to."""
        if self._logger is None:  # it failed before `setup`
            self.setup(trainer, pl_module, "")
        logger = self._logger
        if logger is not None:
            logger.note(exception)


def _let_one_record(trainer: Any, logger: LoggerHooks) -> None:
    """Silence the Trainer's other loggers of ours: opening one's run would end the other's, at each of their hooks."""
    for each in trainer.loggers:
        if isinstance(each, LoggerHooks):
            each.is_aside = each is not logger
            if each.is_aside:
                warn_once(
                    "two loggers",
                    "this Trainer has two FlightlogLoggers: the first one records, the other does not. Pass one.",
                )


def _fits(trainer: Any) -> bool:
    return bool(getattr(trainer.state.fn, "value", trainer.state.fn) == "fit")


def _batches_that_stepped(trainer: Any) -> int:
    """Return the step that Lightning logs a training's metrics at, before it counts the batch that was just done."""
    step = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", None)
    return step if isinstance(step, int) else max(0, int(trainer.global_step) - 1)


def _logs_now(trainer: Any, step: int, batch_idx: int) -> bool:
    """Tell whether Lightning is about to log this batch's metrics."""
    every = trainer.log_every_n_steps
    accumulates = (batch_idx + 1) % trainer.accumulate_grad_batches != 0 and not trainer.is_last_batch
    return bool(every) and not accumulates and ((step + 1) % every == 0 or trainer.should_stop)


def _move_checkpoints(trainer: Any, logger: LoggerHooks, before: str, version: str) -> None:
    """Let ModelCheckpoints go on in the continued run's folder, where they have taken a new run's for their own."""
    root = Path(logger.save_dir)
    new = root / logger.name / version / "checkpoints"
    for callback in trainer.checkpoint_callbacks:
        folder = getattr(callback, "dirpath", None)
        if (
            folder is not None
            and Path(folder).parts[-2:] == (before, "checkpoints")
            and Path(folder).is_relative_to(root)
        ):
            callback.dirpath = os.fspath(new)
