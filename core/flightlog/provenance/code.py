"""The code of a run: its script, its notebook, or a folder of sources."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from .git import find_root
from .ignore import Ignore
from .store import CODE_SUFFIXES, MAX_FILE, CodeStore, holds_keys, read_bounded

MAX_NOTEBOOK = 64 << 20
MAX_LOOKED_AT = 50_000
SUFFIXES = CODE_SUFFIXES | frozenset(
    (
        ".sh",
        ".bash",
        ".slurm",
        ".sbatch",
        ".yaml",
        ".yml",
        ".toml",
        ".cfg",
        ".ini",
        ".gin",
        ".jsonnet",
        ".dockerfile",
        ".mk",
    )
)
_NAMES = frozenset(("Makefile", "Dockerfile", "requirements.txt", "environment.yml", "LICENSE"))
_PASSED_OVER = frozenset(("__pycache__", "node_modules", "site-packages"))


def program() -> Path | None:
    """Return the file of the running script or notebook; None where there is none (an interactive session, -c)."""
    notebook = _notebook()
    if notebook is not None:
        return notebook
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(path, str) or not path:
        return None
    found = Path(path)
    return found if _is_file(found) else None


def _notebook() -> Path | None:
    """Return the notebook that runs here; VS Code says so in a variable of it, Jupyter in the environment."""
    if "IPython" not in sys.modules:
        return None
    shown = getattr(sys.modules.get("__main__"), "__vsc_ipynb_file__", None)
    for name in (shown, os.environ.get("JPY_SESSION_NAME")):
        if isinstance(name, str) and name.endswith(".ipynb") and _is_file(Path(name)):
            return Path(name)
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def save_program(store: CodeStore) -> dict[str, Any]:
    """Keep the script or notebook, and say which it is: {"path": …, "saved": whether it could be kept}."""
    path = program()
    if path is None:
        return {}
    if path.suffix == ".ipynb":
        content = _without_outputs(read_bounded(path, MAX_NOTEBOOK))
    else:
        content = read_bounded(path)
    saved = content is not None and len(content) <= MAX_FILE and store.add(path.name, content)
    return {"path": os.fspath(path.absolute()), "saved": saved}


def name_program() -> dict[str, Any]:
    """Say which script or notebook it is, without keeping it."""
    path = program()
    return {"path": os.fspath(path.absolute()), "saved": False} if path is not None else {}


def home(folder: Path) -> Path:
    """Return where the code is: the program's folder if that is in a repository, else `folder`.

    An installed command tells nothing of where the code is, if `folder` is in a repository: its environment may lie in
    another one, such as that of the home directory.
    """
    path = program()
    if path is None or find_root(path.absolute().parent) is None:
        return folder
    is_installed = path.absolute().is_relative_to(sys.prefix)
    return folder if is_installed and find_root(folder) is not None else path.absolute().parent


def _without_outputs(notebook: bytes | None) -> bytes | None:
    """Return a notebook's cells without what they showed, which is data, and may be large (nbformat 4)."""
    try:
        content = orjson.loads(notebook or b"")
        for cell in content["cells"]:
            if cell.get("cell_type") == "code":
                cell["outputs"], cell["execution_count"] = [], None
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return notebook


def save_folder(store: CodeStore, folder: Path, wanted: Callable[[str], bool] | None = None) -> dict[str, Any]:
    """Keep the sources below a folder, but what its .flightlogignore leaves out.

    Args:
        store: takes them. folder: where they are.
        wanted: given a path relative to the folder, tells whether it is to be kept.

    Returns:
        {"folder": …, "left_out": how many sources were too large, or too many}.
    """
    left_out = 0
    for path in _sources(folder, Ignore.beside(folder)):
        if wanted is not None and not wanted(path):
            continue
        content = read_bounded(folder / path, follow=False)
        if content is None or not store.add(path, content, durable=False):
            left_out += 1
    return {"folder": os.fspath(folder.absolute()), "left_out": left_out}


def _sources(folder: Path, ignore: Ignore) -> Iterator[str]:
    """Yield the relative paths of a folder's sources; environments, caches, hidden and run folders are passed over."""
    looked_at = 0
    for parent, folders, names in os.walk(folder):
        within = Path(parent).relative_to(folder).as_posix()
        prefix = "" if within == "." else f"{within}/"
        folders[:] = sorted(
            name for name in folders
            if _may_enter(Path(parent, name)) and not ignore.leaves_out(f"{prefix}{name}", folder=True)
        )  # fmt: skip
        for name in sorted(names):
            looked_at += 1
            if looked_at > MAX_LOOKED_AT:
                return
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  # a million Paths would be made for nothing
            wanted = (suffix in SUFFIXES or name in _NAMES) and not holds_keys(f"{prefix}{name}")
            if wanted and not ignore.leaves_out(f"{prefix}{name}"):
                yield f"{prefix}{name}"


def _may_enter(folder: Path) -> bool:
    if folder.name in _PASSED_OVER or folder.name.startswith(".") or folder.is_symlink():
        return False
    return not any((folder / mark).exists() for mark in ("CACHEDIR.TAG", "pyvenv.cfg"))
