"""From what is written to stdout and stderr to records: lines go to the journal as they are finished.

Whoever prints leaves his text in a queue; what ends a line is shown on the screens and handed over at once, the rest by
and by. Two locks, because whoever prints may be anywhere, in the midst of the journal's own writing too: the first
guards the screens and is never held while anything else is called; the second is held by the one thread that hands
lines over, and nobody ever waits for it to print. Who finds it taken leaves his lines to its holder.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ..terminal import guarded
from .outbox import STREAMS, Outbox
from .screen import Screen

# Handing each line over at once costs some ten microseconds; of a flood of them only so many are, the rest in batches.
HANDOVERS = 200.0
HANDOVERS_PER_SECOND = 1000.0
MAX_WRITE = 256 << 10
# What may wait to be shown. A print() of ten words is twenty writes, a progress bar ten a second.
MAX_UNSEEN = 32 << 10
_ROUNDS = 3
_PATIENCE = 2.0


class Recorder:
    """Takes what is written and gives the data of console records to `emit`. Any thread may write.

    Args:
        emit: called with the data of one record at a time, never by two threads at once.
    """

    def __init__(self, emit: Callable[[dict[str, Any]], object]) -> None:
        self._emit = emit
        self.live = True
        numbers = itertools.count(1)
        self._screens = {stream: Screen(numbers) for stream in STREAMS}
        now = time.monotonic()
        self._outbox = Outbox(now)
        self._taken: deque[dict[str, Any]] = deque()
        self._unseen: deque[tuple[str, str]] = deque()
        self._unseen_size = 0
        self._handovers = HANDOVERS
        self._handed_over = now
        self._screen_lock = threading.RLock()
        self._emit_lock = threading.RLock()

    def take(self, stream: str, text: str) -> None:
        """Record what was written. Raises nothing.

        Args:
            stream: "stdout" or "stderr".
            text: any part of what goes there.
        """
        if not self.live:
            return
        self._unseen.append((stream, text))
        self._unseen_size += len(text)
        try:
            if "\n" in text and self._may_hand_over():
                self._look()
                self._hand_over()
            elif self._unseen_size > MAX_UNSEEN:
                self._look()
        except Exception as error:
            with guarded("recording the console"):
                raise error

    def tick(self) -> None:
        """Tell the lines that are still changing, and hand over what waits. To be called about twice a second."""
        if self.live:
            self._tell_changes(all=False)
            self._hand_over()

    def flush(self) -> None:
        """Hand over everything, unfinished lines too."""
        if self.live:
            self._tell_changes(all=True)
            self._hand_over(everything=True)

    def close(self) -> None:
        """Hand over everything, and record nothing more."""
        self.flush()
        self.live = False

    def abandon(self) -> None:
        """Record nothing more, without a word: for a forked child, whose parent has these lines too."""
        self.live = False
        self._screen_lock, self._emit_lock = threading.RLock(), threading.RLock()

    # -- the screens ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Show what has been written; by the time this returns it has been."""
        lock = self._screen_lock
        if lock._is_owned():  # type: ignore[attr-defined]  # a signal handler in the midst of this: it goes on there
            return
        with lock:
            self._show_unseen()

    def _show_unseen(self) -> None:
        self._unseen_size = 0
        while self._unseen:
            stream, text = self._unseen.popleft()
            if len(text) < MAX_UNSEEN:
                text = self._joined(stream, text)
            self._show(stream, text)

    def _joined(self, stream: str, text: str) -> str:
        """Return a text with those that follow it on the same stream: showing them together is cheaper."""
        texts, size = [text], len(text)
        while self._unseen and self._unseen[0][0] == stream and size < MAX_UNSEEN:
            text = self._unseen.popleft()[1]
            texts.append(text)
            size += len(text)
        return "".join(texts)

    def _show(self, stream: str, text: str) -> None:
        if len(text) > MAX_WRITE:
            text, dropped = _shortened(text)
            if dropped and self._screens[stream].in_line:
                text, dropped = f"\n{text}", dropped - 1  # the first newline has ended what was begun before
            self._outbox.drop(stream, dropped)
        lines = self._screens[stream].feed(text, time.monotonic())
        if lines:
            self._outbox.add(stream, lines)

    def _tell_changes(self, *, all: bool) -> None:
        with self._screen_lock:
            self._show_unseen()
            now = time.monotonic()
            for stream, screen in self._screens.items():
                self._outbox.add(stream, screen.changed(now, all=all))

    # -- handing over --------------------------------------------------------------------------------------------------

    def _may_hand_over(self) -> bool:
        now = time.monotonic()
        earned = (now - self._handed_over) * HANDOVERS_PER_SECOND
        self._handed_over = now
        self._handovers = min(HANDOVERS, self._handovers + earned)
        if self._handovers < 1:
            return False
        self._handovers -= 1
        return True

    def _hand_over(self, *, everything: bool = False) -> None:
        lock = self._emit_lock
        if lock._is_owned():  # type: ignore[attr-defined]  # emit itself prints, or was interrupted by a signal handler
            return
        if not (lock.acquire(timeout=_PATIENCE) if everything else lock.acquire(blocking=False)):
            return
        try:
            for _ in range(_ROUNDS):  # for what others have left here meanwhile; not for ever, if emit itself prints
                with self._screen_lock:
                    self._taken.extend(self._outbox.take(time.monotonic(), everything=everything))
                if not self._taken:
                    break
                self._emit_taken()
        finally:
            lock.release()

    def _emit_taken(self) -> None:
        """Emit what was taken. A record stays until it is out: emitted twice it would only replace its own lines."""
        while self._taken:
            try:
                self._emit(self._taken[0])
            except Exception:
                self._taken.popleft()  # not to stand in the way of all that follow
                raise
            self._taken.popleft()


def _shortened(text: str) -> tuple[str, int]:
    """Return of a text that is too long its last lines, and how many newlines before them are left out.

    Of a line that is too long by itself its beginning is returned, as the screen would cut it, unless a carriage return
    lets its end take the place of that.
    """
    cut = len(text) - MAX_WRITE
    end = text.find("\n", cut)
    if -1 < end < len(text) - 1:
        return text[end + 1 :], text.count("\n", 0, end + 1)
    begin = text.rfind("\n", 0, cut) + 1
    returned = text.find("\r", cut, len(text) - 1)
    if returned >= 0:
        whole = text[returned:]
    else:
        whole = text[begin : begin + MAX_WRITE] + ("\n" if end >= 0 else "")
    return whole, text.count("\n", 0, begin)
