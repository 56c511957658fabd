"""What one log() costs its caller: python benchmarks/log_latency.py [--steps 20000] [--rounds 5] [--peers]

Ten floats a step, offline. The floor is orjson.dumps and os.write of the same values; flightlog, and with --peers what
is installed of trackio, wandb and mlflow, run each in a process of its own, in blocks by turns with the floor, so that
a machine whose speed drifts treats both alike. Printed are the caller's p50, p99 and p99.9 in microseconds, the ratio
of the p50 to the floor's in the same process (median over rounds), and what import, init and finish took.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Log = Callable[[dict[str, float], int], None]
METRICS = 10
BLOCK = 500


def floor(folder: Path) -> tuple[Log, Callable[[], None]]:
    """The least that a recorder could do: one JSON line, one write."""
    import orjson

    fd = os.open(folder / "floor.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def log(values: dict[str, float], step: int) -> None:
        os.write(fd, orjson.dumps({"step": step, "data": values}) + b"\n")

    return log, lambda: os.close(fd)


def flightlog(folder: Path) -> tuple[Log, Callable[[], None]]:
    import flightlog

    run = flightlog.init(project="bench", mode="offline", dir=folder)
    return lambda values, step: run.log(values, step=step), run.finish


def buffered(folder: Path) -> tuple[Log, Callable[[], None]]:
    import flightlog

    run = flightlog.init(project="bench", mode="offline", dir=folder, durability="buffered")
    return lambda values, step: run.log(values, step=step), run.finish


def wandb(folder: Path) -> tuple[Log, Callable[[], None]]:
    import wandb

    run = wandb.init(project="bench", mode="offline", dir=str(folder))
    return lambda values, step: run.log(values, step=step), run.finish


def trackio(folder: Path) -> tuple[Log, Callable[[], None]]:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    trackio.init(project="bench")
    return lambda values, step: trackio.log(values, step=step), trackio.finish


def mlflow(folder: Path) -> tuple[Log, Callable[[], None]]:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.start_run()
    return lambda values, step: mlflow.log_metrics(values, step=step), mlflow.end_run


RECORDERS = {f.__name__: f for f in (floor, flightlog, buffered, trackio, wandb, mlflow)}


def measure(name: str, steps: int) -> dict[str, float]:
    """Log `steps` times, in blocks by turns with the floor, and return the figures. Runs in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        if name != "floor":
            __import__({"buffered": "flightlog"}.get(name, name))
        imported = time.perf_counter()
        log, finish = RECORDERS[name](Path(folder))
        ready = time.perf_counter()
        floor_log, floor_finish = floor(Path(folder))
        times: list[int] = []
        floor_times: list[int] = []
        for start in range(0, steps, BLOCK):
            floor_times += block(floor_log, start)
            times += block(log, start)
        logged = time.perf_counter()
        finish()
        ended = time.perf_counter()
        floor_finish()
    times.sort()
    floor_times.sort()

    def at(share: float) -> float:
        return times[min(int(share * len(times)), len(times) - 1)] / 1000

    return {
        "p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "floor": floor_times[len(floor_times) // 2] / 1000,
        "import": (imported - began) * 1000, "init": (ready - imported) * 1000, "finish": (ended - logged) * 1000,
    }  # fmt: skip


def block(log: Log, start: int) -> list[int]:
    """Log BLOCK times and return what each call took, in nanoseconds."""
    values = {f"metric_{i}": 0.1 * i + 0.123456789 for i in range(METRICS)}
    clock = time.perf_counter_ns
    times = []
    for step in range(start, start + BLOCK):
        values["metric_0"] = step * 0.001
        before = clock()
        log(values, step)
        times.append(clock() - before)
    return times


def in_process(name: str, steps: int) -> dict[str, float] | None:
    """Measure in a fresh process; None where the recorder failed, with its last words on stderr."""
    command = [sys.executable, __file__, "--one", name, "--steps", str(steps)]
    environment = {**os.environ, "FLIGHTLOG_SILENT": "1", "WANDB_SILENT": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode:
        print(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="also measure trackio, wandb and mlflow where installed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.steps)))
        return
    names = [
        n
        for n in RECORDERS
        if n in ("floor", "flightlog", "buffered") or (arguments.peers and importlib.util.find_spec(n))
    ]
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(arguments.rounds):
        found = {name: in_process(name, arguments.steps if name != "mlflow" else 300) for name in names}
        rounds.append({name: figures for name, figures in found.items() if figures})
    print(_import_cost())
    print(f"{arguments.rounds} rounds of {arguments.steps:,} steps of {METRICS} floats; medians over the rounds")
    widths = {"p50 us": 8, "p99 us": 8, "p99.9 us": 9, "x floor": 8, "import ms": 10, "init ms": 8, "finish ms": 10}
    print(" ".join([" " * 10, *(f"{title:>{width}}" for title, width in widths.items())]))
    for name in names:
        those = [r for r in rounds if name in r]
        if those:
            print(_line(name, those))


def _import_cost(times: int = 15) -> str:
    """Say what `import flightlog` adds to a bare interpreter: whole processes by turns, medians."""
    found: dict[str, list[float]] = {"pass": [], "import orjson": [], "import flightlog": []}
    for _ in range(times):
        for code, durations in found.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            durations.append((time.perf_counter() - began) * 1000)
    bare, orjson_too, whole = (statistics.median(durations) for durations in found.values())
    return (
        f"import flightlog: {whole - bare:.1f} ms above `python -c pass` ({bare:.1f} ms), "
        f"of which orjson {orjson_too - bare:.1f} ms"
    )


def _line(name: str, rounds: list[dict[str, dict[str, float]]]) -> str:
    def median(figure: str) -> float:
        return statistics.median(r[name][figure] for r in rounds)

    ratio: Any = statistics.median(r[name]["p50"] / r[name]["floor"] for r in rounds)
    return (
        f"{name:<10} {median('p50'):>8.2f} {median('p99'):>8.1f} {median('p99.9'):>9.1f} {ratio:>8.2f} "
        f"{median('import'):>10.1f} {median('init'):>8.1f} {median('finish'):>10.1f}"
    )


if __name__ == "__main__":
    main()
