"""Starting a flightlog command that outlives the process that starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_SHELL = "/bin/sh"
_START_SECONDS = 10.0
# What is meant for the script alone: its parent's run, a prompt at its end, what is to be printed of it.
_NOT_HANDED_ON = (
    "_FLIGHTLOG_PARENT_RUN",
    "PYTHONINSPECT",
    "PYTHONSTARTUP",
    "PYTHONTRACEMALLOC",
    "PYTHONPROFILEIMPORTTIME",
)
# What may lead on from the script's own folder.
_PATHS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "TMPDIR")


def start(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """Start `flightlog <words>` in a session of its own, with no descriptor of ours.

    It is no child of this process, which may wait for its own children, or count their memory; nothing that is sent to
    this process's group or terminal reaches it.

    Args:
        words: the command.
        log: the file that it writes to. environment: its environment.

    Raises:
        OSError: it cannot be started.
    """
    command = [*_interpreter(), "-m", "flightlog", *words]
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    try:
        subprocess.run(
            [_SHELL, "-c", '"$@" &', _SHELL, *command],
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            cwd="/",
            env=_adapted(environment),
            start_new_session=True,
            timeout=_START_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from None
    finally:
        os.close(fd)


def _adapted(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which the command finds this package, and what paths lead to, from any folder."""
    adapted = {name: value for name, value in environment.items() if name not in _NOT_HANDED_ON}
    adapted |= {name: str(Path(adapted[name]).absolute()) for name in _PATHS if adapted.get(name)}
    paths = [str(Path(path).absolute()) for path in adapted.get("PYTHONPATH", "").split(os.pathsep) if path]
    home = Path(__file__).resolve().parents[1]
    if home.name not in ("site-packages", "dist-packages"):
        paths.append(str(home))  # a checkout, which this script's own sys.path may be the only one to name
    return {**adapted, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _interpreter() -> list[str]:
    """Return the command of a Python that has this package. Raises OSError where there is none."""
    if getattr(sys, "frozen", False) or not Path(sys.executable or "").name.startswith(("python", "pypy")):
        raise OSError("this program brings its own Python, which cannot be started by itself")
    return [sys.executable]
