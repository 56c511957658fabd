"""The writer: a record is in the kernel's hands before `append` returns, and on the disk a second later.

One `os.write` per record on an O_APPEND descriptor: killing the process cannot lose what has been written, and no
other process's bytes come between. What a power cut could still take, the lines not yet covered by an fdatasync, also
stays in memory, because network file systems report a full disk only then; it is written again, in order, to a new
segment.

Three places hold lines: the segment; `_uncovered`, written but not yet covered by an fdatasync; `_backlog`, numbered
but not yet written, because the disk refused them. (With `buffered`, a fourth: `_buffer`, 64 KiB or a second's worth
that a killed process loses.) Nothing in here raises for an I/O error.

A folder that is removed under the writer is made anew, with what the removed segment held: the open descriptor still
has it. One that will not be writable again, a disk mounted read-only say, can be left for another with `move_to`.

A signal handler, or a `__del__`, may log in the very midst of an append of its own thread. Its record waits until that
append has ended, an instant later: the lock is reentrant so that this can be seen, not so that two appends mingle.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from ..process import tell_of_forks
from ..protocol.names import new_writer_name
from ..terminal import forget, say, warn_once
from . import record
from .record import encode_log

SEGMENT_SIZE = 16 << 20
MEMORY_LIMIT = 64 << 20
RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 30.0
BUFFER = 64 << 10
PRESSURE = 4 << 20
# Readable, too: what a segment held must be had again when its file is removed.
_OPEN = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
_fdatasync = getattr(os, "fdatasync", os.fsync)
# What no waiting will mend, unlike a full disk; any other error is given half a minute.
_HOPELESS = frozenset(
    (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.ENODEV, errno.ENXIO, errno.ENOTCONN)
    + ((errno.ESTALE,) if hasattr(errno, "ESTALE") else ())
)
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE))
_HOPE_SECONDS = 30.0
# What a file system that has no fsync at all answers, always; that is no refusal.
_CANNOT_SYNC = frozenset((errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP))


class Writer:
    """Appends records to `<journal>/<name>/000001.jsonl` and on. Any thread may append.

    Args:
        journal: the run's journal folder.
        memory_limit: bytes of lines kept for a disk that refuses them; beyond it new records are dropped and counted.
        segment_size: bytes after which a new segment is begun.
        next_step: the step of the first log record that names none.
        buffered: write log records 64 KiB at a time, or every second: faster, and lost with a process that is killed.

    Attributes:
        inherited: this is a forked child's copy of its parent's writer; it must not write.
        restarts: how often the folder was removed and made anew.
        on_pressure: called when so much waits for an fdatasync that it should not wait for its time.
    """

    def __init__(
        self,
        journal: Path,
        *,
        memory_limit: int = MEMORY_LIMIT,
        segment_size: int = SEGMENT_SIZE,
        next_step: int = 0,
        buffered: bool = False,
    ) -> None:
        self.name = new_writer_name()
        self.folder = journal / self.name
        self.seq = 0
        self.next_step = next_step
        self.last_append = 0.0
        self.inherited = False
        self.restarts = 0
        self._buffered = buffered
        self._buffer: list[bytes] = []
        self._buffer_bytes = 0
        self._memory_limit = memory_limit
        self._pressure = min(PRESSURE, memory_limit)
        self.on_pressure: Callable[[], object] = _nothing
        self._segment_size = segment_size
        self._lock = threading.RLock()
        self._fd = -1
        self._segment = 0
        self._size = 0
        self._earlier_bytes = 0
        self._in_flight: tuple[bytes, int, int] | None = None
        self._interrupting: deque[tuple[str, bytes]] = deque()
        self._retired: list[int] = []
        self._new_folders = False
        self._uncovered: list[bytes] = []
        self._uncovered_bytes = 0
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._dropped = 0
        self._dropped_since = 0.0
        self._retry_at = 0.0
        self._refusing = False
        self._refused_since = 0.0
        self._hopeless = False
        self._failed_syncs = 0
        self._afterwards: deque[Callable[[], object]] = deque()
        self._closed = False
        tell_of_forks(self)
        try:
            self._begin_segment()
        except OSError as error:
            self._refused(error)

    # -- appending ---------------------------------------------------------------------------------------------------

    @property
    def total_bytes(self) -> int:
        """What has been written so far, over all segments."""
        return self._earlier_bytes + self._size

    def take_step(self, step: int | None, commit: bool) -> int:
        """Return the step of the next log record, and move the counter on.

        Args:
            step: the step it names, None for the counter's.
            commit: False leaves the counter where it is, or where `step` puts it.
        """
        with self._lock:
            at = self.next_step if step is None else step
            after = at + 1 if commit else at
            if after > self.next_step:
                self.next_step = after
            return at

    def append_log(self, step: int | None, commit: bool, data: Mapping[str, Any]) -> bool | None:
        """Write one log record of plain finite numbers: `take_step` and `append` in one, for speed.

        Returns:
            As `append`; None where they are no such numbers, or make a line too long: then nothing has happened.
        """
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined]  # this thread was interrupted in the midst of a write
            body = self._log_body(step, commit, data)
            return None if body is None else self.append("log", body)
        try:
            with lock:
                if self._fd < 0 or self._interrupting or self._backlog or self._dropped or self._in_flight:
                    self._append_interrupting()
                    body = self._log_body(step, commit, data)
                    return None if body is None else self._append("log", body)
                at = self.next_step if step is None else step
                seq = self.seq + 1
                now = time.time()
                try:
                    line = encode_log(seq, now, at, data)
                    total = sum(data.values())  # texts, lists and None have none
                except Exception:  # whatever a value's own code may raise; what is odd about it is dealt with elsewhere
                    return None
                if total - total != 0 or len(line) > record.MAX_LINE:  # it is not, with NaN or an infinity among them
                    return None
                if at >= self.next_step:
                    self.next_step = at + 1 if commit else at
                if self._buffered:
                    self._keep(line, now)
                    return True
                try:  # what `_write` does, without the call
                    self._in_flight = (line, self._size, seq)
                    if os.write(self._fd, line) != len(line):
                        raise _half_a_line()
                    self.seq = seq
                    self._size += len(line)
                    self._uncovered.append(line)
                    self._uncovered_bytes += len(line)
                    self._in_flight = None
                except BaseException as error:
                    self._after_failure(error, line, now)
                self.last_append = now
                if self._uncovered_bytes > self._pressure:
                    self._press()
                if self._size >= self._segment_size:
                    self._rotate()
                return True
        finally:
            if self._interrupting or self._afterwards:
                self._catch_up()

    def _log_body(self, step: int | None, commit: bool, data: Mapping[str, Any]) -> bytes | None:
        try:
            encoded = orjson.dumps(data)
            total = sum(data.values())
        except Exception:
            return None
        if total - total != 0 or len(encoded) > record.MAX_LINE - 4096:
            return None
        return record.body(encoded, self.take_step(step, commit))

    def append(self, kind: str, body: bytes) -> bool:
        """Write one record; `body` is what `record.body` returns.

        Returns:
            False where it could not be kept at all: the memory for a refusing disk is full (it is counted then), or the
            writer is closed.
        """
        if self._is_mine():
            self._interrupting.append((kind, body))
            return True
        try:
            with self._lock:
                if self._interrupting:
                    self._append_interrupting()
                return self._append(kind, body)
        finally:
            if self._interrupting or self._afterwards:
                self._catch_up()

    def _append(self, kind: str, body: bytes) -> bool:
        if self._in_flight is not None:
            self._settle()
        if self._buffer:
            self._flush_buffer()
        if self._backlog or self._dropped or self._fd < 0:
            return not self._closed and self._append_behind(kind, body)
        now = time.time()
        line = record.encode(self.seq + 1, now, kind, body)
        try:
            self._write(line, self.seq + 1)
        except BaseException as error:
            self._after_failure(error, line, now)
            return True
        self.last_append = now
        if self._size >= self._segment_size:
            self._rotate()
        return True

    def _keep(self, line: bytes, now: float) -> None:
        """Keep a line in the buffer, and write that when it is full."""
        self.seq += 1
        self.last_append = now
        self._buffer.append(line)
        self._buffer_bytes += len(line)
        if self._buffer_bytes >= BUFFER:
            self._flush_buffer()

    def _flush_buffer(self) -> None:
        if not self._buffer:
            return
        lines = b"".join(self._buffer)
        self._buffer, self._buffer_bytes = [], 0
        try:
            if self._backlog or self._fd < 0:
                self._enqueue(lines)
                return
            self._write(lines, self.seq)
        except BaseException as error:
            if not self._settle():
                self._enqueue(lines)
            if not _is_refusal(error):
                raise
            self._refused(error)
        if self._size >= self._segment_size:
            self._rotate()

    def _after_failure(self, error: BaseException, line: bytes, now: float) -> None:
        """An append failed: what the disk refused waits in memory; any other exception, Ctrl-C say, goes on its way."""
        there = self._settle()
        if not _is_refusal(error):
            raise error
        if not there:
            self.seq += 1
            self._enqueue(line)
        self.last_append = now
        if self._is_at_limit(len(line)):
            self._drain()
        else:
            self._refused(error)

    def _is_at_limit(self, size: int) -> bool:
        """Tell whether it is this segment that may not grow (RLIMIT_FSIZE), and leave it then: the next one may."""
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit == resource.RLIM_INFINITY or not self._size or self._size + size <= limit:
            return False
        if self._fd >= 0:
            self._retired.append(self._fd)
            self._fd = -1
        return True

    def _write(self, line: bytes, seq: int) -> None:
        """Write a line and take note of it. After an exception, `_settle` must make the books fit what happened."""
        self._in_flight = (line, self._size, seq)
        if os.write(self._fd, line) != len(line):
            raise _half_a_line()
        self.seq = seq
        self._size += len(line)
        self._uncovered.append(line)
        self._uncovered_bytes += len(line)
        self._in_flight = None
        if self._uncovered_bytes > self._pressure:
            self._press()

    def _press(self) -> None:
        """Much has been written since the last fdatasync began: ask for the next one before its time."""
        if self._uncovered_bytes > self._memory_limit:
            # The disk is slow, not refusing: these lines are written, only the second copy is given up.
            del self._uncovered[: len(self._uncovered) // 2]
            self._uncovered_bytes = sum(map(len, self._uncovered))
        self._pressure = min(self._uncovered_bytes + PRESSURE, self._memory_limit)
        self.on_pressure()

    def _settle(self) -> bool:
        """After an exception in the midst of a write: did the line get there? Half a line is undone.

        The disk may have refused, or Ctrl-C or a signal handler's exception may have struck anywhere around the write.
        """
        if self._in_flight is None:
            return True
        line, start, seq = self._in_flight
        try:
            size = os.fstat(self._fd).st_size
        except OSError:
            self._fd = -1  # somebody closed it; the number may be another file's by now
            size = start
        there = size == start + len(line)
        if not there and size != start:
            try:
                os.ftruncate(self._fd, start)
            except OSError:
                self._retired.append(self._fd)
                self._fd = -1  # a new segment, so that a torn half line cannot swallow the next record
        if there:
            self.seq, self._size = seq, start + len(line)
            if not self._uncovered or self._uncovered[-1] is not line:
                self._uncovered.append(line)
        self._uncovered_bytes = sum(map(len, self._uncovered))
        self._in_flight = None
        return there

    def _is_mine(self) -> bool:
        """Tell whether this very thread is in the midst of using the writer, and has been interrupted."""
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]

    def when_free(self, action: Callable[[], object]) -> None:
        """Call a function now; or, from within an interrupted append of this very thread, when that has ended."""
        if self._is_mine():
            self._afterwards.append(action)
        else:
            action()

    def _catch_up(self) -> None:
        """Do what was asked for while this thread was in the midst of using the writer."""
        while self._interrupting:
            with self._lock:
                self._append_interrupting()
        while self._afterwards:
            self._afterwards.popleft()()

    def _append_interrupting(self) -> None:
        while self._interrupting:
            self._append(*self._interrupting.popleft())

    def _append_behind(self, kind: str, body: bytes) -> bool:
        """Append while the disk refuses: behind the lines that wait already."""
        now = time.time()
        written = time.monotonic() >= self._retry_at and self._drain()
        if self._dropped or self._backlog_bytes + self._uncovered_bytes > self._memory_limit:
            self._dropped_since = self._dropped_since or now
            self._dropped += 1
            return False
        self.seq += 1
        self.last_append = now
        self._enqueue(record.encode(self.seq, now, kind, body))
        if written:
            self._drain()
        return True

    def _enqueue(self, line: bytes) -> None:
        self._backlog.append(line)
        self._backlog_bytes += len(line)

    # -- when the disk refuses -----------------------------------------------------------------------------------------

    def _refused(self, error: BaseException) -> None:
        now = time.monotonic()
        self._refused_since = self._refused_since if self._refusing else now
        self._refusing = True
        number = getattr(error, "errno", None)
        self._hopeless = number in _HOPELESS or (number not in _FULL and now - self._refused_since > _HOPE_SECONDS)
        self._retry_at = now + min(RETRY_SECONDS * 2**self._failed_syncs, MAX_RETRY_SECONDS)
        warn_once(
            f"disk {self.folder}",
            f"{self.folder} cannot be written ({getattr(error, 'strerror', None) or error}). Training goes on; records "
            f"wait in memory (up to {self._memory_limit >> 20} MiB) and are written as soon as it can be.",
        )

    @property
    def waiting(self) -> bool:
        """Whether records wait for a disk that refuses them."""
        return bool(self._backlog or self._dropped)

    @property
    def hopeless(self) -> bool:
        """Whether the disk refuses in a way that no waiting will mend."""
        return self._hopeless and self._refusing and not self._closed

    def move_to(self, journal: Path, first: Callable[[str, int], bytes]) -> None:
        """Go on as a new writer in another journal, beginning with what has not certainly reached the old one.

        Args:
            journal: the other journal folder.
            first: called with this writer's old name and the last seq that is certainly on its disk; returns the body
                of the new writer's first record.
        """
        with self._lock:
            if self._in_flight is not None:
                self._settle()
            self._flush_buffer()
            lines = b"".join([*self._uncovered, *self._backlog]).splitlines(keepends=True)
            body = first(self.name, self.seq - len(lines))
            self._leave_segment()
            self.name = new_writer_name()
            self.folder = journal / self.name
            self.seq = 0
            self._uncovered, self._uncovered_bytes = [], 0
            self._backlog.clear()
            self._backlog_bytes = 0
            self._refusing = self._hopeless = False
            self._renumber(time.time(), "run", body)
            for line in lines:
                head = record.HEAD.match(line)
                if head is not None:
                    self._renumber(float(head[2]), head[3].decode(), line[head.end() + 1 : -record.TAIL - 1])
            self._drain()

    def _renumber(self, t: float, kind: str, body: bytes) -> None:
        self.seq += 1
        self._enqueue(record.encode(self.seq, t, kind, body))

    def _leave_segment(self) -> None:
        """Close the segment for good; the next one is another writer's first."""
        self._abandon_segment()
        for fd in self._retired:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._retired = []
        self._segment = self._size = self._earlier_bytes = 0

    def _drain(self) -> bool:
        """Write what waits. Returns True when nothing waits any more."""
        try:
            if self._in_flight is not None:
                self._settle()
            if self._fd < 0:
                self._begin_segment()
            while self._backlog:
                line = self._backlog[0]
                self._write(line, self.seq)
                self._backlog.popleft()
                self._backlog_bytes -= len(line)
        except BaseException as error:
            if self._in_flight is not None and self._settle():
                self._backlog_bytes -= len(self._backlog.popleft())
            if not _is_refusal(error):
                raise
            if self._backlog and self._is_at_limit(len(self._backlog[0])):
                return self._drain()
            self._refused(error)
            return False
        if self._dropped:
            gap = b'{"dropped":%d,"since":%.6f,"until":%.6f}' % (self._dropped, self._dropped_since, time.time())
            self._dropped, self._dropped_since = 0, 0.0
            self.seq += 1
            self._enqueue(record.encode(self.seq, time.time(), "gap", record.body(gap)))
            return self._drain()
        if self._refusing:
            self._refusing = self._hopeless = False
            forget(f"disk {self.folder}")
            say(f"{self.folder} can be written again; the records that waited are in the journal.")
        return True

    # -- segments ------------------------------------------------------------------------------------------------------

    def _begin_segment(self) -> None:
        if not self.folder.is_dir() and not (self._fd >= 0 and self.follow()):
            self.folder.mkdir(parents=True, exist_ok=True)
        number = self._segment + 1
        while True:
            try:
                self._fd = _above_standard(os.open(self.folder / f"{number:06d}.jsonl", _OPEN, 0o644))
                break
            except FileExistsError:  # begun by this writer and then interrupted, or put there by somebody
                number += 1
        self._segment = number
        self._earlier_bytes += self._size
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

    def sync(self, *, patient: bool = True) -> bool:
        """fdatasync what has been written, and try again what the disk refused. Returns True when all is on disk.

        Args:
            patient: leave a disk that refuses alone until its time has come; False tries at once.
        """
        if self._is_mine():
            return False
        try:
            return self._sync(patient)
        finally:
            if self._interrupting or self._afterwards:
                self._catch_up()

    def _sync(self, patient: bool) -> bool:
        with self._lock:
            self._append_interrupting()
            self._flush_buffer()
            if self._closed:
                return not self._backlog and not self._dropped
            if (self._backlog or self._dropped or self._fd < 0) and not (patient and time.monotonic() < self._retry_at):
                self._drain()
            covered = len(self._uncovered)
            if not covered and not self._retired:
                return not self._backlog and not self._dropped
            descriptors = [*self._retired, *self._second_descriptor()]
            self._retired = []
            folder_is_new, self._new_folders = self._new_folders, False
            uncovered = self._uncovered
            self._uncovered = []
            taken_bytes, self._uncovered_bytes = self._uncovered_bytes, 0
            self._pressure = min(PRESSURE, self._memory_limit)
        failure = self._flush(descriptors, folder_is_new)
        with self._lock:
            if self._vanished():
                self._restart(uncovered)
                return self._drain()
            if failure is None:
                self._failed_syncs = 0
                return not self._backlog and not self._dropped
            # The kernel may have thrown the pages away: write everything since the last success again, in a new file.
            self._backlog.extendleft(reversed(uncovered + self._uncovered))
            self._backlog_bytes += taken_bytes + self._uncovered_bytes
            self._uncovered, self._uncovered_bytes = [], 0
            self._abandon_segment()
            self._refused(failure)
            self._failed_syncs += 1  # a disk that goes on refusing is given the same lines again ever more rarely
            return False

    def _second_descriptor(self) -> list[int]:
        """Return a descriptor of the segment to sync while others go on writing; none where there are no more."""
        if self._fd < 0:
            return []
        try:
            return [os.dup(self._fd)]
        except OSError:
            with contextlib.suppress(OSError):
                _fdatasync(self._fd)  # others wait for it, then; better than not at all
            return []

    def restart(self) -> None:
        """Write anew what the segment held: its folder is not to be found any more."""
        with self._lock:
            if self._fd >= 0 and not self._closed:
                self._flush_buffer()
                self._restart(self._uncovered)
                self._drain()

    def _restart(self, uncovered: list[bytes]) -> None:
        """The segment's file was removed: all that it held, which its descriptor still has, is written anew."""
        held = self._held() or b"".join(uncovered + self._uncovered)
        head = record.HEAD.match(held)
        gone = int(head[1]) - 1 if head else self.seq
        self._abandon_segment()
        self._uncovered, self._uncovered_bytes = [], 0
        self._backlog.appendleft(held)
        self._backlog_bytes += len(held)
        self.restarts += 1
        lost = f"; {gone:,} earlier records are gone." if gone else ": no record is missing."
        say(f"warning: {self.folder} was removed. It is made anew, with what its newest segment held{lost}")

    def _held(self) -> bytes:
        """Return the whole lines of the segment, read from its descriptor."""
        parts, at = [], 0
        with contextlib.suppress(OSError):
            while part := os.pread(self._fd, 1 << 20, at):
                parts.append(part)
                at += len(part)
        whole = b"".join(parts)
        return whole[: whole.rfind(b"\n") + 1]

    def follow(self) -> Path | None:
        """Find the folder again where it was moved with all above it. Returns its new place, None where it is gone."""
        with self._lock, contextlib.suppress(OSError):
            place = Path(os.readlink(f"/proc/self/fd/{self._fd}")).parent
            if place.name == self.name and place.is_dir():
                self.folder = place
                return place
        return None

    def _flush(self, descriptors: list[int], folder_is_new: bool) -> OSError | None:
        failure: OSError | None = None
        for fd in descriptors:
            try:
                _fdatasync(fd)
            except OSError as error:
                if error.errno not in _CANNOT_SYNC:
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
        if self._is_mine():
            self._afterwards.append(self.close)
            return False
        complete = self.sync(patient=False) or self.sync(patient=False)
        with self._lock:
            if self._closed:
                return complete
            self._closed = True
            if self._fd >= 0:
                self._abandon_segment()
            waiting = sum(part.count(b"\n") for part in self._backlog) + self._dropped
        if waiting:
            say(f"warning: {waiting:,} records could not be written to {self.folder} and are lost with this process.")
        return complete

    def after_fork(self) -> None:
        self.inherited = True

    def abandon(self) -> None:
        """Forget everything without writing: for a forked child, whose copy of this writer belongs to its parent."""
        fd, self._fd, self._closed = self._fd, -1, True
        with contextlib.suppress(OSError):
            # A child that closed all descriptors, as daemons do, may have another file under this number by now.
            if fd >= 0 and os.path.samestat(os.fstat(fd), (self.folder / f"{self._segment:06d}.jsonl").stat()):
                os.close(fd)
        self._backlog.clear()
        self._uncovered.clear()
        self._buffer.clear()


def _above_standard(fd: int) -> int:
    """Return a descriptor that no print() of a program whose standard streams are closed goes to."""
    if fd > 2:
        return fd
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _nothing() -> None:
    pass


def _half_a_line() -> OSError:
    """Return the error that a disk reports, by a short write, when it is full."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _is_refusal(error: BaseException) -> bool:
    """Tell an I/O error from an OSError that a signal handler raised, such as a TimeoutError: that has no number."""
    return isinstance(error, OSError) and error.errno is not None


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
