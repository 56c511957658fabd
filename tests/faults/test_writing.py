"""Syncs of a run that is being written: what they say they have delivered is so, and the end has everything."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from . import proxy as net
from .fleet import Forge, Training
from .machine import Machine, results
from .proxy import Proxy, Rule
from .scenario import FLEETING, LASTING
from .service import Service
from .truth import Truth, claim_holds, claims, read_journal, sizes_of, there


def test_synced_again_and_again_while_it_is_written(
    forge: Forge, here: Machine, proxy: Proxy, server: Service, tmp_path: Path
) -> None:
    """A training that logs all the time, in segments that rotate: each sync holds what it says, the last all."""
    training = forge.training().begin(tmp_path / "runs", seed=7, segment=20_000, console="wrap")
    ended = threading.Event()

    def train() -> None:
        for _ in range(60):
            training.do("log", count=10, text=200)
            training.do("say", count=1)
            training.do("media", count=1)
            time.sleep(0.01)
        training.finish()
        ended.set()

    thread = threading.Thread(target=train)
    thread.start()
    syncs = 0
    while not ended.is_set() or syncs < 3:
        before = read_journal(training.run)
        said = here.sync(training.run)
        assert said.code == 0, said
        assert claims(training.run, proxy.url) is not None
        found = there(server, training.address, ["run", "log", "console", "media", "config", "finish", "summary"])
        for name, lines in before.items():
            assert lines.items() <= found.writer(name).items(), "exit 0, and something that was there is not"
        claim_holds(training.run, proxy.url, server, training.address)
        syncs += 1
    thread.join()
    assert here.sync(training.run).code == 0
    truth = Truth([training.run], training.address)
    truth.compare(server)
    truth.compare_views(server, tmp_path)
    assert claims(training.run, proxy.url) == sizes_of(training.run)


def test_finished_between_the_records_and_the_receipt(
    training: Training, here: Machine, proxy: Proxy, server: Service
) -> None:
    """A run that ends during its sync is not taken for finished and delivered: the next sync brings the end."""
    proxy.rules = [Rule("receipt", net.acting(training.finish))]
    said = here.sync(training.run)
    assert said.code == 0, said
    claim_holds(training.run, proxy.url, server, training.address)
    again = here.sync(training.run)
    assert again.code == 0 and results(again)[0]["status"] == "delivered", again
    assert server.api("GET", f"runs/{training.address}").json()["state"] == "finished"
    Truth([training.run], training.address).compare(server)


@pytest.mark.parametrize("route", ["packs", "receipt"])
def test_another_delivers_more_of_it_meanwhile(
    training: Training, here: Machine, elsewhere: Machine, proxy: Proxy, server: Service, route: str
) -> None:
    """A follower beside a sync by hand: the server is further than what that one has read, and nothing is damaged."""
    outcome = []

    def more() -> None:
        training.do("log", count=30)
        outcome.append(elsewhere.sync(training.run))

    proxy.rules = [Rule(route, net.acting(more))]
    said = here.sync(training.run)
    assert outcome and outcome[0].code == 0, outcome
    assert said.code == 0 and results(said)[0]["status"] == "delivered", said
    claim_holds(training.run, proxy.url, server, training.address)
    training.finish()
    assert here.sync(training.run).code == 0
    Truth([training.run], training.address).compare(server)


def test_killed_between_two_syncs(training: Training, here: Machine, server: Service) -> None:
    """A training that is killed after it was delivered whole has crashed, though its journal did not grow."""
    assert here.sync(training.run).code == 0
    assert server.api("GET", f"runs/{training.address}").json()["state"] == "running"
    training.kill()
    assert here.sync(training.run).code == 0
    assert server.api("GET", f"runs/{training.address}").json()["state"] == "crashed"
    Truth([training.run], training.address).compare(server)


def test_a_torn_tail(training: Training, here: Machine, server: Service) -> None:
    """Half a line at the end, as a power cut leaves it, is no damage: what was whole is delivered, with status 0."""
    training.kill()
    journal = training.run / "files" / "journal"
    segment = max(journal.glob("*/*.jsonl"), key=lambda p: p.stat().st_size)
    with segment.open("r+b") as file:
        os.truncate(file.fileno(), segment.stat().st_size - 11)
    said = here.sync(training.run)
    assert said.code == 0, said
    Truth([training.run], training.address).compare(server)


def test_stopped_for_a_while(training: Training, here: Machine, server: Service, proxy: Proxy) -> None:
    """A sync that is suspended (a laptop that sleeps) goes on when it is woken; the training did not wait for it."""
    waiting = threading.Event()
    proxy.rules = [Rule("packs", net.acting(waiting.set))]
    command = here.syncing(training.run)
    assert waiting.wait(30)
    command.kill(signal.SIGSTOP)
    training.do("log", count=100)
    time.sleep(0.5)
    command.kill(signal.SIGCONT)
    said = command.wait()
    assert said.code == 0, said
    training.finish()
    assert here.sync(training.run).code == 0
    Truth([training.run], training.address).compare(server)


def test_rotated_and_resumed_during_a_sync(
    forge: Forge, here: Machine, proxy: Proxy, server: Service, tmp_path: Path
) -> None:
    """New segments and a new writer that appear while it is delivered come with the next sync, in their order."""
    training = forge.training().begin(tmp_path / "runs", seed=11, segment=10_000)
    training.do("log", count=100)

    def go_on() -> None:
        training.do("log", count=200)
        training.do("resume")
        training.do("log", count=20)

    proxy.rules = [Rule("records", net.acting(go_on))]
    assert here.sync(training.run).code == 0
    claim_holds(training.run, proxy.url, server, training.address)
    training.finish()
    assert here.sync(training.run).code == 0
    truth = Truth([training.run], training.address)
    truth.compare(server)
    truth.compare_views(server, tmp_path)


def test_many_runs_one_of_which_fails(
    forge: Forge, here: Machine, proxy: Proxy, server: Service, tmp_path: Path
) -> None:
    """One sync of many runs, small and large: one that meets a refusal fails alone, and status 1 says that one did."""
    trainings = []
    for number in range(12):
        training = forge.training().begin(tmp_path / "runs", seed=number)
        training.do("log", count=10, text=100 if number % 3 else 60_000)
        training.finish()
        trainings.append(training)
    proxy.rules = [Rule("register", net.answer(422), skip=1)]
    said = here.sync(tmp_path / "runs")
    statuses = [str(r["status"]) for r in results(said)]
    assert said.code == 1 and sorted(statuses) == ["delivered"] * 11 + ["failed"], said
    assert here.sync(tmp_path / "runs").code == 0
    for training in trainings:
        Truth([training.run], training.address).compare(server)


@pytest.mark.parametrize(
    "name",
    [
        *("lost answer", "short request"),
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("reset", "503", "504, though done", "captive portal")),
    ],
)
def test_many_small_runs_and_a_bad_network(
    name: str, forge: Forge, here: Machine, proxy: Proxy, server: Service, tmp_path: Path
) -> None:
    """Small runs travel together: what fails them does so for those that it hit, and the next sync has them all."""
    trainings = []
    for number in range(5):
        training = forge.training().begin(tmp_path / "runs", seed=number)
        training.do("log", count=10)
        training.do("media", count=2)
        training.finish()
        trainings.append(training)
    proxy.rules = [Rule("parcels", {**FLEETING, **LASTING}[name])]
    said = here.sync(tmp_path / "runs", timeout=0)
    assert proxy.met and said.code in (0, 1) and "Traceback" not in said.err, said
    for training, result in zip(trainings, results(said), strict=True):
        claim_holds(training.run, proxy.url, server, training.address)
        assert said.code == 1 or result["status"] == "delivered", said
    assert here.sync(tmp_path / "runs").code == 0
    for training in trainings:
        Truth([training.run], training.address).compare(server)


def test_what_sync_writes_is_no_file_of_the_training(training: Training, here: Machine, server: Service) -> None:
    """A sync.json that lies beside a run that is still recorded is not kept as a file that the script has written."""
    assert here.sync(training.run).code == 0
    training.finish()
    assert not (training.run / "files" / "saved").exists()
    assert here.sync(training.run).code == 0
    receipt = server.api("GET", f"runs/{training.address}/receipt").json()
    assert not [path for path in receipt["files"] if path.endswith("sync.json")]


def test_the_folder_is_not_changed_by_a_failed_sync(training: Training, here: Machine, proxy: Proxy) -> None:
    """A sync that fails leaves the run directory as it was, but for its sync.json."""
    training.finish()
    before = _listing(training.run)
    proxy.rules = [Rule("packs", net.answer(503))]
    assert here.sync(training.run, timeout=0).code == 1
    assert _listing(training.run) == before


def _listing(run: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p): (p.lstat().st_size, p.lstat().st_mtime_ns)
        for p in run.rglob("*")
        if p.is_file() and not p.name.startswith(("sync.json", ".sync"))
    }
