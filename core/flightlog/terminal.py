"""What the recorder says to the person at the terminal, and the one place where its own errors end.

A training is never stopped by its recorder: `guarded` turns an internal error into one warning, and so does
`contained`, for what no line of the user's script has asked for. The test suite sets `raise_internal_errors`, so that
there every such error is a failure.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator

from .errors import UsageError

# A test sets the first in its own process, and the second for those that it starts.
raise_internal_errors = os.environ.get("_FLIGHTLOG_RAISE") == "1"
_said: set[str] = set()
_LONGEST = 2000


def _silent() -> bool:
    return os.environ.get("FLIGHTLOG_SILENT", "").lower() in ("1", "true", "yes")


def printable(text: str) -> str:
    """Return a text that came from outside without what would act on a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def typed(path: str | os.PathLike[str]) -> str:
    """Return a path as it is typed into a shell."""
    import shlex

    return shlex.quote(os.fspath(path))


_KEY = re.compile(r"\b(fl_[0-9a-f]{8})_[A-Za-z0-9]{8,}")


def without_keys(text: str) -> str:
    """Return a text in which of any API key only its public beginning is left."""
    return _KEY.sub(r"\1_…", text)


def has_terminal() -> bool:
    """Tell whether somebody at a terminal can answer a question."""
    with contextlib.suppress(AttributeError, ValueError):
        return sys.stdin.isatty() and sys.stderr.isatty()
    return False


def say(message: str) -> None:
    """Print a line for the user on stderr, unless FLIGHTLOG_SILENT is set."""
    if _silent():
        return
    # A closed or full stderr must not stop a training, nor one that a signal handler finds in the midst of a write.
    with contextlib.suppress(Exception):
        sys.stderr.write(f"flightlog: {printable(without_keys(message)[:_LONGEST])}\n")
        sys.stderr.flush()


def is_watched() -> bool:
    """Tell whether somebody looks at stderr who may be shown a line that changes."""
    with contextlib.suppress(Exception):
        return not _silent() and sys.stderr.isatty()
    return False


def redraw(line: str) -> None:
    """Draw a line over the one that was drawn before, for whoever watches; an empty one takes it away."""
    if is_watched():
        with contextlib.suppress(Exception):
            # One that is longer than a row could not be taken away again.
            room = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
            shown = f"flightlog: {printable(without_keys(line))}" if line else ""
            shown = shown if len(shown) <= room else f"{shown[: room - 1]}…"
            sys.stderr.write(f"\r\x1b[K{shown}")
            sys.stderr.flush()


def warn_once(topic: str, message: str) -> None:
    """Print a warning the first time its topic comes up in this process."""
    if topic not in _said:
        _said.add(topic)
        say(f"warning: {message}")


def forget(topic: str) -> None:
    """Let a topic be warned of again, once what it was about has been mended."""
    _said.discard(topic)


@contextlib.contextmanager
def guarded(what: str) -> Iterator[None]:
    """Run a block of the recorder's own work; an error in it becomes one warning instead of reaching the training.

    UsageError passes: it is the caller's, and raised for him to see.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if raise_internal_errors:
            raise
        warn_once(what, f"{what} failed and is skipped: {type(error).__name__}: {error}")


@contextlib.contextmanager
def contained(what: str) -> Iterator[None]:
    """Run a block that a framework's hook has come to; no error in it reaches the training, misuse neither."""
    try:
        yield
    except Exception as error:
        if raise_internal_errors:
            raise
        warn_once(what, f"{what} failed and is skipped: {type(error).__name__}: {error}")
