"""How a process ends without finish(): by its last line, sys.exit, an exception, or SIGTERM.

A batch system sends SIGTERM and, some time later, SIGKILL. The run ends as "preempted" at once and is on the disk; then
the signal does what it would have done: the script's own handler runs, or the process dies of it.
"""

from __future__ import annotations

import atexit
import builtins
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

from .run import Run
from .terminal import guarded

_peek: Callable[[], Run | None]
_take: Callable[[], Run | None]
_installed = False
_exited: tuple[Run, int, int] | None = None
_terminated: Run | None = None
_handed_over = 0
_before_sigterm: Any = None
_latest: Run | None = None


def watch(run: Run, peek: Callable[[], Run | None], take: Callable[[], Run | None]) -> None:
    """Install what notices the process's end, once; call it at every init.

    Args:
        run: the run that begins.
        peek: returns the run that this process began and has not ended yet, None where there is none.
        take: the same, and makes it current no longer.
    """
    global _peek, _take, _installed, _latest
    _peek, _take, _latest = peek, take, run
    if not _installed:
        _installed = True
        atexit.register(_at_exit)
        _chain_excepthook()
        _chain_exit()
    _chain_sigterm()


def hand_over() -> bool:
    """Leave it to whoever has put his handler in the place of ours to end the process on SIGTERM, until `take_back`.

    A framework that wants to save a last checkpoint calls ours from its own. However the run ends then, it was
    preempted.

    Returns:
        False where ours is still in place: nobody else would end the process.
    """
    global _handed_over
    now = signal.getsignal(signal.SIGTERM)
    if now is _on_sigterm or not callable(now):
        return False
    _handed_over += 1
    return True


def take_back() -> None:
    """SIGTERM ends the process again; once for each `hand_over` that returned True."""
    global _handed_over
    _handed_over = max(0, _handed_over - 1)


def terminated(run: Run) -> None:
    """Note that this process was told to end, where only a handler of somebody else has heard of it."""
    global _terminated
    _terminated = run
    with guarded("SIGTERM"):
        run.when_free(lambda: _mark(run))


def listen_again() -> None:
    """Hear of SIGTERM again, where somebody has put back the handler that was there before ours."""
    if _installed:
        _chain_sigterm()


def is_terminated(run: Run) -> bool:
    """Whether this process was told by SIGTERM to end, and the run is not over yet."""
    return run is _terminated


def _at_exit() -> None:
    run = _take()
    if run is None:
        return
    if run is _terminated:
        run.preempt()
    elif _exited is not None and _exited[0] is run and _exited[2] == run.records:
        run.finish(_exited[1])
    else:
        run.finish()


def _chain_excepthook() -> None:
    before = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        try:
            before(kind, error, trace)  # first, so that the console has it
        finally:
            with guarded("recording the exception"):
                run = _take()
                if run is not None and run is _terminated:
                    run.preempt()
                elif run is not None:
                    run.fail(error)

    sys.excepthook = excepthook


def _chain_exit() -> None:
    """Note the status of sys.exit(), which later hooks are not told. It counts if nothing is recorded after it."""
    before = sys.exit

    def exit(status: Any = None, /) -> NoReturn:
        _note_status(status)
        before(status)

    sys.exit = exit
    quitter: Any = type(getattr(builtins, "exit", None))
    if quitter.__name__ == "Quitter":  # what `exit()` and `quit()` are, where site.py has put them
        quit_before = quitter.__call__

        def quit(self: Any, code: Any = None) -> NoReturn:
            _note_status(code)
            quit_before(self, code)
            raise SystemExit(code)

        quitter.__call__ = quit


def _note_status(status: Any) -> None:
    global _exited
    if threading.current_thread() is threading.main_thread():
        with guarded("noting the exit status"):
            run = _peek()
            if run is not None:
                _exited = (run, status if isinstance(status, int) else int(status is not None), run.records)


def _chain_sigterm() -> None:
    global _before_sigterm
    if threading.current_thread() is not threading.main_thread():
        return
    now = signal.getsignal(signal.SIGTERM)
    if now is _on_sigterm or not (callable(now) or now is signal.SIG_DFL):
        return  # ours already; ignored on purpose; or set by C code that we could not call
    _before_sigterm = now
    signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    global _terminated
    if _latest is not None and _latest.is_ending:
        # Its copy to a shared disk, say, is what the grace period is for; a second signal must not cut it short.
        _latest.when_ended(lambda: _on_sigterm(number, frame))
        return
    run = _peek()
    if callable(_before_sigterm) or _handed_over:
        if run is not None:
            # The script has its own ideas, a last checkpoint perhaps. However it ends now, it was preempted.
            _terminated = run
            with guarded("SIGTERM"):
                run.when_free(lambda: _mark(run))
        if callable(_before_sigterm):
            _before_sigterm(number, frame)
    elif run is not None:
        run.when_free(lambda: _die_preempted(run))
    else:
        _die()


def _mark(run: Run) -> None:
    """Keep what there is, whatever the script's handler makes of its time."""
    if run.state == "running":
        run.mark_preempting()
        run.spool()


def _die_preempted(run: Run) -> None:
    with guarded("SIGTERM"):
        run.preempt()
    _die()


def _die() -> None:
    """Let SIGTERM do what it does by default, so that the parent sees what ended this process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
