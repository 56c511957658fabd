"""Several uploads at once: threads that share a bounded queue of tasks, each with a client of its own.

The threads are daemons: a sync that is interrupted ends at once, whatever request is under way; what the server had
taken by then stays taken.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from ..client import Client, Patience

T = TypeVar("T")
R = TypeVar("R")


class Pool(Generic[T, R]):
    """Threads that do tasks. As a context manager: at its end no task is under way any more.

    Args:
        threads: how many; they are started when they are needed.
        make_client: makes a thread's client.
        work: does a task with a client.
        patience: told to stop when the block is left by an exception.
    """

    def __init__(
        self, threads: int, make_client: Callable[[], Client], work: Callable[[T, Client], R], patience: Patience
    ) -> None:
        self._limit = max(1, threads)
        self._make_client = make_client
        self._work = work
        self._patience = patience
        self._tasks: queue.Queue[tuple[T, Promise[R]] | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Pool[T, R]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._patience.stop()
        for _thread in self._threads:
            self._tasks.put(None)
        if kind is None:
            for thread in self._threads:
                thread.join()

    def submit(self, task: T, tell: Callable[[Promise[R]], None] | None = None) -> Promise[R]:
        """Have a task done, and return what will have its result.

        Args:
            task: the task.
            tell: called, by the thread that has done it, with that.
        """
        promise: Promise[R] = Promise(tell)
        with self._lock:
            if self._idle == 0 and len(self._threads) < self._limit:
                thread = threading.Thread(target=self._run, name="flightlog-sync", daemon=True)
                self._threads.append(thread)
                thread.start()
            else:
                self._idle -= 1
        self._tasks.put((task, promise))
        return promise

    def results(self, tasks: Iterable[T]) -> Iterator[R]:
        """Do all tasks, begun in this order, and yield their results as they come.

        Raises:
            What a task raises: the first such exception ends it.
        """
        done: queue.Queue[Promise[R]] = queue.Queue()
        under_way = 0
        for task in tasks:
            self.submit(task, done.put)
            under_way += 1
            while under_way > self._limit or not done.empty():
                yield done.get().result()
                under_way -= 1
        for _ in range(under_way):
            yield done.get().result()

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            clients: list[Client] = []
            while (job := self._tasks.get()) is not None:
                self._one(*job, clients, stack)
                del job  # a pack is no longer held in memory while the next is waited for
                with self._lock:
                    self._idle += 1

    def _one(self, task: T, promise: Promise[R], clients: list[Client], stack: contextlib.ExitStack) -> None:
        def work() -> R:
            if not clients:
                clients.append(stack.enter_context(self._make_client()))
            return self._work(task, clients[0])

        promise.keep(work)


class Promise(Generic[R]):
    """The result of a task that is done by and by."""

    def __init__(self, tell: Callable[[Promise[R]], None] | None = None) -> None:
        self._done = threading.Event()
        self._tell = tell
        self._result: R | None = None
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self._done.is_set()

    def keep(self, work: Callable[[], R]) -> None:
        """Do the work and keep what comes of it."""
        try:
            self._result = work()
        except BaseException as error:
            self._error = error
        self._done.set()
        if self._tell:
            self._tell(self)

    def wait(self) -> None:
        """Wait until the work is done, whatever comes of it."""
        self._done.wait()

    def result(self) -> R:
        """Wait for the result and return it. Raises what the work raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]
