"""Collecting provenance: what a thread finds out while the training begins."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ..errors import UsageError
from ..journal.values import encode_values, text
from ..process import unforked
from ..redact import secret_values
from ..terminal import guarded, warn_once
from .quick import folder

if TYPE_CHECKING:
    from .store import CodeStore

MAX_RECORD = 512 << 10
PATIENCE = 2.0

SaveCode = bool | str | os.PathLike[str]
Parts = dict[str, Callable[[], Mapping[str, Any]]]


def slow(files: Path, save_code: SaveCode = True, allow: Iterable[str] = ()) -> dict[str, Any]:
    """Return everything else: git, program, packages, variables, hardware. May take seconds.

    Args:
        files: the run's `files` folder, where `code/` is written.
        save_code: True keeps the script and the uncommitted changes, a folder its sources besides; False keeps none.
        allow: names of variables whose values may be shown.

    Returns:
        The data of a provenance record, under 512 KiB. `files` lists what was written, `failed` which parts could not
        be found out and why.

    Raises:
        UsageError: `save_code` is none of these.
    """
    collector = Collector(files, lambda data: None, save_code=save_code, allow=allow)
    return collector.collect()


class Collector:
    """Finds out on a thread of its own and hands over one record's data.

    Args:
        files: as for `slow`.
        emit: called once with the data, by the thread or by `finish`.
        save_code, allow: as for `slow`.

    Raises:
        UsageError: `save_code` is neither a truth value nor a path.
    """

    def __init__(
        self,
        files: Path,
        emit: Callable[[dict[str, Any]], object],
        *,
        save_code: SaveCode = True,
        allow: Iterable[str] = (),
    ) -> None:
        if not isinstance(save_code, bool | str | os.PathLike):
            raise UsageError(f"save_code={save_code!r}: True, False or a folder is needed")
        self._emit = emit
        self._files = files
        # Where we are now: the training may go elsewhere.
        self._folder = folder()
        self._save_code = save_code if isinstance(save_code, bool) else Path(self._folder, save_code)
        self._allow = [allow] if isinstance(allow, str) else list(allow)
        self._parts: Parts = {}
        self._store: CodeStore | None = None
        self._found: dict[str, Any] = {}
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()
        self._emitted = False
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread = threading.Thread(target=self._run, name="flightlog-provenance", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads for this user, or the interpreter is shutting down
            self._thread = None
            warn_once(
                "provenance", f"flightlog's thread cannot be started ({error}); the run's origin is not recorded."
            )

    def finish(self, seconds: float = PATIENCE) -> None:
        """Wait for the thread that long at most, then hand over what there is; `unfinished` names the other parts.

        For the end of a run; a second call, or one in a forked child, does nothing.
        """
        if os.getpid() != self._pid:
            return
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)
        self._hand_over()

    def collect(self) -> dict[str, Any]:
        """Find everything out now and return it."""
        from .store import CodeStore

        self._store = CodeStore(self._files, secrets=secret_values(os.environ))
        self._parts = _parts(self._store, Path(self._folder), self._save_code, self._allow)
        beside = self._begin_beside("git")  # which waits for processes and disks, while the others compute
        for name in self._parts:
            if beside is None or name != "git":
                self._find(name)
        if beside is not None:
            beside.join()
        return self._data()

    def _begin_beside(self, name: str) -> threading.Thread | None:
        """Find a part out on a thread of its own; None where there is no such part, or no thread can be started."""
        if name not in self._parts:
            return None
        thread = threading.Thread(target=self._find, args=(name,), name=f"flightlog-{name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return None
        return thread

    def _find(self, name: str) -> None:
        try:
            found = _plain(self._parts[name]())
        except Exception as error:  # what a driver, a file system, a library may raise; the other parts are kept
            with self._lock:
                self._failed[name] = text(f"{type(error).__name__}: {error}")[:300]
            return
        with self._lock:
            self._found[name] = found

    def _run(self) -> None:
        with guarded("collecting provenance"):
            self.collect()
            self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            if self._emitted:
                return
            self._emitted = True
        self._emit(self._data())

    def _data(self) -> dict[str, Any]:
        with self._lock:
            data: dict[str, Any] = {name: found for name, found in self._found.items() if found}
            if self._failed:
                data["failed"] = dict(self._failed)
            unfinished = [name for name in self._parts if name not in self._found and name not in self._failed]
            data["files"] = [dict(entry) for entry in self._store.entries] if self._store is not None else []
        if unfinished:
            data["unfinished"] = unfinished
        return _bounded(data)


def _parts(store: CodeStore, folder: Path, save_code: bool | Path, allow: list[str]) -> Parts:
    """Return what is to be found out, by name; what is quick and sure first. Imported here, where nobody waits."""
    with unforked():
        from . import code, environment, git

    wanted = save_code is not False
    parts: Parts = {
        "env": partial(environment.variables, allow),
        "packages": environment.packages,
        "cuda": environment.cuda,
        "program": partial(code.save_program, store) if wanted else code.name_program,
        "hardware": _hardware,
        "git": lambda: git.describe(code.home(folder), store if wanted else None),
    }
    if isinstance(save_code, Path):
        parts["code"] = partial(code.save_folder, store, save_code)
    return parts


def _hardware() -> Mapping[str, Any]:
    from ..system.hardware import hardware

    return hardware()


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a part has a form in JSON; odd bytes in names are escaped."""
    return encode_values(_clean(found))[0].values


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {text(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    return value


def _bounded(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data in less than `MAX_RECORD` bytes; what is left out is listed in `failed`."""
    while len(orjson.dumps(data)) > MAX_RECORD:
        longest = max((k for k in data if k != "failed"), key=lambda k: len(orjson.dumps(data[k])))
        del data[longest]
        data.setdefault("failed", {})[longest] = "too large"
    return data
