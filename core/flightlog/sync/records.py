"""Delivering a writer's journal: prove that the server holds the same as far as it goes, then send the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from ..client import Client, path_of
from ..contents import Named
from ..errors import DivergedError, PermanentError
from ..journal.reader import WriterReport, read_writer
from ..journal.record import Line
from ..protocol.digest import JournalDigest
from ..protocol.messages import MAX_SPAN, Ranges, WriterState, contains, format_ranges
from .local import lines_of
from .pool import Promise

BATCH_BYTES = 4 << 20
BATCH_RANGES = 1000  # lost ranges stand in the URL, whose length servers bound
EMPTY = WriterState(0, JournalDigest().upto(0))

Call = Callable[[Callable[[], dict[str, Any]]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Delivered:
    """What came of a writer.

    Attributes:
        name: what it is called on the server: as here, or as a branch.
        last, digest: as this disk has them, to be compared with the receipt.
        sent: how many records the server had not had.
        confirmed: the server, being further than this copy, has compared and found the same as far as this copy goes.
        report: what reading it found.
    """

    name: str
    last: int
    digest: str
    sent: int
    confirmed: bool
    report: WriterReport


@dataclass(slots=True)
class _Batch:
    first: int
    before: str | None
    lines: list[bytes] = field(default_factory=list)
    lost: Ranges = field(default_factory=list)
    size: int = 0
    last: int = 0

    def is_wide(self, seq: int) -> bool:
        """Tell whether there is no more room for lost seqs up to `seq`."""
        return len(self.lost) >= BATCH_RANGES or seq - self.first >= MAX_SPAN

    def add(self, line: Line) -> None:
        expected = self.last + 1
        if line.seq > expected:
            self.lost.append((expected, line.seq - 1))
        self.lines.append(line.raw)
        self.size += len(line.raw)
        self.last = line.seq


class WriterDelivery:
    """Delivers one writer of a run, once.

    Args:
        client: the server.
        run_path: the run's address below /api/v1.
        call: makes a request with patience.
        name: what the writer is called there.
        there: what the server has of it.
        base: for a branch, the writer that it leaves behind `there.last`, should the server not have it yet.
    """

    def __init__(
        self, client: Client, run_path: str, call: Call, name: str, there: WriterState, base: str | None = None
    ) -> None:
        self._client = client
        self._path = f"{run_path}/records/{path_of(name)}"
        self._call = call
        self._name = name
        self._there = there
        self._base = base
        self._report = WriterReport(name)
        self._digest = JournalDigest()
        self._whole = JournalDigest() if there.lost else self._digest  # with what the server lacks
        self._held: Line | None = None  # the newest known line, not yet in the digest: it may have to be shown again
        self._batch: _Batch | None = None
        self._under_way: tuple[_Batch, Promise[dict[str, Any]]] | None = None
        self._gaps = _Gaps(sorted(there.lost))
        self._sent = 0
        self._confirmed = False
        self._blind = False  # this copy lacks lines that the server has: the server's digests stand for its own

    def run(self, folder: Path, sizes: dict[str, int], named: Named, advance: Callable[[int], None]) -> Delivered:
        """Send what the server lacks.

        Args:
            folder: the writer's folder.
            sizes: how much of each segment to read.
            named: takes note of the files that the records name.
            advance: told the bytes of every line that has been dealt with.

        Raises:
            DivergedError: the server holds other bytes under the same seqs.
            DamagedError: the seqs make no sense.
            PermanentError, RetryableError: as the client says.
        """
        self._report = WriterReport(folder.name)
        try:
            self._read(folder, sizes, named, advance)
            if self._batch is not None:
                self._send(self._batch)
                self._settle()
            else:
                self._compare()
        finally:
            if self._under_way is not None:
                self._under_way[1].wait()  # nobody else uses the connection meanwhile
        if self._gaps.to_fill:
            self._fill(folder, sizes)
        last = self._report.last_seq
        return Delivered(self._name, last, self._whole.upto(last), self._sent, self._confirmed, self._report)

    def _read(self, folder: Path, sizes: dict[str, int], named: Named, advance: Callable[[int], None]) -> None:
        for line in lines_of(folder, self._report, sizes):
            named.add(line)
            if self._there.lost:
                self._whole.add(line.seq, line.raw)
            if line.seq > self._there.last:
                self._send_later(line)
            elif self._gaps.is_known(line):
                self._known(line)
            advance(len(line.raw))

    def _known(self, line: Line) -> None:
        if self._held is not None:
            self._digest.add(self._held.seq, self._held.raw)
        self._held = line

    def _send_later(self, line: Line) -> None:
        if self._batch is None:
            self._compare()
            self._batch = _Batch(self._there.last + 1, self._there.digest, last=self._there.last)
        elif self._batch.size + len(line.raw) > BATCH_BYTES or self._batch.is_wide(line.seq):
            self._send(self._batch)
            last = self._batch.last
            self._batch = _Batch(last + 1, self._settle() if self._blind else self._digest.upto(last), last=last)
        self._batch.add(line)
        self._digest.add(line.seq, line.raw)

    def _compare(self) -> None:
        """Hold what both have against each other. Raises DivergedError."""
        held, self._held = self._held, None
        if self._report.missing and self._report.missing[0][0] <= self._there.last:
            # This copy is damaged where the server's is not, perhaps: a digest is of no use, a line is.
            self._blind = True
            if held is not None:
                self._digest.add(held.seq, held.raw)
                self._post(_Batch(held.seq, None, [held.raw], last=held.seq))
            return
        if held is not None and held.seq < self._there.last and self._batch is None:
            self._show_again(held)
        if held is not None:
            self._digest.add(held.seq, held.raw)
        seen = held.seq if held is not None else 0
        if seen >= self._there.last and self._digest.upto(self._there.last) != self._there.digest:
            raise DivergedError(f"{self._client.origin} holds other records of writer {self._name} than this copy")

    def _show_again(self, line: Line) -> None:
        """Let the server, which is further, compare: a line it has is compared, never stored twice."""
        before = self._digest.upto(line.seq - 1)
        self._post(_Batch(line.seq, before, [line.raw], last=line.seq))
        self._confirmed = True

    def _fill(self, folder: Path, sizes: dict[str, int]) -> None:
        """Read the journal again and send what the server had been told was lost."""
        before: Line | None = None
        batch: _Batch | None = None
        behind = 0
        for line in read_writer(folder, WriterReport(folder.name), sizes):
            if line.seq > self._gaps.last:
                break
            inside, after = self._gaps.place(line.seq)
            if after is None:
                before = before if inside else line
                continue
            if batch is not None and (behind != after.seq or batch.size + len(line.raw) > BATCH_BYTES):
                self._send_gap(batch, behind)
                batch = None
            if batch is None:
                batch, behind = _begin_gap(before), after.seq
            batch.add(line)
            before = line
        if batch is not None:
            self._send_gap(batch, behind)

    def _send_gap(self, batch: _Batch, behind: int) -> None:
        """Send lines for a gap, between one that the server has and one behind it that shows where they belong."""
        known = 1 if batch.before is None else 0
        batch.add(self._gaps.anchor(behind))
        self._post(batch)
        self._sent += len(batch.lines) - known - 1

    def _send(self, batch: _Batch) -> None:
        """Send a batch once the one before it has arrived; while it is under way the journal is read on."""
        self._settle()
        promise: Promise[dict[str, Any]] = Promise()
        self._under_way = (batch, promise)
        threading.Thread(target=promise.keep, args=(lambda: self._post(batch),), daemon=True).start()

    def _settle(self) -> str:
        """Wait for the batch that is under way; return the server's digest of all it has then."""
        if self._under_way is None:
            return self._there.digest
        batch, promise = self._under_way
        answer = promise.result()
        self._under_way = None
        expected = answer.get("next")
        if not isinstance(expected, int) or expected <= batch.last:
            raise PermanentError(
                f"{self._client.origin} did not take all of writer {self._name}: it expects seq {expected}"
            )
        self._sent += len(batch.lines)
        return str(answer.get("digest"))

    def _post(self, batch: _Batch) -> dict[str, Any]:
        body = zstandard.ZstdCompressor(level=3).compress(b"".join(batch.lines))
        params: dict[str, str | int | list[str]] = {"first": batch.first}
        if batch.before is not None:
            params["before"] = batch.before
        if batch.lost:
            params["lost"] = format_ranges(batch.lost)
        if self._base is not None:
            params["base"] = self._base
        return self._call(lambda: self._client.json("POST", self._path, data=body, params=params))


def _begin_gap(before: Line | None) -> _Batch:
    if before is None:
        return _Batch(1, EMPTY.digest)
    batch = _Batch(before.seq, None, last=before.seq - 1)
    batch.add(before)
    return batch


class _Gaps:
    """The ranges that the server lacks, and what this copy has of them.

    A line for a gap is only taken along with one behind it that the server has: that is its anchor. Without one it may
    be another journal's, of a copy that was continued elsewhere.
    """

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        self._anchors: dict[int, Line] = {}  # by the index of the range
        self._met: list[int] = []  # ranges that this copy has lines of, and no anchor yet

    @property
    def to_fill(self) -> bool:
        """Whether there are lines to send."""
        return bool(self._anchors)

    @property
    def last(self) -> int:
        """The last seq that may be sent."""
        return max((self._ranges[i][1] for i in self._anchors), default=0)

    def is_known(self, line: Line) -> bool:
        """Take note of a line; tell whether the server has it."""
        index = contains(self._ranges, line.seq)
        if index is None:
            self._anchors.update(dict.fromkeys(self._met, line))
            self._met.clear()
            return True
        if not self._met or self._met[-1] != index:
            self._met.append(index)
        return False

    def place(self, seq: int) -> tuple[bool, Line | None]:
        """Tell whether the server lacks a seq, and if so its anchor."""
        index = contains(self._ranges, seq)
        return index is not None, None if index is None else self._anchors.get(index)

    def anchor(self, seq: int) -> Line:
        """Return the anchor of that seq."""
        return next(line for line in self._anchors.values() if line.seq == seq)
