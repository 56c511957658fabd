"""System metrics: the sampler and the machine's own sources, on this machine as it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flightlog.errors import UsageError
from flightlog.system import Probe, Sampler, Source, Unavailable, hardware
from flightlog.system.cgroup import Cgroup, Limits
from flightlog.system.feed import feed
from flightlog.system.machine import CpuProbe, DiskUsageProbe
from flightlog.system.probe import Rate
from flightlog.system.processes import ProcessTree
from flightlog.system.sampler import _Loop

from .conftest import environment

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

PATIENCE = 20.0
MACHINE = {
    "cpu", "cpu_percent", "load.1m", "load.5m", "load.15m", "memory_percent", "proc.memory.availableMB",
    "proc.memory.rssMB", "proc.memory.percent", "proc.cpu.threads", "proc.count", "disk.in", "disk.out",
    "network.sent", "network.recv", "disk./.usagePercent", "disk./.usageGB",
}  # fmt: skip


class Recorder:
    """What a sampler emits and notes."""

    def __init__(self) -> None:
        self.samples: list[dict[str, float]] = []
        self.notes: list[str] = []

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until something has come, for a long time at most."""
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until, (self.samples, self.notes)
            time.sleep(0.01)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def sampler(recorder: Recorder) -> Iterator[Callable[..., Sampler]]:
    """Make samplers that are stopped when the test ends."""
    made = []

    def make(interval: float = 0.1, **more: Any) -> Sampler:
        made.append(Sampler(recorder.samples.append, recorder.notes.append, interval, **more))
        return made[-1]

    yield make
    for one in made:
        one.stop()


class Counting(Probe):
    """Counts its samples, or fails, or waits, as it is told."""

    def __init__(self, name: str, act: Callable[[int], None] = lambda count: None) -> None:
        self.count = 0
        self.closed = False
        self._name = name
        self._act = act

    def sample(self) -> dict[str, float]:
        self.count += 1
        self._act(self.count)
        return {self._name: self.count}

    def close(self) -> None:
        self.closed = True


def test_a_sample_has_every_source(recorder: Recorder, sampler: Callable[..., Sampler], tmp_path: Path) -> None:
    """Two samples of this machine hold every name of every source it has, all finite, percentages within bounds."""
    sampler(folder=tmp_path).start()
    recorder.wait(lambda: set().union(*recorder.samples) >= MACHINE)
    for values in recorder.samples:
        for name, value in values.items():
            assert isinstance(value, float)
            assert value >= 0, name
            if name.endswith(("percent", "Percent")) and name != "proc.memory.percent":
                assert value <= 100, name


def test_stop_takes_a_last_sample_and_ends_the_threads(recorder: Recorder, sampler: Callable[..., Sampler]) -> None:
    """After the first sample, stop() adds one more however long the interval, and leaves no thread behind."""
    one = sampler(3600)
    one.start()
    recorder.wait(lambda: recorder.samples)
    time.sleep(0.3)
    one.stop()
    assert len(recorder.samples) == 2
    assert "cpu" in recorder.samples[-1]
    assert not [t for t in threading.enumerate() if t.name.startswith("flightlog-") and "housekeeper" not in t.name]
    one.stop()
    assert len(recorder.samples) == 2


def test_it_can_be_stopped_at_once_and_started_again(recorder: Recorder, sampler: Callable[..., Sampler]) -> None:
    """A run that ends at once has no sample; a sampler that is started twice has one thread, and starts again later."""
    one = sampler()
    one.start()
    one.stop()
    assert recorder.samples == []
    one.start()
    one.start()
    assert len([t for t in threading.enumerate() if t.name == "flightlog-system"]) == 1
    recorder.wait(lambda: recorder.samples)


def test_an_interval_of_0_samples_nothing(sampler: Callable[..., Sampler]) -> None:
    """system_interval=0 starts no thread."""
    before = threading.active_count()
    sampler(0).start()
    assert threading.active_count() == before


@pytest.mark.parametrize("interval", [-1, 0.01, float("nan"), float("inf"), "often", None, []])
def test_an_interval_that_is_none_is_refused(interval: Any) -> None:
    """What is no number of seconds, or too few, is a UsageError that names the setting."""
    with pytest.raises(UsageError, match="system_interval"):
        Sampler(lambda values: None, lambda line: None, interval)


def test_names_have_the_prefix_and_values_are_finite(recorder: Recorder, sampler: Callable[..., Sampler]) -> None:
    """A prefix stands before every name; what is no number is left out; decimals beyond the third are not kept."""

    class Odd(Probe):
        def sample(self) -> dict[str, float]:
            return {"good": 1.23456789, "bad": float("nan"), "worse": float("inf")}

    sampler(prefix="node.3.", sources=[Source("odd", Odd)]).start()
    recorder.wait(lambda: recorder.samples)
    assert recorder.samples[0] == {"node.3.good": 1.235}


@pytest.mark.parametrize("apart", [False, True])
def test_a_source_that_fails_costs_one_line(recorder: Recorder, sampler: Callable[..., Sampler], apart: bool) -> None:
    """A source that raises is told once and asked five times; the others go on."""

    def fail(count: int) -> None:
        raise OSError(f"broken {count}")

    bad, good = Counting("bad", fail), Counting("good")
    sampler(sources=[Source("broken source", lambda: bad, may_hang=apart), Source("sound", lambda: good)]).start()
    recorder.wait(lambda: good.count >= 7)
    assert recorder.notes == ["system metrics: broken source: OSError: broken 1"]
    assert bad.count == 5
    assert all(set(values) == {"good"} for values in recorder.samples)


def test_a_source_that_recovers_is_back(recorder: Recorder, sampler: Callable[..., Sampler]) -> None:
    """Failures now and then, never five in a row, cost a source one line and only the samples that they hit."""

    def fail(count: int) -> None:
        if count % 2:
            raise RuntimeError("not now")

    sampler(sources=[Source("moody", lambda: probe)]).start()
    probe = Counting("moody", fail)
    recorder.wait(lambda: probe.count >= 8)
    assert len(recorder.samples) >= 3
    assert len(recorder.notes) == 1


def test_a_source_that_is_not_there_costs_one_line(recorder: Recorder, sampler: Callable[..., Sampler]) -> None:
    """A source that cannot be opened is asked once, and its reason is the run's line."""
    asked = []

    def missing() -> Probe:
        asked.append(1)
        raise Unavailable("there is none; run: pip install some")

    good = Counting("good")
    sampler(sources=[Source("some", missing, may_hang=True), Source("sound", lambda: good)]).start()
    recorder.wait(lambda: good.count >= 4)
    assert recorder.notes == ["system metrics: some: there is none; run: pip install some"]
    assert len(asked) == 1


def test_a_hanging_source_does_not_stop_the_others(recorder: Recorder, sampler: Callable[..., Sampler]) -> None:
    """While one source hangs the others are sampled; when it answers, its values come; stop() lets go of it."""
    release = threading.Event()
    slow, good = Counting("slow", lambda count: release.wait(60) and None), Counting("good")
    one = sampler(sources=[Source("slow", lambda: slow, may_hang=True), Source("sound", lambda: good)])
    one.start()
    recorder.wait(lambda: good.count >= 5)
    assert all("slow" not in values for values in recorder.samples)
    release.set()
    recorder.wait(lambda: any("slow" in values for values in recorder.samples))
    one.stop()
    assert slow.closed
    assert recorder.notes == []


def test_stop_does_not_wait_for_a_hanging_source(recorder: Recorder, sampler: Callable[..., Sampler]) -> None:
    """A source that never answers gets its line when the run ends, and nothing is emitted afterwards."""
    release = threading.Event()
    slow, good = Counting("slow", lambda count: release.wait(60) and None), Counting("good")
    one = sampler(sources=[Source("slow", lambda: slow, may_hang=True), Source("sound", lambda: good)])
    one.start()
    recorder.wait(lambda: good.count >= 3)
    one.stop()
    assert recorder.notes == ["system metrics: slow: no answer before the run ended"]
    count = len(recorder.samples)
    release.set()
    recorder.wait(lambda: slow.closed)
    assert len(recorder.samples) == count


def test_a_sample_that_costs_much_is_taken_less_often() -> None:
    """The pause grows with what a sample costs, so that a thousandth of a core is kept; up to a minute."""
    loop = _Loop(lambda values: None, lambda line: None, 5.0, "", lambda tell: [])
    for cost, pause in ((0.0, 5.0), (0.004, 5.0), (0.02, 20.0), (1.0, 60.0)):
        one = feed(Source("costly", lambda: Counting("costly")), lambda line: None)
        one.cost = cost
        loop._feeds = [one]
        assert loop._pause() == pytest.approx(pause)


def test_a_run_that_has_ended_ends_the_sampler(sampler: Callable[..., Sampler]) -> None:
    """Where the run does not take records any more, the sampler's thread ends instead of raising."""
    calls = []

    def refuse(values: dict[str, float]) -> None:
        calls.append(values)
        raise UsageError("the run is finished")

    one = Sampler(refuse, lambda line: None, 0.1, sources=[Source("good", lambda: Counting("good"))])
    one.start()
    until = time.monotonic() + PATIENCE
    while any(t.name == "flightlog-system" for t in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)
    one.stop()
    assert len(calls) == 1


def test_a_forked_child_has_no_sampler_and_can_start_one(recorder: Recorder, sampler: Callable[..., Sampler]) -> None:
    """In a forked child stop() returns at once, and start() samples the child."""
    probe = Counting("good")
    one = sampler(sources=[Source("good", lambda: probe)])
    one.start()
    recorder.wait(lambda: recorder.samples)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            recorder.samples.clear()
            one.stop()
            assert threading.active_count() == 1
            one.start()
            recorder.wait(lambda: recorder.samples)
            one.stop()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    count = len(recorder.samples)
    recorder.wait(lambda: len(recorder.samples) > count)


def test_a_fork_while_psutil_is_imported_leaves_a_child_that_can_import_it() -> None:
    """Children forked in the first moments of sampling import psutil themselves: none inherits a half import."""
    code = """
import os, sys, time
from flightlog.system import Sampler
Sampler(lambda values: None, lambda line: None, 1).start()
until = time.monotonic() + 0.6
children = 0
while time.monotonic() < until and children < 60:
    pid = os.fork()
    if pid == 0:
        import psutil
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    children += 1
"""
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=60)


def test_importing_it_loads_nothing_heavy() -> None:
    """The sampler's module, which every run loads, brings neither psutil nor ctypes nor a binding to a driver."""
    code = "import sys, flightlog.system; print(*sorted({'psutil', 'pynvml', 'ctypes'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_the_process_tree_counts_descendants() -> None:
    """Children and grandchildren are found, their processor time counts, also when they have ended."""
    tree = ProcessTree(os.getpid())
    before = sum(use.cpu_seconds for use in tree.usage())
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    code = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint('burnt', flush=True)\ninput()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdin
        assert child.stdout.readline() == b"burnt\n"
        time.sleep(0.3)
        uses = tree.usage()
        assert child.pid in tree.pids
        assert len(uses) >= 2
        assert all(use.rss > 0 and use.threads > 0 for use in uses)
        assert sum(use.cpu_seconds for use in uses) - before >= 0.4
        child.stdin.write(b"\n")
    assert sum(use.cpu_seconds for use in tree.usage()) - before >= 0.4


def test_the_process_tree_finds_the_same_through_psutil() -> None:
    """Where /proc does not list children, psutil finds the same processes and counts their time alike."""
    from flightlog.system import processes

    with subprocess.Popen(["sleep", "60"]) as child:
        mine = os.getpid()
        assert child.pid in processes._from_psutil(mine)
        assert set(processes._from_psutil(mine)) == set(processes._from_proc(mine))
        ours, theirs = processes._use_from_proc(mine), processes._use_from_psutil(mine)
        assert ours and theirs
        assert abs(ours.cpu_seconds - theirs.cpu_seconds) < 0.5
        assert ours.threads == theirs.threads
        child.kill()


def test_a_process_that_is_gone_is_no_failure() -> None:
    """A tree whose root has ended is empty."""
    child = subprocess.Popen(["true"])
    child.wait()
    assert ProcessTree(child.pid).usage() == []


def test_cores_are_reported_on_request() -> None:
    """With per_core, every processor has its own share beside the total."""
    probe = CpuProbe(Limits(os.getpid(), Cgroup()), per_core=True)
    time.sleep(0.2)
    values = probe.sample()
    cores = [name for name in values if re.fullmatch(r"cpu\.\d+\.cpu_percent", name)]
    assert len(cores) == min(os.cpu_count() or 1, 512)
    assert "cpu_percent" in values


def test_a_file_system_that_is_gone_leaves_the_others(tmp_path: Path) -> None:
    """Only file systems that answer are reported; each is once."""
    probe = DiskUsageProbe(["/", tmp_path, "/"])
    names = set(probe.sample())
    assert {"disk./.usagePercent", "disk./.usageGB"} <= names
    probe._mounts.append("/nowhere/at/all")
    assert set(probe.sample()) == names
    probe._mounts[:] = ["/nowhere/at/all"]
    with pytest.raises(OSError):
        probe.sample()


def test_a_rate_is_growth_per_second() -> None:
    """The first value gives no rate, nor does one that comes too soon, nor a counter that went back."""
    rate = Rate()
    assert rate(100) is None
    assert rate(200) is None
    time.sleep(0.1)
    found = rate(200)
    assert found is not None
    assert 0 < found <= 1000
    time.sleep(0.06)
    assert rate(50) is None


def test_the_machine_is_described() -> None:
    """hardware() knows this machine's processors and memory, fits in JSON, and says why there are no GPUs."""
    facts = json.loads(json.dumps(hardware()))
    assert facts["cpu"]
    assert 1 <= facts["cpus_allowed"] <= facts["cpu_count_logical"] == os.cpu_count()
    assert facts["memory_total"] > 1 << 20
    assert isinstance(facts["gpus"], list)
