"""Where console records go: a journal writer of their own, so that a chatty program does not flood the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from ..journal import record
from ..journal.writer import Writer

KIND = "console"


class JournalSink:
    """Appends the data of console records to a journal; the writer is made with the first of them.

    Args:
        journal: the run's journal folder.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._writer: Writer | None = None

    def __call__(self, data: dict[str, Any]) -> None:
        if self._writer is None:
            self._writer = Writer(self._journal)
        self._writer.append(KIND, record.body(orjson.dumps(data)))

    @property
    def written(self) -> dict[str, int]:
        """The writer's name and its last seq, as latest.spec lists them; empty where nothing was printed."""
        return {self._writer.name: self._writer.seq} if self._writer is not None else {}

    @property
    def size(self) -> int:
        """Bytes of journal so far."""
        return self._writer.total_bytes if self._writer is not None else 0

    def sync(self, *, patient: bool = True) -> None:
        """Make durable what was written; see `Writer.sync`."""
        if self._writer is not None:
            self._writer.sync(patient=patient)

    def move_to(self, journal: Path) -> None:
        """Go on in another journal folder, with a writer made there."""
        self._journal = journal
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """Write and sync all that can be, then close."""
        if self._writer is not None:
            self._writer.close()

    def abandon(self) -> None:
        """For a forked child: the writer belongs to its parent."""
        if self._writer is not None:
            self._writer.abandon()
