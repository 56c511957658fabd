"""Packs on their way to the server: made from chunks in memory, asked about, and sent by several threads at once.

So much of them is in memory as there are lanes, whatever the size of the files and the number of runs under way.
"""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

from ..client import Client, Patience
from ..errors import ServerError
from .pool import Pool, Promise

PACK_BYTES = 8 << 20
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Load:
    """Chunks, by their SHA-256, for a project's address; and who is told of bytes that have been dealt with."""

    project_path: str
    chunks: dict[str, bytes]
    advance: Advance


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

    def send(
        self, project_path: str, chunks: dict[str, bytes], advance: Advance, check: Callable[[], None]
    ) -> Promise[int]:
        """Have those of the chunks sent that the project lacks; wait for a lane that is free.

        Args:
            project_path: the project's address. chunks: by their SHA-256.
            advance: told by the lane of bytes of chunks that have left, or need not be sent; what has to be sent again
                is taken back by a negative number.
            check: called when there is a free lane. What it raises, because of packs before, leaves this one unsent.

        Returns:
            What will say how many bytes were sent.
        """
        self._free.acquire()
        try:
            check()
        except BaseException:
            self._free.release()
            raise
        return self._pool.submit(_Load(project_path, chunks, advance), lambda _: self._free.release())

    def _send(self, load: _Load, client: Client) -> int:
        asked = {"chunks": list(load.chunks)}
        whole = sum(map(len, load.chunks.values()))
        told = 0

        def tell(size: int) -> None:
            nonlocal told
            told += size
            load.advance(size)

        def attempt() -> int:
            # Asked before each attempt: of a pack that broke off the server keeps what had arrived.
            answer = client.json("POST", f"{load.project_path}/chunks/missing", json=asked)
            with client.understood():
                missing = [sha256 for sha256 in answer["missing"] if sha256 in load.chunks]
            there = whole - sum(len(load.chunks[sha256]) for sha256 in missing)
            tell(there - told)  # what has left and not arrived is taken back
            if not missing:
                return 0
            parts = _pack(load.chunks, missing)
            taken = client.json("POST", f"{load.project_path}/packs", data=_Body(parts, tell))
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


def _told(parts: list[bytes], advance: Advance) -> Iterator[bytes]:
    """Yield parts. It knows nothing of who reads them: a circle would keep packs until the collector comes by."""
    for at, part in enumerate(parts):
        yield part
        if at % 3 == 1:  # see `_pack`: a chunk stands between its header and its padding
            advance(len(part))


class _Body:
    """The parts as one body, which requests reads bit by bit; `advance` is told of each chunk that has left."""

    def __init__(self, parts: list[bytes], advance: Advance) -> None:
        self._parts = _told(parts, advance)
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
