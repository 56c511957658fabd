"""A recording process that is killed, and what is known of it afterwards from outside.

The victim is forked, logs, and after each log() has returned counts it in shared memory, which outlives it. What was
counted must be in the journal, as read by the few lines of code that docs/format.md prints and nothing of flightlog.
"""

from __future__ import annotations

import mmap
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import flightlog
from flightlog.journal.writer import Writer

_FORMAT = Path(__file__).parents[2] / "docs" / "format.md"
SLOTS = 4


def printed_reader() -> Callable[[Path], list[dict[str, Any]]]:
    """Return the reader that the format's page prints."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", _FORMAT.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.partition("\n\n\nfor ")[0], names)
    reader: Callable[[Path], list[dict[str, Any]]] = names["read"]
    return reader


class Acknowledged:
    """Counters in shared memory, one per process: how many log() calls have returned."""

    def __init__(self) -> None:
        # One store per count: struct.pack_into would write zeros first, and the kill may come just then.
        self._counts = memoryview(mmap.mmap(-1, 8 * SLOTS)).cast("q")

    def count(self, slot: int, value: int) -> None:
        self._counts[slot] = value

    def __getitem__(self, slot: int) -> int:
        return self._counts[slot]


@dataclass(frozen=True)
class Plan:
    """What a victim does until it is killed."""

    folder: Path
    run_id: str
    pause: float = 0.0
    children: int = 0
    segment_size: int = 16 << 20
    finish_after: int | None = None
    log_nothing: bool = False


def record(plan: Plan, acknowledged: Acknowledged, ready: int) -> NoReturn:
    """Be the victim: record until killed (or finished), in a process group of one's own."""
    try:
        os.setpgid(0, 0)
        assert Writer.__init__.__kwdefaults__ is not None
        Writer.__init__.__kwdefaults__["segment_size"] = plan.segment_size
        run = flightlog.init("crash", id=plan.run_id, dir=plan.folder, config={"lr": 0.1})
        slot = 0
        for child in range(1, plan.children + 1):
            if os.fork() == 0:
                slot = child
                break
        if slot == 0:
            os.write(ready, b"r")
        while plan.log_nothing:
            time.sleep(1)
        _log(plan, run, acknowledged, slot)
    finally:
        os._exit(0)


def _log(plan: Plan, run: flightlog.Run, acknowledged: Acknowledged, slot: int) -> None:
    n = 0
    while plan.finish_after is None or n < plan.finish_after:
        run.log({"n": n, "slot": slot, "loss": 1.0 / (n + 1), "text": "x" * (n % 50)}, step=n)
        n += 1
        acknowledged.count(slot, n)
        if plan.pause:
            time.sleep(plan.pause)
    run.finish()


def start(plan: Plan, acknowledged: Acknowledged) -> int:
    """Fork a victim and return its pid once its init() has returned."""
    ready, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        record(plan, acknowledged, write)
    os.close(write)
    assert os.read(ready, 1) == b"r", "the victim died before init() returned"
    os.close(ready)
    return pid


def recorded(folder: Path) -> dict[int, list[int]]:
    """Return, by slot, what was logged, read by the format alone; every writer's seqs must be without holes."""
    read = printed_reader()
    by_slot: dict[int, list[int]] = {}
    for journal in folder.glob("run-*/files/journal"):
        for writer in journal.iterdir():
            records = read(writer)
            assert [r["seq"] for r in records] == list(range(1, len(records) + 1)), writer
            for entry in records:
                if entry["kind"] == "log":
                    assert entry["step"] == entry["data"]["n"]
                    by_slot.setdefault(entry["data"]["slot"], []).append(entry["data"]["n"])
    return by_slot
