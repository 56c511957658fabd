"""The lines that a run begins and ends with: where it writes, what was recorded, the command that delivers it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .run import Run
from .terminal import say, typed

if TYPE_CHECKING:
    from .online import Online


def announce_start(run: Run, online: Online | None = None) -> None:
    """Say where a run writes and how to look at it. Of several ranks in one directory, one says so for all."""
    if not run.owns_directory:
        return
    verb = "continues" if run.resumed else "records"
    say(f"run {run.name} ({run.id}) {verb} in {_shown(run.dir)}")
    if online is not None:
        say(f"online: it is delivered to {online.origin} while it runs")


def announce_end(run: Run, online: Online | None = None) -> None:
    """Say what was recorded, and either where it is now or the command that delivers it."""
    if not (run.recording and run.owns_directory):
        return
    size = run.size
    amount = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
    say(f"run {run.name} {run.state}: {run.records:,} records, {amount}")
    if online is None:
        say(f"deliver it with: flightlog sync {_shown(run.dir)}")
        return
    # What takes the machine away leaves no time.
    url = online.finish(run.rundir, wait=run.state != "preempted")
    if url is not None:
        say(f"delivered: {url}")
    else:
        # The shell that this is typed into may know of another server, or of none.
        command = f"flightlog sync {_shown(run.dir)} --server {online.origin}"
        say(f"not all of it is delivered yet; to go on with that: {command}")


def _shown(path: Path) -> str:
    """Return a path as it is typed into the shell that the script was started from."""
    text = str(path)
    with contextlib.suppress(OSError, ValueError):
        # A script that has changed its folder since: what is relative here leads nowhere there.
        is_shells = Path(os.environ.get("PWD") or os.curdir).samefile(os.curdir)
        near = os.path.relpath(path)
        text = near if is_shells and not near.startswith("..") else text
    return typed(text)
