"""What system metrics cost: python benchmarks/system.py [--samples 200] [--gpus 8] [--threads 100] [--children 8]

Printed is the processor time of a sample by source (the thread's own clock), beside the floor, a bare
psutil.cpu_percent(); then the share of a core that a sampler takes at an interval, from the process's resource usage
over some seconds in which it does nothing else. --threads and --children make the run as large as a training with data
loaders. GPUs are played by tests/nvml/fake_nvml.c where gcc is there: what is measured of them is this side's share,
to which a real driver adds its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

FAKE = Path(__file__).parents[1] / "tests" / "nvml" / "fake_nvml.c"
GPU = """\
gpu {i} uuid GPU-{i:08d}
gpu {i} utilization 35
gpu {i} memory_total 85899345920
gpu {i} memory_used 42949672960
gpu {i} temperature 61
gpu {i} memory_temperature 71
gpu {i} power 250000
gpu {i} power_limit 400000
gpu {i} clock_sm 1500
gpu {i} clock_memory 2000
gpu {i} clock_graphics 1400
gpu {i} throttle 0
gpu {i} ecc_corrected 0
gpu {i} ecc_uncorrected 0
gpu {i} nvlink_tx_rate 1000
gpu {i} nvlink_rx_rate 1000
gpu {i} pcie_tx_rate 1000
gpu {i} pcie_rx_rate 1000
process {i} {pid} 1000 30
"""


def with_fake_gpus(count: int) -> None:
    """Start this script again where the loader finds the fake driver; return where it does, or cannot be built."""
    if "FAKE_NVML" in os.environ or not count or not shutil.which("gcc"):
        return
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "libnvidia-ml.so.1")
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, FAKE], check=True)
        variables = {"LD_LIBRARY_PATH": folder, "FAKE_NVML": str(Path(folder, "gpus"))}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env={**os.environ, **variables}).returncode)


def describe_gpus(count: int) -> None:
    """Say what the fake driver plays."""
    if "FAKE_NVML" in os.environ:
        Path(os.environ["FAKE_NVML"]).write_text("".join(GPU.format(i=i, pid=os.getpid()) for i in range(count)))


@contextlib.contextmanager
def crowd(threads: int, children: int) -> Iterator[None]:
    """Make this process as large as a training with data loaders."""
    over = threading.Event()
    for _ in range(threads):
        threading.Thread(target=over.wait, daemon=True).start()
    started = [subprocess.Popen(["sleep", "600"]) for _ in range(children)]
    try:
        yield
    finally:
        over.set()
        for child in started:
            child.kill()
            child.wait()


def cost(call: Callable[[], object], times: int) -> tuple[float, float]:
    """Return the median and the greatest processor time of a call in microseconds."""
    found = []
    for _ in range(times):
        before = time.thread_time_ns()
        call()
        found.append((time.thread_time_ns() - before) / 1000)
    return statistics.median(found), max(found)


def by_source(samples: int) -> None:
    """Print what a sample of each source costs, and all together."""
    import psutil

    from flightlog.system import Unavailable
    from flightlog.system.cgroup import Cgroup
    from flightlog.system.sources import default_sources

    print(f"{'processor time of a sample':<28} {'median us':>10} {'max us':>8} {'names':>6}")
    floor, worst = cost(psutil.cpu_percent, samples)
    print(f"{'floor: psutil.cpu_percent()':<28} {floor:>10.0f} {worst:>8.0f}")
    total = 0.0
    names = 0
    for source in default_sources(print, os.getpid(), Cgroup(), folder="."):
        try:
            probe = source.open()
        except Unavailable as why:
            print(f"{source.name:<28} {why}")
            continue
        probe.sample()
        median, worst = cost(probe.sample, samples)
        count = len(probe.sample())
        print(f"{source.name:<28} {median:>10.0f} {worst:>8.0f} {count:>6}")
        total += median
        names += count
    print(f"{'all':<28} {total:>10.0f} {'':>8} {names:>6}   ({total / floor:.1f} x the floor)")


def share_of_core(interval: float, seconds: float) -> None:
    """Print what a sampler takes of a core while the process does nothing else."""
    from flightlog.system import Sampler

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    taken = [0]
    sampler = Sampler(lambda values: taken.__setitem__(0, taken[0] + 1), lambda line: None, interval, folder=".")
    sampler.start()
    time.sleep(1)
    before, began, count = used(), time.monotonic(), taken[0]
    time.sleep(seconds)
    share = (used() - before) / (time.monotonic() - began)
    count = taken[0] - count
    before_stop = time.perf_counter()
    sampler.stop()
    stopped = (time.perf_counter() - before_stop) * 1000
    each = share * seconds / max(count, 1) * 1000
    at_default = 100 * share * interval / 5
    print(f"every {interval:g} s for {seconds:g} s: {count} samples of {each:.2f} ms; {100 * share:.3f} % of a core,")
    print(f"so {at_default:.3f} % at 5 s; stop() took {stopped:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--gpus", type=int, default=8, help="how many the fake driver plays; 0: the real one, if any")
    parser.add_argument("--threads", type=int, default=100)
    parser.add_argument("--children", type=int, default=8)
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    with_fake_gpus(arguments.gpus)
    describe_gpus(arguments.gpus)
    with crowd(arguments.threads, arguments.children):
        by_source(arguments.samples)
        share_of_core(arguments.interval, arguments.seconds)


if __name__ == "__main__":
    main()
