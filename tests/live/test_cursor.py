"""Reading only what a journal has grown by, and finding new runs without listing folders in which nothing happens."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from flightlog.journal.writer import Writer
from flightlog.sync import cursor as cursors
from flightlog.sync import finder as finders
from flightlog.sync.cursor import Cursor, OutOfStep
from flightlog.sync.departed import CLEANING
from flightlog.sync.finder import Finder

from ..server.tools import line, logs, run_dir


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A writer's folder, empty."""
    folder = tmp_path / "writer"
    folder.mkdir()
    return folder


def add(folder: Path, content: bytes, segment: int = 1) -> None:
    with (folder / f"{segment:06d}.jsonl").open("ab") as file:
        file.write(content)


def seqs(cursor: Cursor) -> list[int]:
    return [line.seq for line in cursor.read()]


def test_each_line_is_read_once_and_half_a_line_not_at_all(folder: Path) -> None:
    """A line counts when its newline is there."""
    cursor = Cursor(folder, 0)
    assert seqs(cursor) == []
    third = line(3)
    add(folder, b"".join(logs(1, 2)) + third[:20])
    assert seqs(cursor) == [1, 2] and seqs(cursor) == []
    add(folder, third[20:])
    assert seqs(cursor) == [3]


def test_segments_follow_each_other(folder: Path) -> None:
    """The next one is begun when the one before is read; what it repeats is passed over."""
    cursor = Cursor(folder, 0)
    add(folder, b"".join(logs(1, 4)))
    add(folder, b"".join(logs(3, 6)), 2)
    assert seqs(cursor) == [1, 2, 3, 4] and seqs(cursor) == [5, 6]
    add(folder, line(7), 2)
    assert seqs(cursor) == [7]


def test_a_cursor_begins_behind_what_is_known(folder: Path) -> None:
    """It looks for the segment that holds the next seq."""
    for segment in range(1, 5):
        add(folder, b"".join(logs(segment * 10 - 9, segment * 10)), segment)
    cursor = Cursor(folder, 25)
    assert seqs(cursor) == [26, 27, 28, 29, 30] and seqs(cursor) == list(range(31, 41))


def test_bytes_that_are_no_line_are_passed_over_when_sound_ones_follow(folder: Path) -> None:
    """Zeros that a network file system shows first, or half a line that was written again, are no damage."""
    cursor = Cursor(folder, 0)
    add(folder, line(1) + b"\0" * 50 + b"\n")
    assert seqs(cursor) == [1]
    add(folder, line(2)[:30] + b"\n" + line(2))
    assert seqs(cursor) == [2]


def test_zeros_that_become_a_line_are_read(folder: Path) -> None:
    """On NFS a file may have its size before it has its bytes."""
    whole = b"".join(logs(1, 3))
    path = folder / "000001.jsonl"
    path.write_bytes(whole[:-100] + b"\0" * 99 + b"\n")
    cursor = Cursor(folder, 0)
    first = seqs(cursor)
    assert first[:1] == [1] and len(first) < 3
    path.write_bytes(whole)
    assert first + seqs(cursor) == [1, 2, 3]


def test_a_hole_or_a_shrunken_segment_is_not_passed_over(folder: Path) -> None:
    """Both are for a whole sync to judge."""
    add(folder, line(1))
    cursor = Cursor(folder, 0)
    assert seqs(cursor) == [1]
    add(folder, line(3))
    with pytest.raises(OutOfStep):
        cursor.read()
    (folder / "000001.jsonl").write_bytes(b"")
    with pytest.raises(OutOfStep):
        cursor.read()


def test_what_a_writer_writes_is_read_as_it_grows(tmp_path: Path) -> None:
    """A real writer that rotates its segments often, read at random moments: every seq, once, in order."""
    seed = 20261127
    print("seed", seed)
    chance = random.Random(seed)
    writer = Writer(tmp_path, segment_size=2000)
    cursor = Cursor(writer.folder, 0)
    found: list[int] = []
    for number in range(500):
        writer.append("log", b'"data":{"text":"%b"}' % (b"x" * chance.randrange(200)))
        if chance.random() < 0.2:
            found += seqs(cursor)
        if number % 100 == 99:
            writer.sync()
    writer.close()
    while more := seqs(cursor):
        found += more
    assert found == list(range(1, writer.seq + 1))


def test_a_journal_that_does_not_grow_is_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million steps that were delivered cost a look at two names."""
    add(folder, b"".join(logs(1, 100)))
    cursor = Cursor(folder, 0)
    cursor.read()
    opened: list[Path] = []
    whole = cursors.open_regular
    monkeypatch.setattr(cursors, "open_regular", lambda path: opened.append(path) or whole(path))
    assert [cursor.read() for _ in range(5)] == [[]] * 5
    assert opened == []


def test_a_finder_lists_only_folders_that_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run is found once; a folder in which nothing happens is asked for its time only, and less and less often."""
    for name in ("a/run-1", "b/c/run-2", "d/e/f"):
        (tmp_path / name).mkdir(parents=True)
    run_dir(tmp_path / "a/run-1", "one")
    run_dir(tmp_path / "b/c/run-2", "two")
    past = time.time() - 100
    for path in [tmp_path, *tmp_path.rglob("*")]:
        if path.is_dir():
            os.utime(path, (past, past))
    finder = Finder([tmp_path], 5.0, all_users=False)
    assert [d.path.name for d in finder.look(0.0)] == ["run-1", "run-2"]
    listed: list[Path] = []
    whole = finders.folders_below
    monkeypatch.setattr(finders, "folders_below", lambda path: listed.append(path) or whole(path))
    looks = [now for now in range(1, 600) if now >= finder.due and finder.look(float(now)) == []]
    assert listed == [] and len(looks) < 80, looks
    run_dir(tmp_path / "d/e/run-3", "three")
    found = [d.path.name for now in range(600, 700) for d in finder.look(float(now))]
    assert found == ["run-3"] and set(listed) == {tmp_path / "d/e"}


def test_a_finder_survives_folders_that_go_away_and_come_back(tmp_path: Path) -> None:
    """A named folder that is not there yet, or no longer, is looked for again."""
    top = tmp_path / "later"
    finder = Finder([top], 1.0, all_users=False)
    assert finder.look(0.0) == []
    run_dir(top / "run-1", "one")
    assert [d.path.name for d in finder.look(100.0)] == ["run-1"]


def test_a_finder_waits_with_a_run_that_is_being_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run put aside a moment ago is about to be deleted; one that a killed sync has left so is found."""
    run_dir(tmp_path / f"run-1{CLEANING}", "one")
    run_dir(tmp_path / "run-2", "two")
    finder = Finder([tmp_path], 1.0, all_users=False)
    assert [d.path.name for d in finder.look(0.0)] == ["run-2"]
    later = time.time() + 100
    monkeypatch.setattr(time, "time", lambda: later)
    assert [d.path.name for d in finder.look(100.0)] == [f"run-1{CLEANING}"]
