"""The server under test: a real one that can be killed and is then started again on the same folder, on the same port."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path

from ..server.tools import Server, environment
from .fleet import Forge, Forged

DEADLINE = 30.0


@dataclass
class Service(Server):
    """A server that begins as any does, and is forked when it has been killed: that spares a second every time.

    `clock` is by how many seconds the clock of a forked one is wrong.
    """

    forge: Forge | None = None
    clock: float = 0.0
    forged: Forged | None = field(default=None, repr=False)
    deaths: int = 0

    def kill(self) -> None:
        """SIGKILL it."""
        self.deaths += 1
        self._end(signal.SIGKILL)

    def start(self, fresh: bool = False) -> Service:
        """Start it, on the same folder and port as before."""
        if self.forge is None or not self.key or fresh:
            super().start()
            return self
        words = ["server", "--data", str(self.data), "--port", str(self.port)]
        self.forged = self.forge.command(words, environment(self.folder), self.folder, clock=self.clock)
        self._wait()
        return self

    def _end(self, how: signal.Signals) -> None:
        if self.forged is None:
            super()._end(how)
            return
        self.forged.signal(how)
        self.forged.wait(DEADLINE)
        with (self.folder / "stderr").open("a") as said:
            said.write(self.forged.err.read_text())
        self.forged = None


def start(folder: Path, forge: Forge | None = None) -> Service:
    """Start a server of its own in this folder."""
    return Service(folder, forge=forge).start()
