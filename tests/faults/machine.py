"""A machine that syncs: a home of its own, the real command line in processes of its own, and a limit to every wait."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..server.tools import Said, environment
from .fleet import Forge

DEADLINE = 60.0
# A run of some megabytes takes as many batches and packs as one of gigabytes: the command line with small parts.
SMALL = [("flightlog.sync.uploads", "PACK_BYTES", 1 << 20), ("flightlog.sync.records", "BATCH_BYTES", 8 << 10)]
PROGRAM = """
import faulthandler, importlib, json, sys
faulthandler.enable()
for name, what, value in json.loads(sys.argv.pop(1)):
    module = importlib.import_module(name)
    assert getattr(module, what) > value
    setattr(module, what, value)
from flightlog.cli import main
main()
"""


class Hang(AssertionError):
    """A process has not ended within its deadline."""


class _Process(Protocol):
    out: Path
    err: Path
    pid: int

    def signal(self, how: signal.Signals) -> None: ...

    def wait(self, deadline: float) -> int: ...


class Fresh:
    """A process that was started with an interpreter of its own."""

    def __init__(self, words: list[str], env: dict[str, str], folder: Path, place: Path) -> None:
        self.out, self.err = place.with_suffix(".out"), place.with_suffix(".err")
        with self.out.open("w") as out, self.err.open("w") as err:
            self._process = subprocess.Popen(
                words, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        self.pid = self._process.pid

    def signal(self, how: signal.Signals) -> None:
        self._process.send_signal(how)

    def wait(self, deadline: float) -> int:
        try:
            return self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None


@dataclass
class Command:
    """A command that runs; ends by itself, or by being killed."""

    words: list[str]
    process: _Process

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal, if it still runs."""
        self.process.signal(how)

    def wait(self, deadline: float = DEADLINE) -> Said:
        """Return what it did. A hang is a failure: it tells of all its threads' stacks, and is ended."""
        try:
            code = self.process.wait(deadline)
        except TimeoutError:
            self.process.signal(signal.SIGABRT)
            raise Hang(
                f"{self.words} has not ended after {deadline:.0f} s: {self._said(self.process.wait(10))}"
            ) from None
        return self._said(code)

    def _said(self, code: int) -> Said:
        return Said(code, self.process.out.read_text(), self.process.err.read_text())


@dataclass
class Machine:
    """A machine.

    Args:
        folder: where its home is, and what else it needs.
        url: the server's address as this machine knows it.
        key: the API key.
        forge: what its processes are forked from; None starts an interpreter for each.
        small: whether batches and packs are small.
        clock: by how many seconds its clock is wrong; of forked processes only.
    """

    folder: Path
    url: str
    key: str
    forge: Forge | None = None
    small: bool = True
    clock: float = 0.0
    started: list[Command] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, *words: str | Path, **more: str) -> Command:
        """Start a command of flightlog."""
        self.home.mkdir(parents=True, exist_ok=True)
        said = list(map(str, words))
        sizes = SMALL if self.small else []
        env = environment(self.home, FLIGHTLOG_API_KEY=self.key, **more)
        process: _Process
        if self.forge is not None:
            process = self.forge.command(said, env, self.home, sizes, self.clock)
        else:
            assert not self.clock
            line = [sys.executable, "-c", PROGRAM, json.dumps(sizes), *said]
            process = Fresh(line, env, self.home, self.folder / f"command-{len(self.started)}")
        command = Command(["flightlog", *said], process)
        self.started.append(command)
        return command

    def syncing(self, *paths: Path, options: tuple[str, ...] = (), timeout: float = 20, **more: str) -> Command:
        """Start a sync of these runs, and of what is below these folders."""
        return self.start("sync", *paths, "--server", self.url, "--json", "--timeout", str(timeout), *options, **more)

    def sync(self, *paths: Path, options: tuple[str, ...] = (), timeout: float = 20, **more: str) -> Said:
        """Sync, and return what came of it."""
        return self.syncing(*paths, options=options, timeout=timeout, **more).wait()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs."""
        for command in self.started:
            command.kill()
            command.process.wait(DEADLINE)


def results(said: Said) -> list[dict[str, object]]:
    """Return what `--json` says of each run; nothing where the sync ended before it came to any."""
    try:
        found: list[dict[str, object]] = json.loads(said.out)["runs"]
    except ValueError:
        return []
    return found
