"""Settings, with one precedence: arguments > FLIGHTLOG_* > project file > user file > WANDB_* > defaults.

The project file is `flightlog.toml` in the working directory or the nearest folder above it; the user file is
`~/.config/flightlog/settings.toml`. Both hold the names below as plain keys, `project = "digits"`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .errors import SettingsError, UsageError
from .journal.values import as_step, text
from .terminal import warn_once

MODES = ("offline", "online", "disabled")
DURABILITY = ("record", "buffered")
CONSOLE = ("wrap", "fd", "off")
_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
RESUME = ("allow", "must", "never", "auto")
DEFAULT_SERVER = "http://127.0.0.1:8080"

# What a name is called in the environment, here and at Weights & Biases (of the lowest priority, announced once).
_VARIABLES = {
    "mode": ("FLIGHTLOG_MODE", "WANDB_MODE"),
    "dir": ("FLIGHTLOG_DIR", "WANDB_DIR"),
    "project": ("FLIGHTLOG_PROJECT", "WANDB_PROJECT"),
    "workspace": ("FLIGHTLOG_WORKSPACE", "WANDB_ENTITY"),
    "name": ("FLIGHTLOG_NAME", "WANDB_NAME"),
    "run_id": ("FLIGHTLOG_RUN_ID", "WANDB_RUN_ID"),
    "resume": ("FLIGHTLOG_RESUME", "WANDB_RESUME"),
    "group": ("FLIGHTLOG_GROUP", "WANDB_RUN_GROUP"),
    "job_type": ("FLIGHTLOG_JOB_TYPE", "WANDB_JOB_TYPE"),
    "tags": ("FLIGHTLOG_TAGS", "WANDB_TAGS"),
    "notes": ("FLIGHTLOG_NOTES", "WANDB_NOTES"),
    "resume_from": ("FLIGHTLOG_RESUME_FROM", None),
    "durability": ("FLIGHTLOG_DURABILITY", None),
    "spool_to": ("FLIGHTLOG_SPOOL_TO", None),
    "ranks": ("FLIGHTLOG_RANKS", None),
    "console": ("FLIGHTLOG_CONSOLE", None),
    "system_interval": ("FLIGHTLOG_SYSTEM_INTERVAL", None),
    "provenance": ("FLIGHTLOG_PROVENANCE", None),
    "save_code": ("FLIGHTLOG_SAVE_CODE", None),
    "allow_secrets": ("FLIGHTLOG_ALLOW_SECRETS", None),
    "base_url": ("FLIGHTLOG_BASE_URL", None),
    "finish_timeout": ("FLIGHTLOG_FINISH_TIMEOUT", None),
    "follow_timeout": ("FLIGHTLOG_FOLLOW_TIMEOUT", None),
}


class Settings(NamedTuple):
    """The settings of a run or a command; `sources` says where each is from: a key must know who named its server."""

    mode: str = "offline"
    dir: str = "flightlog"
    project: str = "uncategorized"
    workspace: str | None = None
    name: str | None = None
    run_id: str | None = None
    resume: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    resume_from: int | None = None
    durability: str = "record"
    spool_to: str | None = None
    ranks: bool = True
    console: str = "wrap"
    system_interval: float = 5.0
    provenance: bool = True
    save_code: bool | str = True
    allow_secrets: tuple[str, ...] = ()
    base_url: str | None = None
    finish_timeout: float = 60.0
    follow_timeout: float = 86_400.0
    sources: Mapping[str, str] = None  # type: ignore[assignment]


def config_home() -> Path:
    """Return the folder of the user's settings and keys."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "flightlog"


def credentials_file() -> Path:
    """Return the file of the user's keys."""
    return config_home() / "credentials.json"


def project_file(start: Path | None = None) -> Path | None:
    """Return the nearest flightlog.toml at or above the working directory, if any."""
    folder = (start or Path.cwd()).absolute()
    for candidate in (folder, *folder.parents):
        path = candidate / "flightlog.toml"
        if path.is_file():
            return path
    return None


def load(*, folder: Path | None = None, **arguments: Any) -> Settings:
    """Return the settings in force.

    Args:
        folder: where the project file is looked for, and above; the working directory without it.
        arguments: those that are None do not count.

    Raises:
        SettingsError: a file or variable cannot be understood; the text names it.
    """
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    layers: list[tuple[str, Mapping[str, Any]]] = [("argument", arguments), ("environment", _environment(0))]
    for path in (_found(lambda: project_file(folder)), _found(_user_file)):
        if path is not None:
            layers.append((str(path), read_toml(path)))
    layers.append(("WANDB_*", _environment(1)))
    for source, layer in layers:
        for name, value in layer.items():
            if name in _VARIABLES and value is not None and name not in found:
                try:
                    found[name] = _checked(name, value, source)
                except SettingsError:
                    if source == "WANDB_*":  # a value that means something there only
                        continue
                    raise
                sources[name] = source
    borrowed = sorted(str(_VARIABLES[n][1]) for n, s in sources.items() if s == "WANDB_*")
    if borrowed:
        warn_once("wandb variables", f"taking {', '.join(borrowed)} for want of FLIGHTLOG_* of the same meaning.")
    return Settings(**found, sources=sources)


def _user_file() -> Path | None:
    path = config_home() / "settings.toml"
    return path if path.is_file() else None


def _found(search: Callable[[], Path | None]) -> Path | None:
    """Return what a search finds; nothing where the working directory is gone, or the home unknown or closed to us."""
    try:
        return search()
    except (OSError, RuntimeError):
        return None


def _environment(column: int) -> dict[str, str]:
    return {
        name: os.environ[variable]
        for name, variables in _VARIABLES.items()
        if (variable := variables[column]) and os.environ.get(variable)
    }


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a settings file says. Raises SettingsError, naming it, where it cannot be read or understood."""
    try:
        return parse_toml(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from None


def parse_toml(content: bytes) -> dict[str, Any]:
    """Return what a settings file's content says. Raises ValueError."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    found: dict[str, Any] = tomllib.loads(content.decode())
    return found


def _checked(name: str, value: Any, source: str) -> Any:
    where = {"argument": f"{name}=", "environment": _VARIABLES[name][0]}.get(source, f"{name} in {source}")
    if name in _READERS:
        return _READERS[name](value, where)
    if name in ("tags", "allow_secrets"):
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple | set | frozenset):
            raise SettingsError(f"{where}: a list of texts is needed, not {value!r}")
        return tuple(dict.fromkeys(text(t).strip() for t in items if str(t).strip()))
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if name == "resume" and isinstance(value, bool):
        value = "auto" if value else "never"
    if not isinstance(value, str):
        raise SettingsError(f"{where}: a text is needed, not {value!r}")
    if name == "mode":
        value = {"dryrun": "offline", "run": "online"}.get(value, value)
        if value not in MODES:
            raise SettingsError(f"{where}: {value!r} is none of {', '.join(MODES)}")
    if name == "resume" and value not in RESUME:
        raise SettingsError(f"{where}: {value!r} is none of {', '.join(RESUME)}")
    for choice, words in (("durability", DURABILITY), ("console", CONSOLE)):
        if name == choice and value not in words:
            raise SettingsError(f"{where}: {value!r} is none of {', '.join(words)}")
    return value if name in ("dir", "spool_to") else text(value)


def _step(value: Any, where: str) -> int:
    try:
        step = as_step(int(value) if isinstance(value, str) else value)
    except (ValueError, UsageError):
        raise SettingsError(f"{where}: {value!r} is no step") from None
    if step < -1:
        raise SettingsError(f"{where}: {value!r} is before the first step; -1 hides all that was logged")
    return step


def _interval(value: Any, where: str) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise SettingsError(f"{where}: {value!r} is no number of seconds") from None
    if seconds != 0 and not 0.1 <= seconds < 1e6:
        raise SettingsError(f"{where}: {value!r} is neither 0 (none) nor 0.1 to 1,000,000 seconds")
    return seconds


def _patience(value: Any, where: str) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise SettingsError(f"{where}: {value!r} is no number of seconds") from None
    if not 0 <= seconds < 1e9:
        raise SettingsError(f"{where}: {value!r} is no time to wait, in seconds")
    return seconds


def _switch(value: Any, where: str) -> bool:
    found = value if isinstance(value, bool) else _WORDS.get(str(value).lower())
    if found is None:
        raise SettingsError(f"{where}: {value!r} is neither true nor false")
    return found


def _switch_or_folder(value: Any, where: str) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str | os.PathLike):
        raise SettingsError(f"{where}: {value!r} is neither true, false nor a folder")
    return _WORDS.get(os.fspath(value).lower(), os.fspath(value))


# Settings that are no texts, and what reads them.
_READERS: dict[str, Callable[[Any, str], Any]] = {
    "resume_from": _step,
    "system_interval": _interval,
    "finish_timeout": _patience,
    "follow_timeout": _patience,
    "provenance": _switch,
    "ranks": _switch,
    "save_code": _switch_or_folder,
}
