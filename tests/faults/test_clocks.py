"""Clocks that are wrong: the recorder's, the client's, the server's, by hours or by a year, ahead or behind."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .fleet import Forge, Training
from .machine import Machine, results
from .proxy import Proxy
from .service import Service, started
from .truth import Truth

YEAR, HOURS = 86_400.0 * 366, 3600.0 * 5


@pytest.mark.parametrize("clock", [YEAR, -HOURS, *(pytest.param(c, marks=pytest.mark.slow) for c in (HOURS, -YEAR))])
def test_two_machines_recorded_with_clocks_apart(
    clock: float, forge: Forge, here: Machine, server: Service, tmp_path: Path
) -> None:
    """A run begun by one clock and continued by another: the later record is the one that came later, on both sides."""
    first = forge.training().begin(tmp_path / "runs", seed=1)
    first.do("log", count=50)
    first.finish()
    assert here.sync(first.run).code == 0
    then = forge.training().begin(tmp_path / "runs", seed=2, id=first.id, clock=clock)
    then.do("log", count=50)
    then.do("facts")
    said = here.sync(then.run)
    assert said.code == 0, said
    then.finish()
    assert here.sync(tmp_path / "runs").code == 0
    truth = Truth([first.run], first.address)
    truth.compare(server)
    truth.compare_views(server, tmp_path)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, forge: Forge) -> Iterator[Service]:
    """A server whose clock goes wrong now and then."""
    with started(tmp_path_factory.mktemp("clocks"), forge) as server:
        yield server


@pytest.mark.parametrize(
    ("servers", "clients"),
    [
        (-YEAR, 0.0),
        (0.0, YEAR),
        *(pytest.param(*c, marks=pytest.mark.slow) for c in ((YEAR, 0.0), (0.0, -YEAR), (YEAR, -YEAR))),
    ],
)
def test_server_and_client_disagree_about_the_time(
    servers: float, clients: float, training: Training, patient: Service, forge: Forge, tmp_path: Path
) -> None:
    """Keys, receipts and what is pending do not depend on anybody's clock."""
    patient.stop()
    patient.clock = servers
    patient.start()
    with Machine(tmp_path / "machine", patient.url, patient.key, forge, clock=clients) as machine:
        assert machine.sync(training.run).code == 0
        training.do("log", count=20)
        said = machine.sync(training.run)
        assert said.code == 0 and results(said)[0]["records_sent"] == 20, said
        training.finish()
        assert machine.sync(training.run).code == 0
        again = machine.sync(training.run)
        assert again.code == 0 and results(again)[0]["status"] == "up_to_date", again
    truth = Truth([training.run], training.address)
    truth.compare(patient)
    truth.compare_views(patient, tmp_path)


@pytest.mark.parametrize("clock", [YEAR, -YEAR])
def test_cleaning_by_a_wrong_clock(
    clock: float, training: Training, server: Service, forge: Forge, proxy: Proxy, tmp_path: Path
) -> None:
    """A finished run is cleaned, or kept if its files look younger than the proof; nothing that was not proven goes."""
    training.finish()
    kept = tmp_path / "kept" / training.run.name
    shutil.copytree(training.run, kept)
    with Machine(tmp_path / "machine", proxy.url, server.key, forge, clock=clock) as machine:
        said = machine.sync(training.run, options=("--clean",))
        assert said.code == 0, said
    Truth([kept], training.address).compare(server)


def test_a_wrong_clock_does_not_make_a_run_quiet(
    training: Training, server: Service, forge: Forge, proxy: Proxy, tmp_path: Path
) -> None:
    """A run that broke off a moment ago is kept, whatever the client's clock says: somebody may still resume it."""
    training.kill()
    with Machine(tmp_path / "machine", proxy.url, server.key, forge, clock=YEAR) as machine:
        said = machine.sync(training.run, options=("--clean",))
        assert said.code == 0 and training.run.exists(), said


def test_a_journal_whose_times_run_backwards(
    training: Training, server: Service, here: Machine, forge: Forge, tmp_path: Path
) -> None:
    """A clock that is set back while it records: every record arrives, and both sides show the same."""
    training.do("set_clock", seconds=-HOURS)
    training.do("log", count=30)
    training.do("set_clock", seconds=2 * HOURS)
    training.do("log", count=30)
    assert here.sync(training.run).code == 0
    training.finish()
    assert here.sync(training.run).code == 0
    truth = Truth([training.run], training.address)
    truth.compare(server)
    truth.compare_views(server, tmp_path)


def test_files_from_the_future(training: Training, server: Service, here: Machine) -> None:
    """Modification times of next year, as a file server with a wrong clock gives them: delivered, and kept."""
    training.finish()
    subprocess.run(["find", str(training.run), "-exec", "touch", "-h", "-d", "next year", "{}", "+"], check=True)
    assert here.sync(training.run).code == 0
    truth = Truth([training.run], training.address)
    truth.compare(server)
    said = here.sync(training.run, options=("--clean",))
    assert said.code == 0 and training.run.exists(), said
