"""Runs that leave the disk while a sync is under way: what was cleaned after this server's proof counts as there."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flightlog import keys
from flightlog.client import Client
from flightlog.rundir import RunDir
from flightlog.sync import tidy
from flightlog.sync.departed import DELIVERED_TO, Departures, aside_of, has_left
from flightlog.sync.local import Identity
from flightlog.sync.session import find_runs, sync
from flightlog.sync.stock import Stock
from flightlog.sync.watch import Progress

from .tools import Server, add_media, quick, run_dir

HERE = "http://here"


def clean(run: Path, run_id: str, servers: list[str], **more: Any) -> None:
    """Do what a cleaning sync leaves behind."""
    spec = {"id": run_id, "project": "p", **more, DELIVERED_TO: servers}
    (run.parent / ".delivered").mkdir(exist_ok=True)
    (run.parent / ".delivered" / f"{run_id}.spec").write_text(json.dumps(spec))
    os.rename(run, run.with_name(".flightlog-trash-x"))


@pytest.mark.parametrize(("servers", "counts"), [([HERE], True), (["http://there", HERE], True), ([], False)])
def test_only_this_servers_proof_counts(place: Path, run_id: str, servers: list[str], counts: bool) -> None:
    """A run that another sync has cleaned after another server's proof is not on this one."""
    run = RunDir(run_dir(place / "run-x", run_id))
    departures = Departures([run], HERE)
    assert not has_left(run) and not departures.were_cleaned(run)
    clean(run.path, run_id, servers)
    assert has_left(run)
    assert departures.were_cleaned(run) is counts


def test_what_an_earlier_cleaning_left_proves_nothing(place: Path, run_id: str) -> None:
    """A run that was cleaned, resumed, and then taken away by its owner has not been cleaned once more."""
    clean(run_dir(place / "run-x", run_id), run_id, [HERE])
    again = RunDir(run_dir(place / "run-y", run_id))
    departures = Departures([again], HERE)
    os.rename(again.path, place / "taken")
    assert has_left(again) and not departures.were_cleaned(again)


@pytest.mark.parametrize("aside", ["", ".cleaning"])
def test_a_run_that_left_before_anybody_looked_into_it(place: Path, run_id: str, aside: str) -> None:
    """Found while another cleaned it, which its folder's name and what is left tell; what is older proves nothing."""
    run = RunDir(run_dir(place / f"run-20261127-120000-{run_id}{aside}", run_id))
    clean(run.path, run_id, [HERE])
    assert has_left(run)
    assert Departures([run], HERE).were_cleaned(run) and Departures([run], None).were_cleaned(run)
    assert not Departures([run], "http://there").were_cleaned(run)
    os.utime(place / ".delivered" / f"{run_id}.spec", (0, time.time() - 3600))
    assert not Departures([run], HERE).were_cleaned(run)


def test_one_that_is_being_cleaned_already_when_it_is_found(place: Path, run_id: str) -> None:
    """It stands aside, and what is left of it is written: it goes a moment later, and that is no loss."""
    run = RunDir(run_dir(place / f"run-20261127-120000-{run_id}", run_id))
    aside = aside_of(run)
    clean(run.path, run_id, [HERE])
    os.rename(place / ".flightlog-trash-x", aside.path)
    departures = Departures([aside], HERE)
    os.rename(aside.path, place / ".flightlog-trash-x")
    assert has_left(aside) and departures.were_cleaned(aside)


def test_clean_goes_by_another_that_cleans(
    server: Server, home: Path, place: Path, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes while it is read has been cleaned by another, or was moved: not one that the server lacks."""
    runs = [run_dir(place / f"run-{n}", f"{run_id}{n}") for n in "abc"]
    assert server.sync(place, home=home).code == 0
    read = tidy.take_stock

    def meanwhile(directory: RunDir, identity: Identity) -> Stock:
        if directory.path == runs[0]:
            clean(runs[0], f"{run_id}a", [server.url])
        if directory.path == runs[1]:
            os.rename(runs[1], place.parent / f"{run_id}elsewhere")
        return read(directory, identity)

    monkeypatch.setattr(tidy, "take_stock", meanwhile)
    said = quick("clean", place, home=home, FLIGHTLOG_API_KEY=server.key, FLIGHTLOG_BASE_URL=server.url)
    assert said.code == 0 and said.out.count("another process has cleaned it meanwhile") == 1, said
    assert said.out.count("it was moved or deleted while this went on") == 1, said
    assert "1 run cleaned" in said.out and "; 1 kept; 1 cleaned by another process" in said.out, said


@pytest.mark.parametrize("spec", ["", "[]", '{"id": 1}', '{"id": "x", "delivered_to": 7}'])
def test_nonsense_proves_nothing(place: Path, run_id: str, spec: str) -> None:
    """What is left in `.delivered` may be anything."""
    run = RunDir(run_dir(place / "run-x", run_id))
    departures = Departures([run], HERE)
    clean(run.path, run_id, [HERE])
    (place / ".delivered" / f"{run_id}.spec").write_text(spec)
    assert not departures.were_cleaned(run)


def test_a_cleaning_under_way_is_waited_for(place: Path, run_id: str) -> None:
    """A run that is put aside, and gets its name back since it has grown, has not left."""
    run = RunDir(run_dir(place / "run-x", run_id))
    os.rename(run.path, aside_of(run).path)

    def back() -> None:
        time.sleep(0.2)
        os.rename(aside_of(run).path, run.path)

    thread = threading.Thread(target=back)
    thread.start()
    assert not has_left(run)
    thread.join()


def test_a_run_that_is_moved_before_it_is_read_fails_with_these_words(server: Server, place: Path, run_id: str) -> None:
    """Found, and then moved while the sync asks who it is talking to: it was not delivered, and this is said."""
    stays, moves = run_dir(place / "run-a", f"{run_id}a"), run_dir(place / "run-b", f"{run_id}b")

    def connect(origin: str, key: str | None) -> Client:
        if moves.exists():
            os.rename(moves, place.parent / "elsewhere")
        return Client(origin, key)

    directories = find_runs([place]).runs
    report = sync(directories, keys.Server(server.url, trusted=True), server.key, connect=connect, progress=Progress())
    errors = {result.directory.path: result.error for result in report.results}
    assert report.exit_status == 1 and errors[stays] is None, report
    assert "was moved or deleted while this went on" in str(errors[moves])


def test_a_cleaned_run_says_who_has_proven_it(server: Server, place: Path, home: Path, run_id: str) -> None:
    """The spec that stays names the servers that hold all of it, and the folder of a killed cleaning gets its name."""
    run = run_dir(place / "run-x.cleaning", run_id)
    add_media(run, "a.txt", b"hello")
    (run / "files" / "notes.txt").write_text("mine")
    assert server.sync(run, home=home, options=("--clean",)).code == 0
    assert json.loads((place / ".delivered" / f"{run_id}.spec").read_bytes())[DELIVERED_TO] == [server.url]
    assert (place / "run-x" / "files" / "notes.txt").read_text() == "mine"
