"""Files kept by a hard link (policy="link"): at the end, what still has a name outside becomes the run's own.

Until then they cost nothing. A file is declared write-once by whoever asks for a link; if it has been written to all
the same, its hash shows it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..protocol.names import random_name
from . import copying
from .copying import Hashed
from .held import Changed, Held
from .versions import ArtifactVersion

Damage = Callable[[ArtifactVersion, str], None]


@dataclass(frozen=True, slots=True)
class _Link:
    path: Path
    facts: Hashed
    handle: ArtifactVersion


class Links:
    """The hard links that a run has to files outside."""

    def __init__(self) -> None:
        self._links: list[_Link] = []

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self._links)

    def add(self, paths: Iterable[tuple[Path, Hashed]], handle: ArtifactVersion) -> None:
        """Take note of the linked files of a version."""
        self._links += [_Link(path, facts, handle) for path, facts in paths]

    def forget(self, folder: Path) -> None:
        """Leave alone the links in a version's folder, which is going to be deleted."""
        self._links = [link for link in self._links if not link.path.is_relative_to(folder)]

    def owned(self, damaged: Damage) -> Iterator[Callable[[], None]]:
        """Give, file by file, what makes those with a name outside the run's own.

        Args:
            damaged: told the version and the file of which the content is no longer what was logged.
        """
        links, self._links = self._links, []
        by_file: dict[tuple[int, int], list[_Link]] = {}
        for link in links:
            try:
                facts = link.path.lstat()
            except OSError:  # pruned, or taken away by somebody
                continue
            by_file.setdefault((facts.st_dev, facts.st_ino), []).append(link)
        for group in by_file.values():
            yield lambda group=group: _make_own(group, damaged)  # type: ignore[misc]


def _make_own(group: list[_Link], damaged: Damage) -> None:
    """Replace all names that one file has in the run by a copy of it, if it has others, too. Raises OSError."""
    first = group[0]
    if first.path.lstat().st_nlink <= len(group):
        return  # its other names have gone: it is the run's own
    beside = first.path.with_name(f".{random_name(40)}")
    try:
        unchanged = _copied(Held.see(str(first.path)), beside) == first.facts
    except Changed:
        unchanged = False
    if not unchanged:
        beside.unlink(missing_ok=True)
        for link in group:
            # What it has become is the user's and keeps its name there; sound files beside it may be the only ones.
            link.path.unlink(missing_ok=True)
            damaged(link.handle, str(link.path))
        return
    os.replace(beside, first.path)
    for link in group[1:]:
        os.link(first.path, beside)
        os.replace(beside, link.path)


def _copied(held: Held, target: Path) -> Hashed:
    """Make a copy with bytes of its own, or shared ones that no write reaches; return size and SHA-256 of it."""
    if copying.clone(held, target):
        copying.fsync(target)
        return copying.hashed(target)
    return copying.copy(held, target)
