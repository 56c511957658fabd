"""Delivering files: hash and cut them, ask which chunks are missing, send those in packs, commit the files."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from ..beneath import open_beneath
from ..client import Client
from ..errors import DamagedError
from ..protocol.manifest import FileEntry
from ..protocol.messages import MAX_ASKED, ChunkedFile
from ..rundir import RunDir
from .chunker import cut
from .records import Call

PACK_BYTES = 32 << 20
GROUP_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class _Piece:
    """A chunk that is to be sent: which bytes of which file."""

    sha256: str
    path: str
    offset: int
    size: int


class FileDelivery:
    """Delivers files of one run.

    Args:
        client: the server.
        directory: the run directory, whose files are opened beneath `files/` only.
        run_path, project_path: the addresses of the run and its project below /api/v1.
        call: makes a request with patience.
        advance: told the bytes of every file that has been dealt with.
        verify: read also those files that the server has already, as is needed before they are deleted here.
    """

    def __init__(
        self,
        client: Client,
        directory: RunDir,
        run_path: str,
        project_path: str,
        call: Call,
        advance: Callable[[int], None],
        verify: bool,
    ) -> None:
        self._verify = verify
        self._client = client
        self._directory = directory
        self._run_path = run_path
        self._project_path = project_path
        self._call = call
        self._advance = advance
        self.sent_bytes = 0
        self.faults: list[str] = []

    def run(self, entries: Iterable[FileEntry], there: dict[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
        """Send the files that the server lacks.

        Args:
            entries: the files as the records name them.
            there: size and SHA-256 of those the server has.

        Returns:
            Size and SHA-256 of the files that are as they were recorded, by path: what the receipt must say.
            `faults` names the others.
        """
        good: dict[str, tuple[int, str]] = {}
        group: list[ChunkedFile] = []
        for entry in entries:
            known = there.get(entry.path) == (entry.size, entry.sha256)
            if known and not self._verify:
                good[entry.path] = (entry.size, entry.sha256)
                self._advance(entry.size)
                continue
            try:
                file = self._read(entry)
            except DamagedError as error:
                self.faults.append(str(error))
                continue
            good[entry.path] = (entry.size, entry.sha256)
            if known:
                self._advance(entry.size)
                continue
            group.append(file)
            if (
                sum(f.entry.size for f in group) >= GROUP_BYTES
                or sum(len(f.chunks) + 1 for f in group) >= MAX_ASKED // 2
            ):
                self._deliver(group, good)
                group = []
        if group:
            self._deliver(group, good)
        return good

    def _read(self, entry: FileEntry) -> ChunkedFile:
        """Read a file whole. Raises DamagedError where it is not what was recorded."""
        where = self._directory.files / entry.path
        try:
            with open_beneath(self._directory.files, entry.path) as file:
                found = cut(file)
        except OSError as error:
            raise DamagedError(f"{where}: {error.strerror or error}") from None
        if (found.size, found.sha256) != (entry.size, entry.sha256):
            raise DamagedError(f"{where} has changed since it was recorded; it is not delivered")
        return ChunkedFile(entry, found.chunks)

    def _deliver(self, group: list[ChunkedFile], good: dict[str, tuple[int, str]]) -> None:
        pieces = {p.sha256: p for f in group for p in _pieces(f)}
        missing: set[str] = set()
        hashes = list(pieces)
        for start in range(0, len(hashes), MAX_ASKED):
            asked = {"chunks": hashes[start : start + MAX_ASKED]}
            path = f"{self._project_path}/chunks/missing"
            missing.update(self._call(lambda a=asked, p=path: self._client.json("POST", p, json=a))["missing"])  # type: ignore[misc]
        try:
            for pack in self._packs(p for h, p in pieces.items() if h in missing):
                self._send_pack(pack)
        except DamagedError as error:  # a file changed between the two readings: the next sync takes a fresh look
            self.faults.append(str(error))
            for file in group:
                good.pop(file.entry.path, None)
            return
        for start in range(0, len(group), MAX_ASKED):
            files = {"files": [f.to_json() for f in group[start : start + MAX_ASKED]]}
            self._call(lambda f=files: self._client.json("POST", f"{self._run_path}/files", json=f))  # type: ignore[misc]
        self._advance(sum(f.entry.size for f in group))

    def _packs(self, pieces: Iterable[_Piece]) -> Iterator[IO[bytes]]:
        """Yield packs of these chunks, each at its beginning; a pack is gone when the next is asked for."""
        waiting: list[_Piece] = []
        size = 0
        for piece in pieces:
            if waiting and size + piece.size > PACK_BYTES:
                with self._pack(waiting) as pack:
                    yield pack
                waiting, size = [], 0
            waiting.append(piece)
            size += piece.size
        if waiting:
            with self._pack(waiting) as pack:
                yield pack

    def _pack(self, pieces: list[_Piece]) -> IO[bytes]:
        pack = tempfile.SpooledTemporaryFile(max_size=PACK_BYTES * 2)  # noqa: SIM115  # the caller closes it
        with tarfile.open(fileobj=pack, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for piece in pieces:
                with open_beneath(self._directory.files, piece.path) as file:
                    file.seek(piece.offset)
                    content = file.read(piece.size)
                if hashlib.sha256(content).hexdigest() != piece.sha256:
                    raise DamagedError(f"{self._directory.files / piece.path} changed while it was being delivered")
                member = tarfile.TarInfo(piece.sha256)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        pack.seek(0)
        return pack

    def _send_pack(self, pack: IO[bytes]) -> None:
        size = pack.seek(0, 2)

        def attempt() -> dict[str, object]:
            pack.seek(0)
            return self._client.json("POST", f"{self._project_path}/packs", data=pack)

        self._call(attempt)
        self.sent_bytes += size


def _pieces(file: ChunkedFile) -> Iterator[_Piece]:
    offset = 0
    for sha256, size in file.chunks:
        yield _Piece(sha256, file.entry.path, offset, size)
        offset += size
