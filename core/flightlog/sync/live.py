"""Following a run that is being recorded: each record reaches the server shortly after it was written.

What is sent here is only what the journal has grown by, by the same requests as in a whole sync (docs/protocol.md); the
server compares and numbers as always. A whole sync comes before it, and after it, when the run has ended: only that
one's receipt counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import zstandard

from ..client import Client, Patience, path_of
from ..contents import Named, named_files
from ..journal.reader import writer_folders
from ..journal.record import Line
from ..protocol.messages import WriterState
from ..protocol.names import is_writer
from ..rundir import RunDir
from .cursor import Cursor, OutOfStep
from .lanes import Lanes
from .local import Identity
from .records import EMPTY, Call
from .session import Connect
from .uploads import FileDelivery, refused_versions

_UPLOAD_PATIENCE = 30.0
_LANES = 2
# What a file system's clock may not tell apart.
_CLOCK_NS = 2_000_000_000


class _Writer:
    """One writer: the cursor, what of its lines is on the way, and the server's word on all before that."""

    def __init__(self, folder: Path, there: WriterState) -> None:
        self.cursor = Cursor(folder, there.last)
        self.digest = there.digest
        self.waiting: list[Line] = []

    def has_news(self) -> bool:
        """Read on, unless there are lines that still have to arrive. Raises OutOfStep."""
        self.waiting = self.waiting or self.cursor.read()
        return bool(self.waiting)


class LiveRun:
    """Follows one run directory.

    Args:
        client: the server, with a key.
        directory: the run directory.
        identity: who the run is. workspace: where it goes.
        connect, key: make a client of its own for files, which are sent beside the records.

    Attributes:
        records: how many records were sent by this one.
        url: the run's page.
    """

    def __init__(
        self, client: Client, directory: RunDir, identity: Identity, workspace: str, connect: Connect, key: str
    ) -> None:
        self._client = client
        self._directory = directory
        self._run_path = f"runs/{path_of(workspace, identity.project, identity.id)}"
        self._writers: dict[str, _Writer] = {}
        self._there: dict[str, WriterState] = {}
        self._journal_seen = 0
        self.records = 0
        self.url = ""
        project_path = f"projects/{path_of(workspace, identity.project)}"
        self.files = LiveFiles(directory, self._run_path, project_path, lambda: connect(client.origin, key))

    def begin(self) -> None:
        """Ask the server how far it is. Raises as the client does."""
        answer = self._client.json("PUT", self._run_path, json={"alive": True, "followed": True})
        with self._client.understood():
            self._there = {name: WriterState.from_json(state) for name, state in answer["writers"].items()}
            self.url = self._client.origin + str(answer["run"]["url"])

    def round(self) -> int:
        """Send what has been recorded since the last call; return how many records that were.

        Of each writer it is one request's worth: one that writes without a pause must not hold up the others, nor the
        files that its records name.

        Raises:
            OutOfStep, PermanentError: only a whole sync can go on. RetryableError: as the client says.
        """
        self._look_for_writers()
        before = self.records
        named = Named()
        try:
            for writer in self._writers.values():
                if writer.has_news():
                    self._send(writer, named)
        finally:
            self.files.offer(named)  # of the records that have arrived, whatever became of the rest
        return self.records - before

    @property
    def is_behind(self) -> bool:
        """Whether there is more to be sent at once."""
        return any(not writer.cursor.at_end for writer in self._writers.values())

    @property
    def caught_up(self) -> bool:
        """Whether all that was read has arrived."""
        return (
            not self.is_behind and not self.files.busy and not any(writer.waiting for writer in self._writers.values())
        )

    def _look_for_writers(self) -> None:
        """Take up the writers that have begun since; their folder is listed only when it has changed."""
        try:
            changed = self._directory.journal.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed == self._journal_seen:
            return
        for folder in writer_folders(self._directory.journal):
            if folder.name not in self._writers and is_writer(folder.name):
                self._writers[folder.name] = _Writer(folder, self._there.get(folder.name, EMPTY))
        # One that is made within the same tick of the clock changes nothing that could be seen.
        self._journal_seen = changed if time.time_ns() - changed > _CLOCK_NS else 0

    def _send(self, writer: _Writer, named: Named) -> None:
        lines = writer.waiting
        body = zstandard.ZstdCompressor(level=3).compress(b"".join(line.raw for line in lines))
        answer = self._client.json(
            "POST",
            f"{self._run_path}/records/{path_of(writer.cursor.folder.name)}",
            data=body,
            params={"first": lines[0].seq, "before": writer.digest, "followed": "true"},
        )
        if answer.get("next") != lines[-1].seq + 1 or not isinstance(answer.get("digest"), str):
            raise OutOfStep(f"{self._client.origin} is further than this copy of the run")
        writer.digest = str(answer["digest"])
        writer.waiting = []
        self.records += len(lines)
        for line in lines:
            named.add(line)


class LiveFiles:
    """Sends the files that new records name, on a thread of its own: a checkpoint must not hold up the metrics.

    Args:
        directory: the run directory.
        run_path, project_path: the addresses of the run and its project.
        connect: makes a client.

    Attributes:
        failed: why files could not be sent; a whole sync will try again.
    """

    def __init__(self, directory: RunDir, run_path: str, project_path: str, connect: Callable[[], Client]) -> None:
        self._directory = directory
        self._run_path = run_path
        self._project_path = project_path
        self._connect = connect
        self._waiting: list[Named] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.failed: Exception | None = None

    def offer(self, named: Named) -> None:
        """Send what these records name."""
        if not named.files and not named.artifacts:
            return
        with self._lock:
            self._waiting.append(named)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="flightlog-files", daemon=True)
                self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether files are on their way."""
        return self._thread is not None

    def _next(self) -> Named | None:
        with self._lock:
            if self._waiting and self.failed is None:
                return self._waiting.pop(0)
            self._thread = None
            return None

    def _work(self) -> None:
        try:
            with self._connect() as client:
                while (named := self._next()) is not None:
                    self._deliver(client, named)
        except Exception as error:  # whatever it is: who waits for this thread must hear of its end
            with self._lock:
                self.failed, self._thread = error, None

    def _deliver(self, client: Client, named: Named) -> None:
        patience = Patience(_UPLOAD_PATIENCE)
        call: Call = patience.call
        entries, ready, _ = named_files(self._directory, named)
        with Lanes(_LANES, self._connect, patience) as lanes:
            FileDelivery(
                client,
                lanes,
                self._directory,
                self._run_path,
                self._project_path,
                call,
                lambda size: None,
                verify=False,
            ).run(entries.values(), lambda path, facts: False)
        for _ in refused_versions(client, call, self._run_path, ready, entries):
            pass  # the whole sync at the end will say what is wrong with it
