"""mode="online", as the training sees it: one detached process that follows the run, and nothing else.

The training opens no socket and imports no HTTP library. A thread starts `flightlog sync --watch` for the run
directory, and looks now and then at what that leaves in follower.json, to say once if there is trouble. At the end of
the run the training waits until everything is delivered, for a bounded time.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from .errors import FlightlogError
from .process import unforked
from .rundir import RunDir
from .settings import Settings, credentials_file
from .terminal import guarded, printable, say, warn_once

if TYPE_CHECKING:
    from .followed import Standing

INTERVAL = 0.2
# The script's own start comes first.
_PAUSE = 0.05
_LOOK_SECONDS = 2.0
_NO_SERVER = "no server is configured"


class Destination(NamedTuple):
    """Where an online run goes.

    Attributes:
        origin: the server.
        by_environment: the key is that of FLIGHTLOG_API_KEY; else the follower finds it among the stored ones.
    """

    origin: str
    by_environment: bool


class Choice(NamedTuple):
    """The mode of a run, why it is so, and where it goes if that is online.

    `worth_saying`: the run would be online if something were mended.
    """

    mode: str
    why: str
    destination: Destination | None = None
    worth_saying: bool = False


def choose(chosen: Settings) -> Choice:
    """Return the mode in force: the one that was asked for, else online where a server and a key for it are at hand.

    Nothing is asked at the terminal, and nothing is sent anywhere. A run that cannot be online is offline; `why`
    says why.
    """
    source = chosen.sources.get("mode")
    if source == "WANDB_*" and chosen.mode == "online":
        source = None  # it speaks of another server
    if source is not None and chosen.mode != "online":
        return Choice(chosen.mode, _named(source))
    try:
        if source is None and chosen.base_url is None and not credentials_file().exists():
            return Choice("offline", _NO_SERVER)  # as most are who have no server: at no cost
        from . import keys

        server = keys.default_server() if chosen.base_url is None and source is None else keys.choose_server(chosen)
        if server is None:
            return Choice("offline", _NO_SERVER)
        by_environment = keys.is_in_environment(server)
    except FlightlogError as error:
        return Choice("offline", str(error), worth_saying=True)
    except (OSError, RuntimeError) as error:  # no home, or one that is closed to us
        return Choice("offline", f"{_NO_SERVER} ({error})", worth_saying=source is not None)
    why = _named(source) if source else f"there is an API key for {server.origin}"
    return Choice("online", why, Destination(server.origin, by_environment))


def _named(source: str) -> str:
    return {"argument": "the argument says so", "environment": "FLIGHTLOG_MODE says so"}.get(
        source, f"{source} says so"
    )


class Online:
    """Sees to it that a run is followed, from start() to finish().

    Args:
        run_dir: the run directory.
        destination: where it goes.
        finish_timeout: seconds to wait for the delivery at the end.
        follow_timeout: seconds for which the follower goes on trying after that.
    """

    def __init__(self, run_dir: RunDir, destination: Destination, finish_timeout: float, follow_timeout: float) -> None:
        self._run_dir = run_dir
        self._destination = destination
        self._finish_timeout = finish_timeout
        self._follow_timeout = follow_timeout
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._started_in: RunDir | None = None
        self._thread: threading.Thread | None = None
        self._told = False
        self._began = time.time()

    @property
    def origin(self) -> str:
        """The server."""
        return self._destination.origin

    def start(self) -> None:
        """Begin: at once for the training, a moment later for the follower."""
        self._thread = threading.Thread(target=self._look_after, name="flightlog-online", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads for this user: it is started at the end
            self._thread = None

    def _look_after(self) -> None:
        with guarded("following the run online"):
            self._stopping.wait(_PAUSE)
            self._ensure(self._run_dir)
            while not self._told and not self._stopping.wait(_LOOK_SECONDS):
                self._tell_of_trouble()

    def _tell_of_trouble(self) -> None:
        """Say once what keeps the records from arriving."""
        with unforked():
            from . import followed
        standing = followed.load(self._run_dir)
        if standing is None or self._told or standing.server != self.origin or standing.updated_at < self._began:
            return
        line = _trouble(standing)
        if line is not None:
            self._told = True
            say(f"warning: {line}")

    # -- the follower's process ----------------------------------------------------------------------------------------

    def _ensure(self, run_dir: RunDir) -> None:
        """Start the follower of a directory, if this has not been done."""
        with self._starting:
            if self._started_in != run_dir:
                self._started_in = run_dir
                self._spawn(run_dir)

    def _spawn(self, run_dir: RunDir) -> None:
        words = ["sync", str(run_dir.path), "--watch", "--until-finished", "--follower", f"--interval={INTERVAL}"]
        words += [f"--server={self.origin}", f"--give-up-after={self._follow_timeout:g}"]
        try:
            with unforked():  # a child that is forked meanwhile would hold the other end of its pipe
                from . import detached, followed

                detached.start(words, run_dir.path / followed.LOG, self._environment())
        except OSError as error:
            warn_once("follower", f"the process that delivers this run cannot be started ({error}).")

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if not self._destination.by_environment:
            environment.pop("FLIGHTLOG_API_KEY", None)  # it is not for this server
        return environment

    # -- the end -------------------------------------------------------------------------------------------------------

    def finish(self, run_dir: RunDir, *, wait: bool) -> str | None:
        """Wait until everything is delivered, no longer than the limit; Ctrl-C stops the waiting only.

        Args:
            run_dir: where the run is now.
            wait: False for a process that has no time left.

        Returns:
            The address of the run's page, None where it is not delivered yet.
        """
        self._stopping.set()
        with guarded("waiting for the delivery"):
            if self._thread is not None:
                self._thread.join(3.0)
            self._ensure(run_dir)
            self._run_dir = run_dir
            from .waiting import Waiting

            limit = self._finish_timeout if wait else 0.0
            try:
                return Waiting(run_dir, self.origin, self._began, lambda: self._spawn(run_dir)).until_delivered(limit)
            except KeyboardInterrupt:
                say("not waiting any longer.")
            finally:
                self._tell_of_trouble()
        return None


def _trouble(standing: Standing) -> str | None:
    """Return what to say of a follower that does not get on; None where it does."""
    error = printable(standing.error or "").rstrip(".")
    if standing.state == "waiting":
        return f"{error}; the run is recorded here and is delivered when the server is back."
    if standing.state == "refused":
        return f"{error}; the run is recorded here and is not delivered until that is mended."
    if standing.state in ("failed", "stopped") and error:
        return f"{error}; the run is recorded here."
    if standing.state == "gone":
        return f"{error}; the run is recorded here only."
    return None
