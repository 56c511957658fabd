"""What is known of a program at once, for a writer's first record."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..journal.values import text
from ..process import hostname
from ..redact import redact_command, secret_values
from .ranks import ranks

MAX_WORDS = 2000
MAX_WORD = 4000


def quick(allow: Iterable[str] = ()) -> dict[str, Any]:
    """Return what is known at once: command, Python, host, system, folder, place in a distributed job. Runs nothing.

    Args:
        allow: names of options whose values may be shown although they sound secret.
    """
    system = os.uname()
    words = [text(word) for word in getattr(sys, "orig_argv", sys.argv)][:MAX_WORDS]
    return {
        "command": [word[:MAX_WORD] for word in redact_command(words, secret_values(os.environ), allow)],
        "python": sys.version.split()[0],
        "implementation": sys.implementation.name,
        "executable": text(sys.executable or ""),
        "host": hostname(),
        "os": f"{system.sysname} {system.release}",
        "machine": system.machine,
        "cwd": text(folder()),
        "ranks": ranks(),
    }


def folder() -> str:
    """Return the working directory; empty where it was removed."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""
