"""Chunks, which arrive in packs: a tar of them, verified one by one and stored as it came.

A chunk is known by (project, SHA-256), so what exists is told per project only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tarfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from flightlog.protocol.manifest import is_sha256
from flightlog.protocol.messages import MAX_CHUNK

from ..errors import ApiError, malformed
from .database import Database, insert_new
from .objects import Objects, Staged
from .schema import chunks, packs

_VARIABLES = 500
MAX_MEMBERS = 100_000
_PURPOSE = re.compile(r"pack\.(\d{1,18})", re.ASCII)
Member = tuple[bytes, int, int]  # SHA-256, offset of its bytes, size


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk is."""

    object: str
    offset: int
    size: int


def places(connection: Connection, project_id: int, hashes: Iterable[bytes]) -> dict[bytes, Place]:
    """Return where those of the chunks are that the project has."""
    wanted = list(dict.fromkeys(hashes))
    found: dict[bytes, Place] = {}
    for start in range(0, len(wanted), _VARIABLES):
        query = (
            sa.select(chunks.c.sha256, packs.c.object, chunks.c.offset, chunks.c.size)
            .select_from(chunks.join(packs, chunks.c.pack_id == packs.c.id))
            .where(chunks.c.project_id == project_id, chunks.c.sha256.in_(wanted[start : start + _VARIABLES]))
        )
        for row in connection.execute(query):
            found[bytes(row.sha256)] = Place(row.object, row.offset, row.size)
    return found


def purpose_of(project_id: int) -> str:
    """Return the purpose of an object that a pack is received in: see `take_over`."""
    return f"pack.{project_id}"


def store_pack(database: Database, project_id: int, pack: Staged) -> int:
    """Verify a pack and store it; object first, rows second, so that a crash leaves at most an orphan.

    Chunks that are here already are not stored again: of a pack that was sent twice, nothing is.

    Args:
        pack: the pack, at its beginning.

    Returns:
        How many chunks it held.

    Raises:
        ApiError: it is no pack, or a chunk is not what its name says.
    """
    members = list(_verified(pack.file))
    if not members:
        raise malformed("The pack is empty.")
    _store(database, project_id, pack, members)
    return len(members)


def store_begun_pack(database: Database, project_id: int, pack: Staged) -> int:
    """Store what arrived whole of a pack that broke off, so that it need not be sent again.

    Args:
        pack: the pack as far as it came, at its beginning.

    Returns:
        How many chunks are kept.
    """
    members: list[Member] = []
    with contextlib.suppress(ApiError):  # where it broke off
        members.extend(_verified(pack.file))
    if members:
        _, offset, size = members[-1]
        pack.file.truncate(offset + size)
        pack.file.seek(0, os.SEEK_END)
        pack.file.write(bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE))  # which makes it a tar
        _store(database, project_id, pack, members)
    return len(members)


def take_over(database: Database, objects: Objects) -> int:
    """Store what had arrived whole of the packs that a server was at when it was killed; what else it left is removed.

    Returns:
        How many chunks are kept.
    """
    kept = 0
    for purpose, staged in objects.left_behind():
        pack_of = _PURPOSE.fullmatch(purpose)
        # A disk without room, or a project that is gone: then they are asked for again.
        with contextlib.suppress(OSError, DBAPIError):
            if pack_of:
                kept += store_begun_pack(database, int(pack_of[1]), staged)
    return kept


def _store(database: Database, project_id: int, pack: Staged, members: Sequence[Member]) -> None:
    with database.read() as connection:
        here = places(connection, project_id, [digest for digest, _, _ in members])
    if len(here) == len({digest for digest, _, _ in members}):
        return
    size = pack.file.seek(0, os.SEEK_END)
    key = f"packs/{project_id}/{uuid.uuid4().hex}.tar"
    pack.store(key)
    with database.write() as connection:
        note_pack(connection, project_id, key, size, members)


def note_pack(connection: Connection, project_id: int, key: str, size: int, members: Iterable[Member]) -> None:
    """Take note of an object with chunks, each as (SHA-256, offset, size)."""
    facts = {"project_id": project_id, "object": key, "size": size, "created_at": time.time()}
    pack_id = connection.execute(packs.insert().values(facts).returning(packs.c.id)).scalar_one()
    rows = [
        {"project_id": project_id, "sha256": digest, "pack_id": pack_id, "offset": offset, "size": length}
        for digest, offset, length in members
    ]
    insert_new(connection, chunks, rows)


def _verified(pack: IO[bytes]) -> Iterator[Member]:
    """Yield (SHA-256, offset of its bytes, size) of every chunk of a pack."""
    try:
        with tarfile.open(fileobj=pack, mode="r:") as tar:
            for number, member in enumerate(tar):
                if not member.isreg() or member.issparse() or not is_sha256(member.name) or number >= MAX_MEMBERS:
                    raise malformed(f"{member.name[:80]!r} is no chunk.")
                if not 0 < member.size <= MAX_CHUNK:
                    raise malformed(f"Chunk {member.name} has {member.size} bytes; at most {MAX_CHUNK} are allowed.")
                content = tar.extractfile(member)
                digest = hashlib.sha256(content.read() if content else b"").digest()
                if digest.hex() != member.name:
                    raise malformed(f"Chunk {member.name} holds other bytes than its name says.")
                yield digest, member.offset_data, member.size
    except (tarfile.TarError, EOFError, ValueError, ArithmeticError, LookupError) as error:
        # The last three: tarfile meets senseless headers unprepared.
        raise malformed(f"The body is no tar: {error}") from None


def stream(objects: Objects, parts: Sequence[Place]) -> Iterator[bytes]:
    """Yield the bytes of chunks in order."""
    for place in parts:
        yield objects.read(place.object, place.offset, place.size)
