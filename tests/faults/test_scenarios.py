"""Seeded scenarios of every kind of trouble: nothing lost, nothing double, nothing claimed that is not so.

One of them again: `pytest tests/faults -k seed-17`; with `-m ""` those of the slow ones, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .fleet import Forge
from .scenario import Scenario
from .service import Service

QUICK, ALL = 40, 200
SEEDS = [pytest.param(seed, id=f"seed-{seed}", marks=[] if seed < QUICK else [pytest.mark.slow]) for seed in range(ALL)]


@pytest.mark.parametrize("seed", SEEDS)
def test_after_every_trouble_server_and_journal_are_the_same(
    seed: int, server: Service, forge: Forge, tmp_path: Path
) -> None:
    """Troubles as the seed draws them; then one sync, and all is there once, record for record and byte for byte."""
    scenario = Scenario(seed, tmp_path, server, forge, fresh=seed % 4 == 0 and seed >= QUICK)
    try:
        scenario.play()
    except BaseException:
        print(f"seed {seed}; what happened:", *scenario.script, sep="\n  ")
        raise
    finally:
        scenario.close()
