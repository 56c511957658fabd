"""mode="disabled": the run that records nothing, at no cost, with everything a script may call on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import alerts
from .journal.define import Definition
from .mappings import Config, Summary, as_mapping
from .metrics import definition_of
from .protocol.names import friendly_name, new_run_id
from .run import Run
from .rundir import RunDir
from .settings import Settings
from .terminal import guarded

if TYPE_CHECKING:
    from .artifacts import Artifact, ArtifactVersion


class DisabledRun(Run):
    """A run that keeps its config and summary in memory and writes nothing anywhere."""

    recording = False

    def __init__(self, chosen: Settings, config: object) -> None:
        self.id = chosen.run_id or new_run_id()
        self.project = chosen.project
        self.workspace = chosen.workspace
        self._name = chosen.name or friendly_name(self.id)
        self._group = chosen.group
        self._job_type = chosen.job_type
        self._tags = chosen.tags
        self._notes = chosen.notes
        self.resumed = False
        self.rank = 0
        self._ranks = 1
        self._place = RunDir(Path(chosen.dir).absolute() / "disabled")
        self._owner_pid = os.getpid()
        self._stands = "running"
        self.config = Config(dict(as_mapping("config=", config)), lambda values: values)
        self._stale = False
        self._ending = 0
        self._values: dict[str, Any] = {}
        self._summary = Summary(self._values, lambda values: values)
        self._next_step = 0

    def _edited(self, what: str, value: Any) -> Any:
        return value

    @property
    def rundir(self) -> RunDir:
        return self._place

    @property
    def state(self) -> str:
        return self._stands

    @property
    def step(self) -> int:
        return self._next_step

    @property
    def position(self) -> tuple[str, int]:
        return "", 0

    def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool = True, sync: object = None) -> None:
        """Keep the summary and the counter, which a script may ask for."""
        with guarded("log()"):
            at = self._next_step if step is None else int(step)
            self._next_step = max(self._next_step, at + commit)
            self._values.update(data)

    def log_artifact(
        self,
        path: str | os.PathLike[str] | Artifact,
        name: str | None = None,
        type: str | None = None,
        aliases: str | Iterable[str] | None = (),
        metadata: Mapping[str, Any] | None = None,
        **how: Any,
    ) -> None:
        return None

    def use_artifact(
        self,
        name: str | Artifact | ArtifactVersion,
        type: str | None = None,
        aliases: object = None,
        use_as: object = None,
    ) -> ArtifactVersion:
        """Return the version, as any run does; that it is used is not recorded."""
        from .artifacts import Keeper

        keeper = Keeper(
            lambda: self.rundir,
            self.id,
            self.project,
            lambda kind, data: None,
            lambda: True,
            workspace=self.workspace,
            elsewhere=self._fetch,
        )
        return keeper.use(self._name_of(name), type)

    def save(
        self,
        glob_str: str | os.PathLike[str],
        base_path: str | os.PathLike[str] | None = None,
        policy: str = "live",
    ) -> list[Path]:
        return []

    def finish(self, exit_code: int | None = None, quiet: object = None) -> None:
        self._stands = "failed" if exit_code else "finished"

    def fail(self, error: BaseException) -> None:
        self._stands = "failed"

    def preempt(self) -> None:
        self._stands = "preempted"

    def define_metric(
        self,
        name: str,
        step_metric: str | Definition | None = None,
        *,
        summary: str | Iterable[str] | None = None,
        goal: str | None = None,
        hidden: bool = False,
        **others: Any,
    ) -> Definition:
        return definition_of(name, step_metric, summary, goal, hidden, others)

    def alert(
        self, title: str, text: str = "", level: str = "INFO", wait_duration: float | Any = alerts.WAIT_SECONDS
    ) -> None:
        alerts.checked(title, text, level)

    def rewind(self, step: int) -> None:
        pass

    def mark_preempting(self) -> None:
        pass

    def when_over(self, action: Callable[[], object]) -> None:
        pass

    def spool(self) -> None:
        pass

    def __reduce__(self) -> tuple[Any, ...]:
        return DisabledRun, (Settings(run_id=self.id, project=self.project, name=self._name), self.config.as_dict())

    def flush(self) -> None:
        pass

    def when_free(self, action: Callable[[], object]) -> None:
        action()

    @property
    def records(self) -> int:
        return 0

    @property
    def size(self) -> int:
        return 0

    @property
    def owner_pid(self) -> int:
        return self._owner_pid
