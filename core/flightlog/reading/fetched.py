"""Versions that a server has: what `use_artifact` falls back to when nothing on this disk answers to a name.

It is the one place where a training process may open a connection, and it does so only when the script asks for such a
version. It never asks for a key, and a server that cannot be reached costs seconds. What is fetched lies beside the
runs, by its content, under `.fetched/`: it may be deleted at any time.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .. import keys, settings
from ..artifacts import ArtifactVersion
from ..errors import DamagedError, FlightlogError, NotFound
from ..protocol.manifest import Manifest
from ..rundir import atomic_write

if TYPE_CHECKING:
    from .views import ArtifactView

FOLDER = ".fetched"
CONNECT_SECONDS, READ_SECONDS, PATIENCE = 5.0, 30.0, 5.0


class RemoteVersion(ArtifactVersion):
    """A version on a server: `file()`, `files`, `verify()` and `download()` fetch what they need, once.

    They raise ServerError where the server cannot be reached or refuses.
    """

    def __init__(self, view: ArtifactView, place: Path) -> None:
        super().__init__(
            view.name,
            view.version,
            place,
            type=view.type,
            project=view.project,
            made_by=view.run,
            size=view.size,
            aliases=tuple(sorted(view.aliases, key=lambda alias: (alias != "latest", alias))),
            metadata=view.metadata,
            description=view.description,
            digest=view.digest,
        )
        self._view = view

    @property
    def files(self) -> Path:
        """The folder that holds its files; all of them are fetched. `file(name)` fetches one."""
        if not self._is_here:
            self._view.download(self._place)
        return self._place

    @property
    def _place(self) -> Path:
        return self.path / "files"

    @property
    def _is_here(self) -> bool:
        self._place.mkdir(parents=True, exist_ok=True)
        return all(_has(self._place / entry.path, entry.size) for entry in self._view.files)

    def file(self, name: str | None = None) -> Path:
        """Return the path of one of its files, fetched if it is not here; see `ArtifactVersion.file`."""
        entry = self._entry(name)
        path = self._place / entry.path
        if not _has(path, entry.size):
            self._view.download_file(entry.path, self._place)
        return path

    def download(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        **others: object,
    ) -> Path:
        """Put a copy of its files below a folder; straight from the server where they have not been fetched yet."""
        if self._is_here:
            return super().download(folder, root=root)
        place = self._target(folder if root is None else root)
        self._view.download(place)
        self._fetch_references(self.manifest, place)
        return place


def _has(path: Path, size: int) -> bool:
    try:
        return path.lstat().st_size == size
    except OSError:
        return False


def find(root: Path, project: str, name: str, which: str, workspace: str | None = None) -> RemoteVersion:
    """Return a version from the server that this user is signed in to.

    Args:
        root: the folder of the runs, below which files are kept. project, name: what it is a version of.
        which: an alias, or v0, v1 …. workspace: only there.

    Raises:
        NotFound: it is not there, or the server could not be asked; the text says which server and why.
    """
    server, key = _signed_in()
    from .remote import RemoteSource

    source = RemoteSource(server.origin, workspace, key, timeout=(CONNECT_SECONDS, READ_SECONDS), patience=PATIENCE)
    try:
        view = source.artifact(project, name, which)
    except FlightlogError as error:  # it is not there, or the server cannot be reached, or does not know the key
        raise NotFound(str(error)) from None
    return RemoteVersion(view, _cache(root, view))


def _signed_in() -> tuple[keys.Server, str]:
    """Return the server and its key. Raises NotFound where none is set up, or the key must not go there."""
    try:
        chosen = settings.load()
        if not chosen.base_url and keys.default_server() is None and not os.environ.get("FLIGHTLOG_API_KEY"):
            raise NotFound("no server is set up here that could be asked (flightlog login URL)")
        server = keys.choose_server(chosen)
        return server, keys.key_at_hand(server)
    except NotFound:
        raise
    except FlightlogError as error:
        raise NotFound(f"no server was asked: {error}") from None


def _cache(root: Path, view: ArtifactView) -> Path:
    """Return the folder that holds what is fetched of a version, with its manifest in it."""
    manifest = Manifest(view.name, view.type, view.files, view.metadata, view.references, view.description)
    if manifest.digest != view.digest:
        raise DamagedError(
            f"artifact {view.project}/{view.name}:{view.version}: the server names other files than their digest"
        )
    home = root if root.is_dir() else Path(tempfile.mkdtemp(prefix="flightlog-artifacts-"))
    place = home / FOLDER / view.digest[:32]
    place.mkdir(parents=True, exist_ok=True)
    atomic_write(place / "manifest.json", manifest.to_json())
    return place
