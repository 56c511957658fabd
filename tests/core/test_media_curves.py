"""What a classifier's answers amount to, compared with scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightlog import plot

from .test_plot import drawn

metrics = pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize("make", [list, np.array])
def test_a_confusion_matrix_is_scikit_learns(make: Any) -> None:
    """From predictions or from scores, with names or without; rows are what was true."""
    dice = np.random.default_rng(3)
    true, scores = dice.integers(0, 4, 200), dice.random((200, 4))
    guessed = scores.argmax(axis=1)
    expected = metrics.confusion_matrix(true, guessed).tolist()
    names = ["a", "b", "c", "d"]
    by_names = plot.confusion_matrix(y_true=make(true.tolist()), preds=make(guessed.tolist()), class_names=names)
    assert drawn(by_names)["counts"] == expected and drawn(by_names)["labels"] == names
    assert drawn(plot.confusion_matrix(make(scores.tolist()), make(true.tolist()), title="t"))["counts"] == expected
    words = [names[at] for at in true], [names[at] for at in guessed]
    found = drawn(plot.confusion_matrix(y_true=words[0], preds=words[1]))
    assert (found["labels"], found["counts"]) == (names, metrics.confusion_matrix(*words).tolist())
    assert (found["plot"], found["x"], found["y"]) == ("confusion_matrix", "predicted", "actual")


def scores_and_truth() -> Any:
    """Scores with ties, and a truth that has both classes."""
    scores = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.9, 1.0]) | st.floats(0, 1), min_size=2, max_size=60)
    return scores.flatmap(
        lambda s: st.tuples(st.just(s), st.lists(st.booleans(), min_size=len(s), max_size=len(s)))
    ).filter(lambda both: any(both[1]) and not all(both[1]))


@settings(max_examples=40)
@given(scores_and_truth())
def test_the_curves_are_scikit_learns(both: tuple[list[float], list[bool]]) -> None:
    """Whatever the scores: the same area, the same average precision, and every point on the curve."""
    scores, truth = both
    roc = drawn(plot.roc_curve(truth, scores))
    (series,) = roc["series"]
    x, y, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert math.isclose(series["area"], metrics.roc_auc_score(truth, scores), abs_tol=1e-12)
    assert math.isclose(metrics.auc(series["x"], series["y"]), series["area"], abs_tol=1e-12)
    full = [*zip(x.tolist(), y.tolist(), strict=True)]
    assert {*zip(series["x"], series["y"], strict=True)} <= {*full}
    assert (series["x"][0], series["y"][0], series["x"][-1], series["y"][-1]) == (0, 0, 1, 1)
    (series,) = drawn(plot.pr_curve(truth, scores))["series"]
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    assert np.allclose(series["x"], recall[::-1]) and np.allclose(series["y"], precision[::-1])
    assert math.isclose(series["average_precision"], metrics.average_precision_score(truth, scores), abs_tol=1e-12)


def test_curves_of_several_classes() -> None:
    """One curve for each column against all others, by name; a class that never occurs is named, not drawn."""
    dice = np.random.default_rng(5)
    true = dice.choice([0, 2], 300)
    scores = dice.random((300, 3))
    names = ["cat", "dog", "eel"]
    found = drawn(plot.roc_curve(true, scores, labels=names))
    assert [one["name"] for one in found["series"]] == ["cat", "eel"] and found["left_out"] == ["dog"]
    for one, at in zip(found["series"], (0, 2), strict=True):
        assert math.isclose(one["area"], metrics.roc_auc_score(true == at, scores[:, at]))
    words = [names[at] for at in true]
    only = drawn(plot.pr_curve(words, scores[:, [0, 2]], classes_to_plot=["eel"], interp_size=5))
    (one,) = only["series"]
    assert one["name"] == "eel" and one["x"] == [0, 0.25, 0.5, 0.75, 1] and one["y"] == sorted(one["y"], reverse=True)
    precision, recall, _ = metrics.precision_recall_curve(true == 2, scores[:, 2])
    precision, recall = precision[:-1], recall[:-1]  # without the point that no threshold gives
    assert np.allclose(one["y"], [precision[recall >= at].max() for at in one["x"]])
    assert drawn(plot.roc_curve(["no", "yes"], [0.1, 0.2], labels=["no", "yes"]))["series"][0]["name"] == "yes"


def test_a_million_scores_make_a_curve_that_can_be_drawn() -> None:
    """At most 10,000 points, with both ends, and the area of all of them."""
    dice = np.random.default_rng(7)
    true = dice.integers(0, 2, 200_000)
    scores = true * 0.5 + dice.random(200_000)
    for chart in (plot.roc_curve(true, scores), plot.pr_curve(true, scores)):
        (series,) = drawn(chart)["series"]
        assert len(series["x"]) <= 10_000 and series["x"][-1] == 1
    assert math.isclose(drawn(plot.roc_curve(true, scores))["series"][0]["area"], metrics.roc_auc_score(true, scores))
