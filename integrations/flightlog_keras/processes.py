"""Which of a distributed training's processes this is, as the backend in use knows it; none is imported here."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import keras

from flightlog import launch, settings


def rank() -> int:
    """Return this process's number in the job, 0 where it is alone. Every copy of the model logs the same values."""
    backend = keras.backend.backend()
    with contextlib.suppress(Exception):  # an older backend has other names; the launcher's variables are left
        if backend == "torch":
            distributed = sys.modules["torch"].distributed
            if distributed.is_available() and distributed.is_initialized():
                return int(distributed.get_rank())
        elif backend == "jax":
            if sys.modules["jax"].process_count() > 1:
                return int(sys.modules["jax"].process_index())
        elif backend == "tensorflow":
            found = _of_cluster(os.environ.get("TF_CONFIG", ""))
            if found:
                return found
    return _of_launch()


def _of_launch() -> int:
    """Return the rank that a launcher (torchrun, srun, mpirun) has given this process."""
    found = launch.detect() if settings.load().ranks else None
    return found.rank if found is not None else 0


def _of_cluster(config: str) -> int:
    """Return the number of a task by TensorFlow's rule: the chief is the first; without one, worker 0 is."""
    if not config:
        return 0
    data = json.loads(config)
    task, has_chief = data.get("task", {}), "chief" in data.get("cluster", {})
    if task.get("type") in ("chief", "master"):
        return 0
    index = int(task.get("index", 0)) + (1 if has_chief else 0)
    return index if task.get("type") == "worker" else max(1, index)
