"""Taking a file's bytes into the run as they are now: a reflink where the file system can, else a copy."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..protocol.manifest import FileEntry, is_safe_path
from ..rundir import is_run_dir

_BLOCK = 4 << 20
# ioctl_ficlone(2): _IOW(0x94, 9, int)
_FICLONE = 0x40049409


def sources(path: Path) -> list[tuple[str, Path]]:
    """Return (path within the artifact, file) of a file, or of every file below a folder in order of path.

    The folder may hold the runs themselves, as a working directory does: run directories below it are passed over.

    Raises:
        OSError: there is nothing at `path`, or a name in it cannot be kept.
    """
    if path.is_file():
        found = [(path.name, path)]
    elif path.is_dir():
        found = sorted((p.relative_to(path).as_posix(), p) for p in _walk(path))
    else:
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    for name, _ in found:
        if not is_safe_path(name):
            raise OSError(f"{path}: the name {name!r} cannot be kept")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_run_dir(Path(parent, name)))
        yield from (p for p in (Path(parent, n) for n in names) if p.is_file())


def stage(source: Path, target: Path, name: str) -> FileEntry:
    """Copy a file into the run and return its entry; the hash is of what was copied.

    Raises:
        OSError: it cannot be read or the copy cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(source, "rb") as reading:
        if not stat.S_ISREG(os.fstat(reading.fileno()).st_mode):
            raise OSError(f"{source} is not a regular file")
        with open(target, "xb", buffering=0) as writing:
            if _reflink(reading.fileno(), writing.fileno()):
                return _hashed(target, name)
            whole, size = hashlib.sha256(), 0
            while block := reading.read(_BLOCK):
                whole.update(block)
                view = memoryview(block)
                while view:
                    view = view[writing.write(view) or 0 :]
                size += len(block)
            os.fsync(writing.fileno())
    return FileEntry(name, size, whole.hexdigest())


def _reflink(source: int, target: int) -> bool:
    try:
        import fcntl
    except ImportError:  # not Linux
        return False
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        os.fsync(target)
        return True
    return False


def _hashed(path: Path, name: str) -> FileEntry:
    whole, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            whole.update(block)
            size += len(block)
    return FileEntry(name, size, whole.hexdigest())
