"""The process that stands between a training's descriptors and the terminal; see `descriptors`.

It goes on until nobody can write into its sources any more: the training may be killed, its children may live longer.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .recorder import Recorder
from .sink import JournalSink

TICK_SECONDS = 0.5
_BLOCK = 64 << 10
_DRAIN_SECONDS = 2.0
_STREAMS = {1: "stdout", 2: "stderr"}


@dataclass(slots=True)
class Flow:
    """What comes out of `source` goes to `target` (-1: nowhere any more) and is heard."""

    source: int
    target: int
    hear: Callable[[bytes], object]


class Tee:
    """Brings bytes from sources to targets.

    Args:
        flows: from where to where; a flow ends when nobody can write into its source any more.
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        self._flows = {flow.source: flow for flow in flows}
        self._poll = select.poll()
        for source in self._flows:
            self._poll.register(source, select.POLLIN)

    @property
    def flowing(self) -> bool:
        """Whether there is a source left."""
        return bool(self._flows)

    def watch(self, descriptor: int) -> None:
        """Let `turn` return early when something can be read there."""
        self._poll.register(descriptor, select.POLLIN)

    def forget(self, descriptor: int) -> None:
        """Watch it no longer."""
        self._poll.unregister(descriptor)

    def turn(self, seconds: float) -> list[int]:
        """Wait for something to come, that long at most, and bring it on its way; return what is ready to be read."""
        ready = [descriptor for descriptor, _ in self._poll.poll(seconds * 1000)]
        for descriptor in ready:
            if descriptor in self._flows:
                self._bring(self._flows[descriptor])
        return ready

    def drain(self, seconds: float = _DRAIN_SECONDS) -> None:
        """Bring on its way what is there already; no longer than that, for more may be coming without end."""
        until = time.monotonic() + seconds
        while any(ready in self._flows for ready in self.turn(0)) and time.monotonic() < until:
            pass

    def _bring(self, flow: Flow) -> None:
        try:
            data = os.read(flow.source, _BLOCK)
        except BlockingIOError:
            return
        except OSError:  # EIO: how a pseudo-terminal says that nobody holds its other side
            data = b""
        if not data:
            self._poll.unregister(flow.source)
            del self._flows[flow.source]
            return
        if flow.target >= 0 and not _write_all(flow.target, data):
            flow.target = -1
        flow.hear(data)


def _write_all(target: int, data: bytes) -> bool:
    """Write all of it, however long the terminal takes. Returns False where nobody reads there any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(target, view) :]
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(target, select.POLLOUT)
            waiting.poll()
        except OSError:
            return False
    return True


@dataclass(slots=True)
class _Hearing:
    """The recording side: bytes become text, and a recorder's."""

    sink: JournalSink
    recorder: Recorder
    decoders: dict[str, codecs.IncrementalDecoder] = field(default_factory=dict)

    def hear(self, stream: str, data: bytes) -> None:
        if stream not in self.decoders:
            self.decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
        self.recorder.take(stream, self.decoders[stream].decode(data))


def main(arguments: Sequence[str]) -> None:
    """Be the process: `<journal> <control> (<descriptor> <source> <saved>)…`, numbers of inherited descriptors.

    The process that was started ends at once and another goes on, so that it is nobody's child: a training may wait for
    all of its own.
    """
    if os.fork():
        os._exit(0)
    control = socket.socket(fileno=int(arguments[1]))
    numbers = [int(word) for word in arguments[2:]]
    ends = list(zip(numbers[0::3], numbers[1::3], numbers[2::3], strict=True))
    _settle(ends)
    sink = JournalSink(Path(arguments[0]))
    hearing = _Hearing(sink, Recorder(sink))
    tee = Tee([Flow(source, saved, partial(hearing.hear, _STREAMS[number])) for number, source, saved in ends])
    _run(tee, control, hearing, [(saved, source) for _, source, saved in ends if os.isatty(saved)])
    sys.exit(0)


def _settle(ends: Sequence[tuple[int, int, int]]) -> None:
    """Be deaf to the signals that are meant for the training, and leave its descriptors and its folder alone."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGTTOU", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(next((saved for number, _, saved in ends if number == 2), null), 2)  # for the recorder's own warnings
    os.chdir("/")


def _run(tee: Tee, control: socket.socket, hearing: _Hearing, terminals: Sequence[tuple[int, int]]) -> None:
    asked: int | None = control.fileno()
    tee.watch(control.fileno())
    ticked = synced = time.monotonic()
    while tee.flowing or asked is not None:
        if asked in tee.turn(TICK_SECONDS) and not _answer(tee, control, hearing):
            tee.forget(control.fileno())
            asked = None
        now = time.monotonic()
        if now - ticked >= TICK_SECONDS:
            ticked = now
            hearing.recorder.tick()
            for terminal, source in terminals:
                copy_size(terminal, source)
        if now - synced >= 2 * TICK_SECONDS:
            synced = now
            hearing.sink.sync()
    hearing.recorder.close()
    hearing.sink.close()


def _answer(tee: Tee, control: socket.socket, hearing: _Hearing) -> bool:
    """Do what the training asks for. Returns False when it will ask no more."""
    try:
        letter = control.recv(1)
    except OSError:
        letter = b""
    if not letter:  # killed, most likely: what it printed last may still be on its way
        return False
    tee.drain()
    if letter == b"s":
        hearing.recorder.close()
        hearing.sink.close()
    else:
        hearing.recorder.flush()
        hearing.sink.sync(patient=False)
    facts = {"asked": letter.decode(), "written": hearing.sink.written, "size": hearing.sink.size}
    with contextlib.suppress(OSError):
        control.sendall(json.dumps(facts).encode() + b"\n")
    return letter != b"s"


def copy_size(terminal: int, source: int) -> None:
    """Give a pseudo-terminal the size of the terminal behind it (tty_ioctl(4))."""
    import fcntl
    import termios

    with contextlib.suppress(OSError):
        size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
        if size != fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)):
            fcntl.ioctl(source, termios.TIOCSWINSZ, size)
