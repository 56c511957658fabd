"""A server that the commands of these tests talk to, and folders of each test's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..server.tools import Server

_numbers = itertools.count()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all of these tests; its log must not show a traceback."""
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()
    assert "Traceback" not in server.stderr, server.stderr


@pytest.fixture
def run_id() -> str:
    """A run id that no other of these tests uses."""
    return f"cli{next(_numbers):04d}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder, outside of the place that runs are in."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for run directories."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder
