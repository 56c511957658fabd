"""run.save(): files kept under their own names in `files/saved/`, as `wandb.save` does, but with their bytes.

A `save` record names them with size and SHA-256. Saved again, a file replaces what was kept of it; the later record
counts.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..journal.writer import fsync_folder
from ..protocol.manifest import is_safe_path
from ..protocol.names import random_name
from ..rundir import RunDir, is_ours
from ..stamp import Stamp
from ..terminal import warn_once
from . import copying
from .batch import INLINE_BYTES
from .copying import Hashed
from .held import Held, settle

SAVED = "saved"
MAX_FILES = 10_000
POLICIES = ("now", "end", "live")
_RECORD = 1000

Job = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Match:
    """A file that is to be saved: where it is, and what it is called below `files/saved/`."""

    path: str
    name: str


class Saving:
    """The saved files of one run.

    Args:
        where: returns the run directory. append: writes a record, given its kind and data.
    """

    def __init__(self, where: Callable[[], RunDir], append: Callable[[str, dict[str, Any]], object]) -> None:
        self._where = where
        self._append = append
        self._at_end: dict[str, _Match] = {}
        self._seen: dict[str, Stamp] = {}

    def save(
        self, pattern: str | os.PathLike[str], base_path: str | os.PathLike[str] | None, policy: str
    ) -> tuple[list[Path], list[Job]]:
        """Save what a pattern finds now: small files at once.

        Returns:
            Where the files are, or will be, in the run, and what is left to be done in the background.

        Raises:
            UsageError: the pattern leads out of `base_path`, or the policy is none.
        """
        if policy not in POLICIES:
            raise UsageError(f"save(policy={policy!r}): {', '.join(POLICIES)}")
        matches = _matches(pattern, base_path, self._where())
        if not matches:
            warn_once(f"save {pattern}", f"save({str(pattern)!r}): there is no such file.")
        if policy != "now":
            self._at_end.update({match.name: match for match in matches})
        jobs = [] if policy == "end" else self._save_now(matches)
        return [self._where().files / SAVED / match.name for match in matches], jobs

    def save_strays(self) -> list[Job]:
        """Save what a script has put into the run directory itself, as wandb's do into `run.dir`.

        Returns:
            What is left to be done in the background.
        """
        place = self._where().path
        names = [name for name in sorted(os.listdir(place)) if not is_ours(name)]  # noqa: PTH208
        found = [match for name in names for match in _matches(place / name / "**", None, self._where())]
        found += [match for name in names for match in _matches(place / name, None, self._where())]
        return self._save_now([match for match in found if match.name not in self._seen])

    @property
    def is_waiting(self) -> bool:
        """Whether something is left for the end of the run."""
        return bool(self._at_end)

    def last(self) -> Iterator[Job]:
        """Give what is left to be done at the end of the run: files saved "live" that have changed, and "end"."""
        matches, self._at_end = list(self._at_end.values()), {}
        for match in matches:
            yield lambda match=match: self._save_if_changed(match)  # type: ignore[misc]

    def _save_now(self, matches: list[_Match]) -> list[Job]:
        jobs: list[Job] = []
        entries: list[dict[str, Any]] = []
        left = INLINE_BYTES
        for match in matches:
            try:
                held = Held.see(match.path)
                if held.size <= left:
                    left -= held.size
                    entries.append(self._put(match, held, small=True))
                else:
                    settle([held])
                    held.hold()
                    jobs.append(lambda match=match, held=held: self._put_later(match, held))  # type: ignore[misc]
            except (OSError, ValueError) as error:
                _not_saved(match, error)
        self._record(entries)
        return jobs

    def _put_later(self, match: _Match, held: Held) -> None:
        try:
            self._record([self._put(match, held, small=False)])
        except OSError as error:
            _not_saved(match, error)
        finally:
            held.release()

    def _save_if_changed(self, match: _Match) -> None:
        try:
            held = Held.see(match.path)
            before = self._seen.get(match.name)
            same = before is not None and before.is_of_same_file(held.stamp)
            if before is None or not same or before.is_written_by(held.stamp, match.path):
                self._record([self._put(match, held, small=False)])
        except OSError as error:
            if match.name not in self._seen or not isinstance(error, FileNotFoundError):
                _not_saved(match, error)

    def _put(self, match: _Match, held: Held, small: bool) -> dict[str, Any]:
        """Keep a file and return its entry. Raises OSError."""
        folder = self._where().files / SAVED
        target = folder / match.name
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{random_name(80)}"
        try:
            size, sha256 = _copy_small(held, beside) if small else copying.copy(held, beside)
            os.replace(beside, target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        fsync_folder(target.parent)
        self._seen[match.name] = held.stamp
        return {"path": f"{SAVED}/{match.name}", "size": size, "sha256": sha256}

    def _record(self, entries: list[dict[str, Any]]) -> None:
        for start in range(0, len(entries), _RECORD):
            self._append("artifact", {"action": "save", "saved": entries[start : start + _RECORD]})


def _copy_small(held: Held, target: Path) -> Hashed:
    try:
        facts = copying.write(target, copying.snapshot(held))
        copying.fsync(target)
        return facts
    finally:
        held.release()


def _not_saved(match: _Match, error: Exception) -> None:
    warn_once(f"save {match.path}", f"save(): {match.path} is not kept: {error}")


def _matches(pattern: str | os.PathLike[str], base_path: str | os.PathLike[str] | None, run: RunDir) -> list[_Match]:
    """Return the regular files that a pattern finds now, named relative to its base; the runs' own are passed over.

    What a script has put into its own run's directory is none of those, and named relative to that.
    """
    whole = os.path.abspath(os.fspath(pattern))  # noqa: PTH100  # ".." must be gone, links must not be followed
    inside = Path(whole).is_relative_to(run.path) and not any(
        map(is_ours, Path(whole).relative_to(run.path).parts[:1] or ("files",))
    )
    base = str(run.path) if inside and base_path is None else _base(str(pattern), whole, base_path)
    if not Path(whole).is_relative_to(base):
        raise UsageError(f"save({str(pattern)!r}): it leads out of {base}; base_path= names a folder above it")
    found: list[_Match] = []
    try:
        paths = sorted(glob.iglob(whole, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
    except ValueError:  # a NUL
        paths = []
    for path in paths:
        name = Path(path).relative_to(base).as_posix()
        if not os.path.isfile(path) or (not inside and _is_below(path, run.path.parent)):  # noqa: PTH113
            continue
        if not is_safe_path(name) or len(found) == MAX_FILES:
            why = f"more than {MAX_FILES:,} files" if len(found) == MAX_FILES else "its name cannot be kept"
            warn_once(f"save {pattern}", f"save({str(pattern)!r}): {path} is left out: {why}.")
            continue
        found.append(_Match(path, name))
    return found


def _is_below(path: str, folder: Path) -> bool:
    return Path(path).resolve().is_relative_to(folder.resolve())


def _base(pattern: str, whole: str, base_path: str | os.PathLike[str] | None) -> str:
    """Return the folder that names are relative to, as wandb.save has it: one level is kept of an absolute pattern."""
    if base_path is not None:
        return os.path.abspath(os.fspath(base_path))  # noqa: PTH100
    if not os.path.isabs(pattern):  # noqa: PTH117
        return os.getcwd()  # noqa: PTH109
    fixed = Path(whole).parent
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    return str(fixed.parent)
