"""The lines that a run begins and ends with: where it writes, what was recorded, the command that delivers it."""

from __future__ import annotations

import os
from pathlib import Path

from .run import Run
from .terminal import say


def announce_start(run: Run) -> None:
    """Say where a run writes and how to look at it."""
    verb = "continues" if run.resumed else "records"
    say(f"run {run.name} ({run.id}) {verb} in {_shown(run.dir)}")


def announce_end(run: Run) -> None:
    """Say what was recorded, and the command that delivers it."""
    if not run.recording:
        return
    size = run.size
    amount = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
    say(f"run {run.name} {run.state}: {run.records:,} records, {amount}")
    say(f"deliver it with: flightlog sync {_shown(run.dir)}")


def _shown(path: Path) -> str:
    try:
        text = os.path.relpath(path)
    except (OSError, ValueError):
        text = str(path)
    text = text if not text.startswith("..") else str(path)
    return text if text.replace("/", "").replace("-", "").replace(".", "").replace("_", "").isalnum() else f"'{text}'"
