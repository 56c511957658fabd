"""The server under test: a real one, that can be killed and started again on the same folder and port."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..server.tools import Server, environment
from .fleet import Forge, Forged

DEADLINE = 30.0


@dataclass
class Service(Server):
    """A server; with a forge its process is forked, which spares a second at every start.

    Attributes:
        forge: what it is forked from. clock: by how many seconds the clock of a forked one is wrong.
        deaths: how often it was killed.
    """

    forge: Forge | None = None
    clock: float = 0.0
    forged: Forged | None = field(default=None, repr=False)
    deaths: int = 0

    @property
    def stderr(self) -> str:
        place = self.folder / "stderr"
        return place.read_text() if place.exists() else ""

    def kill(self) -> None:
        """SIGKILL it."""
        self.deaths += 1
        self._end(signal.SIGKILL)

    def start(self, fresh: bool = False) -> Service:
        """Start it, on the same folder and port as before."""
        if self.forge is None or fresh:
            super().start()
            return self
        words = ["server", "--data", str(self.data), "--port", str(self.port if self.url else 0)]
        self.forged = self.forge.command(words, environment(self.folder), self.folder, clock=self.clock)
        self._read_what_it_says()
        self._wait()
        return self

    def _read_what_it_says(self) -> None:
        """Take its address, and at its first start its key, from what it prints."""
        assert self.forged is not None
        until = time.monotonic() + DEADLINE
        said = ""
        while "data in" not in said or not (self.key or "Accounts for others" in said):
            assert time.monotonic() < until, f"the server did not start: {said} {self.forged.err.read_text()}"
            time.sleep(0.01)
            said = self.forged.out.read_text()
        self.url = re.findall(r"http://\S+:\d+", said)[0]
        self.key = self.key or re.findall(r"^\s+(fl_\S+)$", said, re.MULTILINE)[0]

    def _end(self, how: signal.Signals) -> None:
        if self.forged is None:
            super()._end(how)
            return
        self.forged.signal(how)
        self.forged.wait(DEADLINE)
        with (self.folder / "stderr").open("a") as said:
            said.write(self.forged.err.read_text())
        self.forged = None


@contextmanager
def started(folder: Path, forge: Forge | None = None) -> Iterator[Service]:
    """Start a server in this folder; whatever happens to it, its log must not show a traceback."""
    folder.mkdir(exist_ok=True)
    server = Service(folder, forge=forge).start()
    try:
        yield server
    finally:
        server.stop()
    assert "Traceback" not in server.stderr, server.stderr
