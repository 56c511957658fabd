"""The files of one version on their way into the run: what is taken at the call, and what is left for the background.

A version of few and small files is taken whole before `log_artifact` returns, so that nothing can change any more. Of
a larger one the call takes what is quick (hard links, the smallest files, reflinks) and holds on to the rest by open
descriptors, the largest files first. What exceeds the descriptors that may be open is found again by its path. Either
way a file counts only if it is still what it was at the call.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..protocol.manifest import FileEntry, Reference, safe_paths
from ..protocol.names import random_name
from . import copying
from .copying import Hashed
from .held import Changed, Held, settle, spare_descriptors
from .sources import Source

INLINE_BYTES = 8 << 20
INLINE_FILES = 64
# A reflink first writes out what of the file is not on the disk yet; more than this would not be quick.
CLONE_BYTES = 64 << 20
_SHARED_FROM = 4096
_SYNCED_ALONE = 1 << 20
_MAX_SHARED = 200_000


class Damaged(OSError):
    """Files changed before they had been copied: `files` are their names inside the artifact."""

    def __init__(self, reason: str, files: list[str]) -> None:
        super().__init__(reason)
        self.files = files


@dataclass(slots=True)
class Part:
    """One file: where from, where to, and how far it has come.

    Attributes:
        taken: its bytes are in the run. linked: by a hard link to a file outside. durable: they have been synced.
        facts: size and SHA-256, once they are known.
    """

    source: Source
    held: Held
    target: Path
    taken: bool = False
    linked: bool = False
    durable: bool = False
    facts: Hashed | None = None

    @property
    def is_reference(self) -> bool:
        return self.source.policy == "reference"


class Batch:
    """The files of one version.

    Args:
        sources: where they are. references: what else the version names.

    Attributes:
        is_small: whether all of it is taken at the call.

    Raises:
        OSError: a file is not there, or two names do not go together.
    """

    def __init__(self, sources: Sequence[Source], references: Sequence[Reference] = ()) -> None:
        names = [FileEntry(each, 0, "") for each in (*(s.name for s in sources), *(r.path for r in references))]
        if not safe_paths(names):
            raise OSError("a file's name is also the folder of another")
        self.parts = [Part(source, Held.see(source.path), Path()) for source in sources]
        self._references = list(references)
        self._folder = Path()
        self._made: set[Path] = set()
        self._no_clones: set[int] = set()
        self.is_small = self.size <= INLINE_BYTES and len(self.parts) <= INLINE_FILES

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(p.held.size for p in self.parts)

    def take(self, folder: Path) -> None:
        """Take into a version's folder, which is empty, what is taken at the call.

        Raises:
            OSError: something could not be read or written.
        """
        self._folder = folder
        for part in self.parts:
            part.target = folder / "files" / part.source.name
        if self.is_small:
            for part in self.parts:
                self._take_at_once(part)
                part.held.release()
        else:
            self._take_what_is_quick()
            self._hold_the_rest()
            settle(p.held for p in self.parts if p.linked or not p.taken)

    def _take_at_once(self, part: Part) -> None:
        if part.is_reference:
            content = copying.snapshot(part.held)
            part.facts = len(content), hashlib.sha256(content).hexdigest()
        elif not self._link(part):
            self._write(part)

    def _take_what_is_quick(self) -> None:
        inline_bytes, inline_files, clone_bytes = INLINE_BYTES, INLINE_FILES, CLONE_BYTES
        for part in sorted(self.parts, key=lambda p: p.held.size):
            size = part.held.size
            if part.is_reference or self._link(part):
                continue
            if size <= inline_bytes and inline_files > 0:
                inline_bytes, inline_files = inline_bytes - size, inline_files - 1
                self._write(part)
                part.held.release()
            elif size <= clone_bytes and self._clone(part):
                clone_bytes -= size

    def _hold_the_rest(self) -> None:
        left = sorted((p for p in self.parts if not p.taken), key=lambda p: p.held.size, reverse=True)
        for part in left[: spare_descriptors()]:
            part.held.hold()

    def _write(self, part: Part) -> None:
        content = copying.snapshot(part.held)
        part.facts = copying.write(self._place(part), content)
        part.taken = True

    def _link(self, part: Part) -> bool:
        if part.source.policy == "link" and copying.link(part.held, self._place(part)):
            part.taken = part.linked = True
            part.held.path = str(part.target)  # the name that is sure to stay
        return part.linked

    def _clone(self, part: Part) -> bool:
        if part.source.policy in ("auto", "link") and part.held.dev not in self._no_clones:
            part.taken = copying.clone(part.held, self._place(part))
            if not part.taken:
                self._no_clones.add(part.held.dev)
        return part.taken

    def _place(self, part: Part) -> Path:
        folder = part.target.parent
        if folder not in self._made:
            folder.mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        return part.target

    # -- in the background ---------------------------------------------------------------------------------------------

    def complete(self) -> None:
        """Take what has not been taken yet, and hash what has not been hashed.

        Raises:
            Damaged: files are not what they were. OSError: something could not be read or written.
        """
        changed: list[str] = []
        why = ""
        for part in self.parts:
            try:
                if not changed:
                    self._finish(part)
                elif not part.taken:
                    with part.held.opened():
                        pass  # the version is lost; this only says which of its files are
            except Changed as error:
                changed.append(part.source.name)
                why = why or str(error)
            finally:
                part.held.release()
        if changed:
            raise Damaged(why, changed)

    def _finish(self, part: Part) -> None:
        if part.facts is not None:
            return
        if part.is_reference:
            part.facts = copying.hashed_in_place(part.held)
        elif part.taken or self._clone(part):
            part.facts = copying.hashed(part.target)
            if part.linked:
                _check_linked(part)
        else:
            part.durable = part.held.size >= _SYNCED_ALONE
            part.facts = copying.copy(part.held, self._place(part), sync=part.durable)
            part.taken = True

    def share(self, shared: Shared) -> None:
        """Let files that the run has already be those, so that the same content costs nothing again."""
        for part in self.parts:
            if part.facts is not None and not part.is_reference and shared.take_over(part.target, part.facts):
                part.linked, part.durable = False, True

    def make_durable(self) -> None:
        """Sync all files and their names. Raises OSError."""
        kept = [p for p in self.parts if not p.is_reference]
        waiting = [p for p in kept if not p.durable]
        if len(waiting) > INLINE_FILES and hasattr(os, "sync"):
            os.sync()  # one flush of the disk instead of one per file, a thousand small ones in 0.1 s instead of 3
        else:
            for part in waiting:
                copying.fsync(part.target)
        for part in waiting:
            part.durable = True
        copying.fsync_folders([p.target for p in kept], self._folder)

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """What the manifest names, once all is hashed."""
        return tuple(FileEntry(p.source.name, *p.facts) for p in self.parts if p.facts and not p.is_reference)

    @property
    def references(self) -> tuple[Reference, ...]:
        """What the manifest refers to."""
        local = [
            Reference(p.source.name, Path(os.path.realpath(p.source.path)).as_uri(), *p.facts)
            for p in self.parts
            if p.facts and p.is_reference
        ]
        return (*self._references, *local)

    @property
    def linked(self) -> Iterator[tuple[Path, Hashed]]:
        """The files that are still somebody else's, too."""
        return ((p.target, p.facts) for p in self.parts if p.linked and p.facts)

    def release(self) -> None:
        """Close all descriptors."""
        for part in self.parts:
            part.held.release()

    def discard(self) -> None:
        """Take back everything; the version's folder stays, and keeps its number from being given again."""
        self.release()
        empty(self._folder)


def _check_linked(part: Part) -> None:
    facts = part.target.lstat()
    if (facts.st_size, facts.st_mtime_ns) != (part.held.size, part.held.mtime_ns):
        raise Changed(f"{part.source.path} was declared write-once, and has been written to")


def empty(folder: Path) -> None:
    """Delete what a version's folder holds, manifest last; the folder itself stays."""
    shutil.rmtree(folder / "files", ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / "manifest.json").unlink()


class Shared:
    """The contents that a run has already, so that the same once more is a hard link inside the run."""

    def __init__(self) -> None:
        self._known: dict[Hashed, Path] = {}

    def take_over(self, target: Path, facts: Hashed) -> bool:
        """Replace a file by a link to the same content elsewhere in the run; False where there is none."""
        known = self._known.get(facts)
        if known is None or known == target:
            return False
        beside = target.with_name(f".{random_name(40)}")
        try:
            if known.lstat().st_size != facts[0]:
                return False
            os.link(known, beside)
            os.replace(beside, target)
        except OSError:  # pruned meanwhile, or it has too many names
            with contextlib.suppress(OSError):
                beside.unlink()
            return False
        return True

    def add(self, files: Iterable[tuple[Path, Hashed]]) -> None:
        """Take note of contents; the newest place of each is remembered."""
        for path, facts in files:
            if facts[0] >= _SHARED_FROM and (facts in self._known or len(self._known) < _MAX_SHARED):
                self._known[facts] = path
