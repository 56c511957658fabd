"""What is worth knowing of a Keras model and how it is trained, as plain values."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from flightlog.training.facts import summed

from .axis import number

_MAX_CHILDREN = 200
_BITS = re.compile(r"[a-z]+(\d+)")


def model_facts(model: Any) -> dict[str, Any]:
    """Return the size of a model: see `flightlog.training.facts.summed`; class, and children by layer."""
    trained = {id(weight) for weight in model.trainable_weights}
    facts = summed(_weight(weight, id(weight) in trained) for weight in _once(model.weights))
    children = {}
    for layer in itertools.islice(getattr(model, "layers", []), _MAX_CHILDREN):
        size = sum(math.prod(weight.shape) for weight in _once(layer.weights))
        if size:
            children[str(layer.name)] = size
    facts = {"class": type(model).__name__, "name": str(model.name), **facts}
    return {**facts, "children": children} if children else facts


def _once(weights: list[Any]) -> Iterator[Any]:
    return iter({id(weight): weight for weight in weights}.values())


def _weight(weight: Any, is_trained: bool) -> tuple[int, str, bool, int]:
    dtype = str(keras.backend.standardize_dtype(weight.dtype))
    bits = _BITS.match(dtype)
    return math.prod(weight.shape), dtype, is_trained, max(1, int(bits.group(1)) // 8) if bits else 1


def _members(optimizer: Any) -> list[Any]:
    """Return the optimizers that one stands for: the one whose loss is scaled, or several."""
    inner = getattr(optimizer, "inner_optimizer", None) or optimizer
    return list(getattr(inner, "optimizers", None) or [inner])


def optimizer_facts(optimizer: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the optimizers' classes and settings, and those of their learning-rate schedules."""
    optimizers, schedules = [], []
    for one in _members(optimizer):
        config = _config(one)
        rate = config.get("learning_rate")
        if isinstance(rate, Mapping):
            schedules.append({"class": str(rate.get("class_name")), **dict(rate.get("config") or {})})
            del config["learning_rate"]
        optimizers.append({"class": type(one).__name__, **{k: v for k, v in config.items() if v is not None}})
    return optimizers, schedules


def _config(optimizer: Any) -> dict[str, Any]:
    """Return an optimizer's settings; one of the user's own, or its schedule, may have no form as a config."""
    try:
        return dict(optimizer.get_config())
    except Exception:
        schedule = getattr(optimizer, "_learning_rate", None)
        is_schedule = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
        return {"learning_rate": {"class_name": type(schedule).__name__}} if is_schedule else {}


def learning_rates(optimizer: Any, batches: int | None = None) -> dict[str, float]:
    """Return the learning rates under the names that Keras itself gives them.

    Args:
        optimizer: the model's.
        batches: the count to ask a schedule for, where the optimizer's own may not be at hand. A rate that is no
            schedule is then left out where it lies in a state that Keras has taken away for the time of an epoch.
    """
    members = _members(optimizer)
    found: dict[str, float] = {}
    for one in members:
        name = "learning_rate" if len(members) == 1 else f"learning_rate_{one.name}"
        schedule: Any = getattr(one, "_learning_rate", None)
        with contextlib.suppress(Exception):  # jax: the variable is empty within an epoch
            if batches is not None and isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
                found[name] = number(schedule(batches))
            else:
                found[name] = number(one.learning_rate)
    return found


def fit_facts(model: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a model is trained: what `compile` and `fit` were told, as far as they tell it on."""
    facts: dict[str, Any] = {"version": keras.__version__, "backend": keras.backend.backend()}
    for name, found in (("epochs", "epochs"), ("steps", "steps_per_epoch")):
        if params.get(name) is not None:
            facts[found] = params[name]
    policy = getattr(getattr(model, "dtype_policy", None), "name", None)
    facts["dtype_policy"] = policy
    for name in ("jit_compile", "run_eagerly", "steps_per_execution"):
        facts[name] = getattr(model, name, None)
    with contextlib.suppress(Exception):  # a loss or metric of the user's own may have no form as a config
        compiled = model.get_compile_config() or {}
        facts["loss"] = _named(compiled.get("loss"))
        facts["metrics"] = _named(compiled.get("metrics"))
    return {name: value for name, value in facts.items() if value is not None}


def _named(value: Any) -> Any:
    """Return a serialized loss or metric by its name."""
    if isinstance(value, Mapping):
        if "class_name" in value:
            config = value.get("config")
            name = config.get("name") if isinstance(config, Mapping) else config
            return str(name or value["class_name"])
        return {str(key): _named(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_named(item) for item in value]
    return value if value is None or isinstance(value, str) else str(value)


def samples_seen(model: Any, batches: int, loss: float | None = None) -> int | None:
    """Return how many samples the batches of this epoch had together; None where Keras has not counted them.

    The mean over the loss weighs each batch by its size, so its count is theirs. Where it counts batches, or is not
    used at all, as with a train_step of the user's own, there is nothing to tell.

    Args:
        model: what is trained.
        batches: how many they were.
        loss: the epoch's, where it is known: a mean that is another one belongs to an evaluation in between.
    """
    with contextlib.suppress(Exception):
        for metric in model.metrics:
            if metric.name == "loss":
                if loss is not None and not math.isclose(number(metric.result()), loss, rel_tol=1e-5):
                    return None
                count = number(metric.count)
                return int(count) if count > batches and count.is_integer() else None
    return None
