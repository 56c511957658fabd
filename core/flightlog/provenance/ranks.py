"""Which process of a distributed job this is, as the launcher says in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..journal.values import text

_MAX_VALUE = 1000
# How a process of a distributed job knows its place: torchrun, Slurm's srun, Open MPI, MPICH and Intel MPI, and theirs.
RANKS = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "NODE_RANK", "MASTER_ADDR",
    "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID",
    "SLURM_NODEID", "SLURM_NTASKS", "SLURM_JOB_NUM_NODES", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK",
    "PMI_SIZE", "JOB_COMPLETION_INDEX",
)  # fmt: skip


def ranks(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that say which process of a distributed job this is."""
    return {name: text(environ[name])[:_MAX_VALUE] for name in RANKS if name in environ}
