"""Following the descriptors 1 and 2 themselves: everything that this process, its C libraries and its children print.

Both are led into pipes (pseudo-terminals, where they were terminals), and a process of its own, `tee`, brings what
comes out to where it always went and into the journal. A thread would not do: C code that prints while it holds the
interpreter's lock would wait for a reader that waits for the lock; and when this process is killed, its last lines and
its children's would be lost in the pipe. The process outlives this one until nobody writes any more.

Should that process itself be killed, a thread here takes its place as far as the terminal goes. So nobody who prints
ever waits longer than the terminal lets him.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from ..terminal import guarded, warn_once
from .tee import Flow, Tee, copy_size

PATIENCE = 3.0
_START_SECONDS = 20.0
_PIPE_SIZE = 1 << 20
_F_SETPIPE_SZ = 1031  # fcntl(2), Linux
_CORE = str(Path(__file__).parents[2])
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);from flightlog.console.tee import main; main(sys.argv[2:])"
)


@dataclass(slots=True)
class _End:
    """A descriptor that is diverted.

    `source` is where its output can be read, `saved` where it went before, `side` what stands in its place (-1 once it
    does) and `identity` how that is known again.
    """

    descriptor: int
    source: int
    saved: int
    side: int
    identity: tuple[int, int, int]


class Diversion:
    """The descriptors 1 and 2 on their way through a process of its own.

    Args:
        journal: the run's journal folder; the process has a writer of its own there.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._ends: list[_End] = []
        self._control: socket.socket | None = None
        self._listener: threading.Thread | None = None
        self._stopping = False
        self._answers = {"f": threading.Event(), "s": threading.Event()}
        self.written: dict[str, int] = {}
        self.size = 0

    @property
    def descriptors(self) -> list[int]:
        """Those that are diverted."""
        return [end.descriptor for end in self._ends]

    def start(self) -> None:
        """Start the process and divert what is open of 1 and 2.

        Raises:
            OSError, ImportError, subprocess.SubprocessError: it cannot be started; everything is as it was.
        """
        try:
            self._ends += [end for descriptor in (1, 2) if (end := _open_end(descriptor)) is not None]
            if not self._ends:
                raise OSError("neither stdout nor stderr is open")
            self._control, theirs = socket.socketpair()
            with theirs:
                self._launch(theirs.fileno())
            for end in self._ends:
                os.dup2(end.side, end.descriptor)
        except BaseException:
            self._put_back(self._ends)
            self._close()
            raise
        for end in self._ends:
            os.close(end.side)
            end.side = -1
        self._listener = threading.Thread(target=self._listen, name="flightlog-console-watch", daemon=True)
        self._listener.start()

    def flush(self) -> None:
        """Have what was written so far brought to the terminal and the journal; wait for that a few seconds at most."""
        self._ask("f")

    def stop(self) -> None:
        """Put 1 and 2 back, unless somebody else has replaced them, and have the rest written."""
        self._stopping = True
        self._put_back(self._ends)
        self._ask("s")
        control, self._control = self._control, None
        if control is not None:
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
        if self._listener is not None and self._listener is not threading.current_thread():
            self._listener.join(PATIENCE)
        if control is not None:
            control.close()
        self._close()

    def abandon(self) -> None:
        """In a forked child: it prints into the same pipes, and must not keep them open at their other end."""
        self._close()

    # -- opening and closing -------------------------------------------------------------------------------------------

    def _launch(self, control: int) -> None:
        if not sys.executable:
            raise OSError("the path of the Python interpreter is not known")
        numbers = [number for end in self._ends for number in (end.descriptor, end.source, end.saved)]
        inherited = [number for end in self._ends for number in (end.source, end.saved)]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CODE, json.dumps([_CORE, *map(str, sys.path)]),
             str(self._journal.absolute()), str(control), *map(str, numbers)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            pass_fds=[control, *inherited], start_new_session=True, timeout=_START_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise OSError(f"its process ended with status {done.returncode}: {''.join(last)}")

    def _put_back(self, ends: list[_End]) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                if _identity(end.descriptor) == end.identity:
                    os.dup2(end.saved, end.descriptor)

    def _close(self) -> None:
        ends, self._ends = self._ends, []
        for number in [n for end in ends for n in (end.source, end.saved, end.side) if n >= 0]:
            with contextlib.suppress(OSError):
                os.close(number)
        control, self._control = self._control, None
        if control is not None:
            control.close()

    # -- talking to the process ----------------------------------------------------------------------------------------

    def _ask(self, letter: str) -> None:
        control = self._control
        if control is None:
            return
        answer = self._answers[letter]
        answer.clear()
        with contextlib.suppress(OSError):
            control.sendall(letter.encode())
            answer.wait(PATIENCE)

    def _listen(self) -> None:
        control = self._control
        if control is None:
            return
        with guarded("following the console"), contextlib.suppress(OSError), control.makefile("rb") as answers:
            for line in answers:
                self._note(line)
        if not self._stopping:
            with guarded("following the console"):
                self._take_over()

    def _note(self, line: bytes) -> None:
        facts = json.loads(line)
        self.written, self.size = facts["written"], facts["size"]
        self._answers[facts["asked"]].set()

    def _take_over(self) -> None:
        """The process was killed: put everything back, and bring to the terminal what is and will be in the pipes."""
        ends, self._ends = self._ends, []
        self._put_back(ends)
        self._close()
        for answer in self._answers.values():
            answer.set()
        warn_once("console process", "the process that records the console has ended; what is printed now is not kept.")
        tee = Tee([Flow(end.source, end.saved, lambda data: None) for end in ends])
        while tee.flowing:
            tee.turn(60.0)
        for number in [n for end in ends for n in (end.source, end.saved)]:
            os.close(number)


def _open_end(descriptor: int) -> _End | None:
    """Return a diversion that is not in its place yet; None where the descriptor is closed."""
    import fcntl

    try:  # above the numbers that programs take for granted
        saved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    except OSError:
        return None
    try:
        source, side = _open_terminal(saved) if os.isatty(saved) else _open_pipe()
    except BaseException:
        os.close(saved)
        raise
    return _End(descriptor, source, saved, side, _identity(side))


def _open_terminal(like: int) -> tuple[int, int]:
    """Return both sides of a pseudo-terminal that passes bytes on as they are: the terminal behind it does the rest."""
    import termios

    source, side = os.openpty()
    attributes = termios.tcgetattr(side)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(side, termios.TCSANOW, attributes)
    copy_size(like, source)
    return source, side


def _open_pipe() -> tuple[int, int]:
    import fcntl

    source, side = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(side, _F_SETPIPE_SZ, _PIPE_SIZE)
    return source, side


def _identity(descriptor: int) -> tuple[int, int, int]:
    facts = os.fstat(descriptor)
    return facts.st_dev, facts.st_ino, facts.st_rdev
