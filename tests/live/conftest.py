"""Servers, trainings and watches for these tests; what they started is ended behind them, by its process id."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..server.tools import Server
from .tools import Trainings, end_followers

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that do not harm it. Whatever they send, its log must not show a traceback."""
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()
    assert "Traceback" not in server.stderr, server.stderr


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be killed."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder).start()
    yield server
    server.stop()


@pytest.fixture
def run_id() -> str:
    """A run id that no other test of this server uses."""
    return f"live{next(_numbers):04d}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder without settings or keys."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for run directories."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def trainings(home: Path, place: Path) -> Iterator[Trainings]:
    """Starts trainings that record into `place`."""
    started = Trainings(home, place)
    yield started
    started.close()
    end_followers(place)
