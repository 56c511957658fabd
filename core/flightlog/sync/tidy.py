"""Cleaning runs that were delivered earlier, perhaps from another machine (`flightlog clean`).

What was proven once proves nothing now: every run is read anew, and held against what the server says today, or, where
it cannot be asked, against a receipt that was imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from ..client import Client, Patience
from ..errors import FlightlogError, GoneError, PermanentError, RetryableError
from ..protocol.messages import Receipt
from ..rundir import RunDir
from . import receipts, state
from .clean import Cleaned, Proven, reason_to_keep, remove
from .departed import LEFT, Departures, has_left
from .local import Identity, identify, in_words
from .receipts import Proof, Target
from .stock import Stock, lacking, take_stock

Decision = Literal["cleaned", "would clean", "kept"]


@dataclass(slots=True)
class Tidied:
    """What came of one run directory.

    Attributes:
        directory, identity: the run; no identity where neither latest.spec nor the journal says which it is.
        proof: what proved it: "https://… now", or "receipt of https://…". None where nothing did.
        reason: why it stays, in words; None where it went, or would.
        missing: what the nearest proof lacks, a sentence each.
        cleaned: what was deleted; None for a dry run, and where it stays.
        bytes: what would be freed, about.
        failed: it stays because something went wrong, not because it has to.
    """

    directory: RunDir
    identity: Identity | None = None
    proof: str | None = None
    reason: str | None = None
    missing: list[str] = field(default_factory=list)
    cleaned: Cleaned | None = None
    bytes: int = 0
    failed: bool = False

    @property
    def decision(self) -> Decision:
        """How it was decided."""
        if self.reason is not None:
            return "kept"
        return "cleaned" if self.cleaned is not None else "would clean"


class Authority:
    """A server that can be asked what it holds now.

    Args:
        client: the server, with a key.
        server_id: who it says that it is.
        workspace: where the runs go that name no workspace.
        patience: how long to try.
    """

    def __init__(self, client: Client, server_id: str, workspace: str, patience: Patience) -> None:
        self.origin = client.origin
        self.server_id = server_id
        self._client = client
        self._workspace = workspace
        self._patience = patience
        self._known: dict[Target, Receipt | FlightlogError] = {}

    def target(self, directory: RunDir | None, identity: Identity, imported: Proof | None = None) -> Target:
        """Return what a run is called there: as it was delivered, from here or elsewhere, else as it says itself."""
        known = state.load(directory).get(self.origin) if directory is not None else None
        if known is not None and known.server_id == self.server_id:
            return Target(known.workspace, known.project, known.run_id or identity.id)
        if imported is not None and imported.server_id == self.server_id:
            return imported.target
        return Target(identity.workspace or self._workspace, identity.project, identity.id)

    def receipt(self, target: Target) -> Receipt:
        """Return what it holds of a run. Raises as `receipts.fetch` does; asked once per run."""
        if target not in self._known:
            try:
                self._known[target] = receipts.fetch(self._client, target, self._patience)
            except (PermanentError, RetryableError) as error:
                self._known[target] = error
        found = self._known[target]
        if isinstance(found, FlightlogError):
            raise found
        return found


@contextmanager
def authority(origin: str, key: str, patience: Patience) -> Iterator[Authority]:
    """Give a server to ask.

    Raises:
        AuthError: the key is wrong. PermanentError, RetryableError: there is none, or it cannot be reached.
    """
    with Client(origin, None) as anonymous:
        server_id = str(patience.call(anonymous.hello).get("server_id"))
    with Client(origin, key) as client:
        workspace = patience.call(client.account).default_workspace
        yield Authority(client, server_id, workspace, patience)


@dataclass(frozen=True, slots=True)
class Tidying:
    """What is to be done with every directory.

    Attributes:
        server: whom to ask; None where nobody can be asked.
        departures: what was there when it began.
        older_than: seconds without growth. dry_run: delete nothing. keep_artifacts: as for `clean.remove`.
    """

    server: Authority | None
    departures: Departures
    older_than: float = 0.0
    dry_run: bool = False
    keep_artifacts: bool = False

    def one(self, directory: RunDir) -> Tidied:
        """Deal with one run directory; what is in the way becomes its reason."""
        result = Tidied(directory)
        try:
            result.identity = identify(directory)
            result.reason = reason_to_keep(directory, result.identity, self.older_than)
            if result.reason is None:
                self._prove_and_remove(result, result.identity)
        except (FlightlogError, OSError) as error:
            result.reason = in_words(error, directory) if isinstance(error, OSError) else str(error)
            result.failed = True
        self._explain(result)
        return result

    def _explain(self, result: Tidied) -> None:
        """Say what became of a run that was taken away meanwhile, whatever else seemed to be the matter with it."""
        if result.reason is None or not has_left(result.directory):
            return
        result.reason, result.failed, result.missing = LEFT, False, []
        if self.departures.were_cleaned(result.directory):
            result.reason, result.cleaned = None, Cleaned(by_another=True)

    def _prove_and_remove(self, result: Tidied, identity: Identity) -> None:
        directory, stock = result.directory, None
        found, why = self._proofs(directory, identity)
        for proof, receipt in found:
            stock = stock or take_stock(directory, identity)
            missing = lacking(stock, receipt)
            if not missing:
                result.proof, result.missing = proof, []
                break
            result.missing = result.missing or missing
        if result.proof is None:
            result.reason = why if not found else f"{found[0][0]} does not prove all of it: {result.missing[0]}"
            return
        assert stock is not None
        result.bytes = _size(stock, self.keep_artifacts)
        if self.dry_run:
            return
        result.cleaned = remove(Proven.by_stock(stock), keep_artifacts=self.keep_artifacts)
        result.reason = result.cleaned.reason

    def _proofs(self, directory: RunDir, identity: Identity) -> tuple[list[tuple[str, Receipt]], str]:
        """Return the receipts that may prove a run, the most trustworthy first, and why there is none."""
        found: list[tuple[str, Receipt]] = []
        why = "no server could be asked, and no receipt of it was imported"
        imported = receipts.kept(directory.path.parent, identity.id, identity.project)
        if self.server is not None:
            target = self.server.target(directory, identity, imported)
            try:
                found.append((f"{self.server.origin} (asked now)", self.server.receipt(target)))
            except GoneError:
                return [], f"it was deleted on {self.server.origin}; it is nobody's proof of anything"
            except PermanentError as error:
                if error.status != 404:
                    raise
                why = f"{self.server.origin} does not know it: `flightlog sync`"
        # What a server says now counts for more than what it once said.
        if imported is not None and not (self.server and imported.server_id == self.server.server_id):
            found.append((f"the imported receipt of {imported.origin}", imported.receipt))
        return found, why


def _size(stock: Stock, keep_artifacts: bool) -> int:
    journal = sum(size for sizes in stock.journal.values() for size in sizes.values())
    files = sum(
        size for path, (size, _) in stock.files.items() if not (keep_artifacts and path.startswith("artifacts/"))
    )
    return journal + files


def bytes_on_disk(directory: RunDir) -> int:
    """Return the bytes of all files of a run directory."""
    total = 0
    for folder, _, names in os.walk(directory.path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118  # a hundred thousand of them
            except OSError:
                continue
    return total
