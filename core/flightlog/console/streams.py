"""Following a Python stream: what is written to it goes where it always went, and then to the recorder.

The stream's own `write` is followed, on the object itself, rather than another object put in its place: sys.stdout
stays what it is (isatty, fileno, encoding, buffer, its type), and a logging handler or a progress bar that took hold of
it long ago is heard as well. Whoever replaces sys.stdout later is not in the way, nor we in his.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import threading
from collections.abc import Callable
from typing import Any

# Encodings of which any part can be encoded by itself.
_STATELESS = ("utf-8", "ascii", "iso8859-1")


class FollowedStream:
    """A stream whose writes are heard.

    Args:
        stream: a text stream such as sys.stdout.
        hear: called with each text after it was written; it must not raise.

    Raises:
        AttributeError, TypeError: its `write` cannot be followed.
    """

    def __init__(self, stream: Any, hear: Callable[[str], object]) -> None:
        self._stream = stream
        self._hear = hear
        self._deaf = False
        self._reached = False
        self._follow()

    def _follow(self) -> None:
        original = self._stream.write

        def write(text: Any, /, *args: Any, **kwargs: Any) -> Any:
            written = original(text, *args, **kwargs)  # an error of the stream is its caller's, as ever
            if text and isinstance(text, str):
                if not self._deaf:
                    self._hear(text if type(text) is str else str(text))
            else:
                self._reached = True
            return written

        before = _own(self._stream).get("write")
        self._stream.write = write
        self._before, self._write = before, write

    def ensure(self) -> None:
        """Follow anew where we hear nothing any more: IPython puts back, after each cell, what was there before it."""
        if self._deaf or _own(self._stream).get("write") is self._write:
            return
        with contextlib.suppress(Exception):  # whatever a stream may raise: it is somebody else's by now
            self._reached = False
            self._stream.write("")  # somebody may have followed the stream after us: then this passes us all the same
            if not self._reached:
                self._follow()

    def let_go(self) -> None:
        """Put back what was there, unless somebody has followed the stream after us: then ours stays, and is deaf."""
        self._deaf = True
        if _own(self._stream).get("write") is not self._write:
            return
        with contextlib.suppress(AttributeError, TypeError):
            if self._before is None:
                del self._stream.write
            else:
                self._stream.write = self._before


class WholeWrites:
    """An unbuffered Python stream (`python -u`, PYTHONUNBUFFERED) whose writes are completed.

    Such a stream hands its text to write(2) once and forgets what that did not take. Into a file it takes everything;
    into a pipe or pseudo-terminal that is full it takes a part when the process forks or is sent a signal meanwhile
    (pipe(7)). Where we have put a pipe in the place of a file, the rest would be lost by our doing.

    Args:
        stream: a text stream.

    Raises:
        AttributeError, TypeError: its `write` cannot be followed.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        original = stream.write

        def write(text: Any, /) -> Any:
            if type(text) is not str or not text:
                return original(text)
            with self._lock:
                stream.flush()
                _write_whole(stream.buffer, text.encode(stream.encoding, stream.errors))
            return len(text)

        self._write = write
        stream.write = write

    @staticmethod
    def are_needed(stream: Any) -> bool:
        """Tell whether a stream is one of those."""
        try:
            return isinstance(stream.buffer, io.RawIOBase) and codecs.lookup(stream.encoding).name in _STATELESS
        except Exception:  # no text stream of Python's own; whatever it is, it sees to its writes itself
            return False

    def let_go(self) -> None:
        """Put back what was there, unless somebody has followed the stream after us: then ours stays, harmless."""
        if _own(self._stream).get("write") is self._write:
            with contextlib.suppress(AttributeError, TypeError):
                del self._stream.write

    def renew(self) -> None:
        """In a forked child: another thread of the parent may have been writing."""
        self._lock = threading.RLock()


def _write_whole(raw: io.RawIOBase, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[raw.write(view) or 0 :]


def _own(stream: Any) -> dict[str, Any]:
    """Return the attributes of the object itself, not those of its class."""
    own = getattr(stream, "__dict__", None)
    return own if isinstance(own, dict) else {}
