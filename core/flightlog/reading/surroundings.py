"""A run's surroundings as they are read: its console, the machine's metrics, where the program comes from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..console.transcript import render
from ..journal.record import Record

Records = Iterable[tuple[str, Record]]


def console(records: Records, stream: str | None) -> list[str]:
    """Return the lines that the terminals showed, one process's after the other, in order of their first record."""
    writers: dict[str, list[dict[str, Any]]] = {}
    for writer, record in records:
        if record.kind == "console":
            writers.setdefault(writer, []).append(record.data)
    return [line for datas in writers.values() for line in render(datas, stream)]


def system(records: Records) -> list[dict[str, Any]]:
    """Return the samples as rows: `_timestamp`, `_host` (of the node that took it) and the values by name."""
    hosts: dict[str, Any] = {}
    rows = []
    for writer, record in records:
        if record.kind == "run":
            hosts.setdefault(writer, record.data.get("host"))
        elif record.kind == "system":
            rows.append({"_timestamp": record.t, "_host": hosts.get(writer), **record.data})
    return rows


def provenance(records: Records) -> dict[str, Any]:
    """Return what is known of the program: command, Python, host, git, packages …; the latest process's word counts."""
    found: dict[str, Any] = {}
    for _, record in records:
        if record.kind == "run" and not record.data.get("forked") and not record.data.get("rank"):
            found.update({name: record.data[name] for name in _OF_THE_RUN if name in record.data})
        elif record.kind == "provenance":
            files = [*found.get("files", []), *_listed(record.data.get("files"))]
            found.update(record.data)
            if files:
                found["files"] = files
    return found


def _listed(files: object) -> list[Any]:
    return files if isinstance(files, list) else []


_OF_THE_RUN = ("command", "python", "implementation", "executable", "host", "os", "machine", "cwd", "ranks")
