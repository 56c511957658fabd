"""What a classifier's scores amount to at every threshold: the curves of receivers, and of precision and recall.

Both go through the distinct scores from the highest down, as scikit-learn's roc_curve and precision_recall_curve do,
whose numbers these are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UsageError
from .arrays import numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_POINTS = 10_000


class Curve(NamedTuple):
    """Points in order of x, at most 10,000, and the number that sums all of them up."""

    x: NDArray[Any]
    y: NDArray[Any]
    summary: float


def operating_characteristic(hits: NDArray[Any], scores: NDArray[Any]) -> Curve:
    """Return the true positive rate over the false positive rate, and the area under it (trapezoids).

    Args:
        hits: which of n examples are of the class, booleans (n,), some of them and not all.
        scores: how much each is held to be, (n,), finite.
    """
    np = numpy("plot.roc_curve()")
    true, false = _positives(hits, scores)
    x, y = np.append(0, false) / false[-1], np.append(0, true) / true[-1]
    area = float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())
    kept = _thinned(_corners(x, y))
    return Curve(x[kept], y[kept], area)


def precision_recall(hits: NDArray[Any], scores: NDArray[Any], size: int | None = None) -> Curve:
    """Return the precision over the recall, and the average precision: the sum of precision times the gain in recall.

    Args:
        hits: which of n examples are of the class, booleans (n,), some of them.
        scores: how much each is held to be, (n,), finite.
        size: at how many values of recall, evenly from 0 to 1, to give the greatest precision at this recall or beyond
            (Manning, Raghavan, Schütze: Introduction to Information Retrieval, 8.4). None gives every threshold.

    Raises:
        UsageError: the size is not in 2..10,000.
    """
    np = numpy("plot.pr_curve()")
    true, false = _positives(hits, scores)
    precision, recall = true / (true + false), true / true[-1]
    average = float((np.diff(recall, prepend=0.0) * precision).sum())
    if size is not None:
        return Curve(*_interpolated(recall, precision, size), average)
    x, y = np.append(0.0, recall), np.append(1.0, precision)
    kept = _thinned(np.arange(len(x)))
    return Curve(x[kept], y[kept], average)


def _positives(hits: NDArray[Any], scores: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return how many true and false positives there are at each distinct threshold, from the highest on."""
    np = numpy("plot curves")
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.nonzero(np.diff(scores[order]))[0], len(scores) - 1)
    true = np.cumsum(hits[order])[last]
    return true, last + 1 - true


def _interpolated(recall: NDArray[Any], precision: NDArray[Any], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    np = numpy("plot.pr_curve()")
    if not 2 <= size <= MAX_POINTS:
        raise UsageError(f"plot.pr_curve(interp_size={size}): 2 to {MAX_POINTS:,} points")
    grid = np.linspace(0.0, 1.0, size)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return grid, best[np.searchsorted(recall, grid - 1e-12)]


def _corners(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Return the indices of a curve's ends and of where it turns; what lies on a line between is not needed."""
    np = numpy("plot curves")
    right, up = np.diff(x), np.diff(y)
    turns = np.abs(right[1:] * up[:-1] - right[:-1] * up[1:]) > 1e-15
    kept: NDArray[Any] = np.concatenate(([0], np.nonzero(turns)[0] + 1, [len(x) - 1]))
    return kept


def _thinned(kept: NDArray[Any]) -> NDArray[Any]:
    """Return at most 10,000 of some indices, evenly, with both ends."""
    np = numpy("plot curves")
    if len(kept) <= MAX_POINTS:
        return kept
    thinned: NDArray[Any] = kept[np.linspace(0, len(kept) - 1, MAX_POINTS).round().astype(np.int64)]
    return thinned
