"""What the Trainer's hooks do not tell: which Trainer it is, from where it goes on, and that an exception has left it.

`on_train_end` is called only where a training comes to its end. So `Trainer.train` itself is watched, from the first
callback that is made in a process: the method does what it did, and its callbacks hear how it was left. Where a
subclass has a `train` of its own that does not call it, a failure shows when the process ends or trains again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import Trainer

_MARK = "_watched_by_flightlog"


class Watcher(Protocol):
    """A callback that wants to hear how a training was left."""

    def left(self, error: BaseException | None) -> None:
        """The training was left, of which this is still the call: by an exception, or (None) because it was through."""


@dataclass(eq=False, frozen=True)
class Call:
    """One call of `Trainer.train`.

    Attributes:
        trainer: whose. checkpoint: the folder that the training goes on from, as it was passed; None without one.
    """

    trainer: Trainer
    checkpoint: str | None

    def callbacks(self, kind: type[Any]) -> list[Any]:
        """Return the Trainer's callbacks of a class, in the order in which they are called."""
        return [callback for callback in self.trainer.callback_handler.callbacks if isinstance(callback, kind)]


_call: ContextVar[Call | None] = ContextVar("flightlog's call of train()", default=None)


def present_call() -> Call | None:
    """Return the call of `Trainer.train` that this code runs in; None outside."""
    return _call.get()


def watch(trainer_class: type[Trainer], watcher: type[Any]) -> None:
    """Let a Trainer's callbacks of a class hear how each `train()` is left. A second time changes nothing.

    Args:
        trainer_class: Trainer itself, whose subclasses are watched with it.
        watcher: a class with the method of `Watcher`.
    """
    before: Callable[..., Any] = trainer_class.train
    if hasattr(before, _MARK):
        return

    @functools.wraps(before)
    def train(self: Trainer, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        checkpoint = resume_from_checkpoint if isinstance(resume_from_checkpoint, str) else None
        call = Call(self, checkpoint)
        token = _call.set(call)
        error: BaseException | None = None
        try:
            return before(self, resume_from_checkpoint, *args, **kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            for callback in call.callbacks(watcher):
                callback.left(error)
            _call.reset(token)

    setattr(train, _MARK, True)
    watched: Any = trainer_class
    watched.train = train
