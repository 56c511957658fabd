"""How a run directory stands towards a server, as far as this disk knows."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DamagedError
from ..rundir import RunDir
from . import state
from .local import Identity, alive, identify, in_words
from .tidy import bytes_on_disk


@dataclass(slots=True)
class Standing:
    """How a run stands.

    Attributes:
        directory, identity: the run; no identity where neither latest.spec nor the journal says which it is.
        stuck: no sync can deliver it as it is.
        word: "pending", "running" (pending, and still being recorded), "damaged", "gone" (deleted on the server) or
            "delivered".
        note: what is to be known of it, in a few words.
        trouble: what blocks it, or was damaged when it was last delivered.
        pending: the server lacks something of it. pending_bytes: how much at most. bytes: its size on this disk.
        last_growth: when its journal last grew, UTC seconds; 0 where it has none.
        server: the server that is spoken of, if it has had anything of the run. url: where the run is there.
    """

    directory: RunDir
    identity: Identity | None = None
    stuck: bool = False
    word: str = "pending"
    note: str = ""
    trouble: str | None = None
    pending: bool = True
    pending_bytes: int = 0
    bytes: int = 0
    last_growth: float = 0.0
    server: str | None = None
    url: str | None = None


def standing(directory: RunDir, origin: str | None) -> Standing:
    """Return how a run directory stands towards a server; whatever is wrong with it becomes its trouble.

    Args:
        directory: the run directory.
        origin: the server; None for whichever had most of it last, where nothing says which one is meant.
    """
    found = Standing(directory)
    try:
        found.bytes, found.last_growth = bytes_on_disk(directory), directory.last_growth()
        found.identity = identify(directory)
        _compare(found, origin)
    except (DamagedError, OSError) as error:
        found.stuck, found.word, found.note = True, "damaged", "cannot be delivered"
        found.trouble = in_words(error, directory) if isinstance(error, OSError) else str(error)
    return found


def _compare(found: Standing, origin: str | None) -> None:
    directory = found.directory
    everything = state.load(directory)
    if origin is None:
        origin = max(everything, key=lambda o: (everything[o].complete, everything[o].synced_at), default="")
    known = everything.get(origin)
    is_alive = alive(directory)
    found.server = origin if known else None
    found.url = known.url or None if known else None
    found.pending = known is None or state.is_pending(directory, origin, known.server_id)
    if known is not None and known.gone and not found.pending:
        found.word, found.note = "gone", "deleted on the server"
        return
    if not found.pending:
        found.word, found.note = "delivered", f"delivered to {origin}"
        return
    found.pending_bytes = state.unseen_bytes(directory, known)
    found.word = "running" if is_alive else "pending"
    if known is None:
        found.note = "never delivered"
    elif known.faults:
        found.word, found.note = "damaged", "what could be read was delivered"
        more = f" (and {len(known.faults) - 1} more)" if len(known.faults) > 1 else ""
        found.trouble = f"{known.faults[0]}{more}"
    else:
        found.note = "has grown since it was delivered" if known.journal else "not delivered whole"
        if known.journal == directory.journal_sizes():
            found.note = "has ended since it was delivered" if known.complete else "not delivered whole"
