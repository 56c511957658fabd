"""`wandb.sklearn`: charts of a classifier or regressor that log themselves into the current run, under wandb's keys.

scikit-learn is not imported: what is needed of a model is its `predict`, `predict_proba` and the like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import current, plot
from .errors import UsageError
from .journal.values import key_text
from .media import Table
from .media.arrays import as_array, numpy
from .terminal import guarded, warn_once

_MATPLOTLIB = "draw it by sklearn's own *Display.from_estimator(…) and log its .figure_"
_NOT_HERE = {
    "plot_learning_curve": f"it trains the model again and again; {_MATPLOTLIB} (LearningCurveDisplay)",
    "plot_calibration_curve": f"{_MATPLOTLIB} (CalibrationDisplay)",
    "plot_decision_boundaries": f"{_MATPLOTLIB} (DecisionBoundaryDisplay)",
    "plot_elbow_curve": "log the inertia of each n_clusters as a metric",
    "plot_silhouette": "draw it with matplotlib and log the figure",
    "plot_outlier_candidates": "draw it with matplotlib and log the figure",
    "plot_clusterer": "draw it with matplotlib and log the figure",
}


def _log(values: Mapping[str, Any]) -> None:
    current.log(values, commit=False)


def plot_confusion_matrix(
    y_true: Any = None, y_pred: Any = None, labels: Sequence[str] | None = None, true_labels: Any = None,
    pred_labels: Any = None, normalize: bool = False,
) -> None:  # fmt: skip
    """Log `confusion_matrix`: how often a class was taken for which.

    Args:
        y_true, y_pred: the classes of n examples. labels: their names, where the classes are indices into them.
        true_labels, pred_labels, normalize: without meaning here.
    """
    _log({"confusion_matrix": plot.confusion_matrix(y_true=y_true, preds=y_pred, class_names=labels)})


def plot_roc(
    y_true: Any = None, y_probas: Any = None, labels: Sequence[str] | None = None, plot_micro: bool = True,
    plot_macro: bool = True, classes_to_plot: Sequence[Any] | None = None,
) -> None:  # fmt: skip
    """Log `roc`: a curve for each class; see `plot.roc_curve`. plot_micro, plot_macro: without meaning here."""
    _log({"roc": plot.roc_curve(y_true, y_probas, labels, classes_to_plot)})


def plot_precision_recall(
    y_true: Any = None, y_probas: Any = None, labels: Sequence[str] | None = None, plot_micro: bool = True,
    classes_to_plot: Sequence[Any] | None = None,
) -> None:  # fmt: skip
    """Log `precision_recall`: a curve for each class; see `plot.pr_curve`. plot_micro: without meaning here."""
    _log({"precision_recall": plot.pr_curve(y_true, y_probas, labels, classes_to_plot)})


def plot_feature_importances(
    model: Any = None, feature_names: Sequence[Any] | None = None, title: str = "Feature Importance",
    max_num_features: int = 50,
) -> None:  # fmt: skip
    """Log `feature_importances`: a bar for each feature, the largest first.

    Args:
        model: a fitted model with `feature_importances_` or `coef_`. feature_names: the features', in order.
        title: what stands above. max_num_features: at most so many bars.
    """
    with guarded("sklearn.plot_feature_importances()"):
        found = getattr(model, "feature_importances_", getattr(model, "coef_", None))
        if found is None:
            warn_once("sklearn importances", f"a {type(model).__name__} has no feature importances; none are logged.")
            return
        array = as_array(found, "plot_feature_importances()")
        weights = abs(array).mean(axis=0) if array.ndim == 2 else array
        names = (
            [key_text(n) for n in feature_names] if feature_names is not None else [str(i) for i in range(len(weights))]
        )
        ranked = sorted(zip(names, weights.tolist(), strict=True), key=lambda pair: -pair[1])[:max_num_features]
        table = Table(columns=["feature", "importance"], data=[list(pair) for pair in ranked])
        _log({"feature_importances": plot.bar(table, "feature", "importance", title=title)})


def plot_class_proportions(y_train: Any = None, y_test: Any = None, labels: Sequence[str] | None = None) -> None:
    """Log `class_proportions`: how often each class occurs for training and for test.

    Args:
        y_train, y_test: the classes. labels: their names, where the classes are indices into them.
    """
    with guarded("sklearn.plot_class_proportions()"):
        rows = []
        for part, classes in (("train", y_train), ("test", y_test)):
            found, counts = numpy("sklearn").unique(as_labels(classes), return_counts=True)
            for one, count in zip(found.tolist(), counts.tolist(), strict=True):
                named = labels is not None and isinstance(one, int) and 0 <= one < len(labels)
                rows.append([f"{key_text(labels[one] if named and labels is not None else one)}, {part}", count])
        table = Table(columns=["class", "count"], data=rows)
        _log({"class_proportions": plot.bar(table, "class", "count", title="Class Proportions")})


def plot_residuals(regressor: Any = None, X: Any = None, y: Any = None) -> None:  # noqa: N803  # sklearn's name
    """Log `residuals`: what a fitted regressor predicts against how far off it is.

    Args:
        regressor: it. X: (n, features). y: (n,) true values.
    """
    with guarded("sklearn.plot_residuals()"):
        guess = as_array(regressor.predict(X), "plot_residuals()").reshape(-1)
        off = as_array(y, "plot_residuals()").reshape(-1) - guess
        table = Table(columns=["predicted", "residual"], data=numpy("sklearn").stack([guess, off], axis=1))
        _log({"residuals": plot.scatter(table, "predicted", "residual", title="Residuals")})


def plot_summary_metrics(
    model: Any = None,
    X: Any = None,  # noqa: N803
    y: Any = None,
    X_test: Any = None,  # noqa: N803
    y_test: Any = None,
) -> None:
    """Put into the summary how good a fitted model is on test data.

    Of a classifier accuracy_score, and precision, recall and f1_score weighted by class; of a regressor mae, mse and
    r2_score.

    Args:
        model: it. X, y: without meaning here, for the model is fitted. X_test, y_test: (n, features) and (n,).
    """
    with guarded("sklearn.plot_summary_metrics()"):
        true, guess = as_labels(y_test).reshape(-1), as_labels(model.predict(X_test)).reshape(-1)
        is_classifier = getattr(model, "_estimator_type", None) == "classifier" or hasattr(model, "classes_")
        found = _classification(true, guess) if is_classifier else _regression(true, guess)
        current.current("sklearn").summary.update(found)


def _classification(true: Any, guess: Any) -> dict[str, float]:
    np = numpy("sklearn")
    precisions, recalls, scores, weights = [], [], [], []
    for one in np.unique(np.concatenate([true, guess])):
        hits = float(((true == one) & (guess == one)).sum())
        taken, there = float((guess == one).sum()), float((true == one).sum())
        precision, recall = hits / taken if taken else 0.0, hits / there if there else 0.0
        precisions.append(precision)
        recalls.append(recall)
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
        weights.append(there)

    def weighted(values: list[float]) -> float:
        return float(np.average(values, weights=weights))

    return {
        "accuracy_score": float((true == guess).mean()),
        "precision": weighted(precisions),
        "recall": weighted(recalls),
        "f1_score": weighted(scores),
    }


def _regression(true: Any, guess: Any) -> dict[str, float]:
    off = true - guess
    spread = float(((true - true.mean()) ** 2).sum())
    return {
        "mae": float(abs(off).mean()),
        "mse": float((off**2).mean()),
        "r2_score": 1 - float((off**2).sum()) / spread if spread else 0.0,
    }


def as_labels(classes: Any) -> Any:
    """Return classes, numbers or texts, as a numpy array."""
    found = numpy("sklearn").asarray(classes)
    if found.dtype.kind not in "biufUSO" or found.size == 0:
        raise UsageError(f"{type(classes).__name__} holds no classes")
    return found


def plot_classifier(
    model: Any, X_train: Any, X_test: Any, y_train: Any, y_test: Any, y_pred: Any, y_probas: Any,  # noqa: N803
    labels: Sequence[str] | None = None, is_binary: bool = False, model_name: str = "Classifier",
    feature_names: Sequence[Any] | None = None, log_learning_curve: bool = False,
) -> None:  # fmt: skip
    """Log a classifier's feature importances, class proportions, confusion matrix, curves and summary metrics.

    The arguments are those of the functions above. is_binary, model_name: without meaning here.
    """
    plot_feature_importances(model, feature_names)
    if log_learning_curve:
        __getattr__("plot_learning_curve")()
    plot_class_proportions(y_train, y_test, labels)
    plot_confusion_matrix(y_test, y_pred, labels)
    plot_summary_metrics(model, X_train, y_train, X_test, y_test)
    plot_roc(y_test, y_probas, labels)
    plot_precision_recall(y_test, y_probas, labels)


def plot_regressor(
    model: Any,
    X_train: Any,  # noqa: N803
    X_test: Any,  # noqa: N803
    y_train: Any,
    y_test: Any,
    model_name: str = "Regressor",
) -> None:
    """Log a regressor's summary metrics and residuals on test data. model_name: without meaning here."""
    plot_summary_metrics(model, X_train, y_train, X_test, y_test)
    plot_residuals(model, X_test, y_test)


def _nothing(*_: object, **__: object) -> None:
    return None


def __getattr__(name: str) -> Any:
    if name not in _NOT_HERE:
        raise AttributeError(f"flightlog.sklearn has no {name!r}")
    warn_once(f"sklearn {name}", f"sklearn.{name}() has no counterpart in flightlog: {_NOT_HERE[name]}.")
    return _nothing
