"""Cleaning among other things that go on: only what the server has proven is deleted, and never under anybody."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import proxy as net
from .fleet import MIB, Forge, Training
from .machine import Command, Machine, results
from .proxy import Proxy, Rule
from .service import Service
from .truth import Truth


@pytest.fixture
def kept(training: Training, tmp_path: Path) -> Iterator[Truth]:
    """The training, finished, and a copy of it that nobody touches, to compare the server with."""
    training.finish()
    copy = tmp_path / "kept" / training.run.name
    shutil.copytree(training.run, copy)
    yield Truth([copy], training.address)


@pytest.mark.parametrize(
    "route", ["packs", "receipt", *(pytest.param(r, marks=pytest.mark.slow) for r in ("records", "missing", "files"))]
)
def test_cleaned_by_another_during_a_sync(
    route: str, training: Training, kept: Truth, here: Machine, elsewhere: Machine, server: Service, proxy: Proxy
) -> None:
    """While one sync is at work another delivers the same run and deletes it: nothing is missing, and both say so."""
    outcome = []
    proxy.rules = [Rule(route, net.acting(lambda: outcome.append(elsewhere.sync(training.run, options=("--clean",)))))]
    said = here.sync(training.run)
    assert outcome and outcome[0].code == 0, outcome
    assert said.code == 0 and results(said)[0]["cleaned"]["by_another"], said
    assert not training.run.exists(), "what was cleaned has come back"
    kept.compare(server)


def test_two_clean_at_once(training: Training, kept: Truth, here: Machine, elsewhere: Machine, server: Service) -> None:
    """Two that deliver and clean the same directory at the same time: it is gone, and all of it is on the server."""
    both = [here.syncing(training.run, options=("--clean",)), elsewhere.syncing(training.run, options=("--clean",))]
    for said in [command.wait() for command in both]:
        assert said.code in (0, 2) and "Traceback" not in said.err, said  # 2: it was gone before one had looked
    kept.compare(server)
    said = here.sync(training.run.parent, options=("--clean",))
    assert said.code in (0, 2), said  # 2: nothing is left that is a run
    left = [str(p.relative_to(training.run.parent)) for p in training.run.parent.glob("run-*/**/*")]
    assert not list(training.run.parent.glob("run-*")), f"{left} is left: {said}"
    kept.compare(server)


def test_it_grows_between_proof_and_deletion(
    training: Training, here: Machine, server: Service, proxy: Proxy, tmp_path: Path
) -> None:
    """A run that is resumed while the receipt travels is not deleted."""
    training.finish()
    again = []

    def resume() -> None:
        more = here.forge.training().begin(training.run.parent, id=training.id, seed=1) if here.forge else None
        assert more is not None
        more.do("log", count=5)
        again.append(more)

    proxy.rules = [Rule("receipt", net.acting(resume, "after"), skip=1)]
    said = here.sync(training.run, options=("--clean",))
    assert said.code in (0, 1) and again, said
    assert again[0].run.exists(), "a run that was being recorded was deleted"
    again[0].do("log", count=5)
    again[0].finish()
    assert here.sync(training.run.parent).code == 0
    Truth([training.run], training.address).compare(server)


def test_what_is_still_running_is_not_deleted(training: Training, here: Machine, server: Service) -> None:
    """--clean of a run whose training lives: delivered, kept, and the training goes on in it."""
    said = here.sync(training.run, options=("--clean",))
    assert said.code == 0 and training.run.exists(), said
    training.do("log", count=5)
    training.finish()
    copy = training.run.parent.parent / "copy"
    shutil.copytree(training.run, copy)
    said = here.sync(training.run, options=("--clean",))
    assert said.code == 0 and not training.run.exists(), said
    Truth([copy], training.address).compare(server)


@pytest.mark.parametrize("turns", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_while_it_cleans(turns: int, forge: Forge, server: Service, tmp_path: Path) -> None:
    """SIGKILL at moments around the deletion: what is left can be synced and cleaned again; nothing is lost."""
    seed = 20261127
    chance = random.Random(seed)
    with Proxy(server.port) as proxy, Machine(tmp_path / "machine", proxy.url, server.key, forge) as machine:
        for turn in range(turns):
            pause = chance.uniform(0.0, 0.02)
            training = forge.training().begin(tmp_path / f"runs-{turn}", seed=chance.randrange(1 << 30))
            _clean_and_kill(machine, proxy, training, pause)
            hint = f"seed {seed}, turn {turn}, {pause:.4f} s: {sorted(p.name for p in training.run.parent.iterdir())}"
            kept = Truth([tmp_path / "kept" / training.run.name], training.address)
            kept.compare(server)
            again = machine.sync(training.run.parent, options=("--clean",))
            assert again.code in (0, 2), f"{hint}: {again}"  # 2: nothing is left that is a run
            assert not list(training.run.parent.glob("run-*")), f"{hint}: {again}"
            kept.compare(server)


def _clean_and_kill(machine: Machine, proxy: Proxy, training: Training, pause: float) -> None:
    """Record a little, keep a copy, and kill the sync that cleans a moment after it has had its receipt."""
    training.do("log", count=50)
    training.do("artifact", name="model", sizes=[MIB, *[50] * 60])
    training.finish()
    shutil.copytree(training.run, training.run.parent.parent / "kept" / training.run.name)
    begun: list[Command] = []
    proxy.rules = [Rule("receipt", _answer_then_kill(begun, pause), skip=1)]
    begun.append(machine.syncing(training.run, options=("--clean",)))
    said = begun[0].wait()
    assert said.code in (0, -9), said


def _answer_then_kill(begun: list[Command], pause: float) -> net.Fault:
    """Pass a request on, and a moment later kill the one that asked."""

    def fault(exchange: net.Exchange) -> None:
        net.pass_on(exchange)
        time.sleep(pause)
        begun[0].kill()

    return fault


def test_a_run_with_files_that_no_record_names(
    training: Training, here: Machine, server: Service, tmp_path: Path
) -> None:
    """Notes laid beside the run's files stay and are listed, as the server was never told of them; the rest goes."""
    training.finish()
    copy = tmp_path / "kept" / training.run.name
    shutil.copytree(training.run, copy)
    notes = training.run / "files" / "my-notes.txt"
    notes.write_text("not recorded")
    said = here.sync(training.run, options=("--clean",))
    assert said.code == 0 and notes.read_text() == "not recorded", said
    assert "files/my-notes.txt" in str(results(said)[0]["cleaned"]), said
    assert [p.name for p in training.run.rglob("*") if p.is_file()] == ["my-notes.txt"]
    Truth([copy], training.address).compare(server)
