"""Control groups as Slurm, Kubernetes and Docker set them up, in trees of files like the kernel's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.system.cgroup import Cgroup, Limits, parse_cpus
from flightlog.system.machine import CpuProbe, MemoryProbe
from flightlog.system.processes import ProcessProbe, ProcessTree

MIB = 1 << 20
Tree = Callable[..., Cgroup]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Lay out a tree of control groups: the process's groups, and files by path."""

    def make(groups: str, **files: str) -> Cgroup:
        membership = tmp_path / "membership"
        membership.write_text(groups)
        write(tmp_path / "cgroup", files)
        return Cgroup(tmp_path / "cgroup", membership)

    return make


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def slurm(tree: Tree) -> Cgroup:
    """Slurm with version 2: the job is limited, its step and task inherit."""
    job = "system.slice/slurmstepd.scope/job_7"
    return tree(
        f"0::/{job}/step_0/user/task_0\n",
        **{
            "cgroup.controllers": "cpuset cpu memory\n",
            f"{job}/memory.max": f"{400 * MIB}\n",
            f"{job}/memory.current": f"{300 * MIB}\n",
            f"{job}/memory.stat": f"anon 5\ninactive_file {100 * MIB}\n",
            f"{job}/memory.swap.max": f"{100 * MIB}\n",
            f"{job}/memory.swap.current": f"{25 * MIB}\n",
            f"{job}/cpu.max": "max 100000\n",
            f"{job}/step_0/memory.max": "max\n",
            f"{job}/step_0/user/task_0/memory.max": "max\n",
            f"{job}/step_0/user/task_0/cpuset.cpus.effective": "0\n",
        },
    )


def test_a_limit_above_the_own_group_binds(tree: Tree) -> None:
    """Slurm limits the job, not the task: memory, swap and processors are of what the job has."""
    group = slurm(tree)
    assert group.memory_limit() == 400 * MIB
    assert group.memory_used() == 200 * MIB
    assert group.swap() == (25 * MIB, 100 * MIB)
    assert group.cpu_limit() is None
    assert group.cpuset() == {0}
    limits = Limits(os.getpid(), group)
    assert limits.cpus() == 1
    values = MemoryProbe(limits).sample()
    assert values["memory_percent"] == 50
    assert values["swap_percent"] == 25
    assert values["proc.memory.availableMB"] <= 200


def test_a_container_sees_its_group_as_the_root(tree: Tree) -> None:
    """Kubernetes with version 2: the path is not below the mount, whose root is the container's own group."""
    group = tree(
        "0::/../../kubepods/pod1/container1\n",
        **{
            "cgroup.controllers": "cpu memory\n",
            "memory.max": f"{64 * MIB}\n",
            "memory.current": f"{16 * MIB}\n",
            "cpu.max": "50000 100000\n",
            "cpu.stat": "usage_usec 1000000\nuser_usec 1\n",
        },
    )
    assert group.memory_limit() == 64 * MIB
    assert group.memory_used() == 16 * MIB
    assert group.cpu_limit() == 0.5
    assert group.cpu_seconds() == 1.0
    assert Limits(os.getpid(), group).cpus() == 0.5


def test_version_1_has_a_tree_per_controller(tree: Tree) -> None:
    """Docker with version 1: quota and accounting in one folder, memory in another, "no limit" as a huge number."""
    group = tree(
        "7:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n3:cpuset:/docker/a\n1:name=systemd:/docker/a\n0::/\n",
        **{
            "cpu,cpuacct/docker/a/cpu.cfs_quota_us": "150000\n",
            "cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000\n",
            "cpu,cpuacct/docker/a/cpuacct.usage": "2500000000\n",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "memory/docker/a/memory.limit_in_bytes": f"{8 * MIB}\n",
            "memory/docker/a/memory.usage_in_bytes": f"{4 * MIB}\n",
            "memory/docker/a/memory.stat": f"inactive_file 1\ntotal_inactive_file {MIB}\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "cpuset/docker/a/cpuset.effective_cpus": "0-1\n",
        },
    )
    assert group.cpu_limit() == 1.5
    assert group.cpu_seconds() == 2.5
    assert group.memory_limit() == 8 * MIB
    assert group.memory_used() == 3 * MIB
    assert group.cpuset() == {0, 1}
    assert group.swap() is None


def test_accounting_may_have_a_tree_of_its_own(tree: Tree) -> None:
    """With version 1 the processor time of the limited group is found where cpuacct is mounted apart."""
    group = tree(
        "2:cpuacct:/job/step\n1:cpu:/job/step\n",
        **{
            "cpu/job/cpu.cfs_quota_us": "100000\n",
            "cpu/job/cpu.cfs_period_us": "50000\n",
            "cpu/job/step/cpu.cfs_quota_us": "-1\n",
            "cpu/job/step/cpu.cfs_period_us": "50000\n",
            "cpuacct/job/cpuacct.usage": "3000000000\n",
            "cpuacct/job/step/cpuacct.usage": "1\n",
        },
    )
    assert group.cpu_limit() == 2
    assert group.cpu_seconds() == 3


def test_processor_time_is_of_the_quota(tree: Tree, tmp_path: Path) -> None:
    """Under a quota of half a processor, a quarter of a second used in a second is 50 %."""
    group = tree("0::/\n", **{"cpu.max": "50000 100000", "cpu.stat": "usage_usec 0"})
    probe = CpuProbe(Limits(os.getpid(), group))
    began = time.monotonic()
    time.sleep(0.3)
    write(tmp_path / "cgroup", {"cpu.stat": "usage_usec 75000"})
    percent = probe.sample()["cpu_percent"]
    assert percent == pytest.approx(100 * 0.075 / (time.monotonic() - began) / 0.5, rel=0.2)


def test_memory_of_the_processes_is_of_the_limit(tree: Tree) -> None:
    """The share of the run's processes is of what the job may use, not of the machine."""
    limits = Limits(os.getpid(), tree("0::/\n", **{"memory.max": f"{1024 * MIB}"}))
    values = ProcessProbe(ProcessTree(os.getpid()), limits).sample()
    assert values["proc.memory.percent"] == pytest.approx(100 * values["proc.memory.rssMB"] / 1024)


def test_a_limit_above_the_machine_is_none(tree: Tree) -> None:
    """A group may be granted more than there is; then the machine is the denominator."""
    machine = psutil.virtual_memory()
    limits = Limits(os.getpid(), tree("0::/\n", **{"memory.max": f"{machine.total * 2}", "memory.current": "5"}))
    assert limits.memory(machine.total) == machine.total
    assert MemoryProbe(limits).sample()["memory_percent"] == pytest.approx(machine.percent, abs=10)


@pytest.mark.parametrize(
    "content", ["", "\0\0", "max", "-1", "0", "99999999999999999999999", "1e9", "abc\ndef ghi jkl"]
)
def test_files_of_nonsense_limit_nothing(tree: Tree, content: str) -> None:
    """Whatever the files hold, nothing is raised, and no limit comes of it that could be divided by."""
    names = ("memory.max", "memory.current", "memory.stat", "cpu.max", "cpu.stat", "cpuset.cpus.effective")
    group = tree("0::/a\n", **{f"a/{name}": content for name in names})
    limits = Limits(os.getpid(), group)
    assert limits.cpus() > 0
    assert limits.memory(100.0) > 0
    MemoryProbe(limits)
    CpuProbe(limits).sample()


@given(st.binary(max_size=300))
def test_any_membership_is_survived(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """A membership file of any bytes is no failure, and never leads out of the mount."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "membership").write_bytes(content)
    group = Cgroup(folder, folder / "membership")
    assert group.memory_limit() is None
    assert all(Path(found).is_relative_to(folder) for found in group._memory + group._cpu)


def test_there_may_be_no_control_groups(tmp_path: Path) -> None:
    """Without any (another system, a bare container) the machine is what the job may use."""
    group = Cgroup(tmp_path / "none", tmp_path / "nothing")
    assert (group.memory_limit(), group.cpu_limit(), group.swap(), group.cpuset()) == (None, None, None, frozenset())
    assert 1 <= Limits(os.getpid(), group).cpus() <= (os.cpu_count() or 1)


@given(st.sets(st.integers(0, 8191), min_size=1, max_size=50))
def test_lists_of_processors_are_read_back(cpus: set[int]) -> None:
    """A kernel's list of numbers and ranges names what it was made of."""
    ordered = sorted(cpus)
    assert parse_cpus(",".join(map(str, ordered)) + "\n") == cpus
    assert parse_cpus(f"{ordered[0]}-{ordered[-1]}") == set(range(ordered[0], ordered[-1] + 1))


@given(st.text(max_size=40))
def test_lists_of_nonsense_raise_one_error_only(text: str) -> None:
    """Any text gives numbers within bounds, or ValueError."""
    try:
        cpus = parse_cpus(text)
    except ValueError:
        return
    assert all(0 <= cpu < 8192 for cpu in cpus)
