"""What records a run's surroundings beside it: the console, the machine's metrics, where the program comes from."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .launch import Launch
from .process import unforked
from .rundir import RunDir
from .terminal import guarded, warn_once

if TYPE_CHECKING:
    from .console import Console
    from .provenance.collect import Collector
    from .system.sampler import Sampler

# The script's own start comes first: it need not share the interpreter with our imports.
_PAUSE = 0.03
_PATIENCE = 2.0

Append = Callable[[str, Mapping[str, Any]], None]


class Surroundings(NamedTuple):
    """What of them is recorded.

    Attributes:
        console: "wrap", "fd" or "off"; see `Console`.
        system_interval: seconds between two samples of the machine's metrics; 0 for none.
        provenance: whether to record where the program comes from.
        save_code: True keeps the script and the uncommitted changes, a folder its sources besides; False keeps none.
        allow_secrets: names of settings, options and variables whose values may be kept although they sound secret.
    """

    console: str = "wrap"
    system_interval: float = 5.0
    provenance: bool = True
    save_code: bool | str = True
    allow_secrets: tuple[str, ...] = ()


NOTHING = Surroundings(console="off", system_interval=0.0, provenance=False)


class Companions:
    """Records a run's surroundings, from start() to stop().

    Each rank records its own console, and one of each node (its first) the machine and the program.

    Args:
        what: what to record.
        run_dir: the run directory.
        append: takes a record's kind and data.
        launch: the job that this process is a rank of.

    Raises:
        UsageError: one of the wishes cannot be understood.
    """

    def __init__(self, what: Surroundings, run_dir: RunDir, append: Append, launch: Launch | None = None) -> None:
        self._what = what
        self._run_dir = run_dir
        self._append = append
        self._launch = launch
        self._pid = os.getpid()
        self._console: Console | None = None
        self._sampler: Sampler | None = None
        self._collector: Collector | None = None
        self._starter: threading.Thread | None = None
        self._stopping = threading.Event()
        if what.console != "off":
            from .console import Console

            self._console = Console(run_dir.journal, what.console, own_thread=False)

    def start(self) -> None:
        """Begin to record. What takes long to import or to find out begins on a thread of its own."""
        if self._console is not None:
            self._console.start()
        first_here = self._launch is None or self._launch.is_first_of_its_node
        if first_here and (self._what.provenance or self._what.system_interval):
            self._starter = threading.Thread(target=self._start_slowly, name="flightlog-surroundings", daemon=True)
            try:
                self._starter.start()
            except RuntimeError as error:  # no more threads for this user, or the interpreter is shutting down
                self._starter = None
                warn_once(
                    "surroundings", f"flightlog's thread cannot be started ({error}); the machine is not sampled."
                )

    def _start_slowly(self) -> None:
        with guarded("recording the run's surroundings"):
            self._stopping.wait(_PAUSE)
            if self._what.system_interval and not self._stopping.is_set():
                with unforked():
                    from .system.sampler import Sampler
                self._sampler = Sampler(
                    lambda values: self._append("system", values), self._note, self._what.system_interval,
                    folder=self._run_dir.path, pid=_root_of_the_node(self._launch),
                )  # fmt: skip
                self._sampler.start()
            if self._what.provenance:
                with unforked():
                    from .provenance.collect import Collector
                self._collector = Collector(
                    self._run_dir.files, self._origin, save_code=self._what.save_code, allow=self._what.allow_secrets
                )
                self._collector.start()

    def tick(self) -> None:
        """Write what has waited; called about once a second."""
        if self._console is not None:
            self._console.tick()

    def flush(self) -> None:
        """Write what was printed so far."""
        if self._console is not None and os.getpid() == self._pid:
            self._console.flush()

    def move_to(self, run_dir: RunDir) -> None:
        """Go on in another run directory."""
        if self._console is not None:
            self._console.move_to(run_dir.journal)

    def stop(self) -> None:
        """Record what is known so far and no more; a second call, or one in a forked child, does nothing."""
        if os.getpid() != self._pid:
            return
        with guarded("recording the run's surroundings"):
            self._stopping.set()
            if self._starter is not None and self._starter is not threading.current_thread():
                self._starter.join(_PATIENCE)
            if self._sampler is not None:
                self._sampler.stop()
            if self._collector is not None:
                self._collector.finish()
            if self._console is not None:
                self._console.stop()

    @property
    def written(self) -> dict[str, int]:
        """The writers beside the run's own, and the last seq of each."""
        return self._console.written if self._console is not None else {}

    @property
    def size(self) -> int:
        """How many bytes of journal those have written."""
        return self._console.size if self._console is not None else 0

    def _note(self, line: str) -> None:
        self._append("note", {"text": line})

    def _origin(self, data: dict[str, Any]) -> None:
        self._append("provenance", data)


def _root_of_the_node(launch: Launch | None) -> int | None:
    """Return the process whose descendants are all of the job's on this node, where that is the launcher."""
    return os.getppid() if launch is not None and "TORCHELASTIC_RUN_ID" in os.environ else None
