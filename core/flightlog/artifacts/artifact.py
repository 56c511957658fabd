"""Artifact: what a user puts together before it is logged, by wandb's names where they fit."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import UsageError
from ..protocol.manifest import MAX_FILES, Reference, is_safe_path, is_sha256, is_uri
from ..protocol.names import checked_name
from .sources import Source, sources_at

if TYPE_CHECKING:
    from .versions import ArtifactVersion

POLICIES = ("auto", "copy", "link", "reference")
# What an Artifact has once it is logged.
_OF_THE_VERSION = frozenset((
    "version", "digest", "aliases", "state", "reason", "size", "manifest", "entries", "references", "file",
    "files", "download", "verify", "get", "get_path", "get_entry", "made_by", "project",
))  # fmt: skip
# What wandb's add_file(policy=) calls them.
_OTHER_NAMES = {"mutable": "auto", "immutable": "link"}


class Artifact:
    """A set of files to be logged together as one version: `run.log_artifact(artifact)`.

    The files' bytes are taken when it is logged, not when they are added.

    Args:
        name: what its versions are versions of.
        type: what it is, such as "model" or "dataset".
        description: in words.
        metadata: values to go with it; it can be changed until the artifact is logged.
        incremental, use_as: taken so that scripts written for wandb run.

    Once it has been logged, `version`, `digest`, `state`, `download()` and the like are those of the version
    that `log_artifact` has returned.

    Raises:
        UsageError: a name cannot be used.
    """

    def __init__(
        self,
        name: str,
        type: str = "artifact",
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        incremental: bool = False,
        use_as: str | None = None,
    ) -> None:
        if metadata is not None and not isinstance(metadata, Mapping):
            raise UsageError(f"Artifact(metadata=): a mapping of names to values, not {metadata.__class__.__name__}")
        self.name = checked_name("artifact", name)
        self.type = checked_name("artifact type", type)
        self.description = description
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._added: list[tuple[Path, str | None, str | None]] = []
        self._references: dict[str, Reference] = {}
        self._own: str | None = None
        self.logged: ArtifactVersion | None = None

    def add_file(
        self,
        local_path: str | os.PathLike[str],
        name: str | None = None,
        policy: str | None = None,
        *,
        is_tmp: bool = False,
        overwrite: bool = False,
        skip_cache: bool = False,
    ) -> None:
        """Add a file.

        Args:
            local_path: where it is.
            name: what it is called inside the artifact, "/" between folders; without it, the file's own name.
            policy: "auto", "copy", "link" or "reference"; without it, what `log_artifact` says. wandb's "mutable" and
                "immutable" stand for "auto" and "link".
            overwrite: what was added under this name before gives way.
            is_tmp, skip_cache: without meaning here.

        Raises:
            UsageError: the name or the policy cannot be used.
        """
        path = _absolute(local_path)
        inside = _checked_path(name or path.name)
        if overwrite:
            self._added = [added for added in self._added if added[1] != inside]
        self._added.append((path, inside, checked_policy(policy) if policy else None))

    def add(self, obj: Any, name: str, overwrite: bool = False) -> None:
        """Add a Table, an Image or another medium as a file, which `version.get(name)` gives back.

        Args:
            obj: a medium, or what `log()` would make one of (a figure, a DataFrame).
            name: what it is called inside the artifact; the ending of its kind (".table.json", ".png") is added.
            overwrite: what was added under this name before gives way.

        Raises:
            UsageError: it is no medium, or has no file (a Histogram), or the artifact has such a file already.
        """
        from .contained import write_media

        files = write_media(obj, self._own_folder(), _checked_path(name))
        own = files[0][1]
        if overwrite:
            self._added = [added for added in self._added if added[1] != own]
        elif any(known == own for _, known, _ in self._added):
            raise UsageError(f"add({name!r}): artifact {self.name} has {own} already")
        known = {inside for _, inside, _ in self._added}
        self._added += [(path, inside, None) for path, inside in files if inside not in known]

    def __setitem__(self, name: str, obj: Any) -> None:
        self.add(obj, name)

    def add_dir(
        self,
        local_path: str | os.PathLike[str],
        name: str | None = None,
        policy: str | None = None,
        *,
        skip_cache: bool = False,
        merge: bool = False,
    ) -> None:
        """Add every file below a folder; links to files are followed, links to folders are not.

        Args:
            local_path: where it is.
            name: the folder inside the artifact that they go into; without it, the artifact's root.
            policy: as for `add_file`.
            skip_cache, merge: without meaning here.

        Raises:
            UsageError: the name or the policy cannot be used.
        """
        path = _absolute(local_path)
        inside = _checked_path(name.strip("/")) if name and name.strip("/") else None
        self._added.append((path, inside, checked_policy(policy) if policy else None))

    def add_reference(
        self,
        uri: str,
        name: str | None = None,
        checksum: bool = True,
        max_objects: int | None = None,
        *,
        size: int | None = None,
        sha256: str | None = None,
    ) -> None:
        """Add something that stays where it is: nothing is read or downloaded.

        Args:
            uri: "s3://…", "https://…", "file:///…" or any other address.
            name: what it is called inside the artifact; without it, the last part of the address.
            size, sha256: of its content, where they are known: what is fetched later can then be checked.
            checksum, max_objects: without meaning here.

        Raises:
            UsageError: the address, the name, the size or the hash cannot be used.
        """
        address = str(uri)
        if not is_uri(address):
            raise UsageError(f'add_reference({address!r}): an address is "scheme:…" in printable characters')
        if (size is not None and (type(size) is not int or size < 0)) or not (sha256 is None or is_sha256(sha256)):
            raise UsageError(f"add_reference({address!r}): size is in bytes, sha256 64 lower-case hex digits")
        path = _checked_path(name or address.split("?")[0].split("#")[0].rstrip("/").rsplit("/", 1)[-1])
        self._references[path] = Reference(path, address, -1 if size is None else size, sha256 or "")

    @contextlib.contextmanager
    def new_file(self, name: str, mode: str = "w", encoding: str | None = None) -> Iterator[IO[Any]]:
        """Open a new file of the artifact for writing: `with artifact.new_file("notes.txt") as file: …`.

        If the block raises, the file is not added.

        Args:
            name: what it is called inside the artifact.
            mode: "w", "wb", "x" or "xb". encoding: of a text, UTF-8 without it.

        Raises:
            UsageError: the name or the mode cannot be used, or the artifact has such a file already.
        """
        if mode not in ("w", "wb", "x", "xb"):
            raise UsageError(f'new_file(mode={mode!r}): "w" or "wb"')
        inside = _checked_path(name)
        if any(known == inside for _, known, _ in self._added):
            raise UsageError(f"new_file({name!r}): artifact {self.name} has that already")
        path = self._own_folder().joinpath(*inside.split("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, mode, encoding=None if "b" in mode else encoding or "utf-8") as file:
            yield file
        self._added.append((path, inside, None))

    def _own_folder(self) -> Path:
        """Make a new folder for files that the artifact itself writes; they go with it."""
        if self._own is None:
            self._own = tempfile.mkdtemp(prefix="flightlog-artifact-")
            weakref.finalize(self, _remove, self._own, os.getpid())
        return Path(tempfile.mkdtemp(dir=self._own))

    def wait(self, timeout: float | None = None) -> Artifact:
        """Wait until the version that it was logged as is in the run; see `ArtifactVersion.wait`. Returns itself."""
        if self.logged is not None:
            self.logged.wait(timeout)
        return self

    def __getattr__(self, name: str) -> Any:
        if name not in _OF_THE_VERSION:
            raise AttributeError(f"an Artifact has no {name!r}")
        if self.logged is None:
            raise UsageError(f"artifact {self.name}: {name} is known once run.log_artifact(artifact) has logged it")
        return getattr(self.logged, name)

    def contents(self, policy: str, without: Path | None) -> tuple[list[Source], list[Reference]]:
        """Return the files to be kept, by name inside the artifact, and what is only referred to.

        Args:
            policy: for what was added without one. without: a folder that is passed over.

        Raises:
            OSError: something that was added is not there, or two things have one name.
        """
        by_name: dict[str, Source] = {}
        for path, name, own_policy in self._added:
            for source in sources_at(path, own_policy or policy, name, without):
                if source.name in by_name or source.name in self._references:
                    raise OSError(f"two files of artifact {self.name} are called {source.name}")
                by_name[source.name] = source
                if len(by_name) > MAX_FILES:
                    raise OSError(f"artifact {self.name} has more than {MAX_FILES:,} files")
        return list(by_name.values()), list(self._references.values())


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path as it is found from anywhere; links in it stay, and with them the file's name."""
    if not os.fspath(path):
        raise UsageError("an empty path was given; a file or folder is needed")
    return Path(os.path.abspath(path))  # noqa: PTH100


def _remove(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked child leaves it to its parent
        shutil.rmtree(folder, ignore_errors=True)


def checked_policy(policy: object) -> str:
    """Return a policy by the name it has here. Raises UsageError where it is none."""
    name = _OTHER_NAMES.get(str(policy), policy)
    if name not in POLICIES:
        raise UsageError(f"policy={policy!r}: {', '.join(POLICIES)}")
    return str(name)


def _checked_path(name: str) -> str:
    if not is_safe_path(name):
        raise UsageError(f"{name!r} is no path inside an artifact: parts with / between, no .., no control characters")
    return name
