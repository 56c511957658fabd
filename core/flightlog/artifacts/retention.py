"""Which versions of an artifact a rule lets go: `keep_last=`, `keep_best=`."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from .catalog import Version


@dataclass(frozen=True, slots=True)
class Rule:
    """What stays: the `last` versions, and the `best` by a value of their metadata (0: none for that reason)."""

    last: int = 0
    best: int = 0
    metric: str = ""
    largest: bool = False


def checked_rule(keep_last: object, keep_best: object) -> Rule | None:
    """Return the rule that `log_artifact(keep_last=, keep_best=)` asks for, None where it asks for none.

    Args:
        keep_last: how many versions stay, the newest.
        keep_best: (metric, "min" or "max") or (metric, "min" or "max", how many).

    Raises:
        UsageError: it is none of that.
    """
    if keep_last is None and keep_best is None:
        return None
    if keep_last is not None and (type(keep_last) is not int or keep_last < 1):
        raise UsageError(f"keep_last={keep_last!r}: how many versions stay, 1 or more")
    last = keep_last or 0
    if keep_best is None:
        return Rule(last)
    parts = tuple(keep_best) if isinstance(keep_best, list | tuple) else ()
    metric, which, count = (*parts, 1) if len(parts) == 2 else parts if len(parts) == 3 else (None, None, 0)
    if not isinstance(metric, str) or which not in ("min", "max") or type(count) is not int or count < 1:
        raise UsageError(f'keep_best={keep_best!r}: (metric, "min" or "max") or (metric, "min" or "max", how many)')
    return Rule(last, count, metric, which == "max")


def superseded(versions: Sequence[Version], rule: Rule, protected: Collection[str]) -> list[Version]:
    """Return the versions that a rule lets go.

    Args:
        versions: those of one artifact that are whole, in the order in which they were last logged.
        rule: what stays.
        protected: names of versions that stay whatever the rule says: those that an alias holds.
    """
    stay = {v.version for v in versions[max(0, len(versions) - rule.last) :]}
    scored = [v for v in versions if _score(v, rule) is not None]
    scored.sort(key=lambda v: _score(v, rule) or 0.0, reverse=rule.largest)
    stay |= {v.version for v in scored[: rule.best]}
    return [v for v in versions if v.version not in stay and v.version not in protected]


def _score(version: Version, rule: Rule) -> float | None:
    value = version.metadata.get(rule.metric) if rule.best else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
