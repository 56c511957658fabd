"""FlightlogCallback: Keras' hooks in, the core's recorder out.

Keras tells a callback nothing of an exception that leaves `fit`. What ends the process is seen by the recorder itself;
what the script catches is seen when the callback is used again, or at the end of the process.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import inspect
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import keras

import flightlog
from flightlog.protocol.names import checked_name
from flightlog.run import Run
from flightlog.terminal import contained, warn_once
from flightlog.training import Training, hook

from . import facts, markers, processes, saving, watching
from .axis import Axis, iterations
from .pace import Every, Pace
from .predictions import Predictions
from .speed import Speed

# The learning rate is asked for as often as takes this share of the time.
_RATE_SHARE = 0.001
_live: weakref.WeakSet[FlightlogCallback] = weakref.WeakSet()


class FitLeft(Exception):
    """`fit` was left before its end, by an exception that the script caught, or by sys.exit()."""


class FlightlogCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Records a training with Keras 3; pass it to `fit`, and to `evaluate` and `predict` if they shall be recorded.

    It may be passed to several `fit` calls: the run goes on. Also a context manager: it then ends the run, and knows of
    an exception that the script catches outside.

    Args:
        project: what the run belongs to.
        run: a run to record into; without it the current one, if the script began it, or else a new one.
        checkpoints: which files of a ModelCheckpoint are kept as versions of an artifact: "none", "best", "last",
            "best_and_last" or "all".
        artifact: the artifact's name; "model-<run id>" without one.
        log_every: how many batches from one record of batch metrics to the next: 1 for each, None for none; "auto" for
            each as well, but of batches that take a few milliseconds only so many as cost less than 1 % of the time.
        predictions: inputs and targets whose predictions are recorded as a table at the end of each epoch: a pair of
            arrays, or what gives batches of such pairs.
        prediction_rows: how many of them.
        **init: what `flightlog.init` takes: name, config, tags, group, notes, dir, mode, id, resume …

    Attributes:
        async_safe: tells Keras that its hooks may be called by other threads, while the next batch is worked on.

    Raises:
        UsageError, SettingsError: an argument cannot be used. TypeError: there is none of this name.
    """

    async_safe = True

    def __init__(
        self,
        project: str | None = None,
        *,
        run: Run | None = None,
        checkpoints: str = "best_and_last",
        artifact: str | None = None,
        log_every: Every = "auto",
        predictions: Any = None,
        prediction_rows: int = 32,
        **init: Any,
    ) -> None:
        super().__init__()
        for name in init:
            if name not in inspect.signature(flightlog.init).parameters:
                raise TypeError(f"FlightlogCallback() got an unexpected keyword argument {name!r}")
        pace = Pace(log_every)
        if project is not None:
            checked_name("project", project)
        self._given: dict[str, Any] = dict(
            project=project, run=run, checkpoints=checkpoints, artifact=artifact, log_every=log_every,
            predictions=predictions, prediction_rows=prediction_rows, **init,
        )  # fmt: skip
        self._training = Training(run=run, checkpoints=checkpoints, artifact=artifact, project=project, **init)
        self._axis = Axis()
        self._speed = Speed()
        self._pace = pace
        self._predictions = Predictions(predictions, prediction_rows) if predictions is not None else None
        self._names: dict[str, str] = {}
        self._defined: set[str] = set()
        self._is_silent = False
        self._in_fit = False  # between on_train_begin and on_train_end, or an exception
        self._was_left = False  # this fit was taken for one that an exception has ended
        self._is_ready = False  # this fit has its run
        self._is_apart = False  # in a list of callbacks of its own: an evaluate or predict of the script's
        self._fit: tuple[Any, Any] = (None, None)  # its model and parameters
        self._list: list[Any] = []  # its callbacks, as far as they concern us
        self._thread = 0
        self._epoch = 0
        self._batches = 0
        self._last_batch = sys.maxsize  # of an epoch, where it is known
        self._samples: int | None = None
        self._seen: Mapping[str, Any] | None = None  # the latest metrics, until something changes the model
        self._is_over = False  # the epoch is through for us; callbacks behind us may still save
        self._saved: list[tuple[Any, str, str, int]] = []
        self._backed_up: list[tuple[str, int, int | None]] = []  # where, at which step and optimizer's count
        self._best: dict[tuple[str, str], float] = {}  # by alias and metric
        self._next_rate = 0.0
        self._rates_now: Mapping[str, float] = {}
        self._began_at = 0.0
        watching.note(self)
        _live.add(self)

    @property
    def run(self) -> Run:
        """The run; begun now if it is not yet. Raises UsageError as `flightlog.init`."""
        return self._training.run

    def finish(self) -> None:
        """End the run, if it was begun here; the end of the process does so by itself."""
        self._leave()
        self._training.finish()

    def __enter__(self) -> FlightlogCallback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.finish()
        else:
            self._in_fit = False
            self._training.failed(error)

    def __deepcopy__(self, memo: dict[int, Any]) -> FlightlogCallback:
        """Tuners copy callbacks for each trial: each is a run of its own, unless `run` or `id` were given."""
        kept = ("run", "predictions")
        given = {k: value if k in kept else copy.deepcopy(value, memo) for k, value in self._given.items()}
        return type(self)(**given)

    # -- what belongs to a list of callbacks ---------------------------------------------------------------------------

    def set_model(self, model: Any) -> None:
        """A new list of callbacks is made: for another `fit`, or an `evaluate` or `predict` of the script's."""
        super().set_model(model)
        self._is_apart = True

    def set_params(self, params: Any) -> None:
        """The list's parameters, the same mapping for all its callbacks."""
        super().set_params(params)
        watching.note(self)

    def _rejoin(self) -> None:
        """An evaluation that a script's own callback has made in the midst of a fit is over."""
        self._is_apart = False
        if self._in_fit and self._is_ready:
            super().set_model(self._fit[0])
            super().set_params(self._fit[1])

    @property
    def _net(self) -> Any:
        """The model as it stands; `self.model` would have jax bring the whole state back from the device."""
        return getattr(self._model, "module", self._model)

    # -- fit -----------------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """`fit` begins. The run waits for the first epoch: BackupAndRestore may be behind us in the list."""
        with contained("flightlog's on_train_begin()"):
            self._thread = threading.get_ident()
            for other in list(_live):
                other._leave_for(self)
            self._in_fit, self._was_left, self._is_ready, self._is_apart = True, False, False, False
            self._fit = (self._model, self.params)
            self._list = watching.in_list_of(self)
            self._is_silent = next(c for c in self._list if isinstance(c, FlightlogCallback)) is not self
            if self._is_silent:
                warn_once("two callbacks", "two FlightlogCallbacks in one fit(): only one of them records.")
            self._training.rank = self._training.rank or processes.rank()
            self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """An epoch begins; before the first one, the run is begun or continued."""
        if not self._records:
            return
        with contained("flightlog's on_epoch_begin()"):
            self._go_on()
            self._rejoin()
            self._settle_saved(self._seen or {})
            self._begin_run()
            self._epoch, self._batches, self._samples, self._seen, self._is_over = epoch, 0, None, None, False
            steps = (self.params or {}).get("steps")
            self._last_batch = steps - 1 if isinstance(steps, int) and steps > 0 else sys.maxsize
            self._axis.begin_epoch(self._net)
            self._speed.begin_epoch(int(getattr(self._net, "steps_per_execution", 1) or 1))

    @property
    def _records(self) -> bool:
        return self._training.is_main and not self._is_silent

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Some batches are about to be worked on."""
        if self._records:
            if self._saved or self._backed_up:
                with contained("keeping a checkpoint"):
                    self._settle_saved(self._seen or {})
            self._seen = None
            self._speed.begin()
            if batch == 0:
                # jax still has the optimizer's state at hand here, and every callback has had its say for this epoch.
                with contained("flightlog's on_train_batch_begin()"):
                    self._rates_now = self._rates()

    @hook  # which is quicker than `contained`
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Batches are done. Maybe called by another thread, maybe out of order; never while an epoch begins or ends."""
        if not self._records or self._is_late:
            return
        self._speed.end()
        per_call = self._speed.per_call
        batch += per_call - 1 - batch % per_call  # Keras up to 3.11 tells of the first batch of an execution
        batch = min(batch, self._last_batch)  # an epoch's last execution may have fewer than the others
        step = self._axis.at(batch)
        self._batches = max(self._batches, batch + 1)
        self._seen = logs = logs or {}
        if self._pace.is_due(batch + 1, per_call):
            with self._pace.recording():
                self._record_batch(logs, batch, step, self._pace.is_first(batch + 1, per_call))
        if (self._saved or self._backed_up) and batch < self._last_batch:
            self._settle_saved(logs)

    @property
    def _is_late(self) -> bool:
        """Whether another thread calls for a `fit` whose run an exception has ended: that must not begin it again."""
        return threading.get_ident() != self._thread and not self._training.is_open

    def _record_batch(self, logs: Mapping[str, Any], batch: int, step: int, is_first: bool) -> None:
        names = self._names
        values = {names.get(key) or self._named(key): value for key, value in logs.items()}
        rates = self._speed.take()
        if rates:
            values.update(rates)
            self._training.checkpoints.settle()  # what is saved in the background may be there now
        values.update(self._rates_due(batch, is_first))
        self._training.log(values, step)

    def _named(self, key: str) -> str:
        name = self._names[key] = f"batch/{key}"
        return name

    def _rates_due(self, batch: int, is_first: bool) -> dict[str, float]:
        """Return the learning rates, in the first record of an epoch and then as often as it costs next to nothing."""
        now = time.perf_counter()
        if is_first:
            rates = self._rates_now
        elif now >= self._next_rate:
            rates = facts.learning_rates(self._net.optimizer, self._axis.batches_at(batch))
        else:
            return {}
        self._next_rate = now + (time.perf_counter() - now) / _RATE_SHARE
        return {f"batch/{name}": value for name, value in rates.items()}

    def _rates(self) -> dict[str, float]:
        optimizer = getattr(self._net, "optimizer", None)
        return {} if optimizer is None else facts.learning_rates(optimizer)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """An epoch is through, validation included."""
        if not self._records:
            return
        with contained("flightlog's on_epoch_end()"):
            self._go_on()
            logs = dict(logs or {})
            self._batches_through(_number(logs.get("loss")))
            self._axis.end_epoch(self._net)
            values = {**self._rates(), **logs}  # what ReduceLROnPlateau has put in is the rate before it changed it
            self._define(values)
            values.update(self._speed.rest(self._samples))
            self._training.log({**values, **self._table()}, self._axis.step, epoch=epoch + 1)
            self._seen, self._is_over = logs, True
            self._settle_saved(logs)

    def _table(self) -> dict[str, Any]:
        """Return the predictions to record; none where the model does not take the samples: the metrics go on."""
        if self._predictions is not None:
            with contained("the table of predictions"):
                return {"predictions": self._predictions.table(self.model)}
        return {}

    def _define(self, names: Mapping[str, Any]) -> None:
        """Have the metrics of epochs drawn over the epoch; those of batches stand over the step."""
        if not self._defined:
            self._training.define("epoch", hidden=True)
            self._training.define("batch/*")
            self._defined.add("epoch")
        for name in names.keys() - self._defined:
            self._defined.add(name)
            if isinstance(name, str) and name and not any(c in name for c in "*?["):
                self._training.define(name, step_metric="epoch")

    def _batches_through(self, loss: float | None = None) -> None:
        """The epoch's batches are done, and neither a validation nor the next epoch has begun to count anew."""
        if self._speed.is_running:
            self._speed.end_epoch()
            self._samples = facts.samples_seen(self._net, self._batches, loss)

    def on_train_end(self, logs: Any = None) -> None:
        """`fit` has come to its end; the run stays open for what the script does next."""
        with contained("flightlog's on_train_end()"):
            if self._records:
                self._go_on()
                self._begin_run()  # there may have been no epoch left to do
                self._settle_saved(self._seen or {})
                for one in self._list:
                    if saving.is_orbax(one):
                        one.wait_until_finished()
                self._note_stop(logs or {})
                for backup in self._backups():
                    if getattr(backup, "delete_checkpoint", True):  # by itself, before or after us
                        markers.remove(backup.backup_dir)
            self._in_fit = False
            self._fit, self._list = (None, None), []
            self._training.paused()

    def _note_stop(self, logs: Mapping[str, Any]) -> None:
        """Record why a training stopped before its last epoch, as far as a callback of Keras' own has stopped it."""
        if not getattr(self._net, "stop_training", False) or not self._training.is_open:
            return
        stopped: dict[str, Any] = {"epoch": self._epoch + 1}
        metrics = {**(self._seen or {}), **logs}
        for one in self._list:
            if isinstance(one, keras.callbacks.EarlyStopping) and one.stopped_epoch > 0:
                stopped["by"] = type(one).__name__
                stopped["best_epoch"] = getattr(one, "best_epoch", 0) + 1
                stopped["restored_best_weights"] = bool(one.restore_best_weights)
            elif isinstance(one, keras.callbacks.TerminateOnNaN) and not _is_finite(metrics.get("loss")):
                stopped["by"] = type(one).__name__
                said = f"loss is not finite: training stopped at step {self._axis.step}"
                self._training.run.alert(said, level="ERROR")
        self._training.run.summary.update({"stopped": stopped})

    # -- evaluate and predict ------------------------------------------------------------------------------------------

    def on_test_begin(self, logs: Any = None) -> None:
        """A validation within `fit` begins, or an `evaluate` of the script's."""
        if self._records:
            with contained("flightlog's on_test_begin()"):
                if not self._is_apart:
                    self._batches_through()

    def on_test_end(self, logs: Any = None) -> None:
        """It is through. What a validation found comes with its epoch; the script's goes to the run where it stands."""
        if self._records and self._is_apart and logs:
            with contained("flightlog's on_test_end()"):
                self._join_run()
                self._training.log({f"test_{key}": value for key, value in logs.items()}, self._axis.step)
                self._rejoin()

    def on_predict_begin(self, logs: Any = None) -> None:
        """A `predict` begins."""
        self._began_at = time.perf_counter()

    def on_predict_end(self, logs: Any = None) -> None:
        """A `predict` is through: how long it took is recorded."""
        if self._records and self._is_apart:
            with contained("flightlog's on_predict_end()"):
                self._join_run()
                seconds = time.perf_counter() - self._began_at
                self._training.log({"predict/seconds": seconds}, self._axis.step)
                self._rejoin()

    # -- the run -------------------------------------------------------------------------------------------------------

    def _begin_run(self) -> None:
        """Begin the run that this `fit` is, or go on with the one that saved what the model was restored from."""
        if self._is_ready:
            return
        self._is_ready = True
        model, training = self._net, self._training
        known = self._resume(model, rewind=True)
        is_new = not training.is_open
        run = training.open()
        _watch_exit()
        if is_new and known is None and run.resumed and iterations(model) in (0, None):
            known = max(0, run.step - 1)  # the script continues a run with a new model: behind what is there
        is_back = self._axis.begin(model, known)
        if is_back and known is None and run.step > self._axis.step + 1:
            training.checkpoints.begin()
            run.rewind(self._axis.step)
        if is_back or (is_new and run.resumed):
            self._recall_best()
        for one in self._list:
            saving.lend(one, model, self._was_saved)
        for backup in self._backups():
            self._leave_marker(backup.backup_dir, known if known is not None else self._axis.step, iterations(model))
        with contained("describing the model"):
            self._describe(model)

    def _join_run(self) -> None:
        """Have a run for an evaluation: the one that is open, or the one that saved the model."""
        if not self._training.is_open and self._training.is_main:
            known = self._resume(self._net, rewind=False)
            self._training.open()
            self._axis.step = known if known is not None else (iterations(self._net) or self._axis.step)

    def _resume(self, model: Any, *, rewind: bool) -> int | None:
        """Look whether the model was loaded from a checkpoint of a run, and continue that; return the step."""
        path = watching.came_from(model)
        found = markers.find(path) if path is not None else None
        if rewind:
            watching.forget_origin(model)
        if found is None:
            return None
        updates = iterations(model)
        if rewind and not updates and updates != found.updates:
            return None  # only its weights were taken: this is another training
        step = found.step(updates)
        if not self._training.resume_from_marker(found.marker.data(), step, rewind=rewind):
            return None
        return step

    def _describe(self, model: Any) -> None:
        training = self._training
        training.configure({"keras": facts.fit_facts(model, self.params or {})})
        training.describe_model(facts.model_facts(model))
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None:
            optimizers, schedules = facts.optimizer_facts(optimizer)
            training.describe_optimizers(optimizers, schedules)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def _backups(self) -> list[Any]:
        kind = keras.callbacks.BackupAndRestore
        return [one for one in self._list if isinstance(one, kind)]

    def _leave_marker(self, path: str | os.PathLike[str], step: int, updates: int | None) -> None:
        with contextlib.suppress(OSError):  # the place of a checkpoint may be anything; what is saved there is there
            markers.leave(path, self._training.marker(step), updates)

    def _was_saved(self, callback: Any, path: str, kind: str) -> None:
        """A callback of Keras' own has saved the model: called in the midst of its hook, before or after ours."""
        with contained("flightlog's checkpoint()"):
            step, updates = self._axis.now(self._net)
            if isinstance(callback, keras.callbacks.BackupAndRestore):
                # It has still to write which epoch that was. A kill before then must stay unlikely, and its marker can
                # wait: the older one leads to the same step, by the optimizer's count.
                self._backed_up.append((os.fspath(callback.backup_dir), step, updates))
                return
            # Orbax takes offence at a file among its folders; the marker is that of the newest one.
            self._leave_marker(callback.directory if kind == "orbax" else path, step, updates)
            self._saved.append((callback, path, kind, step))
            if self._is_over:
                self._settle_saved(self._seen or {})

    def _settle_saved(self, logs: Mapping[str, Any]) -> None:
        """Keep what has been saved, now that its metrics are known: what came with an epoch's last batch at its end."""
        backups, self._backed_up = self._backed_up, []
        for backup in backups:
            self._leave_marker(*backup)
        waiting, self._saved = self._saved, []
        found = [self._understood(*one, logs) for one in waiting]
        # Of several at one step one is kept; "metric" and "score" are those of the first.
        for saved in sorted(found, key=lambda one: (one["step"], one["best"] != "best")):
            self._training.checkpoint_saved(**saved, epoch=self._epoch + 1, sidecar=False)

    def _understood(self, callback: Any, path: str, kind: str, step: int, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is known of a checkpoint, as arguments of `Training.checkpoint_saved`."""
        metric, mode = saving.best_of(callback)
        only_best = bool(getattr(callback, "save_best_only", False))
        score = _number(callback.best if only_best else logs.get(metric or ""))
        known: dict[str, Any] = {} if score is None else {"metric": metric, "score": score, "mode": mode}
        alias = saving.best_alias(callback, self._list)
        is_best = self._is_best(alias, metric, score, mode) if known and mode else only_best
        scores = {other: _number(logs.get(other)) for other in saving.monitored(self._list)}
        return {
            "path": path, "step": step, "kind": kind, "best": alias if is_best else False,
            "is_side": saving.is_side(callback, self._list), **known,
            "write_once": kind == "orbax" or "{" in str(getattr(callback, "filepath", "")),
            "metadata": {"scores": {other: value for other, value in scores.items() if value is not None}},
        }  # fmt: skip

    def _is_best(self, alias: str, metric: str | None, score: float | None, mode: str) -> bool:
        """Whether it is the best of the whole run; a callback of Keras' own begins anew with each process."""
        if score is None or metric is None or math.isnan(score):
            return False
        before = self._best.get((alias, metric))
        if before is None or (score < before if mode == "min" else score > before):
            self._best[alias, metric] = score
            return True
        return False

    def _recall_best(self) -> None:
        """The run goes on from an earlier step: the best so far is that of the checkpoints up to there."""
        self._best.clear()
        for metadata, aliases in self._training.checkpoints.metadata():
            step, scores = metadata.get("step"), metadata.get("scores")
            known = {metadata.get("metric"): metadata.get("score"), **(scores if isinstance(scores, Mapping) else {})}
            for one in saving.saving(self._list):
                alias, score = saving.best_alias(one, self._list), _number(known.get(one.monitor))
                if alias in aliases and score is not None and isinstance(step, int) and step <= self._axis.step:
                    self._best[alias, one.monitor] = score

    # -- a fit that was left -------------------------------------------------------------------------------------------

    def _leave_for(self, other: FlightlogCallback) -> None:
        """Another `fit` begins: if ours did not end, an exception has ended it."""
        if other is self:
            self._in_fit = False  # it is tried again, and the run goes on
        elif self._thread == other._thread:
            self._leave()

    def _leave(self) -> None:
        """If a `fit` is not through, say that the run failed."""
        if not self._in_fit:
            return
        self._in_fit, self._was_left = False, True
        if self._records and self._training.is_open:
            self._settle_saved(self._seen or {})
            where = f"in epoch {self._epoch + 1}, at step {self._axis.step}"
            self._training.failed(FitLeft(f"fit() was left {where}, before its end"))

    def _go_on(self) -> None:
        """Another `fit` had begun in the midst of ours, which was not left for it: our hooks are called again."""
        if self._was_left:
            self._in_fit, self._was_left = True, False
            self._training.open()


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _is_finite(value: Any) -> bool:
    number = _number(value)
    return number is None or math.isfinite(number)


@functools.cache
def _watch_exit() -> None:
    """Look at fits that were left when the process ends; called once there is a run, to come before its own end."""
    atexit.register(_at_exit)


def _at_exit() -> None:
    for callback in list(_live):
        with contained("the end of a fit()"):
            callback._leave()


watching.install()
