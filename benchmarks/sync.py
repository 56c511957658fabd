"""What a sync costs, on loopback: small runs, nothing to do, a million steps, a large artifact and its next version.

    python benchmarks/sync.py [--runs 1000] [--steps 1000000] [--megabytes 1024] [--memory-megabytes 4096]

Client and server are processes of their own, as they are in use; the server commits with fsync. The artifact's rate is
compared with a plain `requests.put` of the same bytes, in the same run, to a bare ASGI application under the same
uvicorn, which writes the body to a file and syncs it: what any server has to do. Each rate is the best of three. The
peaks of memory are those that the kernel noted (VmHWM), the server's over everything before.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import requests

from flightlog.journal import record
from flightlog.protocol.manifest import FileEntry, Manifest

T0 = 1_700_000_000.0
WRITER = "w" * 16
_BLOCK = 4 << 20

_PLAIN = """
import os, sys, tempfile, uvicorn

async def app(scope, receive, send):
    with tempfile.NamedTemporaryFile(dir=sys.argv[1]) as file:
        more = True
        while more:
            message = await receive()
            file.write(message.get("body", b""))
            more = message.get("more_body", False)
        file.flush()
        os.fsync(file.fileno())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

uvicorn.run(app, port=int(sys.argv[2]), log_level="error", lifespan="off")
"""


def write_run(place: Path, run_id: str, steps: int, metrics: int = 3) -> None:
    """Write a finished run by hand: `steps` log records of `metrics` numbers."""
    folder = place / "files" / "journal" / WRITER
    folder.mkdir(parents=True)
    about = {"format": 1, "id": run_id, "project": "bench", "name": run_id, "config": {"lr": 0.1}}
    names = [f"metric_{n}" for n in range(metrics)]
    with (folder / "000001.jsonl").open("wb") as file:
        file.write(record.encode(1, T0, "run", record.body(orjson.dumps(about))))
        for i in range(steps):
            values = {name: (i * 7919 % 1000) / 1000 + n for n, name in enumerate(names)}
            file.write(record.encode_log(i + 2, T0 + i * 0.01, i, values))
        end = record.body(orjson.dumps({"state": "finished"}))
        file.write(record.encode(steps + 2, T0 + steps, "finish", end))
    spec = {**about, "state": "finished", "host": "elsewhere", "started_at": T0}
    (place / "latest.spec").write_bytes(orjson.dumps(spec))


def write_artifact(place: Path, run_id: str, content: Path) -> None:
    """Write a run that logged one file as an artifact; the file becomes the run's."""
    write_run(place, run_id, 10)
    whole = hashlib.sha256()
    with content.open("rb") as file:
        while block := file.read(_BLOCK):
            whole.update(block)
    root = place / "files" / "artifacts" / "model" / run_id
    (root / "files").mkdir(parents=True)
    entry = FileEntry("model.bin", content.stat().st_size, whole.hexdigest())
    manifest = Manifest("model", "model", (entry,))
    (root / "manifest.json").write_bytes(manifest.to_json())
    os.link(content, root / "files" / "model.bin")
    where = f"artifacts/model/{run_id}/manifest.json"
    data = {"action": "log", "name": "model", "version": "v0", "digest": manifest.digest, "manifest": where}
    raw = record.encode(1, T0, "artifact", record.body(orjson.dumps({**data, "aliases": ["latest"]})))
    folder = place / "files" / "journal" / "artifacts"
    folder.mkdir()
    (folder / "000001.jsonl").write_bytes(raw)


def write_random(path: Path, megabytes: int, seed: int) -> None:
    chance = random.Random(seed)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(chance.randbytes(1 << 20))


class Bench:
    """A server, a home folder, and what was measured."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "HOME": str(folder / "home"), "FLIGHTLOG_SILENT": "1"}
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "FLIGHTLOG_DIR", "FLIGHTLOG_BASE_URL"):
            self.env.pop(name, None)
        (folder / "home").mkdir()

    @contextmanager
    def server(self) -> Iterator[subprocess.Popen[str]]:
        words = [sys.executable, "-m", "flightlog", "server", "--data", str(self.folder / "data"), "--port", "0"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=self.env)
        try:
            assert process.stdout is not None
            said = ""
            while "Accounts for others" not in said:
                said += process.stdout.readline()
            found = re.search(r"http://\S+:\d+", said)
            key = re.search(r"fl_\w+", said)
            assert found and key
            self.url = found[0].rstrip(",")
            self.env["FLIGHTLOG_API_KEY"] = key[0]
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)

    def sync(self, *paths: Path) -> tuple[float, dict[str, Any], int]:
        """Sync; return seconds, what `--json` says, and the client's peak of memory in bytes."""
        words = [sys.executable, "-m", "flightlog", "sync", *map(str, paths), "--server", self.url, "--json"]
        began = time.perf_counter()
        with subprocess.Popen(words, stdout=subprocess.PIPE, env=self.env) as process:
            assert process.stdout is not None
            said = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        assert process.returncode == 0, said[:2000]
        return seconds, orjson.loads(said), usage.ru_maxrss * 1024


def peak(process: subprocess.Popen[str]) -> float:
    """Return the most memory that a process has had, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) / 1000 if found else float("nan")


@contextmanager
def plain_server(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", _PLAIN, str(folder), str(port)])
    try:
        for _ in range(200):
            try:
                requests.put(f"http://127.0.0.1:{port}/", data=b"", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(30)


def small_runs(bench: Bench, count: int) -> None:
    place = bench.folder / "small"
    for n in range(count):
        write_run(place / f"run-{n:05d}", f"small{n:05d}", 100)
    seconds, said, _ = bench.sync(place)
    assert len(said["runs"]) == count
    print(f"{count} runs of 100 steps: {seconds:.1f} s")
    nothing = min(bench.sync(place)[0] for _ in range(3))
    print(f"nothing to sync among {count} runs: {nothing:.2f} s, the command's start included")


def million(bench: Bench, steps: int) -> None:
    write_run(bench.folder / "million", "million", steps, metrics=1)
    seconds, _, used = bench.sync(bench.folder / "million")
    print(f"{steps:,} logged steps: {seconds:.1f} s, committed; client's peak {used / 1e6:.0f} MB")


def artifact(bench: Bench, megabytes: int) -> None:
    content = bench.folder / "one.bin"
    rates: dict[str, float] = {"plain": 0.0, "sync": 0.0}
    with plain_server(bench.folder) as url:
        for turn in range(3):
            write_random(content, megabytes, turn)
            size = content.stat().st_size
            write_artifact(bench.folder / f"artifact{turn}", f"artifact{turn}", content)
            began = time.perf_counter()
            with content.open("rb") as file:
                requests.put(url, data=file, timeout=600).raise_for_status()
            rates["plain"] = max(rates["plain"], size / (time.perf_counter() - began))
            seconds, _, used = bench.sync(bench.folder / f"artifact{turn}")
            rates["sync"] = max(rates["sync"], size / seconds)
            if turn < 2:
                content.unlink()
                shutil.rmtree(bench.folder / f"artifact{turn}")
    print(
        f"artifact of {megabytes} MB: {rates['sync'] / 1e6:.0f} MB/s, plain PUT {rates['plain'] / 1e6:.0f} MB/s, "
        f"ratio {rates['sync'] / rates['plain']:.2f}; client's peak {used / 1e6:.0f} MB"
    )
    changed = bench.folder / "two.bin"
    shutil.copyfile(content, changed)
    with changed.open("r+b") as file:
        file.seek(size * 2 // 5)
        for _ in range(megabytes // 20):
            file.write(os.urandom(1 << 20))
    write_artifact(bench.folder / "next", "next", changed)
    seconds, said, _ = bench.sync(bench.folder / "next")
    sent = said["runs"][0]["bytes_sent"]
    print(f"the same with 5 % changed: {sent / size:.1%} of its bytes sent, {seconds:.1f} s")


def memory(bench: Bench, megabytes: int, process: subprocess.Popen[str]) -> None:
    content = bench.folder / "large.bin"
    write_random(content, megabytes, 99)
    write_artifact(bench.folder / "large", "large", content)
    _, _, used = bench.sync(bench.folder / "large")
    print(f"artifact of {megabytes} MB: peak of the client {used / 1e6:.0f} MB, of the server {peak(process):.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--memory-megabytes", type=int, default=4096)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flightlog-bench-") as folder:
        bench = Bench(Path(folder))
        with bench.server() as process:
            small_runs(bench, asked.runs)
            million(bench, asked.steps)
            artifact(bench, asked.megabytes)
            memory(bench, asked.memory_megabytes, process)
    load = os.getloadavg()[0]
    print(f"load of this machine meanwhile: {load:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
