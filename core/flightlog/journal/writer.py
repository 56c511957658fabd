"""The writer: a record is in the kernel's hands before `append` returns, and on the disk a second later.

One `os.write` per record on an O_APPEND descriptor: killing the process cannot lose what has been written, and no
other process's bytes come between. What a power cut could still take, the lines not yet covered by an fdatasync, also
stays in memory, because network file systems report a full disk only then; it is written again, in order, to a new
segment.

Three places hold lines: the segment; `_uncovered`, written but not yet covered by an fdatasync; `_backlog`, numbered
but not yet written, because the disk refused them. Nothing in here raises for an I/O error.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from pathlib import Path

from ..protocol.names import new_writer_name
from ..terminal import forget, say, warn_once
from . import record

SEGMENT_SIZE = 16 << 20
MEMORY_LIMIT = 64 << 20
RETRY_SECONDS = 0.5
_OPEN = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
_fdatasync = getattr(os, "fdatasync", os.fsync)


class Writer:
    """Appends records to `<journal>/<name>/000001.jsonl` and on. Any thread may append.

    Args:
        journal: the run's journal folder.
        memory_limit: bytes of lines kept for a disk that refuses them; beyond it new records are dropped and counted.
        segment_size: bytes after which a new segment is begun.
    """

    def __init__(self, journal: Path, *, memory_limit: int = MEMORY_LIMIT, segment_size: int = SEGMENT_SIZE) -> None:
        self.name = new_writer_name()
        self.folder = journal / self.name
        self.seq = 0
        self.bytes = 0
        self.last_append = 0.0
        self._memory_limit = memory_limit
        self._segment_size = segment_size
        self._lock = threading.Lock()
        self._fd = -1
        self._segment = 0
        self._size = 0
        self._retired: list[int] = []
        self._new_folders = False
        self._uncovered: list[bytes] = []
        self._uncovered_bytes = 0
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._dropped = 0
        self._dropped_since = 0.0
        self._retry_at = 0.0
        self._closed = False
        try:
            self._begin_segment()
        except OSError as error:
            self._refused(error)

    # -- appending ---------------------------------------------------------------------------------------------------

    def append(self, kind: str, body: bytes) -> bool:
        """Write one record; `body` is what `record.body` returns.

        Returns:
            False where it could not be kept at all (the memory for a refusing disk is full); it is counted then.
        """
        with self._lock:
            if self._backlog or self._dropped or self._fd < 0:
                return self._append_behind(kind, body)
            now = time.time()
            line = record.encode(self.seq + 1, now, kind, body)
            try:
                written = os.write(self._fd, line)
            except OSError as error:
                self.seq += 1
                self._enqueue(line)
                self._refused(error)
                return True
            except BaseException:
                self._reconcile(line)  # Ctrl-C may strike on either side of the write
                raise
            self.seq += 1
            self.last_append = now
            if written != len(line):
                self._undo_short_write()
                self._enqueue(line)
                self._refused(OSError("short write"))
                return True
            self._keep(line)
            if self._size >= self._segment_size:
                self._rotate()
            return True

    def _keep(self, line: bytes) -> None:
        size = len(line)
        self._size += size
        self.bytes += size
        self._uncovered.append(line)
        self._uncovered_bytes += size
        if self._uncovered_bytes > self._memory_limit:
            # The disk is slow, not refusing: these lines are written, only the second copy is given up.
            half = len(self._uncovered) // 2
            del self._uncovered[:half]
            self._uncovered_bytes = sum(map(len, self._uncovered))

    def _append_behind(self, kind: str, body: bytes) -> bool:
        """Append while the disk refuses: behind the lines that wait already."""
        now = time.time()
        if now >= self._retry_at and self._drain():
            written = True
        else:
            written = False
        if self._dropped or self._backlog_bytes + self._uncovered_bytes > self._memory_limit:
            self._dropped_since = self._dropped_since or now
            self._dropped += 1
            return False
        line = record.encode(self.seq + 1, now, kind, body)
        self.seq += 1
        self.last_append = now
        self._enqueue(line)
        if written:
            self._drain()
        return True

    def _enqueue(self, line: bytes) -> None:
        self._backlog.append(line)
        self._backlog_bytes += len(line)

    # -- when the disk refuses -----------------------------------------------------------------------------------------

    def _refused(self, error: OSError) -> None:
        self._retry_at = time.time() + RETRY_SECONDS
        warn_once(
            f"disk {self.folder}",
            f"{self.folder} cannot be written ({error.strerror or error}). Training goes on; records wait in memory "
            f"(up to {self._memory_limit >> 20} MiB) and are written as soon as it can be.",
        )

    def _undo_short_write(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._abandon_segment()  # a new segment, so that the torn half line cannot swallow the next record

    def _reconcile(self, line: bytes) -> None:
        """After an exception around a write: did the line get there?"""
        try:
            size = os.fstat(self._fd).st_size
        except OSError:
            return
        if size == self._size + len(line):
            self.seq += 1
            self._keep(line)
        elif size != self._size:
            self._undo_short_write()

    def _drain(self) -> bool:
        """Write what waits. Returns True when nothing waits any more."""
        try:
            if self._fd < 0:
                self._begin_segment()
            while self._backlog:
                line = self._backlog[0]
                written = os.write(self._fd, line)
                if written != len(line):
                    self._undo_short_write()
                    raise OSError("short write")
                self._backlog.popleft()
                self._backlog_bytes -= len(line)
                self._keep(line)
        except OSError as error:
            self._refused(error)
            return False
        if self._dropped:
            gap = b'{"dropped":%d,"since":%.6f,"until":%.6f}' % (self._dropped, self._dropped_since, time.time())
            self._dropped, self._dropped_since = 0, 0.0
            self.seq += 1
            self._enqueue(record.encode(self.seq, time.time(), "gap", record.body(gap)))
            return self._drain()
        forget(f"disk {self.folder}")
        say(f"{self.folder} can be written again; the records that waited are in the journal.")
        return True

    # -- segments ------------------------------------------------------------------------------------------------------

    def _begin_segment(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._segment + 1:06d}.jsonl"
        self._fd = os.open(path, _OPEN, 0o644)
        self._segment += 1
        self._size = 0
        self._new_folders = True

    def _rotate(self) -> None:
        """Begin the next segment; the old one is synced and closed by the housekeeper, not on the caller's time."""
        old = self._fd
        try:
            self._begin_segment()
        except OSError:
            return  # this segment grows on, and the next record tries again
        self._retired.append(old)

    def _abandon_segment(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = -1

    # -- keeping house -------------------------------------------------------------------------------------------------

    def sync(self) -> bool:
        """fdatasync what has been written, and try again what the disk refused. Returns True when all is on disk."""
        with self._lock:
            if self._backlog or self._dropped or self._fd < 0:
                self._drain()
            covered = len(self._uncovered)
            if not covered and not self._retired:
                return not self._backlog and not self._dropped
            current = os.dup(self._fd) if self._fd >= 0 else -1
            descriptors = [*self._retired, *([current] if current >= 0 else [])]
            self._retired = []
            folder_is_new, self._new_folders = self._new_folders, False
            uncovered = self._uncovered
            self._uncovered = []
            taken_bytes, self._uncovered_bytes = self._uncovered_bytes, 0
        failure = self._flush(descriptors, folder_is_new)
        with self._lock:
            if failure is None and self._vanished():
                failure = OSError("the folder was removed")
            if failure is None:
                return not self._backlog and not self._dropped
            # The kernel may have thrown the pages away: write everything since the last success again, in a new file.
            self._backlog.extendleft(reversed(uncovered + self._uncovered))
            self._backlog_bytes += taken_bytes + self._uncovered_bytes
            self._uncovered, self._uncovered_bytes = [], 0
            self._abandon_segment()
            self._refused(failure)
            return False

    def _flush(self, descriptors: list[int], folder_is_new: bool) -> OSError | None:
        failure: OSError | None = None
        for fd in descriptors:
            try:
                _fdatasync(fd)
            except OSError as error:
                failure = error
            finally:
                with contextlib.suppress(OSError):
                    os.close(fd)
        if folder_is_new:
            with contextlib.suppress(
                OSError
            ):  # some file systems refuse to sync a folder; the data is synced all the same
                fsync_folder(self.folder)
                fsync_folder(self.folder.parent)
        return failure

    def _vanished(self) -> bool:
        try:
            return self._fd >= 0 and os.fstat(self._fd).st_nlink == 0
        except OSError:
            return True

    def close(self) -> bool:
        """Write and sync all that can be, then close. Returns True when everything is on disk."""
        complete = self.sync()
        if not complete:
            complete = self.sync()
        with self._lock:
            self._closed = True
            if self._fd >= 0:
                self._abandon_segment()
            waiting = len(self._backlog) + self._dropped
        if waiting:
            say(f"warning: {waiting:,} records could not be written to {self.folder} and are lost with this process.")
        return complete

    def abandon(self) -> None:
        """Forget everything without writing: for a forked child, whose copy of this writer belongs to its parent."""
        for fd in (*self._retired, self._fd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._fd = -1
        self._backlog.clear()
        self._uncovered.clear()


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
