"""Alerts: what a training wants a person to look at. Recorded, said at the terminal, and not said too often."""

from __future__ import annotations

import enum
import threading
import time
from typing import Any

from .errors import UsageError
from .journal.values import key_text
from .process import tell_of_forks
from .terminal import say

WAIT_SECONDS = 60.0
MAX_TITLE = 1000
MAX_TEXT = 64 << 10
_MOST_TITLES = 1000


class AlertLevel(str, enum.Enum):
    """How much an alert matters."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


def checked(title: object, text: object, level: object) -> dict[str, str]:
    """Return the data of an alert's record. Raises UsageError where the level is none."""
    word = str(level.value if isinstance(level, enum.Enum) else level).upper()
    try:
        found = AlertLevel({"WARNING": "WARN"}.get(word, word))
    except ValueError:
        raise UsageError(f"alert(level={level!r}): it is none of {', '.join(AlertLevel.__members__)}") from None
    return {"title": key_text(title)[:MAX_TITLE], "text": key_text(text)[:MAX_TEXT], "level": found.value}


def announce(data: dict[str, str]) -> None:
    """Say an alert at the terminal."""
    more = f": {data['text'][:500]}" if data["text"] else ""
    say(f"alert [{data['level']}] {data['title']}{more}")


class Limiter:
    """Lets an alert pass unless one with the same title has a short while ago."""

    def __init__(self) -> None:
        self._passed: dict[str, float] = {}
        self._lock = threading.Lock()
        tell_of_forks(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def passes(self, title: str, wait: Any) -> bool:
        """Tell whether an alert may pass now.

        Args:
            title: its title.
            wait: seconds, or a datetime.timedelta, since the last of this title.
        """
        wait = WAIT_SECONDS if wait is None else wait
        seconds = wait.total_seconds() if hasattr(wait, "total_seconds") else float(wait)
        now = time.monotonic()
        with self._lock:
            last = self._passed.get(title)
            if last is not None and now - last < seconds:
                return False
            if len(self._passed) >= _MOST_TITLES:
                self._passed.clear()
            self._passed[title] = now
            return True
