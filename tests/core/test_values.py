"""What a training may log: every library's numbers, every oddity of Python, and what to do with the rest."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pathlib
import random
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flightlog
from flightlog.journal import values

JournalOf = Callable[[Path], Any]


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: float
    inner: Any = None


def same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and (a == b or (a != a and b != b))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        (True, True),
        (None, None),
        (0.1, 0.1),
        ("text", "text"),
        (-0.0, -0.0),
        (5e-324, 5e-324),
        (math.nan, math.nan),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        ((1 << 64) - 1, (1 << 64) - 1),
        (-(1 << 63), -(1 << 63)),
        (1 << 64, float(1 << 64)),
        (10**30, 1e30),
        (-(10**30), -1e30),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.float64("nan"), math.nan),
        (np.float32("-inf"), -math.inf),
        (np.int64(-7), -7),
        (np.uint8(255), 255),
        (np.uint64((1 << 64) - 1), (1 << 64) - 1),
        (np.bool_(True), True),
        (np.str_("s"), "s"),
        (np.array(3.5), 3.5),
        (np.array([[2]]), 2),
        (np.array([1, 2]), [1, 2]),
        (np.array([1.0, math.nan]), [1.0, math.nan]),
        (decimal.Decimal("0.5"), 0.5),
        (decimal.Decimal("NaN"), math.nan),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        ((1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        ([math.nan, None, True, {"a": (1,)}], [math.nan, None, True, {"a": [1]}]),
        (Point(1.0, Point(2.0)), {"x": 1.0, "inner": {"x": 2.0, "inner": None}}),
        (len, "len"),
    ],
    ids=repr,
)
def test_values_are_recorded_as_what_they_are(value: Any, expected: Any, journal: JournalOf) -> None:
    """Scalars of every library become numbers, and come back with their type."""
    run = flightlog.init()
    run.log({"v": value, "beside": 1})
    run.finish()
    found = journal(run.dir)
    assert found.logged("beside") == [1]
    assert repr(found.logged("v")) == repr([expected])
    assert found.sound


class Raises:
    shape: tuple[int, ...] = ()

    def item(self) -> float:
        raise RuntimeError("CUDA error: device-side assert")


class RaisesText(Raises):
    shape = (1,)

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Key:
    def __init__(self, text: str | None) -> None:
        self.text = text

    def __str__(self) -> str:
        if self.text is None:
            raise RuntimeError("no text")
        return self.text


def itself() -> list[Any]:
    found: list[Any] = []
    found.extend([found, found])
    return found


def deep(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    "bad",
    [
        object(), b"bytes", bytearray(1), 1j, fractions.Fraction(1, 3), Raises(), RaisesText(), "\ud800", deep(50),
        itself(), decimal.Decimal("sNaN"), np.zeros(100_000), np.array([object()]), 10**5000,
        [1, object()], np.array(1j), (i for i in range(3)), {"\ud800"},
    ],
    ids=lambda bad: type(bad).__name__,
)  # fmt: skip
def test_a_bad_value_costs_its_key_with_one_warning(
    bad: Any, journal: JournalOf, capfd: pytest.CaptureFixture[str]
) -> None:
    """The other values of the call are kept, the training goes on, and the user is told once, with the name."""
    run = flightlog.init()
    for i in range(3):
        run.log({"before": i, "the_bad_one": bad, "after": -i})
    run.config["bad_setting"] = bad
    run.finish()
    found = journal(run.dir)
    assert found.logged("before") == [0, 1, 2] and found.logged("after") == [0, -1, -2]
    assert not found.logged("the_bad_one") and found.sound
    said = capfd.readouterr().err
    assert said.count("the_bad_one is left out") == 1 and len(re.findall(r"bad_setting(\.\d+)? is left out", said)) == 1


def test_keys_of_every_kind(journal: JournalOf) -> None:
    """Keys that are not text become text; one that has no text is named by its type; odd bytes are escaped."""
    run = flightlog.init()
    run.log({1: 1, (2, 3): 2, None: 3, Key("k"): 4, Key(None): 5, "\ud800": 6, "": 7, "ü\u2028": 8, 1.5: 9})  # type: ignore[dict-item]
    run.finish()
    data = journal(run.dir).of("log")[0].data
    assert data == {"1": 1, "1.5": 9, "(2, 3)": 2, "None": 3, "k": 4, "<Key>": 5, "\\ud800": 6, "": 7, "ü\u2028": 8}


def test_nested_mappings_are_joined_by_dots(journal: JournalOf) -> None:
    """Any kind of mapping, at any depth; what nests in itself costs only itself."""
    loop: dict[str, Any] = {"good": 1}
    loop["a"], loop["b"] = loop, loop
    nested: Any = {"x": 1}
    for _ in range(40):
        nested = {"n": nested}
    run = flightlog.init()
    data: dict[Any, Any] = {
        "a": {"b": {"c": 1}, "d": 2}, "e.f": 3, "m": types.MappingProxyType({"n": collections.OrderedDict(o=4)}),
        "loop": loop, "deep": nested, 5: {6: 7},
    }  # fmt: skip
    run.log(data)
    run.log(types.MappingProxyType({"plain": 1}))
    run.finish()
    data = journal(run.dir).of("log")[0].data
    assert {k: data[k] for k in ("a.b.c", "a.d", "e.f", "m.n.o", "loop.good", "5.6")} == {
        "a.b.c": 1, "a.d": 2, "e.f": 3, "m.n.o": 4, "loop.good": 1, "5.6": 7,
    }  # fmt: skip
    assert journal(run.dir).logged("plain") == [1]


def test_a_mix_of_nan_infinity_none_and_the_words_for_them(journal: JournalOf) -> None:
    """What JSON cannot say comes back as it was, and strings that look like it stay strings."""
    data = {
        "nan": math.nan, "inf": math.inf, "ninf": -math.inf, "none": None, "word": "NaN", "null": "null",
        "list": [math.nan, None, "Infinity"]
    }  # fmt: skip
    run = flightlog.init()
    run.log({"nan": math.nan, "x": 1})
    run.log({"nan": 1.0, "null": 2})
    run.log(data)
    run.finish()
    logs = journal(run.dir).of("log")
    assert [repr(r.data) for r in logs] == [
        repr({"nan": math.nan, "x": 1}), repr({"nan": 1.0, "null": 2}), repr(data),
    ]  # fmt: skip


def test_long_texts_become_files(journal: JournalOf) -> None:
    """A text of 2 MB goes to files/ by hash, and a short one stays a value."""
    run = flightlog.init()
    text = "ü" * (1 << 20)
    run.log({"long": text, "short": "s", "x": 1})
    run.finish()
    found = journal(run.dir)
    assert found.of("log")[0].data == {"short": "s", "x": 1}
    entry = found.of("media")[0].data["long"]
    assert entry["type"] == "text" and entry["size"] == 2 << 20
    assert (run.dir / "files" / entry["path"]).read_text() == text


@pytest.mark.parametrize("value", [1.5, math.nan, "t" * 10], ids=["number", "nan", "text"])
def test_a_hundred_thousand_keys_in_one_call(value: Any, journal: JournalOf) -> None:
    """What is too long for one line is divided, all at the same step, and every line can be read."""
    run = flightlog.init()
    count = 100_000 if value == 1.5 else 30_000
    data = {f"layer_with_a_rather_long_name_{i:06d}": value for i in range(count)}
    run.log(data, step=7)
    run.log({"next": 1})
    run.finish()
    found = journal(run.dir)
    logs = found.of("log")[:-1]
    assert found.sound and len(logs) > 1 and {r.step for r in logs} == {7}
    assert sum(len(r.data) for r in logs) == count
    assert {repr(v) for r in logs for v in r.data.values()} == {repr(value)}
    assert found.logged("next") == [1]


def test_a_value_too_long_for_any_line_is_named(journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """A list of 200,000 numbers costs its key, and the summary does not claim it."""
    run = flightlog.init(config={"huge": "x" * (2 << 20), "lr": 1})
    run.log({"huge": [random.random() for _ in range(200_000)], "x": 1})
    run.finish()
    assert journal(run.dir).of("log")[0].data == {"x": 1}
    assert run.summary.as_dict() == {"x": 1} and run.rundir.read_spec()["config"] == {"lr": 1}
    assert len(run.config["huge"]) == 2 << 20  # the script itself goes on with it
    assert "huge is left out: larger than 1 MiB" in capfd.readouterr().err


def test_spelling_and_paths_of_nonfinite_values() -> None:
    """The helper that the server shares spells values as the journal does."""
    assert values.spell([math.nan, {"a": math.inf}, "x"]) == ["NaN", {"a": "Infinity"}, "x"]
    assert values.nonfinite_paths({"a": {"": math.nan}, "": [0.0, math.inf], "b": "NaN"}) == ["a.", ".1"]


def test_a_logged_mapping_is_not_changed() -> None:
    """The caller's dict and its values stay as they are."""
    data = {"a": {"b": (1, 2)}, "t": np.array(1.0)}
    before = dict(data)
    flightlog.init().log(data)
    assert data == before and data["a"] is before["a"]
