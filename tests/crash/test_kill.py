"""SIGKILL loses nothing for which log() had returned, whoever is killed and whenever."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

import flightlog

from .victim import Acknowledged, Plan, recorded, start

KILLS = 100
MANY = 1000


def plan_of(seed: int, folder: Path) -> tuple[Plan, float]:
    """Return what a victim of this seed does, and the seconds after which it is killed."""
    chance = random.Random(seed)
    kind = chance.choice(["steady", "paced", "rotating", "group", "finishing", "silent"])
    run_id = f"victim{seed}"
    plans = {
        "steady": Plan(folder, run_id),
        "paced": Plan(folder, run_id, pause=0.001),
        "rotating": Plan(folder, run_id, segment_size=2000),
        "group": Plan(folder, run_id, children=chance.randint(1, 3), pause=chance.choice([0.0, 0.0005])),
        "finishing": Plan(folder, run_id, finish_after=chance.randint(1, 400)),
        "silent": Plan(folder, run_id, log_nothing=True),
    }
    return plans[kind], chance.uniform(0.0, 0.06)


def kill_and_check(seed: int, folder: Path) -> None:
    """Start a victim, kill its process group, and hold what is on disk against what was acknowledged."""
    plan, delay = plan_of(seed, folder)
    acknowledged = Acknowledged()
    pid = start(plan, acknowledged)
    time.sleep(delay)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it had finished
    os.waitpid(pid, 0)
    found = recorded(folder)
    for slot in range(plan.children + 1):
        logged = found.get(slot, [])
        assert logged == list(range(len(logged))), f"seed {seed}, {plan}"
        # One more than acknowledged may be there: written, and killed before it could be counted.
        assert acknowledged[slot] <= len(logged) <= acknowledged[slot] + 1, f"seed {seed}, {plan}"
    _check_that_it_goes_on(seed, plan, max((len(v) for v in found.values()), default=0))


def _check_that_it_goes_on(seed: int, plan: Plan, steps: int) -> None:
    """The run is readable by flightlog itself, and a new process continues it."""
    run = flightlog.Api(plan.folder).run(plan.run_id)
    assert run.state in ("crashed", "finished"), f"seed {seed}"
    assert run.config == {"lr": 0.1}
    with flightlog.init("crash", id=plan.run_id, dir=plan.folder, resume="must") as resumed:
        assert resumed.resumed and resumed.step == steps, f"seed {seed}, {plan}"
        resumed.log({"n": steps})
    after = flightlog.Api(plan.folder).run(plan.run_id)
    assert after.state == "finished", f"seed {seed}"
    assert [row["_step"] for row in after.history()] == list(range(steps + 1)), f"seed {seed}"


@pytest.mark.parametrize("tens", range(KILLS // 10))
def test_what_was_acknowledged_is_there_after_sigkill(tens: int, tmp_path: Path) -> None:
    """Ten seeded kills each, of a process or a group: while logging, rotating, finishing, or before the first log."""
    for seed in range(tens * 10, tens * 10 + 10):
        kill_and_check(seed, tmp_path / str(seed))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_kills(tmp_path: Path) -> None:
    """The same a thousand times."""
    for seed in range(1000, 1000 + MANY):
        kill_and_check(seed, tmp_path / str(seed))
