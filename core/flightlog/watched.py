"""`watch()`: histograms of a model's gradients and parameters, by hooks that PyTorch calls while it trains.

Nothing of torch is imported: a model is known by what it can do. The hooks belong to the model; in a copy of it, or
when it is saved whole and loaded again, they do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from .errors import UsageError
from .terminal import guarded

WHAT = ("gradients", "parameters", "all")
Log = Callable[[Mapping[str, Any]], object]


class _Handle(Protocol):
    def remove(self) -> None: ...


class Watched:
    """The models that a run watches.

    Args:
        log: takes histograms by name, for the step under way.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._handles: dict[int, list[_Handle]] = {}
        self._begun = 0

    def watch(self, models: object, what: str | None, every: int) -> None:
        """Watch a model or several; one that is watched already is watched anew.

        Args:
            models: torch modules. what: "gradients", "parameters", "all", or None for neither.
            every: log each so many batches.

        Raises:
            UsageError: something else was given.
        """
        if what is not None and what not in WHAT:
            raise UsageError(f"watch(log={what!r}): {', '.join(WHAT)} or None")
        if type(every) is not int or every < 1:
            raise UsageError(f"watch(log_freq={every!r}): a number of batches, 1 or more")
        for model in _checked(models):
            self._unwatch(model)
            prefix = f"model{self._begun}." if self._begun else ""
            self._begun += 1
            handles: list[_Handle] = []
            if what in ("gradients", "all"):
                handles += self._gradients(model, prefix, every)
            if what in ("parameters", "all"):
                handles.append(model.register_forward_hook(_Parameters(self._log, prefix, every)))
            self._handles[id(model)] = handles

    def unwatch(self, models: object = None) -> None:
        """Watch a model, several, or without any all of them, no longer. Raises UsageError as `watch` does."""
        if models is None:
            for key in list(self._handles):
                self._remove(key)
        else:
            for model in _checked(models):
                self._unwatch(model)

    def _unwatch(self, model: object) -> None:
        self._remove(id(model))

    def _remove(self, key: int) -> None:
        for handle in self._handles.pop(key, []):
            handle.remove()

    def _gradients(self, model: Any, prefix: str, every: int) -> Iterator[_Handle]:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                yield parameter.register_hook(_Gradient(self._log, f"gradients/{prefix}{name}", every))


def _checked(models: object) -> list[Any]:
    found = list(models) if isinstance(models, list | tuple | set) else [models]
    for model in found:
        if not all(callable(getattr(model, name, None)) for name in ("named_parameters", "register_forward_hook")):
            raise UsageError(f"watch() takes a torch.nn.Module, or several, not {type(model).__name__}")
    return found


class _Hook:
    """A hook that says nothing in a copy: copied, or saved and loaded, it becomes one that does nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Nothing, ()


class _Nothing(_Hook):
    def __call__(self, *_: object) -> None:
        return None


class _Gradient(_Hook):
    def __init__(self, log: Log, name: str, every: int) -> None:
        self._log, self._name, self._every = log, name, every
        self._seen = 0

    def __call__(self, gradient: Any) -> None:
        self._seen += 1
        if self._seen % self._every == 0:
            with guarded("watch()"):
                self._log(_histograms([(self._name, gradient)]))


class _Parameters(_Hook):
    def __init__(self, log: Log, prefix: str, every: int) -> None:
        self._log, self._prefix, self._every = log, prefix, every
        self._seen = 0

    def __call__(self, model: Any, *_: object) -> None:
        if not getattr(model, "training", True):
            return
        self._seen += 1
        if self._seen % self._every == 0:
            with guarded("watch()"):
                named = ((f"parameters/{self._prefix}{name}", values) for name, values in model.named_parameters())
                self._log(_histograms(named))


def _histograms(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    from .media import Histogram

    return {name: Histogram(_dense(values)) for name, values in named if values is not None and values.numel()}


def _dense(values: Any) -> Any:
    """Return what of a sparse gradient is there."""
    return values.coalesce().values() if getattr(values, "is_sparse", False) else values
