"""What client and server must agree on, implemented here a second time from the description alone."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from flightlog.protocol.digest import JournalDigest
from flightlog.protocol.manifest import FileEntry, Manifest, is_safe_path
from flightlog.protocol.messages import format_ranges, parse_ranges
from flightlog.sync.chunker import CHUNKER, cut
from flightlog_server.store.database import Database
from flightlog_server.store.migrate import migrate
from flightlog_server.store.schema import metadata

BOUNDED = settings(max_examples=40, deadline=None, derandomize=True)


def described_digest(lines: dict[int, bytes], upto: int) -> str:
    """SHA-256 per block of 4,096 seq over the lines including their newlines, then over the block digests."""
    blocks = []
    for first in range(1, upto + 1, 4096):
        inside = [lines[seq] for seq in range(first, min(first + 4096, upto + 1)) if seq in lines]
        blocks.append(hashlib.sha256(b"".join(inside)).digest())
    return hashlib.sha256(b"".join(blocks)).hexdigest()


@given(
    st.integers(0, 13_000),
    st.lists(st.integers(1, 13_000), max_size=30),
    st.lists(st.tuples(st.integers(1, 13_000), st.integers(1, 5_000)), max_size=2),
)
@BOUNDED
def test_the_digest_is_the_described_one(last: int, lost: list[int], stretches: list[tuple[int, int]]) -> None:
    """With single seqs and whole blocks lost, at every block border, fed at once or continued from stored blocks."""
    gone = {*lost, *(s for a, n in stretches for s in range(a, a + n))} - {last}
    lines = {seq: b"%d\n" % seq for seq in range(1, last + 1) if seq not in gone}
    digest = JournalDigest()
    for seq, raw in lines.items():
        digest.add(seq, raw)
    expected = described_digest(lines, last)
    assert digest.upto(last) == expected
    blocks = digest.complete_blocks(last)
    assert len(blocks) == last // 4096
    continued = JournalDigest(blocks)
    for seq in range(len(blocks) * 4096 + 1, last + 1):
        if seq in lines:
            continued.add(seq, lines[seq])
    assert continued.upto(last) == expected


def test_the_digest_of_nothing_is_pinned() -> None:
    """Both sides begin with it; it must never change."""
    assert JournalDigest().upto(0) == hashlib.sha256(b"").hexdigest()


def test_the_digest_of_an_artifact_is_the_described_one() -> None:
    """SHA-256 over `path NUL size NUL sha256 LF` of each file, by path as UTF-8."""
    files = [
        FileEntry(p, len(p), hashlib.sha256(p.encode()).hexdigest())
        for p in ("b", "a/x", "ä", "Z", "a.b", "\U0001f600")
    ]
    text = b"".join(
        b"%b\0%d\0%b\n" % (f.path.encode(), f.size, f.sha256.encode())
        for f in sorted(files, key=lambda f: f.path.encode())
    )
    assert Manifest("n", "t", tuple(files)).digest == hashlib.sha256(text).hexdigest()


# -- chunks ------------------------------------------------------------------------------------------------------------


def reproducible(size: int, seed: bytes = b"flightlog test vector 1") -> bytes:
    """Pseudo-random bytes that any machine can make: SHAKE-128 of a seed."""
    return hashlib.shake_128(seed).digest(size)


VECTOR_SIZES = [
    635298,
    1672703,
    1267282,
    1153869,
    1336290,
    1169658,
    721889,
    1014359,
    297541,
    907888,
    1116668,
    1642261,
    1452483,
    1540822,
    1311488,
    301882,
    590236,
    1032142,
    835241,
]
VECTOR_SHA256 = "a225e573bbbf3c0dd4ea43af80514fcb168f8569f15a375743fd7d89cb4afc6d"


def test_the_chunker_cuts_the_test_vector_as_it_always_has() -> None:
    """20 MB are cut at pinned places: another library or version must do the same under the same chunker id."""
    content = reproducible(20_000_000)
    found = cut(io.BytesIO(content))
    assert CHUNKER == "fastcdc-1m-1"
    assert [size for _, size in found.chunks] == VECTOR_SIZES
    hashes = "".join(h + "\n" for h, _ in found.chunks)
    assert hashlib.sha256(hashes.encode()).hexdigest() == VECTOR_SHA256
    assert (found.size, found.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("size", [0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 1 << 20, 5 << 20])
@pytest.mark.parametrize("kind", ["random", "zeros"])
def test_chunks_are_the_file_and_keep_their_bounds(size: int, kind: str) -> None:
    """In order and without a gap; none larger than 4 MiB, none but the last smaller than 256 KiB."""
    content = reproducible(size) if kind == "random" else bytes(size)
    found = cut(io.BytesIO(content))
    offset = 0
    for number, (digest, length) in enumerate(found.chunks, 1):
        assert digest == hashlib.sha256(content[offset : offset + length]).hexdigest()
        assert length <= 4 << 20 and (length >= 256 << 10 or number == len(found.chunks))
        offset += length
    assert offset == size == found.size


@pytest.mark.parametrize("shift", [1, 17, 4096, 100_003])
def test_a_shifted_file_shares_most_of_its_chunks(shift: int) -> None:
    """Bytes put in front, or taken out of the middle, change the chunks around them only."""
    content = reproducible(12_000_000)
    known = {h for h, _ in cut(io.BytesIO(content)).chunks}
    middle = len(content) // 2
    for other in (reproducible(shift, b"other") + content, content[:middle] + content[middle + shift :]):
        fresh = sum(size for h, size in cut(io.BytesIO(other)).chunks if h not in known)
        assert fresh < 5 << 20, f"{fresh} bytes of {len(other)} would be sent again"


def test_reading_in_small_parts_cuts_the_same() -> None:
    """A file that gives its bytes in short reads, as pipes and network file systems do."""

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size if size is not None and size > 0 else 7000, 7000))

    content = reproducible(3_000_000)
    assert cut(Slow(content)) == cut(io.BytesIO(content))


# -- small things ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), max_size=30))
@BOUNDED
def test_ranges_come_back(gaps: list[tuple[int, int]]) -> None:
    """format_ranges and parse_ranges are each other's inverse."""
    ranges, at = [], 0
    for gap, length in gaps:
        ranges.append((at + gap, at + gap + length))
        at += gap + length
    assert parse_ranges(format_ranges(ranges)) == ranges


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "", "a", "b/"])).map("/".join))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_safe_path_stays_inside(path: str) -> None:
    """Whatever passes, joined to a folder and normalised, is below it."""
    if is_safe_path(path):
        whole = Path("/folder") / path
        assert str(whole).startswith("/folder/") and ".." not in whole.parts and "\0" not in path


def test_migrations_and_schema_are_the_same(tmp_path: Path) -> None:
    """The database that the migrations make is the one that the tables describe: no difference for alembic to write."""
    database = Database(f"sqlite:///{tmp_path / 'flightlog.db'}")
    try:
        migrate(database)
        migrate(database)  # a second time changes nothing
        with database.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []
            names = sa.inspect(connection)
            for table in metadata.sorted_tables:
                unique = {tuple(u["column_names"]) for u in names.get_unique_constraints(table.name)}
                wanted = {
                    tuple(c.name for c in u.columns) for u in table.constraints if isinstance(u, sa.UniqueConstraint)
                }
                assert unique == wanted, table.name
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    finally:
        database.close()
