"""Servers, trainings and watches for these tests; what they started is ended behind them, by its process id."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..server import fixtures
from .tools import Trainings, end_followers

home = fixtures.home
own_server = fixtures.own_server
place = fixtures.place
server = fixtures.server

_numbers = itertools.count()


@pytest.fixture
def run_id() -> str:
    """A run id that no other test of this server uses."""
    return f"live{next(_numbers):04d}"


@pytest.fixture
def trainings(home: Path, place: Path) -> Iterator[Trainings]:
    """Starts trainings that record into `place`."""
    started = Trainings(home, place)
    yield started
    started.close()
    end_followers(place)
