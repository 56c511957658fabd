"""Tables: what goes in comes out of the file, media in cells are stored once, and what is too large is refused."""

from __future__ import annotations

import copy
import datetime
import enum
import hashlib
import itertools
import json
import math
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flightlog
import flightlog.plot
from flightlog.media import Audio, Histogram, Html, Image, Plotly, Table, Text, Video
from flightlog.media.base import KeyFolder
from flightlog.media.table import MAX_ROWS
from flightlog.media.table_file import MAX_BYTES, MAX_MEDIA
from flightlog.protocol.messages import files_named_by

JournalOf = Callable[[Path], Any]
GRAY = np.arange(42, dtype=np.uint8).reshape(6, 7)


def written(table: Table, files: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Write a table; return its entry, its file with NaN and infinities back in their places, and its parts."""
    folder = KeyFolder(files, "table")
    entry = table.write(folder)
    content = (files / entry["path"]).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["size"], entry["sha256"])
    document = json.loads(content)
    for path in document.pop("nonfinite", ()):
        *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        place = document["rows"]
        for key in above:
            place = place[key]
        assert place[last] in ("NaN", "Infinity", "-Infinity")
        place[last] = float(place[last])
    assert (entry["rows"], entry["columns"]) == (len(document["rows"]), len(document["columns"]))
    return entry, document, folder.parts


class Colour(enum.Enum):
    RED = "red"


def test_cells_of_every_kind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Numbers of any library, texts, dates, lists and mappings come out as they are; types are those of the columns."""
    table = Table(
        columns=["n", "t", "b", "j", "m", "z"],
        data=[
            [np.float32(0.5), "grüße", True, [1, [2, math.nan]], 1, None],
            [np.array([3]), Colour.RED, np.bool_(False), {"a": math.inf, "b": None}, "x", None],
            [1 << 70, datetime.date(2026, 1, 2), None, (1, 2), None, None],
            [-math.inf, "\udcff\u2028", True, np.arange(3), True, None],
        ],
    )
    entry, document, parts = written(table, tmp_path)
    assert document["types"] == ["number", "string", "boolean", "json", "mixed", "null"]
    assert document["columns"] == ["n", "t", "b", "j", "m", "z"] and not parts
    assert entry["type"] == "table" and entry["path"].endswith(".table.json")
    first, *others = document["rows"]
    assert (
        first[:3] == [0.5, "grüße", True] and first[3][0] == 1 and math.isnan(first[3][1][1]) and first[4:] == [1, None]
    )
    assert others == [
        [3, "red", False, {"a": math.inf, "b": None}, "x", None],
        [1 << 70, "2026-01-02", None, [1, 2], None, None],
        [-math.inf, "\\udcff\u2028", True, [0, 1, 2], True, None],
    ]
    assert not capfd.readouterr().err


_texts = st.text(st.characters(exclude_categories=[]), max_size=8)
_cells = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(1 << 80), 1 << 80) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex("[a-z]{1,4}", fullmatch=True), inner),
    max_leaves=5,
)


@settings(max_examples=40)
@given(st.data())
def test_whatever_the_cells_the_file_says_what_they_were(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Any JSON-like rows, NaN, huge integers and lone surrogates among them, can be read back from the file."""
    width = data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.lists(_cells, min_size=width, max_size=width), max_size=5))
    _, document, _ = written(Table([*range(width)], rows), tmp_path_factory.mktemp("table"))

    def same(got: Any, put: Any) -> bool:
        if isinstance(put, float):
            return got == put or (put != put and got != got)
        if isinstance(put, list):
            return len(got) == len(put) and all(map(same, got, put))
        if isinstance(put, dict):
            return [*got] == [*put] and all(same(got[key], put[key]) for key in put)
        return bool(got == (put.encode("utf-8", "backslashreplace").decode() if isinstance(put, str) else put))

    assert same(document["rows"], rows)


def test_media_in_cells_are_stored_once(tmp_path: Path, journal: JournalOf) -> None:
    """Cells hold entries; each file is there once, and named by a part of the record before the table's entry."""
    same = Image(GRAY, caption="same")
    table = Table(["picture", "sound", "any", "figure"])
    for at in range(50):
        table.add_data(same if at % 2 else Image(GRAY), Audio(np.zeros(9), 8000), at, PIL.Image.fromarray(GRAY + at))
    table.add_data(None, None, Text("t"), Image(GRAY, boxes={"a": {"box_data": []}}))
    table.add_data(None, None, {"path": "../../etc/passwd"}, None)
    with flightlog.init() as run:
        run.log({"t": table})
    *parts, entry = journal(run.dir).of("media")[0].data["t"]
    files = run.dir / "files"
    document = json.loads((files / entry["path"]).read_text())
    assert document["types"] == ["image", "audio", "media", "image"]
    assert document["rows"][1][0]["caption"] == "same" and document["rows"][0][1]["sample_rate"] == 8000
    assert document["rows"][50][2]["type"] == "text" and document["rows"][51][2] == '{"path":"../../etc/passwd"}'
    named = {part["path"]: part for part in parts}
    assert [file.path for file in files_named_by("media", {"t": [*parts, entry]})] == [*named, entry["path"]]
    assert len(named) == len(parts) == 50 + 1 + 1 + 1  # pictures, a sound, a text, annotations
    on_disk = {path.relative_to(files).as_posix() for path in (files / "media").rglob("*") if path.is_file()}
    assert on_disk == {*named, entry["path"]}
    cells = [cell for row in document["rows"] for cell in row if isinstance(cell, dict)]
    assert {cell["path"] for cell in cells} <= {*named}
    for path, part in named.items():
        assert part["type"] == "part" and hashlib.sha256((files / path).read_bytes()).hexdigest() == part["sha256"]


def test_every_kind_of_media_in_one_row(tmp_path: Path) -> None:
    """Histograms have no file; all others have; a table in a table is kept too."""
    media = [
        Image(GRAY), Audio([0.0], 8000), Video(np.zeros((1, 4, 4), np.uint8), format="gif"), Html("<p>"), Text("t"),
        Plotly({"data": []}), Histogram([1, 2]), Table(["a"], [[1]]),
        flightlog.plot.line(Table(["x", "y"], [[1, 2]]), "x", "y"),
    ]  # fmt: skip
    _, document, parts = written(Table([m.kind for m in media], [media]), tmp_path)
    assert [cell["type"] for cell in document["rows"][0]] == [m.kind for m in media]
    assert len(parts) == len(media) - 1


def test_a_table_is_a_snapshot(journal: JournalOf) -> None:
    """What was logged stays, whatever is added later; cells are captured as they are added."""
    cell = [1, 2]
    table = Table(columns=["a"])
    with flightlog.init() as run:
        run.log({"t": table})
        table.add_data(cell)
        cell.append(3)
        run.log({"t": table})
        table.add_row("later")
        run.log({"t": table})
    files = run.dir / "files"
    entries = [record.data["t"] for record in journal(run.dir).of("media")]
    rows = [json.loads((files / entry["path"]).read_text())["rows"] for entry in entries]
    assert rows == [[], [[[1, 2]]], [[[1, 2]], ["later"]]]


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_dataframes(name: str, journal: JournalOf) -> None:
    """A DataFrame as data, dataframe, or logged as it is; missing values are None, times are texts."""
    pytest.importorskip("pandas")
    library = pytest.importorskip(name)
    moments = [datetime.datetime(2026, 1, 2, 3, 4), None]
    frame = library.DataFrame({"n": [1.5, math.nan], "t": ["ä", None], "when": moments, "i": [1, 2]})
    kept = Table(dataframe=frame)
    expected = kept.data
    assert [row[1:] for row in expected] == [["ä", "2026-01-02T03:04:00", 1], [None, None, 2]]
    assert expected[0][0] == 1.5 and math.isnan(expected[1][0])
    assert list(kept.get_dataframe().columns) == kept.columns
    assert Table(data=frame).columns == kept.columns == ["n", "t", "when", "i"]
    assert Table(columns=["i", "n"], dataframe=frame).columns == ["n", "i"]
    with flightlog.init() as run:
        run.log({"frame": frame, "empty": library.DataFrame()})
    data = journal(run.dir).of("media")[0].data
    assert (data["frame"]["rows"], data["frame"]["columns"], data["empty"]["rows"]) == (2, 4, 0)


def test_pandas_with_repeated_names_and_odd_dtypes(capfd: pytest.CaptureFixture[str]) -> None:
    """Columns of one name stay apart; categories, nullable integers, time spans, intervals are kept as they can be."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.concat(
        [pandas.Series([1, None], dtype="Int64"), pandas.Series(["a", "b"], dtype="category")], axis=1
    )
    frame.columns = ["same", "same"]
    frame["span"] = pandas.to_timedelta(["1D", None])
    frame["interval"] = pandas.interval_range(0, 2)
    table = Table(dataframe=frame)
    assert table.data == [[1, "a", "1 days 00:00:00", "(0, 1]"], [None, "b", None, "(1, 2]"]]
    said = capfd.readouterr().err
    assert "'span' a Timedelta is kept as its text" in said and "'interval' a Interval is kept as its text" in said


def test_arrays_and_columns() -> None:
    """Rows of a numpy array; columns added and read, as wandb's tables have them."""
    assert Table(data=np.arange(6).reshape(3, 2)).data == [[0, 1], [2, 3], [4, 5]]
    assert Table(rows=[[1, 2, 3]]).columns == ["Input", "Output", "Expected"] == Table().columns
    table = Table(columns=["a"], data=[[1], [2]])
    table.add_column("b", np.array([0.5, 1.5]))
    table.add_column("c", ["x", Text("t")])
    assert table.columns == ["a", "b", "c"] and table.get_column("b") == [0.5, 1.5] and len(table) == 2
    assert table.get_column("a", convert_to="numpy").sum() == 3
    assert [(at, row[:2]) for at, row in table.iterrows()] == [(0, [1, 0.5]), (1, [2, 1.5])]
    assert Table(columns=table.columns, data=table.data).data == table.data
    fresh = Table(columns=[])
    fresh.add_column("x", [1, 2])
    assert fresh.data == [[1], [2]]
    with pytest.raises(flightlog.UsageError, match="no column 'z'; it has 'a', 'b', 'c'"):
        table.get_column("z")


def test_rows_that_do_not_fit_are_left_out(journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """A ragged row or column costs itself, with one warning, and the entry says how many there were."""
    with flightlog.init() as run:
        table = Table(columns=["a", "b"], data=[[1, 2], [3]])
        table.add_data(1, 2, 3)
        table.add_data(5, 6)
        table.add_column("c", [1])
        table.add_column("c", 7)  # type: ignore[arg-type]
        table.add_column("c", Hostile())  # type: ignore[arg-type]
        run.log({"x": 1, "t": table})
    entry = journal(run.dir).of("media")[0].data["t"]
    assert (entry["rows"], entry["columns"], entry["left_out"]) == (2, 2, 5)
    assert capfd.readouterr().err.count("is left out") == 1


class Hostile:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_cells_that_have_no_form_are_kept_as_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An object, bytes, a huge array, a cell that holds itself, one whose str() raises: one warning a column."""
    circle: list[Any] = []
    circle.append(circle)
    identity = uuid.UUID(int=1)
    table = Table(["a"], [[object], [b"bytes"], [np.zeros(100_000)], [circle], [Hostile()], [identity], [2**2000]])
    _, document, _ = written(table, tmp_path)
    texts = [row[0] for row in document["rows"]]
    assert texts[0] == "object" and texts[1] == "b'bytes'" and texts[2].startswith("[0. 0.") and texts[4] == "<Hostile>"
    assert texts[5] == str(identity) and all(isinstance(text, str) and len(text) <= 1000 for text in texts)
    assert capfd.readouterr().err.count("kept as its text") == 1


def endless() -> Any:
    while True:
        yield [1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Table(columns=5),  # type: ignore[arg-type]
        lambda: Table(columns=["a"], data=7), lambda: Table(data="text"), lambda: Table(columns=["a"], data=endless()),
        lambda: Table(columns=endless()), lambda: Table(dataframe=[[1]]), lambda: Table(data=[object()]),
        lambda: Table(columns=[str(i) for i in range(10_001)]), lambda: Table(data=np.array(5)),
        lambda: Table(columns=["a"], data=np.zeros((MAX_ROWS + 1, 1))),
        lambda: Table(data=np.broadcast_to(np.int8(0), (1000, 1 << 40))),
        lambda: Table(columns=["a"], data=[[1]] * (MAX_ROWS + 1)),
        lambda: Table(columns=["a"], data=[["x" * (MAX_BYTES // 4)]] * 5),
        lambda: Table(columns=["a"], data=[["\0" * (MAX_BYTES // 5)]]),
        lambda: Table(columns=["a"], data=[[Image("missing.png")]]),
    ],
)  # fmt: skip
def test_tables_that_cannot_be(make: Any, journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """No table, no end of it, too many rows, columns or bytes, a cell that is no image: each costs its key."""
    with flightlog.init() as run:
        table = make()
        table.add_data(1)
        run.log({"x": 1, "t": table})
    assert journal(run.dir).logged("x") == [1] and not journal(run.dir).of("media")
    assert capfd.readouterr().err.count("t is left out") == 1


def test_rows_added_beyond_the_limit(tmp_path: Path) -> None:
    """A loop that never ends takes no more memory than a full table, and the table is refused."""
    table = Table(columns=["a"])
    for at in range(MAX_ROWS + 1000):
        table.add_data(at)
    assert len(table) == MAX_ROWS
    with pytest.raises(flightlog.UsageError, match="more than 200,000 rows"):
        written(table, tmp_path)


def test_more_pictures_than_a_folder_should_hold(tmp_path: Path) -> None:
    """Beyond 20,000 media a table is refused; so many of them make records that can all be read."""
    picture = Image(GRAY)
    _, document, parts = written(Table(["a"], [[picture]] * (MAX_MEDIA + 1)), tmp_path)
    assert len(document["rows"]) == MAX_MEDIA + 1 and len(parts) == 1
    one = Histogram([1])
    with pytest.raises(flightlog.UsageError, match="more than 20,000 media"):
        written(Table(["a"], [[copy.copy(one)] for _ in range(MAX_MEDIA + 1)]), tmp_path)


def test_a_dataframe_too_large_is_refused_unconverted(capfd: pytest.CaptureFixture[str]) -> None:
    """Its shape is enough to say so."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.zeros(MAX_ROWS + 1, np.int8)})
    table = Table(dataframe=frame)
    assert not len(table)
    with pytest.raises(flightlog.UsageError, match="artifact"):
        table.write(KeyFolder(Path(), "t"))


def test_a_table_in_itself_costs_its_key(capfd: pytest.CaptureFixture[str]) -> None:
    """One sentence, whatever the way around; a table in a table is kept."""
    inner = flightlog.Table(columns=["b"], data=[[1]])
    outer = flightlog.Table(columns=["a"], data=[[inner], [inner]])
    loop = flightlog.Table(columns=["a"])
    loop.add_data(flightlog.Table(columns=["b"], data=[[loop]]))
    with flightlog.init() as run:
        run.log({"x": 1, "loop": loop, "outer": outer})
    (found,) = flightlog.Api(run.dir).runs()
    assert [entry["key"] for entry in found.media()] == ["outer"] and found.history()[0]["x"] == 1
    assert "loop is left out: Table(): it holds itself" in capfd.readouterr().err


def test_rows_and_columns_come_from_generators_too(capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever can be iterated, up to the bound of rows; one without an end costs its key."""
    table = flightlog.Table(columns=["a", "b"], data=([n, str(n)] for n in range(3)))
    table.add_column("c", (n * n for n in range(3)))
    table.add_column("d", {"x": 1, "y": 2, "z": 3}.values())
    assert table.data == [[0, "0", 0, 1], [1, "1", 1, 2], [2, "2", 4, 3]]
    assert flightlog.Table(columns=["a"], data=zip([1, 2])).data == [[1], [2]]
    with flightlog.init() as run:
        run.log({"endless": flightlog.Table(columns=["a"], data=([n] for n in itertools.count()))})
    assert "endless is left out" in capfd.readouterr().err
