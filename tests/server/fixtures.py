"""What every suite that talks to a server needs; each conftest takes from here what its tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .tools import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that do not harm it. Whatever they send, its log must not show a traceback."""
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()
    assert "Traceback" not in server.stderr, server.stderr


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be stopped, killed and filled."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder).start()
    yield server
    server.stop()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder without settings or keys, outside of the place that runs are in."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for run directories."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder
