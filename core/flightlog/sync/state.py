"""sync.json: what a server has acknowledged of a run directory. A cache; the server is the authority."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ..journal.reader import open_regular
from ..rundir import RunDir, atomic_write
from .local import alive

_MAX = 64 << 20


@dataclass(slots=True)
class Synced:
    """What one server has: `journal` is the sizes that were delivered, `complete` that nothing was left behind."""

    server_id: str
    workspace: str
    project: str
    url: str
    journal: dict[str, dict[str, int]] = field(default_factory=dict)
    complete: bool = False
    alive: bool = False
    synced_at: float = 0.0
    faults: list[str] = field(default_factory=list)


def load(directory: RunDir) -> dict[str, Synced]:
    """Return what is known by server origin; nothing where sync.json is missing, damaged or of another format."""
    known: dict[str, Synced] = {}
    for path in (directory.sync_path, _fallback(directory)):
        for origin, entry in _read(path).items():
            if origin not in known or entry.synced_at > known[origin].synced_at:
                known[origin] = entry
    return known


def _read(path: Path) -> dict[str, Synced]:
    try:
        with open_regular(path) as file:
            content = orjson.loads(file.read(_MAX))
        if content["format"] == 1:
            return {origin: _entry(entry) for origin, entry in content["servers"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}


def _entry(facts: dict[str, Any]) -> Synced:
    entry = Synced(**facts)
    entry.synced_at = float(entry.synced_at)
    return entry


def save(directory: RunDir, known: dict[str, Synced]) -> None:
    """Keep what is known; in the user's state folder where the run directory cannot be written. Raises OSError."""
    document: dict[str, Any] = {"format": 1, "servers": {origin: asdict(entry) for origin, entry in known.items()}}
    content = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    try:
        atomic_write(directory.sync_path, content)
    except OSError:
        path = _fallback(directory)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)


def _fallback(directory: RunDir) -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    home = Path(base) if base else Path.home() / ".local" / "state"
    name = hashlib.sha256(os.fsencode(directory.path.absolute())).hexdigest()[:32]
    return home / "flightlog" / "sync" / f"{name}.json"


def is_pending(directory: RunDir, origin: str, server_id: str) -> bool:
    """Tell whether a server lacks anything of a run: records, by the journal's sizes, or that it has died since."""
    known = load(directory).get(origin)
    return (
        known is None
        or known.server_id != server_id
        or not known.complete
        or known.journal != directory.journal_sizes()
        or known.alive is not alive(directory)
    )
