"""Asking a server whether it still has what sync.json says: it may have been put back to a backup, or lost a disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from ..client import Client, Patience
from ..errors import PermanentError
from ..protocol.messages import MAX_HELD_RUNS, MAX_HELD_WRITERS, Holding
from .state import Synced


def confirmed(client: Client, patience: Patience, believed: Mapping[Path, Synced]) -> dict[Path, Synced]:
    """Return those of the runs that stand on the server as is believed here; many are asked about at once.

    What another account has delivered, into a workspace of its own, is believed: the server does not speak of it.

    Args:
        client: the server, with a key.
        patience: how long to try again what may work later.
        believed: what sync.json says of runs: that they are there whole, or were deleted there.

    Raises:
        PermanentError, RetryableError: as the client says.
    """
    found: dict[Path, Synced] = {}
    for part in _parts(believed):
        body = {"runs": [_holding(known).to_json() for _, known in part]}
        try:
            answer = patience.call(partial(client.json, "POST", "holdings", json=body))
        except PermanentError as error:
            if error.status not in (413, 422):
                raise
            continue  # there is a sync.json among them that nobody of ours has written: all are looked at whole
        with client.understood():
            words = list(answer["runs"])
            for (path, known), word in zip(part, words, strict=True):
                if word in ("unknown", "gone" if known.gone else "held"):
                    found[path] = known
    return found


def _holding(known: Synced) -> Holding:
    return Holding(known.workspace, known.project, known.run_id, known.writers, known.files)


def _parts(believed: Mapping[Path, Synced]) -> Iterator[list[tuple[Path, Synced]]]:
    """Yield the runs in parts that one request may ask about; a run that is too much for one is in none."""
    part: list[tuple[Path, Synced]] = []
    writers = 0
    for path, known in believed.items():
        own = len(known.writers)
        if own > MAX_HELD_WRITERS:
            continue
        if len(part) >= MAX_HELD_RUNS or writers + own > MAX_HELD_WRITERS:
            yield part
            part, writers = [], 0
        part.append((path, known))
        writers += own
    if part:
        yield part
