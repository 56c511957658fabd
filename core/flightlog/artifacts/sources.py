"""Which files an artifact is made of: a file, or all below a folder, each with its name inside the artifact.

Links to files are followed, wherever they lead: a Hugging Face snapshot is a folder of links to `../../blobs`. What
lies outside the folder is said so once. Links to folders are not followed, pipes, sockets and devices are passed over,
and so are the runs themselves where they lie below.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..protocol.manifest import MAX_FILES, is_safe_path
from ..rundir import is_run_dir
from ..terminal import warn_once


@dataclass(frozen=True, slots=True)
class Source:
    """A file to be kept: its `name` inside the artifact ("/" between parts), its `path` now, and the policy."""

    name: str
    path: str
    policy: str


def sources_at(path: Path, policy: str, name: str | None = None, without: Path | None = None) -> list[Source]:
    """Return the file at `path`, or every file below the folder there, in order of name.

    Args:
        path: a file or folder.
        policy: how the files are to be kept.
        name: what a file is called inside the artifact, or the folder that a folder's files go into.
        without: a folder that is passed over: the one that holds the runs.

    Raises:
        OSError: there is nothing at `path`, a folder cannot be read, or a name cannot be kept.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  # the working directory may change, and no link is followed
    if path.is_file():
        found = [(name or path.name, str(path))]
    elif path.is_dir():
        prefix = f"{name.strip('/')}/" if name and name.strip("/") else ""
        found = [(prefix + inner, where) for inner, where in _below(path, without)]
    else:
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    for inner, _ in found:
        if not is_safe_path(inner):
            raise OSError(f"{path}: the name {inner!r} cannot be kept")
    return [Source(inner, where, policy) for inner, where in sorted(found)]


def _below(folder: Path, without: Path | None) -> Iterator[tuple[str, str]]:
    pending = [("", str(folder))]
    count = 0
    while pending:
        prefix, parent = pending.pop()
        with os.scandir(parent) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not _is_passed_over(Path(entry.path), without):
                        pending.append((f"{prefix}{entry.name}/", entry.path))
                elif entry.is_file():
                    count += 1
                    if count > MAX_FILES:
                        raise OSError(f"{folder} holds more than {MAX_FILES:,} files")
                    if entry.is_symlink():
                        _name_if_it_leads_out(folder, entry.path)
                    yield prefix + entry.name, entry.path


def _is_passed_over(folder: Path, without: Path | None) -> bool:
    return is_run_dir(folder) or (without is not None and without.exists() and folder.samefile(without))


def _name_if_it_leads_out(folder: Path, link: str) -> None:
    leads_to = Path(link).resolve()
    if not leads_to.is_relative_to(folder.resolve()):
        warn_once(f"link out {folder}", f"{link} is a link to {leads_to}, whose content is kept with {folder}.")
