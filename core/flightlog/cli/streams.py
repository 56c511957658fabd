"""The standard streams of a command: closed, of few characters, or on a full disk, they are no reason to stop the work.

Whoever frees a full disk by `flightlog sync --clean > log` would else be stopped by the first line of that log.
"""

from __future__ import annotations

import io
import os
import sys
from typing import IO, TextIO, cast

from ..errors import UsageError


class _Forgiving(io.RawIOBase):
    """A descriptor that takes everything; why it could not be written is kept."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes | bytearray | memoryview, /) -> int | None:  # type: ignore[override]
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return None
        except BrokenPipeError:  # nobody reads any more: that is a wish
            raise
        except OSError as error:
            self.error = self.error or error
            return len(data)


def prepare() -> None:
    """See to it that there is something at the standard streams, and that it takes everything.

    In the place of one that is closed the next file to be opened would stand, and get what is said to nobody. Stdout
    that is closed stays None, so that nothing counts as written there. Raises OSError.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stderr = _forgiving(sys.stderr or open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    sys.stdout = _forgiving(sys.stdout) if sys.stdout is not None else sys.stdout


def _forgiving(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper) or stream not in (sys.__stdout__, sys.__stderr__):
        return stream  # a test's, say
    errors = "replace" if stream.errors == "strict" else stream.errors
    stream.reconfigure(errors=errors)
    if stream.isatty():
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(cast("io.FileIO", _Forgiving(stream.fileno()))),
        stream.encoding,
        errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def fault() -> str | None:
    """Return why something that was said has not arrived; None where all has."""
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, _Forgiving) and raw.error is not None:
            return f"{name} cannot be written: {raw.error.strerror or raw.error}"
    return None


def binary_stdout() -> IO[bytes]:
    """Return stdout for `-o -`, which raises what goes wrong. Raises UsageError where it is closed."""
    if sys.stdout is None:
        raise UsageError("stdout is closed; name a file with -o")
    is_ours = isinstance(getattr(sys.stdout.buffer, "raw", None), _Forgiving)
    stream = sys.__stdout__ if is_ours and sys.__stdout__ is not None else sys.stdout
    return cast("IO[bytes]", stream.buffer)
