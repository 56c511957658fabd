"""A copy of a run that was continued on two machines: the second to arrive is delivered as a branch of the first.

Both have the same lines up to some seq, and others from there on. Where that is, is found by digests; the branch is
named after the first line that is another, so it has the same name at every sync, however far both go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..client import Client, path_of
from ..contents import Named
from ..errors import DivergedError
from ..journal.reader import WriterReport, read_writer
from ..journal.record import Line
from ..protocol.digest import BLOCK, JournalDigest
from ..protocol.messages import MAX_DIGESTS, WriterState, branch_name, contains
from .records import EMPTY, Call, Delivered, WriterDelivery

MAX_BRANCHES = 8


@dataclass(frozen=True, slots=True)
class _Fork:
    """Where a copy leaves what the server has: behind `shared`, whose digest is `digest`, with `line`."""

    shared: int
    digest: str
    line: bytes


class WriterSender:
    """Delivers writers of one run under their own names, or as branches where they have gone another way.

    Args:
        client: the server.
        run_path: the run's address below /api/v1.
        call: makes a request with patience.
        ask: asks the server anew what it has of the run.
    """

    def __init__(self, client: Client, run_path: str, call: Call, ask: Callable[[], Mapping[str, WriterState]]) -> None:
        self._client = client
        self._run_path = run_path
        self._call = call
        self._ask = ask

    def send(
        self,
        folder: Path,
        sizes: dict[str, int],
        states: Mapping[str, WriterState],
        named: Named,
        advance: Callable[[int], None],
    ) -> Delivered:
        """Send what the server lacks of a writer.

        Args:
            folder: the writer's folder.
            sizes: how much of each segment to read.
            states: what the server has of the run.
            named, advance: as for WriterDelivery.run.

        Raises:
            DivergedError: this copy has gone another way, and is too damaged to tell where.
            DamagedError, PermanentError, RetryableError: as WriterDelivery.run.
        """
        name, base = folder.name, None
        there = states.get(name, EMPTY)
        counted = _Once(advance)
        for _ in range(MAX_BRANCHES + 2):
            delivery = WriterDelivery(self._client, self._run_path, self._call, name, there, base)
            try:
                return delivery.run(folder, sizes, named, counted.begin())
            except DivergedError:
                # Another sync may have changed what the server has since it was asked.
                states = self._ask()
                if name in states and states[name] != there:
                    there = states[name]
                    continue
                fork = self._fork(folder, sizes, name, states[name]) if name in states else None
                if fork is None:
                    raise
            above = states[name]
            base, name = name, branch_name(name, fork.line)
            inherited = [(a, min(b, fork.shared)) for a, b in above.lost if a <= fork.shared]
            there = states.get(name) or WriterState(fork.shared, fork.digest, inherited)
        raise DivergedError(f"{folder}: it does not stay the same while it is delivered")

    def _fork(self, folder: Path, sizes: dict[str, int], name: str, there: WriterState) -> _Fork | None:
        """Find where a copy leaves what the server has; None where this copy cannot tell."""
        report, digest = WriterReport(name), JournalDigest()
        end = 0
        for line in _shared_lines(folder, report, sizes, there):
            digest.add(line.seq, line.raw)
            end = line.seq
        if report.missing and report.missing[0][0] <= end:
            return None
        blocks = digest.complete_blocks(end)
        borders = {k * BLOCK: _over(blocks[:k]) for k in range(1, len(blocks) + 1)}
        whole = self._last_same(name, borders) // BLOCK
        shared, found, following = self._within(folder, sizes, name, there, blocks[:whole])
        if following is None or following.seq != shared + 1 or shared < 1:
            return None
        return _Fork(shared, found, following.raw)

    def _within(
        self, folder: Path, sizes: dict[str, int], name: str, there: WriterState, blocks: list[bytes]
    ) -> tuple[int, str, Line | None]:
        """Find, in the first block that is another, the last seq that is the same, its digest, and the line behind."""
        low = len(blocks) * BLOCK
        block = hashlib.sha256()
        digests = {low: _over(blocks)} if low else {}
        inside: list[int] = []
        for line in _shared_lines(folder, WriterReport(name), sizes, there):
            if line.seq > low + BLOCK:
                break
            if line.seq > low:
                block.update(line.raw)
                digests[line.seq] = _over([*blocks, block.digest()])
                inside.append(line.seq)
        shared = max(low, self._last_same(name, {seq: digests[seq] for seq in inside}))
        lines = _shared_lines(folder, WriterReport(name), sizes, there)
        return shared, digests.get(shared, EMPTY.digest), next((line for line in lines if line.seq > shared), None)

    def _last_same(self, name: str, mine: Mapping[int, str]) -> int:
        """Return the last of these seqs up to which the server has the same; 0 where there is none."""
        seqs = sorted(mine)
        low, high = -1, len(seqs)  # the same up to `low`, another from `high` on
        while high - low > 1:
            step = max(1, -(-(high - low) // (MAX_DIGESTS + 1)))
            asked = range(low + step, high, step)[:MAX_DIGESTS]
            theirs = self._digests(name, [seqs[i] for i in asked])
            for i in asked:
                if theirs.get(str(seqs[i])) == mine[seqs[i]]:
                    low = i
                else:
                    high = i
                    break
        return seqs[low] if low >= 0 else 0

    def _digests(self, name: str, seqs: list[int]) -> dict[str, str]:
        path = f"{self._run_path}/digests/{path_of(name)}"
        answer = self._call(lambda: self._client.json("GET", path, params={"upto": [str(seq) for seq in seqs]}))
        with self._client.understood():
            return {str(seq): str(digest) for seq, digest in answer["digests"].items()}


class _Once:
    """Counts the bytes of a journal once, however often it is read."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._told = 0

    def begin(self) -> Callable[[int], None]:
        """Return what is told of a reading from the beginning."""
        at = 0

        def advance(size: int) -> None:
            nonlocal at
            at += size
            if at > self._told:
                self._advance(at - self._told)
                self._told = at

        return advance


def _shared_lines(folder: Path, report: WriterReport, sizes: dict[str, int], there: WriterState) -> Iterator[Line]:
    """Yield the lines of a copy whose seqs the server has lines of."""
    lost = sorted(there.lost)
    for line in read_writer(folder, report, sizes):
        if line.seq > there.last:
            break
        if contains(lost, line.seq) is None:
            yield line


def _over(blocks: list[bytes]) -> str:
    return hashlib.sha256(b"".join(blocks)).hexdigest()
