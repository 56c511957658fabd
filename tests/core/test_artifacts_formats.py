"""Manifests with references, and readers of artifact records that anybody may have written."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.artifacts.catalog import Catalog
from flightlog.contents import Named
from flightlog.journal.record import Record
from flightlog.protocol.manifest import FileEntry, Manifest, Reference

HASH = hashlib.sha256(b"").hexdigest()
names = st.text("abcü-_.", min_size=1, max_size=8).filter(lambda n: n not in (".", ".."))
files = st.lists(st.builds(FileEntry, names, st.integers(0, 1 << 50), st.just(HASH)), max_size=4)
references = st.lists(
    st.builds(
        Reference,
        names.map(lambda n: f"there/{n}"),
        st.text("abc/?=ü", min_size=1).map(lambda t: f"s3://{t}"),
        st.integers(-1, 1 << 50),
        st.sampled_from(["", HASH]),
    ),
    max_size=4,
)


def unique(items: list[Any]) -> tuple[Any, ...]:
    return tuple({item.path: item for item in items}.values())


@given(files, references, st.none() | st.text("ab \n", max_size=5))
def test_a_manifest_comes_back_as_it_was(kept: list[Any], there: list[Any], description: str | None) -> None:
    """With files, references and a description; the digest does not depend on their order."""
    manifest = Manifest("n", "t", unique(kept), {"a": [1]}, unique(there), description)
    assert Manifest.from_json(manifest.to_json()) == manifest
    turned = Manifest("n", "t", manifest.files[::-1], {}, manifest.references[::-1])
    assert turned.digest == manifest.digest


def test_the_digest_of_references_is_the_described_one() -> None:
    """Files first, then `path NUL size NUL sha256 NUL uri LF`; without references it is what it always was."""
    entry = FileEntry("a", 3, HASH)
    lines = f"a\x003\x00{HASH}\n"
    assert Manifest("n", "t", (entry,)).digest == hashlib.sha256(lines.encode()).hexdigest()
    there = (Reference("c", "s3://x", 5, HASH), Reference("b", "https://ü"))
    lines += f"b\x00\x00\x00https://ü\nc\x005\x00{HASH}\x00s3://x\n"
    manifest = Manifest("n", "t", (entry,), {}, there)
    assert manifest.digest == hashlib.sha256(lines.encode()).hexdigest()
    assert json.loads(manifest.to_json())["references"][1] == {"path": "b", "uri": "https://ü"}


@pytest.mark.parametrize(
    "wrong",
    [5, [5], [{"path": "../x", "uri": "s3://a"}], [{"path": "x"}], [{"path": "x", "uri": "nothing"}],
     [{"path": "x", "uri": "s3://a\nb"}], [{"path": "x", "uri": "s3://a", "size": -2}],
     [{"path": "x", "uri": "s3://a", "size": True}], [{"path": "x", "uri": "s3://a", "sha256": "no"}],
     [{"path": "a", "uri": "s3://a"}], [{"path": "a/b", "uri": "s3://a"}],
     [{"path": "x", "uri": "s3://a"}, {"path": "x", "uri": "s3://b"}], [{"path": "x", "uri": "s3://" + "a" * 5000}]],
    ids=lambda wrong: str(wrong)[:40],
)  # fmt: skip
def test_references_that_make_no_sense_are_refused(wrong: Any) -> None:
    """A manifest comes from outside: paths that lead out, addresses that are none, names that clash."""
    data = json.loads(Manifest("n", "t", (FileEntry("a", 3, HASH),)).to_json())
    with pytest.raises(ValueError):
        Manifest.from_json(json.dumps({**data, "references": wrong}).encode())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(
    ["name", "version", "digest", "manifest", "aliases", "metadata", "begun", "saved", "size", "type", "project", "run"]
)
plausible = st.sampled_from(["model", "v0", "v1", HASH, "artifacts/model/v0/manifest.json", ["latest"], {"loss": 1.0}])
actions = st.sampled_from(["begin", "log", "damaged", "pruned", "use", "save", "other", 5])


@given(st.lists(st.tuples(actions, st.dictionaries(fields, plausible | anything)), max_size=8))
def test_readers_take_any_record(made_up: list[tuple[Any, dict[str, Any]]]) -> None:
    """Records whose CRC is right and whose content is nonsense stop neither a reader, nor a sync."""
    catalog, named = Catalog(), Named()
    for seq, (action, data) in enumerate(made_up):
        record = Record(seq, float(seq), "artifact", None, {**data, "action": action}, b"")
        catalog.add("w", record)
        named.add_record(record)
    assert all(v.state in ("copying", "logged", "damaged", "pruned") for v in catalog.versions.values())
    for name, alias in catalog.aliases:
        catalog.find(name, alias)
    assert len(named.artifacts) <= len(made_up) and named.incomplete is not None
