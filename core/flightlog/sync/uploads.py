"""Delivering files: each is read once, cut into chunks, and what the server lacks of them goes there in packs.

While one pack is under way the next is cut. That a file is what was recorded is only known at its end: until then its
chunks are on the server without belonging to anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..beneath import open_beneath
from ..client import Client
from ..contents import ArtifactRecord
from ..errors import DamagedError, PermanentError, RetryableError
from ..protocol.manifest import FileEntry
from ..protocol.messages import MAX_ASKED, MAX_VERSIONS, ChunkedFile
from ..rundir import RunDir
from .chunker import chunks_of
from .lanes import PACK_BYTES, Lanes
from .pool import Promise
from .records import Call

_READ = 1 << 20
# A commit of large files is answered when the server has read them once more.
_COMMIT_SECONDS = 24 * 3600.0
_COMMIT_FILES = 1000
_COMMIT_CHUNKS = 100_000
_SEEN = 200_000
_COMMIT_MANIFESTS = 1 << 20  # bytes of the manifests that a server reads for one request


def refused_versions(
    client: Client, call: Call, run_path: str, ready: Sequence[ArtifactRecord], entries: Mapping[str, FileEntry]
) -> Iterator[tuple[ArtifactRecord, str]]:
    """Commit artifact versions, many at a time; yield those that the server refuses, and why.

    Args:
        client: the server. call: makes a request with patience. run_path: the run's address below /api/v1.
        ready: the versions. entries: the run's files by path, their manifests among them.

    Raises:
        PermanentError, RetryableError: as the client says.
    """
    part: list[ArtifactRecord] = []
    size = 0
    for artifact in ready:
        own = entries[artifact.manifest].size
        if part and (size + own > _COMMIT_MANIFESTS or len(part) >= MAX_VERSIONS):
            yield from _refused(client, call, run_path, part)
            part, size = [], 0
        part.append(artifact)
        size += own
    if part:
        yield from _refused(client, call, run_path, part)


def _refused(
    client: Client, call: Call, run_path: str, part: Sequence[ArtifactRecord]
) -> Iterator[tuple[ArtifactRecord, str]]:
    body = {"artifacts": [artifact.to_json() for artifact in part]}
    try:
        answer = call(lambda: client.json("POST", f"{run_path}/manifests", json=body))
    except PermanentError as error:
        if error.status not in (404, 409, 413, 422):
            raise
        if len(part) == 1:
            yield part[0], str(error)
            return
        for artifact in part:  # there is one among them that cannot even be asked for
            yield from _refused(client, call, run_path, [artifact])
        return
    with client.understood():
        for artifact, said in zip(part, answer["artifacts"], strict=True):
            if "error" in said:
                yield artifact, f"{client.origin}: {said['detail']}"


@dataclass(slots=True)
class _Waiting:
    """What has been read and not been committed: chunks that wait for a pack, packs under way, and files."""

    chunks: dict[str, bytes] = field(default_factory=dict)
    size: int = 0
    packs: list[Promise[int]] = field(default_factory=list)
    files: list[ChunkedFile] = field(default_factory=list)
    parts: int = 0


class FileDelivery:
    """Delivers files of one run.

    Args:
        client: the server.
        lanes: where packs are sent.
        directory: the run directory, whose files are opened beneath `files/` only.
        run_path, project_path: the addresses of the run and its project below /api/v1.
        call: makes a request with patience.
        advance: told of bytes that have been dealt with, also by the threads that send packs.
        verify: read also those files that the server has already, as is needed before they are deleted here.
    """

    def __init__(
        self,
        client: Client,
        lanes: Lanes,
        directory: RunDir,
        run_path: str,
        project_path: str,
        call: Call,
        advance: Callable[[int], None],
        verify: bool,
    ) -> None:
        self._client = client
        self._lanes = lanes
        self._directory = directory
        self._run_path = run_path
        self._project_path = project_path
        self._call = call
        self._advance = advance
        self._verify = verify
        self._waiting = _Waiting()
        self._seen: dict[str, None] = {}  # chunks that are on their way, or there
        self.sent_bytes = 0
        self.faults: list[str] = []

    def run(
        self, entries: Iterable[FileEntry], is_there: Callable[[str, tuple[int, str]], bool]
    ) -> dict[str, tuple[int, str]]:
        """Send the files that the server lacks.

        Args:
            entries: the files as the records name them.
            is_there: tells of a path, size and SHA-256 whether the server has that.

        Returns:
            Size and SHA-256 of the files that are as they were recorded, by path: what the receipt must say.
            `faults` names the others.
        """
        good: dict[str, tuple[int, str]] = {}
        for entry in entries:
            known = is_there(entry.path, (entry.size, entry.sha256))
            try:
                if not known:
                    self._waiting.files.append(self._send(entry))
                elif self._verify:
                    self._check(entry)
                else:
                    self._advance(entry.size)
            except DamagedError as error:
                self.faults.append(str(error))
                continue
            good[entry.path] = (entry.size, entry.sha256)
            if len(self._waiting.files) >= _COMMIT_FILES or self._waiting.parts >= _COMMIT_CHUNKS:
                self._commit()
        self._commit()
        return good

    def _check(self, entry: FileEntry) -> None:
        """Read a file. Raises DamagedError where it is not what was recorded."""
        whole, size = hashlib.sha256(), 0
        where = self._directory.files / entry.path
        try:
            with open_beneath(self._directory.files, entry.path) as file:
                while block := file.read(_READ):
                    whole.update(block)
                    size += len(block)
                    self._advance(len(block))
        except OSError as error:
            raise DamagedError(f"{where}: {error.strerror or error}") from None
        self._compare(entry, size, whole.hexdigest())

    def _send(self, entry: FileEntry) -> ChunkedFile:
        """Read a file and send its chunks. Raises DamagedError where it is not what was recorded."""
        whole, size = hashlib.sha256(), 0
        parts: list[tuple[str, int]] = []
        where = self._directory.files / entry.path
        try:
            with open_beneath(self._directory.files, entry.path) as file:
                for chunk in chunks_of(file, entry.size):
                    whole.update(chunk)
                    size += len(chunk)
                    sha256 = hashlib.sha256(chunk).hexdigest()
                    parts.append((sha256, len(chunk)))
                    self._add(sha256, chunk)
        except OSError as error:
            raise DamagedError(f"{where}: {error.strerror or error}") from None
        self._compare(entry, size, whole.hexdigest())
        self._waiting.parts += len(parts)
        return ChunkedFile(entry, tuple(parts))

    def _compare(self, entry: FileEntry, size: int, sha256: str) -> None:
        if (size, sha256) != (entry.size, entry.sha256):
            where = self._directory.files / entry.path
            raise DamagedError(f"{where} has changed since it was recorded; it is not delivered")

    def _add(self, sha256: str, chunk: bytes) -> None:
        if sha256 in self._seen:
            self._advance(len(chunk))
            return
        if len(self._seen) >= _SEEN:
            self._seen.clear()  # to be asked about again, no more
        self._seen[sha256] = None
        waiting = self._waiting
        if waiting.size + len(chunk) > PACK_BYTES or len(waiting.chunks) >= MAX_ASKED:
            self._dispatch()
        waiting.chunks[sha256] = chunk
        waiting.size += len(chunk)

    def _dispatch(self) -> None:
        """Send off what waits for a pack, unless one before it has failed: nothing says that this one would arrive."""
        waiting = self._waiting
        if waiting.chunks:
            chunks, waiting.chunks, waiting.size = waiting.chunks, {}, 0
            pack = self._lanes.send(self._project_path, chunks, self._advance, self._take_note)
            waiting.packs.append(pack)

    def _take_note(self) -> None:
        """Count the packs that have arrived. Raises what one of them raised."""
        packs, self._waiting.packs = self._waiting.packs, []
        for pack in packs:
            if pack.done:
                self.sent_bytes += pack.result()
            else:
                self._waiting.packs.append(pack)

    def _commit(self) -> None:
        """Let the files that have been read be files of the run, once all their chunks are there."""
        self._dispatch()
        waiting, self._waiting = self._waiting, _Waiting()
        for pack in waiting.packs:
            self.sent_bytes += pack.result()
        if not waiting.files:
            return
        body = {"files": [file.to_json() for file in waiting.files]}
        path = f"{self._run_path}/files"
        try:
            self._call(lambda: self._client.json("POST", path, json=body, seconds=_COMMIT_SECONDS))
        except PermanentError as error:
            if error.body.get("error") != "missing_chunks":
                raise
            raise RetryableError(f"{error}; they were taken away meanwhile") from None
