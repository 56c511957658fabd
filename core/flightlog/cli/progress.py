"""How a delivery is shown while it goes on: bars on a terminal, a line for each run elsewhere, or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from ..sync.deliver import RunProgress
from ..sync.session import Result
from ..terminal import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Tell = Callable[[Result], None]
_LONGEST_NAME = 40


def has_bars() -> bool:
    """Tell whether bars can be drawn: stderr is a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class Lines:
    """Tells what came of each run when it is done, and shows nothing on the way: for logs and pipes.

    Args:
        tell: prints a result.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, name: str, total: int) -> RunProgress:
        """See `Progress`; so for the others."""
        return self

    def more(self, total: int) -> None:
        pass

    def advance(self, size: int) -> None:
        pass

    def end(self) -> None:
        pass

    def done(self, result: Result) -> None:
        """A run is done."""
        self._tell(result)


class Bars(Lines):
    """Draws a bar with rate and time left for each run that is under way, and one for all: for a terminal.

    Args:
        tell: prints a result; called when the bars are gone.
        expected: bytes of all runs together, as far as is known.
        runs: how many runs there are to deliver; the bar for all is drawn where it is more than one.
    """

    def __init__(self, tell: Tell, expected: int, runs: int) -> None:
        super().__init__(tell)
        self._bars = bars()
        self._expected = expected
        self._runs = runs
        self._known = 0
        self._all: TaskID | None = None
        self._results: list[Result] = []

    def __enter__(self) -> Bars:
        self._bars.start()
        if self._runs > 1:
            self._all = self._bars.add_task(f"all {self._runs:,} runs", total=self._expected)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        for result in self._results:
            self._tell(result)

    def begin(self, name: str, total: int) -> RunProgress:
        self.more(total)
        return _Bar(self, self._bars, name, total)

    def more(self, total: int) -> None:
        self._known += total
        if self._all is not None:
            self._bars.update(self._all, total=max(self._expected, self._known))

    def advance(self, size: int) -> None:
        if self._all is not None:
            self._bars.advance(self._all, size)

    def done(self, result: Result) -> None:
        self._results.append(result)


class _Bar:
    """The bar of one run."""

    def __init__(self, whole: Bars, bars: RichProgress, name: str, total: int) -> None:
        from rich.markup import escape

        shown = printable(name)
        shown = shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"
        self._whole, self._bars, self._total = whole, bars, total
        self._task = bars.add_task(escape(shown), total=total)

    def more(self, total: int) -> None:
        self._total += total
        self._whole.more(total)
        self._bars.update(self._task, total=self._total)

    def advance(self, size: int) -> None:
        self._whole.advance(size)
        self._bars.advance(self._task, size)

    def end(self) -> None:
        self._bars.remove_task(self._task)


def bars() -> RichProgress:
    """Return bars with size, rate and time left, on stderr, gone when they are stopped."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
