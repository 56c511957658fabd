"""What is worth knowing of a model and its optimizers, by what they have in common; no framework is imported."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_MAX_CHILDREN = 200
_PLAIN = (bool, int, float, str)


def model_facts(model: Any) -> dict[str, Any]:
    """Return the size of a model.

    Args:
        model: with `parameters()` as in PyTorch: each has numel(), dtype, requires_grad.

    Returns:
        class, parameters, trainable (how many of them), trainable_share (0 … 1), dtypes (how many parameters of each),
        bytes, and children: the parameters of each named part. Those that have no size yet are counted as
        `uninitialized`.
    """
    facts = summed(map(_weight, _once(model.parameters())))
    children: Iterable[Any] = model.named_children() if hasattr(model, "named_children") else ()
    sizes = {
        str(name): summed(map(_weight, _once(child.parameters())))["parameters"]
        for name, child in itertools.islice(children, _MAX_CHILDREN)
    }
    return {"class": type(model).__qualname__, **facts, **({"children": sizes} if sizes else {})}


def summed(weights: Iterable[tuple[int, str, bool, int]]) -> dict[str, Any]:
    """Return the size of a model of which an integration gives the weights as plain numbers.

    Args:
        weights: of each: how many parameters it has (-1: not known yet), dtype, whether it is trained, bytes each.
    """
    dtypes: Counter[str] = Counter()
    total = trainable = size = unknown = 0
    for count, dtype, trained, width in weights:
        if count < 0:
            unknown += 1
            continue
        total += count
        trainable += count if trained else 0
        size += count * width
        dtypes[dtype] += count
    facts: dict[str, Any] = {
        "parameters": total,
        "trainable": trainable,
        "trainable_share": trainable / total if total else 0.0,
        "dtypes": dict(dtypes),
        "bytes": size,
    }
    if unknown:
        facts["uninitialized"] = unknown
    return facts


def _once(weights: Iterable[Any]) -> Iterable[Any]:
    seen: set[int] = set()
    for weight in weights:
        if id(weight) not in seen:  # tied weights are counted once
            seen.add(id(weight))
            yield weight


def _weight(weight: Any) -> tuple[int, str, bool, int]:
    try:
        count = int(getattr(weight, "ds_numel", None) or weight.numel())  # DeepSpeed's shards are empty themselves
        width = int(weight.element_size())
    except Exception:  # a lazy module's parameter has neither size nor type
        count, width = -1, 0
    name = str(getattr(weight, "dtype", "unknown")).removeprefix("torch.")
    return count, name, bool(getattr(weight, "requires_grad", True)), width


def optimizer_facts(optimizer: Any) -> dict[str, Any]:
    """Return an optimizer's class and settings.

    Args:
        optimizer: with `param_groups`, a list of mappings, as in PyTorch.

    Returns:
        class, and the plain values of its groups: of one group as they are, of several as lists.
    """
    groups = [group for group in getattr(optimizer, "param_groups", []) if isinstance(group, Mapping)]
    facts: dict[str, Any] = {"class": type(optimizer).__qualname__}
    for key in groups[0] if groups else ():
        if key == "params":
            continue
        values = [_plain(group.get(key)) for group in groups]
        if any(value is not None for value in values):
            facts[str(key)] = values[0] if all(value == values[0] for value in values) else values
    return facts


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, _PLAIN) else None


def learning_rates(optimizers: Iterable[Any]) -> dict[str, float]:
    """Return the learning rate of each optimizer as metrics: "lr" where there is one, "lr-Adam/group-1" and so on."""
    found: list[tuple[str, list[float]]] = []
    for optimizer in optimizers:
        groups = [group for group in getattr(optimizer, "param_groups", []) if "lr" in group]
        if groups:
            found.append((type(optimizer).__qualname__, [float(group["lr"]) for group in groups]))
    names: Counter[str] = Counter()
    rates: dict[str, float] = {}
    for name, values in found:
        names[name] += 1
        label = "lr" if len(found) == 1 else f"lr-{name}" + (f"-{names[name] - 1}" if names[name] > 1 else "")
        if len(values) == 1:
            rates[label] = values[0]
        else:
            rates.update({f"{label}/group-{number}": value for number, value in enumerate(values)})
    return rates
