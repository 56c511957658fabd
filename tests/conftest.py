"""What every test stands on: a folder and a home of its own, and a recorder whose internal errors are failures."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from flightlog import current, terminal

# No deadline: a busy machine is no fault. No database: a failure prints what repeats it, and the tree stays clean.
hypothesis.settings.register_profile("flightlog", deadline=None, database=None, print_blob=True, max_examples=80)
hypothesis.settings.load_profile("flightlog")

# Programs begun here hear Ctrl-C, also where the tests run in the background of a script, which ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)

_FOREIGN = ("FLIGHTLOG_", "WANDB_", "XDG_")


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tester's own settings, keys and folders out: nothing is read from them, nothing is written to them."""
    for name in os.environ:
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("CONFIG", "CACHE", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / f".{name.lower()}"))
    # Tests are about what a run is told; what it records of its surroundings by itself has tests of its own.
    monkeypatch.setenv("FLIGHTLOG_CONSOLE", "off")
    monkeypatch.setenv("FLIGHTLOG_SYSTEM_INTERVAL", "0")
    monkeypatch.setenv("FLIGHTLOG_PROVENANCE", "false")
    # No test's run goes to a server by itself; tests/live says so where one shall.
    monkeypatch.setenv("FLIGHTLOG_MODE", "offline")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def merciless_recorder(own_surroundings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Raise every internal error, forget what has been warned of, and leave no run open behind a test."""
    monkeypatch.setattr(terminal, "raise_internal_errors", True)
    terminal._said.clear()
    yield
    current.finish()
    terminal._said.clear()
