"""Changing one setting of a flightlog.toml, and nothing else of it: comments, order and other keys stay.

The change is a line's; whether it has come to what it should is seen by reading the whole again. A file in which it
cannot be made so is refused.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .errors import SettingsError
from .rundir import atomic_write
from .settings import parse_toml

NAME = "flightlog.toml"
_TABLE = re.compile(r"^\s*\[", re.MULTILINE)


def change(folder: Path, name: str, value: str) -> Path:
    """Set a plain key of a folder's flightlog.toml, which is made if it is not there.

    Returns:
        The file.

    Raises:
        SettingsError: the file cannot be understood, edited or written; it stands as it was.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder} is no folder")
    path = (folder / NAME).resolve()
    try:
        content = path.read_bytes() if path.exists() else b""
        before = parse_toml(content)
        changed = _with_line(content.decode(), name, f"{name} = {json.dumps(value)}").encode()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from None
    if not _says(changed, {**before, name: value}):
        raise SettingsError(
            f"{path} is written in a way that is not edited safely; set {name} = {json.dumps(value)} there"
        )
    try:
        atomic_write(path, changed, mode=path.stat().st_mode & 0o777 if path.exists() else 0o644)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def _says(content: bytes, wanted: dict[str, Any]) -> bool:
    try:
        return parse_toml(content) == wanted
    except ValueError:
        return False


def _with_line(text: str, name: str, line: str) -> str:
    """Return a file's text with a line in the place of a key's, or behind the comments that the file begins with."""
    table = _TABLE.search(text)
    head, rest = (text[: table.start()], text[table.start() :]) if table else (text, "")
    there = re.search(rf"^[ \t]*[\"']?{name}[\"']?[ \t]*=[^\r\n#]*", head, re.MULTILINE)
    if there:
        trailing = there[0][len(there[0].rstrip()) :]
        return head[: there.start()] + line + trailing + head[there.end() :] + rest
    comments = re.match(r"(?:[ \t]*#[^\n]*\n)*", text)
    at = comments.end() if comments else 0
    return text[:at] + line + ("\r\n" if "\r\n" in text else "\n") + text[at:]
