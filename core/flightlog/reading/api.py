"""flightlog.Api: runs as data, from a folder or from a server, by the same names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from .. import settings
from ..errors import UsageError
from .views import ArtifactView, RunView


class _Source(Protocol):
    def runs(self, project: str | None) -> list[RunView]: ...

    def run(self, run_id: str, project: str | None) -> RunView: ...

    def artifact(self, project: str, name: str, which: str) -> ArtifactView: ...


class Api:
    """Reads runs and artifacts.

    Args:
        source: a server's address ("http://…", "https://…"), or a folder that is a run directory or has some below it.
            Without it, the folder that runs are recorded into here.
        workspace: on a server, only this workspace.
        api_key: on a server, the key; without it FLIGHTLOG_API_KEY or the stored login.

    Raises:
        NotFound: the folder is not there.
        KeyNeeded: the server needs a key and none is known.
    """

    def __init__(
        self, source: str | os.PathLike[str] | None = None, *, workspace: str | None = None, api_key: str | None = None
    ) -> None:
        place = settings.load().dir if source is None else os.fspath(source)
        self._source: _Source
        if place.startswith(("http://", "https://")):
            from .remote import RemoteSource

            self._source = RemoteSource(place, workspace, api_key)
        else:
            from .local import LocalSource

            self._source = LocalSource(Path(place))

    def runs(self, project: str | None = None) -> list[RunView]:
        """Return the runs, the newest start first; only those of a project where one is named."""
        return self._source.runs(project)

    def run(self, id: str, project: str | None = None) -> RunView:
        """Return the run with this id, which may also be "project/id".

        Raises:
            NotFound: there is none, or the key may not see it.
        """
        if project is None and "/" in id:
            project, _, id = id.rpartition("/")
        return self._source.run(id, project)

    def artifact(self, name: str) -> ArtifactView:
        """Return an artifact version named as "project/name:alias" or "project/name:v3"; without ":…" the latest.

        Raises:
            UsageError: it is not named so. NotFound: there is none, or the key may not see it.
        """
        project, slash, rest = name.partition("/")
        artifact, _, which = rest.partition(":")
        if not slash or not project or not artifact or "/" in rest:
            raise UsageError(f'artifact({name!r}): it is named as "project/name:alias"')
        return self._source.artifact(project, artifact, which or "latest")
