"""What people write behind options: durations, rates, names; and the options that several verbs share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..sync.session import DEFAULT_TIMEOUT

F = TypeVar("F", bound=Callable[..., Any])
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PREFIXES = {"": 0, "k": 1, "m": 2, "g": 3}
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMgG]?)(i?)(bits?|b|B|)(/s|ps|)")
_LONGEST = 1e10


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return a duration such as 90s, 30m, 12h, 7d or 2w as seconds: an option's callback."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smhdw])", value.strip().lower())
    if found is None and value.strip() != "0":
        raise click.BadParameter(f"{value!r} is no duration; 90s, 30m, 12h, 7d and 2w are some")
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if seconds > _LONGEST:
        raise click.BadParameter(f"{value!r} is longer than three hundred years")
    return seconds


def rate(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return a rate such as 500k, 10M, 1.5G (bytes a second) or 10Mbit as bytes a second: an option's callback."""
    if value is None:
        return None
    found = _RATE.fullmatch(value.strip())
    if found is None or (found[3] and not found[2]):
        raise click.BadParameter(f"{value!r} is no rate; 500k, 10M (bytes a second) and 10Mbit are some")
    amount, prefix, binary, unit, _ = found.groups()
    bytes_a_second = float(amount) * float(1024 if binary else 1000) ** _PREFIXES[prefix.lower()]
    if unit in ("bit", "bits", "b"):
        bytes_a_second /= 8
    if not 100 <= bytes_a_second <= 1e15:
        raise click.BadParameter(f"{value!r} is no limit that makes sense; at least 100 bytes a second")
    return bytes_a_second


def paths_argument(command: F) -> F:
    """Add the argument PATHS."""
    return click.argument("paths", nargs=-1, type=click.Path(path_type=Path))(command)


def server_option(command: F) -> F:
    """Add --server."""
    text = "The server; without it FLIGHTLOG_BASE_URL, or the one signed in to last."
    return click.option("--server", metavar="URL", help=text)(command)


def timeout_option(command: F) -> F:
    """Add --timeout."""
    text = f"How long to try while the server cannot be reached ({DEFAULT_TIMEOUT:.0f}; FLIGHTLOG_SYNC_TIMEOUT)."
    return click.option("--timeout", type=float, callback=_wait, metavar="SECONDS", help=text)(command)


def _wait(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not _can_be_waited(value):
        raise click.BadParameter(f"{value} is no number of seconds that can be waited for")
    return value


def _can_be_waited(seconds: float) -> bool:
    return 0 <= seconds < _LONGEST


def json_option(command: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")(command)


def timeout_of(given: float | None) -> float:
    """Return how long to try: what was given, else FLIGHTLOG_SYNC_TIMEOUT, else the default, in seconds."""
    if given is not None:
        return given
    text = os.environ.get("FLIGHTLOG_SYNC_TIMEOUT") or str(DEFAULT_TIMEOUT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not _can_be_waited(seconds):
        raise click.UsageError(f"FLIGHTLOG_SYNC_TIMEOUT must be a number of seconds, not {text!r}")
    return seconds
