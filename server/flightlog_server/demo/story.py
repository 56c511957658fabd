"""The demo from beginning to end: train without a server, start one, sync, compare, show."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import click

from flightlog.errors import FlightlogError
from flightlog.reading import Api, RunView

from .. import serve
from ..data import first_account, opened


def run(*, ends: bool, folder: Path | None) -> int:
    """Run the demo and return its exit status: 0 only if everything came back from the server as it was logged.

    Args:
        ends: stop the server after the comparison instead of keeping it up until Ctrl-C.
        folder: where to work and leave everything; a temporary folder, removed at the end, without it.
    """
    for name in [n for n in os.environ if n.startswith(("FLIGHTLOG_", "WANDB_")) and n != "FLIGHTLOG_SILENT"]:
        del os.environ[name]  # the demo's runs are its own, whatever this shell is set up for
    home = folder or Path(tempfile.mkdtemp(prefix="flightlog-demo-"))
    home.mkdir(parents=True, exist_ok=True)
    if any(home.iterdir()):
        raise FlightlogError(f"{home} is not empty; the demo wants a fresh folder")
    try:
        return _run(home.absolute(), ends)
    finally:
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)


def _run(home: Path, ends: bool) -> int:
    from .compare import differences
    from .training import train_all

    click.echo("Training three classifiers on 1,797 images of digits; no server is running …")
    began = time.monotonic()
    notes = train_all(home / "flightlog", home)
    steps = sum(len(n.rows) for n in notes)
    click.echo(f"Recorded {steps:,} steps of {len(notes)} runs in {time.monotonic() - began:.1f} s.\n")
    with opened(home / "server") as data:
        first = first_account(data)
        assert first is not None
    name, key = first
    server, url = _start(home / "server")
    try:
        click.echo(f"Started a server at {url}, and delivering with `flightlog sync`:")
        _sync(home, url, key)
        api = Api(url, api_key=key)
        wrong = differences(api, notes)
        click.echo("")
        _table(api.runs())
        if wrong:
            click.echo("\nWhat came back is not what was logged:\n  " + "\n  ".join(wrong), err=True)
            return 1
        click.echo(
            f"\nRead back and compared: all {steps:,} steps, configs, images and checkpoints are as they were logged."
        )
        if ends:
            return 0
        click.echo(f"\nThe page:  {url}/#key={key}\n(that link signs you in as {name!r})\n\nCtrl-C ends the server.")
        server.wait()
        return 0
    except KeyboardInterrupt:
        click.echo("")
        return 0
    finally:
        _stop(server)


def _start(data: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start `flightlog server` on a free port, as a process of its own, and wait until it answers."""
    sock = serve.listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    sock.close()
    command = [sys.executable, "-m", "flightlog", "server", "--data", str(data), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        if server.poll() is not None:
            raise FlightlogError(f"the server ended with status {server.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):  # noqa: S310
                return server, url
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    _stop(server)
    raise FlightlogError("the server did not answer within 30 s")


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _sync(home: Path, url: str, key: str) -> None:
    environment = {**os.environ, "FLIGHTLOG_API_KEY": key, "FLIGHTLOG_BASE_URL": url}
    command = [sys.executable, "-m", "flightlog", "sync", str(home / "flightlog")]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, timeout=300)
    if done.returncode:
        raise FlightlogError(f"flightlog sync ended with status {done.returncode}")


def _table(runs: list[RunView]) -> None:
    click.echo(f"{'run':<10} {'state':<9} {'steps':>6} {'train loss':>11} {'val accuracy':>13}")
    for view in sorted(runs, key=lambda r: -float(r.summary["val/accuracy"])):
        loss, accuracy = view.summary["train/loss"], view.summary["val/accuracy"]
        click.echo(f"{view.name:<10} {view.state:<9} {view.step:>6,} {loss:>11.4f} {accuracy:>13.3f}")
