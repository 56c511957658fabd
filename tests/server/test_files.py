"""Files of runs on their way to a server: what a hostile or changed run directory can make its reader send."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import time
from pathlib import Path

import pytest

import flightlog
from flightlog.beneath import open_beneath
from flightlog.protocol.manifest import FileEntry, Manifest
from flightlog.protocol.messages import Receipt

from .tools import Proxy, Server, add_media, line, local_journal, pack_of, run_dir

SECRET = b"-----BEGIN PRIVATE KEY----- of somebody else"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside of every run directory that nobody must ever receive."""
    path = tmp_path / "secret" / "id_ed25519"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


def holds(server: Server, content: bytes) -> bool:
    """Tell whether a server keeps these bytes anywhere."""
    return any(p.is_file() and content in p.read_bytes() for p in server.data.rglob("*"))


@pytest.mark.parametrize("how", ["file is a link", "folder is a link", "files is a link", "hard way"])
def test_a_link_out_of_the_run_directory_is_never_followed(
    server: Server, place: Path, home: Path, run_id: str, secret: Path, how: str
) -> None:
    """A record names the very bytes of a secret; the path to it is a link: it is a fault, and nothing is sent."""
    run = run_dir(place / "run-x", run_id)
    content = SECRET + run_id.encode()
    secret.write_bytes(content)
    path = run / "files" / add_media(run, "id_ed25519", content)
    if how == "file is a link":
        path.unlink()
        path.symlink_to(secret)
    elif how == "folder is a link":
        path.unlink()
        path.parent.rmdir()
        path.parent.symlink_to(secret.parent)
    elif how == "files is a link":
        (run / "files").rename(run / "real")
        (run / "real" / "media" / "id_ed25519").unlink()
        (run / "real" / "media").rmdir()
        (run / "real" / "media").symlink_to(secret.parent)
        (run / "files").symlink_to("real")
    else:
        path.unlink()
        os.link(secret, path.parent / "other")
        path.symlink_to("other")
    said = server.sync(run, home=home)
    assert said.code == (1 if how == "files is a link" else 3), said
    assert not holds(server, content)
    if said.code == 3:
        assert server.journal(run_id)["w" * 16] == local_journal(run)["w" * 16], "the records are delivered"


@pytest.mark.parametrize(
    "path",
    ["../../secret", "/etc/passwd", "media/../../../secret", "media//x", "", "media/./x", "a\\..\\b", "media/\0"],
)
def test_a_record_cannot_name_a_path_outside(
    server: Server, place: Path, home: Path, run_id: str, secret: Path, path: str
) -> None:
    """Such an entry names no file at all: the record is delivered as it is, the file is not looked at."""
    run = run_dir(place / "run-x", run_id)
    entry = {"type": "text", "path": path, "size": len(SECRET), "sha256": hashlib.sha256(SECRET).hexdigest()}
    segment = run / "files" / "journal" / ("w" * 16) / "000002.jsonl"
    segment.write_bytes(line(23, "media", {"text": entry}, step=1))
    said = server.sync(run, home=home)
    assert said.code == 0, said
    assert server.journal(run_id) == local_journal(run)
    assert server.query("SELECT count(*) FROM files f JOIN runs r ON r.id = f.run_id WHERE r.run_id = ?", run_id) == [
        (0,)
    ]


@pytest.mark.parametrize("kind", ["missing", "changed", "longer", "fifo", "folder", "socket"])
def test_a_file_that_is_not_what_was_recorded_is_named_and_the_rest_delivered(
    server: Server, place: Path, home: Path, run_id: str, kind: str
) -> None:
    """Exit status 3 without waiting for a pipe that nobody writes to; the other file arrives."""
    run = run_dir(place / "run-x", run_id)
    path = run / "files" / add_media(run, "bad.txt", b"hello " + run_id.encode())
    good = add_media(run, "good.txt", b"good", writer="media2")
    path.unlink()
    if kind == "changed":
        path.write_bytes(b"HELLO " + run_id.encode())
    elif kind == "longer":
        path.write_bytes(b"hello " + run_id.encode() + b"!")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        os.mknod(path, 0o140644)
    said = server.sync(run, home=home)
    assert said.code == 3 and any(str(path) in fault for fault in said.runs[0]["faults"]), said
    assert server.api("GET", f"runs/admin/p/{run_id}/files/{good}").body == b"good"
    assert server.api("GET", f"runs/admin/p/{run_id}/files/media/bad.txt").status == 404
    assert server.journal(run_id) == local_journal(run)
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(b"hello " + run_id.encode())
    assert server.sync(run, home=home).code == 0, "once it is mended, the next sync delivers it"


def test_the_journal_itself_may_be_no_link(server: Server, place: Path, home: Path, run_id: str, secret: Path) -> None:
    """A segment or a writer's folder that is a link is not read."""
    run = run_dir(place / "run-x", run_id)
    journal = run / "files" / "journal"
    (journal / ("w" * 16) / "000002.jsonl").symlink_to(secret)
    secret.with_name("000001.jsonl").write_bytes(line(1, data={"stolen": 1}))
    (journal / "linked").symlink_to(secret.parent)
    said = server.sync(run, home=home)
    assert said.code in (0, 3), said
    assert set(server.journal(run_id)) == {"w" * 16}
    assert not holds(server, b"stolen")


@pytest.mark.parametrize("name", ["files", "files/journal"])
def test_the_journal_of_another_run_cannot_be_named_by_a_link(
    server: Server, place: Path, home: Path, run_id: str, tmp_path: Path, name: str
) -> None:
    """A stranger's run directory links to a journal that only its reader may see: refused, nothing sent."""
    private = run_dir(tmp_path / "private" / "run-p", f"{run_id}private")
    run = run_dir(place / "run-x", run_id)
    shutil.rmtree(run / name)
    (run / name).symlink_to(private / name)
    said = server.sync(run, home=home)
    assert said.code == 1 and f"{run / name}: it is a link" in str(said.runs[0]["error"]), said
    assert server.journal(run_id) == {}


@pytest.mark.parametrize("path", ["", "/", ".", "..", "a/..", "../a", "a//b", "/etc/passwd", "a/"])
def test_open_beneath_opens_no_path_that_leads_elsewhere(tmp_path: Path, path: str) -> None:
    """Whatever stands between the slashes."""
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError):
        open_beneath(tmp_path, path)


@pytest.mark.parametrize("size", [0, 1, 255, 256 << 10, (1 << 20) + 1, 9 << 20])
def test_a_file_of_any_size_arrives_as_it_is(server: Server, place: Path, home: Path, run_id: str, size: int) -> None:
    """From no bytes to many chunks; and a second run with the same content sends no chunk again."""
    run = run_dir(place / "run-x", run_id)
    content = random.Random(size).randbytes(size)
    path = add_media(run, "file.bin", content)
    assert server.sync(run, home=home).code == 0
    assert server.api("GET", f"runs/admin/p/{run_id}/files/{path}").body == content
    other = run_dir(place / "run-y", f"{run_id}-again")
    add_media(other, "file.bin", content)
    said = server.sync(other, home=home)
    assert said.code == 0 and said.runs[0]["bytes_sent"] == 0
    assert server.api("GET", f"runs/admin/p/{run_id}-again/files/{path}").body == content


def test_only_the_chunks_that_changed_are_sent(server: Server, place: Path, home: Path, run_id: str) -> None:
    """Of a checkpoint with one byte more at its beginning nearly everything is known already."""
    content = random.Random(7).randbytes(8 << 20)
    run = run_dir(place / "run-x", run_id)
    add_media(run, "one.bin", content)
    assert server.sync(run, home=home).code == 0
    add_media(run, "two.bin", b"!" + content, writer="media2")
    said = server.sync(run, home=home)
    assert said.code == 0 and 0 < said.runs[0]["bytes_sent"] < 5 << 20, said


# -- artifacts ---------------------------------------------------------------------------------------------------------


def record_artifact(place: Path, project: str, content: bytes, **more: object) -> str:
    """Record a run that logs an artifact `model` of one file; return its id."""
    source = place / "weights.bin"
    source.write_bytes(content)
    with flightlog.init(project=project, dir=place / "flightlog", mode="offline") as run:
        run.log_artifact(source, name="model", type="model", **more)  # type: ignore[arg-type]
    return run.id


def test_aliases_follow_the_clock_and_not_the_order_of_syncs(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """`latest` is the version logged last, also when the older run is delivered later, or once more."""
    first = record_artifact(place, run_id, b"old")
    second = record_artifact(place, run_id, b"new")
    old, new = (next((place / "flightlog").glob(f"run-*-{i}")) for i in (first, second))
    for directory in (new, old, new, old):
        (directory / "sync.json").unlink(missing_ok=True)
        assert server.sync(directory, home=home).code == 0
    shown = server.api("GET", f"artifacts/admin/{run_id}/model/latest").json()
    assert shown["run"] == second and shown["aliases"] == ["latest"]
    assert server.api("GET", f"artifacts/admin/{run_id}/model/latest/files/weights.bin").body == b"new"


def test_versions_are_numbered_per_project_and_the_same_content_is_the_same_version(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """v0 and v1 whatever the runs called them, and no v2 for what is v0 already."""
    ids = [record_artifact(place, run_id, content) for content in (b"a", b"b", b"a")]
    for run in ids:
        assert server.sync(next((place / "flightlog").glob(f"run-*-{run}")), home=home).code == 0
    for which, content in (("v0", b"a"), ("v1", b"b"), ("latest", b"a")):
        assert server.api("GET", f"artifacts/admin/{run_id}/model/{which}/files/weights.bin").body == content
    assert server.api("GET", f"artifacts/admin/{run_id}/model/v2").status == 404


def record_part(folder: Path, project: str, run_id: str, content: bytes) -> Path:
    """Record a part of a run in a folder of its own: a version `model`, and a saved setting. Return its directory."""
    folder.mkdir(exist_ok=True)
    with flightlog.init(project=project, id=run_id, resume="allow", dir=folder / "flightlog", mode="offline") as run:
        for name in ("weights.bin", "config.yaml"):
            (folder / name).write_bytes(content)
        run.log_artifact(folder / "weights.bin", name="model", type="model", aliases=[folder.name])
        run.save(folder / "config.yaml", base_path=folder)
    return next((folder / "flightlog").glob(f"run-*-{run_id}"))


@pytest.mark.parametrize("size", [10, 300_000])
def test_two_directories_of_a_run_with_other_content_at_one_path_are_both_kept(
    server: Server, place: Path, home: Path, run_id: str, size: int
) -> None:
    """Node-local disks of a requeued job: each has a `model:v0` of its own, and both are held, however they are synced
    and cleaned, in one parcel or with packs."""
    contents = {name: name.encode() * size for name in ("a", "b")}
    parts = [record_part(place / name, run_id, run_id, content) for name, content in contents.items()]
    for part in (*parts, *parts):
        assert server.sync(part, home=home).code == 0
    record_part(place / "a", run_id, run_id, contents["a"])  # the first goes on, in a directory beside it
    for options in (("--include-synced",), ("--clean",)):
        for folder in (place / "a", place / "b"):
            said = server.sync(folder, home=home, options=options)
            assert said.code == 0 and not any(run["faults"] for run in said.runs), said
    assert not any(part.exists() for part in parts)
    for which, name in (("v0", "a"), ("v1", "b"), ("a", "a"), ("b", "b")):
        version = f"artifacts/admin/{run_id}/model/{which}"
        assert server.api("GET", f"{version}/files/weights.bin").body == contents[name]
        assert server.api("GET", f"{version}/contents").body == contents[name]
    assert server.api("GET", f"artifacts/admin/{run_id}/model/v2").status == 404


def test_what_is_held_beside_other_content_is_not_sent_again(
    server: Server, place: Path, home: Path, run_id: str
) -> None:
    """The receipt speaks of both contents of a path, so that either directory goes on without sending its own anew."""
    first, second = (record_part(place / name, run_id, run_id, name.encode() * 300_000) for name in ("a", "b"))
    for part in (first, second):
        assert server.sync(part, home=home).code == 0
    for part in (first, second):
        with next(part.glob("files/journal/*/*.jsonl")).open("ab") as file:
            file.write(line(len(local_journal(part)[Path(file.name).parent.name].splitlines()) + 1, step=9))
        said = server.sync(part, home=home)
        assert said.code == 0 and said.runs[0]["records_sent"] == 1 and said.runs[0]["bytes_sent"] == 0, said
    receipt = Receipt.from_json(server.api("GET", f"runs/admin/{run_id}/{run_id}/receipt").json())
    for part in (first, second):
        for file in part.glob("files/saved/*"):
            facts = (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
            assert receipt.holds("saved/config.yaml", facts)
    assert Receipt.from_json(receipt.to_json()) == receipt and len(receipt.former["saved/config.yaml"]) == 1


def test_many_versions_are_committed_together(
    server: Server, proxy: Proxy, place: Path, home: Path, run_id: str
) -> None:
    """One request for forty of them; the one whose file has changed is named, and the others are versions."""
    with flightlog.init(project=run_id, dir=place, mode="offline") as run:
        for number in range(40):
            (place / "part.bin").write_bytes(b"%d" % number)
            run.log_artifact(place / "part.bin", name=f"part{number}", type="part")
    directory = next(place.glob(f"run-*-{run.id}"))
    next(directory.glob("files/artifacts/part7/*/files/part.bin")).write_bytes(b"8")
    said = server.sync(directory, home=home, url=proxy.url)
    assert said.code == 3 and sum(asked.endswith("/manifests") for asked in proxy.seen) == 1
    assert all("part7" in fault for fault in said.runs[0]["faults"]), said
    shown = server.api("GET", f"runs/admin/{run_id}/{run.id}/artifacts").json()["artifacts"]
    assert {version["name"] for version in shown} == {f"part{number}" for number in range(40) if number != 7}


def test_an_artifact_with_a_changed_file_is_not_committed(server: Server, place: Path, home: Path, run_id: str) -> None:
    """A version is whole or not there: status 3 and no version."""
    run = record_artifact(place, run_id, b"weights")
    directory = next((place / "flightlog").glob(f"run-*-{run}"))
    (staged,) = directory.glob("files/artifacts/model/*/files/weights.bin")
    staged.write_bytes(b"WEIGHTS")
    said = server.sync(directory, home=home)
    assert said.code == 3 and "weights.bin" in " ".join(said.runs[0]["faults"]), said
    assert server.api("GET", f"artifacts/admin/{run_id}/model/latest").status == 404


@pytest.mark.parametrize("fault", ["missing", "garbage", "other", "link"])
def test_a_manifest_that_is_not_the_recorded_one_is_named(
    server: Server, place: Path, home: Path, run_id: str, fault: str, secret: Path
) -> None:
    """Status 3; the records are delivered all the same."""
    run = record_artifact(place, run_id, b"weights")
    directory = next((place / "flightlog").glob(f"run-*-{run}"))
    (manifest,) = directory.glob("files/artifacts/model/*/manifest.json")
    manifest.unlink()
    if fault == "garbage":
        manifest.write_text("{")
    elif fault == "other":
        entry = FileEntry("../../../secret/id_ed25519", len(SECRET), hashlib.sha256(SECRET).hexdigest())
        manifest.write_bytes(Manifest("model", "model", (entry,)).to_json())
    elif fault == "link":
        manifest.symlink_to(secret)
    said = server.sync(directory, home=home)
    assert said.code == 3 and str(manifest) in " ".join(said.runs[0]["faults"]), said
    assert server.journal(run) == local_journal(directory)
    assert not holds(server, SECRET)


def break_off(server: Server, project: str, body: bytes, chunks: list[bytes], kept: int) -> list[int]:
    """Send the beginning of a pack, and then nothing: the connection is closed. Return which chunks are asked for.

    What arrives together with the end of the connection may be lost to the server, so there are several attempts.
    """
    head = (
        f"POST /api/v1/projects/admin/{project}/packs HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {server.key}\r\nContent-Length: {1 << 20}\r\n\r\n"
    )
    for attempt in range(6):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head.encode() + body)
            time.sleep(0.2 * 2**attempt)
        for _ in range(20):
            if len(missing(server, project, chunks)) <= len(chunks) - kept:
                return missing(server, project, chunks)
            time.sleep(0.05)
    return missing(server, project, chunks)


def missing(server: Server, project: str, chunks: list[bytes]) -> list[int]:
    """Return which of the chunks the server asks for."""
    names = [hashlib.sha256(chunk).hexdigest() for chunk in chunks]
    found = server.api("POST", f"projects/admin/{project}/chunks/missing", {"chunks": names}).json()["missing"]
    return [names.index(name) for name in found]


@pytest.mark.parametrize("cut", [3, 600, 1536, 2048, 2600, "in the padding", "at the end"])
def test_of_a_pack_that_breaks_off_the_whole_chunks_are_kept(
    server: Server, place: Path, home: Path, run_id: str, cut: int | str
) -> None:
    """A connection that breaks costs the chunk that was cut; what is kept is read back as it was."""
    project = "p"
    assert server.sync(run_dir(place / "run", run_id), home=home).code == 0
    chunks = [f"{cut} {run_id} {n}".encode() * 40 for n in range(3)]
    body, size = pack_of(*chunks), len(chunks[0])
    blocks = 512 + size + -size % 512
    at = {"in the padding": 2 * blocks - 1, "at the end": 3 * blocks}.get(str(cut)) or int(cut)
    whole = sum(n * blocks + 512 + size <= at for n in range(3))
    assert break_off(server, project, body[:at], chunks, whole) == [0, 1, 2][whole:]
    named = [
        {"path": f"media/{n}", "size": size, "sha256": name, "chunks": [[name, size]]}
        for n, name in enumerate(hashlib.sha256(chunk).hexdigest() for chunk in chunks[:whole])
    ]
    assert server.api("POST", f"runs/admin/{project}/{run_id}/files", {"files": named}).status == 200
    for n in range(whole):
        assert server.api("GET", f"runs/admin/{project}/{run_id}/files/media/{n}").body == chunks[n]


def test_of_a_pack_that_breaks_off_nothing_wrong_is_kept(server: Server, place: Path, home: Path, run_id: str) -> None:
    """A chunk that is not what its name says ends what is kept, as if the pack had broken off there."""
    project = "p"
    assert server.sync(run_dir(place / "run", run_id), home=home).code == 0
    chunks = [f"{run_id} {n}".encode() * 100 for n in range(4)]
    body = bytearray(pack_of(*chunks))
    body[body.index(chunks[1])] ^= 1
    assert break_off(server, project, bytes(body[:-100]), chunks, 1) == [1, 2, 3]
