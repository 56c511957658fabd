"""The work of a sync: one run directory after the other, or many small ones together, by several threads at once."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..client import Client, Patience
from ..errors import AuthError, FlightlogError, GoneError, ServerError
from ..rundir import RunDir
from . import state
from .clean import Cleaned, clean
from .deliver import Delivery, Progress, RunProgress
from .departed import LEFT, Departures, has_left
from .holdings import confirmed
from .lanes import Lanes
from .local import Identity, identify, in_words
from .pool import Pool
from .results import Result
from .small import SMALL_BYTES, Prepared, SmallDelivery

GROUP_RUNS = 64
GROUP_BYTES = 4 << 20
PARCEL_BYTES = 8 << 20  # with their files


@dataclass(frozen=True, slots=True)
class Destination:
    """Where runs go: a server, and what is laid down for all of them. None: as each run says itself.

    Attributes:
        origin, server_id: the server, and who it says that it is.
        account_workspace: the workspace of those that name none.
        workspace, project, run_id: what they all go to, whatever they say.
    """

    origin: str
    server_id: str
    account_workspace: str
    workspace: str | None = None
    project: str | None = None
    run_id: str | None = None

    def identify(self, directory: RunDir) -> tuple[Identity, str]:
        """Return who a run is there, and in which workspace. Raises DamagedError."""
        own = identify(directory)
        there = replace(own, project=self.project or own.project, id=self.run_id or own.id)
        return there, self.workspace or own.workspace or self.account_workspace

    def settled(self, client: Client, patience: Patience, directories: Sequence[RunDir]) -> dict[Path, state.Synced]:
        """Return the runs with which nothing is to be done: sync.json says so, and the server confirms it.

        Args:
            client: the server, with a key.
            patience: how long to try again what may work later.
            directories: the run directories.

        Raises:
            PermanentError, RetryableError: as the client says.
        """
        believed: dict[Path, state.Synced] = {}
        wanted = (self.workspace, self.project, self.run_id)
        for directory in directories:
            with contextlib.suppress(OSError):  # its delivery will say what is the matter
                known = state.load(directory).get(self.origin)
                if known is not None and not state.lacks(directory, known, self.server_id, wanted):
                    believed[directory.path] = known
        return confirmed(client, patience, believed)


class OneAtATime:
    """Passes on what several threads tell, one call at a time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()

    def begin(self, name: str, total: int) -> RunProgress:
        with self._lock:
            return _OneRun(self._progress.begin(name, total), self._lock)


class _OneRun:
    def __init__(self, progress: RunProgress, lock: threading.Lock) -> None:
        self._progress = progress
        self._lock = lock
        self._over = False

    def more(self, total: int) -> None:
        with self._lock:
            self._progress.more(total)

    def advance(self, size: int) -> None:
        with self._lock:
            if not self._over:  # packs of a run that has failed may still be under way
                self._progress.advance(size)

    def end(self) -> None:
        with self._lock:
            self._over = True
            self._progress.end()


# A disk that is full, or that fails for a moment.
_PASSING = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM))
Indexed = tuple[int, Result]


@dataclass(frozen=True, slots=True)
class _Small:
    """A run that is sent together with others."""

    index: int
    result: Result
    ready: Prepared
    progress: RunProgress


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done with every directory.

    Attributes:
        destination: where runs go.
        progress: who is told how it goes on.
        patience: how long to try again what may work later.
        settled: the runs that the server has, or that were deleted there, by sync.json and by its own word.
        departures: what was there when the sync began.
        clean_up, keep_artifacts, restore_deleted: as for session.sync.
    """

    destination: Destination
    progress: Progress
    patience: Patience
    settled: Mapping[Path, state.Synced]
    departures: Departures
    clean_up: bool
    keep_artifacts: bool
    restore_deleted: bool

    def all(
        self,
        directories: Sequence[RunDir],
        uploads: int,
        make_client: Callable[[], Client],
        done: Callable[[Result], None],
    ) -> list[Result]:
        """Deal with directories, begun in this order; return the results in this order.

        Raises:
            AuthError: the key is wrong.
        """
        results: dict[int, Result] = {}

        def note(index: int, result: Result) -> None:
            self._explain(result)
            results[index] = result
            done(result)

        with Lanes(uploads, make_client, self.patience) as lanes:

            def work(group: list[Indexed], client: Client) -> list[Indexed]:
                return list(self._group(group, client, lanes))

            with Pool(uploads, make_client, work, self.patience) as pool:
                for group in pool.results(self._groups(directories, note)):
                    for index, result in group:
                        note(index, result)
        return [results[index] for index in sorted(results)]

    def _groups(self, directories: Sequence[RunDir], note: Callable[[int, Result], None]) -> Iterator[list[Indexed]]:
        """Yield what is to be done, single runs or several small ones; note at once those that are not pending."""
        small: list[Indexed] = []
        size = 0
        for index, directory in enumerate(directories):
            result = Result(directory)
            with self._said(result):
                if self._is_settled(result):
                    note(index, result)
                    continue
            own = _journal_bytes(directory)
            if own is None or own > SMALL_BYTES or result.error is not None:
                if small:
                    yield small
                    small, size = [], 0
                yield [(index, Result(directory))]
                continue
            small.append((index, Result(directory)))
            size += own
            if len(small) >= GROUP_RUNS or size > GROUP_BYTES:
                yield small
                small, size = [], 0
        if small:
            yield small

    def _is_settled(self, result: Result) -> bool:
        """Tell whether nothing is to be done with a run: the server has it, or it was deleted there."""
        known = self.settled.get(result.directory.path)
        if known is None or (known.gone and self.restore_deleted):
            return False
        result.identity, _ = self.destination.identify(result.directory)
        result.gone, result.up_to_date = known.gone, not known.gone
        return True

    def _group(self, group: list[Indexed], client: Client, lanes: Lanes) -> Iterator[Indexed]:
        """Deal with runs: together where they are small and sound, else one by one."""
        together = SmallDelivery(client, self.destination.server_id, self.patience, self.restore_deleted)
        parcel: list[_Small] = []
        rest: list[Indexed] = []
        for index, result in group:
            ready: Prepared | None = None
            with self._said(result):
                result.identity, workspace = self.destination.identify(result.directory)
                ready = together.prepare(result.directory, result.identity, workspace)
            if ready is None:
                rest.append((index, Result(result.directory)))
                continue
            if parcel and ready.run.size + sum(each.ready.run.size for each in parcel) > PARCEL_BYTES:
                yield from self._parcel(together, parcel, rest)
                parcel = []
            progress = self.progress.begin(ready.outcome.identity.name, ready.run.size)
            parcel.append(_Small(index, result, ready, progress))
        if parcel:
            yield from self._parcel(together, parcel, rest)
        for index, result in sorted(rest, key=lambda each: each[0]):
            self._one(result, client, lanes)
            yield index, result

    def _parcel(self, together: SmallDelivery, parcel: list[_Small], rest: list[Indexed]) -> Iterator[Indexed]:
        """Send runs together, and yield those that arrived whole; the others are for `rest`."""
        for small, whole in zip(parcel, self._send(together, [each.ready for each in parcel]), strict=True):
            small.progress.advance(small.ready.run.size)
            small.progress.end()
            if not whole:
                rest.append((small.index, Result(small.result.directory)))
                continue
            small.result.outcome = small.ready.outcome
            with self._said(small.result):
                self._clean(small.result)
            yield small.index, small.result

    def _send(self, together: SmallDelivery, parcel: list[Prepared]) -> list[bool]:
        """Send runs together. What goes wrong with all of them is said of each, when each is sent by itself."""
        try:
            return together.send(parcel)
        except AuthError as error:
            if _is_for_all(error):
                raise
        except ServerError:
            pass
        return [False] * len(parcel)

    def _one(self, result: Result, client: Client, lanes: Lanes) -> None:
        """Deal with one run by itself. Raises AuthError where the key is wrong, for every run."""
        with self._said(result):
            result.identity, workspace = self.destination.identify(result.directory)
            delivery = Delivery(
                client,
                lanes,
                self.destination.server_id,
                self.patience,
                verify=self.clean_up,
                restore=self.restore_deleted,
            )
            size = _journal_bytes(result.directory) or 0
            progress = self.progress.begin(result.identity.name, size)
            try:
                result.outcome = delivery.run(result.directory, result.identity, workspace, progress)
            finally:
                progress.end()
            self._clean(result)

    def _clean(self, result: Result) -> None:
        if not self.clean_up or result.outcome is None:
            return
        try:
            result.cleaned = clean(result.outcome, keep_artifacts=self.keep_artifacts)
        except OSError as error:
            result.error = f"delivered, but not cleaned: {in_words(error, result.directory)}"
            result.retryable = error.errno in _PASSING

    def _explain(self, result: Result) -> None:
        """Say what became of a run that was taken away meanwhile, whatever went wrong with it by that."""
        is_proven = result.outcome is not None and result.outcome.complete
        is_kept = result.cleaned is not None and result.cleaned.reason is not None
        went_well = result.gone or result.up_to_date or (is_proven and result.error is None and not is_kept)
        if went_well or not has_left(result.directory):
            return
        if self.departures.were_cleaned(result.directory):
            result.error, result.cleaned, result.up_to_date = None, Cleaned(by_another=True), not is_proven
        elif result.error is not None:
            result.error = f"{result.directory.path}: {LEFT}"

    @contextlib.contextmanager
    def _said(self, result: Result) -> Iterator[None]:
        """Let what goes wrong within the block be the result's error; but for a wrong key, which is wrong for all."""
        try:
            yield
        except AuthError as error:
            if _is_for_all(error):
                raise
            result.error = str(error)
        except GoneError as error:
            result.error, result.gone = str(error), True
        except FlightlogError as error:
            result.error = str(error)
            result.retryable = isinstance(error, ServerError) and error.retryable
        except OSError as error:
            result.error = in_words(error, result.directory)
            result.retryable = error.errno in _PASSING


def _is_for_all(error: AuthError) -> bool:
    """Tell whether it is the key that is refused, whatever run it is used for."""
    return error.status == 401 or error.body.get("error") == "read_only"


def _journal_bytes(directory: RunDir) -> int | None:
    """Return the size of a run's journal; None where it cannot be looked into, which its delivery will say."""
    try:
        return sum(size for sizes in directory.journal_sizes().values() for size in sizes.values())
    except OSError:
        return None
