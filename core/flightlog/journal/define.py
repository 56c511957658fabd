"""What is to be made of metrics: the axis they are drawn over, and which of their values stands in the summary.

A `define` record says it for a metric, or for all whose name fits a pattern, and for all of the run: also for what was
logged before it. The most exact definition counts, and of several equally exact ones what the latest says.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ..process import tell_of_forks

AGGREGATES = ("last", "min", "max", "mean", "best", "none")
GOALS = ("minimize", "maximize")
_PATTERN = frozenset("*?[")
_MOST = 10_000


class Definition(NamedTuple):
    """One metric's definition, or that of all whose names fit.

    Attributes:
        name: the metric, or a pattern with `*`, `?` or `[…]`.
        step_metric: the metric that is its axis; None for the step.
        summary: which of its values stand in the summary (see AGGREGATES); empty means the last.
        goal: "minimize" or "maximize"; None where neither is better.
        hidden: left out of what a page shows by itself.
    """

    name: str
    step_metric: str | None = None
    summary: tuple[str, ...] = ()
    goal: str | None = None
    hidden: bool = False

    @property
    def is_pattern(self) -> bool:
        return not _PATTERN.isdisjoint(self.name)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which values stand in the summary; without a goal none is the best."""
        return tuple(kind for kind in self.summary if kind != "best" or self.goal)

    @property
    def aggregates(self) -> bool:
        """Whether the summary holds anything but the last value."""
        return self.kinds not in ((), ("last",))

    def data(self) -> dict[str, Any]:
        """Return the data of the record that says so."""
        facts = {"name": self.name, "step_metric": self.step_metric, "summary": list(self.summary), "goal": self.goal}
        return {key: value for key, value in facts.items() if value} | ({"hidden": True} if self.hidden else {})


def from_data(data: Mapping[str, Any]) -> Definition | None:
    """Return the definition that a record's data gives; None where it names no metric. What is unknown is left out."""
    name, axis, goal, summary = (data.get(key) for key in ("name", "step_metric", "goal", "summary"))
    if not isinstance(name, str) or not name:
        return None
    kinds = tuple(s for s in summary if s in AGGREGATES) if isinstance(summary, list) else ()
    return Definition(
        name,
        axis if isinstance(axis, str) else None,
        tuple(dict.fromkeys(kinds)),
        goal if goal in GOALS else None,
        data.get("hidden") is True,
    )


class Definitions:
    """The definitions of a run."""

    def __init__(self, definitions: Iterable[Definition] = ()) -> None:
        self._exact: dict[str, Definition] = {}
        self._patterns: dict[str, Definition] = {}
        self._found: dict[str, Definition | None] = {}
        self.empty = True
        for definition in definitions:
            self.add(definition)

    def __bool__(self) -> bool:
        return not self.empty

    def __iter__(self) -> Any:
        return iter([*self._patterns.values(), *self._exact.values()])

    def add(self, new: Definition) -> Definition | None:
        """Take a definition; what it leaves open stays as an earlier one of the same name had it.

        Returns:
            What is in force for that name now; None where it was so before, too.
        """
        known = self._patterns if new.is_pattern else self._exact
        old = known.get(new.name)
        if old is None and len(known) >= _MOST:
            return None
        whole = new if old is None else old._replace(
            step_metric=new.step_metric or old.step_metric, summary=new.summary or old.summary,
            goal=new.goal or old.goal, hidden=new.hidden or old.hidden,
        )  # fmt: skip
        if whole == old:
            return None
        known.pop(new.name, None)
        known[new.name] = whole
        self.empty = False
        self._found.clear()
        return whole

    def of(self, metric: str) -> Definition | None:
        """Return what is defined for a metric, None where nothing is."""
        try:
            return self._found[metric]
        except KeyError:
            fitting = [d for d in self._patterns.values() if fnmatchcase(metric, d.name)]
            found = self._exact.get(metric) or (fitting[-1] if fitting else None)
            self._found[metric] = found
            return found


class Tally:
    """What is kept of a metric's values while they pass, so that no summary costs more as a run goes on.

    NaN and the infinities count as the last value, and for nothing else.
    """

    __slots__ = ("count", "high", "last", "low", "total")

    def __init__(self, last: Any = None, count: int = 0, total: float = 0.0, low: Any = None, high: Any = None) -> None:
        self.last = last
        self.count = count
        self.total = total
        self.low = low
        self.high = high

    def take(self, value: Any) -> None:
        """Take the next value."""
        self.last = value
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            self.count += 1
            self.total += value
            if self.low is None or value < self.low:
                self.low = value
            if self.high is None or value > self.high:
                self.high = value

    def to_list(self) -> list[Any]:
        """Return it as latest.spec keeps it."""
        return [self.last, self.count, self.total, self.low, self.high]

    @classmethod
    def from_list(cls, values: Any) -> Tally | None:
        """Return the tally that `to_list` gave; None where it is none."""
        if not (isinstance(values, list) and len(values) == 5 and isinstance(values[1], int) and values[2] is not None):
            return None
        return cls(*values) if all(v is None or isinstance(v, int | float) for v in values[2:]) else None

    def summary(self, metric: str, definition: Definition) -> dict[str, Any]:
        """Return the metric's entries in the summary.

        One kind of value stands under the metric's own name. Several stand under `<metric>.min` and so on, with the
        last one under the metric's own name.
        """
        kinds = definition.kinds
        if "none" in kinds:
            return {}
        if len(kinds) == 1:
            return self._named({metric: self._value(kinds[0], definition)})
        named = {f"{metric}.{kind}": self._value(kind, definition) for kind in kinds if kind != "last"}
        return {metric: self.last, **self._named(named)}

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value is not None}

    def _value(self, kind: str, definition: Definition) -> Any:
        if kind == "best":
            kind = "min" if definition.goal == "minimize" else "max"
        if kind == "mean":
            return self.total / self.count if self.count else None
        return {"min": self.low, "max": self.high, "last": self.last}[kind]


class Summaries:
    """The summary of what is logged, kept up value by value.

    Args:
        definitions: the run's.
        values: the summary so far; a mapping that others may set values in as well.
        tallies: so far, of the metrics whose summary is not just the last value.

    Attributes:
        lock: held over a record and `take` together by those who log, unless they are `free`.
        settling: held by who makes the summary anew.
        free: while the summary is just the last values and nobody makes it anew, something by which those who log
            know that: they set the values themselves, without the lock. If it is another one after that, what they
            set may not have counted, and the summary has to be made anew.
    """

    def __init__(
        self, definitions: Definitions, values: dict[str, Any], tallies: dict[str, Tally] | None = None
    ) -> None:
        self.definitions = definitions
        self.values = values
        self.tallies = tallies or {}
        self.after_fork()
        tell_of_forks(self)

    def after_fork(self) -> None:
        self.lock = threading.RLock()
        self.settling = threading.RLock()
        self._late: list[dict[str, Any]] | None = None
        self._set_free()

    def _set_free(self) -> None:
        self.free: object | None = object() if self.definitions.empty else None

    def define(self, new: Definition) -> Definition | None:
        """Take a definition, as `Definitions.add` does; what was taken before it is another matter."""
        whole = self.definitions.add(new)
        if whole is not None:
            self.free = None
        return whole

    def take(self, data: Mapping[str, Any]) -> None:
        """Take what was logged at a step."""
        if self.free:
            self.values.update(data)
            return
        with self.lock:
            if self._late is not None:
                self._late.append(dict(data))
            for metric, value in data.items():
                definition = self.definitions.of(metric)
                if definition is None or not definition.aggregates:
                    self.values[metric] = value
                else:
                    tally = self.tallies.get(metric) or self.tallies.setdefault(metric, Tally())
                    tally.take(value)
                    self.values.update(tally.summary(metric, definition))

    def watch(self) -> None:
        """From now on, remember what is taken, for `become`."""
        with self.lock:
            self.free = None
            self._late = []

    def become(self, other: Summaries) -> None:
        """Take over what another has made of the run's records up to `watch`, and what was taken since."""
        with self.lock:
            late, self._late = self._late or [], None
            self.values.clear()
            self.values.update(other.values)
            self.tallies = other.tallies
            for data in late:
                self.take(data)
            self._set_free()
