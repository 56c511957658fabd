"""The files of a run, made of chunks, and the artifact versions that are committed from them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from flightlog.protocol.manifest import MAX_MANIFEST, FileEntry, Manifest, shown_reference
from flightlog.protocol.messages import ChunkedFile
from flightlog.protocol.names import name_fault

from .errors import ApiError, malformed, not_found
from .store.database import insert_new, upsert
from .store.objects import Objects
from .store.packs import Place, places, stream
from .store.schema import artifact_aliases, artifact_versions, files, former_files, runs

# All that is known of a run's paths, whatever is there now.
_held = sa.union_all(sa.select(files), sa.select(former_files)).subquery("held_files")
_HASH = 32
_VARIABLES = 500
_PIECE = 256 << 10
_BREATH = 64  # chunks


def checked_rows(
    connection: Connection, objects: Objects, run: Any, named: Sequence[ChunkedFile]
) -> Iterator[dict[str, Any] | None]:
    """Yield the rows of files of a run that are made of chunks which are here, and None now and then.

    The bytes are read once more and hashed: a receipt says of every file that it is whole. That takes a while, so it is
    done before the transaction that writes.

    Raises:
        ApiError: 409 `missing_chunks` with their hashes; 422 where chunks do not make up the file.
    """
    wanted = [bytes.fromhex(sha256) for file in named for sha256, _ in file.chunks]
    here = places(connection, run.project_id, wanted)
    missing = sorted({h.hex() for h in wanted} - {h.hex() for h in here})
    if missing:
        raise ApiError(409, "missing_chunks", f"{len(missing)} chunks are not here yet.", missing=missing[:10_000])
    for file in named:
        hashes = [bytes.fromhex(sha256) for sha256, _ in file.chunks]
        yield from _verify(objects, file, [here[h] for h in hashes])
        yield row_of(run.id, file)


def row_of(run_id: int, file: ChunkedFile) -> dict[str, Any]:
    """Return the row of a file."""
    return {
        "run_id": run_id,
        "path": file.entry.path,
        "size": file.entry.size,
        "sha256": bytes.fromhex(file.entry.sha256),
        "chunks": b"".join(bytes.fromhex(sha256) for sha256, _ in file.chunks),
    }


def commit_files(connection: Connection, run: Any, rows: list[dict[str, Any]]) -> None:
    """Take note of files that have been checked, and keep what else was at their paths."""
    _keep_former(connection, run.id, rows)
    upsert(connection, files, rows)
    connection.execute(runs.update().where(runs.c.id == run.id).values(version=runs.c.version + 1))


def _keep_former(connection: Connection, run_id: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Note as former what other content is at the paths of some rows."""
    new = {row["path"]: row["sha256"] for row in rows}
    paths = list(new)
    for start in range(0, len(paths), _VARIABLES):
        query = sa.select(files).where(files.c.run_id == run_id, files.c.path.in_(paths[start : start + _VARIABLES]))
        found = connection.execute(query).mappings().all()
        insert_new(connection, former_files, [dict(row) for row in found if bytes(row["sha256"]) != new[row["path"]]])


def _verify(objects: Objects, file: ChunkedFile, parts: Sequence[Place]) -> Iterator[None]:
    if len(parts) == 1 and file.chunks[0][0] == file.entry.sha256 and parts[0].size == file.entry.size:
        return  # a file of one chunk, which was hashed when it came
    whole, size = hashlib.sha256(), 0
    for number, content in enumerate(stream(objects, parts), 1):
        whole.update(content)
        size += len(content)
        if number % _BREATH == 0:
            yield None
    if whole.hexdigest() != file.entry.sha256 or size != file.entry.size:
        raise malformed(f"{file.entry.path}: its chunks do not make up the file that was named.")


def file_row(connection: Connection, run_id: int, path: str) -> Any:
    """Return a file's row. Raises ApiError where the run has no such file."""
    row = connection.execute(sa.select(files).where(files.c.run_id == run_id, files.c.path == path)).first()
    if row is None:
        raise not_found(f"file {path!r} in this run")
    return row


def version_file_row(connection: Connection, version: Any, path: str) -> Any:
    """Return the row of a version's file, as its manifest has it. Raises ApiError where it has no such file."""
    sha256 = next((str(file["sha256"]) for file in version.files if file["path"] == path), "")
    query = sa.select(_held).where(_held.c.run_id == version.run_id, _held.c.path == version.root + path)
    row = connection.execute(query.where(_held.c.sha256 == bytes.fromhex(sha256))).first()
    if row is None:
        raise not_found(f"file {path!r} in this run")
    return row


def content_of(connection: Connection, objects: Objects, project_id: int, row: Any) -> Iterator[bytes]:
    """Return the bytes of a file, in parts. The places are looked up now, the bytes read as they are asked for."""
    hashes = [row.chunks[i : i + _HASH] for i in range(0, len(row.chunks), _HASH)]
    here = places(connection, project_id, hashes)
    return stream(objects, [here[h] for h in hashes])


def contents_of(
    connection: Connection, objects: Objects, project_id: int, version: Any, first: int, count: int
) -> tuple[Iterator[bytes], int]:
    """Return the bytes of some of a version's files, one after the other, and how many those are.

    Args:
        version: its row. first, count: which files, in the order of its manifest.

    Raises:
        ApiError: one of them is not here.
    """
    named = [(version.root + str(file["path"]), str(file["sha256"])) for file in version.files[first : first + count]]
    rows: dict[tuple[str, str], Any] = {}
    for start in range(0, len(named), _VARIABLES):
        part = _held.c.path.in_([path for path, _ in named[start : start + _VARIABLES]])
        query = sa.select(_held).where(_held.c.run_id == version.run_id, part)
        rows.update(((row.path, bytes(row.sha256).hex()), row) for row in connection.execute(query))
    missing = next((path for path, sha256 in named if (path, sha256) not in rows), None)
    if missing is not None:
        raise not_found(f"file {missing!r} in this run")
    hashes = [
        row.chunks[i : i + _HASH] for row in map(rows.__getitem__, named) for i in range(0, len(row.chunks), _HASH)
    ]
    here = places(connection, project_id, hashes)
    return _joined(stream(objects, [here[h] for h in hashes])), sum(rows[file].size for file in named)


def _joined(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield small parts together: each that is sent by itself costs more than its bytes."""
    waiting = bytearray()
    for part in parts:
        waiting += part
        if len(waiting) >= _PIECE:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)


def files_of(connection: Connection, run_id: int) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of every file that is here of a run."""
    query = sa.select(files.c.path, files.c.size, files.c.sha256).where(files.c.run_id == run_id)
    return {row.path: (row.size, bytes(row.sha256).hex()) for row in connection.execute(query)}


def former_of(connection: Connection, run_id: int) -> dict[str, list[tuple[int, str]]]:
    """Return, by path, size and SHA-256 of what was there before."""
    found: dict[str, list[tuple[int, str]]] = {}
    columns = (former_files.c.path, former_files.c.size, former_files.c.sha256)
    for row in connection.execute(sa.select(*columns).where(former_files.c.run_id == run_id)):
        found.setdefault(row.path, []).append((row.size, bytes(row.sha256).hex()))
    return found


def commit_artifact(
    connection: Connection,
    objects: Objects,
    run: Any,
    manifest_path: str,
    aliases: Sequence[str],
    at: float,
    digest: str | None = None,
) -> dict[str, Any]:
    """Make an artifact version of files that are here, and move aliases to it. The same content is the same version.

    An alias stays where a later record has set it: `at` is the time of the record that sets it now. Where several
    manifests have been at the path, `digest` says which is meant; without it, the one that is there now.

    Raises:
        ApiError: 422 where the manifest is none, 409 `missing_files` where files are not here as it says.
    """
    manifest = _manifest(connection, objects, run.project_id, run.id, manifest_path, digest)
    _check_shown(manifest)
    root = manifest_path.removesuffix("manifest.json") + "files/"
    _check_here(connection, run, root, manifest)
    version_id = _version(connection, run, root, manifest)
    later = set(
        connection.execute(
            sa.select(artifact_aliases.c.alias).where(
                artifact_aliases.c.project_id == run.project_id,
                artifact_aliases.c.name == manifest.name,
                artifact_aliases.c.set_at > at,
            )
        ).scalars()
    )
    key = {"project_id": run.project_id, "name": manifest.name}
    moved = [{**key, "alias": alias, "version_id": version_id, "set_at": at} for alias in aliases if alias not in later]
    upsert(connection, artifact_aliases, moved)
    return show_version(connection, version_id, with_files=False)


def _manifest(
    connection: Connection, objects: Objects, project_id: int, run_id: int, path: str, digest: str | None
) -> Manifest:
    """Return the manifest at a path of a run; with a digest that of them which was ever there. Raises ApiError."""
    now = file_row(connection, run_id, path)
    former = sa.select(former_files).where(former_files.c.run_id == run_id, former_files.c.path == path)
    for row in [now, *(connection.execute(former).all() if digest is not None else ())]:
        if row.size > MAX_MANIFEST or not path.endswith("/manifest.json"):
            raise malformed(f"{path} is no manifest.")
        try:
            manifest = Manifest.from_json(b"".join(content_of(connection, objects, project_id, row)))
        except ValueError as error:
            raise malformed(f"{path}: {error}") from None
        if digest in (None, manifest.digest):
            return manifest
    raise not_found(f"manifest with the digest {digest} at {path!r} in this run")


def _check_shown(manifest: Manifest) -> None:
    """Raise `malformed` where a manifest could be kept but never be found or shown."""
    for what, text in (("name", manifest.name), ("type", manifest.type)):
        fault = name_fault(text)
        if fault:
            raise malformed(f"The artifact's {what} {text!r} cannot be used: {fault}.")
    try:
        orjson.dumps(manifest.metadata)
    except TypeError as error:
        raise malformed(f"The artifact's metadata cannot be shown: {error}.") from None


def _check_here(connection: Connection, run: Any, root: str, manifest: Manifest) -> None:
    named = [FileEntry(root + file.path, file.size, file.sha256) for file in manifest.files]
    here: set[FileEntry] = set()
    for start in range(0, len(named), _VARIABLES):
        part = _held.c.path.in_([entry.path for entry in named[start : start + _VARIABLES]])
        query = sa.select(_held.c.path, _held.c.size, _held.c.sha256).where(_held.c.run_id == run.id, part)
        here.update(FileEntry(row.path, row.size, bytes(row.sha256).hex()) for row in connection.execute(query))
    missing = [entry.path.removeprefix(root) for entry in named if entry not in here]
    if missing:
        raise ApiError(
            409,
            "missing_files",
            f"{len(missing)} files of {manifest.name} are not here as its manifest says, {missing[0]} for one.",
        )


def _version(connection: Connection, run: Any, root: str, manifest: Manifest) -> int:
    same = sa.select(artifact_versions.c.id).where(
        artifact_versions.c.project_id == run.project_id,
        artifact_versions.c.name == manifest.name,
        artifact_versions.c.digest == manifest.digest,
    )
    known = connection.execute(same).scalar()
    if known is not None:
        return int(known)
    newest = connection.execute(
        sa.select(sa.func.max(artifact_versions.c.number)).where(
            artifact_versions.c.project_id == run.project_id, artifact_versions.c.name == manifest.name
        )
    ).scalar()
    made = connection.execute(
        artifact_versions.insert()
        .values(
            project_id=run.project_id,
            run_id=run.id,
            name=manifest.name,
            number=0 if newest is None else newest + 1,
            type=manifest.type,
            digest=manifest.digest,
            size=manifest.size,
            metadata=manifest.metadata,
            root=root,
            files=[{"path": f.path, "size": f.size, "sha256": f.sha256} for f in manifest.files],
            created_at=time.time(),
        )
        .returning(artifact_versions.c.id)
    )
    return int(made.scalar_one())


def show_version(connection: Connection, version_id: int, *, with_files: bool = True) -> dict[str, Any]:
    """Return an artifact version as the API shows it."""
    row = connection.execute(
        sa.select(artifact_versions, runs.c.run_id.label("run"))
        .select_from(artifact_versions.join(runs, artifact_versions.c.run_id == runs.c.id))
        .where(artifact_versions.c.id == version_id)
    ).one()
    aliases = connection.execute(
        sa.select(artifact_aliases.c.alias)
        .where(artifact_aliases.c.version_id == version_id)
        .order_by(artifact_aliases.c.alias)
    ).scalars()
    shown = {
        "name": row.name,
        "version": f"v{row.number}",
        "type": row.type,
        "digest": row.digest,
        "size": row.size,
        "aliases": list(aliases),
        "metadata": row.metadata,
        "run": row.run,
        "created_at": row.created_at,
    }
    return {**shown, "files": row.files} if with_files else shown


def words_of(connection: Connection, objects: Objects, project_id: int, version: Any) -> dict[str, Any]:
    """Return what of a version stands in its manifest alone: its description, and what it refers to.

    Args:
        version: its row.
    """
    path = version.root.removesuffix("files/") + "manifest.json"
    manifest = _manifest(connection, objects, project_id, version.run_id, path, version.digest)
    return {"description": manifest.description, "references": [shown_reference(r) for r in manifest.references]}


def artifacts_of(connection: Connection, run_row_id: int) -> list[dict[str, Any]]:
    """Return the versions that a run logged, in order of name and number."""
    query = (
        sa.select(artifact_versions.c.id)
        .where(artifact_versions.c.run_id == run_row_id)
        .order_by(artifact_versions.c.name, artifact_versions.c.number)
    )
    return [show_version(connection, i) for i in connection.execute(query).scalars().all()]


def version_row(connection: Connection, project_id: int, name: str, which: str) -> Any:
    """Return a version's row by alias or by its own name. Raises ApiError where there is none."""
    query = sa.select(artifact_versions).where(
        artifact_versions.c.project_id == project_id, artifact_versions.c.name == name
    )
    if which[:1] == "v" and which[1:].isdecimal() and len(which) < 10:
        query = query.where(artifact_versions.c.number == int(which[1:]))
    else:
        query = query.join(artifact_aliases, artifact_aliases.c.version_id == artifact_versions.c.id).where(
            artifact_aliases.c.alias == which
        )
    row = connection.execute(query).first()
    if row is None:
        raise not_found(f"artifact {name}:{which} in this project")
    return row
