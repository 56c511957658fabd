"""What one copy of a run has lost and another has kept: the server's gaps are filled, and with nothing else."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from flightlog.protocol.digest import JournalDigest
from flightlog.protocol.messages import difference

from .tools import EMPTY, Server, begin, line, local_journal, logs, run_dir, zstd

WRITER = "w" * 16


def segment(run: Path, writer: str = WRITER) -> Path:
    return run / "files" / "journal" / writer / "000001.jsonl"


def damage(run: Path, *seqs: int, writer: str = WRITER) -> None:
    """Make these lines of a journal unreadable."""
    lines = segment(run, writer).read_bytes().splitlines(keepends=True)
    for seq in seqs:
        lines[seq - 1] = b"#" * (len(lines[seq - 1]) - 1) + b"\n"
    segment(run, writer).write_bytes(b"".join(lines))


def receipt(server: Server, run_id: str) -> Any:
    return server.api("GET", f"runs/admin/p/{run_id}/receipt").json()["writers"]


def shown(server: Server, run_id: str) -> Any:
    """Everything that is shown of a run and follows from its records."""
    run = server.api("GET", f"runs/admin/p/{run_id}").json()
    metrics = server.api("GET", f"runs/admin/p/{run_id}/metrics").json()["metrics"]
    history = server.api("GET", f"runs/admin/p/{run_id}/history?limit=10000").json()
    left_out = ("id", "url", "version", "name")
    return {k: v for k, v in run.items() if k not in left_out}, metrics, history


@pytest.mark.parametrize("lost", [(2,), (1,), (1, 2, 3), (5, 6, 9), (20, 21), tuple(range(2, 22))])
def test_an_intact_copy_fills_what_a_damaged_one_lacked(
    server: Server, place: Path, home: Path, run_id: str, lost: tuple[int, ...]
) -> None:
    """The damaged copy comes first and is never cleaned; the intact one makes the run whole."""
    whole = run_dir(place / "whole", run_id)
    shutil.copytree(whole, place / "copy")
    damage(place / "copy", *lost)
    said = server.sync(place / "copy", home=home, options=("--clean",))
    assert said.code == 3 and said.runs[0]["cleaned"]["reason"], said
    assert sum(b - a + 1 for a, b in receipt(server, run_id)[WRITER]["lost"]) == len(lost)
    said = server.sync(whole, home=home)
    assert said.code == 0 and said.runs[0]["records_sent"] == len(lost), said
    assert server.journal(run_id) == local_journal(whole) and receipt(server, run_id)[WRITER]["lost"] == []
    twin = run_dir(place / "twin", f"{run_id}-twin", {WRITER: [begin(run_id), *logs(2, 21), last(22)]})
    assert server.sync(twin, home=home).code == 0
    assert shown(server, run_id) == shown(server, f"{run_id}-twin")
    assert server.sync(whole, home=home, options=("--clean",)).runs[0]["cleaned"]["kept"] == []
    assert not whole.exists()


def last(seq: int) -> bytes:
    return line(seq, "finish", {"state": "finished"})


def test_a_damaged_copy_after_an_intact_one_changes_nothing(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """Status 3, for this disk is damaged; the server has it all, and says nothing of a gap."""
    whole = run_dir(place / "whole", run_id)
    shutil.copytree(whole, place / "copy")
    damage(place / "copy", 7, 8)
    assert server.sync(whole, home=home).code == 0
    said = server.sync(place / "copy", home=home, options=("--clean",))
    assert said.code == 3 and said.runs[0]["records_sent"] == 0 and (place / "copy").is_dir()
    assert not any("server lacks" in fault or "receipt" in fault for fault in said.runs[0]["faults"]), said
    assert server.journal(run_id) == local_journal(whole)


SEED = 20261127


def test_copies_that_lack_different_lines_make_one_whole_run(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """Several copies, each with its own damage, across the borders of digest blocks and of the stored rows."""
    chance = random.Random(SEED)
    print("seed", SEED)
    count = 9000
    whole = run_dir(place / "whole", run_id, {WRITER: [begin(run_id), *logs(2, count)]})
    names = [place / f"copy{n}" for n in range(4)]
    gaps: list[set[int]] = []
    for name in names:
        shutil.copytree(whole, name)
        firsts = [chance.choice([4090, 8185, chance.randrange(2, count - 300)]) for _ in range(5)]
        gaps.append({seq for first in firsts for seq in range(first, first + chance.choice([1, 3, 200]))} - {count})
        damage(name, *gaps[-1])
    missing = set(range(1, count + 1))
    for name, gap in zip(names, gaps, strict=True):
        said = server.sync(name, home=home)
        assert said.code == 3, said
        missing &= gap
        there = receipt(server, run_id)[WRITER]
        assert {seq for a, b in there["lost"] for seq in range(a, b + 1)} == missing
        lines = segment(whole).read_bytes().splitlines(keepends=True)
        digest = JournalDigest()
        for seq, raw in enumerate(lines, 1):
            if seq not in missing:
                digest.add(seq, raw)
        assert there["digest"] == digest.upto(count)
    assert server.sync(whole, home=home).code == 0
    assert server.journal(run_id) == local_journal(whole)
    values = server.api("GET", f"runs/admin/p/{run_id}/series?metric=loss&points=20000").json()
    assert values["steps"] == list(range(2, count + 1)), "in order, each once"


def test_a_gap_of_several_batches_is_filled(
    server: Server, place: Path, home: Path, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap that is wider than a request: each is anchored on both sides, and the order comes out right."""
    monkeypatch.setattr("flightlog.sync.records.BATCH_BYTES", 20_000)
    whole = run_dir(place / "whole", run_id, {WRITER: [begin(run_id), *logs(2, 6000)]})
    shutil.copytree(whole, place / "copy")
    damage(place / "copy", *range(100, 5000))
    assert server.sync(place / "copy", home=home).code == 3
    assert server.sync(whole, home=home).runs[0]["records_sent"] == 4900
    assert server.journal(run_id) == local_journal(whole)
    digests = server.query("SELECT digest FROM writers w JOIN runs r ON r.id = w.run_id WHERE r.run_id = ?", run_id)
    assert digests == [(receipt(server, run_id)[WRITER]["digest"],)]


def test_definitions_rewinds_and_the_first_record_count_when_they_come_late(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """What was in the gap is seen as if it had come in its place: config, a rewind, a summary's aggregate."""

    def lines(name: str) -> list[bytes]:
        return [
            line(1, "run", {"format": 1, "id": name, "project": "p", "config": {"lr": 0.1}}),
            line(2, "define", {"name": "loss", "summary": ["min"]}),
            *logs(3, 30),
            line(31, "rewind", {"step": 10, "writers": {WRITER: 30}}),
            *[line(seq, step=seq - 20, data={"loss": -1.0}) for seq in range(32, 40)],
            line(40, "alert", {"title": "x", "text": "y", "level": "warn"}),
            *logs(41, 50),
        ]

    whole = run_dir(place / "whole", run_id, {WRITER: lines(run_id)})
    twin = run_dir(place / "twin", f"{run_id}-twin", {WRITER: lines(f"{run_id}-twin")})
    shutil.copytree(whole, place / "copy")
    damage(place / "copy", 1, 2, 31, 40)
    assert server.sync(place / "copy", home=home).code == 3
    assert server.sync(whole, home=home).code == 0
    assert server.sync(twin, home=home).code == 0
    assert shown(server, run_id) == shown(server, f"{run_id}-twin")
    alerts = [server.api("GET", f"runs/admin/p/{name}/alerts").json() for name in (run_id, f"{run_id}-twin")]
    assert alerts[0] == alerts[1] and len(alerts[0]["alerts"]) == 1


# -- what must not get into a gap --------------------------------------------------------------------------------------


def test_only_lines_that_are_shown_to_belong_there_fill_a_gap(server: Server, run_id: str) -> None:
    """Without a known line behind it, with another line behind it, or twice with other bytes: refused."""
    right = [begin(run_id), *logs(2, 20)]
    wrong = [begin(run_id), *logs(2, 20, data={"loss": -7.0})]
    server.api("PUT", f"runs/admin/p/{run_id}", {"alive": False})
    path = f"runs/admin/p/{run_id}/records/{WRITER}"

    def send(first: int, lines: list[bytes], **more: str) -> Any:
        query = "&".join([f"first={first}", *(f"{k}={v}" for k, v in more.items())])
        return server.api("POST", f"{path}?{query}", zstd(b"".join(lines)))

    assert send(1, [*right[:4], *right[9:]], before=EMPTY, lost="5-9").status == 200
    before = receipt(server, run_id)
    digest = JournalDigest()
    for seq, raw in enumerate(right[:4], 1):
        digest.add(seq, raw)
    upto = digest.upto(4)
    for answer, status, code in [
        (send(5, right[4:9], before=upto), 409, "unproven"),
        (send(5, wrong[4:9], before=upto), 409, "unproven"),
        (send(5, [*wrong[4:9], wrong[9]], before=upto), 409, "diverged"),
        (send(5, [*right[4:9], right[9]], before=EMPTY), 409, "diverged"),
        (send(4, [wrong[3], *right[4:10]]), 409, "diverged"),
        (send(5, right[4:10]), 422, "malformed"),
        (send(5, [*right[4:6], right[9]], before=upto), 422, "malformed"),
        (send(30, logs(30, 31), before=EMPTY), 409, "expected"),
    ]:
        assert (answer.status, answer.json()["error"]) == (status, code)
        assert receipt(server, run_id) == before
    assert send(4, [*right[3:6], right[9]], lost="7-9").status == 200, "a part of it"
    assert receipt(server, run_id)[WRITER]["lost"] == [[7, 9]]
    after = receipt(server, run_id)
    assert send(4, [*right[3:6], right[9]], lost="7-9").status == 200 and receipt(server, run_id) == after, "twice"
    refused = send(4, [right[3], *wrong[4:6], right[9]], lost="7-9")
    assert (refused.status, refused.json()["error"]) == (409, "diverged"), "what has been filled is known"
    assert send(6, right[5:20]).status == 200
    assert server.journal(run_id)[WRITER] == b"".join(right)
    assert server.query("SELECT records FROM runs WHERE run_id = ?", run_id) == [(20,)]


def test_a_copy_that_went_another_way_fills_no_gap(server: Server, place: Path, home: Path, run_id: str) -> None:
    """Its lines have the right numbers and checks, and are another journal's."""
    run = run_dir(place / "run", run_id, {WRITER: [begin(run_id), *logs(2, 40)]}, finished=False)
    other = run_dir(place / "other", run_id, {WRITER: [begin(run_id), *logs(2, 10), *logs(11, 40, data={"loss": 0.5})]})
    damage(run, *range(11, 20))
    assert server.sync(run, home=home).code == 3
    said = server.sync(other, home=home)
    assert said.code == 3 and "continued elsewhere" in said.runs[0]["faults"][0], said
    assert receipt(server, run_id)[WRITER]["lost"] == [[11, 19]]


def test_a_damaged_copy_that_went_another_way_appends_nothing(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """Its digests cannot be compared, but its last line can: what it has beyond that belongs to another journal."""
    run = run_dir(place / "run", run_id, {WRITER: [begin(run_id), *logs(2, 30)]})
    other = run_dir(place / "other", run_id, {WRITER: [begin(run_id), *logs(2, 20), *logs(21, 50, data={"loss": 0.5})]})
    damage(other, 5)
    assert server.sync(run, home=home).code == 0
    said = server.sync(other, home=home)
    assert said.code == 3 and any("continued elsewhere" in fault for fault in said.runs[0]["faults"]), said
    assert server.journal(run_id) == local_journal(run)


@pytest.mark.parametrize("upto", [0, 3, 9, 10, 11, 100])
def test_differences_of_ranges(upto: int) -> None:
    """Against sets, for ranges that touch, overlap, contain each other or lie apart."""
    chance = random.Random(upto)
    for _ in range(300):

        def some() -> list[tuple[int, int]]:
            cuts = sorted(chance.sample(range(1, 30), 2 * chance.randrange(0, 6)))
            return [(cuts[i], cuts[i + 1] - 1) for i in range(0, len(cuts), 2)]

        one, two = some(), some()
        expected = {s for a, b in one for s in range(a, b + 1)} - {s for a, b in two for s in range(a, b + 1)}
        found = difference(one, two, upto)
        assert [s for a, b in found for s in range(a, b + 1)] == sorted(s for s in expected if s <= upto)
