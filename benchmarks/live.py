"""How live an online run is: the time from log() to the server, and what the follower costs.

    python benchmarks/live.py [--seconds 20] [--rate 100] [--steps 1000000] [--idle 20]

A server and a training run on this machine. The training logs at a steady rate; the server is asked a hundred times a
second which step it has, and a step's latency is the time from its record to the first answer that has it. The
follower's processor time is read from /proc. Then a run of many steps is followed in which nothing happens any more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

TRAINING = """
import sys, time, flightlog
run = flightlog.init(project="bench", id="live", console="off", system_interval=0)
end = time.monotonic() + {seconds}
due = time.monotonic()
while time.monotonic() < end:
    flightlog.log({{f"metric{{n}}": n * 0.5 for n in range(10)}})
    due += 1 / {rate}
    time.sleep(max(0.0, due - time.monotonic()))
"""
LONG = """
import sys, flightlog
run = flightlog.init(project="bench", id="long", console="off", system_interval=0)
for step in range({steps}):
    flightlog.log({{"loss": step * 0.5}})
print("ready", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str]]:
    """Run a server; give its address and the admin's key."""
    words = [sys.executable, "-m", "flightlog", "server", "--data", str(folder), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        while "Accounts for others" not in said:
            said += process.stdout.readline()
        found, key = re.search(r"http://\S+:\d+", said), re.search(r"fl_\S+", said)
        assert found and key
        try:
            yield found[0], key[0]
        finally:
            process.terminate()


def shown(url: str, key: str, run: str) -> dict[str, object]:
    """Return the run as the server shows it; nothing before it is there."""
    request = Request(f"{url}/api/v1/runs/admin/bench/{run}", headers={"Authorization": f"Bearer {key}"})
    try:
        with urlopen(request) as answer:
            found: dict[str, object] = json.load(answer)
            return found
    except OSError:
        return {}


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Return a process's resident MB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise ProcessLookupError(f"process {pid} has ended")
    return int(found[1]) / 1024


def follower_of(place: Path, run: str) -> int:
    """Wait for a run's follower and return its process id."""
    while True:
        for path in place.glob(f"run-*-{run}/follower.json"):
            return int(json.loads(path.read_bytes())["pid"])
        time.sleep(0.01)


def latency(url: str, key: str, place: Path, seconds: float, rate: float, environment: dict[str, str]) -> None:
    """Measure and print the latency of a steady run, and its follower's cost."""
    script = TRAINING.format(seconds=seconds, rate=rate)
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL) as training:
        pid = follower_of(place, "live")
        seen: list[tuple[float, int]] = []
        while training.poll() is None:
            facts = shown(url, key, "live")
            seen.append((time.time(), int(str(facts.get("step", 0)))))
            if len(seen) == 100:
                began, used = time.monotonic(), processor_seconds(pid)
            time.sleep(0.01)
            if len(seen) > 100 and Path(f"/proc/{pid}").exists():
                with contextlib.suppress(OSError):
                    resident = memory(pid)
                    cost = (processor_seconds(pid) - used) / (time.monotonic() - began)
    (journal,) = place.glob("run-*-live/files/journal/*/000001.jsonl")
    written = {r["step"]: r["t"] for r in map(json.loads, journal.open()) if r["kind"] == "log"}
    behind = []
    position = 0
    for step, at in sorted(written.items()):
        while position < len(seen) and seen[position][1] <= step:
            position += 1
        if position == len(seen):
            break
        if at > seen[0][0] + 2.0:  # the follower's own start is not what is measured
            behind.append(seen[position][0] - at)
    behind.sort()
    print(f"{len(behind)} steps at {rate:g}/s: p50 {statistics.median(behind):.3f} s, "
          f"p99 {behind[int(len(behind) * 0.99)]:.3f} s, most {behind[-1]:.3f} s")  # fmt: skip
    print(f"follower: {cost:.1%} of a processor, {resident:.0f} MB")


def idle(url: str, key: str, place: Path, steps: int, seconds: float, environment: dict[str, str]) -> None:
    """Measure and print what it costs to follow a long run in which nothing happens."""
    with subprocess.Popen(
        [sys.executable, "-c", LONG.format(steps=steps)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as training:  # fmt: skip
        assert training.stdout is not None and training.stdin is not None
        pid = follower_of(place, "long")
        training.stdout.readline()
        began = time.monotonic()
        while int(str(shown(url, key, "long").get("step", 0))) < steps:
            time.sleep(0.2)
        print(f"{steps:,} steps were there {time.monotonic() - began:.1f} s after the last")
        time.sleep(5.0)
        began, used = time.monotonic(), processor_seconds(pid)
        time.sleep(seconds)
        cost = (processor_seconds(pid) - used) / (time.monotonic() - began)
        print(f"then its follower: {cost:.2%} of a processor, {memory(pid):.0f} MB")
        began = time.monotonic()
        training.stdin.write("\n")
        training.stdin.close()
        training.wait()
        print(f"the end of it took {time.monotonic() - began:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--idle", type=float, default=20.0)
    options = parser.parse_args()
    signal.alarm(1800)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "runs"
        with serving(Path(folder) / "data") as (url, key):
            environment = {
                **os.environ,
                "FLIGHTLOG_DIR": str(place),
                "FLIGHTLOG_BASE_URL": url,
                "FLIGHTLOG_API_KEY": key,
                "FLIGHTLOG_MODE": "online",
                "FLIGHTLOG_FINISH_TIMEOUT": "600",
            }
            latency(url, key, place, options.seconds, options.rate, environment)
            if options.steps:
                idle(url, key, place, options.steps, options.idle, environment)


if __name__ == "__main__":
    main()
