"""The list that a bundle begins with: which runs follow, in which folders, and how large they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from ...errors import DamagedError
from ...protocol.names import name_fault
from ..local import Identity

INDEX = "flightlog-bundle.json"
FORMAT = 1
MAX_INDEX = 64 << 20


def entry(identity: Identity, folder: str, files: int, size: int) -> dict[str, Any]:
    """Return what the list says of one run: who it is, its folder in the bundle, its files and their bytes."""
    return {
        "folder": folder,
        "id": identity.id,
        "project": identity.project,
        "workspace": identity.workspace,
        "name": identity.name,
        "files": files,
        "bytes": size,
    }


def dump(entries: Iterable[dict[str, Any]]) -> bytes:
    """Return the list as it stands in a bundle."""
    index = {"format": FORMAT, "kind": "flightlog-bundle", "runs": list(entries)}
    return orjson.dumps(index, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def read(path: Path, content: bytes) -> list[dict[str, Any]]:
    """Return the runs that a bundle's list names. Raises DamagedError."""
    try:
        index = orjson.loads(content)
        if not (
            isinstance(index, dict) and index.get("kind") == "flightlog-bundle" and isinstance(index["runs"], list)
        ):
            raise ValueError("it is no list of runs")
        if index.get("format") != FORMAT:
            raise DamagedError(f"{path} is a bundle of format {index.get('format')!r}; update flightlog")
        for run in index["runs"]:
            if any(name_fault(run[key]) is not None for key in ("folder", "id", "project")):
                raise ValueError("a run in it has a name that cannot be")
            if type(run["files"]) is not int or type(run["bytes"]) is not int:
                raise ValueError("a run in it has no size")
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path}: {INDEX} makes no sense: {error}") from None
    found: list[dict[str, Any]] = index["runs"]
    return found


def identity_of(run: dict[str, Any]) -> Identity:
    """Return who a run of the list is."""
    workspace = run.get("workspace")
    return Identity(
        id=run["id"],
        project=run["project"],
        workspace=workspace if name_fault(workspace) is None else None,
        name=str(run.get("name") or run["id"])[:200],
        state="finished",
        started_at=0.0,
    )
