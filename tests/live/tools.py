"""What the tests of online runs share: trainings in processes of their own, and looking at what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from flightlog import followed
from flightlog.process import birth_of
from flightlog.rundir import RunDir

from ..server.tools import Said, Server, environment, local_journal, until

__all__ = ["QUIET", "Training", "Trainings", "end_followers", "until"]

QUIET = {"FLIGHTLOG_CONSOLE": "off", "FLIGHTLOG_SYSTEM_INTERVAL": "0", "FLIGHTLOG_PROVENANCE": "false"}


class Training:
    """A training script that runs."""

    def __init__(self, process: subprocess.Popen[str], place: Path, run_id: str) -> None:
        self.process = process
        self.run_id = run_id
        self._place = place

    @property
    def dir(self) -> Path:
        """The run's directory, once there is one."""
        found = sorted(self._place.rglob(f"run-*-{self.run_id}"))
        return found[0] if found else self._place / "none yet"

    @property
    def follower(self) -> followed.Standing | None:
        """How its follower stands."""
        return followed.load(RunDir(self.dir))

    def wait(self) -> Said:
        """Wait for its end, and return what it said. What its follower said is printed, for a test that fails."""
        out, err = self.process.communicate(timeout=100)
        print(err)
        for name in (followed.LOG, followed.STATE):
            with contextlib.suppress(OSError):
                print((self.dir / name).read_text())
        return Said(self.process.returncode, out, err)

    def seen(self, server: Server) -> int:
        """How many records of it the server has."""
        return sum(lines.count(b"\n") for lines in server.journal(self.run_id).values())

    def state(self, server: Server) -> str:
        """How the server shows it."""
        answer = server.api("GET", f"runs/admin/p/{self.run_id}")
        return str(answer.json()["state"]) if answer.status == 200 else f"status {answer.status}"

    def is_delivered(self, server: Server) -> bool:
        """Whether the server has exactly what this disk has."""
        return server.journal(self.run_id) == local_journal(self.dir)


class Trainings:
    """Starts trainings."""

    def __init__(self, home: Path, place: Path) -> None:
        self._home = home
        self._place = place
        self._started: list[subprocess.Popen[str]] = []

    def environment(self, server: Server | None, **more: str) -> dict[str, str]:
        """Return the environment of a training that is online by what it finds there."""
        named = {"FLIGHTLOG_BASE_URL": server.url, "FLIGHTLOG_API_KEY": server.key} if server else {}
        return environment(self._home, **{**QUIET, "FLIGHTLOG_DIR": str(self._place), **named, **more})

    def start(
        self, script: str, run_id: str, server: Server | None, wrapper: tuple[str, ...] = (), **more: str
    ) -> Training:
        """Start a script, which finds `flightlog`, `time`, `sys` and `os` imported, project and id set."""
        head = "import os, signal, sys, time\nimport flightlog\n"
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-c", head + textwrap.dedent(script)],
            env=self.environment(server, FLIGHTLOG_PROJECT="p", FLIGHTLOG_RUN_ID=run_id, **more),
            cwd=self._home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return Training(process, self._place, run_id)

    def close(self) -> None:
        """End those that run, and let go of their pipes."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            process.wait(30)


def end_followers(place: Path) -> None:
    """End the followers of all runs below a folder, each known by its process id and the time of its birth."""
    for path in place.rglob(followed.STATE):
        with contextlib.suppress(OSError, ValueError, KeyError):
            facts = json.loads(path.read_bytes())
            if birth_of(facts["pid"]) == facts["born"]:
                os.kill(facts["pid"], signal.SIGKILL)
