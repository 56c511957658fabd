"""Reading back whatever has happened to a journal: no exception, and no good record lost outside the damage."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from flightlog.journal import reader, record
from flightlog.journal.reader import WriterReport, read_writer, segments, writer_folders
from flightlog.journal.scan import RunJournal


def line(seq: int, text: str = "") -> bytes:
    return record.encode(seq, 1000.0 + seq, "log", record.body(b'{"n":%d,"text":"%b"}' % (seq, text.encode()), seq))


def lines(first: int, last: int) -> bytes:
    return b"".join(line(seq) for seq in range(first, last + 1))


def write(folder: Path, *contents: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(contents, 1):
        (folder / f"{number:06d}.jsonl").write_bytes(content)
    return folder


def read(folder: Path) -> tuple[list[int], WriterReport]:
    report = WriterReport(folder.name)
    seqs = [found.seq for found in read_writer(folder, report)]
    assert report.records == len(seqs) and report.last_seq == (seqs[-1] if seqs else 0)
    return seqs, report


# -- named kinds of damage ---------------------------------------------------------------------------------------------


def test_a_sound_journal_reads_without_complaint(tmp_path: Path) -> None:
    """Several segments are one sequence."""
    seqs, report = read(write(tmp_path / "w", lines(1, 5), lines(6, 6), b"", lines(7, 9)))
    assert seqs == list(range(1, 10))
    assert report.sound and not report.torn and not report.damage
    assert report.bytes == len(lines(1, 9))


@pytest.mark.parametrize(
    "tail", [line(4)[:-1], line(4)[:20], b"{", b"\0" * 4096, b"\xff\n", b"\n", line(4)[:20] + b"\n"]
)
def test_a_bad_end_of_the_newest_segment_is_a_torn_tail(tmp_path: Path, tail: bytes) -> None:
    """A process died while writing, or the power went: nothing acknowledged is missing, and it is no corruption."""
    seqs, report = read(write(tmp_path / "w", lines(1, 2), lines(3, 3) + tail))
    assert seqs == [1, 2, 3] and report.sound and not report.damage
    assert len(report.torn) == 1 and report.torn[0].path.name == "000002.jsonl" and report.torn[0].line == 2
    assert "line 2" in str(report.torn[0])


def test_the_same_end_of_an_older_segment_is_damage(tmp_path: Path) -> None:
    """Only the newest segment can have a torn tail."""
    seqs, report = read(write(tmp_path / "w", lines(1, 2) + line(3)[:20], lines(4, 5)))
    assert seqs == [1, 2, 4, 5]
    assert report.missing == [(3, 3)] and not report.torn and len(report.damage) == 1


def test_damage_in_the_middle_costs_only_its_lines(tmp_path: Path) -> None:
    """The reader goes on with the next good line and names the seqs that are missing, a stretch once."""
    content = lines(1, 3) + b"garbage\n" + b"more\n" + lines(6, 8) + line(9).replace(b"9", b"8", 1) + lines(10, 10)
    seqs, report = read(write(tmp_path / "w", content))
    assert seqs == [1, 2, 3, 6, 7, 8, 10]
    assert report.missing == [(4, 5), (9, 9)] and not report.sound
    assert [d.line for d in report.damage] == [4, 9] and not report.torn


def test_a_page_of_zeros_costs_only_what_it_covers(tmp_path: Path) -> None:
    """After a power cut whole pages read as zeros."""
    content = bytearray(lines(1, 400))
    content[4096:8192] = bytes(4096)
    first = content[:4096].count(b"\n") + 1
    last = lines(1, 400)[:8192].count(b"\n") + 1
    seqs, report = read(write(tmp_path / "w", bytes(content)))
    assert seqs == [*range(1, first), *range(last + 1, 401)]
    assert report.missing == [(first, last)]


@pytest.mark.parametrize("wrong", [b"\x0b", b"x", b"\0", b" ", b"{"])
def test_a_damaged_newline_costs_neither_of_its_lines(tmp_path: Path, wrong: bytes) -> None:
    """Where only the newline was hit, the lines on both sides are whole, and are read."""
    content = lines(1, 2)[:-1] + wrong + lines(3, 4)[:-1] + wrong + lines(5, 6)
    seqs, report = read(write(tmp_path / "w", content))
    assert seqs == [1, 2, 3, 4, 5, 6] and report.sound and len(report.damage) >= 1 and not report.torn


def test_half_a_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    """A torn line with others written behind it costs itself alone."""
    seqs, report = read(write(tmp_path / "w", lines(1, 1) + line(2)[:30] + lines(3, 4)))
    assert seqs == [1, 3, 4] and report.missing == [(2, 2)]


def test_a_giant_line_is_passed_over(tmp_path: Path) -> None:
    """More than 1 MiB without a newline is skipped without being held in memory; the next lines are read."""
    seqs, report = read(write(tmp_path / "w", lines(1, 1) + b"x" * (5 << 20) + b"\n" + lines(3, 3)))
    assert seqs == [1, 3] and report.damage[0].reason == "longer than 1 MiB"


def test_a_repeated_line_counts_once(tmp_path: Path) -> None:
    """Identical bytes under one seq, as after a retried write, are one record and no damage."""
    seqs, report = read(write(tmp_path / "w", lines(1, 3) + lines(2, 4), lines(1, 5)))
    assert seqs == [1, 2, 3, 4, 5] and report.sound and not report.damage


def test_segments_written_again_merge_in_order(tmp_path: Path) -> None:
    """After a failed fdatasync the next segment repeats lines, of which the older one lost some."""
    first = lines(1, 4) + b"\0" * len(lines(5, 7)) + b"\n" + lines(8, 9)
    seqs, report = read(write(tmp_path / "w", first, lines(3, 12)))
    assert seqs == list(range(1, 13)) and report.sound


def test_a_snapshot_reads_no_further_than_it_was_told(tmp_path: Path) -> None:
    """With sizes given, what a live writer has appended since is not looked at, nor are newer segments."""
    folder = write(tmp_path / "w", lines(1, 5), lines(6, 9))
    report = WriterReport("w")
    sizes = {"000001.jsonl": len(lines(1, 5)), "000002.jsonl": len(lines(6, 7))}
    assert [x.seq for x in read_writer(folder, report, sizes)] == [1, 2, 3, 4, 5, 6, 7]
    assert [x.seq for x in read_writer(folder, WriterReport("w"), {"000001.jsonl": len(lines(1, 3))})] == [1, 2, 3]


def test_what_is_no_segment_is_not_read(tmp_path: Path) -> None:
    """Links, pipes, folders and foreign files among the segments do no harm, and a link's target is never opened."""
    folder = write(tmp_path / "w", lines(1, 2))
    (tmp_path / "secret").write_bytes(lines(3, 3))
    (folder / "000002.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "000003.jsonl")
    (folder / "000004.jsonl").mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "000005.jsonl.bak").write_bytes(lines(3, 3))
    (folder / "12.jsonl").write_bytes(lines(3, 3))
    assert [p.name for p in segments(folder)] == ["000001.jsonl"]
    assert read(folder)[0] == [1, 2]
    (tmp_path / "linked").symlink_to(folder)
    (tmp_path / "file").write_text("")
    assert writer_folders(tmp_path) == [folder]
    assert segments(tmp_path / "file") == segments(tmp_path / "nowhere") == writer_folders(tmp_path / "file") == []


def test_a_file_swapped_for_a_link_or_pipe_is_damage_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was a file when listed and is a link or pipe when opened is reported; the rest is read."""
    folder = write(tmp_path / "w", lines(1, 2), lines(3, 4), lines(5, 6))
    listed = segments(folder)
    for path in listed[:2]:
        path.unlink()
    listed[0].symlink_to(listed[2])
    os.mkfifo(listed[1])
    monkeypatch.setattr(reader, "segments", lambda _: listed)
    seqs, report = read(folder)
    assert seqs == [5, 6] and len(report.damage) == 2 and report.missing == [(1, 4)]


def test_a_block_that_cannot_be_read_costs_the_rest_of_its_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO from a dying disk is damage of that segment, not the end of reading."""

    folder = write(tmp_path / "w", lines(1, 4), lines(5, 6))
    whole = os.pread

    def dying(fd: int, size: int, offset: int) -> bytes:
        good = len(lines(1, 2)) - offset if os.readlink(f"/proc/self/fd/{fd}").endswith("000001.jsonl") else size
        if good <= 0:
            raise OSError(errno.EIO, "Input/output error")
        return whole(fd, min(size, good), offset)

    monkeypatch.setattr(os, "pread", dying)
    seqs, report = read(folder)
    assert seqs == [1, 2, 5, 6] and report.missing == [(3, 4)] and "Input/output error" in str(report.damage[0])


def test_only_so_much_damage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is bad in every other line does not fill the memory; what is missing is known whole."""
    monkeypatch.setattr(reader, "_MOST_DAMAGE", 5)
    seqs, report = read(write(tmp_path / "w", b"".join(line(n) if n % 2 else b"bad\n" for n in range(1, 100))))
    assert seqs == [*range(1, 100, 2)] and len(report.damage) == 5 and len(report.missing) == 49


def test_only_so_much_is_held_for_a_line_that_never_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a hole the reader waits for the missing line within its bound, and then goes on."""
    monkeypatch.setattr(reader, "MEMORY_LIMIT", 2000)
    seqs, report = read(write(tmp_path / "w", lines(1, 2) + lines(4, 300)))
    assert seqs == [1, 2, *range(4, 301)] and report.missing == [(3, 3)]


# -- chance ------------------------------------------------------------------------------------------------------------


def damaged(content: bytes, dice: random.Random) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the content with some damage, and the byte ranges of the original that it touched."""
    touched = []
    wrong = bytearray(content)
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(wrong))
        length = min(dice.choice([1, 1, 7, 60, 500, 4096]), len(wrong) - at)
        match dice.randrange(3):
            case 0:
                for i in range(at, at + length):
                    wrong[i] ^= 1 << dice.randrange(8)
            case 1:
                wrong[at : at + length] = bytes(length)
            case _:
                wrong[at : at + length] = dice.randbytes(length)
        touched.append((at, at + length))
    return bytes(wrong), touched


def intact(first: int, last: int, touched: list[tuple[int, int]]) -> set[int]:
    """Return the seqs of lines none of whose bytes, nor the newline before them, was touched."""
    good, at = set(), 0
    for seq in range(first, last + 1):
        end = at + len(line(seq))
        if not any(a < end and at - 1 < b for a, b in touched):
            good.add(seq)
        at = end
    return good


@pytest.mark.parametrize("round_", range(40))
def test_random_damage_loses_only_what_it_touched(tmp_path: Path, dice: random.Random, round_: int) -> None:
    """Bits flipped, zeroed and replaced anywhere: every untouched record is read, and only true ones are."""
    good: set[int] = set()
    contents = []
    for first, last in ((1, 60), (61, 90), (91, 150)):
        content, touched = damaged(lines(first, last), dice)
        good |= intact(first, last, touched)
        contents.append(content)
    folder = write(tmp_path / "w", *contents)
    report = WriterReport("w")
    found = list(read_writer(folder, report))
    seqs = [x.seq for x in found]
    assert seqs == sorted(set(seqs)) and good <= set(seqs)
    assert all(x.raw == line(x.seq) for x in found)
    holes = sorted(set(range(1, seqs[-1] + 1)) - set(seqs)) if seqs else []
    assert [n for a, b in report.missing for n in range(a, b + 1)] == holes


@pytest.mark.parametrize("round_", range(20))
def test_blocks_doubled_lost_and_cut(tmp_path: Path, dice: random.Random, round_: int) -> None:
    """Stretches of a file that are repeated, gone, or cut off at the end never break reading or its order."""
    content = lines(1, 200)
    for _ in range(dice.randrange(1, 4)):
        a, b = sorted(dice.randrange(len(content)) for _ in range(2))
        content = dice.choice([content[:b] + content[a:], content[:a] + content[b:], content[:a]]) or content
    folder = write(tmp_path / "w", content)
    report = WriterReport("w")
    found = list(read_writer(folder, report))
    assert [x.seq for x in found] == sorted({x.seq for x in found})
    assert all(x.raw == line(x.seq) for x in found)
    whole = {seq for seq in range(1, 201) if b"\n" + line(seq) in b"\n" + content}
    assert whole <= {x.seq for x in found}


@pytest.mark.parametrize("round_", range(25))
def test_it_does_not_matter_how_much_is_read_at_a_time(
    tmp_path: Path, dice: random.Random, monkeypatch: pytest.MonkeyPatch, round_: int
) -> None:
    """Lines, damage and torn tails are the same byte by byte as at once; so is what a longest line is."""
    monkeypatch.setattr(reader, "MAX_LINE", dice.choice([150, 400, 1 << 20]))
    longer = b"".join(line(seq, "x" * dice.choice([0, 0, 50, 500])) for seq in range(1, 60))
    content, _ = damaged(longer, dice)
    folder = write(tmp_path / "w", content, damaged(lines(60, 80), dice)[0])
    sizes = {"000001.jsonl": dice.randrange(len(content) + 10), "000002.jsonl": 1000} if dice.random() < 0.3 else None
    found = []
    for block in (reader.BLOCK, 1, 7, 64, 1000):
        report = WriterReport("w")
        found.append(([x.seq for x in read_writer(folder, report, sizes, block=block)], report))
    assert all(each == found[0] for each in found[1:])


@pytest.mark.parametrize("round_", range(15))
def test_pure_noise_is_read_as_nothing(tmp_path: Path, dice: random.Random, round_: int) -> None:
    """Random bytes, and random pieces of lines, in every place of a journal: no exception and no invented record."""
    pieces = [line(n)[dice.randrange(80) :] for n in range(1, 30)] + [dice.randbytes(200), b"\n", b'{"seq":1,', b"\0"]
    journal = tmp_path / "journal"
    for name in "abc":
        write(journal / name, *(b"".join(dice.choices(pieces, k=40)) for _ in range(3)))
        found = list(read_writer(journal / name, WriterReport(name)))
        assert all(x.raw == line(x.seq) for x in found)
    list(RunJournal([journal]).records())
    RunJournal([journal]).fold()


def test_records_that_lie_do_not_stop_a_fold(tmp_path: Path) -> None:
    """Lines with a right CRC and wrong types in every field: views leave them out or take what they can use."""

    def lie(seq: int, kind: str, inside: bytes) -> bytes:
        return record.encode(seq, float(seq), kind, inside)

    odd = [
        lie(1, "run", b'"data":{"id":5,"project":[],"tags":{"a":1},"config":[1],"parents":{"a":"b","w":true,"x":-1}}'),
        lie(2, "run", b'"data":[]'),
        lie(3, "log", b'"step":"x","data":{}'),
        lie(4, "finish", b'"data":{"state":7,"exit_code":"x","error":[1],"closes_run":"?"}'),
        lie(5, "run", b'"data":{},"seq":"late"'),
        lie(6, "finish", b'"data":{},"seq":"late"'),
        lie(7, "log", b'"step":18446744073709551615,"data":{"a":{"b":[1]}}'),
        lie(8, "unheard_of", b'"data":{"a":1}'),
        lie(9, "log", b'"nothing":1'),
        lie(10, "log", b'"data":{"ok":1}'),
    ]
    write(tmp_path / "journal" / "w", b"".join(odd))
    whole = RunJournal([tmp_path / "journal"])
    fold, last = whole.fold(), whole.last_seqs
    assert fold.summary["ok"] == 1 and fold.state == "finished" and last == {"w": 10}
    assert "unheard_of" in {r.kind for _, r in whole.records()}
