"""What keeping a checkpoint costs: python benchmarks/artifacts.py [--size 512] [--dir FOLDER]

Printed are the time that log_artifact takes of its caller for one big file (of random bytes: no holes, nothing to
compress), until the version is whole, and the disk that two versions take besides the training's own files, of which
the second differs in 5 % of its bytes. Each policy runs in a process of its own; shutil.copy is what a tracker does
that copies in the call. On a file system with reflinks (btrfs, XFS) "auto" takes no bytes; --dir says where to measure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 1 << 20
POLICIES = ("shutil.copy", "copy", "auto", "link")


def write(path: Path, size: int, *, change: float = 1.0) -> None:
    """Write `size` random bytes; with `change` below 1, only that share, over the beginning of what is there."""
    with open(path, "wb" if change == 1.0 else "r+b") as file:
        left = int(size * change)
        while left:
            left -= file.write(os.urandom(min(left, 8 * MIB)))
        os.fsync(file.fileno())


def taken(folder: Path) -> int:
    """Return the bytes in use on a folder's file system."""
    os.sync()
    facts = os.statvfs(folder)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def measure(policy: str, size: int, folder: Path) -> dict[str, float]:
    """Keep two versions of a file of `size` bytes, each saved under a path of its own. Runs in its own process."""
    first, second = folder / "step-1.bin", folder / "step-2.bin"
    write(first, size)
    shutil.copy(first, second)
    write(second, size, change=0.05)
    before = taken(folder)
    calls, whole = [], []
    if policy == "shutil.copy":
        for number, path in enumerate((first, second)):
            began = time.perf_counter()
            shutil.copy(path, folder / f"kept-{number}.bin")
            calls.append(time.perf_counter() - began)
            whole.append(calls[-1])
        during = after = taken(folder)
    else:
        import flightlog

        run = flightlog.init("bench", dir=folder / "flightlog")
        for path in (first, second):
            began = time.perf_counter()
            version = run.log_artifact(path, name="model", policy=policy)
            calls.append(time.perf_counter() - began)
            assert version is not None
            assert version.wait().state == "logged", version.reason
            whole.append(time.perf_counter() - began)
        during = taken(folder)
        run.finish()
        after = taken(folder)
    return {
        "call": max(calls) * 1000,
        "whole": max(whole),
        "during": (during - before) / MIB,
        "after": (after - before) / MIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="of the file, in MiB")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="a folder on the file system to measure on")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.size * MIB, arguments.dir)))
        return
    print(f"two versions of a file of {arguments.size} MiB, on {arguments.dir}")
    print(f"{'':<12}{'call ms':>9}{'whole s':>9}{'disk MiB, run on':>18}{'finished':>10}")
    for policy in POLICIES:
        with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
            command = [sys.executable, __file__, "--one", policy, "--size", str(arguments.size), "--dir", folder]
            environment = {**os.environ, "FLIGHTLOG_SILENT": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
        if done.returncode:
            print(f"{policy} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            continue
        figures = json.loads(done.stdout)
        print("{:<12}{call:>9.1f}{whole:>9.2f}{during:>18.0f}{after:>10.0f}".format(policy, **figures))


if __name__ == "__main__":
    main()
