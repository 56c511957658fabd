"""Looking over run directories: what is there, torn, corrupt. Repair makes latest.spec again, and no more."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import rundir
from .beneath import open_beneath
from .contents import Named, named_files
from .errors import DamagedError
from .journal.fold import Fold
from .journal.reader import WriterReport
from .journal.record import MAX_LINE
from .journal.scan import RunJournal, depth_within
from .protocol.manifest import FileEntry
from .rundir import FORMAT, RunDir

_BLOCK = 4 << 20


@dataclass(slots=True)
class Verdict:
    """What looking over one run directory has found.

    Attributes:
        directory: the run directory.
        fold: what its records add up to.
        writers: by name, what reading each found: records, bytes, torn tails, damage, missing seqs.
        files: how many files its records name. bytes: how large those are together.
        faults: what is damaged, a sentence each; empty for a sound run.
        notes: what is worth knowing and no damage: a torn tail, a run that never finished.
        repaired: whether latest.spec was made again.
    """

    directory: RunDir
    fold: Fold
    writers: dict[str, WriterReport]
    files: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    repaired: bool = False

    @property
    def sound(self) -> bool:
        return not self.faults


def verify(directory: RunDir, *, repair: bool = False) -> Verdict:
    """Read a run directory whole and say what is damaged.

    Args:
        directory: the run directory.
        repair: make latest.spec again from the journal where it is missing, damaged, or behind what a killed process
            wrote. Nothing is ever deleted.

    Raises:
        OSError: latest.spec was to be repaired and cannot be written.
    """
    journal, named = RunJournal([directory.journal]), Named()
    verdict = Verdict(directory, Fold(), journal.reports)
    verdict.fold.define(journal.definitions)
    for writer, record in journal.records(hidden=True):
        named.add_record(record)
        if journal.rewinds.hide(writer, record):
            verdict.fold.records += 1
        else:
            verdict.fold.add(writer, record)
    verdict.faults.extend(map(str, journal.faults))
    if _is_blank(verdict):
        verdict.notes.append("nothing was recorded yet: its process is beginning, or was killed as it began")
        return verdict
    _look_at_writers(verdict)
    _look_at_files(verdict, named)
    _look_at_spec(verdict, repair)
    return verdict


def is_blank(directory: RunDir) -> bool:
    """Tell a run without its first record, which comes before all else, from one that has lost it."""
    return _may_be_blank(directory) and _is_blank(verify(directory))


def _is_blank(verdict: Verdict) -> bool:
    if verdict.faults or any(report.records or report.damage for report in verdict.writers.values()):
        return False
    return _may_be_blank(verdict.directory)


def _may_be_blank(directory: RunDir) -> bool:
    try:
        if os.path.lexists(directory.spec_path) or [p.name for p in directory.files.iterdir()] != ["journal"]:
            return False
        sizes = directory.journal_sizes().values()
    except OSError:
        return False
    return all(size <= MAX_LINE for of_writer in sizes for size in of_writer.values())  # half a record at most


def _look_at_writers(verdict: Verdict) -> None:
    for name, report in verdict.writers.items():
        verdict.faults.extend(str(damage) for damage in report.damage)
        for first, last in report.missing:
            what = f"seq {first} is" if first == last else f"seq {first} to {last} are"
            verdict.faults.append(f"writer {name}: {what} missing")
        verdict.notes.extend(f"torn tail (nothing acknowledged is in it): {damage}" for damage in report.torn)
    if not any(report.records for report in verdict.writers.values()) and not verdict.faults:
        verdict.faults.append(f"{verdict.directory.journal} holds no record that can be read")
    elif verdict.fold.state == "running":
        verdict.notes.append("its journal has no finish record: it is running, or was killed")


def _look_at_files(verdict: Verdict, named: Named) -> None:
    entries, _, faults = named_files(verdict.directory, named)
    verdict.faults.extend(faults)
    verdict.notes.extend(
        f"artifact {called} is incomplete: it was being copied, or still is" for called in named.incomplete
    )
    verdict.notes.extend(f"artifact {called} is damaged: {why}" for called, why in named.damaged.items())
    verdict.files = len(entries)
    verdict.bytes = sum(entry.size for entry in entries.values())
    verdict.faults.extend(_file_faults(verdict.directory, entries))


def _file_faults(directory: RunDir, entries: dict[str, FileEntry]) -> Iterator[str]:
    for path, entry in entries.items():
        whole, size = hashlib.sha256(), 0
        try:
            with open_beneath(directory.files, path) as file:
                while block := file.read(_BLOCK):
                    whole.update(block)
                    size += len(block)
        except OSError as error:
            yield f"{directory.files / path}: {error.strerror or error}"
            continue
        if (size, whole.hexdigest()) != (entry.size, entry.sha256):
            yield f"{directory.files / path} is not what was recorded: it has changed since"


def _look_at_spec(verdict: Verdict, repair: bool) -> None:
    fault: str | None = None
    try:
        spec = verdict.directory.read_spec()
    except DamagedError as error:
        fault, spec = str(error), {}
    behind = spec.get("state") == "running" and not rundir.is_alive(verdict.directory, spec)
    if repair and verdict.fold.id is not None and (fault or behind):
        kept = {key: value for key, value in spec.items() if depth_within(value)}  # what JSON can be made of
        verdict.directory.write_spec({**kept, **spec_of(verdict)})
        verdict.repaired = True
        verdict.notes.append(f"{verdict.directory.spec_path} was made again from the journal")
    for name, seq in rundir.ended_writers(spec).items():
        here = verdict.writers[name].last_seq if name in verdict.writers else 0
        if here < seq:
            verdict.faults.append(f"writer {name} ends at seq {here}; latest.spec says that it went to {seq}")
    if fault and not verdict.repaired:
        verdict.faults.append(f"{fault} (--repair makes it again)" if verdict.fold.id is not None else fault)


def spec_of(verdict: Verdict) -> dict[str, Any]:
    """Return latest.spec as it follows from the journal."""
    fold, identity = verdict.fold, verdict.fold.identity
    state = fold.state
    if state == "running" and not rundir.is_alive(verdict.directory, identity):
        state = "preempted" if fold.preempting else "crashed"
    return {
        "format": FORMAT,
        "id": fold.id,
        "project": fold.project,
        **{k: identity.get(k) for k in ("workspace", "name", "group", "job_type", "notes", "host", "pid", "command")},
        "tags": fold.tags,
        "state": state,
        "exit_code": fold.exit_code,
        "started_at": fold.started_at,
        "updated_at": fold.updated_at,
        "finished_at": fold.finished_at,
        "config": rundir.readable(fold.config),
        "summary": rundir.readable(fold.summary),
        "step": fold.step,
        "records": fold.records,
        "bytes": sum(report.bytes for report in verdict.writers.values()),
    }
