"""What a run's records add up to: who it is, how it stands, its config and summary.

latest.spec, a resumed run's starting point, the local reader and the server's tables are all this fold; fed with the
records in order (order.py) it gives the same everywhere.
"""

from __future__ import annotations

from typing import Any

from .define import Definitions, Summaries
from .order import parents_of
from .record import Record
from .rewind import rewound_to

STATES = ("running", "finished", "failed", "preempted", "crashed")
_IDENTITY: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "group", "job_type", "notes", "host", "workspace"), (str,)),
    "pid": (int,),
    "command": (list,),
    "process_started_at": (int, float),
}


class _Launch:
    """The processes that were started together: the ranks of one job, or a process alone."""

    def __init__(self, key: str | None = None) -> None:
        self.key = key
        self.open: set[str] = set()
        self.ended: list[str] = []
        self.error: dict[str, Any] | None = None


class Fold:
    """The state of a run after the records fed so far.

    Attributes:
        id, project, identity, tags: who it is.
        exit_code, error: how it ended, as its state says; None where it has not, or well.
        started_at, finished_at: UTC seconds; None where not known (yet). updated_at: of its latest record.
        config: its hyper-parameters. summaries: what stands for each metric.
        step: the step after the last one logged. records: how many there were.
        closing: writer and seq of the record that closed the run; None while it is open.
        preempting: the run has said that its machine is about to be taken away.
        parents: by writer, the parents that it names.
    """

    def __init__(self, id: str | None = None) -> None:
        self.id = id
        self.project: str | None = None
        self.identity: dict[str, Any] = {}
        self.tags: list[str] = []
        self.exit_code: int | None = None
        self.error: dict[str, Any] | None = None
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.updated_at = 0.0
        self.config: dict[str, Any] = {}
        self.summaries = Summaries(Definitions(), {})
        self.step = 0
        self.records = 0
        self.closing: tuple[str, int] | None = None
        self.preempting = False
        self.parents: dict[str, dict[str, int]] = {}
        self._closed_as: str | None = None
        self._launch = _Launch()

    @property
    def summary(self) -> dict[str, Any]:
        """What stands for each metric, and what was set by hand."""
        return self.summaries.values

    @property
    def state(self) -> str:
        """How the run stands: a rank that failed makes it fail, whatever the others made of the signal they got."""
        launch = self._launch
        if self._closed_as is None:
            if launch.open or not launch.ended:
                return "running"
            state = next((s for s in ("failed", "preempted") if s in launch.ended), "finished")
        else:
            state = self._closed_as
        return "failed" if "failed" in launch.ended and state in ("finished", "preempted") else state

    def define(self, definitions: Definitions) -> None:
        """Take what is said of the metrics; before their records."""
        for definition in definitions:
            self.summaries.define(definition)

    def add(self, writer: str, record: Record) -> None:
        """Take the next record."""
        self.records += 1
        self.updated_at = max(self.updated_at, record.t)
        handler = _HANDLERS.get(record.kind)
        if handler is not None:
            handler(self, writer, record)

    def _run(self, writer: str, record: Record) -> None:
        data = record.data
        self.parents[writer] = parents_of(data)
        own = not data.get("forked") and not data.get("rank")
        self._begin(writer, data.get("launch"), record.t, forked=bool(data.get("forked")))
        if self.id is None and isinstance(data.get("id"), str):
            self.id = data["id"]
        if self.project is None and isinstance(data.get("project"), str):
            self.project = data["project"]
        if self.started_at is None:
            self.started_at = record.t
        for name, types in _IDENTITY.items():
            if type(data.get(name)) in types and (own or name not in self.identity):
                self.identity[name] = data[name]
        if isinstance(data.get("tags"), list):
            self.tags = list(dict.fromkeys([*self.tags, *(t for t in data["tags"] if isinstance(t, str))]))
        if isinstance(data.get("config"), dict):
            self.config.update(data["config"])

    def _begin(self, writer: str, launch: object, t: float, *, forked: bool) -> None:
        """A writer begins: with the others of its launch, or as one that takes the run up again."""
        if not forked and self._reopens(self.parents[writer], launch, t):
            self._closed_as, self.exit_code, self.error, self.finished_at, self.closing = None, None, None, None, None
            if launch is None or launch != self._launch.key:
                self._launch = _Launch(launch if isinstance(launch, str) else None)
                self.preempting = False
        self._launch.open.add(writer)

    def _edit(self, writer: str, record: Record) -> None:
        for name in ("name", "notes", "group", "job_type"):
            if isinstance(record.data.get(name), str):
                self.identity[name] = record.data[name]
        if isinstance(record.data.get("tags"), list):
            self.tags = [t for t in record.data["tags"] if isinstance(t, str)]

    def _reopens(self, parents: dict[str, int], launch: object, t: float) -> bool:
        """Tell whether a writer that begins has begun after the run was closed, and not merely been read later."""
        if self.closing is None:
            return True
        if launch is not None and launch == self._launch.key:
            return False  # a rank that was late
        closer, seq = self.closing
        return parents[closer] >= seq if closer in parents else t > (self.finished_at or 0.0)

    def _config(self, writer: str, record: Record) -> None:
        self.config.update(record.data)

    def _log(self, writer: str, record: Record) -> None:
        self.summaries.take(record.data)
        if record.step is not None and record.step >= self.step:
            self.step = record.step + 1

    def _summary(self, writer: str, record: Record) -> None:
        self.summary.update(record.data)

    def _media(self, writer: str, record: Record) -> None:
        if record.step is not None and record.step >= self.step:
            self.step = record.step + 1

    def _rewind(self, writer: str, record: Record) -> None:
        step = rewound_to(record.data)
        if step is not None and step >= self.step:
            self.step = step + 1

    def _preempting(self, writer: str, record: Record) -> None:
        self.preempting = True

    def _finish(self, writer: str, record: Record) -> None:
        data = record.data
        state = data.get("state")
        state = state if state in STATES else "finished"
        error = data.get("error")
        self._launch.open.discard(writer)
        if data.get("closes_run", True):
            self._closed_as = state
            code = data.get("exit_code")
            self.exit_code = code if type(code) is int else None
            self.error = (error if isinstance(error, dict) else None) or self._launch.error
            self.finished_at = record.t
            self.closing = (writer, record.seq)
        elif type(data.get("rank")) is int:
            self._launch.ended.append(state)
            if state == "failed" and isinstance(error, dict):
                self._launch.error = error
                self.error = self.error or error


_HANDLERS = {
    "run": Fold._run,
    "edit": Fold._edit,
    "config": Fold._config,
    "log": Fold._log,
    "summary": Fold._summary,
    "media": Fold._media,
    "rewind": Fold._rewind,
    "preempting": Fold._preempting,
    "finish": Fold._finish,
}
