"""Whether a run costs more the longer it gets: python benchmarks/endurance.py [--steps 1000000] [--defined]

Logs ten floats a step and prints, for each tenth of the run, the caller's p50 and p99.9 in microseconds, the ratio of
the p50 to that of the floor (orjson.dumps and os.write) in the same tenth, and the memory that the process has come to.
The last lines are the ratios of the last tenth to the second (the first warms up), what a recorder at work adds to the
memory of a bare interpreter with orjson, and how many threads it runs beside the script's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from pathlib import Path

from log_latency import block, floor

BLOCK = 500
TENTHS = 10


def resident() -> float:
    """Return this process's resident memory in MiB (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def at(times: list[int], share: float) -> float:
    """Return a quantile of nanoseconds in microseconds."""
    return sorted(times)[min(int(share * len(times)), len(times) - 1)] / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument(
        "--defined", action="store_true", help="with define_metric(summary=min,max,mean) for each metric"
    )
    arguments = parser.parse_args()
    os.environ["FLIGHTLOG_SILENT"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        floor_log, close = floor(Path(folder))
        block(floor_log, 0)
        bare = resident()
        import flightlog

        run = flightlog.init(project="endurance", mode="offline", dir=folder)
        if arguments.defined:
            run.define_metric("*", summary="min,max,mean")
        block(lambda values, step: run.log(values, step=step), 0)
        idle = resident()
        print(f"{'steps':>10} {'p50 us':>8} {'p99.9 us':>9} {'x floor':>8} {'MiB':>7}")
        rows = []
        size = arguments.steps // TENTHS
        for tenth in range(TENTHS):
            times: list[int] = []
            floor_times: list[int] = []
            for start in range(tenth * size, (tenth + 1) * size, BLOCK):
                floor_times += block(floor_log, start)
                times += block(lambda values, step: run.log(values, step=step), start)
            row = (at(times, 0.5), at(times, 0.999), at(times, 0.5) / at(floor_times, 0.5), resident())
            rows.append(row)
            print(f"{(tenth + 1) * size:>10,} {row[0]:>8.2f} {row[1]:>9.1f} {row[2]:>8.2f} {row[3]:>7.1f}")
        threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        run.finish()
        close()
    print(f"last tenth to second: p50 x floor {rows[-1][2] / rows[1][2]:.2f}, memory {rows[-1][3] / rows[1][3]:.2f}")
    print(f"memory: {idle - bare:.1f} MiB after the first steps, {rows[-1][3] - bare:.1f} MiB at the end")
    print(f"threads beside the script's own: {', '.join(threads)}")


if __name__ == "__main__":
    main()
