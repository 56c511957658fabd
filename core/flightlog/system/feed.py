"""How the sampler deals with one source: read at once, or asked on a thread of its own and not waited for.

Here a source's failures are counted, told once and, after five in a row, ended with the source.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .probe import Probe, Source, Unavailable

# How long a sample waits for what has a thread of its own; what comes later is in the next sample.
GRACE_SECONDS = 0.5
LAST_GRACE_SECONDS = 0.25
HANGING_SECONDS = 15.0
# A source that has answered before is not called hanging for less than this when the run ends.
_LATE_SECONDS = 2.0
_PATIENCE = 5


def feed(source: Source, note: Callable[[str], None]) -> Feed:
    """Return what asks a source; `note` takes its one line."""
    return Apart(source, note) if source.may_hang else Direct(source, note)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking a source: values, or an error; and the processor time it took."""

    values: dict[str, float]
    error: Exception | None
    cost: float


class Asked:
    """A source with its probe, opened when it is first asked. Stays on one thread."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._probe: Probe | None = None

    def answer(self) -> Answer:
        began = time.thread_time()
        try:
            if self._probe is None:
                self._probe = self._source.open()
                began = time.thread_time()
            return Answer(self._probe.sample(), None, time.thread_time() - began)
        except Exception as error:  # any library, any driver: it costs this source, nothing else
            return Answer({}, error, time.thread_time() - began)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            if self._probe is not None:
                self._probe.close()


class Feed:
    """One source as the sampler sees it, with its failures counted.

    Attributes:
        cost: the processor time of its last sample in seconds, without what opening it took.
    """

    def __init__(self, source: Source, note: Callable[[str], None]) -> None:
        self.cost = 0.0
        self._source = source
        self._note = note
        self._failures = 0
        self._noted = False
        self._over = False

    def ask(self) -> None:
        """Say that a sample is wanted."""

    def take(self, until: float) -> dict[str, float]:
        """Return the sample, empty where there is none before the clock says `until` (time.monotonic)."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the source."""
        raise NotImplementedError

    def _judged(self, answer: Answer) -> dict[str, float]:
        """Return an answer's values. A failure is told the first time; after five in a row the source is given up."""
        self.cost = answer.cost
        if answer.error is None:
            self._failures = 0
            return answer.values
        self._failures += 1
        missing = isinstance(answer.error, Unavailable)
        if missing or self._failures >= _PATIENCE:
            self._over = True
            self.cost = 0.0
        why = str(answer.error) if missing else f"{type(answer.error).__name__}: {answer.error}"
        self._say(why[:500])
        return {}

    def _say(self, line: str) -> None:
        if not self._noted:
            self._noted = True
            self._note(f"{self._source.name}: {line}")


class Direct(Feed):
    """A source that answers at once, read on the sampler's own thread."""

    def __init__(self, source: Source, note: Callable[[str], None]) -> None:
        super().__init__(source, note)
        self._asked = Asked(source)

    def take(self, until: float) -> dict[str, float]:
        return {} if self._over else self._judged(self._asked.answer())

    def close(self) -> None:
        self._asked.close()


class Apart(Feed):
    """A source that may hang, on a thread of its own."""

    def __init__(self, source: Source, note: Callable[[str], None]) -> None:
        super().__init__(source, note)
        self._requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._asked_at: float | None = None
        self._answered = False

    def ask(self) -> None:
        if self._over or self._asked_at is not None:
            return
        if self._thread is None and not self._begin():
            return
        self._asked_at = time.monotonic()
        self._requests.put(True)

    def take(self, until: float) -> dict[str, float]:
        if self._asked_at is None:
            return {}
        waited = time.monotonic() - self._asked_at
        try:
            answer = self._answers.get(timeout=0 if waited > GRACE_SECONDS else max(0.0, until - time.monotonic()))
        except queue.Empty:
            if waited > HANGING_SECONDS:
                self._say(f"no answer for {waited:.0f} s; the others go on without it")
            return {}
        self._asked_at = None
        self._answered = True
        return self._judged(answer)

    def close(self) -> None:
        self._requests.put(False)
        if self._asked_at is not None:
            if not self._answered or time.monotonic() - self._asked_at > _LATE_SECONDS:
                self._say("no answer before the run ended")
        elif self._thread is not None:
            self._thread.join(LAST_GRACE_SECONDS)

    def _begin(self) -> bool:
        arguments = (Asked(self._source), self._requests, self._answers)
        thread = threading.Thread(target=_serve, args=arguments, name=f"flightlog-{self._source.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._over = True
            self._say(f"its thread cannot be started ({error})")
            return False
        self._thread = thread
        return True


def _serve(asked: Asked, requests: queue.SimpleQueue[bool], answers: queue.SimpleQueue[Answer]) -> None:
    """Answer requests until one says that there will be no more, or the source is not there."""
    while requests.get():
        answer = asked.answer()
        answers.put(answer)
        if isinstance(answer.error, Unavailable):
            return
    asked.close()
