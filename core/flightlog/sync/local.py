"""A run directory as sync sees it: who it is, and whether it is alive."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import rundir
from ..errors import DamagedError
from ..journal.reader import WriterReport, read_writer
from ..journal.record import Line
from ..journal.scan import RunJournal
from ..protocol.messages import MAX_SPAN
from ..protocol.names import name_fault
from ..rundir import RunDir
from ..verify import is_blank


@dataclass(frozen=True, slots=True)
class Identity:
    """What a run is called on every server, and how it stands.

    `writers` is how far each writer had come when the run ended: finish() syncs the journal first and then says so in
    latest.spec, so a journal that holds less has lost something, however well it ends.
    """

    id: str
    project: str
    workspace: str | None
    name: str
    state: str
    started_at: float
    spec_fault: str | None = None
    writers: dict[str, int] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.state != "running"


def identify(directory: RunDir) -> Identity:
    """Return who a run is: by its latest.spec, or by its journal where that is damaged.

    Raises:
        DamagedError: neither says so, or how the run is laid out is not known here.
    """
    fault: str | None = None
    try:
        spec: dict[str, Any] = directory.read_spec()
    except DamagedError as error:
        fault = str(error)
        journal = RunJournal([directory.journal])
        fold = journal.fold()
        if fold.id is None:
            reason = "neither latest.spec nor the journal says which run this is"
            reason += "".join(f" ({why})" for why in journal.faults)
            if is_blank(directory):
                reason = "nothing was recorded yet: its process is beginning, or was killed as it began"
            raise DamagedError(f"{directory.path}: {reason}") from None
        spec = {
            "id": fold.id,
            "project": fold.project,
            "state": fold.state,
            "started_at": fold.started_at,
            **fold.identity,
        }
    if _is_of_later_format(spec):
        raise DamagedError(f"{directory.spec_path}: a run of format {spec['format']}; a later flightlog can deliver it")
    run_id, project = spec["id"], spec.get("project") or "uncategorized"
    for what, value in (("id", run_id), ("project", project)):
        why = name_fault(value)
        if why:
            raise DamagedError(f"{directory.spec_path}: the {what} {value!r} cannot be used: {why}")
    workspace, started = spec.get("workspace"), spec.get("started_at")
    return Identity(
        id=run_id,
        project=project,
        workspace=workspace if name_fault(workspace) is None else None,
        name=str(spec.get("name") or run_id)[:200],
        state=str(spec.get("state") or "running"),
        started_at=float(started) if isinstance(started, int | float) else 0.0,
        spec_fault=fault,
        writers=rundir.ended_writers(spec),
    )


def _is_of_later_format(spec: Mapping[str, Any]) -> bool:
    written = spec.get("format")
    return type(written) is int and written > rundir.FORMAT


def lines_of(folder: Path, report: WriterReport, sizes: dict[str, int]) -> Iterator[Line]:
    """Yield a writer's good lines as `read_writer` does.

    Raises:
        DamagedError: a seq is so far from the one before that no run has so many records, and no memory their digest.
    """
    at = 0
    for line in read_writer(folder, report, sizes):
        if line.seq - at > MAX_SPAN // 2:
            raise DamagedError(f"{folder}: seq {line.seq} follows {at}; no such journal is delivered")
        at = line.seq
        yield line


def alive(directory: RunDir) -> bool:
    """Tell whether a run is still being written."""
    try:
        spec = directory.read_spec()
    except DamagedError:
        spec = {}
    return spec.get("state", "running") == "running" and rundir.is_alive(directory, spec)


def in_words(error: OSError, directory: RunDir) -> str:
    """Return what an OSError says of a run directory."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else directory.path
    return f"{name}: {error.strerror or error}"
