"""The ranks of one job are one run: as torchrun, srun and mpirun start them, in one directory or in several."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog import Api
from flightlog.launch import detect

from .conftest import Script, environment

JournalOf = Callable[[Path], Any]

RANK = """
import flightlog, os, sys, time
run = flightlog.init(project="ranks", config={"lr": 0.1})
for step in range(5):
    flightlog.log({f"loss/{run.rank}": step, "shared": run.rank})
print(run.id, run.rank, run.resumed, flush=True)
"""
TORCHRUN = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"}
SLURM = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_CLUSTER_NAME": "alps"}


def of_torchrun(rank: int, size: int) -> dict[str, str]:
    return {
        **TORCHRUN,
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
    }


def of_slurm(rank: int, size: int) -> dict[str, str]:
    return {**SLURM, "SLURM_PROCID": str(rank), "SLURM_NTASKS": str(size), "SLURM_LOCALID": str(rank)}


def of_openmpi(rank: int, size: int) -> dict[str, str]:
    names = {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_SIZE": size, "PMIX_NAMESPACE": "prterun-node-7@1"}
    return {name: str(value) for name, value in names.items()}


def of_mpich(rank: int, size: int) -> dict[str, str]:
    return {"PMI_RANK": str(rank), "PMI_SIZE": str(size), "MPI_LOCALRANKID": str(rank), "MPI_LOCALNRANKS": str(size)}


def start(variables: dict[str, str], cwd: Path, source: str = RANK) -> subprocess.Popen[str]:
    script = cwd / "train.py"
    if not script.exists() or script.read_text() != source:  # another rank may be reading it
        script.write_text(source)
    command = [sys.executable, str(script)]
    return subprocess.Popen(command, env=environment(**variables), cwd=cwd, text=True, stdout=-1, stderr=-1)


def ended(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    found = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        found.append(out.split())
    return found


@pytest.mark.parametrize("launcher", [of_torchrun, of_slurm, of_openmpi, of_mpich])
def test_ranks_join_one_run(launcher: Callable[[int, int], dict[str, str]], tmp_path: Path, journal: JournalOf) -> None:
    """Started at once, they agree on an id without talking; the first closes the run, and nobody has resumed it."""
    said = ended([start(launcher(rank, 4), tmp_path) for rank in range(4)])
    assert len({words[0] for words in said}) == 1
    assert [words[1:] for words in said] == [[str(rank), "False"] for rank in range(4)]
    (run,) = Api(tmp_path).runs()
    assert run.state == "finished" and run.config == {"lr": 0.1}
    rows = run.history()
    assert [row["_step"] for row in rows] == list(range(5))
    assert all(row[f"loss/{rank}"] == row["_step"] for row in rows for rank in range(4))
    (directory,) = (tmp_path / "flightlog").glob("run-*")
    found = journal(directory)
    assert len(found.reports) == 4 and found.sound
    assert sorted(r.data["rank"] for r in found.of("run")) == [0, 1, 2, 3]


def test_ranks_in_directories_of_their_own(tmp_path: Path) -> None:
    """Nodes without a shared disk: several directories, brought together later, are one run."""
    places = [tmp_path / f"node{rank}" for rank in range(3)]
    for place in places:
        place.mkdir()
    said = ended([start(of_slurm(rank, 3), places[rank]) for rank in range(3)])
    assert len({words[0] for words in said}) == 1
    (run,) = Api(tmp_path).runs()
    assert run.state == "finished" and len(run.history()) == 5 and run.summary["loss/2"] == 4


def test_a_second_launch_is_another_run(tmp_path: Path) -> None:
    """Two torchruns, two steps of one Slurm job, and two runs of one launch have ids of their own."""
    twice = RANK + "\n" + RANK
    first = ended([start(of_slurm(rank, 2), tmp_path, twice) for rank in range(2)])
    again = {**SLURM, "SLURM_STEP_ID": "1"}
    second = ended([start({**of_slurm(rank, 2), **again}, tmp_path) for rank in range(2)])
    ids = [words[0] for words in first] + [words[3] for words in first] + [words[0] for words in second]
    assert ids[0] == ids[1] and ids[2] == ids[3] and ids[4] == ids[5] and len(set(ids)) == 3


def test_a_requeued_job_of_ranks_continues(tmp_path: Path, journal: JournalOf) -> None:
    """The same FLIGHTLOG_RUN_ID in a second launch: every rank has resumed, and begins behind the first launch."""
    given = {"FLIGHTLOG_RUN_ID": "job"}
    ended([start({**of_slurm(rank, 3), **given}, tmp_path) for rank in range(3)])
    requeued = {**given, "SLURM_RESTART_COUNT": "1"}
    said = ended([start({**of_slurm(rank, 3), **requeued}, tmp_path) for rank in range(3)])
    assert said == [["job", str(rank), "True"] for rank in range(3)]
    (run,) = Api(tmp_path).runs()
    assert [row["_step"] for row in run.history()] == list(range(10)) and run.state == "finished"


def test_resume_auto_with_ranks(tmp_path: Path) -> None:
    """All ranks take up the same unfinished run, whichever of them looks first."""
    dying = RANK + "\nimport signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    killed = [start({**of_slurm(rank, 3)}, tmp_path, dying) for rank in range(3)]
    before = {process.communicate(timeout=60)[0].split()[0] for process in killed}
    requeued = {"FLIGHTLOG_RESUME": "auto", "SLURM_RESTART_COUNT": "1"}
    said = ended([start({**of_slurm(rank, 3), **requeued}, tmp_path) for rank in range(3)])
    assert {words[0] for words in said} == before and {words[2] for words in said} == {"True"}


def test_a_failing_rank_fails_the_run(tmp_path: Path) -> None:
    """One rank raises, the launcher ends the others with SIGTERM: the run failed, with that rank's traceback."""
    failing = RANK + "\nif run.rank == 1: raise ValueError('rank one')\ntime.sleep(30)\n"
    processes = [start(of_torchrun(rank, 2), tmp_path, failing) for rank in range(2)]
    assert processes[1].communicate(timeout=60)[1].count("rank one") and processes[1].returncode == 1
    processes[0].terminate()
    processes[0].communicate(timeout=60)
    (run,) = Api(tmp_path).runs()
    assert run.state == "failed"


def test_without_the_first_rank_the_run_ends_all_the_same(tmp_path: Path) -> None:
    """A script in which only one of the later ranks records."""
    source = "import os\nif os.environ['SLURM_PROCID'] != '2': exit()\n" + RANK
    ended([start(of_slurm(rank, 3), tmp_path, source) for rank in range(3)])
    (run,) = Api(tmp_path).runs()
    assert run.state == "finished" and run.summary == {"loss/2": 4, "shared": 2}


def test_torchrun_itself(tmp_path: Path) -> None:
    """The real launcher, twice: each launch is one run of two ranks; an elastic restart goes on with its run."""
    pytest.importorskip("torch", reason="torchrun comes with torch")
    script = tmp_path / "train.py"
    script.write_text(
        RANK
        + "\nif os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and run.rank == 1 and len(sys.argv) > 1: os._exit(3)\n"
        "if len(sys.argv) > 1 and not run.resumed: time.sleep(60)\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for words in ([str(script)], [str(script)], ["--max-restarts=1", str(script), "die"]):
        subprocess.run(
            [*torchrun, *words], env=environment(OMP_NUM_THREADS="1"), cwd=tmp_path, check=True, timeout=100,
            capture_output=True,
        )  # fmt: skip
    runs = sorted(Api(tmp_path).runs(), key=lambda run: run.started_at or 0.0)
    assert [len(run.history()) for run in runs] == [5, 5, 10]
    assert [run.state for run in runs] == ["finished"] * 3


def test_what_is_no_launch() -> None:
    """A process alone, a batch script that is told of its job's tasks, and variables that are no numbers."""
    alone: list[dict[str, str]] = [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "zero", "WORLD_SIZE": "2"},
        {"RANK": "5", "WORLD_SIZE": "2", "MASTER_ADDR": "h"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1", "SLURM_TASK_PID": "77"},
        {"OMPI_COMM_WORLD_RANK": "0"},
    ]
    assert [detect(environ) for environ in alone] == [None] * len(alone)


def test_nodes_that_cannot_agree_are_told(script: Script) -> None:
    """Several nodes and a rendezvous without an id: one warning says what to set, and each rank records for itself."""
    variables = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "head", "MASTER_PORT": "1"}
    done = script(RANK, **variables)
    assert "set FLIGHTLOG_RUN_ID" in done.stderr


def test_ids_are_not_matched_by_their_beginning(tmp_path: Path) -> None:
    """A later rank that waits for the first one's directory does not take that of a run whose id begins like it."""
    ended([start({**of_slurm(rank, 2), "FLIGHTLOG_RUN_ID": "exp-10"}, tmp_path) for rank in range(2)])
    ended([start({**of_slurm(rank, 2), "FLIGHTLOG_RUN_ID": "exp-1"}, tmp_path) for rank in (1, 0)])
    runs = {run.id: run for run in Api(tmp_path).runs()}
    assert {run_id: len(run.history()) for run_id, run in runs.items()} == {"exp-10": 5, "exp-1": 5}
    assert runs["exp-1"].summary.keys() == {"loss/0", "loss/1", "shared"}


@pytest.mark.parametrize("named", ["big", "none"])
def test_a_launch_again_with_the_same_facts_continues(tmp_path: Path, named: str) -> None:
    """A pod that is started again looks to its ranks like the first time: they go on all the same."""
    facts = {"MASTER_ADDR": "node1", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": named, "FLIGHTLOG_RUN_ID": "big"}
    dying = RANK + "\nimport signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    for _ in range(2):
        for process in [start({**of_torchrun(rank, 2), **facts}, tmp_path, dying) for rank in range(2)]:
            process.communicate(timeout=60)
    said = ended([start({**of_torchrun(rank, 2), **facts}, tmp_path) for rank in range(2)])
    assert [words[1:] for words in said] == [["0", "True"], ["1", "True"]]
    (run,) = Api(tmp_path).runs()
    assert [row["_step"] for row in run.history()] == list(range(15)) and run.state == "finished"


def test_a_later_rank_leaves_the_spec_to_the_first(tmp_path: Path) -> None:
    """A rank that was there first makes the directory; what its latest.spec says is the first rank's to say."""
    first = start(of_slurm(1, 2), tmp_path, RANK + "\ntime.sleep(4)\n")
    assert first.stdout is not None
    run_id = first.stdout.readline().split()[0]
    killed = start(
        of_slurm(0, 2), tmp_path, RANK + "\nimport signal; os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(4)\n"
    )
    killed.communicate(timeout=60)
    ended([first])
    spec = json.loads((tmp_path / "flightlog" / "latest.spec").read_bytes())
    assert spec["id"] == run_id and (spec["rank"], spec["state"]) == (0, "running")
    assert Api(tmp_path).runs()[0].state == "crashed"


def test_processes_of_a_launcher_may_be_runs_of_their_own(tmp_path: Path) -> None:
    """FLIGHTLOG_RANKS=false: independent trainings under one srun."""
    said = ended([start({**of_slurm(rank, 3), "FLIGHTLOG_RANKS": "false"}, tmp_path) for rank in range(3)])
    assert len({words[0] for words in said}) == 3


# -- spawned children --------------------------------------------------------------------------------------------------


SPAWN = """
import flightlog, multiprocessing, sys
def with_run(run, number): run.log({"child": number})
def without(number): flightlog.log({"child": number})
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    run = flightlog.init(config={"a": 1})
    run.log({"parent": 1})
    children = [context.Process(target=with_run, args=(run, n)) for n in range(3)]
    children += [context.Process(target=without, args=(n,)) for n in range(3, 6)]
    for child in children: child.start()
    for child in children: child.join()
    assert [child.exitcode for child in children] == [0] * 6
    run.log({"parent": 2})
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_spawned_children_log_to_their_parents_run(
    script: Script, tmp_path: Path, journal: JournalOf, method: str
) -> None:
    """A run among a child's arguments is that run; `flightlog.log` without one finds the parent's."""
    script(SPAWN, method)
    found = journal(tmp_path / "flightlog")
    assert sorted(found.logged("child")) == list(range(6)) and found.logged("parent") == [1, 2]
    assert found.fold.state == "finished" and len(found.reports) == 7 and found.sound
    assert json.loads((tmp_path / "flightlog" / "latest.spec").read_bytes())["state"] == "finished"


def test_a_run_unpickled_where_it_was_pickled_is_the_same() -> None:
    """Copying a run, as frameworks copy their callbacks, makes no second writer."""
    run = flightlog.init()
    assert pickle.loads(pickle.dumps(run)) is run


SEVERAL = """
import flightlog, multiprocessing, sys
def work(n): flightlog.log({"child": n})
def deeper(method, n):
    child = multiprocessing.get_context(method).Process(target=work, args=(n,)); child.start(); child.join()
    sys.exit(child.exitcode)
if __name__ == "__main__":
    method = sys.argv[1]
    context = multiprocessing.get_context(method)
    def run_child(target, *words):
        child = context.Process(target=target, args=words); child.start(); child.join()
        assert child.exitcode == 0, child.exitcode
    run_child(print, "a server started before any run")
    for name in ("first", "second"):
        flightlog.init(id=name)
        run_child(work, name)
        run_child(deeper, method, name + "/deeper")
        flightlog.finish()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_children_log_to_the_run_of_their_time(script: Script, tmp_path: Path, method: str) -> None:
    """With several runs one after the other, and for grandchildren whose parent never logs."""
    script(SEVERAL, method)
    runs = {run.id: run for run in Api(tmp_path).runs()}
    for name in ("first", "second"):
        values = [r.data["child"] for _, r in runs[name]._records(["log"])]
        assert values == [name, f"{name}/deeper"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_that_end_lose_nothing_that_was_buffered(script: Script, tmp_path: Path, method: str) -> None:
    """The children of multiprocessing know no atexit; what they hold back is written when they end."""
    script(
        "import flightlog, multiprocessing, sys, warnings\nwarnings.simplefilter('ignore')\n"
        "def work(run, n):\n    for i in range(100): run.log({f'c{n}': i})\n"
        "if __name__ == '__main__':\n"
        "    run = flightlog.init(durability='buffered')\n"
        "    made = [multiprocessing.get_context(sys.argv[1]).Process(target=work, args=(run, n)) for n in range(3)]\n"
        "    for child in made: child.start()\n"
        "    for child in made: child.join()\n",
        method,
    )
    (run,) = Api(tmp_path).runs()
    logged = [r.data for _, r in run._records(["log"])]
    assert sorted(data["c1"] for data in logged if "c1" in data) == list(range(100)) and len(logged) == 300
    assert run.state == "finished"


ORPHAN = """
import flightlog, multiprocessing, sys
def work(): flightlog.log({"child": 1})
if __name__ == "__main__":
    flightlog.init()
    flightlog.finish()
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


def test_a_child_whose_parent_has_finished_is_told(script: Script) -> None:
    """A spawned child that logs when there is no run any more gets the usual error."""
    assert "there is no run; call flightlog.init() first" in script(ORPHAN, expect=1).stderr


def test_pickles_of_a_run_that_is_gone(tmp_path: Path) -> None:
    """Unpickled elsewhere, after its directory was deleted: a clear error."""
    run = flightlog.init()
    content = pickle.dumps(run)
    run.finish()
    place = run.dir
    shutil.rmtree(place)
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    done = subprocess.run(
        [sys.executable, "-c", code], input=content, env=environment(), capture_output=True, timeout=60
    )
    assert done.returncode == 1 and b"latest.spec" in done.stderr
