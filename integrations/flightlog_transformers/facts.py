"""What a Trainer knows of itself, as plain values: its arguments, the model's configuration, PEFT's, the trial's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flightlog.terminal import contained

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments


def settings_of(args: TrainingArguments, state: TrainerState, model: Any) -> dict[str, Any]:
    """Return what a training is set to.

    Args:
        args: all of them, by their own names; tokens are masked there.
        state: of the training; in a hyperparameter search it knows the trial.
        model: anything; a `config` and a `peft_config` are looked at.

    Returns:
        The arguments, and where there are such: model_config, peft_config (of each adapter), trial. What one of them
        raises costs that one.
    """
    found: dict[str, Any] = {}
    with contained("reading TrainingArguments"):
        found.update(args.to_dict())
    with contained("reading the model's configuration"):
        config = _as_dict(getattr(model, "config", None))
        if config:
            found["model_config"] = config
    with contained("reading the PEFT configuration"):
        adapters = getattr(model, "peft_config", None)
        if isinstance(adapters, Mapping) and adapters:
            found["peft_config"] = {str(name): _as_dict(adapter) for name, adapter in adapters.items()}
    if state.trial_params:
        found["trial"] = dict(state.trial_params)
    return found


def _as_dict(config: Any) -> dict[str, Any]:
    if config is None or isinstance(config, Mapping):
        return dict(config or {})
    return dict(config.to_dict())


def unwrapped(optimizer: Any) -> Any:
    """Return an optimizer or scheduler as the user knows it, not accelerate's wrapper around it."""
    for name in ("optimizer", "scheduler"):
        inner = getattr(optimizer, name, None) if type(optimizer).__module__.startswith("accelerate") else None
        if inner is not None:
            return inner
    return optimizer
