"""The run directory: its layout, its latest.spec, and how run directories are found (docs/format.md).

flightlog/                                  the root
  .gitignore  CACHEDIR.TAG                  runs stay out of repositories and backups
  latest -> run-20261123-204501-k3v9x2abqmtz
  latest.spec -> latest/latest.spec
  files -> latest/files
  .delivered/<run id>.spec                  what `sync --clean` leaves of a run
  run-20261123-204501-k3v9x2abqmtz/
    latest.spec                             a cache of the journal
    files/journal/<writer>/000001.jsonl     the truth
    sync.json                               what a server has acknowledged
    follower.json sync.log follower.lock    what the follower of an online run leaves (followed.py)
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from .errors import DamagedError
from .journal.reader import open_regular, read_upto, segments, writer_folders
from .journal.writer import fsync_folder
from .process import hostname, pid_namespace, start_of
from .protocol.names import random_name

FORMAT = 1
SPEC = "latest.spec"
MAX_SPEC = 64 << 20
# What the follower of an online run leaves: how it stands, what happened, and the lock that it holds.
FOLLOWER_FILES = ("follower.json", "sync.log", "follower.lock")
_IN_A_RUN = frozenset(("files", SPEC, "sync.json", *FOLLOWER_FILES))
ALIVE_SECONDS = 300.0
_PID_END = 1 << 31
_CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"  # https://bford.info/cachedir/
    "# flightlog keeps its runs here. The tag keeps them out of backups; `flightlog sync` delivers them.\n"
)
_OURS_IN_ROOT = frozenset((".gitignore", "CACHEDIR.TAG", ".delivered", "latest", SPEC, "files"))
# A disk that is full now may have room in a minute: no reason not to begin.
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO))
_NO_FOLDER = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))
_SKIPPED = {".git", "files", "node_modules", "__pycache__", "site-packages", "lost+found"}


def atomic_write(path: Path, content: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace a file's content so that a reader, or a power cut, sees the old or the new one, never a mixture.

    Args:
        path: the file. content: what it is to hold. mode: its permissions.
        durable: wait for the disk; False for what a power cut may take.

    Raises:
        OSError: it could not be written; the old content still stands.
    """
    temporary = path.parent / f".{path.name[:100]}.{random_name(40)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        with contextlib.suppress(OSError):
            fsync_folder(path.parent)


class RunDir(NamedTuple):
    """One run directory."""

    path: Path

    @property
    def spec_path(self) -> Path:
        return self.path / SPEC

    @property
    def files(self) -> Path:
        return self.path / "files"

    @property
    def journal(self) -> Path:
        return self.files / "journal"

    @property
    def sync_path(self) -> Path:
        return self.path / "sync.json"

    def read_spec(self) -> dict[str, Any]:
        """Return latest.spec.

        Raises:
            DamagedError: it is missing, or not the JSON object it should be.
        """
        return read_spec(self.spec_path)

    def write_spec(self, spec: dict[str, Any]) -> None:
        """Write latest.spec atomically. Raises OSError."""
        atomic_write(self.spec_path, orjson.dumps(spec, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def journal_sizes(self) -> dict[str, dict[str, int]]:
        """Return, by writer and segment, the bytes on disk: enough to see whether anything has grown."""
        sizes: dict[str, dict[str, int]] = {}
        for folder in writer_folders(self.journal):
            sizes[folder.name] = {}
            for path in segments(folder):
                with contextlib.suppress(FileNotFoundError):
                    sizes[folder.name][path.name] = path.lstat().st_size
        return sizes

    def last_growth(self) -> float:
        """Return when the journal last grew (the file system's clock), 0.0 where there is none."""
        times = [0.0]
        for folder in writer_folders(self.journal):
            for path in segments(folder)[-1:]:
                with contextlib.suppress(OSError):
                    times.append(path.lstat().st_mtime)
        return max(times)


def read_spec(path: Path) -> dict[str, Any]:
    """Read a latest.spec.

    Raises:
        DamagedError: it is missing, or not a JSON object that names a run's id, and its project by a text if at all.
    """
    try:
        with open_regular(path) as file:
            content = read_upto(file, MAX_SPEC + 1)
        spec = orjson.loads(content) if len(content) <= MAX_SPEC else None
    except OSError as error:
        raise DamagedError(f"{path}: {error.strerror or error}") from None
    except ValueError:
        raise DamagedError(f"{path} is not JSON; the journal beside it still holds everything") from None
    if not isinstance(spec, dict) or not _names_a_run(spec):
        raise DamagedError(f"{path} does not describe a run")
    return spec


def _names_a_run(spec: dict[str, Any]) -> bool:
    return isinstance(spec.get("id"), str) and isinstance(spec.get("project"), str | None)


def readable(value: Any) -> Any:
    """Return values as latest.spec shows them: NaN and the infinities as texts, large integers as floats."""
    if type(value) is float and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if type(value) is int and not -(1 << 63) <= value < (1 << 64):
        return float(value) if abs(value) < 1 << 1023 else str(value)
    if type(value) is dict:
        return {k: readable(v) for k, v in value.items()}
    if type(value) is list:
        return [readable(v) for v in value]
    return value


def ended_writers(spec: dict[str, Any]) -> dict[str, int]:
    """Return, of a run that ended, the last seq that each of its writers in this directory had written by then."""
    writers = spec.get("writers")
    if spec.get("state", "running") in ("running", "crashed") or not isinstance(writers, dict):
        return {}
    return {str(name): seq for name, seq in writers.items() if type(seq) is int and seq > 0}


# -- making ------------------------------------------------------------------------------------------------------------


def prepare_root(root: Path) -> Path:
    """Make the folder that holds runs and return it.

    A folder that already holds other things is left as it is and a `flightlog` folder inside it used instead: the
    .gitignore of "*" must never come to lie over somebody's own files.
    """
    while _holds_other_things(root):
        root = root / "flightlog"
    root.mkdir(parents=True, exist_ok=True)
    for name, content in ((".gitignore", "*\n"), ("CACHEDIR.TAG", _CACHEDIR_TAG)):
        # What stands there is left: a pipe, say, that would never be opened, or a link that leads elsewhere.
        with contextlib.suppress(OSError), open(root / name, "x") as file:
            file.write(content)
    return root


def is_root(folder: Path) -> bool:
    """Tell whether a folder was made to hold runs, whether or not it holds any now."""
    with contextlib.suppress(OSError), open_regular(folder / "CACHEDIR.TAG") as file:
        return b"flightlog" in file.read(1000)
    return False


def _holds_other_things(root: Path) -> bool:
    if is_root(root):
        return False
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = [p.name for p in root.iterdir()]
        return any(n not in _OURS_IN_ROOT and not n.startswith(("run-", ".latest", ".files")) for n in names)
    return False


def spare_root() -> Path:
    """Make and return the root of last resort, in the system's temporary folder and nobody else's.

    Raises:
        OSError: not even that can be written.
    """
    import tempfile

    place = Path(tempfile.gettempdir()) / f"flightlog-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    facts = place.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():  # put there by somebody else
        place = Path(tempfile.mkdtemp(prefix="flightlog-"))
    return prepare_root(place)


def create(root: Path, run_id: str, started_at: float) -> RunDir:
    """Make a new run directory below a prepared root; on a full disk it is made by the writer, once there is room.

    Raises:
        OSError: it cannot be made, and waiting will not help.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(started_at))
    for attempt in range(1000):  # a requeued job may start twice within a second
        path = root / (f"run-{stamp}-{run_id}" + (f".{attempt}" if attempt else ""))
        try:
            path.mkdir()
            break
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno in _FULL:
                return RunDir(path)
            raise
    else:
        raise OSError(f"{root} already holds a thousand directories of run {run_id}")
    with contextlib.suppress(OSError):
        (path / "files" / "journal").mkdir(parents=True)
    return RunDir(path)


def point_latest(root: Path, run: RunDir) -> None:
    """Make `latest`, `latest.spec` and `files` of the root lead to this run. Raises OSError."""
    for name, target in (("latest", run.path.name), (SPEC, f"latest/{SPEC}"), ("files", "latest/files")):
        link = root / name
        if link.is_symlink() and os.readlink(link) == target:
            continue
        if link.exists() and not link.is_symlink() and not _is_text_link(link):
            continue  # somebody's own file or folder
        temporary = root / f".{name}.{random_name(40)}"
        try:
            temporary.symlink_to(target)
        except (OSError, NotImplementedError):
            temporary.write_text(f"{target}\n")
        try:
            os.replace(temporary, link)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def _is_text_link(path: Path) -> bool:
    return path.is_file() and path.stat().st_size < 1000 and path.read_bytes().startswith((b"run-", b"latest/"))


# -- finding -----------------------------------------------------------------------------------------------------------


def _is_root(path: Path) -> bool:
    """Tell a root, where links cannot be made and latest.spec is a text file, from a run directory."""
    return (path / "CACHEDIR.TAG").exists()


def is_ours(name: str) -> bool:
    """Tell whether something in a run directory is a part of the run, or on its way to be one; else a script's own."""
    return name in _IN_A_RUN or name.startswith(".")


def is_run_dir(path: Path) -> bool:
    """Tell whether a folder is a run directory: it has a latest.spec of its own, or a journal."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG((path / SPEC).lstat().st_mode) and not _is_root(path):
            return True
    with contextlib.suppress(OSError):
        return stat.S_ISDIR((path / "files").lstat().st_mode) and stat.S_ISDIR(
            (path / "files" / "journal").lstat().st_mode
        )
    return False


class Unreadable(NamedTuple):
    """A folder that cannot be looked into, and why: it may be a run, or hold some."""

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.path} cannot be searched for runs: {self.why}"


def is_gone(path: Path) -> bool:
    """Tell whether what was a run directory is none any more; one that cannot be looked into still may be."""
    if is_run_dir(path):
        return False
    try:
        folders_below(path)
    except OSError:
        return False
    return True


def discover(
    top: Path,
    max_depth: int = 8,
    max_folders: int = 100_000,
    unreadable: Callable[[Unreadable], object] = lambda folder: None,
) -> Iterator[RunDir]:
    """Yield the run directories at or below `top`, in order of path.

    Follows no links and does not enter `files/` or `.git`; looks at no more than `max_folders` folders.

    Args:
        top: the folder. max_depth, max_folders: where to stop.
        unreadable: told of each folder that may hide runs.
    """
    pending = [(top, 0)]
    seen = 0
    while pending:
        if seen == max_folders:
            unreadable(Unreadable(top, f"it has more than {max_folders:,} folders; name some of those"))
            return
        folder, depth = pending.pop()
        seen += 1
        if is_run_dir(folder):
            yield RunDir(folder)
            continue
        if depth >= max_depth:
            continue
        try:
            pending.extend((path, depth + 1) for path in reversed(folders_below(folder)))
        except OSError as error:
            unreadable(Unreadable(folder, error.strerror or str(error)))


def folders_below(folder: Path) -> list[Path]:
    """Return the folders directly in a folder that may be or hold runs, sorted; none where it is gone, or no folder.

    Raises:
        OSError: it may be a run, or hold some, and that cannot be seen.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(
                Path(e.path)
                for e in entries
                if e.name not in _SKIPPED and not e.name.startswith(".") and e.is_dir(follow_symlinks=False)
            )
    except OSError as error:
        if error.errno in _NO_FOLDER:
            return []
        raise
    with contextlib.suppress(FileNotFoundError):
        (folder / SPEC).lstat()  # what may be listed need not be open to be entered
    return found


# -- alive or not ------------------------------------------------------------------------------------------------------


def is_alive(run: RunDir, spec: dict[str, Any]) -> bool:
    """Judge whether a run that says "running" still is.

    On its own machine its process is asked for; elsewhere, in another container say, the journal must have grown
    within five minutes (a heartbeat is written every 30 s). Where that cannot be seen, it is believed.
    """
    if spec.get("host") != hostname() or spec.get("pid_namespace", pid_namespace()) != pid_namespace():
        try:
            return time.time() - run.last_growth() < ALIVE_SECONDS
        except OSError:
            return True
    pid, started = spec.get("pid"), spec.get("process_started_at")
    if not (type(pid) is int and 0 < pid < _PID_END and isinstance(started, int | float)):
        return False
    here = start_of(pid)
    return here is not None and abs(here - started) < 2.0
