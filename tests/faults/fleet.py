"""Runs for the harness, recorded by the real recorder in processes of their own (forge.py)."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..server.tools import environment

DEADLINE = 60.0
MIB = 1 << 20


class Forge:
    """The program that records, started once for many runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # A socket's address has at most 108 bytes; pytest's folders are longer.
        self._place = Path(tempfile.mkdtemp(prefix="forge-"))
        self._address = str(self._place / "socket")
        self._numbers = itertools.count()
        settings = {"CONSOLE": "off", "SYSTEM_INTERVAL": "0", "PROVENANCE": "false", "SILENT": "true"}
        self._errors = (folder / "stderr").open("w")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forge.py")), self._address],
            env=environment(folder, **{f"FLIGHTLOG_{name}": value for name, value in settings.items()}),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # what the trainings print
            stderr=self._errors,
            start_new_session=True,
        )
        until = time.monotonic() + DEADLINE
        while not Path(self._address).exists():
            assert self._process.poll() is None and time.monotonic() < until, self.errors
            time.sleep(0.01)

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text()

    def training(self) -> Training:
        """Return a new process that records."""
        return Training(self._address, next(self._numbers))

    def command(
        self,
        words: list[str],
        env: dict[str, str],
        folder: Path,
        sizes: Sequence[tuple[str, str, int]] = (),
        clock: float = 0.0,
    ) -> Forged:
        """Return a new process that runs a flightlog command; see forge.command."""
        how = {"words": words, "environment": env, "folder": str(folder), "sizes": list(sizes), "clock": clock}
        return Forged(self._address, how, self.folder / f"command-{next(self._numbers)}")

    def close(self) -> None:
        """End it, and the trainings that are left."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE)
        self._errors.close()
        shutil.rmtree(self._place)


class Forged:
    """A process that runs a flightlog command: its pid and output, and its status once it has ended."""

    def __init__(self, address: str, how: dict[str, Any], place: Path) -> None:
        self.out, self.err = place.with_suffix(".out"), place.with_suffix(".err")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(address)
        self._stream = self._socket.makefile("rw")
        for path in (self.out, self.err):
            path.touch()
        order = ["command", {**how, "out": str(self.out), "err": str(self.err)}]
        print(json.dumps(order), file=self._stream, flush=True)
        self.pid: int = json.loads(self._stream.readline())["pid"]
        self.status: int | None = None

    def signal(self, how: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, how)

    def wait(self, deadline: float) -> int:
        """Return its status, minus the signal's number where one ended it. Raises TimeoutError."""
        if self.status is None:
            if not select.select([self._socket], [], [], deadline)[0]:
                raise TimeoutError
            self.status = json.loads(self._stream.readline())["status"]
            self._stream.close()
            self._socket.close()
        return self.status


class Training:
    """A process that records a run, and does what it is told."""

    def __init__(self, address: str, number: int) -> None:
        self.number = number
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(address)
        self._stream = self._socket.makefile("rw")
        self.pid = 0
        self.id = ""
        self.run = Path()
        self.open = False

    @property
    def address(self) -> str:
        """Return workspace/project/id of the run as the server's admin has it."""
        return f"admin/faults/{self.id}"

    def begin(self, place: Path, **how: Any) -> Training:
        """Begin a run below a folder; see forge.Training.begin."""
        place.mkdir(parents=True, exist_ok=True)
        told = self.do("begin", **{"dir": str(place), "project": "faults", "seed": 0, **how})
        self.pid, self.id, self.run, self.open = told["pid"], told["id"], Path(told["dir"]), True
        return self

    def do(self, what: str, **how: Any) -> Any:
        """Have something done, and wait for it. Any thread may ask."""
        with self._lock:
            self._stream.write(json.dumps([what, how]) + "\n")
            self._stream.flush()
            line = self._stream.readline()
        assert line, f"the training died while it should {what}"
        said = json.loads(line)
        assert "error" not in said, said["error"]
        return said["answer"]

    def finish(self, exit_code: int = 0) -> None:
        """End the run, and the process."""
        if self.open:
            self.do("finish", exit_code=exit_code)
            self.open = False
        self._leave()

    def kill(self) -> None:
        """SIGKILL it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.open = False
        self._leave()

    def _leave(self) -> None:
        self._stream.close()
        self._socket.close()
        until = time.monotonic() + DEADLINE
        while self.pid and Path(f"/proc/{self.pid}").exists():
            assert time.monotonic() < until, "a training does not end"
            time.sleep(0.002)


def record(training: Training, chance: random.Random, place: Path, *, large: bool = True) -> Training:
    """Record a run of a random shape, and leave it open.

    Args:
        training: a process that has not begun yet.
        chance: what decides about the shape.
        place: the folder of run directories.
        large: with an artifact of some megabytes, which make several packs.
    """
    seed = chance.randrange(1 << 30)
    how: dict[str, Any] = {"seed": seed}
    if chance.random() < 0.3:
        how["segment"] = 32 << 10
    if chance.random() < 0.3:
        how["console"] = "wrap"
    if chance.random() < 0.25:
        how["clock"] = chance.choice([-86_400.0 * 400, -7200.0, 7200.0, 86_400.0 * 400])
    parts: list[tuple[str, dict[str, Any]]] = [("log", {"count": chance.randrange(20, 400)})]
    if large:
        sizes = [chance.randrange(1, 3 * MIB) for _ in range(chance.randrange(1, 4))] + [chance.randrange(0, 2000)]
        parts.append(("artifact", {"name": "model", "sizes": sizes, "policy": chance.choice(["auto", "copy", "link"])}))
    others: list[tuple[str, dict[str, Any]]] = [
        ("media", {"count": chance.randrange(1, 9)}),
        ("log", {"count": chance.randrange(5, 100), "text": 3000}),
        ("artifact", {"name": "tokens", "sizes": [chance.randrange(1, 60_000)], "alias": "latest"}),
        ("child", {"count": chance.randrange(1, 60)}),
        ("facts", {}),
        ("save", {}),
        ("say", {"count": chance.randrange(1, 60)}),
        ("rewind", {"step": 15}),
        ("resume", {}),
    ]
    parts += chance.sample(others, chance.randrange(1, 5))
    chance.shuffle(parts)
    if chance.random() < 0.08:
        how["memory"] = 60_000
        parts.insert(1, ("gap", {"count": 500}))
    training.begin(place, **how)
    for what, more in parts:
        training.do(what, **more)
    return training
