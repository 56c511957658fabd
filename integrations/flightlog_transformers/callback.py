"""FlightlogCallback: the Trainer's hooks, each turned into one call of the recorder that all frameworks share."""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from transformers.trainer_callback import ExportableState, TrainerCallback

from flightlog import endings, launch, settings
from flightlog.run import Run
from flightlog.terminal import contained, warn_once
from flightlog.training import Marker, Training, as_marker, read_marker

from . import card, facts, folders, watching

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

_H = TypeVar("_H", bound=Callable[..., None])
# What the Trainer logs once, at the end of a training: no curves.
_TOTALS = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos")
_DEFAULT_PROJECT = "huggingface"  # of TrainingArguments
_RANKS_WAIT = 10.0


def _hook(method: _H) -> _H:
    """Let no error of a hook reach the Trainer, and do nothing where another callback speaks for it."""

    @functools.wraps(method)
    def wrapped(self: FlightlogCallback, *args: Any, **kwargs: Any) -> None:
        if self._silent:
            return
        try:  # twice at each step: where all is well, it costs nothing
            method(self, *args, **kwargs)
        except Exception as error:
            with contained(f"flightlog's {method.__name__}()"):
                raise error

    return cast("_H", wrapped)


class FlightlogCallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Records a Trainer's trainings: `Trainer(…, callbacks=[FlightlogCallback(project="digits")])`.

    A training is one run: the metrics as the Trainer logs them, its arguments, the model's and the optimizer's facts,
    the throughput, and checkpoints as versions of an artifact. A training that goes on from a checkpoint continues the
    run that saved it; another one begins a new run, and so does each trial of a hyperparameter search. What is
    evaluated or predicted in between goes to the last run.

    Args:
        project: what the run belongs to.
        run: a run to record into, which is not ended here.
        checkpoints: which checkpoints are kept: "none", "best", "last", "best_and_last" or "all".
        artifact: the name of the artifact whose versions they are; "model-<run id>" without one.
        **init: what else `flightlog.init` takes, such as name, tags, group and dir.

    Raises:
        UsageError: an argument cannot be used.
    """

    def __init__(
        self,
        project: str | None = None,
        *,
        run: Run | None = None,
        checkpoints: str | bool = "best_and_last",
        artifact: str | None = None,
        **init: Any,
    ) -> None:
        from transformers.trainer import Trainer

        self._given = {"run": run, "checkpoints": checkpoints, "artifact": artifact, "project": project, **init}
        self._training = Training(**self._given)
        self._silent = False
        self._has_trained = False
        self._is_training = False
        self._call: weakref.ref[watching.Call] | None = None
        self._introduced: str | None = None
        self._began_at = 0.0
        self._step = 0
        self._saved: set[int] = set()
        self._unsaved: Callable[[], None] | None = None
        self._tokens = 0
        self._samples = 0
        self._has_rates = False
        self._rates: list[float] = []
        self._evaluated: tuple[int, dict[str, Any]] = (-1, {})
        watching.watch(Trainer, FlightlogCallback)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process needs: a search may send its Trainer there."""
        return {**self.__dict__, "_call": None, "_unsaved": None}

    @property
    def training(self) -> Training:
        """What records; for what the Trainer does not know of."""
        return self._training

    @property
    def run(self) -> Run:
        """The run; it begins now if it has not yet. Raises UsageError as `flightlog.init`."""
        return self._training.run

    # -- what a checkpoint holds of it ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what `trainer_state.json` holds: the marker that leads from a checkpoint to this run."""
        return {"args": {}, "attributes": {"marker": self.marker}}

    @property
    def marker(self) -> dict[str, Any] | None:
        """Where the training's checkpoints belong; None where nothing has been recorded yet."""
        if self._silent or not self._training.is_open:
            return None
        return self._training.marker(self._step) or None

    @marker.setter
    def marker(self, value: object) -> None:
        """Take the place of the callback that was passed to the Trainer.

        With `restore_callback_states_from_checkpoint` the Trainer makes a new one of the same class without arguments,
        and sets this. The run, the project and whatever else the script has passed stay as it has passed them; the
        marker itself is found in the Trainer's state.
        """
        call = watching.present_call()
        for before in call.callbacks(type(self))[:1] if call is not None else ():
            self.__dict__.update(before.__dict__)

    def _give_way(self, later: FlightlogCallback) -> None:
        """Be silent where another callback of ours speaks for the Trainer; say so where the script made this one."""
        if later is self:
            return
        self._silent = True
        if any(value is not None for name, value in self._given.items() if name != "checkpoints"):
            warn_once(
                "two callbacks",
                "this Trainer has two FlightlogCallbacks: the later one records, the other does not. Pass one.",
            )

    # -- a Trainer and its trainings -----------------------------------------------------------------------------------

    @_hook
    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A Trainer has been made. Of two callbacks of ours in it, the later one records."""
        self._training.rank = args.process_index
        _only_one_speaks(self, control)

    @_hook
    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """The loop begins: a new run, or that of the checkpoint."""
        call = watching.present_call()
        if call is not None:
            for later in call.callbacks(FlightlogCallback)[-1:]:  # add_callback tells nobody, so it is looked at here
                self._give_way(later)
        if self._silent:
            return
        self._settle_run(args, state, call)
        self._is_training = self._has_trained = True
        self._began_at = time.time()
        self._step = state.global_step
        self._saved = set()
        stored, name = _stored(state), type(self).__name__
        if not isinstance(stored.get(name), dict):
            # The checkpoint was made without us, or by several of us: the Trainer looks for exactly one when it saves.
            stored[name] = self.state()
        if not state.is_world_process_zero:
            return
        training = self._training
        self._introduce(args, state, model)
        training.began()
        if "optimizers" not in training.run.config:  # where it goes on, the learning rate is another by now
            training.describe_optimizers([facts.unwrapped(optimizer)], [facts.unwrapped(lr_scheduler)])
        groups = getattr(optimizer, "param_groups", ())
        self._has_rates = len({group.get("initial_lr", group.get("lr")) for group in groups}) > 1
        training.throughput.scale = args.world_size
        training.throughput.read()
        training.throughput.start()
        self._tokens = state.num_input_tokens_seen
        self._samples = (state.train_batch_size or args.train_batch_size) * args.gradient_accumulation_steps
        if training.checkpoints.policy == "best" and args.metric_for_best_model is None:
            warn_once("best", 'checkpoints="best" keeps none: TrainingArguments(metric_for_best_model=) is not set.')

    def _settle_run(self, args: TrainingArguments, state: TrainerState, call: watching.Call | None) -> None:
        """Decide which run this training is recorded in."""
        again = call is not None and self._call is not None and self._call() is call
        self._call = weakref.ref(call) if call is not None else None
        marker = self._marker_of_checkpoint(args, state, call) if state.global_step > 0 else None
        if again:
            # auto_find_batch_size: the batch was too large for the memory, and the same training begins anew.
            self._go_back(state.global_step)
        elif state.is_hyper_param_search:
            self._renew(self._trial(args, state, call))
        elif self._has_trained and (marker is None or marker.id != self._training.id):
            self._renew({})
        self._training.rank = args.process_index
        if not state.is_world_process_zero:
            self._join(args, marker)
        elif marker is not None and not again:
            self._training.resume_from_marker(marker.data(), state.global_step)

    def _marker_of_checkpoint(
        self, args: TrainingArguments, state: TrainerState, call: watching.Call | None
    ) -> Marker | None:
        """Return the marker that the Trainer's state has brought from a checkpoint, or the one beside it."""
        ours = _stored(state).get(type(self).__name__)
        for stored in ours if isinstance(ours, list) else [ours]:
            attributes = stored.get("attributes") if isinstance(stored, Mapping) else None
            found = as_marker(attributes.get("marker")) if isinstance(attributes, Mapping) else None
            if found is not None:
                return found
        folder = call.checkpoint if call is not None else None
        return read_marker(folder if folder is not None else _checkpoint_folder(args, state.global_step))

    def _go_back(self, step: int) -> None:
        training = self._training
        if training.is_main and training.is_open and training.run.step > step + 1:
            training.checkpoints.begin()
            training.run.rewind(step)

    def _renew(self, changes: Mapping[str, Any]) -> None:
        """End the run, and let the next one begin when something is recorded; a run of the script's own goes on."""
        self._training.finish()
        if self._given["run"] is None:
            self._training = Training(**{**self._given, **changes})
            self._introduced = None

    def _trial(self, args: TrainingArguments, state: TrainerState, call: watching.Call | None) -> dict[str, Any]:
        """Return what makes a trial's run: named as the trial's folder, in one group with the others."""
        name = folders.output_folder(args, call.trainer if call is not None else None).name
        output = Path(str(args.output_dir)).name
        found: dict[str, Any] = {"name": state.trial_name or name}
        found["group"] = self._given.get("group") or args.run_name or output
        chosen = settings.load(run_id=self._given.get("id")).run_id
        if chosen is not None:
            found["id"] = f"{chosen}-{name}"
        return found

    def _join(self, args: TrainingArguments, marker: Marker | None) -> None:
        """Take part in the run that the job's first process records, where the launcher leads to it."""
        if launch.detect() is None:
            return  # each would begin a run of its own
        if marker is not None:
            self._training.follow_marker(marker.data())
        else:
            self._training.open()

    def _introduce(self, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        """Record once per run what the Trainer is and does."""
        training = self._training
        if self._introduced is None and not training.is_open:
            self._name_run(args)
        run = training.open()
        if self._introduced == run.id:
            return
        self._introduced = run.id
        training.configure(facts.settings_of(args, state, model))
        if model is not None:
            training.describe_model(model)
        training.define("epoch", hidden=True)
        if str(getattr(args.eval_strategy, "value", args.eval_strategy)) == "epoch":
            training.define("eval_*", step_metric="epoch")
        for total in _TOTALS:
            training.define(total, hidden=True)
        if run.recording:
            card.mention(run)

    def _name_run(self, args: TrainingArguments) -> None:
        """Let the Trainer's own arguments say what the run is called, where nothing else does."""
        if args.run_name is not None and args.run_name != args.output_dir:
            self._training.propose(name=args.run_name)
        project = getattr(args, "project", None)
        if project not in (None, _DEFAULT_PROJECT):
            self._training.propose(project=project)

    # -- steps ---------------------------------------------------------------------------------------------------------

    @_hook
    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The next batch is asked for."""
        self._training.throughput.start()

    @_hook
    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The batches of a step are there."""
        self._training.throughput.batch_ready()

    @_hook
    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Groups of parameters have learning rates of their own, of which the Trainer logs the first."""
        if self._has_rates:
            self._rates = [group["lr"] for group in optimizer.param_groups]

    @_hook
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step is done."""
        self._step = state.global_step
        tokens, self._tokens = state.num_input_tokens_seen - self._tokens, state.num_input_tokens_seen
        throughput = self._training.throughput
        throughput.step_done(self._samples, tokens // throughput.scale)  # they are counted over all processes
        self._keep_unsaved()
        if control.should_save:
            self._make_way(args, state)

    # -- metrics -------------------------------------------------------------------------------------------------------

    @_hook
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Record what the Trainer logs, at its step."""
        if not state.is_world_process_zero:
            return
        if self._introduced is None or not self._training.is_open:
            self._introduce(args, state, model)
        values = dict(logs or {})
        if "learning_rate" in values:
            values.update(self._training.throughput.read())
            if self._has_rates:
                values.update({f"learning_rate/group-{n}": rate for n, rate in enumerate(self._rates)})
        self._training.log(values, state.global_step)

    @_hook
    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """The metrics have been logged; a checkpoint that follows is scored by them."""
        before = self._evaluated[1] if self._evaluated[0] == state.global_step else {}
        self._evaluated = (state.global_step, {**before, **(metrics or {})})
        if self._is_training:
            self._training.throughput.start()
            self._make_way(args, state)

    @_hook
    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Record a prediction's metrics, which the Trainer does not log."""
        if state.is_world_process_zero and metrics:
            self._introduce(args, state, model)
            self._training.log(metrics, state.global_step)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    @_hook
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A checkpoint has been saved by this process; the others may not be that far."""
        self._saved.add(state.global_step)
        if state.is_world_process_zero:
            self._keep_unsaved()
            keep = self._keeping(args, state, state.global_step)
            if args.world_size > 1:
                self._unsaved = keep  # until the next step, which none of them can do alone
            else:
                keep()
        self._training.throughput.start()

    def _keep_unsaved(self) -> None:
        keep, self._unsaved = self._unsaved, None
        if keep is not None:
            keep()

    def _keeping(self, args: TrainingArguments, state: TrainerState, step: int) -> Callable[[], None]:
        """Return what keeps the checkpoint of a step, the present one or the one before, with what is known now."""
        folder = _checkpoint_folder(args, step)
        best = state.best_model_checkpoint
        is_best = best is not None and Path(best).name == folder.name
        epoch = (state.epoch or 0.0) if step == state.global_step else 0.0
        metric, score = self._score(args, state, is_best)
        return functools.partial(
            self._training.checkpoint_saved,
            folder,
            step=step,
            epoch=round(epoch) if epoch >= 1 and abs(epoch - round(epoch)) < 1e-6 else None,
            best=is_best,
            metric=metric,
            score=score,
            mode=None if metric is None else "max" if args.greater_is_better else "min",
            kind="weights" if args.save_only_model else "full",
            write_once=True,
        )

    def _score(self, args: TrainingArguments, state: TrainerState, is_best: bool) -> tuple[str | None, float | None]:
        """Return by which metric checkpoints are compared, and what this one has; None where it was not evaluated."""
        if args.metric_for_best_model is None:
            return None, None
        name = args.metric_for_best_model
        name = name if name.startswith("eval_") else f"eval_{name}"
        value = self._evaluated[1].get(name) if self._evaluated[0] == state.global_step else None
        if value is None and is_best:
            value = state.best_metric
        return (name, float(value)) if value is not None else (None, None)

    def _make_way(self, args: TrainingArguments, state: TrainerState) -> None:
        """See to it that the checkpoint of this step, if there is one of an earlier training, may be written to."""
        if args.should_save:
            folder = _checkpoint_folder(args, state.global_step)
            if folder.is_dir() and state.global_step not in self._saved:
                folders.unshare(folder)

    # -- the end -------------------------------------------------------------------------------------------------------

    @_hook
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The loop is through; the run stays open for what is evaluated next."""
        self._is_training = False
        if state.is_world_process_zero:
            if self._unsaved is not None and not args.save_only_model:
                folder = _checkpoint_folder(args, state.global_step)
                folders.wait_for_ranks(folder, "rng_state_{}.pth", args.world_size, _RANKS_WAIT)
            self._keep_unsaved()
            if getattr(args, "enable_jit_checkpoint", False):
                self._keep_last_minute(args, state)
        self._training.paused()

    def _keep_last_minute(self, args: TrainingArguments, state: TrainerState) -> None:
        """Keep what `enable_jit_checkpoint` has saved on SIGTERM: no hook tells of it, nor that this is the end."""
        for step in (state.global_step, state.global_step - 1):  # it saves in the midst of a step
            if step not in self._saved and folders.is_complete(_checkpoint_folder(args, step), self._began_at):
                self._keeping(args, state, step)()
                if self._training.is_open:
                    endings.terminated(self._training.run)

    def left(self, error: BaseException | None) -> None:
        """`Trainer.train` was left: by an exception, or (None) because it was through."""
        if self._silent:
            return
        is_training, self._is_training = self._is_training, False
        with contained("flightlog's left()"):
            if is_training:
                self._keep_unsaved()
            self._training.paused()
            endings.listen_again()  # enable_jit_checkpoint has put back what was there before a run began
            if type(error).__name__ == "TrialPruned":
                self._end_pruned()
            elif error is not None and not isinstance(error, SystemExit) and (is_training or not self._has_trained):
                if not is_training:
                    self._introduce_early()
                self._training.failed(error)

    def _introduce_early(self) -> None:
        """Say what a training is that has failed before it began."""
        call = watching.present_call()
        if call is not None and call.trainer.state.is_world_process_zero:
            self._introduce(call.trainer.args, call.trainer.state, call.trainer.model)

    def _end_pruned(self) -> None:
        """A search has stopped a trial that was not promising: nothing has failed."""
        if self._training.is_open and self._training.is_main:
            run = self._training.run
            run.tags = [*run.tags, "pruned"]
            self._training.finish()


def _checkpoint_folder(args: TrainingArguments, step: int) -> Path:
    call = watching.present_call()
    return folders.output_folder(args, call.trainer if call is not None else None) / f"checkpoint-{step}"


def _stored(state: TrainerState) -> dict[str, Any]:
    """Return the states of callbacks by the names of their classes, as the Trainer keeps them for its checkpoints."""
    return cast("dict[str, Any]", state.stateful_callbacks)


_spoken: tuple[weakref.ref[Any], weakref.ref[FlightlogCallback]] | None = None


def _only_one_speaks(callback: FlightlogCallback, control: TrainerControl) -> None:
    """Silence the callback that the same Trainer has told of its making just before: `report_to` has brought it."""
    global _spoken
    if _spoken is not None and _spoken[0]() is control:
        before = _spoken[1]()
        if before is not None:
            before._give_way(callback)
    _spoken = (weakref.ref(control), weakref.ref(callback))
