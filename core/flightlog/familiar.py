"""What a run offers besides, so that scripts written for wandb run: by the names that they know it under.

What fits is done as they mean it; what has no counterpart says in one line what to use instead, and does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .terminal import guarded, warn_once

if TYPE_CHECKING:
    from .artifacts import ArtifactVersion
    from .watched import Watched

# Methods of wandb's runs that have no counterpart, and what there is instead.
_ELSEWHERE = {
    "link_artifact": "there is no registry; log_artifact(…, aliases=[…]) names a version",
    "link_model": "there is no registry; log_model(…, aliases=[…]) names a version",
    "upsert_artifact": "a version is logged once, by log_artifact()",
    "finish_artifact": "a version is logged once, by log_artifact()",
    "restore": "run.save() keeps files in files/saved/; flightlog.Api().run(id).file('saved/NAME') reads them",
    "display": "`flightlog server` shows runs in a browser",
    "to_html": "`flightlog server` shows runs in a browser",
    "status": "run.state says how it stands",
}


class Familiar:
    """The part of a Run that goes by wandb's names."""

    id: str
    project: str
    workspace: str | None
    recording: bool
    _watched: Watched | None = None

    # -- what a Run has ------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool = True) -> None: ...
        def finish(self, exit_code: int | None = None, quiet: object = None) -> None: ...
        def use_artifact(
            self, name: Any, type: str | None = None, aliases: object = None, use_as: object = None
        ) -> ArtifactVersion: ...
        def _keep_code(self, folder: Path, wanted: Callable[[str], bool]) -> None: ...

        @property
        def state(self) -> str: ...

    # -- models --------------------------------------------------------------------------------------------------------

    def watch(
        self,
        models: Any,
        criterion: Any = None,
        log: str | None = "gradients",
        log_freq: int = 1000,
        idx: int | None = None,
        log_graph: bool = False,
    ) -> None:
        """Log histograms of a PyTorch model's gradients or parameters while it trains, until `unwatch()` or finish.

        They are `gradients/<name>` and `parameters/<name>`, of the step under way when a batch's backward pass, or its
        forward pass in training mode, has come to them.

        Args:
            models: a torch.nn.Module, or several; of the second and later ones the names begin with "model1." and on.
            log: "gradients", "parameters", "all", or None for neither.
            log_freq: at every so many batches.
            criterion, idx, log_graph: without meaning here.

        Raises:
            UsageError: it is no such model, or an argument cannot be understood.
        """
        if log_graph:
            warn_once(
                "watch graph", "watch(log_graph=True): a model's graph is not recorded; log str(model) as a Text."
            )
        if not self.recording:
            return
        if self._watched is None:
            from .watched import Watched

            self._watched = Watched(self._log_histograms)
        self._watched.watch(models, log, log_freq)

    def unwatch(self, models: Any = None) -> None:
        """Watch a model, several, or without any all of them, no longer."""
        if self._watched is not None:
            self._watched.unwatch(models)

    def _log_histograms(self, values: Mapping[str, Any]) -> None:
        if self.state == "running":
            self.log(values, commit=False)

    # -- files ---------------------------------------------------------------------------------------------------------

    def log_code(
        self,
        root: str | os.PathLike[str] | None = ".",
        name: str | None = None,
        include_fn: Callable[..., bool] | None = None,
        exclude_fn: Callable[..., bool] | None = None,
    ) -> None:
        """Keep the sources below a folder in the run's `files/code/`, as `init(save_code="folder")` does.

        Args:
            root: the folder.
            name: without meaning here: what is kept is the run's code, and no artifact.
            include_fn, exclude_fn: given a path (and, if they take two arguments, the root), tell whether it is wanted,
                or is not. Without them, what looks like source code is.
        """
        if not self.recording:
            return
        folder = Path(root or ".").absolute()

        def wanted(path: str) -> bool:
            where = str(folder / path)
            if include_fn is not None and not _asked(include_fn, where, str(folder)):
                return False
            return exclude_fn is None or not _asked(exclude_fn, where, str(folder))

        with guarded("log_code()"):
            self._keep_code(folder, wanted)

    def use_model(self, name: str) -> str:
        """Return the path of a model that was logged, as `use_artifact(name)`: of its file, or the folder of several.

        Raises as `use_artifact` does.
        """
        version = self.use_artifact(name)
        return str(version.file() if len(version.entries) == 1 else version.files)

    # -- who it is -----------------------------------------------------------------------------------------------------

    @property
    def entity(self) -> str | None:
        """The workspace; None where that is the account's that will sync the run."""
        return self.workspace

    @property
    def path(self) -> str:
        """`project/id`, by which `flightlog.Api().run()` finds it."""
        return f"{self.project}/{self.id}"

    @property
    def url(self) -> str | None:
        """Its page on the server, where its workspace and the server are known here; None otherwise."""
        if self.workspace is None:
            return None
        from urllib.parse import quote

        from . import keys, settings

        with guarded("run.url"):
            chosen = settings.load()
            if chosen.base_url or keys.default_server() is not None:
                parts = (self.workspace, self.project, "runs", self.id)
                return f"{keys.choose_server(chosen).origin}/{'/'.join(quote(part, safe='') for part in parts)}"
        return None

    def get_url(self) -> str | None:
        """Return `url`."""
        return self.url

    def project_name(self) -> str:
        """Return the project."""
        return self.project

    @property
    def sweep_id(self) -> str | None:
        """The sweep that the run is a trial of; None where it is none."""
        return None

    @property
    def offline(self) -> bool:
        """True: a run is always recorded on the disk, whoever delivers it."""
        return True

    @property
    def disabled(self) -> bool:
        """Whether nothing is recorded."""
        return not self.recording

    def join(self, exit_code: int | None = None) -> None:
        """End the run, as `finish` does; an older name."""
        self.finish(exit_code)

    def __getattr__(self, name: str) -> Any:
        instead = _ELSEWHERE.get(name)
        if instead is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        warn_once(f"run {name}", f"run.{name}() has no counterpart in flightlog: {instead}.")
        return _nothing


def _nothing(*_: object, **__: object) -> None:
    return None


def _asked(function: Callable[..., bool], path: str, root: str) -> bool:
    """Return what a user's function says of a path; it takes one argument or two."""
    import inspect

    try:
        several = len(inspect.signature(function).parameters) > 1
    except (TypeError, ValueError):
        several = False
    try:
        return bool(function(path, root) if several else function(path))
    except Exception as error:
        raise UsageError(f"log_code(): {function!r} raised {type(error).__name__}: {error}") from None
