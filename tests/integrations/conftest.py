"""What the integrations' tests share: the recorder's errors are failures, in the processes that a test starts, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flightlog.journal.scan import RunJournal
from flightlog.reading import Api
from flightlog.reading.views import RunView
from flightlog.rundir import discover


@pytest.fixture(autouse=True)
def merciless_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the recorder raise its internal errors in child processes as well."""
    monkeypatch.setenv("_FLIGHTLOG_RAISE", "1")


@pytest.fixture
def only_run(tmp_path: Path) -> Callable[[], RunView]:
    """Return the one run that was recorded in the test's folder."""

    def read() -> RunView:
        (view,) = Api(tmp_path / "flightlog").runs()
        return view

    return read


@pytest.fixture
def artifact_records(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """Return the data of all artifact records in the test's folder, in order."""

    def read() -> list[dict[str, Any]]:
        journal = RunJournal([d.journal for d in discover(tmp_path / "flightlog")])
        return [record.data for _, record in journal.records(frozenset({"artifact"}), hidden=True)]

    return read
