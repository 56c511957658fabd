"""Histograms, pages, figures and long texts; what is recognised without being named; files that change under us."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import flightlog
from flightlog.media import Audio, Histogram, Html, Image, Plotly, Table, Text, Video, divide, recognise
from flightlog.media import payload as payloads

JournalOf = Callable[[Path], Any]


@pytest.fixture
def one(journal: JournalOf) -> Callable[[Any], Any]:
    """Log a value and return what its media record says, the run's files, or None where it was left out."""

    def log(value: Any) -> Any:
        with flightlog.init() as run:
            run.log({"x": 1, "value": value})
        found = journal(run.dir)
        assert found.logged("x") == [1] and found.sound
        return next(((r.data["value"], run.dir / "files") for r in found.of("media")), None)

    return log


# -- histograms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        np.arange(1000.0), [1, 2, 2, 3], np.linspace(-1, 1, 100).reshape(4, 25), np.array([True, False, True]),
        np.full(5, 3e38, np.float32), np.arange(7, dtype=np.float16), [1e300, -1e300],
        [1e-320, 2e-320], [1e16, 1e16 + 2],
    ],
    ids=lambda x: f"{type(x).__name__}-{getattr(x, 'dtype', '')}",
)  # fmt: skip
def test_a_histogram_counts_every_value(data: Any, one: Any) -> None:
    """Whatever the numbers, each is in one bin, the edges rise, and the entry is small enough for the journal."""
    entry, files = one(Histogram(data))
    assert sum(entry["counts"]) == np.size(data) and len(entry["edges"]) == len(entry["counts"]) + 1 == 65
    assert all(a < b for a, b in zip(entry["edges"], entry["edges"][1:], strict=False))
    assert entry["type"] == "histogram" and "path" not in entry and not (files / "media").exists()


def test_a_histogram_is_numpys() -> None:
    """Counts and edges are numpy.histogram's; one that is given is kept; NaN and infinities are counted apart."""
    values = np.random.default_rng(0).normal(size=10_000)
    counts, edges = np.histogram(values, bins=20)
    made = Histogram([*values, math.nan, math.inf, -math.inf], num_bins=20)
    given = Histogram(np_histogram=(counts, edges))
    assert made.histogram == given.histogram == counts.tolist()
    assert np.allclose(made.bins, edges) and given.bins == edges.tolist()
    assert made._entry["nonfinite"] == 3
    values[:] = 0
    assert made.histogram == counts.tolist()


def test_a_generators_values_are_counted() -> None:
    """Up to a bound, since it may have no end; a map or a filter is one, too."""
    for made in (Histogram(n / 2 for n in range(5)), Histogram(map(float, range(3)))):
        assert sum(made.histogram) in (3, 5)


def test_a_histogram_of_more_than_a_block_is_numpys_too() -> None:
    """Counted a block at a time, with NaN on the way, it is the same."""
    values = np.random.default_rng(2).normal(size=(3, 700_001)).astype(np.float32)
    values[1, 5] = math.nan
    counts, edges = np.histogram(values[np.isfinite(values)].astype(float), bins=64)
    made = Histogram(values.T)
    assert made.histogram == counts.tolist() and np.allclose(made.bins, edges) and made._entry["nonfinite"] == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Histogram(), lambda: Histogram([]), lambda: Histogram([math.nan]), lambda: Histogram(["a"]),
        lambda: Histogram([1], num_bins=0), lambda: Histogram([1], num_bins=513), lambda: Histogram(iter("ab")),
        lambda: Histogram(itertools.count()), lambda: Histogram(iter([])),
        lambda: Histogram([1], num_bins="x"),  # type: ignore[arg-type]
        lambda: Histogram(np_histogram=([1, 2], [0, 1])), lambda: Histogram(np_histogram=([1], [1, 0])),
        lambda: Histogram(np_histogram=([1], [0, math.inf])), lambda: Histogram(np_histogram=5),  # type: ignore[arg-type]
        lambda: Histogram([-1.7e308, 1.7e308]), lambda: Html(7), lambda: Html(None), lambda: Html(Path("missing.html")),
        lambda: Html("missing.html"), lambda: Html("x" * ((64 << 20) + 1)), lambda: Plotly(7), lambda: Plotly(None),
        lambda: Plotly({"data": [object()]}), lambda: Text("x" * ((64 << 20) + 1)), lambda: Image(n for n in [1]),
        lambda: Audio(None), lambda: Video(None), lambda: Audio("missing.wav"), lambda: Video("missing.mp4"),
    ],
)  # fmt: skip
def test_what_cannot_be_costs_its_key(make: Any, one: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing raises when it is made or logged; the rest of the call is kept, and one warning names the key."""
    assert one(make()) is None
    said = capfd.readouterr().err
    assert said.count("warning:") == 1 and "value is left out: " in said and not said.strip().endswith("out:")


# -- pages -------------------------------------------------------------------------------------------------------------


def test_pages(one: Any, tmp_path: Path) -> None:
    """A text, a path as text or Path, an open file: each becomes an .html file."""
    page = "<p>grüße</p>"
    Path("page.html").write_text(page)
    for given in (page, "page.html", Path("page.html"), io.StringIO(page), io.BytesIO(page.encode())):
        entry, files = one(Html(given, inject=False, caption="c"))
        assert (files / entry["path"]).read_text() == page
        assert entry["type"] == "html" and entry["path"].endswith(".html") and entry["caption"] == "c"
    entry, files = one(Html("page.html", data_is_not_path=True))
    assert (files / entry["path"]).read_text().endswith("page.html")


@pytest.mark.parametrize(
    ("page", "before"),
    [
        ("<p>x", ""), ("<!DOCTYPE html><p>x", "<!DOCTYPE html>"), ("<html><p>x", "<html>"), ("<header>x", ""),
        ('<html lang="de"><HEAD data-x="1"><title>', '<html lang="de"><HEAD data-x="1">'), ("<head", ""), ("", ""),
    ],
)  # fmt: skip
def test_what_is_injected_goes_into_the_head(page: str, before: str) -> None:
    """Charset and link target stand where a browser heeds them, and the page is otherwise what it was."""
    content = Html(page).encode()[0]
    assert isinstance(content, bytes)
    text = content.decode()
    at = text.index('<meta charset="utf-8">')
    assert text[:at] == before and text.endswith(page[len(before) :])
    assert "http" not in text


# -- figures -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pyplot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """matplotlib's pyplot, without a display, and without figures left open behind."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    module = pytest.importorskip("matplotlib.pyplot")
    yield module
    module.close("all")


def test_figures_of_matplotlib(pyplot: Any, one: Any) -> None:
    """A figure, one that is closed, its axes, and pyplot itself are logged as they are, as images."""
    figure, axes = pyplot.subplots()
    axes.plot([1, 2, 3])
    for given in (figure, axes, pyplot):
        entry, files = one(given)
        with PIL.Image.open(files / entry["path"]) as picture:
            assert entry["type"] == "image" and picture.size == (entry["width"], entry["height"])
    pyplot.close(figure)
    assert one(figure)[0]["type"] == "image"
    assert [entry["type"] for entry in one([figure, PIL.Image.new("L", (2, 2))])[0]] == ["image", "image"]


def test_pyplot_without_a_figure(pyplot: Any, one: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """It is left out, and pyplot has no empty figure afterwards."""
    assert one(pyplot) is None and not pyplot.get_fignums()
    assert "no figure of pyplot is open" in capfd.readouterr().err


def test_figures_of_plotly(one: Any) -> None:
    """A figure logged as it is, as Plotly or as its dict becomes plotly's JSON, as it was when it was given."""
    graph_objects = pytest.importorskip("plotly.graph_objects")
    figure = graph_objects.Figure(data=[{"type": "scatter", "y": [3, 1, 2]}], layout={"title": {"text": "t"}})
    kept = Plotly(figure, caption="c")
    entry, files = one(figure)
    assert entry["type"] == "plotly" and entry["path"].endswith(".plotly.json")
    document = json.loads((files / entry["path"]).read_text())
    assert list(document["data"][0]["y"]) == [3, 1, 2] and document["layout"]["title"]["text"] == "t"
    figure.data = []
    entry, files = one(kept)
    assert entry["caption"] == "c" and json.loads((files / entry["path"]).read_text()) == document
    entry, files = one(Plotly({"data": [{"y": [1.0, math.nan]}]}))
    assert json.loads((files / entry["path"]).read_text()) == {
        "data": [{"y": [1.0, "NaN"]}], "nonfinite": ["data.0.y.1"],
    }  # fmt: skip


def test_a_matplotlib_figure_is_no_plotly(pyplot: Any, one: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The warning says how it is logged instead."""
    assert one(Plotly(pyplot.figure())) is None
    assert "logged as it is" in capfd.readouterr().err


# -- recognition -------------------------------------------------------------------------------------------------------


def test_what_is_recognised() -> None:
    """DataFrames, pictures and long texts are media by their types; numbers, texts, arrays, lists of these are not."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    picture = PIL.Image.new("L", (2, 2))
    assert isinstance(recognise("k", pandas.DataFrame({"a": [1]})), Table)
    assert isinstance(recognise("k", polars.DataFrame({"a": [1]})), Table)
    assert isinstance(recognise("k", picture), Image)
    assert isinstance(recognise("k", "x" * ((64 << 10) + 1)), Text)
    media = Text("t")
    assert recognise("k", media) is media and recognise("k", (media, media)) == [media, media]
    ordinary = (
        1, 1.5, True, None, "text", b"bytes", [1, 2], [], (), {"a": 1}, np.zeros(3), np.float32(1),
        [np.zeros(2)], [media, 1], [1, media], object(), int, os, Path("x"), lambda: 1, pandas.Series([1]), iter([1]),
    )  # fmt: skip
    assert [value for value in ordinary if recognise("k", value) is not None] == []


def test_recognition_imports_nothing() -> None:
    """Asking about ordinary values, and importing the module, loads no library that could make figures or arrays."""
    code = (
        "import sys, decimal; from flightlog.media import recognise\n"
        "import flightlog.plot\n"
        "assert [recognise('k', v) for v in (1, 'x', [1], decimal.Decimal(1), sys, object())] == [None] * 6\n"
        "names = {'numpy', 'PIL', 'matplotlib', 'pandas', 'polars', 'plotly', 'imageio_ffmpeg', 'torch', 'soundfile'}\n"
        "print(names & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_is_missing_is_named_with_the_command(script: Any) -> None:
    """Without the optional packages each kind says at the call what to install; the other values are kept."""
    source = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numpy", "PIL", "imageio_ffmpeg", "pandas"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import flightlog
from flightlog import plot
from flightlog.media import *

import zlib
def chunk(kind, data=b""):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
open("a.png", "wb").write(b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", b"\\0\\0\\0\\1\\0\\0\\0\\1\\x08\\0\\0\\0\\0")
                          + chunk(b"IDAT", zlib.compress(b"\\0\\0")) + chunk(b"IEND"))
with flightlog.init() as run:
    table = Table(columns=["a", "b"], data=[[1, "x"], [2.5, None]])
    run.log({
        "x": 1, "file": Image("a.png"), "table": table, "line": plot.line(table, "a", "a"), "text": Text("t"),
        "html": Html("<p>"), "image": Image([[1]]), "audio": Audio([0.0], sample_rate=1), "video": Video([[[1]]]),
        "histogram": Histogram([1]), "roc": plot.roc_curve([0, 1], [0.1, 0.9]), "hist": plot.histogram(table, "a"),
        "confusion": plot.confusion_matrix(y_true=[0], preds=[0]),
    })
"""
    said = script(source).stderr
    missing = ["image", "audio", "video", "histogram", "roc", "hist", "confusion"]
    assert [line.split()[3] for line in said.splitlines() if "is left out" in line] == missing
    assert said.count("pip install") >= len(missing)


# -- files that change under us ----------------------------------------------------------------------------------------

BIG = payloads.IN_MEMORY + 12_345
MP4 = b"\0\0\0\x18ftypisom"


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file that says it is a video and is too large for memory."""
    path = tmp_path / "big.mp4"
    path.write_bytes(MP4 + bytes(range(256)) * ((BIG - len(MP4)) // 256 + 1))
    return path


def test_a_large_file_outlives_its_name(big: Path, one: Any) -> None:
    """It is copied as it was, although it was deleted, and its name given to another, before it was logged."""
    content = big.read_bytes()
    video = Video(big)
    big.unlink()
    big.write_bytes(b"another")
    for _ in range(2):  # logged twice, it is read twice
        entry, files = one(video)
        assert (files / entry["path"]).read_bytes() == content
        assert (entry["size"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert sorted(p.name for p in (files / "media" / "value").iterdir()) == [Path(entry["path"]).name]


@pytest.mark.parametrize("change", ["overwritten", "grown", "truncated"])
def test_a_large_file_changed_in_place_is_refused(
    change: str, big: Path, one: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is neither the old nor the new file is never kept as if it were one; nothing is left behind of it."""
    video = Video(big)
    with big.open("r+b") as file:
        if change == "overwritten":
            file.write(b"\0" * 100)
        elif change == "grown":
            file.seek(0, os.SEEK_END)
            file.write(b"more")
        else:
            file.truncate(BIG // 2)
    os.utime(big, ns=(1, 1))
    assert one(video) is None
    assert "has changed since" in capfd.readouterr().err
    assert not list(Path("flightlog").rglob(".copy.*"))


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_descriptors_are_left_to_the_training(big: Path, one: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A thousand large videos hold 64 descriptors; the others are opened anew, and must be the same file."""
    before = descriptors()
    videos = [Video(big) for _ in range(1000)]
    assert descriptors() - before <= payloads.MAX_HELD
    assert one(videos[-1])[0]["size"] == big.stat().st_size
    big.rename(big.with_name("old.mp4"))
    big.write_bytes(b"another")
    assert one(videos[-1]) is None
    assert one(videos[0])[0]["size"] > BIG
    videos.clear()
    assert descriptors() <= before
    assert "has changed since" in capfd.readouterr().err


def test_a_file_that_is_being_written_is_refused(tmp_path: Path) -> None:
    """A small file that grows while it is read is kept as it stood at one moment, or refused."""
    path = tmp_path / "page.html"
    path.write_bytes(b"<p>")
    stop = threading.Event()

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.is_set() and file.tell() < 6 << 20:
                file.write(b"x" * 4096)

    writer = threading.Thread(target=grow)
    writer.start()
    outcomes = set()
    for _ in range(50):
        page = Html(path, inject=False)
        try:
            content = page.encode()[0]
            assert isinstance(content, bytes) and content == b"<p>" + b"x" * (len(content) - 3)
            outcomes.add("kept")
        except (flightlog.UsageError, OSError) as error:
            assert "changes while it is read" in str(error)
            outcomes.add("refused")
    stop.set()
    writer.join()
    assert outcomes


@pytest.mark.parametrize("make", [Audio, Video, Image, Html])
def test_pipes_devices_and_folders_are_no_files(make: Any, tmp_path: Path, one: Any) -> None:
    """A FIFO is refused at once, not waited for; so are devices, folders, a NUL in the name, links in a circle."""
    names = {"pipe": ".png", "folder": ".png", "circle": ".png"}
    pipe, folder, circle = (tmp_path / f"{name}{suffix}" for name, suffix in names.items())
    os.mkfifo(pipe)
    folder.mkdir()
    circle.symlink_to(circle)
    for path in (pipe, folder, circle, Path("/dev/zero"), Path("a\0b.png"), Path()):
        assert one(make(path)) is None


def test_a_file_too_large_is_refused_unread(tmp_path: Path, one: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The warning says that it goes into an artifact."""
    for make, suffix in ((Image, ".png"), (Html, ".html"), (Audio, ".wav"), (Video, ".mp4")):
        path = tmp_path / f"huge{suffix}"
        with path.open("wb") as file:
            file.truncate(3 << 30)
        assert one(make(path)) is None
    assert "artifact" in capfd.readouterr().err


# -- records -----------------------------------------------------------------------------------------------------------


def test_records_are_divided_by_number_and_by_size() -> None:
    """No record has more than 1000 entries or half a mebibyte, order is kept, and a single entry stays single."""
    small, large = {"type": "image", "path": "p"}, {"type": "image", "caption": "c" * 4000}
    entries: dict[str, Any] = {"a": [small] * 2500, "b": large, "c": [large] * 300, "d": [small], "e": small}
    records = list(divide(entries))
    for record in records:
        assert sum(len(v) if isinstance(v, list) else 1 for v in record.values()) <= 1000
        assert len(json.dumps(record)) < 600_000
    for key, value in entries.items():
        found = [record[key] for record in records if key in record]
        assert [x for v in found for x in v] == value if isinstance(value, list) else found == [value]
    assert list(divide({})) == []
