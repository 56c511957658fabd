"""LoggerHooks: Lightning's Logger contract over `flightlog.training`, for either of its two packages.

A Trainer asks for the logger's `experiment` before it knows which checkpoint it goes on from, so the run is not opened
then: what is recorded before the loop begins is held until the callback (callback.py) says that it does.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_only

from flightlog.mappings import as_mapping
from flightlog.terminal import contained
from flightlog.training import Training, hook, model_facts

from . import checkpoints

if TYPE_CHECKING:
    from flightlog import Run


class Unopened:
    """`logger.experiment` until the run is open: it opens when something of it is used."""

    def __init__(self, open_run: Callable[[], Run]) -> None:
        object.__setattr__(self, "_open_run", open_run)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._open_run(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._open_run(), name, value)


class Elsewhere:
    """`logger.experiment` where nothing is recorded, as in later processes: it takes everything and does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Elsewhere()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return Elsewhere()

    def __getitem__(self, key: object) -> Any:
        return Elsewhere()

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __setattr__(self, name: str, value: object) -> None:
        pass

    def __bool__(self) -> bool:
        return False


class LoggerHooks:
    """Records a training with Lightning.

    Args:
        project: what the run belongs to. name: what people call it; one is made up without it.
        version: the run's id, to continue that run; `id` means the same.
        save_dir: the folder of Lightning's own checkpoints, where a ModelCheckpoint names none.
        run: a run to record into, which `flightlog.init` has returned. Without it the current one, if the script has
            begun one, or else a new one.
        checkpoints: which checkpoints are kept as versions of an artifact: "none", "best", "last", "best_and_last" or
            "all".
        artifact: that artifact's name; "model-<run id>" without one.
        prefix: goes before the name of every metric.
        log_throughput: whether to record steps and samples per second and so on beside the training's metrics.
        id, dir, config, tags, notes, group, job_type, mode, resume: as of `flightlog.init`; LightningCLI takes what is
            named here.
        **init: what else `flightlog.init` takes.

    Attributes:
        training: what records.
        prefix, log_throughput: likewise.
        is_aside: whether it records nothing, since another one in its Trainer does.

    Raises:
        UsageError: an argument cannot be used.
    """

    callback_class: type[Any]

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        *,
        version: str | None = None,
        save_dir: str | os.PathLike[str] = "lightning_logs",
        run: Run | None = None,
        checkpoints: str | bool = "best_and_last",
        artifact: str | None = None,
        prefix: str = "",
        log_throughput: bool = True,
        id: str | None = None,
        dir: str | os.PathLike[str] | None = None,
        config: Mapping[str, Any] | None = None,
        tags: list[str] | str | None = None,
        notes: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        mode: str | None = None,
        resume: str | None = None,
        **init: Any,
    ) -> None:
        super().__init__()
        self.training = Training(
            run=run, checkpoints=checkpoints, artifact=artifact, rank=_rank(), id=version if id is None else id,
            project=project, name=name, dir=dir, config=config, tags=tags, notes=notes, group=group, job_type=job_type,
            mode=mode, resume=resume, **init,
        )  # fmt: skip
        self.log_throughput = log_throughput
        self._save_dir = os.fspath(save_dir)
        self.prefix = prefix
        self._holding = run is None
        self._held: list[tuple[str, object]] = []
        self._reset()
        _record_held_at_exit(self)

    def _reset(self) -> None:
        self._beside: tuple[int, dict[str, Any]] | None = None
        self._error: BaseException | None = None
        self._checkpoints = checkpoints.Scanner()
        self.axis: str | None = None
        self.step: int | None = None
        self.at_end = self.is_aside = False
        self.trainer: Callable[[], Any] = lambda: None

    def __getstate__(self) -> dict[str, Any]:
        lost = ("_beside", "_error", "_checkpoints", "axis", "step", "at_end", "is_aside", "trainer")
        return {name: value for name, value in self.__dict__.items() if name not in lost}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    # -- who it is -----------------------------------------------------------------------------------------------------

    @property
    def experiment(self) -> Run:
        """The run. Until a loop has begun something that stands for it, which opens it when it is used."""
        stands_for: Any = None
        if self._is_silent():
            stands_for = Elsewhere()
        elif not self.training.is_open and self._holding:
            stands_for = Unopened(self._open_now)
        return self.training.run if stands_for is None else stands_for

    def _open_now(self) -> Run:
        run = self.training.open()
        self.begin()
        return run

    @property
    def name(self) -> str:
        """The run's project: the first folder below `save_dir`."""
        return self.training.project

    @property
    def version(self) -> str:
        """The run's id: the folder below that."""
        if self._rank_now() > 0 and not self.training.is_open:
            return f"rank-{self.training.rank}"  # the first process's counts for all
        return self.training.id

    @property
    def save_dir(self) -> str:
        """The folder of Lightning's own checkpoints."""
        return self._save_dir

    @property
    def root_dir(self) -> str:
        """Likewise, of this project."""
        return str(Path(self._save_dir) / self.name)

    @property
    def log_dir(self) -> str:
        """Likewise, of this run."""
        return str(Path(self.root_dir) / self.version)

    def _rank_now(self) -> int:
        self.training.rank = _rank()
        return self.training.rank

    def _is_silent(self) -> bool:
        """Tell whether another process records, or another logger of ours in the same Trainer."""
        return self._rank_now() > 0 or self.is_aside

    # -- what is recorded ----------------------------------------------------------------------------------------------

    @hook
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record what a hook has brought, as one record; learning rates and throughput of that step go with it."""
        if self._is_silent():
            return
        if self._holding or self._held:
            self.begin()
        prefix = self.prefix
        values = {f"{prefix}{name}" if name != "epoch" else name: value for name, value in metrics.items()}
        at = step
        if self._is_evaluated_anew(step):
            at = None
            values.pop("epoch", None)
        if self._beside is not None and self._beside[0] == at and self.axis is None:
            values.update(self._beside[1])
            self._beside = None
        axis = self.axis if self.axis in values else None  # what a callback logs by itself does not say its epoch
        self.training.log(values, at, axis=axis)

    def _is_evaluated_anew(self, step: int | None) -> bool:
        """Tell of a result whether its Trainer knows neither step nor epoch: it has trained nothing, the run has.

        The result then has the run's next step, so that no value of the training is replaced by it.
        """
        outside = self.at_end and self.step is None and self.training.is_open
        return outside and step == 0 and self.training.run.step > 0

    def beside(self, step: int, values: dict[str, Any]) -> None:
        """Have values recorded with the next metrics of a step, or, where there are none, by `record_beside`."""
        self._beside = (step, values)

    def record_beside(self) -> None:
        """Record what no metrics have come for."""
        if self._beside is not None:
            (at, values), self._beside = self._beside, None
            self.training.log(values, at)

    @hook
    def log_hyperparams(self, params: object, *args: Any, **kwargs: Any) -> None:
        """Record hyper-parameters in the run's config: a mapping, a Namespace, or what OmegaConf makes."""
        values = dict(as_mapping("log_hyperparams()", _plain_params(params)))
        self.when_begun("configure", values)

    @hook
    def log_graph(self, model: Any, input_array: object = None) -> None:
        """Record the model's size under config["model_summary"]; Lightning calls this at the begin of each stage."""
        self._see_to_a_callback(model)
        self.when_begun("describe_model", model_facts(model))

    def _see_to_a_callback(self, model: Any) -> None:
        """Add the callback to the model's Trainer where the entry point has not: in a checkout without installation."""
        trainer = getattr(model, "_trainer", None)
        if trainer is not None and not any(hasattr(each, "logger_of") for each in trainer.callbacks):
            callback = self.callback_class()
            trainer.callbacks.insert(0, callback)
            callback.setup(trainer, model, "")

    def log_image(self, key: str, images: Sequence[Any], step: int | None = None, **how: Any) -> None:
        """Record images: arrays, tensors, PIL images or paths.

        Args:
            key: their name.
            images: one or more.
            step: the training's; that of the last batch without it.
            **how: what `flightlog.Image` takes, each a list with one for each image: caption=["a", "b"].
        """
        self._log_media(key, "Image", images, step, how)

    def log_audio(self, key: str, audios: Sequence[Any], step: int | None = None, **how: Any) -> None:
        """Record sounds; arguments as of `log_image`, of `flightlog.Audio`: sample_rate=[16000]."""
        self._log_media(key, "Audio", audios, step, how)

    def log_video(self, key: str, videos: Sequence[Any], step: int | None = None, **how: Any) -> None:
        """Record videos; arguments as of `log_image`, of `flightlog.Video`: fps=[24]."""
        self._log_media(key, "Video", videos, step, how)

    def _log_media(self, key: str, kind: str, items: Sequence[Any], step: int | None, how: dict[str, Any]) -> None:
        if not isinstance(items, list | tuple):
            raise TypeError(f"log_{kind.lower()}({key!r}): a list is needed, not {type(items).__name__}")
        for name, values in how.items():
            if len(values) != len(items):
                raise ValueError(f"log_{kind.lower()}({key!r}): {len(items)} items, but {len(values)} of {name}=")
        if self._is_silent():
            return
        with contained(f"flightlog's log_{kind.lower()}()"):
            import flightlog

            made = getattr(flightlog, kind)
            each = [
                made(item, **{name: values[number] for name, values in how.items()})
                for number, item in enumerate(items)
            ]
            self._log_media_at(key, each, step)

    def _log_media_at(self, key: str, value: object, step: int | None) -> None:
        """Record what is shown; without a step, at the training's: a checkpoint that follows is not before it."""
        self.begin()
        self.training.log({f"{self.prefix}{key}": value}, self.step if step is None else step)

    @hook
    def log_table(
        self,
        key: str,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Record a table: rows of values (also images and the like) with their columns' names, or a data frame."""
        if self._is_silent():
            return
        import flightlog

        if dataframe is not None:
            table = flightlog.Table(dataframe=dataframe)
        else:
            rows = [list(row) for row in data or ()]
            if not (rows or columns):
                raise ValueError(f"{key} has neither columns nor rows")
            table = flightlog.Table(columns=list(columns or map(str, range(len(rows[0])))), data=rows)
        self._log_media_at(key, table, step)

    def log_text(
        self,
        key: str,
        columns: Sequence[str] | str | None = None,
        data: Sequence[Sequence[str]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Record a text, or a table of texts; arguments as of `log_table`, or the text itself as the second."""
        if not isinstance(columns, str):
            self.log_table(key, columns, data, dataframe, step)
        elif not self._is_silent():
            self.begin()
            self.training.log({f"{self.prefix}{key}": columns}, step)

    def save(self) -> None:
        """Nothing waits to be saved: what is logged is on its way to the disk already."""

    # -- begin and end -------------------------------------------------------------------------------------------------

    def when_begun(self, method: str, value: object) -> None:
        """Call a method of `training` now, or once it is known which run it belongs to."""
        if self._is_silent():
            return
        if self._holding and not self.training.is_open:
            self._held.append((method, value))
        else:
            getattr(self.training, method)(value)

    def begin(self) -> None:
        """Record what was held; which run it is is settled."""
        self._holding = False
        held, self._held = self._held, []
        for method, value in held:
            getattr(self.training, method)(value)

    def note(self, error: BaseException) -> None:
        """Take note of what has ended the loop; `finalize` is not told."""
        self._error = error

    @hook
    def finalize(self, status: str) -> None:
        """The Trainer is through with a stage. The run stays open: a test may follow. After an exception it has failed.

        Args:
            status: "success"; "finished": Slurm will start the job again; or "failed".
        """
        if status == "finished":
            self.training.preempting()
            return
        self.record_beside()
        self._checkpoints.tidy(self.training.checkpoint_removed)
        step = self.step
        self.axis = self.step = None
        if status == "success" or self.is_aside:
            self.training.paused()
        else:
            self.begin()
            for rescued in self._checkpoints.rescued(self.trainer()):
                self.training.checkpoint_saved(**rescued, log_step=step)
            error, self._error = self._error, None
            self.training.failed(error if error is not None else RuntimeError(f"Lightning says: {status}"))
        if self.training.is_elsewhere:
            self.training.finish()

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    @hook
    def going_on(self, trainer: Any) -> None:
        """A training begins, or goes on from a checkpoint."""
        self.training.checkpoints.begin()
        if not self._is_silent():
            self._checkpoints.remember(trainer)

    @hook
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """A ModelCheckpoint has saved: keep it as the policy says. Lightning calls this for the best and the last."""
        if self._is_silent():
            return
        self.begin()
        for saved in self._checkpoints.look(checkpoint_callback, self.trainer()):
            self.training.checkpoint_saved(**saved, log_step=self.step)
        self._checkpoints.tidy(self.training.checkpoint_removed)


def _rank() -> int:
    """Return this process's number, as Lightning's own loggers ask for it."""
    rank = getattr(rank_zero_only, "rank", 0)
    return rank if isinstance(rank, int) else 0


def _plain_params(params: object) -> object:
    """Return what OmegaConf makes as plain values; without importing it: if it is one, it has been."""
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is not None:
        if omegaconf.OmegaConf.is_config(params):
            return omegaconf.OmegaConf.to_container(params, resolve=True)
        if isinstance(params, Mapping):
            return {key: _plain_params(value) for key, value in params.items()}
    return params


def _record_held_at_exit(logger: LoggerHooks) -> None:
    """A program that only says its hyper-parameters has a run, too."""
    here, pid = weakref.ref(logger), os.getpid()

    def at_exit() -> None:
        waiting = here()
        if waiting is not None and waiting._held and os.getpid() == pid:
            waiting.begin()
            waiting.training.finish()

    atexit.register(at_exit)
