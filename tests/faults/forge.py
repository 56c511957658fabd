"""A program that forks: real processes for the tests, to be killed at any moment, without the start of an interpreter.

It listens on a Unix socket (its argument). Each connection is a process of its own. One that begins with a command is a
flightlog command: its pid is answered, and in the end its status. Any other is a training: a line of JSON says what it
does next, `["log", {"count": 100}]`, and a line answers when that is done; a connection that closes ends the process as
a crash would. Nothing differs from a process started afresh but that the modules are imported already; the slow
scenarios start theirs afresh.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import random
import resource
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

import flightlog
from flightlog.journal import writer

# What is imported at the first use is imported before the forks.
for module in (
    *("flightlog.cli.sync", "flightlog.sync.session", "flightlog.reading.remote", "requests", "zstandard", "pyfastcdc"),
    *(
        "flightlog_server.cli.server",
        "flightlog_server.serve",
        "flightlog_server.data",
        "flightlog_server.store.migrate",
    ),
    *("uvicorn.loops.auto", "uvicorn.protocols.http.auto", "uvicorn.lifespan.on", "alembic.command"),
):
    importlib.import_module(module)
flightlog.Image(np.zeros((4, 4, 3), dtype=np.uint8))
flightlog.Histogram([1.0, 2.0])
flightlog.Table(columns=["a"])


class Training:
    """One process's training; every public method is something it can be told to do."""

    def __init__(self) -> None:
        self._run: Any = None
        self._chance = random.Random(0)
        self._scratch = Path()

    def begin(
        self,
        dir: str,
        project: str,
        seed: int,
        id: str | None = None,
        clock: float = 0.0,
        segment: int = writer.SEGMENT_SIZE,
        memory: int = writer.MEMORY_LIMIT,
        console: str = "off",
    ) -> dict[str, Any]:
        """Begin a run, or continue one; `clock` seconds is this machine's clock wrong, from now on."""
        defaults = writer.Writer.__init__.__kwdefaults__
        defaults.update(segment_size=segment, memory_limit=memory)
        self._chance = random.Random(seed)
        self._scratch = Path(dir).parent / f"scratch-{os.getpid()}"
        self._scratch.mkdir(exist_ok=True)
        if clock:
            wrong_clock(clock)
        self._run = flightlog.init(
            project, dir=dir, id=id, resume="allow" if id else None, config={"lr": 0.1, "seed": seed}, console=console
        )
        return {"pid": os.getpid(), "id": self._run.id, "dir": str(self._run.dir)}

    def log(self, count: int, text: int = 0) -> None:
        """Log steps; each with `text` characters beside its numbers, and now and then one that is no number."""
        chance, run = self._chance, self._run
        for _ in range(count):
            values: dict[str, Any] = {"loss": chance.random(), "acc": chance.random()}
            if chance.random() < 0.02:
                values["loss"] = chance.choice([float("nan"), float("inf")])
            if text:
                values["text"] = chance.randbytes(text // 2).hex()
            run.log(values)

    def media(self, count: int) -> None:
        """Log media of several kinds, some as lists, some of them twice the same."""
        pixels = np.random.default_rng(self._chance.randrange(1 << 30))
        for number in range(count):
            kind = number % 4
            if kind == 0:
                self._run.log({"image": flightlog.Image(pixels.integers(0, 255, (16, 16, 3), dtype=np.uint8))})
            elif kind == 1:
                pages = [flightlog.Html(f"<p>{self._chance.random()}</p>"), flightlog.Html("<p>always the same</p>")]
                self._run.log({"pages": pages})
            elif kind == 2:
                self._run.log({"spread": flightlog.Histogram(list(pixels.random(50)))})
            else:
                table = flightlog.Table(columns=["n", "what"], data=[[n, f"row {n}"] for n in range(20)])
                self._run.log({"rows": table})

    def artifact(self, name: str, sizes: list[int], policy: str = "auto", alias: str = "best") -> dict[str, Any]:
        """Log an artifact of files of these sizes, and wait until it is kept; they stay where they were."""
        folder = self._scratch / f"{name}-{self._chance.randrange(1 << 40)}"
        folder.mkdir()
        for number, size in enumerate(sizes):
            (folder / f"part-{number}.bin").write_bytes(self._chance.randbytes(size))
        version = self._run.log_artifact(folder, name=name, type="model", aliases=alias, policy=policy)
        version.wait()
        return {"source": str(folder), "kept": str(version.files)}

    def save(self) -> None:
        """Keep a file under its own name."""
        path = self._scratch / "notes.txt"
        path.write_bytes(self._chance.randbytes(3000))
        self._run.save(str(path), base_path=str(self._scratch))

    def say(self, count: int) -> None:
        """Print lines; with a console they are records of a writer of its own."""
        for number in range(count):
            print(f"epoch {number}: {self._chance.random()}")
        sys.stdout.flush()

    def facts(self) -> None:
        """Record a little of everything else."""
        run = self._run
        run.config.update({"depth": self._chance.randrange(9)})
        run.define_metric("acc", summary="max")
        run.summary["verdict"] = self._chance.random()
        run.alert("half-way", "as planned")
        run.tags = ("blue", f"t{self._chance.randrange(9)}")

    def child(self, count: int) -> None:
        """Let a forked child log, as a writer of its own, and wait for its end."""
        pid = os.fork()
        if pid == 0:
            try:
                for _ in range(count):
                    self._run.log({"child/loss": self._chance.random()})
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    def resume(self) -> None:
        """End and go on, as another writer."""
        run = self._run
        run.finish()
        self._run = flightlog.init(run.project, dir=str(run.dir.parent), id=run.id, resume="must", console="off")

    def rewind(self, step: int) -> None:
        """Hide what was logged beyond a step."""
        self._run.rewind(step)

    def gap(self, count: int) -> None:
        """Log more than memory takes while the disk refuses everything: what is dropped leaves a gap record."""
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        self.log(count, text=200)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        time.sleep(writer.RETRY_SECONDS + 0.1)
        self.log(1)

    def finish(self, exit_code: int = 0) -> None:
        """End the run."""
        self._run.finish(exit_code)

    def set_clock(self, seconds: float) -> None:
        """Set this machine's clock wrong, or wrong by so much more."""
        wrong_clock(seconds)

    def die(self) -> None:
        """Be killed."""
        os.kill(os.getpid(), signal.SIGKILL)


def wrong_clock(seconds: float) -> None:
    """Let every clock that this process reads be wrong by so much; those of the file system stay right."""
    right = time.time
    time.time = lambda: right() + seconds


def command(
    words: list[str],
    environment: dict[str, str],
    folder: str,
    out: str,
    err: str,
    sizes: list[tuple[str, str, int]],
    clock: float,
) -> int:
    """Run a flightlog command as a process of its own would, and return its pid.

    Args:
        words: the command line. environment: its whole environment. folder: its working directory.
        out, err: the files that its output goes to.
        sizes: module, name and value of what is to be smaller than usual.
        clock: by how many seconds its clock is wrong.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None  # it is the environment's again
        os.chdir(folder)
        for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
            opened = os.open(path, flags | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        faulthandler.enable()
        for module, name, value in sizes:
            assert getattr(sys.modules[module], name) > value
            setattr(sys.modules[module], name, value)
        if clock:
            wrong_clock(clock)
        status = 1
        try:
            sys.modules["flightlog.cli"].main(words)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    finally:
        os._exit(70)


def serve(connection: socket.socket) -> None:
    """Do what the other side says until it is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    training = Training()
    with connection.makefile("rw") as stream:
        for line in stream:
            what, how = json.loads(line)
            if what == "command":
                pid = command(**how)
                print(json.dumps({"pid": pid}), file=stream, flush=True)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                print(json.dumps({"status": status}), file=stream, flush=True)
                continue
            try:
                answer = {"answer": getattr(training, what)(**how)}
            except BaseException:
                answer = {"error": traceback.format_exc()}
            stream.write(json.dumps(answer) + "\n")
            stream.flush()


def main() -> None:
    """Listen, and fork for every connection."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children: none of them stays as a zombie
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{sys.argv[1]}.new")
    listening.listen(16)
    os.rename(f"{sys.argv[1]}.new", sys.argv[1])  # from now on it can be reached
    listening.settimeout(5.0)
    parent = os.getppid()
    while os.getppid() == parent:  # tests that are killed leave no forge behind
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            continue
        connection.setblocking(True)
        if os.fork() == 0:
            listening.close()
            try:
                serve(connection)
            finally:
                os._exit(1)  # the end of a process that did not finish its run
        connection.close()


if __name__ == "__main__":
    main()
