"""Delivering small runs many at a time: each whole, in one request with others (flightlog.protocol.parcel).

Only what is as it should be goes this way. A run that is damaged, that has grown, or of which the server says anything
but that it has all of it, is delivered by itself (deliver.py), which can tell what is the matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import zstandard

from ..beneath import open_beneath
from ..client import Client, Patience
from ..contents import Named, named_files
from ..errors import AuthError, PermanentError
from ..journal.reader import WriterReport, read_writer, writer_folders
from ..protocol.digest import JournalDigest
from ..protocol.manifest import FileEntry
from ..protocol.messages import Receipt
from ..protocol.names import is_writer
from ..protocol.parcel import MAX_SMALL_FILE, ArtifactCommit, SmallRun, encode
from ..rundir import RunDir
from . import state
from .deliver import Outcome, is_gone, judge, remember
from .local import Identity, alive
from .records import Delivered

SMALL_BYTES = 256 << 10  # of a run's journal
_FILES, _FILE_BYTES = 64, 1 << 20


@dataclass(slots=True)
class Prepared:
    """A run as it goes into a parcel, and what will have come of it then."""

    run: SmallRun
    outcome: Outcome = field(repr=False)


class SmallDelivery:
    """Delivers small runs to one server.

    Args:
        client: the server, with a key.
        server_id: the server's identity, from its hello.
        patience: how long to try again what may work later.
        restore: bring back runs that were deleted on the server.
    """

    def __init__(self, client: Client, server_id: str, patience: Patience, restore: bool) -> None:
        self._client = client
        self._server_id = server_id
        self._patience = patience
        self._restore = restore

    def prepare(self, directory: RunDir, identity: Identity, workspace: str) -> Prepared | None:
        """Read a run whole; None where it is not small, or not as it should be. Raises OSError."""
        if identity.spec_fault:
            return None
        outcome = Outcome(directory, identity, workspace)
        outcome.inode = state.inode_of(directory)
        outcome.journal = directory.journal_sizes()
        if sum(n for sizes in outcome.journal.values() for n in sizes.values()) > SMALL_BYTES:
            return None
        if not all(map(is_writer, outcome.journal)):
            return None
        outcome.alive = alive(directory)
        run = SmallRun(workspace, identity.project, identity.id, outcome.alive, self._restore)
        named = Named()
        for folder in writer_folders(directory.journal):
            if folder.name not in outcome.journal:
                continue
            report, digest = WriterReport(folder.name), JournalDigest()
            lines: list[bytes] = []
            for line in read_writer(folder, report, outcome.journal[folder.name]):
                if line.seq != len(lines) + 1:
                    return None
                digest.add(line.seq, line.raw)
                named.add(line)
                lines.append(line.raw)
            if report.damage or report.missing:
                return None
            run.writers[folder.name] = b"".join(lines)
            last = report.last_seq
            outcome.writers[folder.name] = Delivered(folder.name, last, digest.upto(last), 0, False, report)
            outcome.records += report.records
        if any(name not in run.writers or outcome.writers[name].last < n for name, n in identity.writers.items()):
            return None
        return Prepared(run, outcome) if self._add_files(run, outcome, named) else None

    def _add_files(self, run: SmallRun, outcome: Outcome, named: Named) -> bool:
        """Add the files that the records name; False where they are no case for a parcel."""
        entries, ready, faults = named_files(outcome.directory, named)
        if faults or len(entries) > _FILES or sum(e.size for e in entries.values()) > _FILE_BYTES:
            return False
        for entry in entries.values():
            content = _content(outcome.directory, entry)
            if content is None:
                return False
            run.files.append((entry, content))
            outcome.files[entry.path] = (entry.size, entry.sha256)
        run.artifacts = [ArtifactCommit(a.manifest, a.aliases, a.at) for a in ready]
        return True

    def send(self, parcel: Sequence[Prepared]) -> list[bool]:
        """Send runs together; tell for each whether the server has proven to hold it. Their outcomes say the rest.

        Raises:
            PermanentError, RetryableError: as the client says.
        """
        body = zstandard.ZstdCompressor(level=3).compress(encode(p.run for p in parcel))
        answer = self._patience.call(lambda: self._client.json("POST", "parcels", data=body))
        with self._client.understood():
            answers = list(answer["runs"])
            if len(answers) != len(parcel):
                raise PermanentError(f"{self._client.origin} answered for {len(answers)} runs of {len(parcel)}")
            for each in answers:
                if each.get("status") == 401:
                    raise AuthError(f"{self._client.origin}: {each.get('detail')}", status=401)
            return [self._judge(prepared, each) for prepared, each in zip(parcel, answers, strict=True)]

    def _judge(self, prepared: Prepared, answer: dict[str, object]) -> bool:
        if "error" in answer:
            return False
        outcome, receipt = prepared.outcome, answer["receipt"]
        outcome.url = self._client.origin + str(answer["url"])
        outcome.records_sent = int(str(answer["new"]))
        if not isinstance(receipt, dict) or is_gone(outcome):
            return False
        judge(outcome, Receipt.from_json(receipt))
        if outcome.complete:
            remember(outcome, self._client.origin, self._server_id)
        return outcome.complete


def _content(directory: RunDir, entry: FileEntry) -> bytes | None:
    """Return a small file's bytes; None where it is not what was recorded, or not small."""
    if entry.size > MAX_SMALL_FILE:
        return None
    try:
        with open_beneath(directory.files, entry.path) as file:
            content = file.read(MAX_SMALL_FILE + 1)
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == entry.sha256 else None
