"""A record is one line of JSON with a CRC, and comes back as it was written."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.journal import record
from flightlog.journal.values import encode_values

TEXTS = st.text() | st.sampled_from(
    [
        "",
        "\u2028",
        '","crc":"00000000"}',
        '{"seq":1,"t":1.000000,"kind":"log"',
        "a.b.c",
        "NaN",
        "-Infinity",
        "null",
        "\0",
    ]
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | TEXTS
    | st.sampled_from([math.nan, math.inf, -math.inf])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)


def line_of(data: dict[str, Any], seq: int = 1, step: int | None = None, kind: str = "log") -> bytes:
    encoded, bad = encode_values(data)
    assert not bad
    return record.encode(seq, 1732398301.123456, kind, record.body(encoded.json(), step, encoded.nonfinite))


def same(a: Any, b: Any) -> bool:
    """Equality for which NaN equals NaN, and 1, 1.0 and True differ."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return bool((a != a and b != b) or a == b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def ambiguous(data: dict[str, Any]) -> bool:
    """Tell whether two places in `data` have one dotted path, which the format cannot tell apart."""
    paths: list[str] = []

    def walk(value: Any, path: list[str]) -> None:
        if path:
            paths.append(".".join(path))
        for key, inner in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            walk(inner, [*path, str(key)])

    walk(data, [])
    return len(set(paths)) != len(paths)


@given(
    st.dictionaries(TEXTS, VALUES, max_size=6), st.integers(1, 10**18 - 1), st.none() | st.integers(-(1 << 63), 1 << 62)
)
def test_what_is_encoded_is_decoded(data: dict[str, Any], seq: int, step: int | None) -> None:
    """Any plain values come back equal, with their types, from a line that passes its check."""
    raw = line_of(data, seq, step)
    line = record.check(raw)
    assert line is not None
    assert (line.seq, line.kind, line.raw) == (seq, "log", raw)
    found = line.record()
    assert (found.seq, found.step, found.kind, found.t) == (seq, step, "log", 1732398301.123456)
    if not ambiguous(data):
        assert same(found.data, data)


@given(st.dictionaries(TEXTS, VALUES, max_size=6))
def test_a_line_is_json_that_others_read(data: dict[str, Any]) -> None:
    """A line is strict JSON without NaN, has no newline but its last byte, and Python's json agrees with orjson."""
    raw = line_of(data)
    assert raw.count(b"\n") == 1 and raw.endswith(b"\n")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    assert json.loads(raw, parse_constant=refuse)["seq"] == 1 == orjson.loads(raw)["seq"]


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_the_crc_is_what_the_format_says(data: dict[str, Any]) -> None:
    """The tail is 18 bytes, and its 8 hex digits are the CRC-32 of all that stands before it."""
    raw = line_of(data)
    inside, tail = raw[:-19], raw[-19:-1]
    assert len(tail) == record.TAIL == 18
    assert tail == b',"crc":"%s"}' % format(zlib.crc32(inside) & 0xFFFFFFFF, "08x").encode()


def test_the_example_of_the_design_stands_on_paper_as_on_disk() -> None:
    """The field order and spelling are those that docs and other readers rely on."""
    raw = record.encode(17, 1732398301.123456, "log", record.body(b'{"loss":0.3}', 4))
    assert raw[:-19] == b'{"seq":17,"t":1732398301.123456,"kind":"log","step":4,"data":{"loss":0.3}'


@given(st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    """One wrong bit anywhere in a line fails its check, or is the newline's and leaves the line without an end."""
    raw = bytearray(line_of({"loss": 0.25, "note": "abc"}, 12, 3))
    at = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[at // 8] ^= 1 << (at % 8)
    assert record.check(bytes(raw)) is None


def test_a_line_is_at_most_a_mebibyte() -> None:
    """One byte more than 1 MiB is no line, however right its CRC is."""
    fixed = len(line_of({"x": ""}))
    assert record.check(line_of({"x": "a" * (record.MAX_LINE - fixed)})) is not None
    assert record.check(line_of({"x": "a" * (record.MAX_LINE - fixed + 1)})) is None


def test_another_writers_spelling_is_read_too() -> None:
    """Other field order, spaces and number spellings are the same format."""
    inside = b'{ "kind": "log", "t": 1.5e9, "data": {"a": 1}, "step": 2, "seq": 3'
    raw = b'%b,"crc":"%08x"}\n' % (inside, zlib.crc32(inside))
    line = record.check(raw)
    assert line is not None and (line.seq, line.t, line.record().data) == (3, 1.5e9, {"a": 1})


def sealed(inside: bytes) -> bytes:
    return b'%b,"crc":"%08x"}\n' % (inside, zlib.crc32(inside))


@pytest.mark.parametrize(
    "inside",
    [
        b"",
        b"{",
        b'{"seq":0,"t":1.000000,"kind":"log"',
        b'{"seq":-1,"t":1.000000,"kind":"log"',
        b'{"seq":1000000000000000000,"t":1.0,"kind":"log"',
        b'{"seq":true,"t":1.000000,"kind":"log"',
        b'{"seq":1,"t":"now","kind":"log"',
        b'{"seq":1,"t":1e300,"kind":"log"',
        b'{"seq":1,"t":1.000000,"kind":5',
        b"[1",
    ],
)
def test_a_right_crc_makes_no_record_of_nonsense(inside: bytes) -> None:
    """Bytes that are no record are none, whoever computed a CRC over them."""
    assert record.check(sealed(inside)) is None


@pytest.mark.parametrize(
    "inside",
    [
        b'{"seq":1,"t":1.000000,"kind":"log","data":[1]',
        b'{"seq":1,"t":1.000000,"kind":"log","step":"a","data":{}',
        b'{"seq":1,"t":1.000000,"kind":"log","data":{},"seq":"x"',
        b'{"seq":1,"t":1.000000,"kind":"log","data":{},"kind":[]',
        b'{"seq":1,"t":1.000000,"kind":"log","data":{',
    ],
)
def test_a_lying_header_is_found_out_when_parsed(inside: bytes) -> None:
    """Where only the header looks right, parsing raises ValueError, which every reader expects."""
    line = record.check(sealed(inside))
    assert line is not None
    with pytest.raises(ValueError):
        line.record()


@pytest.mark.parametrize(
    "nonfinite",
    [[5, None, {}], "x", {"a": 1}, [".".join("a" * 100_000)], ["a." * 40], ["deep" + ".a" * 255], ["1" * 5000]],
)
def test_a_hostile_nonfinite_list_does_no_harm(nonfinite: Any) -> None:
    """Whatever stands under `nonfinite`, the data is read, and quickly."""
    deep = b'{"a":' * 500 + b'"NaN"' + b"}" * 500
    inside = b'{"seq":1,"t":1.000000,"kind":"log","data":{"deep":%b,"list":[1],"ok":2},"nonfinite":%b' % (
        deep,
        orjson.dumps(nonfinite),
    )
    line = record.check(sealed(inside))
    assert line is not None and line.record().data["ok"] == 2


def test_a_logged_string_stays_a_string() -> None:
    """The text "NaN" and the number NaN are told apart, also beside each other and behind dotted keys."""
    data = {
        "a": "NaN",
        "b": math.nan,
        "c.d": math.inf,
        "c": {"d": "Infinity"},
        "e": {"f.g": -math.inf},
        "h": [math.nan, "NaN"],
    }
    found = record.decode(line_of({"a": data["a"], "b": data["b"], "e": data["e"], "h": data["h"]})).data
    assert same(found, {"a": "NaN", "b": math.nan, "e": {"f.g": -math.inf}, "h": [math.nan, "NaN"]})
    # Two places with one dotted path: the longest key that holds the text of a number is the number.
    assert same(record.decode(line_of({"c.d": "x", "c": {"d": math.inf}})).data, {"c.d": "x", "c": {"d": math.inf}})


def test_integers_beyond_64_bits_are_written_with_all_digits() -> None:
    """Every digit stands in the journal, for readers that can take them."""
    big = 3**100
    raw = line_of({"big": big, "small": -big})
    assert json.loads(raw)["data"] == {"big": big, "small": -big}
    assert record.decode(raw).data["big"] == pytest.approx(float(big))
