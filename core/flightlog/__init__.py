"""flightlog: the flight recorder for ML training.

    import flightlog

    flightlog.init(project="digits", config={"lr": 0.01})
    for step in range(100):
        flightlog.log({"loss": 1 / (step + 1)})
    flightlog.finish()

The names below are all there is; what needs a heavier import is loaded at its first use.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from . import current as _current
from .alerts import AlertLevel
from .current import (
    alert,
    define_metric,
    finish,
    init,
    log,
    log_artifact,
    log_model,
    mark_preempting,
    save,
    unwatch,
    use_artifact,
    watch,
)
from .errors import FlightlogError, UsageError
from .run import Run

# The submodule's name is wanted for the current run; `from flightlog.run import …` works all the same.
globals().pop("run", None)

if TYPE_CHECKING:
    from . import plot
    from .artifacts import Artifact
    from .mappings import Config, Summary
    from .media import Audio, Histogram, Html, Image, Plotly, Table, Text, Video
    from .reading import Api

    run: Run | None
    config: Config
    summary: Summary
    __version__: str

__all__ = [
    "AlertLevel",
    "Api",
    "Artifact",
    "Audio",
    "FlightlogError",
    "Histogram",
    "Html",
    "Image",
    "Plotly",
    "Run",
    "Table",
    "Text",
    "UsageError",
    "Video",
    "alert",
    "define_metric",
    "finish",
    "init",
    "log",
    "log_artifact",
    "log_model",
    "mark_preempting",
    "plot",
    "save",
    "unwatch",
    "use_artifact",
    "watch",
]
_MEDIA = ("Audio", "Histogram", "Html", "Image", "Plotly", "Table", "Text", "Video")
# Those of the current run, looked up at each use: `flightlog.run` is None where there is none, the others raise.
_OF_THE_RUN = ("config", "run", "summary")


class _Module(types.ModuleType):
    """The module itself, so that `flightlog.config = {...}` reaches the run instead of being lost."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "config":
            _current.current("flightlog.config").config.update(value)
        elif name == "summary":
            _current.current("flightlog.summary").summary.update(value)
        else:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Module


def __getattr__(name: str) -> Any:
    if name == "run":
        return _current.current_or_none()
    if name in ("config", "summary"):
        return getattr(_current.current(f"flightlog.{name}"), name)
    if name in _MEDIA:
        from . import media

        return getattr(media, name)
    if name == "Artifact":
        from .artifacts import Artifact

        return Artifact
    if name == "plot":
        return importlib.import_module(".plot", __name__)
    if name == "Api":
        from .reading import Api

        return Api
    if name == "__version__":
        from importlib.metadata import version

        return version("flightlog")
    if not name.startswith("__"):
        wandb_names = importlib.import_module(".wandb_names", __name__)
        if name in wandb_names.NAMES:
            return wandb_names.find(name)
    raise AttributeError(f"module 'flightlog' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_OF_THE_RUN, "__version__"]
