"""What `define_metric` takes, made into a definition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .errors import UsageError
from .journal.define import AGGREGATES, Definition
from .journal.values import text
from .terminal import warn_once

_GOALS = {"min": "minimize", "minimize": "minimize", "max": "maximize", "maximize": "maximize"}
# What Weights & Biases has beyond this; it does no harm.
_NOT_HERE = frozenset(("step_sync", "overwrite"))
MAX_NAME = 1000


def definition_of(
    name: object,
    step_metric: str | Definition | None,
    summary: str | Iterable[str] | None,
    goal: str | None,
    hidden: bool | None,
    others: Mapping[str, Any],
) -> Definition:
    """Return the definition that the arguments of `define_metric` give. Raises UsageError, naming what is wrong."""
    for unknown in others:
        if unknown not in _NOT_HERE:
            raise TypeError(f"define_metric() got an unexpected keyword argument {unknown!r}")
        warn_once(f"define {unknown}", f"define_metric({unknown}=) has no counterpart in flightlog and is ignored.")
    if not isinstance(name, str) or not name or len(name) > MAX_NAME:
        raise UsageError(
            f"define_metric({str(name)[:100]!r}): a metric's name, or a pattern such as 'val/*', is needed"
        )
    axis = step_metric.name if isinstance(step_metric, Definition) else step_metric
    if axis is not None and (not isinstance(axis, str) or not axis or len(axis) > MAX_NAME):
        raise UsageError(f"define_metric(step_metric={axis!r}): the name of a metric is needed")
    if goal is not None and goal not in _GOALS:
        raise UsageError(f"define_metric(goal={goal!r}): it is neither 'minimize' nor 'maximize'")
    kinds = _kinds(summary)
    if "best" in kinds and goal is None:
        raise UsageError("define_metric(summary='best') needs goal='minimize' or goal='maximize'")
    return Definition(text(name), axis and text(axis), kinds, goal and _GOALS[goal], bool(hidden))


def _kinds(summary: str | Iterable[str] | None) -> tuple[str, ...]:
    if summary is None:
        return ()
    if not isinstance(summary, str | list | tuple | set | frozenset):
        raise UsageError(f"define_metric(summary={summary!r}): a text, or a list of them, is needed")
    words = [word.strip() for word in (summary.split(",") if isinstance(summary, str) else map(str, summary))]
    found = tuple(dict.fromkeys({"copy": "last"}.get(word, word) for word in words if word))
    for word in found:
        if word not in AGGREGATES:
            raise UsageError(f"define_metric(summary={summary!r}): {word!r} is none of {', '.join(AGGREGATES)}")
    return found
