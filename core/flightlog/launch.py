"""The ranks of one job: processes that torchrun, srun or mpirun started together belong to one run.

They agree on its id without a word between them: it is made from facts that the launcher gives to all of them and to no
other launch. Where there are none (several nodes, a rendezvous without an id), FLIGHTLOG_RUN_ID must say it.

The variables: https://docs.pytorch.org/docs/stable/elastic/run.html, https://slurm.schedmd.com/srun.html,
https://docs.open-mpi.org/en/main/running-apps/environment-var.html; MPICH's hydra and Intel MPI set PMI_*.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .process import birth_of, hostname
from .protocol.names import name_from_bytes

_MAX_ANCESTORS = 16
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_declared: Launch | None = None


class Launch(NamedTuple):
    """What a process knows of the job that it is a rank of.

    Attributes:
        key: the same in all its processes; another when an elastic launcher has started them anew.
        rank, size: this process, and how many there are.
        local_rank: among those of its node; None where the launcher does not say.
        job: what makes this launch different from all others; None where nothing does on all of its nodes.
    """

    key: str
    rank: int
    size: int
    local_rank: int | None
    job: str | None

    def among(self, beginnings: Iterable[Mapping[str, object]]) -> Launch:
        """Return this launch as of now: where its facts are those of an earlier one (a pod that was started again), and
        this rank has had its turn in that, it is the next one.

        Args:
            beginnings: the data of the first records that are known of the run's writers.
        """
        mine = newest = -1
        for data in beginnings:
            base, _, number = str(data.get("launch", "")).partition(".")
            if base == self.key and not data.get("forked") and number[:9] == number:
                turn = int(number) if number.isdecimal() else 0
                newest = max(newest, turn)
                mine = max(mine, turn) if data.get("rank", 0) == self.rank else mine
        turn = max(mine + 1, newest)
        return self._replace(key=f"{self.key}.{turn}") if turn > 0 else self

    @property
    def is_first_of_its_node(self) -> bool:
        """Whether this rank speaks for its node; where the launcher does not say, the first of all does."""
        return (self.rank if self.local_rank is None else self.local_rank) == 0

    def run_id(self, nth: int) -> str | None:
        """Return the id of the nth run that each rank begins; None where the ranks cannot agree on one."""
        if self.job is None:
            return None
        return _name_of(f"{self.job}\0{nth}")


def detect(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """Return the launch that this process is a rank of; None where it was started alone."""
    return _declared or _torchrun(environ) or _slurm(environ) or _mpi(environ)


@contextlib.contextmanager
def declared(key: str, rank: int, size: int, local_rank: int | None) -> Iterator[None]:
    """Let the runs that begin in this block be ranks of a launch that a framework made, and no variable tells of.

    Args:
        key: what its processes agree on, and no other launch has.
        rank, size, local_rank: as in `Launch`.
    """
    global _declared
    before, _declared = _declared, Launch(_name_of(_joined("declared", [key])), rank, size, local_rank, None)
    try:
        yield
    finally:
        _declared = before


def _number(environ: Mapping[str, str], *names: str) -> int | None:
    for name in names:
        with contextlib.suppress(ValueError, KeyError):
            return int(environ[name])
    return None


def _torchrun(environ: Mapping[str, str]) -> Launch | None:
    rank, size = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    if rank is None or size is None or size < 2:
        return None
    facts = [environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT")]
    named = environ.get("TORCHELASTIC_RUN_ID", "") not in ("", "none")
    facts.append(environ.get("TORCHELASTIC_RUN_ID", ""))
    local_size = size if facts[0] in _LOOPBACK else _number(environ, "LOCAL_WORLD_SIZE")
    job = _job("torchrun", environ, facts, "RANK", size, local_size, named)
    return _launch(
        job, environ.get("TORCHELASTIC_RESTART_COUNT", ""), facts, rank, size, _number(environ, "LOCAL_RANK")
    )


def _slurm(environ: Mapping[str, str]) -> Launch | None:
    rank, size = _number(environ, "SLURM_PROCID"), _number(environ, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    if rank is None or size is None or size < 2 or "SLURM_JOB_ID" not in environ:
        return None
    # The batch script itself is told of all its tasks, too; but it is no step, and the only process of its kind.
    if "SLURM_STEP_ID" not in environ and "SLURM_TASK_PID" in environ:
        return None
    job = _joined("slurm", [*_slurm_facts(environ), _script()])
    return _launch(job, "", [], rank, size, _number(environ, "SLURM_LOCALID"))


def _slurm_facts(environ: Mapping[str, str]) -> list[str]:
    names = ("CLUSTER_NAME", "JOB_ID", "STEP_ID", "RESTART_COUNT", "JOB_START_TIME", "SRUN_COMM_HOST", "SRUN_COMM_PORT")
    return [environ.get(f"SLURM_{name}", "") for name in names]


def _mpi(environ: Mapping[str, str]) -> Launch | None:
    rank = _number(environ, "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMI_RANK")
    size = _number(environ, "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE")
    if rank is None or size is None or size < 2:
        return None
    locals_ = ("OMPI_COMM_WORLD_LOCAL", "MV2_COMM_WORLD_LOCAL")
    local_rank = _number(environ, *(f"{name}_RANK" for name in locals_), "MPI_LOCALRANKID")
    local_size = _number(environ, *(f"{name}_SIZE" for name in locals_), "MPI_LOCALNRANKS")
    names = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "OMPI_MCA_orte_hnp_uri", "PMI_JOBID")
    facts = [environ.get(name, "") for name in names]
    of_rank = next(n for n in ("OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMI_RANK") if n in environ)
    job = _job("mpi", environ, facts, of_rank, size, local_size, any(facts))
    return _launch(job, "", facts, rank, size, local_rank)


def _job(
    kind: str, environ: Mapping[str, str], facts: list[str], rank_variable: str, size: int, local_size: int | None,
    named: bool,
) -> str | None:  # fmt: skip
    """Return what makes a launch different from all others, from the best of the facts that all its ranks share."""
    whole = [*facts, _script()]
    if "SLURM_JOB_ID" in environ:
        whole += _slurm_facts(environ)
        named = True
    if local_size == size:
        return _joined(kind, [*whole, *_launcher(rank_variable)])
    return _joined(kind, whole) if named else None


def _launch(
    job: str | None, incarnation: str, facts: list[str], rank: int, size: int, local_rank: int | None
) -> Launch | None:
    if not 0 <= rank < size:
        return None
    key = _name_of(_joined("launch", [job or "", incarnation, *facts]))
    return Launch(key, rank, size, local_rank, job)


def _name_of(facts: str) -> str:
    import hashlib

    return name_from_bytes(hashlib.sha256(facts.encode("utf-8", "surrogateescape")).digest(), 60)


def _joined(kind: str, facts: Iterable[str]) -> str:
    return "\0".join([kind, str(os.getuid()), *facts])


def _script() -> str:
    """Return what is being run: a job may run several scripts, one after the other. Nodes may keep it elsewhere."""
    return Path(sys.argv[0]).name if sys.argv else ""


def _launcher(rank_variable: str) -> list[str]:
    """Return which process has started this rank and its siblings: the nearest above that is no rank itself."""
    pid = os.getppid()
    for _ in range(_MAX_ANCESTORS):
        above = _ancestor(pid, rank_variable)
        if above is None:
            break
        pid = above
    return [hostname(), str(pid), *birth_of(pid)]


def _ancestor(pid: int, rank_variable: str) -> int | None:
    """Return the parent of a process that is (a wrapper of) a rank; None where it is not, or cannot be looked at."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if not any(v.startswith(rank_variable.encode() + b"=") for v in variables):
            return None
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
