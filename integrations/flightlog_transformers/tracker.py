"""FlightlogTracker: accelerate's way to the recorder, `Accelerator(log_with="flightlog")`."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from accelerate.tracking import GeneralTracker, on_main_process

from flightlog.run import Run
from flightlog.terminal import contained
from flightlog.training import Training, read_marker

from .folders import wait_for_ranks
from .register import NAME

if TYPE_CHECKING:
    from accelerate import Accelerator

_MARK = "_attached_by_flightlog"
_RANKS_WAIT = 10.0


class FlightlogTracker(GeneralTracker):  # type: ignore[misc]
    """Records what an Accelerator logs. Its arguments come from `init_trackers(project, init_kwargs={"flightlog": …})`.

    The run begins with the first value that is logged, so that `load_state` may still say which run is continued.

    Args:
        run_name: what accelerate calls the project.
        run: a run to record into, which is not ended here.
        checkpoints: which checkpoints are kept once `attach` is called: "none", "best", "last", "best_and_last" or
            "all".
        artifact: the name of the artifact whose versions they are; "model-<run id>" without one.
        **init: what else `flightlog.init` takes.

    Raises:
        UsageError: an argument cannot be used.
    """

    name = NAME
    requires_logging_directory = False
    main_process_only = True
    _newest: ClassVar[list[weakref.ref[FlightlogTracker]]] = []

    def __init__(
        self,
        run_name: str | None = None,
        *,
        run: Run | None = None,
        checkpoints: str | bool = "best_and_last",
        artifact: str | None = None,
        **init: Any,
    ) -> None:
        super().__init__()
        project = init.pop("project", None) or (run_name if run is None else None)
        self.training = Training(run=run, checkpoints=checkpoints, artifact=artifact, project=project, **init)
        self._config: dict[str, Any] = {}
        self.last_step: int | None = None
        self._is_ended = False
        self._newest[:] = [weakref.ref(self)]

    @property
    def tracker(self) -> Run:
        """The run; it begins now if it has not yet: `accelerator.get_tracker("flightlog", unwrap=True)`."""
        self._begin()
        return self.training.run

    @property
    def is_over(self) -> bool:
        """Whether it was ended and a later training has its own: the Accelerator goes on telling both what it logs."""
        return self._is_ended and self._newest[0]() is not self

    def _begin(self) -> None:
        values, self._config = self._config, {}
        if values:
            self.training.configure(values)

    @on_main_process  # type: ignore[untyped-decorator]
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Record hyper-parameters, with the first values that are logged."""
        self._config.update(values)
        if self.training.is_open:
            self._begin()

    @on_main_process  # type: ignore[untyped-decorator]
    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record values at a step; without one, at the run's own. Other arguments have no meaning here."""
        if self.is_over:
            return
        self._begin()
        if step is not None and not isinstance(step, bool):
            with contained("flightlog's log()"):
                step = int(step)  # a tensor, say
        self.training.log(values, step)
        if self.training.is_open:
            self.last_step = self.training.run.step - 1 if step is None else step

    @on_main_process  # type: ignore[untyped-decorator]
    def log_images(self, values: Mapping[str, Sequence[Any]], step: int | None = None, **kwargs: Any) -> None:
        """Record images: of each key, arrays or PIL images in a list."""
        from flightlog import Image

        self.log({key: [Image(image) for image in images] for key, images in values.items()}, step)

    @on_main_process  # type: ignore[untyped-decorator]
    def log_table(
        self,
        table_name: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Record a table, of rows with the names of columns, or of a DataFrame."""
        from flightlog import Table

        self.log({table_name: Table(columns=columns, data=data, dataframe=dataframe)}, step)

    @on_main_process  # type: ignore[untyped-decorator]
    def finish(self) -> None:
        """`accelerator.end_training()`: the run ends, unless the script itself began it."""
        self._begin()
        self.training.finish()
        self._is_ended = True


def attach(accelerator: Accelerator) -> None:
    """Connect an Accelerator's checkpoints to its run, whether its trackers are there already or not.

    What `save_state` saves is kept as versions of an artifact and leads back to the run; after `load_state`, a run that
    has logged nothing yet is the one that saved the checkpoint, from that step on. To be called by every process;
    where the Accelerator has no FlightlogTracker, nothing happens. A second time changes nothing.

    Args:
        accelerator: made with `log_with="flightlog"`.
    """
    if hasattr(accelerator, _MARK):
        return
    setattr(accelerator, _MARK, True)
    accelerator.register_load_state_pre_hook(functools.partial(_loading, accelerator))
    attached: Any = accelerator
    attached.save_state = _saving(accelerator, accelerator.save_state)


def _trackers(accelerator: Accelerator) -> list[FlightlogTracker]:
    if not accelerator.is_main_process:
        return []
    return [each for each in accelerator.trackers if isinstance(each, FlightlogTracker) and not each.is_over]


def _loading(accelerator: Accelerator, models: list[Any], folder: str) -> None:
    marker = read_marker(folder)
    if marker is None:
        return
    for tracker in _trackers(accelerator):
        if tracker.training.resume_from_marker(marker.data()):
            tracker.last_step = marker.step


def _saving(accelerator: Accelerator, before: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(before)
    def save_state(*args: Any, **kwargs: Any) -> Any:
        place = before(*args, **kwargs)
        for tracker in _trackers(accelerator):
            with contained("keeping a checkpoint"):
                _keep(accelerator, tracker, Path(place))
        return place

    return save_state


def _keep(accelerator: Accelerator, tracker: FlightlogTracker, folder: Path) -> None:
    if accelerator.num_processes > 1:
        wait_for_ranks(folder, "random_states_{}.pkl", accelerator.num_processes, _RANKS_WAIT)
    checkpoints = tracker.training.checkpoints
    checkpoints.begin()  # two of them are never the same, even if nothing was logged in between
    step = tracker.last_step
    tracker.training.checkpoint_saved(
        folder,
        step=0 if step is None else step,
        log_step=-1 if step is None else step,
        # Elsewhere the next one may be written into the same files.
        write_once=bool(accelerator.project_configuration.automatic_checkpoint_naming),
    )
