"""The writer: one write per record, segments, and a disk that refuses in every way a disk can."""

from __future__ import annotations

import errno
import gc
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import FrameType

import orjson
import pytest

from flightlog.journal import record, writer
from flightlog.journal.housekeeper import Housekeeper
from flightlog.journal.reader import WriterReport, read_writer, segments
from flightlog.journal.record import Record
from flightlog.journal.writer import Writer


def body(n: int, padding: int = 0) -> bytes:
    return record.body(orjson.dumps({"n": n, "pad": "x" * padding}), n)


def read(w: Writer) -> tuple[list[Record], WriterReport]:
    report = WriterReport(w.name)
    return [line.record() for line in read_writer(w.folder, report)], report


def numbers(records: list[Record]) -> list[int]:
    return [r.data["n"] for r in records if "n" in r.data]


def assert_whole(w: Writer, count: int) -> WriterReport:
    """All of 0..count-1 are there, once, in order, under seqs without holes."""
    records, report = read(w)
    assert numbers(records) == list(range(count))
    assert [r.seq for r in records] == list(range(1, len(records) + 1))
    assert not report.missing and not report.damage and not report.torn
    return report


@pytest.fixture
def w(tmp_path: Path) -> Iterator[Writer]:
    """A writer with small segments and a small memory, closed after the test."""
    made = Writer(tmp_path / "journal", segment_size=4000, memory_limit=20_000)
    yield made
    made.close()


class Disk:
    """The system calls of the writer, which a test lets fail: the lowest edge there is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: list[int] = []
        self.syncs = 0
        self.on_write: Callable[[int, bytes], int | None] | None = None
        self.on_sync: Callable[[int], None] | None = None
        self._write, self._sync = os.write, writer._fdatasync
        monkeypatch.setattr(os, "write", self._writing)
        monkeypatch.setattr(writer, "_fdatasync", self._syncing)

    def _writing(self, fd: int, data: bytes) -> int:
        if not bytes(data).startswith(b'{"seq"'):
            return self._write(fd, data)
        if self.on_write is not None:
            done = self.on_write(fd, data)
            if done is not None:
                return done
        self.writes.append(len(data))
        return self._write(fd, data)

    def _syncing(self, fd: int) -> None:
        self.syncs += 1
        if self.on_sync is not None:
            self.on_sync(fd)
        self._sync(fd)

    def heal(self) -> None:
        self.on_write = self.on_sync = None

    def refuse(self, number: int) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return fail


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


# -- writing -----------------------------------------------------------------------------------------------------------


def test_one_write_per_record_before_append_returns(w: Writer, disk: Disk) -> None:
    """Each append is one os.write of the whole line, and the file has grown by it when append returns."""
    for n in range(20):
        before = sum(p.stat().st_size for p in segments(w.folder))
        assert w.append("log", body(n))
        assert len(disk.writes) == n + 1
        assert sum(p.stat().st_size for p in segments(w.folder)) == before + disk.writes[-1]
    assert_whole(w, 20)


def test_segments_rotate_and_read_as_one(w: Writer) -> None:
    """Past its size a segment is followed by the next; none is much larger, and nothing is lost between."""
    for n in range(300):
        w.append("log", body(n))
        if n % 50 == 0:
            w.sync()
    paths = segments(w.folder)
    assert [p.name for p in paths] == [f"{i:06d}.jsonl" for i in range(1, len(paths) + 1)] and len(paths) > 5
    assert all(4000 <= p.stat().st_size < 4200 for p in paths[:-1])
    assert w.total_bytes == sum(p.stat().st_size for p in paths)
    assert w.sync() and not w._retired
    assert_whole(w, 300)


def test_descriptors_do_not_pile_up(w: Writer) -> None:
    """Rotated segments are closed by the next sync."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for n in range(500):
        w.append("log", body(n))
    w.sync()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_many_threads_append_without_loss(w: Writer) -> None:
    """Eight threads with the housekeeper beside them: every record once, seqs without holes, each thread's in order."""

    def sync() -> None:
        w.sync()

    keeper = Housekeeper(sync, interval=0.002)

    def work(thread: int) -> None:
        for n in range(250):
            w.append("log", body(thread * 1000 + n))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keeper.stop()
    records, report = read(w)
    assert [r.seq for r in records] == list(range(1, 2001)) and not report.damage
    for i in range(8):
        assert [n for n in numbers(records) if n // 1000 == i] == [i * 1000 + n for n in range(250)]


def test_a_closed_writer_takes_nothing_and_opens_nothing(w: Writer) -> None:
    """After close an append says False instead of beginning a segment that nobody would sync."""
    w.append("log", body(0))
    assert w.close()
    assert w.append("log", body(1)) is False
    assert w.close()
    assert len(segments(w.folder)) == 1
    assert_whole(w, 1)


# -- a disk that refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE])
def test_records_wait_while_writes_fail(
    w: Writer, disk: Disk, number: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written is written in order once it can be; one warning, one all-clear."""
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.0)
    w.append("log", body(0))
    disk.on_write = disk.refuse(number)
    assert all(w.append("log", body(n)) for n in range(1, 30))
    assert len(read(w)[0]) == 1
    disk.heal()
    assert w.append("log", body(30))
    assert_whole(w, 31)
    said = capfd.readouterr().err
    assert said.count("cannot be written") == 1 and os.strerror(number) in said
    assert said.count("can be written again") == 1


def test_a_refusing_disk_is_not_tried_at_every_call(w: Writer, disk: Disk) -> None:
    """Within half a second of a refusal appends cost no system call; the next sync after it tries again."""
    tried = 0

    def fail(fd: int, data: bytes) -> int | None:
        nonlocal tried
        tried += 1
        raise OSError(errno.ENOSPC, "full")

    disk.on_write = fail
    for n in range(50):
        w.append("log", body(n))
    assert tried == 1
    disk.heal()
    w._retry_at = 0.0
    assert w.sync()
    assert_whole(w, 50)


def test_a_short_write_is_undone(w: Writer, disk: Disk) -> None:
    """Half a line is cut off again, so that no torn line stands between records."""

    def half(fd: int, data: bytes) -> int:
        return disk._write(fd, data[: len(data) // 2])

    w.append("log", body(0))
    disk.on_write = half
    w.append("log", body(1))
    assert segments(w.folder)[-1].read_bytes().endswith(b"\n")
    disk.heal()
    w.append("log", body(2))
    w.sync(patient=False)
    assert_whole(w, 3)


def test_a_short_write_that_cannot_be_undone_ends_the_segment(
    w: Writer, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ftruncate fails too, the next record goes to a new segment and the torn half swallows nothing."""
    w.append("log", body(0))
    disk.on_write = lambda fd, data: disk._write(fd, data[:20])
    with monkeypatch.context() as broken:
        broken.setattr(os, "ftruncate", disk.refuse(errno.EIO))
        w.append("log", body(1))
    disk.heal()
    assert w.sync(patient=False)
    records, report = read(w)
    assert numbers(records) == [0, 1] and not report.missing and len(report.damage) == 1
    assert len(segments(w.folder)) == 2


def test_what_a_failed_fdatasync_took_is_written_again(w: Writer, disk: Disk) -> None:
    """NFS reports a full disk at fdatasync, and the pages are gone: the lines come again in a new segment."""
    for n in range(5):
        w.append("log", body(n))
    assert w.sync()
    for n in range(5, 12):
        w.append("log", body(n))

    def lose_pages(fd: int) -> None:
        path = segments(w.folder)[0]
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:5]) + b"\0" * sum(map(len, lines[5:])))
        raise OSError(errno.ENOSPC, "No space left on device")

    disk.on_sync = lose_pages
    assert w.sync() is False
    w.append("log", body(12))
    disk.heal()
    assert w.sync(patient=False)
    records, report = read(w)
    assert numbers(records) == list(range(13)) and not report.missing
    assert len(segments(w.folder)) == 2


def test_a_disk_that_never_syncs_is_tried_ever_more_rarely(w: Writer, disk: Disk) -> None:
    """Each failed sync doubles the wait, up to half a minute, so that the same lines do not fill the disk."""
    disk.on_sync = disk.refuse(errno.EIO)
    waits = []
    for n in range(10):
        w.append("log", body(n))
        w.sync(patient=False)
        waits.append(w._retry_at - time.monotonic())
    assert waits[-1] > 20 and all(b > a * 1.5 for a, b in pairwise(waits[:6]))
    made = len(segments(w.folder))
    assert all(not w.sync() for _ in range(5)) and len(segments(w.folder)) == made
    disk.heal()
    assert w.sync(patient=False)
    assert_whole(w, 10)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_fsync_is_no_full_disk(
    w: Writer, disk: Disk, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Some mounts cannot fsync at all: nothing is written twice and nobody is warned every second."""
    disk.on_sync = disk.refuse(number)
    for n in range(3):
        w.append("log", body(n))
        assert w.sync()
    assert len(segments(w.folder)) == 1 and capfd.readouterr().err == ""
    assert_whole(w, 3)


def test_beyond_its_memory_it_counts_what_it_drops(w: Writer, disk: Disk) -> None:
    """With the memory full records are dropped, a gap record says how many and when, and seqs have no holes."""
    disk.on_write = disk.refuse(errno.ENOSPC)
    kept = [w.append("log", body(n, padding=500)) for n in range(100)]
    dropped = kept.count(False)
    assert 0 < dropped < 100 and kept == [True] * (100 - dropped) + [False] * dropped
    disk.heal()
    w._retry_at = 0.0
    assert w.append("log", body(100))
    records, report = read(w)
    assert not report.missing and not report.damage
    gaps = [r for r in records if r.kind == "gap"]
    assert [g.data["dropped"] for g in gaps] == [dropped]
    assert gaps[0].data["since"] <= gaps[0].data["until"]
    assert numbers(records) == [*range(100 - dropped), 100]


def test_a_slow_disk_costs_only_the_second_copy(w: Writer) -> None:
    """Without any sync the memory stays bounded, and everything is in the file all the same."""
    for n in range(200):
        assert w.append("log", body(n, padding=300))
    assert w._uncovered_bytes <= 20_000
    assert_whole(w, 200)


def test_a_folder_removed_under_it_is_made_anew(w: Writer, capfd: pytest.CaptureFixture[str]) -> None:
    """rm -rf of the run while it records: the newest segment is written again whole, from its open descriptor."""
    w.append("log", body(0))
    w.sync()
    w.append("log", body(1))
    shutil.rmtree(w.folder.parent)
    w.append("log", body(2))
    w.sync()
    w.append("log", body(3))
    assert w.sync(patient=False) and w.restarts == 1
    records, report = read(w)
    assert numbers(records) == [0, 1, 2, 3] and report.sound and not report.damage
    assert "was removed" in capfd.readouterr().err


def test_segments_closed_before_the_removal_are_named_as_gone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What only closed segments held is gone: the reader names what is missing, the writer says how much it is."""
    w = Writer(tmp_path / "journal", segment_size=400)
    for n in range(20):
        w.append("log", body(n))
    w.sync()
    shutil.rmtree(w.folder)
    w.append("log", body(20))
    w.sync()
    assert w.close()
    records, report = read(w)
    found = numbers(records)
    assert found == list(range(found[0], 21)) and report.missing == [(1, found[0])]
    assert f"; {found[0]} earlier records are gone" in capfd.readouterr().err


def test_a_folder_that_was_moved_is_followed(tmp_path: Path) -> None:
    """mv of the run directory while it records: the next segment is made where the folder is now."""
    w = Writer(tmp_path / "journal", segment_size=300)
    w.append("log", body(0))
    (tmp_path / "journal").rename(tmp_path / "elsewhere")
    for n in range(1, 30):
        w.append("log", body(n))
    assert w.close()
    assert w.folder.parent == tmp_path / "elsewhere" and not (tmp_path / "journal").exists()
    assert numbers(read(w)[0]) == list(range(30))


@pytest.mark.parametrize("segment_size", [1 << 20, 2000])
def test_buffered_records_come_out_in_order(tmp_path: Path, segment_size: int) -> None:
    """With durability="buffered" log records wait; other kinds, a sync and close bring them out first."""
    w = Writer(tmp_path / "journal", buffered=True, segment_size=segment_size)
    for n in range(50):
        assert w.append_log(None, True, {"n": n})
    assert read(w)[0] == [] and w.seq == 50
    w.append("log", body(50))
    assert numbers(read(w)[0]) == list(range(51))
    w.append_log(None, True, {"n": 51})
    w.sync()
    w.append_log(None, True, {"n": 52})
    assert numbers(read(w)[0]) == list(range(52))
    assert w.close()
    records, report = read(w)
    assert numbers(records) == list(range(53)) and report.sound


def test_a_full_buffer_is_written_at_once(tmp_path: Path) -> None:
    """At 64 KiB the buffer goes to the disk without waiting for anybody."""
    w = Writer(tmp_path / "journal", buffered=True)
    for n in range(2000):
        w.append_log(None, True, {"n": n, "x" * 40: 1})
    assert len(read(w)[0]) > 1000
    assert w.close()


def test_moving_to_another_journal_keeps_what_is_not_certain(tmp_path: Path) -> None:
    """What no fdatasync has covered goes along, renumbered, behind a first record that names the old writer."""
    w = Writer(tmp_path / "old")
    w.append("log", body(0))
    w.sync()
    w.append("log", body(1))
    w.append("log", body(2))
    old = w.name
    seen: list[tuple[str, int]] = []

    def first(name: str, seq: int) -> bytes:
        seen.append((name, seq))
        return b'"data":{"id":"r"}'

    w.move_to(tmp_path / "new", first)
    w.append("log", body(3))
    assert w.close()
    assert seen == [(old, 1)] and w.name != old and w.folder.parent == tmp_path / "new"
    records, report = read(w)
    assert [r.kind for r in records] == ["run", "log", "log", "log"] and numbers(records[1:]) == [1, 2, 3]
    assert report.sound and [r.seq for r in records] == [1, 2, 3, 4]


def test_a_journal_that_cannot_be_made_waits(tmp_path: Path) -> None:
    """Where the folder cannot be made at first, the records wait until it can be."""
    (tmp_path / "place").write_text("in the way")
    w = Writer(tmp_path / "place" / "journal")
    assert all(w.append("log", body(n)) for n in range(3))
    (tmp_path / "place").unlink()
    assert w.sync(patient=False)
    assert_whole(w, 3)
    w.close()


def test_a_segment_that_exists_already_is_passed_over(w: Writer) -> None:
    """A file under the next segment's name is left alone, and does not stop the writer for ever."""
    (w.folder / "000002.jsonl").write_bytes(b"")
    for n in range(100):
        w.append("log", body(n))
    assert_whole(w, 100)


def test_a_descriptor_closed_by_somebody_else(w: Writer, tmp_path: Path) -> None:
    """Code that closes all descriptors costs no record, and a file that got the number later is left open."""
    w.append("log", body(0))
    number = w._fd
    os.close(number)
    w.append("log", body(1))
    w._retry_at = 0.0
    with (tmp_path / "mine").open("wb") as mine:
        assert mine.fileno() == number
        w.append("log", body(2))
        w.sync(patient=False)
        mine.write(b"mine")
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert_whole(w, 3)


def test_closing_on_a_full_disk_says_how_many_are_lost(
    tmp_path: Path, disk: Disk, capfd: pytest.CaptureFixture[str]
) -> None:
    """What cannot be written even at the end is counted to the user, not passed over."""
    w = Writer(tmp_path / "journal")
    disk.on_write = disk.refuse(errno.ENOSPC)
    for n in range(3):
        w.append("log", body(n))
    assert w.close() is False
    assert "3 records could not be written" in capfd.readouterr().err


def test_a_disk_of_moods(tmp_path: Path, disk: Disk, dice: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals, short writes, failing syncs and lost pages in random order lose no record at all."""
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.0)
    w = Writer(tmp_path / "journal", segment_size=3000)

    def moody_write(fd: int, data: bytes) -> int | None:
        mood = dice.random()
        if mood < 0.1:
            raise OSError(dice.choice([errno.ENOSPC, errno.EIO]), "moody")
        return disk._write(fd, data[: dice.randrange(len(data))]) if mood < 0.2 else None

    def moody_sync(fd: int) -> None:
        if dice.random() < 0.3:
            raise OSError(errno.EIO, "moody")

    disk.on_write, disk.on_sync = moody_write, moody_sync
    for n in range(400):
        assert w.append("log", body(n))
        if dice.random() < 0.1:
            w.sync(patient=False)
    disk.heal()
    assert w.close()
    assert_whole(w, 400)


# -- interrupted -------------------------------------------------------------------------------------------------------


class Struck(BaseException):
    """Stands for Ctrl-C at a moment of the test's choosing."""


@pytest.mark.parametrize("when", ["before the write", "after the write", "after half of it"])
@pytest.mark.parametrize("what", [Struck, KeyboardInterrupt, TimeoutError])
def test_an_exception_around_the_write_leaves_the_books_right(
    w: Writer, disk: Disk, when: str, what: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C, or a handler's TimeoutError, around the write: it is passed on, and no later record suffers."""

    def strike(fd: int, data: bytes) -> int:
        if when != "before the write":
            disk._write(fd, data if when == "after the write" else data[:10])
        raise what()

    w.append("log", body(0))
    disk.on_write = strike
    with pytest.raises(what):
        w.append("log", body(1))
    disk.on_write = lambda fd, data: disk._write(fd, data[:5])  # a short write now must cut nothing of record 1
    w.append("log", body(2))
    disk.heal()
    w.append("log", body(3))
    assert w.sync(patient=False)
    records, report = read(w)
    assert numbers(records) == ([0, 1, 2, 3] if when == "after the write" else [0, 2, 3])
    assert [r.seq for r in records] == list(range(1, len(records) + 1))
    assert not report.missing and not report.damage


def test_a_storm_of_real_signals_costs_no_record(w: Writer, dice: random.Random) -> None:
    """Exceptions raised by a timer's signal handler at random moments inside append: what was acknowledged is there."""
    armed = False

    def handler(signum: int, frame: FrameType | None) -> None:
        if armed:
            raise Struck

    def burst() -> None:
        # A frame of its own: from Python 3.12 on, a handler's exception at a loop's jump may miss the `try` around it.
        nonlocal n
        signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-6, 2e-4))
        for _ in range(20):
            n += 1
            w.append("log", body(n))
            acknowledged.append(n)
            if n % 50 == 0:
                w.sync()

    before = signal.signal(signal.SIGALRM, handler)
    acknowledged: list[int] = []
    strikes = n = 0
    gc.disable()  # a strike within another library's callback of the collector reaches nobody, and is complained of
    try:
        began = time.monotonic()
        # Two seconds, or longer where a busy disk leaves time for few strikes.
        while strikes < 400 and time.monotonic() - began < (2.0 if strikes > 20 else 40.0):
            try:
                armed = True
                burst()
                # In here still, where a last strike is caught; a running timer would strike twice in the next turn.
                signal.setitimer(signal.ITIMER_REAL, 0)
                armed = False
            except Struck:
                armed = False
                strikes += 1
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert strikes > 20
    w.append("log", body(n + 1))
    w.sync(patient=False)
    records, report = read(w)
    found = numbers(records)
    assert not set(acknowledged) - set(found)
    assert len(set(found)) == len(found) and found == sorted(found)
    assert not report.missing and not report.damage and not report.torn


def test_a_signal_handler_may_log_and_finish(w: Writer) -> None:
    """Handlers that append in the midst of an append neither deadlock nor tear; one that closes, closes."""
    handled = 0

    def handler(signum: int, frame: FrameType | None) -> None:
        nonlocal handled
        handled += 1
        assert w.append("log", record.body(b'{"handler":%d}' % handled))

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        deadline = time.monotonic() + 1.0
        n = 0
        while time.monotonic() < deadline and n < 20_000:
            w.append("log", body(n))
            n += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    w.sync(patient=False)
    records, report = read(w)
    assert handled > 10
    assert numbers(records) == list(range(n))
    # A handler may be interrupted by the next one before it appends.
    assert sorted(r.data["handler"] for r in records if "handler" in r.data) == list(range(1, handled + 1))
    assert [r.seq for r in records] == list(range(1, n + handled + 1)) and not report.damage


def test_closing_in_the_midst_of_an_append_waits_for_its_end(w: Writer, disk: Disk) -> None:
    """A SIGTERM handler that finishes the run while its own thread is inside append: record, then the end."""

    def interrupt(fd: int, data: bytes) -> None:
        disk.on_write = None
        w.append("finish", record.body(b"{}"))
        w.close()

    disk.on_write = interrupt
    assert w.append("log", body(0))
    assert [r.kind for r in read(w)[0]] == ["log", "finish"]
    assert w.append("log", body(1)) is False


# -- fork --------------------------------------------------------------------------------------------------------------


def test_abandoning_closes_no_descriptor_of_others(w: Writer, tmp_path: Path) -> None:
    """A child that closed everything, as daemons do, keeps the file that now has the journal's old number."""
    w.append("log", body(0))
    with (tmp_path / "mine").open("wb") as mine:
        os.dup2(mine.fileno(), w._fd)
        number = w._fd
        w.abandon()
        os.fstat(number)
        os.close(number)
