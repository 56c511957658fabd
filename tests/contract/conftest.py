"""One folder of runs, read twice: as it lies on disk, and from a server it was delivered to."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from flightlog import Api

from ..server import fixtures
from ..server.tools import Server, environment

home = fixtures.home
place = fixtures.place
server = fixtures.server

SOURCES = ("local", "server")


Read = Callable[[str], Api]


@pytest.fixture
def read(server: Server, place: Path, home: Path, request: pytest.FixtureRequest) -> Read:
    """A function that gives the runs of `place` as an Api over this source; "server" delivers them first."""
    account = f"user-{abs(hash(request.node.nodeid))}"
    keys: list[str] = []

    def open_source(source: str) -> Api:
        if source == "local":
            return Api(place)
        if not keys:
            keys.append(server.create_user(account))
        if not any(place.iterdir()):
            return Api(server.url, api_key=keys[0])
        said = server.sync(place, home=home, key=keys[0])
        assert said.code == 0, said
        return Api(server.url, api_key=keys[0])

    return open_source


Train = Callable[[str], None]


@pytest.fixture
def train(place: Path, home: Path) -> Train:
    """A function that runs a training script in `place`."""

    def run(script: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=place,
            env=environment(home),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return run
