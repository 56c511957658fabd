"""Console: what a run holds to record what is printed, from start() to stop()."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..journal.housekeeper import Housekeeper
from ..terminal import guarded, warn_once
from .recorder import Recorder
from .sink import JournalSink
from .streams import FollowedStream, WholeWrites

if TYPE_CHECKING:
    from .descriptors import Diversion

MODES = ("wrap", "fd", "off")
TICK_SECONDS = 0.5


class Console:
    """Records what goes to stdout and stderr into writers of its own in a run's journal.

    Args:
        journal: the run's journal folder.
        mode: "wrap" follows sys.stdout and sys.stderr; "fd" follows the file descriptors 1 and 2 themselves, so that
            subprocesses and C libraries are heard too; "off" records nothing.
        emit: takes the data of each record instead of the journal; for those that keep records otherwise.
        own_thread: whether a thread of its own calls `tick`; else the caller sees to that.

    Raises:
        UsageError: there is no such mode.
    """

    def __init__(
        self,
        journal: Path,
        mode: str = "wrap",
        *,
        emit: Callable[[dict[str, Any]], object] | None = None,
        own_thread: bool = True,
    ) -> None:
        if mode not in MODES:
            raise UsageError(f"console={mode!r} is none of {', '.join(MODES)}")
        self.mode = mode
        self._journal = journal
        self._sink = JournalSink(journal)
        self._recorder = Recorder(emit or self._sink)
        self._followed: list[FollowedStream] = []
        self._whole: list[WholeWrites] = []
        self._diversion: Diversion | None = None
        self._housekeeper: Housekeeper | None = None
        self._cells: Any = None
        self._own_thread = own_thread
        self._running = False

    def start(self) -> None:
        """Begin to record. What cannot be followed costs one warning; a second call does nothing."""
        if self.mode == "off" or self._running:
            return
        self._running = True
        _live.add(self)
        with guarded("recording the console"):
            if self.mode == "fd":
                self._divert()
            self._follow()
            if self._followed:
                if self._own_thread:
                    self._housekeeper = Housekeeper(self.tick, TICK_SECONDS)
                self._watch_cells()

    def flush(self) -> None:
        """Write everything printed so far to the journal, unfinished lines too, and wait until it is on the disk."""
        if not self._running:
            return
        with guarded("recording the console"):
            _flush_streams()
            self._recorder.flush()
            self._sink.sync(patient=False)
            if self._diversion is not None:
                self._diversion.flush()

    def stop(self) -> None:
        """Put back what was there and write what is left. What others put in our place meanwhile stays."""
        if not self._running:
            return
        self._running = False
        _live.discard(self)
        with guarded("recording the console"):
            _flush_streams()
            self._forget_cells()
            for followed in self._followed:
                followed.let_go()
            self._followed.clear()
            for whole in self._whole:
                whole.let_go()
            self._whole.clear()
            self._recorder.close()
            if self._housekeeper is not None:
                self._housekeeper.stop()
            self._sink.close()
            if self._diversion is not None:
                self._diversion.stop()

    @property
    def written(self) -> dict[str, int]:
        """The console's writers and the last seq of each, as latest.spec lists them."""
        return {**self._sink.written, **(self._diversion.written if self._diversion else {})}

    @property
    def size(self) -> int:
        """Bytes of journal so far; what a diversion wrote is known once it was flushed or stopped."""
        return self._sink.size + (self._diversion.size if self._diversion else 0)

    # -- starting ------------------------------------------------------------------------------------------------------

    def _divert(self) -> None:
        import subprocess

        _flush_streams()
        try:
            from .descriptors import Diversion

            diversion = Diversion(self._journal)
            diversion.start()
        except (OSError, ImportError, subprocess.SubprocessError) as error:
            warn_once("console fd", f'console="fd" is not possible here ({error}); Python\'s own output is recorded.')
            return
        self._diversion = diversion
        for stream in {id(stream): stream for stream in (sys.stdout, sys.stderr)}.values():
            if _descriptor(stream) in diversion.descriptors and WholeWrites.are_needed(stream):
                with contextlib.suppress(AttributeError, TypeError):
                    self._whole.append(WholeWrites(stream))

    def _follow(self) -> None:
        """Follow Python's streams, but those that end in a descriptor which is followed already."""
        streams: list[tuple[str, Any]] = [("stdout", sys.stdout), ("stderr", sys.stderr)]
        for name, stream in streams:
            if stream is None or (name == "stderr" and stream is sys.stdout):
                continue
            if self._diversion is not None and _descriptor(stream) in self._diversion.descriptors:
                continue
            try:
                self._followed.append(FollowedStream(stream, partial(self._recorder.take, name)))
            except (AttributeError, TypeError):
                warn_once(
                    f"console {name}",
                    f'sys.{name}, a {type(stream).__name__}, cannot be followed; console="fd" hears what it prints.',
                )

    def _ensure(self, *_: object) -> None:
        for followed in self._followed:
            followed.ensure()

    def _watch_cells(self) -> None:
        """In a notebook, see to it with each cell that we still hear."""
        shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if shell is not None:
            self._cells = shell.events
            self._cells.register("pre_run_cell", self._ensure)

    def _forget_cells(self) -> None:
        if self._cells is not None:
            self._cells.unregister("pre_run_cell", self._ensure)
            self._cells = None

    def tick(self) -> None:
        """Write what has waited; called every half second or second."""
        if self._running:
            self._ensure()
            self._recorder.tick()
            self._sink.sync()

    def move_to(self, journal: Path) -> None:
        """Go on in another journal folder."""
        self._journal = journal
        self._sink.move_to(journal)

    def _leave_to_parent(self) -> None:
        """In a forked child: its output goes where it went, and is none of this console's."""
        self._running = False
        self._recorder.abandon()
        self._sink.abandon()
        self._housekeeper = None
        for whole in self._whole:
            whole.renew()
        if self._diversion is not None:
            self._diversion.abandon()


_live: weakref.WeakSet[Console] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for console in list(_live):
        with guarded("leaving the console to the parent"):
            console._leave_to_parent()
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: S112  # closed, None, a broken pipe, whatever stands there: not ours to report
            continue


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except Exception:  # every library has its own word for "there is none"
        return None
