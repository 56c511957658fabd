"""A server that the commands of these tests talk to, and folders of each test's own."""

from __future__ import annotations

import itertools

import pytest

from ..server import fixtures

home = fixtures.home
place = fixtures.place
server = fixtures.server

_numbers = itertools.count()


@pytest.fixture
def run_id() -> str:
    """A run id that no other of these tests uses."""
    return f"cli{next(_numbers):04d}"
