"""Charts of a table's columns, and of a classifier's answers: `flightlog.plot.line(table, "step", "loss")`.

Each function returns a Plot, which goes into `log()` as any media does. The numbers are taken and computed at the call,
with numpy alone; what is wrong with them raises nothing, and costs the key at `log()`, with a warning. `split_table`
is taken so that scripts written for wandb run; it has no meaning here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .journal.values import key_text, plain
from .media import Plot, Table, curves
from .media.arrays import as_array, check_items, numpy
from .media.histogram import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_POINTS = 200_000
MAX_VALUES = 20_000_000
MAX_SERIES = 1000
MAX_CLASSES = 1000
MAX_BINS = 10_000
MAX_NAME = 1000
HISTOGRAM_BINS = 64

_Chart = dict[str, Any]
_Series = dict[str, Any]

__all__ = ["bar", "confusion_matrix", "histogram", "line", "line_series", "pr_curve", "roc_curve", "scatter"]


# -- charts of a table -------------------------------------------------------------------------------------------------


def line(
    table: Table, x: str, y: str, stroke: str | None = None, title: str = "", split_table: bool = False
) -> Plot:  # fmt: skip
    """Draw a line through the rows of a table.

    Args:
        table: the table; its rows are taken now, at most 200,000.
        x: the column along, of numbers or texts.
        y: the column up, of numbers.
        stroke: a column whose values divide the rows into lines, one for each.
        title: what stands above.
        split_table: without meaning here.
    """
    return Plot("line", title, lambda: _of_columns(table, x, y, stroke))


def scatter(table: Table, x: str, y: str, title: str = "", split_table: bool = False) -> Plot:
    """Draw a point for each row of a table; the arguments are those of `line`."""
    return Plot("scatter", title, lambda: _of_columns(table, x, y, None))


def bar(table: Table, label: str, value: str, title: str = "", split_table: bool = False) -> Plot:
    """Draw a bar for each row of a table.

    Args:
        table: the table; its rows are taken now, at most 200,000.
        label: the column that names the bars.
        value: the column of their lengths.
        title: what stands above.
        split_table: without meaning here.
    """

    def make() -> _Chart:
        names = [None if name is None else key_text(name)[:MAX_NAME] for name in _column(table, label)]
        return _chart(label, value, [_series(None, names, _numbers(table, value))])

    return Plot("bar", title, make)


def histogram(
    table: Table, value: str, title: str = "", split_table: bool = False, num_bins: int = HISTOGRAM_BINS
) -> Plot:
    """Draw how the numbers of a column are distributed.

    Args:
        table: the table; its rows are taken now, at most 200,000.
        value: the column of the numbers; None, NaN and infinities are left out.
        title: what stands above.
        split_table: without meaning here.
        num_bins: into how many bins of equal width they are sorted.
    """

    def make() -> _Chart:
        values = as_array([v for v in _numbers(table, value) if v is not None], "plot.histogram()")
        if not 1 <= int(num_bins) <= MAX_BINS:
            raise UsageError(f"plot.histogram(num_bins={num_bins!r}): 1 to {MAX_BINS:,} bins")
        counts, edges, _ = count(values, int(num_bins))
        return {"x": key_text(value), "y": "count", "edges": edges.tolist(), "counts": counts.tolist()}

    return Plot("histogram", title, make)


def line_series(
    xs: Any, ys: Any, keys: Iterable[str] | None = None, title: str = "", xname: str = "x", split_table: bool = False
) -> Plot:
    """Draw several lines.

    Args:
        xs: one sequence of numbers or texts for all lines, or one for each of them.
        ys: a sequence of numbers for each line.
        keys: the lines' names.
        title: what stands above.
        xname: what the horizontal axis is called.
        split_table: without meaning here.
    """

    def make() -> _Chart:
        lines = [_values(y) for y in _values(ys)]
        along = _values(xs)
        each = [_values(x) for x in along] if along and isinstance(along[0], list) else [along] * len(lines)
        names = _names(range(len(lines)) if keys is None else keys)
        if not len(lines) == len(each) == len(names):
            raise UsageError(f"plot.line_series(): {len(each)} xs, {len(lines)} ys and {len(names)} keys")
        return _chart(xname, "", [_series(*one) for one in zip(names, each, lines, strict=True)])

    return Plot("line", title, make)


def _of_columns(table: Table, x: str, y: str, stroke: str | None) -> _Chart:
    xs, ys = _column(table, x), _numbers(table, y)
    if stroke is None:
        return _chart(x, y, [_series(None, xs, ys)])
    groups: dict[str, tuple[list[Any], list[Any]]] = {}
    for name, one, other in zip(_column(table, stroke), xs, ys, strict=True):
        along, up = groups.setdefault(key_text(name)[:MAX_NAME], ([], []))
        along.append(one)
        up.append(other)
    return _chart(x, y, [_series(name, *values) for name, values in groups.items()])


def _chart(x: str, y: str, series: list[_Series]) -> _Chart:
    if len(series) > MAX_SERIES or sum(len(one["x"]) for one in series) > MAX_POINTS:
        raise UsageError(f"a plot has at most {MAX_SERIES:,} series and {MAX_POINTS:,} points")
    return {"x": key_text(x)[:MAX_NAME], "y": key_text(y)[:MAX_NAME], "series": series}


def _series(name: str | None, x: list[Any], y: list[Any]) -> _Series:
    if len(x) != len(y):
        raise UsageError(f"{name or 'a series'} has {len(x)} values along and {len(y)} up")
    return {"name": name, "x": x, "y": y}


def _column(table: Table, name: str) -> list[Any]:
    if not isinstance(table, Table):
        raise UsageError(f"a flightlog.Table is needed, not {type(table).__name__}")
    if len(table) > MAX_POINTS:
        raise UsageError(f"a plot has at most {MAX_POINTS:,} points, the table {len(table):,} rows")
    values: list[Any] = table.get_column(name)
    if not all(value is None or isinstance(value, bool | int | float | str) for value in values):
        raise UsageError(f"column {name!r} holds more than numbers and texts")
    return values


def _numbers(table: Table, name: str) -> list[Any]:
    values = _column(table, name)
    if any(isinstance(value, str) for value in values):
        raise UsageError(f"column {name!r} holds texts, not only numbers")
    return values


def _names(names: Iterable[Any]) -> list[str]:
    """Return the names of series or classes; of too many, an endless generator's too, one too many."""
    return [key_text(name)[:MAX_NAME] for name in itertools.islice(names, MAX_CLASSES + 1)]


def _values(data: Any) -> list[Any]:
    """Return a sequence, array or tensor as a list of plain values, and of lists of these."""
    check_items(data, MAX_VALUES, "a plot")
    found = plain(data.tolist() if callable(getattr(data, "tolist", None)) else data)
    if not isinstance(found, list):
        raise UsageError(f"a sequence is needed, not {type(data).__name__}")
    return found


# -- charts of a classifier --------------------------------------------------------------------------------------------


def confusion_matrix(
    probs: Any = None,
    y_true: Any = None,
    preds: Any = None,
    class_names: Sequence[str] | None = None,
    title: str = "Confusion Matrix",
    split_table: bool = False,
) -> Plot:
    """Count how often a class was taken for which.

    Args:
        probs: scores of shape (n, classes); the greatest of a row is its prediction. Or give `preds`.
        y_true: the true class of each of n examples: indices into `class_names`, or names.
        preds: the predicted classes, likewise.
        class_names: the names of all classes, in order; without it, the classes that occur.
        title: what stands above.
        split_table: without meaning here.
    """

    def make() -> _Chart:
        if (probs is None) == (preds is None) or y_true is None:
            raise UsageError("plot.confusion_matrix(): y_true and either probs or preds are needed")
        guessed = _values(preds) if probs is None else _best(probs)
        labels, (true, guess) = _indices([_values(y_true), guessed], class_names)
        counts = _pair_counts(true, guess, len(labels))
        return {"x": "predicted", "y": "actual", "labels": labels, "counts": counts.tolist()}

    return Plot("confusion_matrix", title, make)


def pr_curve(
    y_true: Any = None,
    y_probas: Any = None,
    labels: Sequence[str] | None = None,
    classes_to_plot: Sequence[Any] | None = None,
    interp_size: int | None = None,
    title: str = "Precision-Recall Curve",
    split_table: bool = False,
) -> Plot:
    """Draw precision against recall, one curve for each class, with its average precision.

    Args:
        y_true: the true class of each of n examples.
        y_probas: scores of shape (n, classes), or (n,) for the positive class of two. Column i belongs to class i where
            classes are integers, else to the i-th of the classes that occur, sorted.
        labels: the classes' names, by column.
        classes_to_plot: which classes, as they stand in y_true; all without it.
        interp_size: at how many values of recall, evenly from 0 to 1, precision is given: the greatest at this recall
            or beyond (Manning, Raghavan, Schütze: Introduction to Information Retrieval, 8.4). Without it the curve has
            every threshold, as scikit-learn's has, up to 10,000 points.
        title: what stands above.
        split_table: without meaning here.
    """

    def make() -> _Chart:
        classes = _Classes(y_true, y_probas, labels, classes_to_plot)
        series = [_precision_recall(name, hits, scores, interp_size) for name, hits, scores in classes]
        return {**_chart("recall", "precision", series), "left_out": classes.left_out}

    return Plot("pr_curve", title, make)


def roc_curve(
    y_true: Any = None,
    y_probas: Any = None,
    labels: Sequence[str] | None = None,
    classes_to_plot: Sequence[Any] | None = None,
    title: str = "ROC Curve",
    split_table: bool = False,
) -> Plot:
    """Draw the true against the false positive rate, one curve for each class, with the area under it.

    The arguments are those of `pr_curve`.
    """

    def make() -> _Chart:
        classes = _Classes(y_true, y_probas, labels, classes_to_plot)
        series = [_operating_characteristic(*one) for one in classes]
        return {**_chart("false positive rate", "true positive rate", series), "left_out": classes.left_out}

    return Plot("roc_curve", title, make)


def _best(probs: Any) -> list[Any]:
    scores = as_array(probs, "plot.confusion_matrix(probs=)")
    if scores.ndim != 2:
        raise UsageError(f"plot.confusion_matrix(probs=): shape {scores.shape} is not (n, classes)")
    return list(scores.argmax(axis=1).tolist())


def _indices(columns: list[list[Any]], class_names: Sequence[str] | None) -> tuple[list[str], list[NDArray[Any]]]:
    """Return the classes' names, and each column of classes as indices into them."""
    np = numpy("plot.confusion_matrix()")
    columns = [[_whole(value) for value in column] for column in columns]
    if class_names is None:
        known = sorted({*columns[0], *columns[1]}, key=lambda one: (isinstance(one, str), one))
        names = _names(known)
        places = {one: at for at, one in enumerate(known)}
    else:
        names = _names(class_names)
        places = {**{name: at for at, name in enumerate(names)}, **{at: at for at in range(len(names))}}
    if len(names) > MAX_CLASSES:
        raise UsageError(f"plot.confusion_matrix(): more than {MAX_CLASSES:,} classes")
    strange = next((value for column in columns for value in column if value not in places), None)
    if strange is not None:
        raise UsageError(f"plot.confusion_matrix(): {strange!r} is none of the {len(names)} class_names")
    return names, [np.array([places[value] for value in column], dtype=np.int64) for column in columns]


def _whole(value: Any) -> Any:
    """Return 3.0 and True as the integers they are as classes."""
    if isinstance(value, list | dict):
        raise UsageError("classes are one number or text for each example")
    return int(value) if isinstance(value, bool | float) and value == int(value) else value


def _pair_counts(true: NDArray[Any], guess: NDArray[Any], classes: int) -> NDArray[Any]:
    """Return counts (classes, classes): rows are what was true, columns what was predicted."""
    np = numpy("plot.confusion_matrix()")
    if true.shape != guess.shape or true.size == 0:
        raise UsageError(f"plot.confusion_matrix(): {true.size} true and {guess.size} predicted classes")
    counts: NDArray[Any] = np.bincount(true * classes + guess, minlength=classes * classes).reshape(classes, classes)
    return counts


class _Classes:
    """The classes of a curve plot. Iterating yields of each its name, which examples are of it, and their scores.

    Attributes:
        left_out: names of the classes without examples, or without others: they have no curve.
    """

    def __init__(
        self, y_true: Any, y_probas: Any, labels: Sequence[str] | None, classes_to_plot: Sequence[Any] | None
    ) -> None:
        np = numpy("plot curves")
        truth = [_whole(value) for value in _values(y_true)]
        scores = as_array(y_probas, "y_probas")
        if scores.ndim not in (1, 2) or len(scores) != len(truth):
            raise UsageError(f"y_probas of shape {scores.shape} for {len(truth)} examples")
        if not np.isfinite(scores).all():
            raise UsageError("y_probas are not all finite")
        columns = _classes_of_columns(truth, scores)
        wanted = columns if classes_to_plot is None else [_whole(one) for one in _values(classes_to_plot)]
        self._names = _names_of_columns(columns, labels)
        self._picked = [at for at, one in enumerate(columns) if one in wanted]
        self._hits = {at: np.array([one == columns[at] for one in truth]) for at in self._picked}
        self._scores = scores.reshape(len(truth), -1).astype(np.float64)
        drawn = [at for at in self._picked if self._hits[at].any() and not self._hits[at].all()]
        if not drawn:
            raise UsageError("no class has both examples of its own and others")
        self.left_out = [self._names[at] for at in self._picked if at not in drawn]
        self._picked = drawn

    def __iter__(self) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
        for at in self._picked:
            yield self._names[at], self._hits[at], self._scores[:, at]


def _names_of_columns(columns: list[Any], labels: Sequence[str] | None) -> list[str]:
    names = _names(columns if labels is None else labels)
    if len(names) == 2 and len(columns) == 1:
        names = names[1:]  # of two classes, one score: it is the second's, the positive one's
    if len(names) != len(columns):
        raise UsageError(f"{len(names)} labels for {len(columns)} classes")
    return names


def _classes_of_columns(truth: list[Any], scores: NDArray[Any]) -> list[Any]:
    """Return which class each column of scores belongs to; one column, or (n,), belongs to the positive of two."""
    known = sorted({*truth}, key=lambda one: (isinstance(one, str), one))
    width = scores.shape[1] if scores.ndim == 2 else 1
    if width > MAX_CLASSES:
        raise UsageError(f"more than {MAX_CLASSES:,} classes")
    if width == 1:
        if len(known) > 2:
            raise UsageError(f"{len(known)} classes need scores of shape (n, {len(known)})")
        return [1] if {*known} <= {0, 1} else known[-1:]
    if all(isinstance(one, int) and 0 <= one < width for one in known):
        return [*range(width)]
    if len(known) != width:
        raise UsageError(f"{width} columns of scores for {len(known)} classes")
    return known


def _operating_characteristic(name: str, hits: NDArray[Any], scores: NDArray[Any]) -> _Series:
    curve = curves.operating_characteristic(hits, scores)
    return {**_series(name, curve.x.tolist(), curve.y.tolist()), "area": curve.summary}


def _precision_recall(name: str, hits: NDArray[Any], scores: NDArray[Any], size: int | None) -> _Series:
    curve = curves.precision_recall(hits, scores, None if size is None else int(size))
    return {**_series(name, curve.x.tolist(), curve.y.tolist()), "average_precision": curve.summary}
