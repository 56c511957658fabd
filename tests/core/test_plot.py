"""Plots: the files are as documented, and what is wrong costs its key."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flightlog
from flightlog import plot
from flightlog.media import Plot, Table, Text

JournalOf = Callable[[Path], Any]


def drawn(chart: Plot) -> dict[str, Any]:
    """Return the file of a plot; what its entry says must be in it."""
    content, suffix, facts = chart.encode()
    assert suffix == ".plot.json" and isinstance(content, bytes)
    document: dict[str, Any] = json.loads(content)
    assert {key: document[key] for key in facts} == facts
    return document


# -- charts of a table -------------------------------------------------------------------------------------------------


HUGE = np.broadcast_to(np.int8(0), (1 << 40,))
TABLE = Table(["step", "loss", "name"], [[0, 1.0, "a"], [1, math.nan, "b"], [2, None, "a"]])


def test_lines_and_points() -> None:
    """Series of x and y, one for each value of the stroke column; NaN is spelled as in the journal."""
    assert drawn(plot.line(TABLE, "step", "loss", title="t")) == {
        "plot": "line", "title": "t", "x": "step", "y": "loss",
        "series": [{"name": None, "x": [0, 1, 2], "y": [1.0, "NaN", None]}], "nonfinite": ["series.0.y.1"],
    }  # fmt: skip
    by_name = drawn(plot.line(TABLE, "step", "loss", stroke="name"))["series"]
    assert by_name == [{"name": "a", "x": [0, 2], "y": [1.0, None]}, {"name": "b", "x": [1], "y": ["NaN"]}]
    assert drawn(plot.scatter(TABLE, "loss", "step", "s"))["plot"] == "scatter"
    assert drawn(plot.line(TABLE, x="name", y="step"))["series"][0]["x"] == ["a", "b", "a"]


def test_bars_and_histograms() -> None:
    """Bars by label; a column's numbers in bins, without what is missing or not finite."""
    assert drawn(plot.bar(TABLE, "name", "step"))["series"] == [{"name": None, "x": ["a", "b", "a"], "y": [0, 1, 2]}]
    found = drawn(plot.histogram(TABLE, "loss", "h", num_bins=4))
    assert (found["plot"], found["x"], sum(found["counts"]), len(found["edges"])) == ("histogram", "loss", 1, 5)
    values = np.random.default_rng(0).normal(size=500)
    found = drawn(plot.histogram(Table(["v"], values[:, None]), "v"))
    counts, edges = np.histogram(values, bins=64)
    assert found["counts"] == counts.tolist() and np.allclose(found["edges"], edges)


def test_line_series() -> None:
    """One x for all lines or one for each; arrays as well as lists."""
    found = drawn(plot.line_series([0, 1], [[1, 2], [3, 4]], keys=["a", "b"], title="t", xname="step"))
    assert found["series"] == [{"name": "a", "x": [0, 1], "y": [1, 2]}, {"name": "b", "x": [0, 1], "y": [3, 4]}]
    assert (found["plot"], found["x"], found["title"]) == ("line", "step", "t")
    found = drawn(plot.line_series(np.eye(2), np.eye(2)))
    assert found["series"][1] == {"name": "1", "x": [0.0, 1.0], "y": [0.0, 1.0]}


def test_a_plot_is_what_the_table_was() -> None:
    """Rows added later do not reach it."""
    table = Table(["x", "y"], [[0, 1]])
    chart = plot.line(table, "x", "y")
    table.add_data(1, 2)
    assert drawn(chart)["series"][0]["x"] == [0]


# -- charts of a classifier (their numbers: test_media_curves.py) ------------------------------------------------------


def test_classes_that_do_not_occur_have_their_row() -> None:
    """With class_names, or scores, the matrix has all classes, in order."""
    found = drawn(plot.confusion_matrix(y_true=[2.0, True], preds=["c", "b"], class_names=["a", "b", "c"]))
    assert found["counts"] == [[0, 0, 0], [0, 1, 0], [0, 0, 1]]


# -- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: plot.line(TABLE, "nope", "loss"), lambda: plot.line(TABLE, "step", "name"),
        lambda: plot.line(None, "a", "b"), lambda: plot.line_series([0], [[1]], keys=itertools.count()),
        lambda: plot.line([[1]], "a", "b"), lambda: plot.bar(Table(["a"], [[Text("t")]]), "a", "a"),
        lambda: plot.scatter(Table(["a"], [[[1]]]), "a", "a"), lambda: plot.line(Table(data=5), "a", "b"),
        lambda: plot.line(Table(["x", "s"], [[i, str(i)] for i in range(1001)]), "x", "x", "s"),
        lambda: plot.histogram(TABLE, "name"), lambda: plot.histogram(Table(["a"]), "a"),
        lambda: plot.histogram(TABLE, "step", num_bins=0), lambda: plot.line_series([0], [[1, 2]]),
        lambda: plot.line_series([[0]], [[1], [2]]), lambda: plot.line_series(None, None),
        lambda: plot.line_series([0], [[1]], keys=7), lambda: plot.line_series((n for n in [1]), [[1]]),
        lambda: plot.line_series([[*range(200_001)]], [[*range(200_001)]]), lambda: plot.line_series(HUGE, HUGE),
        lambda: plot.roc_curve(HUGE, HUGE), lambda: plot.confusion_matrix(y_true=HUGE, preds=HUGE),
        lambda: plot.confusion_matrix(), lambda: plot.confusion_matrix(y_true=[0]),
        lambda: plot.confusion_matrix(y_true=[0], preds=[0, 1]), lambda: plot.confusion_matrix([[1]], [0], [0]),
        lambda: plot.confusion_matrix(y_true=[3], preds=[0], class_names=["a"]),
        lambda: plot.confusion_matrix([1], [0]),
        lambda: plot.confusion_matrix(y_true=[-1], preds=[0], class_names=["a"]),
        lambda: plot.confusion_matrix(y_true=[[0]], preds=[[0]]), lambda: plot.confusion_matrix(y_true=[], preds=[]),
        lambda: plot.confusion_matrix(y_true=[math.nan], preds=[1], class_names=["a"]),
        lambda: plot.confusion_matrix(y_true=range(1001), preds=range(1001)),
        lambda: plot.roc_curve(), lambda: plot.roc_curve([0, 1]), lambda: plot.roc_curve([0, 0], [0.1, 0.2]),
        lambda: plot.roc_curve([0, 1], [0.1, math.nan]), lambda: plot.roc_curve([0, 1, 2], [0.1, 0.2, 0.3]),
        lambda: plot.roc_curve([0, 1], [[0.1], [0.2], [0.3]]), lambda: plot.roc_curve(["a", "b"], [[1, 2, 3]] * 2),
        lambda: plot.roc_curve([0, 1], [0.1, 0.2], labels=["a", "b", "c"]),
        lambda: plot.roc_curve([0, 1], [0.1, 0.2], classes_to_plot=[7]), lambda: plot.roc_curve([0, 1], ["a", "b"]),
        lambda: plot.pr_curve([0, 1], [0.1, 0.2], interp_size=1), lambda: plot.pr_curve([0, 1], 0.5),
        lambda: plot.pr_curve([], []), lambda: plot.pr_curve("ab", [0.1, 0.2]),
        lambda: plot.roc_curve([None, 1], [0, 1]), lambda: plot.roc_curve([0, 1], [0, 1], labels=itertools.count()),
    ],
)  # fmt: skip
def test_plots_that_cannot_be(make: Any, journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is raised by the call; the key is left out at log() with one warning, and the rest is kept."""
    with flightlog.init() as run:
        run.log({"x": 1, "chart": make()})
    assert journal(run.dir).logged("x") == [1] and not journal(run.dir).of("media")
    assert capfd.readouterr().err.count("chart is left out: ") == 1


def test_a_plot_in_a_run(journal: JournalOf) -> None:
    """The entry says which chart it is, without its file being opened."""
    with flightlog.init() as run:
        run.log({"chart": plot.roc_curve([0, 1], [0.1, 0.9], title="ROC")})
    entry = journal(run.dir).of("media")[0].data["chart"]
    assert (entry["type"], entry["plot"], entry["title"]) == ("plot", "roc_curve", "ROC")
    assert json.loads((run.dir / "files" / entry["path"]).read_text())["series"][0]["area"] == 1.0
