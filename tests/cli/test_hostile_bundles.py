"""Bundles made to do harm, and such as have come to harm: refused by name, and nothing left behind."""

from __future__ import annotations

import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from flightlog.errors import DamagedError, FlightlogError, NotFound
from flightlog.sync import bundle
from flightlog.sync.bundle import Bounds
from flightlog.sync.bundle.tar import TarReader, header

from ..server.tools import Server, begin, line, quick

SPEC = b'{"format":1,"id":"x","project":"p","state":"finished","host":"elsewhere"}'
JOURNAL = begin("x") + line(2) + line(3, "finish", {"state": "finished"})
ROOM = Bounds(entries=200, depth=8, ratio=20, base=1 << 20)


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **facts: object) -> bytes:
    """Return one member, of any kind, as a tar program writes it."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for key, value in facts.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


RUN = member("run-x/latest.spec", content=SPEC) + member("run-x/files/journal/w/000001.jsonl", content=JOURNAL)
END = bytes(1024)


def pax(facts: dict[str, str], name: str = "run-x/files/a") -> bytes:
    """Return an extended header of these facts, and an empty member after it."""
    content = b""
    for key, value in facts.items():
        text = f" {key}={value}\n".encode()
        length = len(text) + 1
        while len(str(length)) + len(text) != length:
            length += 1
        content += str(length).encode() + text
    return member("PaxHeader", tarfile.XHDTYPE, content) + member(name)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a link": (member("run-x/files/l", tarfile.SYMTYPE, linkname="/etc/passwd"), "run-x/files/l: is a link"),
    "a link called as one of ours": (member("latest", tarfile.SYMTYPE, linkname="run-x/../.."), "latest: is a link"),
    "files by a link": (member("files", tarfile.SYMTYPE, linkname="/tmp"), "files: is a link"),
    "a hard link": (member("run-x/files/l", tarfile.LNKTYPE, linkname="/etc/passwd"), "is a hard link"),
    "a device": (member("run-x/files/d", tarfile.CHRTYPE, devmajor=1, devminor=3), "is a device"),
    "a disk": (member("run-x/files/d", tarfile.BLKTYPE), "is a device"),
    "a pipe": (member("run-x/files/f", tarfile.FIFOTYPE), "is a pipe"),
    "an unknown kind": (member("run-x/files/f", b"V"), "unknown kind"),
    "a sparse file": (member("run-x/files/s", tarfile.GNUTYPE_SPARSE), "is a sparse file"),
    "a sparse file by pax": (pax({"GNU.sparse.major": "1"}), "is a sparse file"),
    "an absolute path": (member("/tmp/flightlog-escaped"), "leads out of the folder"),
    "a parent": (member("run-x/../../escaped"), "leads out of the folder"),
    "a parent by pax": (pax({"path": "../escaped"}), "leads out of the folder"),
    "a parent by GNU's long name": (
        member("././@LongLink", tarfile.GNUTYPE_LONGNAME, b"../escaped\0") + member("x"),
        "leads out of the folder",
    ),
    "a backslash": (member("run-x/..\\..\\escaped"), "leads out of the folder"),
    "a control character": (member("run-x/files/a\nb"), "leads out of the folder"),
    "twice the same": (member("run-x/latest.spec", content=SPEC), "stands there twice"),
    "a file as a folder": (member("run-x/latest.spec/inside"), "stands there twice, or is both"),
    "a folder as a file": (member("run-x/files"), "stands there twice, or is both"),
    "too deep": (member("/".join("abcdefghijkl")), "lies deeper"),
    "many files": (b"".join(member(f"run-x/files/{n}") for n in range(250)), "more than 200 files"),
    "many folders": (b"".join(member(f"run-x/f{n}/a/b", tarfile.DIRTYPE) for n in range(90)), "more than 200"),
    "an extended header without end": (
        member("P", tarfile.XHDTYPE, b"x" * 70_000) + member("a"),
        "extended header of 70,000",
    ),
    "extended headers without end": (b"".join(pax({"path": "a"})[:1024] for _ in range(9)), "extended headers precede"),
    "an extended header of nonsense": (member("P", tarfile.XHDTYPE, b"99 path=\n") + member("a"), "makes no sense"),
    "a header for all": (member("P", tarfile.XGLTYPE, b"12 path=abc\n"), "a header for all"),
    "a negative size": (pax({"size": "-5"}), "its size is"),
    "a size beyond all bounds": (pax({"size": "9" * 19}), "beyond all bounds"),
    "a second list": (member(bundle.INDEX, content=b"{}") * 2, "stands there twice"),
    "a list of nonsense": (member(bundle.INDEX, content=b"[[["), "makes no sense"),
    "a list of another format": (
        member(bundle.INDEX, content=b'{"kind":"flightlog-bundle","format":2,"runs":[]}'),
        "update flightlog",
    ),
    "a list that says more": (
        member(
            bundle.INDEX,
            content=b'{"kind":"flightlog-bundle","format":1,"runs":'
            b'[{"folder":"run-x","id":"x","project":"p","files":9,"bytes":9}]}',
        ),
        "pack it again",
    ),
}


def refused(path: Path, bounds: Bounds = ROOM) -> str:
    """Unpack a bundle that must be refused, and return in which words; nothing may be left beside it."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(FlightlogError) as raised, bundle.unpacked(path, bounds):
        raise AssertionError("it was unpacked")
    assert sorted(path.parent.iterdir()) == before
    assert str(path) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("packed", [False, True], ids=["tar", "zst"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_member_is_refused_by_name_and_nothing_is_made(tmp_path: Path, what: str, packed: bool) -> None:
    """Whatever a member wants to be, the bundle is refused with its name, and no file stands anywhere."""
    evil, words = HOSTILE[what]
    whole = RUN + evil + END
    path = tmp_path / "b.tar"
    path.write_bytes(zstandard.compress(whole) if packed else whole)
    said = refused(path)
    assert words in said, said
    assert not (tmp_path.parent / "escaped").exists() and not Path("/tmp/flightlog-escaped").exists()


def test_such_a_bundle_without_the_hostile_member_is_taken(tmp_path: Path) -> None:
    """What the hostile ones are made of is sound: a tar by any program, with folders and ./ in it, is unpacked."""
    path = tmp_path / "b.tar"
    path.write_bytes(member("./", tarfile.DIRTYPE) + member("./run-x/", tarfile.DIRTYPE) + RUN + END)
    with bundle.unpacked(path, ROOM) as (run,):
        assert run.path.name == "run-x" and run.read_spec()["id"] == "x"
    assert list(tmp_path.iterdir()) == [path]


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """64 MiB of zeros in a few kilobytes: refused at the header, and where it claims less, at its end."""
    zeros = bytes(64 << 20)
    path = tmp_path / "bomb.tar.zst"
    path.write_bytes(zstandard.compress(RUN + header("run-x/files/z", len(zeros)) + zeros + END))
    assert path.stat().st_size < 100_000
    said = refused(path)
    assert "far more than its size suggests" in said and "run-x/files/z" in said
    many = b"".join(member(f"run-x/files/{n}", content=bytes(100_000)) for n in range(100))
    path.write_bytes(zstandard.compress(RUN + many + END))
    assert "far more than its size suggests" in refused(path)


def test_a_bundle_larger_than_the_disk_is_refused_before_it_is_written(tmp_path: Path) -> None:
    """A member that claims more than there is room for is refused at its header, naming the way out."""
    path = tmp_path / "b.tar"
    path.write_bytes(RUN + header("run-x/files/huge", 1 << 49))
    assert "no room for it" in refused(path) and "TMPDIR" in refused(path)


def _gz(whole: bytes) -> bytes:
    import gzip

    return gzip.compress(whole)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda whole: whole[:700], "cut off"),
        (lambda whole: whole[:-1024], "cut off"),
        (lambda whole: whole[: len(RUN) + 100], "cut off"),
        (lambda whole: zstandard.compress(whole)[:-20], "cut off"),
        (lambda whole: zstandard.compress(whole)[:60], "cut off"),
        (lambda whole: b"", "cut off"),
        (lambda whole: b"no tar at all" * 100, "is no tar archive"),
        (lambda whole: RUN + b"\xff" * 512 + END, "is followed by what is no tar header"),
        (lambda whole: RUN + bytes(512) + RUN, "zeros stands where no end can be"),
        (lambda whole: END, "holds no run"),
        (_gz, "compressed with gzip"),
    ],
)
def test_a_bundle_that_came_to_harm_says_so(tmp_path: Path, what: Callable[[bytes], bytes], words: str) -> None:
    """Cut anywhere, or no bundle at all: one sentence that names the file and what to do."""
    path = tmp_path / "b.tar"
    path.write_bytes(what(RUN + END))
    assert words in refused(path)


def test_no_flipped_byte_goes_unseen_or_makes_a_traceback(tmp_path: Path) -> None:
    """A byte changed anywhere either is refused in words, or leaves a run that is read as it is (seeded)."""
    seed = 20
    chosen = random.Random(seed)
    whole = RUN + END
    path = tmp_path / "b.tar"
    for _ in range(150):
        at, value = chosen.randrange(len(whole)), chosen.randrange(256)
        path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
        try:
            with bundle.unpacked(path, ROOM) as found:
                assert found, (seed, at, value)
        except (DamagedError, NotFound) as error:
            assert str(path) in str(error), (seed, at, value)
        assert list(tmp_path.iterdir()) == [path], (seed, at, value)


def test_what_a_bundle_says_of_servers_is_not_believed(tmp_path: Path) -> None:
    """A sync.json that came in a bundle would have its run passed over as delivered; it is dropped."""
    path = tmp_path / "b.tar"
    path.write_bytes(RUN + member("run-x/sync.json", content=b'{"format":1,"servers":{}}') + END)
    with bundle.unpacked(path, ROOM) as (run,):
        assert run.spec_path.exists() and not run.sync_path.exists()


def test_a_killed_unpacking_is_swept_up_by_the_next(tmp_path: Path) -> None:
    """A folder that a killed process has left goes with the next unpacking; one that is in use stays."""
    path = tmp_path / "b.tar"
    path.write_bytes(RUN + END)
    left = tmp_path / ".b.tar.unpacked-dead"
    left.mkdir()
    (left / "lock").touch()
    with bundle.unpacked(path, ROOM) as (one,):
        assert not left.exists()
        with bundle.unpacked(path, ROOM) as (two,):
            assert one.spec_path.exists() and two.spec_path.exists() and one.path != two.path
        assert one.spec_path.exists()
    assert list(tmp_path.iterdir()) == [path]


def test_the_reader_reads_what_tar_writes(tmp_path: Path) -> None:
    """Long names and large numbers as GNU tar and pax write them are read to the same members as by tarfile."""
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        whole = io.BytesIO()
        names = ["short", "d/" * 40 + "n" * 90] + ([] if form == tarfile.USTAR_FORMAT else ["ä" * 80, "d/" * 90 + "x"])
        with tarfile.open(fileobj=whole, mode="w", format=form) as tar:
            for number, name in enumerate(names):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = 1000 + number, 1_700_000_000
                tar.addfile(info, io.BytesIO(os.urandom(1000 + number)))
        whole.seek(0)
        reader = TarReader(whole, "it")
        assert [(m.name, m.size, m.mtime) for m in reader.members()] == [
            (name, 1000 + n, 1_700_000_000) for n, name in enumerate(names)
        ]


def test_a_hostile_bundle_does_not_stop_the_other_runs(server: Server, home: Path, place: Path, run_id: str) -> None:
    """Beside a sound bundle and a run, it is one line and status 1, and the others are delivered."""
    from .tools import recorded

    recorded(place / "flightlog", run_id)
    (place / "good.tar").write_bytes(RUN + END)
    (place / "evil.tar").write_bytes(RUN + HOSTILE["a link"][0] + END)
    words = (place / "evil.tar", place / "good.tar", place / "flightlog")
    said = quick("sync", *words, "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert said.code == 1 and said.err.count("\n") == 1, said
    assert f"{place / 'evil.tar'}: run-x/files/l: is a link" in said.err
    assert "2 delivered" in said.out, said
    said = quick("sync", *words, "--json", "--server", server.url, home=home, FLIGHTLOG_API_KEY=server.key)
    assert [r["status"] for r in said.runs] == ["up_to_date", "delivered", "failed"], said
    assert not [p for p in place.iterdir() if "unpacked" in p.name]


def test_where_all_bundles_are_bad_no_server_is_asked(home: Path, place: Path) -> None:
    """One line for each, status 1, and no word of a server that is down."""
    (place / "b.tar").write_bytes(b"no tar at all" * 100)
    words = ("sync", place / "b.tar", "--server", "http://127.0.0.1:9")
    said = quick(*words, home=home, FLIGHTLOG_API_KEY="fl_00000000_x")
    assert said.code == 1 and said.err.count("\n") == 1 and "is no tar archive" in said.err, said
    said = quick(*words, "--json", home=home, FLIGHTLOG_API_KEY="fl_00000000_x")
    assert said.code == 1 and [r["status"] for r in said.runs] == ["failed"], said
