"""Taking in receipts on the machine that recorded the runs: kept beside them, and held against what is on its disk."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import DamagedError
from ..rundir import RunDir
from . import receipts, state
from .local import Identity, alive, identify
from .receipts import Proof
from .stock import Stock, lacking, take_stock


@dataclass(slots=True)
class Import:
    """What a receipt says of a run directory: `missing` is what it does not prove, a sentence each."""

    directory: RunDir
    identity: Identity
    proof: Proof
    missing: list[str] = field(default_factory=list)

    @property
    def proven(self) -> bool:
        return not self.missing


def take_in(proofs: Sequence[Proof], directories: Sequence[RunDir]) -> tuple[list[Import], list[Proof]]:
    """Keep receipts beside the runs that they are of.

    Args:
        proofs: the receipts. directories: the runs on this disk.

    Returns:
        What became of each directory that has a receipt, and the receipts that have no directory here.

    Raises:
        OSError: a receipt cannot be kept.
    """
    by_run = {(proof.id, proof.project): proof for proof in proofs}
    results: list[Import] = []
    for directory in directories:
        with contextlib.suppress(DamagedError):
            identity = identify(directory)
            proof = by_run.get((identity.id, identity.project))
            if proof is not None:
                results.append(_one(directory, identity, proof))
    here = {(r.identity.id, r.identity.project) for r in results}
    return results, [proof for run, proof in by_run.items() if run not in here]


def _one(directory: RunDir, identity: Identity, proof: Proof) -> Import:
    result = Import(directory, identity, proof)
    earlier = None
    with contextlib.suppress(DamagedError):
        earlier = receipts.kept(directory.path.parent, identity.id, identity.project)
    if earlier is None or earlier.issued_at <= proof.issued_at:
        receipts.keep(directory.path.parent, proof)
    stock = take_stock(directory, identity)
    result.missing = lacking(stock, proof.receipt)
    if result.proven:
        _remember(stock, proof)
    return result


def _remember(stock: Stock, proof: Proof) -> None:
    """Note in sync.json what the server has, so that neither `status` nor the next bundle take it for pending."""
    known = state.load(stock.directory)
    known[proof.origin] = state.Synced(
        server_id=proof.server_id,
        workspace=proof.target.workspace,
        project=proof.target.project,
        url="",
        journal=stock.journal,
        complete=True,
        alive=alive(stock.directory),
        synced_at=proof.issued_at,
        run_id=proof.target.id,
        inode=state.inode_of(stock.directory),
        writers={name: (there.last, there.digest) for name, there in stock.writers.items()},
        files=len(stock.files),
    )
    with contextlib.suppress(OSError):
        state.save(stock.directory, known)
