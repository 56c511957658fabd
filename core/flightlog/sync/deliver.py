"""Delivering one run: records, files, artifacts, and the comparison of the server's receipt with this disk.

A run counts as delivered only when the receipt equals what is computed from disk.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..client import Client, Patience, path_of
from ..contents import Named, named_files
from ..errors import DamagedError, DivergedError, GoneError, PermanentError
from ..journal.reader import writer_folders
from ..protocol.messages import Receipt, WriterState, difference, format_ranges
from ..protocol.names import is_writer
from ..rundir import RunDir
from ..terminal import printable
from . import state
from .branches import WriterSender
from .departed import LEFT
from .lanes import Lanes
from .local import Identity, alive
from .records import Delivered
from .uploads import FileDelivery, refused_versions


class RunProgress(Protocol):
    """Who is told how the delivery of one run goes on."""

    def more(self, total: int) -> None:
        """It has turned out to have `total` bytes more."""

    def advance(self, size: int) -> None:
        """So many bytes of it have been dealt with."""

    def end(self) -> None:
        """It is over, however it went."""


class Progress(Protocol):
    """Who is told how deliveries go on. Several runs are delivered at once, each with a RunProgress of its own.

    All calls come from threads of the sync, but never two at the same time.
    """

    def begin(self, name: str, total: int) -> RunProgress:
        """A run of `total` bytes begins, as far as is known yet."""
        ...


@dataclass(slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        complete: the receipt proves everything.
        faults: what is damaged or was left behind.
        notes: what is worth knowing, and nothing wrong.
        files: size and SHA-256 of the files that are as they were recorded, by path.
        writers: by the name of their folders.
        journal: how much of each writer's segments was read.
        inode: the directory's, as the delivery began.
        acknowledged: the last seq and the digest of these writers, as the receipt has them.
    """

    directory: RunDir
    identity: Identity
    workspace: str
    began: float = field(default_factory=time.time)
    url: str = ""
    alive: bool = False
    complete: bool = False
    records: int = 0
    records_sent: int = 0
    bytes_sent: int = 0
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    writers: dict[str, Delivered] = field(default_factory=dict)
    journal: dict[str, dict[str, int]] = field(default_factory=dict)
    inode: int = 0
    acknowledged: dict[str, tuple[int, str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Delivery:
    """Delivers runs to one server.

    Args:
        client: the server, with a key.
        lanes: where packs of files are sent.
        server_id: the server's identity, from its hello.
        patience: how long to try again what may work later.
        verify: read every file, also those that the server has already: the runs are to be deleted here.
        restore: bring back runs that were deleted on the server.
    """

    def __init__(
        self,
        client: Client,
        lanes: Lanes,
        server_id: str,
        patience: Patience,
        *,
        verify: bool = False,
        restore: bool = False,
    ) -> None:
        self._lanes = lanes
        self._verify = verify
        self._restore = restore
        self._client = client
        self._server_id = server_id
        self._patience = patience

    def run(self, directory: RunDir, identity: Identity, workspace: str, progress: RunProgress) -> Outcome:
        """Deliver a run.

        Args:
            directory: the run directory.
            identity: who the run is, on the server.
            workspace: the workspace that it goes to.
            progress: who is told how it goes on.

        Raises:
            PermanentError, RetryableError: the server will not, or cannot now; what it has taken stays taken.
        """
        self._progress = progress
        outcome = Outcome(directory, identity, workspace)
        outcome.inode = state.inode_of(directory)
        outcome.journal = directory.journal_sizes()
        outcome.alive = alive(directory)
        if identity.spec_fault:
            outcome.faults.append(f"{identity.spec_fault} (the journal is delivered)")
        run_path = f"runs/{path_of(workspace, identity.project, identity.id)}"
        about = {"alive": outcome.alive, "restore": self._restore}
        try:
            registered = self._call(lambda: self._client.json("PUT", run_path, json=about))
        except GoneError:
            remember(outcome, self._client.origin, self._server_id, gone=True)
            raise
        with self._client.understood():
            outcome.url = self._client.origin + str(registered["run"]["url"])
        named = Named()
        self._deliver_records(outcome, run_path, _states(registered), named)
        self._deliver_files(outcome, run_path, named)
        receipt = self._receipt(run_path)
        if is_gone(outcome):
            raise DamagedError(f"{directory.path}: {LEFT}")
        self._compare_again(outcome, run_path, receipt)
        judge(outcome, receipt)
        remember(outcome, self._client.origin, self._server_id)
        return outcome

    def _call(self, attempt: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return self._patience.call(attempt)

    def _deliver_records(self, outcome: Outcome, run_path: str, states: dict[str, WriterState], named: Named) -> None:
        for name in [name for name in outcome.journal if not is_writer(name)]:
            del outcome.journal[name]
            outcome.faults.append(f"{outcome.directory.journal / name} has a name that no writer has; it stays here")
        folders = [f for f in writer_folders(outcome.directory.journal) if f.name in outcome.journal]
        diverged: set[str] = set()
        sender = WriterSender(self._client, run_path, self._call, lambda: self._receipt(run_path).writers)
        for folder in sorted(folders, key=_begun):
            try:
                done = sender.send(folder, outcome.journal[folder.name], states, named, self._progress.advance)
            except DivergedError as error:
                diverged.add(folder.name)
                outcome.faults.append(f"{error}; it was copied and continued elsewhere, so this copy stays here")
                continue
            if done.name != folder.name:
                outcome.notes.append(f"writer {folder.name} was copied and continued elsewhere: this is {done.name}")
            outcome.writers[folder.name] = done
            outcome.records += done.report.records
            outcome.records_sent += done.sent
            outcome.faults.extend(str(d) for d in done.report.damage)
            outcome.faults.extend(
                f"{folder}: seq {format_ranges([r])} cannot be read on this disk" for r in done.report.missing
            )

        for name, seq in outcome.identity.writers.items():
            here = outcome.writers[name].last if name in outcome.writers else 0
            if here < seq and name not in diverged:
                outcome.faults.append(
                    f"{outcome.directory.journal / name} ends at seq {here}; latest.spec says that it went to {seq}"
                )

    def _compare_again(self, outcome: Outcome, run_path: str, receipt: Receipt) -> None:
        """Let the server compare what was read of a writer that another, a follower say, has sent more of meanwhile."""
        sender = WriterSender(self._client, run_path, self._call, lambda: self._receipt(run_path).writers)
        for name, done in outcome.writers.items():
            there = receipt.writers.get(done.name)
            if there is None or there.last <= done.last or done.confirmed or done.report.missing:
                continue
            folder, sizes = outcome.directory.journal / name, outcome.journal[name]
            with contextlib.suppress(DivergedError):  # then it is not what this disk holds
                again = sender.send(folder, sizes, receipt.writers, Named(), lambda size: None)
                outcome.writers[name] = replace(again, sent=done.sent + again.sent)

    def _deliver_files(self, outcome: Outcome, run_path: str, named: Named) -> None:
        entries, ready, faults = named_files(outcome.directory, named)
        outcome.faults.extend(faults)
        if not entries:
            return
        self._progress.more(sum(e.size for e in entries.values()))
        project_path = f"projects/{path_of(outcome.workspace, outcome.identity.project)}"
        work = FileDelivery(
            self._client,
            self._lanes,
            outcome.directory,
            run_path,
            project_path,
            self._call,
            self._progress.advance,
            self._verify,
        )
        outcome.files = work.run(entries.values(), self._receipt(run_path).holds)
        outcome.bytes_sent += work.sent_bytes
        outcome.faults.extend(work.faults)
        for artifact, why in refused_versions(self._client, self._call, run_path, ready, entries):
            outcome.faults.append(f"artifact {artifact.name} is not complete on the server: {why}")

    def _receipt(self, run_path: str) -> Receipt:
        answer = self._call(lambda: self._client.json("GET", f"{run_path}/receipt"))
        try:
            return Receipt.from_json(answer)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise PermanentError(f"{self._client.origin} sent a receipt that cannot be understood") from None


def is_gone(outcome: Outcome) -> bool:
    """Tell whether a run directory, or a part of its journal, is no longer where it was when its delivery began."""
    if not outcome.directory.path.is_dir():
        return True
    now = outcome.directory.journal_sizes()
    return any(
        now.get(writer, {}).get(name, -1) < size
        for writer, sizes in outcome.journal.items()
        for name, size in sizes.items()
    )


def judge(outcome: Outcome, receipt: Receipt) -> None:
    """Compare a receipt with this disk; what does not fit becomes a fault."""
    before = len(outcome.faults)
    for done in outcome.writers.values():
        there = receipt.writers.get(done.name)
        if there is None:
            if done.last:
                outcome.faults.append(f"the receipt does not name writer {done.name}")
            continue
        outcome.acknowledged[done.name] = (there.last, there.digest)
        lacks = difference(sorted(there.lost), done.report.missing, done.last)
        if lacks:
            outcome.faults.append(f"the server lacks seq {format_ranges(lacks)} of writer {done.name}")
        elif done.report.missing or done.confirmed:
            continue  # what this disk cannot give is named already; what the server compared needs no more
        elif (there.last, there.digest) != (done.last, done.digest):
            outcome.faults.append(f"the receipt for writer {done.name} is not what this disk holds")
    for path, facts in outcome.files.items():
        if not receipt.holds(path, facts):
            outcome.faults.append(f"the receipt for {path} is not what this disk holds")
    spec_only = before == 1 and bool(outcome.identity.spec_fault)
    outcome.complete = not outcome.faults or (spec_only and len(outcome.faults) == 1)


def remember(outcome: Outcome, origin: str, server_id: str, *, gone: bool = False) -> None:
    """Note in sync.json what the server has of a run, or that it was deleted there."""
    known = state.load(outcome.directory)
    known[origin] = state.Synced(
        server_id=server_id,
        workspace=outcome.workspace,
        project=outcome.identity.project,
        url=outcome.url,
        run_id=outcome.identity.id,
        gone=gone,
        journal=outcome.journal,
        complete=outcome.complete,
        alive=outcome.alive,
        synced_at=time.time(),
        faults=[printable(fault) for fault in outcome.faults[:100]],  # a path in it may be no text
        inode=outcome.inode,
        writers=outcome.acknowledged,
        files=len(outcome.files),
    )
    try:
        state.save(outcome.directory, known)
    except OSError as error:
        outcome.faults.append(f"sync.json cannot be written, so the next sync looks at this run again: {error}")


def _states(registered: dict[str, Any]) -> dict[str, WriterState]:
    try:
        return {name: WriterState.from_json(entry) for name, entry in registered["writers"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PermanentError("the server's answer about the run cannot be understood") from None


def _begun(folder: Any) -> tuple[float, str]:
    """When a writer began: an order in which parents come before those who name them, for clocks that agree."""
    from ..journal.reader import WriterReport, read_writer

    first = next(read_writer(folder, WriterReport(folder.name)), None)
    return (first.t if first else 0.0, folder.name)
