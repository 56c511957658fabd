"""A server and a forge for the module's tests; a test that kills the server starts it again on the same folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .fleet import MIB, Forge, Training
from .machine import Machine
from .proxy import Proxy
from .service import Service, started


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, forge: Forge) -> Iterator[Service]:
    """One server for all of these tests. Whatever happens to it, its log must not show a traceback."""
    with started(tmp_path_factory.mktemp("server"), forge) as server:
        yield server


@pytest.fixture(scope="package")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Where runs are recorded."""
    forge = Forge(tmp_path_factory.mktemp("forge"))
    yield forge
    forge.close()


@pytest.fixture
def proxy(server: Service) -> Iterator[Proxy]:
    """The network between."""
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()
    assert not proxy.troubles


@pytest.fixture
def here(server: Service, proxy: Proxy, forge: Forge, tmp_path: Path) -> Iterator[Machine]:
    """A machine."""
    machine = Machine(tmp_path / "here", proxy.url, server.key, forge)
    yield machine
    machine.close()


@pytest.fixture
def elsewhere(server: Service, proxy: Proxy, forge: Forge, tmp_path: Path) -> Iterator[Machine]:
    """Another machine."""
    machine = Machine(tmp_path / "elsewhere", proxy.url, server.key, forge)
    yield machine
    machine.close()


@pytest.fixture
def training(forge: Forge, tmp_path: Path) -> Iterator[Training]:
    """A training under way, with a little of everything."""
    training = forge.training()
    training.begin(tmp_path / "runs", seed=1000 + training.number)
    training.do("log", count=120)
    training.do("media", count=4)
    training.do("artifact", name="model", sizes=[2 * MIB, 1000])
    yield training
    if training.open:
        training.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 4 MiB. (`mount -o remount,size=…` makes it larger.)"""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a tmpfs is refused here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # also if a failed test holds it
