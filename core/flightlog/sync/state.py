"""sync.json: what a server has acknowledged of a run directory. A cache; the server is the authority."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ..journal.reader import open_regular, read_upto
from ..rundir import RunDir, atomic_write
from .local import alive

_MAX = 64 << 20


@dataclass(slots=True)
class Synced:
    """What one server has.

    `journal` is the sizes that were delivered, `complete` that nothing was left behind, `gone` that the run was deleted
    on the server: it is not pending, and nothing of it is proven. `run_id` is what it is called there ("": as here).
    `writers` is the last seq and the digest that it acknowledged of each writer that is in this directory, `files` how
    many files: by these it is asked whether it still has them.
    `inode` is the run directory's: beside a copy, which may have gone on in another way to the same sizes, it is wrong.
    """

    server_id: str
    workspace: str
    project: str
    url: str
    journal: dict[str, dict[str, int]] = field(default_factory=dict)
    complete: bool = False
    alive: bool = False
    synced_at: float = 0.0
    faults: list[str] = field(default_factory=list)
    run_id: str = ""
    gone: bool = False
    inode: int = 0
    writers: dict[str, tuple[int, str]] = field(default_factory=dict)
    files: int = 0

    @property
    def target(self) -> tuple[str, str, str]:
        """The workspace, project and id that it was delivered as."""
        return self.workspace, self.project, self.run_id


def load(directory: RunDir) -> dict[str, Synced]:
    """Return what is known by server origin; nothing where sync.json is missing, damaged or of another format."""
    known: dict[str, Synced] = {}
    elsewhere = [_fallback(directory)] if os.path.isdir(_fallback_folder()) else []  # noqa: PTH112
    for path in (directory.sync_path, *elsewhere):
        for origin, entry in _read(path).items():
            if origin not in known or entry.synced_at > known[origin].synced_at:
                known[origin] = entry
    return known


def _read(path: Path) -> dict[str, Synced]:
    try:
        with open_regular(path) as file:
            content = orjson.loads(read_upto(file, _MAX))
        if content["format"] == 1:
            return {origin: _entry(entry) for origin, entry in content["servers"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}


def _entry(facts: dict[str, Any]) -> Synced:
    """Return what is said of a server. Raises ValueError, TypeError or AttributeError: somebody else has written it."""
    entry = Synced(**facts)
    entry.synced_at = float(entry.synced_at)
    entry.writers = {name: (int(last), str(digest)) for name, (last, digest) in entry.writers.items()}
    entry.journal = {
        name: {segment: int(size) for segment, size in sizes.items()} for name, sizes in entry.journal.items()
    }
    entry.faults = list(map(str, entry.faults))
    texts = (entry.server_id, entry.workspace, entry.project, entry.url, entry.run_id)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"no texts: {texts}")
    return entry


def save(directory: RunDir, known: dict[str, Synced]) -> None:
    """Keep what is known; in the user's state folder where the run directory cannot be written.

    Raises:
        OSError: neither can be written, or there is no run directory any more.
    """
    document: dict[str, Any] = {"format": 1, "servers": {origin: asdict(entry) for origin, entry in known.items()}}
    content = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    try:
        atomic_write(directory.sync_path, content)
    except OSError:
        if not directory.path.is_dir():
            raise
        path = _fallback(directory)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)


def _fallback_folder() -> str:
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
    return f"{base}/flightlog/sync"  # no Path: a thousand runs are asked about it


def _fallback(directory: RunDir) -> Path:
    name = hashlib.sha256(os.fsencode(directory.path.absolute())).hexdigest()[:32]
    return Path(_fallback_folder()) / f"{name}.json"


def is_pending(
    directory: RunDir,
    origin: str,
    server_id: str,
    target: tuple[str | None, str | None, str | None] = (None, None, None),
) -> bool:
    """Tell whether a server lacks anything of a run: records, by the journal's sizes, or that it has died since.

    No journal is read. A run that was deleted on the server is not pending.

    Args:
        directory: the run directory.
        origin, server_id: the server, and who it says that it is.
        target: the workspace, project and id that it is wanted as there; None for each where any will do.
    """
    return lacks(directory, load(directory).get(origin), server_id, target)


def lacks(
    directory: RunDir, known: Synced | None, server_id: str, target: tuple[str | None, str | None, str | None]
) -> bool:
    """Tell what `is_pending` does, where it is known already what sync.json says of the server."""
    if known is None or known.server_id != server_id:
        return True
    if any(want not in (None, has) for want, has in zip(target, known.target, strict=True)):
        return True
    if known.gone:
        return False
    # A run that was dead and lives again has grown.
    died = known.alive and not alive(directory)
    return died or not holds_all(directory, known)


def holds_all(directory: RunDir, known: Synced) -> bool:
    """Tell whether a server has proven to hold all that is in this directory: in this one, and not in one copied."""
    return known.complete and known.inode == inode_of(directory) and known.journal == directory.journal_sizes()


def inode_of(directory: RunDir) -> int:
    """Return a run directory's inode number. Raises OSError."""
    return directory.path.stat().st_ino


def unseen_bytes(directory: RunDir, known: Synced | None) -> int:
    """Return how many bytes of a run may be new to a server: an upper bound, from sizes and times alone.

    Args:
        directory: the run directory.
        known: what the server has; None where that is nothing.
    """
    had = known.journal if known else {}
    grown = 0
    for writer, sizes in directory.journal_sizes().items():
        before = had.get(writer, {})
        grown += sum(max(0, size - before.get(name, 0)) for name, size in sizes.items())
    newer = known.synced_at if known and known.complete else 0.0
    for folder, folders, names in os.walk(directory.files):
        if Path(folder) == directory.files and "journal" in folders:
            folders.remove("journal")
        for name in names:
            with contextlib.suppress(OSError):
                facts = (Path(folder) / name).lstat()
                grown += facts.st_size if facts.st_mtime >= newer else 0
    return grown
