"""Reading from a server."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import requests

from .. import keys, settings
from ..client import CONNECT_TIMEOUT, READ_TIMEOUT, Client, Patience, path_of
from ..errors import NotFound, PermanentError, RetryableError
from ..journal.order import merge, parents_of
from ..journal.record import Line, Record, check, restore
from ..journal.scan import parsed
from ..protocol.manifest import is_safe_path, parse_files, parse_references
from .views import ArtifactView, Row, RunView

PAGE = 10_000
RUNS = 1000
PATIENCE = 10.0
T = TypeVar("T")
_NONFINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class RemoteSource:
    """The runs that an account may see on a server."""

    def __init__(
        self,
        url: str,
        workspace: str | None,
        key: str | None = None,
        *,
        timeout: tuple[float, float] = (CONNECT_TIMEOUT, READ_TIMEOUT),
        patience: float = PATIENCE,
    ) -> None:
        server = keys.choose_server(settings.load(), url)
        self._origin, self._key = server.origin, key or keys.find_key(server)
        self._workspace = workspace
        self._how = timeout, patience
        self._of_thread = threading.local()

    def _connection(self) -> tuple[Client, Patience]:
        """Return the connection of this thread, and of this process: a forked child makes its own."""
        found: tuple[int, Client, Patience] | None = getattr(self._of_thread, "connection", None)
        if found is None or found[0] != os.getpid():
            timeout, patience = self._how
            found = os.getpid(), Client(self._origin, self._key, timeout=timeout), Patience(patience)
            self._of_thread.connection = found
        return found[1:]

    @property
    def _client(self) -> Client:
        return self._connection()[0]

    @property
    def _patience(self) -> Patience:
        return self._connection()[1]

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return self._found(lambda: self._client.json("GET", path, params=params), path)

    def _found(self, attempt: Callable[[], T], what: str) -> T:
        try:
            return self._patience.call(attempt)
        except PermanentError as error:
            if error.status == 404:
                raise NotFound(str(error)) from None
            raise

    def _projects(self, project: str | None) -> list[tuple[str, str]]:
        answer = self._get("projects")
        with self._client.understood():
            found = [(str(p["workspace"]), str(p["name"])) for p in answer["projects"]]
        return [(w, p) for w, p in found if project in (None, p) and (self._workspace is None or w == self._workspace)]

    def runs(self, project: str | None) -> list[RunView]:
        found: list[RunView] = []
        for workspace, name in self._projects(project):
            offset = 0
            while True:
                page = self._get(f"projects/{path_of(workspace, name)}/runs", limit=RUNS, offset=offset)
                with self._client.understood():
                    found.extend(self._view(shown) for shown in page["runs"])
                    offset += len(page["runs"])
                    if len(page["runs"]) < RUNS:
                        break
        return sorted(found, key=lambda r: (r.started_at or 0.0, r.id), reverse=True)

    def run(self, run_id: str, project: str | None) -> RunView:
        for workspace, name in self._projects(project):
            with contextlib.suppress(NotFound):
                shown = self._get(f"runs/{path_of(workspace, name, run_id)}")
                with self._client.understood():
                    return self._view(shown)
        raise NotFound(f"{self._client.origin} has no run {run_id} that you may see")

    def artifact(self, project: str, name: str, which: str) -> ArtifactView:
        for workspace, _ in self._projects(project):
            path = f"artifacts/{path_of(workspace, project, name, which)}"
            with contextlib.suppress(NotFound):
                shown = self._get(path)
                with self._client.understood():
                    return self._artifact_view(workspace, project, shown)
        raise NotFound(f"{self._client.origin} has no artifact {project}/{name}:{which} that you may see")

    def _artifact_view(self, workspace: str, project: str, shown: dict[str, Any]) -> ArtifactView:
        home = f"artifacts/{path_of(workspace, project, shown['name'], shown['version'])}"
        files = parse_files(shown["files"])
        description = shown.get("description")
        return ArtifactView(
            name=shown["name"],
            version=shown["version"],
            type=shown["type"],
            aliases=tuple(shown["aliases"]),
            metadata=shown["metadata"],
            digest=shown["digest"],
            size=shown["size"],
            run=shown["run"],
            project=project,
            files=files,
            _open=lambda path: self._open(f"{home}/files/", path),
            description=description if isinstance(description, str) else None,
            references=parse_references(shown.get("references", []), files),
            _open_several=lambda first, count: self._stream(f"{home}/contents", first=first, count=count),
        )

    def _view(self, shown: dict[str, Any]) -> RunView:
        home = f"runs/{path_of(shown['workspace'], shown['project'], shown['id'])}"
        return RunView(
            id=shown["id"],
            project=shown["project"],
            workspace=shown["workspace"],
            name=shown["name"],
            state=shown["state"],
            group=shown["group"],
            job_type=shown["job_type"],
            tags=tuple(shown["tags"]),
            notes=shown["notes"],
            host=shown["host"],
            command=tuple(shown["command"] or ()),
            config=_restored(shown, "config"),
            summary=_restored(shown, "summary"),
            step=shown["step"],
            records=shown["records"],
            started_at=shown["started_at"],
            updated_at=shown["updated_at"] or None,
            finished_at=shown["finished_at"],
            definitions=tuple(shown["definitions"]),
            _history=lambda metrics: self._history(home, metrics),
            _records=lambda kinds: self._records(home, kinds),
            _alerts=lambda: list(self._get(f"{home}/alerts").get("alerts") or []),
            _media=lambda: list(self._get(f"{home}/media").get("media") or []),
            _open=lambda path: self._open(f"{home}/files/", path),
        )

    def _history(self, home: str, metrics: Sequence[str] | None) -> Iterator[Row]:
        after: int | None = None
        while metrics is None or metrics:  # an empty list would be left out of the address, which then asks for all
            params: dict[str, Any] = {"limit": PAGE}
            if metrics is not None:
                params["metric"] = list(metrics)
            if after is not None:
                params["after"] = after
            page = self._get(f"{home}/history", **params)
            with self._client.understood():
                rows, after = _rows(page), page["next"]
            yield from rows
            if after is None:
                return

    def _records(self, home: str, kinds: Sequence[str]) -> list[tuple[str, Record]]:
        """Return a run's records of some kinds, in the order of their journals."""
        response = self._found(
            lambda: self._client.request("GET", f"{home}/records", params={"kind": list(kinds)}, stream=True), home
        )
        lines: dict[str, list[Line]] = {}
        parents: dict[str, dict[str, int]] = {}
        with response, self._client.understood():
            for raw in response.iter_lines(1 << 20):
                writer, line = raw.split(b" ", 1)
                found = check(line + b"\n")
                if found is not None:
                    lines.setdefault(writer.decode(), []).append(found)
            for name, mine in lines.items():
                first = parsed(mine[0]) if mine[0].kind == "run" else None
                if first is not None:
                    parents[name] = parents_of(first.data)
            return [(name, record) for name, line in merge(lines, parents) if (record := parsed(line)) is not None]

    @contextlib.contextmanager
    def _open(self, home: str, path: str) -> Iterator[Iterator[bytes]]:
        if not is_safe_path(path):
            raise NotFound(f"there is no file {path!r}")
        with self._stream(home + path_of(*path.split("/"))) as parts:
            yield parts

    @contextlib.contextmanager
    def _stream(self, address: str, **params: int) -> Iterator[Iterator[bytes]]:
        response = self._found(
            lambda: self._client.request("GET", address, params=params or None, stream=True), address
        )
        with response:
            yield self._parts(response)

    def _parts(self, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_content(1 << 20)
        except requests.RequestException as error:
            raise RetryableError(f"{self._client.origin} broke off its answer ({type(error).__name__})") from None


def _restored(shown: dict[str, Any], part: str) -> dict[str, Any]:
    """Return a run's config or summary with the numbers that JSON lacks put back."""
    values: dict[str, Any] = shown[part]
    for path in (shown.get("nonfinite") or {}).get(part, []):
        restore(values, path)
    return values


def _rows(page: dict[str, Any]) -> list[Row]:
    rows: list[Row] = [
        {"_step": step, "_timestamp": at} for step, at in zip(page["steps"], page["timestamps"], strict=True)
    ]
    for name, column in page["metrics"].items():
        values = column["values"]
        for index, spelling in column["nonfinite"].items():
            if index.isdecimal():
                values[int(index)] = _NONFINITE[spelling]
            else:
                restore(values, index)
        for row, value in zip(column["rows"], values, strict=True):
            rows[row][name] = value
    return rows
