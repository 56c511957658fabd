"""Runs that were copied and then continued on several machines: all of it is delivered, each line once."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from flightlog.protocol.digest import JournalDigest

from .tools import EMPTY, Server, begin, line, local_journal, logs, run_dir, zstd

WRITER = "w" * 16


def go_on(run: Path, first: int, last: int, value: float) -> None:
    """Continue a run's journal."""
    with (run / "files" / "journal" / WRITER / "000001.jsonl").open("ab") as segment:
        segment.write(b"".join(logs(first, last, data={"loss": value})))


def name_of(value: float, seq: int, base: str = WRITER) -> str:
    return f"{base}~{hashlib.sha256(logs(seq, seq, data={'loss': value})[0]).hexdigest()[:8]}"


def receipt(server: Server, run_id: str) -> Any:
    return server.api("GET", f"runs/admin/p/{run_id}/receipt").json()["writers"]


def digest_of(run: Path) -> str:
    digest = JournalDigest()
    lines = local_journal(run)[WRITER].splitlines(keepends=True)
    for seq, raw in enumerate(lines, 1):
        digest.add(seq, raw)
    return digest.upto(len(lines))


@pytest.mark.parametrize("shared", [1, 22, 4095, 4096, 4097, 9000])
def test_both_branches_are_delivered_and_neither_twice(
    server: Server, place: Path, home: Path, run_id: str, shared: int
) -> None:
    """Synced again and again while both go on: the same names, each line once, and a true receipt for both."""
    run = run_dir(place / "run", run_id, {WRITER: [begin(run_id), *logs(2, shared)]})
    shutil.copytree(run, place / "copy")
    go_on(run, shared + 1, shared + 8, 1.0)
    go_on(place / "copy", shared + 1, shared + 5, 2.0)
    branch = name_of(2.0, shared + 1)
    for turn in range(3):
        for directory in (run, place / "copy"):
            said = server.sync(directory, home=home)
            assert said.code == 0 and said.runs[0]["faults"] == [], said
            assert server.sync(directory, home=home).runs[0]["status"] == "up_to_date"
        there = receipt(server, run_id)
        assert set(there) == {WRITER, branch}
        assert there[WRITER]["digest"] == digest_of(run) and there[branch]["digest"] == digest_of(place / "copy")
        assert there[branch]["base"] == [WRITER, shared]
        stored = server.journal(run_id)
        assert stored[WRITER] == local_journal(run)[WRITER]
        assert local_journal(place / "copy")[WRITER] == (
            b"".join(stored[WRITER].splitlines(keepends=True)[:shared]) + stored[branch]
        )
        first = shared + 9 + 3 * turn
        go_on(run, first, first + 2, 1.0)
        go_on(place / "copy", shared + 6 + 3 * turn, shared + 8 + 3 * turn, 2.0)
    for directory in (run, place / "copy"):
        (directory / "sync.json").unlink()
        assert server.sync(directory, home=home).code == 0
    (count,) = server.query("SELECT records FROM runs WHERE run_id = ?", run_id)
    assert count == (sum(len(lines.splitlines()) for lines in server.journal(run_id).values()),)


def test_both_copies_can_be_cleaned(server: Server, place: Path, home: Path, run_id: str) -> None:
    """Each is proven by its own receipt; the lines that both have are on the server once."""
    run = run_dir(place / "run", run_id, {WRITER: [begin(run_id), *logs(2, 10)]})
    shutil.copytree(run, place / "copy")
    for directory, value in ((run, 1.0), (place / "copy", 2.0)):
        with (directory / "files" / "journal" / WRITER / "000001.jsonl").open("ab") as segment:
            segment.write(b"".join([*logs(11, 14, data={"loss": value}), line(15, "finish", {"state": "finished"})]))
    journals = local_journal(run), local_journal(place / "copy")
    for directory in (run, place / "copy"):
        said = server.sync(directory, home=home, options=("--clean",))
        assert said.code == 0 and said.runs[0]["cleaned"]["reason"] is None, said
        assert not directory.exists()
    stored = server.journal(run_id)
    assert stored[WRITER] == journals[0][WRITER]
    assert stored[name_of(2.0, 11)] == b"".join(journals[1][WRITER].splitlines(keepends=True)[10:])


def test_a_branch_of_a_branch(server: Server, place: Path, home: Path, run_id: str) -> None:
    """A third machine continued the second one's copy; a fourth left the first at the same place as the second."""
    one = run_dir(place / "one", run_id, {WRITER: [begin(run_id), *logs(2, 10)]})
    shutil.copytree(one, place / "two")
    shutil.copytree(one, place / "four")
    go_on(one, 11, 20, 1.0)
    go_on(place / "two", 11, 15, 2.0)
    shutil.copytree(place / "two", place / "three")
    go_on(place / "two", 16, 20, 2.0)
    go_on(place / "three", 16, 22, 3.0)
    go_on(place / "four", 11, 12, 4.0)
    for _ in range(2):
        for name in ("one", "two", "three", "four"):
            (place / name / "sync.json").unlink(missing_ok=True)
            said = server.sync(place / name, home=home)
            assert said.code == 0, said
    second = name_of(2.0, 11)
    third = name_of(3.0, 16, second)
    there = receipt(server, run_id)
    assert set(there) == {WRITER, second, third, name_of(4.0, 11)}
    assert there[third]["base"] == [second, 15]
    for name, writer in (("one", WRITER), ("two", second), ("three", third), ("four", name_of(4.0, 11))):
        assert there[writer]["digest"] == digest_of(place / name)
    assert server.query("SELECT records FROM runs WHERE run_id = ?", run_id) == [(20 + 10 + 7 + 2,)]


def test_a_branch_is_seen_behind_the_lines_that_it_shares(server: Server, place: Path, home: Path, run_id: str) -> None:
    """Where both logged a step, the later record wins; the shared beginning counts once; config of both is seen."""
    run = run_dir(place / "run", run_id, {WRITER: [begin(run_id), *logs(2, 10)]})
    shutil.copytree(run, place / "copy")
    go_on(run, 11, 20, 1.0)
    with (place / "copy" / "files" / "journal" / WRITER / "000001.jsonl").open("ab") as segment:
        later = [line(seq, step=seq, data={"loss": 2.0}, t=1_700_000_000.5 + seq) for seq in range(11, 15)]
        segment.write(b"".join([*later, line(15, "config", {"machine": "two"})]))
    for directory in (run, place / "copy"):
        assert server.sync(directory, home=home).code == 0
    series = server.api("GET", f"runs/admin/p/{run_id}/series?metric=loss&points=1000").json()
    expected = {**{s: s / 2 for s in range(2, 11)}, **dict.fromkeys(range(11, 21), 1.0)}
    expected.update(dict.fromkeys(range(11, 15), 2.0))
    assert dict(zip(series["steps"], series["values"], strict=True)) == expected
    assert server.api("GET", f"runs/admin/p/{run_id}").json()["config"]["machine"] == "two"


def test_a_gap_in_the_shared_beginning_is_filled_for_the_branch_too(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """The branch's digest is over lines of its base: it is made anew when one of them arrives late."""
    whole = run_dir(place / "whole", run_id, {WRITER: [begin(run_id), *logs(2, 5000)]})
    shutil.copytree(whole, place / "copy")
    shutil.copytree(whole, place / "other")
    segment = place / "copy" / "files" / "journal" / WRITER / "000001.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[6] = b"#\n"
    segment.write_bytes(b"".join(lines))
    go_on(whole, 5001, 5010, 1.0)
    go_on(place / "copy", 5001, 5010, 1.0)
    go_on(place / "other", 5001, 5005, 2.0)
    assert server.sync(place / "copy", home=home).code == 3
    said = server.sync(place / "other", home=home)
    assert said.code == 3 and "lacks seq 7-7" in said.runs[0]["faults"][0], said
    assert receipt(server, run_id)[name_of(2.0, 5001)]["lost"] == [[7, 7]]
    assert server.sync(whole, home=home).code == 0
    assert server.sync(place / "other", home=home).code == 0
    there = receipt(server, run_id)
    assert there[name_of(2.0, 5001)] == {
        "last": 5005, "lost": [], "base": [WRITER, 5000], "digest": digest_of(place / "other")
    }  # fmt: skip


def test_a_branch_that_need_not_be_one_is_refused(server: Server, run_id: str) -> None:
    """Its name, its base and its first line must be right, so that one journal is never here under two names."""
    server.api("PUT", f"runs/admin/p/{run_id}", {"alive": False})
    path = f"runs/admin/p/{run_id}/records"
    shared, mine, other = [begin(run_id), *logs(2, 10)], logs(11, 12), logs(11, 12, data={"loss": -1.0})
    digest = JournalDigest()
    for seq, raw in enumerate(shared, 1):
        digest.add(seq, raw)
    upto = digest.upto(10)
    body = zstd(b"".join([*shared, *mine]))
    assert server.api("POST", f"{path}/{WRITER}?first=1&before={EMPTY}", body).status == 200

    def send(name: str, lines: list[bytes], base: str | None, before: str = upto, first: int = 11) -> int:
        query = f"first={first}&before={before}" + (f"&base={base}" if base else "")
        return server.api("POST", f"{path}/{name}?{query}", zstd(b"".join(lines))).status

    right = name_of(-1.0, 11)
    assert send(right, other, None) == 422, "no base"
    assert send(f"{WRITER}~00000000", other, WRITER) == 422, "another name"
    assert send(right, other, "nobody") == 422, "no such base"
    assert send(right, other, WRITER, before=EMPTY) == 409, "another beginning"
    same = f"{WRITER}~{hashlib.sha256(mine[0]).hexdigest()[:8]}"
    assert send(same, mine, WRITER) == 422, "it is the base's own line"
    behind = f"{WRITER}~{hashlib.sha256(logs(13, 13)[0]).hexdigest()[:8]}"
    assert send(behind, logs(13, 13), WRITER, first=13) in (409, 422), "the base has not come so far"
    assert set(receipt(server, run_id)) == {WRITER}
    assert send(right, other, WRITER) == 200 and send(right, other, WRITER) == 200
    assert receipt(server, run_id)[right]["last"] == 12
