"""What the browser tests share: a real server, real recordings delivered to it, and a real headless Chromium.

Everything runs in processes of its own, as it does for users. Where there is no Chromium, or the page has not been
built, the tests skip and say what is missing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "server" / "flightlog_server" / "static"
ROOMS = [str(ROOT / room) for room in ("core", "integrations", "server")]
# The last ones keep the browser from talking to anybody but the server under test.
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a process that sees this checkout, and nothing of its user's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLIGHTLOG_", "WANDB_"))}
    paths = os.pathsep.join([*ROOMS, *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "XDG_STATE_HOME": str(home / ".state")}
    return {**kept, **own, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **more}


@dataclass
class Server:
    """A flightlog server in a process of its own."""

    folder: Path
    url: str = ""
    key: str = ""
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self, port: int = 0) -> None:
        """Start it and read from its first lines where it is, and the key of its first account."""
        with (self.folder / "stderr").open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flightlog", "server", "--data", str(self.folder / "data"), "--port", str(port)],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(self.folder),
                text=True,
            )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        found = re.search(r"http://\S+:\d+", said)
        assert found, f"the server did not start: {said!r} {(self.folder / 'stderr').read_text()}"
        self.url = found[0]
        while not self.key:
            line = self._process.stdout.readline()
            assert line, (self.folder / "stderr").read_text()
            self.key = line.strip() if line.strip().startswith("fl_") else ""

        self._wait_for_answer()

    def _wait_for_answer(self) -> None:
        """Wait until it answers: its first lines come a moment before."""
        for _ in range(100):
            try:
                with urlopen(self.url + "/healthz"):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"the server does not answer: {(self.folder / 'stderr').read_text()}")

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def stop(self) -> None:
        """End it and wait until it has."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def create_user(self, name: str) -> str:
        """Make an account and return its key."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "flightlog", "server", "create-user", name, "--json"),
                *("--data", str(self.folder / "data")),
            ],
            env=environment(self.folder),
            check=True,
            capture_output=True,
            text=True,
        )
        return str(json.loads(done.stdout)["api_key"])

    def deliver(self, runs: Path) -> None:
        """Sync the runs below a folder to it with the key of its first account."""
        done = subprocess.run(
            [sys.executable, "-m", "flightlog", "sync", str(runs), "--server", self.url],
            env=environment(self.folder, FLIGHTLOG_API_KEY=self.key),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _new_server(folder: Path) -> Iterator[Server]:
    if not (STATIC / "index.html").is_file():
        pytest.skip("the page is not built: cd dashboard && npm ci && npm run build")
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that do not harm it."""
    yield from _new_server(tmp_path_factory.mktemp("server"))


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, for stopping and starting."""
    folder = tmp_path / "server"
    folder.mkdir()
    yield from _new_server(folder)


def start_training(folder: Path, script: str) -> subprocess.Popen[str]:
    """Start a training script in `folder`, below which its runs are recorded."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """A function that starts a training script in `tmp_path / "training"`; it is ended with the test."""
    folder = tmp_path / "training"
    folder.mkdir()
    started: list[subprocess.Popen[str]] = []

    def start(script: str) -> subprocess.Popen[str]:
        started.append(start_training(folder, script))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def recorded(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """A function that runs a training script to its end and delivers what it recorded; each script only once."""
    known: set[str] = set()

    def run(script: str) -> None:
        if script in known:
            return
        folder = tmp_path_factory.mktemp("training")
        process = start_training(folder, script)
        process.communicate()
        assert process.returncode == 0
        server.deliver(folder)
        known.add(script)

    return run


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium on PATH")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """An empty tab of a browser that knows no cookies. Errors of the page's scripts and broken content rules fail."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=server.url)
    page = context.new_page()
    page.set_default_timeout(10_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def signed_in(page: Any, server: Server) -> Any:
    """A tab that is signed in with the key of the server's first account."""
    page.goto(f"/#key={server.key}")
    page.get_by_role("button", name="Sign out").wait_for()
    return page
