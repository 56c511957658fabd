"""A server and a forge for the module's tests; a test that kills the server starts it again on the same folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import service
from .fleet import Forge
from .service import Service


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, forge: Forge) -> Iterator[Service]:
    """One server for all of these tests. Whatever happens to it, its log must not show a traceback."""
    server = service.start(tmp_path_factory.mktemp("server"), forge)
    yield server
    server.stop()
    assert "Traceback" not in server.stderr, server.stderr


@pytest.fixture(scope="package")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Where runs are recorded."""
    forge = Forge(tmp_path_factory.mktemp("forge"))
    yield forge
    forge.close()
