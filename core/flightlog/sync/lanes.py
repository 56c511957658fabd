"""Packs on their way to the server: made from chunks in memory, asked about, and sent by several threads at once.

So much of them is in memory as there are lanes, whatever the size of the files and the number of runs under way.
"""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from ..client import Client, Patience
from ..errors import ServerError
from .pool import Pool, Promise

PACK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class _Load:
    """Chunks, by their SHA-256, for a project's address."""

    project_path: str
    chunks: dict[str, bytes]


class Lanes:
    """The threads that send packs, for all runs of a sync.

    Args:
        count: how many packs are under way at once.
        make_client: makes a thread's client.
        patience: how long to try again what may work later.
    """

    def __init__(self, count: int, make_client: Callable[[], Client], patience: Patience) -> None:
        self._patience = patience
        self._pool: Pool[_Load, int] = Pool(count, make_client, self._send, patience)
        self._free = threading.Semaphore(count)

    def __enter__(self) -> Lanes:
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    def send(self, project_path: str, chunks: dict[str, bytes]) -> Promise[int]:
        """Have those of the chunks sent that the project lacks; wait for a lane that is free.

        Returns:
            What will say how many bytes were sent.
        """
        self._free.acquire()
        return self._pool.submit(_Load(project_path, chunks), lambda _: self._free.release())

    def _send(self, load: _Load, client: Client) -> int:
        asked = {"chunks": list(load.chunks)}

        def attempt() -> int:
            # Asked before each attempt: of a pack that broke off the server keeps what had arrived.
            answer = client.json("POST", f"{load.project_path}/chunks/missing", json=asked)
            with client.understood():
                missing = [sha256 for sha256 in answer["missing"] if sha256 in load.chunks]
            if not missing:
                return 0
            parts = _pack(load.chunks, missing)
            taken = client.json("POST", f"{load.project_path}/packs", data=_Body(parts))
            if taken.get("chunks") != len(missing):
                raise ServerError(f"{client.origin} did not take all chunks of a pack")
            return sum(map(len, parts))

        return self._patience.call(attempt)


def _pack(chunks: dict[str, bytes], names: list[str]) -> list[bytes]:
    """Return a tar of chunks, each named by its SHA-256, as the parts that it is made of: nothing is copied."""
    parts: list[bytes] = []
    for name in names:
        member = tarfile.TarInfo(name)
        member.size = len(chunks[name])
        parts += [member.tobuf(tarfile.USTAR_FORMAT), chunks[name], bytes(-member.size % tarfile.BLOCKSIZE)]
    parts.append(bytes(2 * tarfile.BLOCKSIZE))
    return parts


class _Body:
    """The parts as one body, which requests reads bit by bit."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = iter(parts)
        self._part = io.BytesIO()
        self._left = sum(map(len, parts))

    def __len__(self) -> int:
        return self._left

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        found: list[bytes] = []
        while wanted > 0:
            block = self._part.read(wanted)
            if not block:
                self._part = io.BytesIO(next(self._parts))
                continue
            found.append(block)
            wanted -= len(block)
            self._left -= len(block)
        return found[0] if len(found) == 1 else b"".join(found)
