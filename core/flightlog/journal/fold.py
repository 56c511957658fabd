"""What a run's records add up to: who it is, how it stands, its config and summary.

latest.spec, a resumed run's starting point, the local reader and the server's tables are all this fold; fed with the
records in order (order.py) it gives the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .order import parents_of
from .record import Record

STATES = ("running", "finished", "failed", "preempted", "crashed")
_IDENTITY = ("name", "group", "job_type", "notes", "host", "pid", "command", "process_started_at", "workspace")


@dataclass(slots=True)
class Fold:
    """The state of a run after the records fed so far."""

    id: str | None = None
    project: str | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    state: str = "running"
    exit_code: int | None = None
    error: dict[str, Any] | None = None
    started_at: float | None = None
    finished_at: float | None = None
    updated_at: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    records: int = 0
    closing: tuple[str, int] | None = None
    parents: dict[str, dict[str, int]] = field(default_factory=dict)

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
        if self._reopens(self.parents[writer], record.t):
            self.state, self.exit_code, self.error, self.finished_at, self.closing = "running", None, None, None, None
        if self.id is None and isinstance(data.get("id"), str):
            self.id = data["id"]
        if self.project is None and isinstance(data.get("project"), str):
            self.project = data["project"]
        if self.started_at is None:
            self.started_at = record.t
        for name in _IDENTITY:
            if data.get(name) is not None:
                self.identity[name] = data[name]
        if isinstance(data.get("tags"), list):
            self.tags = list(dict.fromkeys([*self.tags, *(t for t in data["tags"] if isinstance(t, str))]))
        if isinstance(data.get("config"), dict):
            self.config.update(data["config"])

    def _edit(self, writer: str, record: Record) -> None:
        for name in ("name", "notes", "group", "job_type"):
            if isinstance(record.data.get(name), str):
                self.identity[name] = record.data[name]
        if isinstance(record.data.get("tags"), list):
            self.tags = [t for t in record.data["tags"] if isinstance(t, str)]

    def _reopens(self, parents: dict[str, int], t: float) -> bool:
        """Tell whether a writer that begins has begun after the run was closed, and not merely been read later."""
        if self.closing is None:
            return True
        closer, seq = self.closing
        return parents[closer] >= seq if closer in parents else t > (self.finished_at or 0.0)

    def _config(self, writer: str, record: Record) -> None:
        self.config.update(record.data)

    def _log(self, writer: str, record: Record) -> None:
        self.summary.update(record.data)
        if record.step is not None and record.step >= self.step:
            self.step = record.step + 1

    def _summary(self, writer: str, record: Record) -> None:
        self.summary.update(record.data)

    def _media(self, writer: str, record: Record) -> None:
        if record.step is not None and record.step >= self.step:
            self.step = record.step + 1

    def _finish(self, writer: str, record: Record) -> None:
        if record.data.get("closes_run", True):
            state = record.data.get("state")
            self.state = state if state in STATES else "finished"
            code = record.data.get("exit_code")
            self.exit_code = code if isinstance(code, int) else None
            error = record.data.get("error")
            self.error = error if isinstance(error, dict) else None
            self.finished_at = record.t
            self.closing = (writer, record.seq)


_HANDLERS = {
    "run": Fold._run,
    "edit": Fold._edit,
    "config": Fold._config,
    "log": Fold._log,
    "summary": Fold._summary,
    "media": Fold._media,
    "finish": Fold._finish,
}
