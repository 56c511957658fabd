"""flightlog sync --watch: its options, its lines, its signals; and the follower of an online run, which is the same."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from .. import followed, settings
from ..errors import FlightlogError, NotFound
from ..locks import try_lock
from ..rundir import RunDir, Unreadable
from ..sync.session import folder_of
from ..terminal import printable, without_keys
from .text import print_json

if TYPE_CHECKING:
    from ..sync.follower import Followed
    from ..sync.link import Link
    from ..sync.watch import Watch, Wishes

F = TypeVar("F", bound=Callable[..., Any])
INTERVAL = 5.0
_LOCK_SECONDS = 20.0  # an earlier follower of this run may be at its very end
_MAX_LOG = 256 << 10
_NICENESS = 5


class Watching(NamedTuple):
    """What `--watch` and its like say.

    Attributes:
        watch: go on until stopped.
        interval: seconds between two looks.
        until_finished: end when all runs have ended and are delivered.
        all_users: follow other users' runs, too.
        give_up_after: seconds for which to go on trying once a run has ended; None for ever.
        follower: this is the follower of an online run.
    """

    watch: bool
    interval: float
    until_finished: bool
    all_users: bool
    give_up_after: float | None
    follower: bool


def watch_options(command: F) -> F:
    """Add the options of `--watch` to a command, which is given them as one argument, `watching: Watching`."""

    @functools.wraps(command)
    def collected(*args: Any, **options: Any) -> Any:
        watching = Watching(**{name: options.pop(name) for name in Watching._fields})
        return command(*args, watching=watching, **options)

    with_options: Any = collected
    for option in _OPTIONS:
        with_options = option(with_options)
    found: F = with_options
    return found


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--follower", is_flag=True, hidden=True),
    click.option(
        "--give-up-after",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="With --watch: how long to go on trying once a run has ended; without it, for ever.",
    ),
    click.option("--all-users", is_flag=True, help="With --watch: follow other users' runs, too."),
    click.option("--until-finished", is_flag=True, help="With --watch: end when all runs are through."),
    click.option(
        "--interval",
        type=click.FloatRange(min=0.05, max=3600.0),
        default=INTERVAL,
        show_default=True,
        metavar="SECONDS",
        help="With --watch: how often to look.",
    ),
    click.option("--watch", is_flag=True, help="Go on delivering what is recorded, and new runs, until stopped."),
)


def run_watch(
    paths: Sequence[Path],
    link: Link,
    wishes: Wishes,
    *,
    follower: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Follow runs until told to stop, or until all is done.

    Args:
        paths: runs, and folders that hold some; without them those that `flightlog sync` looks at.
        link: the way to the server. wishes: what is to be done.
        follower: this is the follower of an online run.
        as_json: print one JSON object a line. quiet: print only what went wrong.

    Returns:
        The exit status: 0 everything is delivered, 1 it is not, 2 the key is refused, 3 part of it is damaged.

    Raises:
        NotFound: a path does not exist.
    """
    places = _places(paths)
    if follower:
        return _follow(RunDir(places[0]), link, wishes)
    from ..sync.watch import Watch

    lines = (_JsonLines if as_json else _Lines)(quiet)
    watch = Watch(places, link, wishes, lines.tell, lines.each_round)
    lines.say("watching", f"watching {', '.join(map(str, places))} for {link.server.origin}")
    _run(watch)
    lines.end(watch)
    return watch.exit_status


def _run(watch: Watch) -> None:
    """Run a watch until it ends, or SIGTERM or SIGINT ends it."""
    with contextlib.suppress(_Stopped, KeyboardInterrupt), _stoppable():
        watch.run()


def _places(paths: Sequence[Path]) -> list[Path]:
    """Return what is to be watched, in full. Raises NotFound."""
    if not paths:
        return list(dict.fromkeys([Path.cwd(), Path(settings.load().dir).absolute()]))
    found = []
    for path in paths:
        place = folder_of(path)
        try:
            what = "" if place.is_dir() else "is no folder" if place.exists() else "does not exist"
        except OSError as error:
            what = f"cannot be looked at: {error.strerror or error}"
        if what:
            raise NotFound(f"{path} {what}; name a run or a folder")
        found.append(place)
    return list(dict.fromkeys(found))


# -- the follower of an online run -------------------------------------------------------------------------------------


def _follow(directory: RunDir, link: Link, wishes: Wishes) -> int:
    """Follow one run for the training that records it, which reads follower.json."""
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with _locked(directory) as is_first:
        if not is_first:
            return 0  # another one follows this run
        from ..sync.diary import Diary
        from ..sync.watch import Watch

        diary = Diary(directory, link.server.origin)
        lines = _LogLines()

        def each_round(watch: Watch) -> None:
            lines.each_round(watch)
            diary.note(watch)

        watch = Watch([directory.path], link, wishes._replace(all_users=True), lines.tell, each_round)
        try:
            _run(watch)
            lines.end(watch)
        finally:
            diary.note(watch)
            diary.stop()
        return watch.exit_status


def tell_of_refusal(paths: Sequence[Path], origin: str, why: FlightlogError) -> None:
    """Let the training hear that its follower has no key."""
    from ..sync.diary import Diary

    Diary(RunDir(_places(paths)[0]), origin).refuse(str(why))


@contextlib.contextmanager
def _locked(directory: RunDir) -> Iterator[bool]:
    """Hold the run's lock; tell whether it could be had. Where the file system has none, a second follower does no
    harm."""
    try:
        fd = os.open(directory.path / followed.LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError:
        yield True
        return
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while try_lock(fd) is False:
            if time.monotonic() > deadline:
                yield False
                return
            time.sleep(0.2)
        yield True
    finally:
        os.close(fd)


# -- signals -----------------------------------------------------------------------------------------------------------


class _Stopped(BaseException):
    """Somebody wants the watch to end."""


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Within the block SIGTERM raises `_Stopped`, also in the midst of a request: what is not proven is sent again."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# -- lines -------------------------------------------------------------------------------------------------------------


_BAD = frozenset(("failed", "damaged", "waiting", "refused", "given up"))


class _Lines:
    """Prints a line for each thing that happens; `quiet`: only what went wrong."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._down = False
        self._unreadable: set[Unreadable] = set()

    def say(self, event: str, text: str, run: Followed | None = None) -> None:
        """Print a line. What went wrong goes to stderr."""
        bad = event in _BAD
        if bad or not self.quiet:
            click.echo(printable(without_keys(text)), err=bad)

    def tell(self, run: Followed, event: str) -> None:
        """A run has come to another state."""
        if event == "found" and run.ended is not None:
            return  # the next line says what came of it
        self.say(event, f"{event:10} {run.name}{self._more(run, event)}", run)

    def _more(self, run: Followed, event: str) -> str:
        if event in ("failed", "damaged", "given up", "gone"):
            return f": {run.error}" if run.error else ""
        if event == "delivered":
            ended = f"{run.ended}, " if run.ended else ""
            amount = f"{run.records:,} records" if run.records else "up to date"
            kept = f"  (kept here: {run.kept})" if run.kept else ""
            return f": {ended}{amount}  {run.url}{kept}"
        if event == "cleaned":
            return f"  {run.directory.path}"
        return f"  {run.url or run.directory.path}"

    def each_round(self, watch: Watch) -> None:
        """Say when the server goes away, and when it is back; and which folders cannot be looked into, once."""
        down = watch.link.down
        if (down is not None) != self._down:
            self._down = down is not None
            if down is not None:
                self.say("waiting", f"waiting    {down}")
            else:
                self.say("back", f"back       {watch.link.server.origin}")
        for folder in set(watch.unreadable) - self._unreadable:
            self.say("failed", f"failed     {folder}")
        self._unreadable = set(watch.unreadable)

    def end(self, watch: Watch) -> None:
        """Say what stays behind."""
        if watch.link.refused is not None:
            self.say("refused", f"refused    {watch.link.refused}")
        left = sum(not run.is_delivered for run in watch.runs.values())
        if left:
            self.say("failed", f"{left} of {len(watch.runs)} runs are not delivered; flightlog sync goes on with them")


class _JsonLines(_Lines):
    """Prints one JSON object a line."""

    def say(self, event: str, text: str, run: Followed | None = None) -> None:
        if self.quiet and event not in _BAD:
            return
        facts: dict[str, Any] = {"event": event.replace(" ", "_"), "t": time.time()}
        if run is not None:
            facts.update(
                id=run.run_id,
                name=run.name,
                path=str(run.directory.path),
                ended=run.ended,
                records=run.records,
                url=run.url or None,
                error=run.error,
                kept=run.kept,
            )
        else:
            facts["text"] = text
        print_json(facts)


class _LogLines(_Lines):
    """Prints lines with their time to a log that stays small."""

    def __init__(self) -> None:
        super().__init__(quiet=False)

    def say(self, event: str, text: str, run: Followed | None = None) -> None:
        with contextlib.suppress(OSError, ValueError):
            if os.fstat(1).st_size > _MAX_LOG:
                os.ftruncate(1, 0)
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            sys.stdout.write(f"{stamp} {printable(without_keys(text))}\n")
            sys.stdout.flush()
