"""Servers for these tests: one that all share, and one of a test's own to stop, kill and fill."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from . import fixtures
from .tools import Proxy, Server, proxied

home = fixtures.home
own_server = fixtures.own_server
place = fixtures.place
server = fixtures.server

_numbers = itertools.count()


@pytest.fixture
def run_id() -> str:
    """A run id that no other test of this server uses."""
    return f"run{next(_numbers):04d}"


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A network in front of the shared server that can be made to fail."""
    with proxied(server) as proxy:
        yield proxy
