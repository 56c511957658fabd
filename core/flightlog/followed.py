"""follower.json: how the follower of an online run stands, left in the run directory for the training to read.

The follower writes it, whole and atomically; the training reads it at the end of the run, and now and then before. It
is no part of the run: losing it loses nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from .journal.reader import open_regular
from .process import birth_of, hostname
from .rundir import FOLLOWER_FILES, RunDir, atomic_write

STATE, LOG, LOCK = FILES = FOLLOWER_FILES
_MAX = 1 << 20
# Those from which a follower does not come back by itself.
ENDED = frozenset(("delivered", "damaged", "gone", "refused", "given up", "stopped"))


@dataclass(slots=True)
class Standing:
    """How a follower stands.

    Attributes:
        pid, host, born: the follower's process, and what tells it from a later one with its number.
        server: where it delivers to.
        state: "starting", "delivering" (a whole sync), "following" (each record as it comes), "waiting" (for a server
            that cannot be reached), "failed" (tried again later), or one of `ENDED`.
        error: what is the matter, in words.
        url: the run's page, once the server knows the run.
        records: how many records the server has of those it delivered.
        sent, total: bytes of the sync that is under way.
        as_of: the `updated_at` of the latest.spec that was delivered last, with everything before it.
        updated_at: when this was written.
    """

    pid: int = 0
    host: str = ""
    born: list[str] = field(default_factory=list)
    server: str = ""
    state: str = "starting"
    error: str | None = None
    url: str = ""
    records: int = 0
    sent: int = 0
    total: int = 0
    as_of: float = 0.0
    updated_at: float = 0.0

    @property
    def is_running(self) -> bool:
        """Whether its process is there; believed of one on another machine."""
        if self.state in ENDED:
            return False
        if self.host != hostname():
            return True
        return self.pid > 0 and birth_of(self.pid) == self.born and not _is_zombie(self.pid)


def _is_zombie(pid: int) -> bool:
    """Tell whether a process has ended and nobody has taken note: in a container whose first process is a script."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except (OSError, IndexError):
        return False


def load(directory: RunDir) -> Standing | None:
    """Return how the follower of a run stands; None where there was none, or nothing can be made of what it left."""
    try:
        with open_regular(directory.path / STATE) as file:
            content = file.read(_MAX + 1)
        return _checked(orjson.loads(content)) if len(content) <= _MAX else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _checked(facts: Any) -> Standing:
    plain = Standing()
    for name, default in asdict(plain).items():
        value = facts.get(name, default)
        allowed = (str, type(None)) if name == "error" else (int, float) if type(default) is float else type(default)
        if not isinstance(value, allowed):
            raise ValueError(f"{name} is no {type(default).__name__}")
        setattr(plain, name, value)
    return plain


def save(directory: RunDir, standing: Standing) -> None:
    """Write how the follower stands. Raises OSError."""
    path: Path = directory.path / STATE
    atomic_write(path, orjson.dumps(asdict(standing), option=orjson.OPT_APPEND_NEWLINE), durable=False)
