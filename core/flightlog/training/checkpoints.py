"""Which of a training's checkpoints are kept as versions of an artifact, and under which aliases.

A framework saves a checkpoint, says which one is the best, and deletes what it no longer wants. What is kept here is
pinned at once, so that this rotation cannot take it; and it is let go again when the policy no longer wants it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..terminal import warn_once

if TYPE_CHECKING:
    from ..artifacts import ArtifactVersion
    from ..run import Run

POLICIES = ("none", "best", "last", "best_and_last", "all")
_MOST_POSTPONED = 64


def checked_policy(policy: object) -> str:
    """Return a policy, also where it was given as True or False. Raises UsageError where it is none."""
    name = "all" if policy is True else "none" if policy is False or policy is None else policy
    if name not in POLICIES:
        raise UsageError(f"checkpoints={policy!r} is no policy; it is one of {', '.join(POLICIES)}")
    return str(name)


@dataclass(slots=True)
class _Kept:
    """A version that is kept.

    Attributes:
        version: returns its name, which may change while it is copied.
        step, kind: which checkpoint it is; a step of None: of an earlier process, which may have come to it otherwise.
        paths: where the framework has it. best: the aliases that say that it is the best of something.
        is_scored: whether its metadata have a score. is_replaced: whether it is kept anew, with one.
    """

    version: Callable[[], str]
    step: int | None
    kind: str
    paths: set[str] = field(default_factory=set)
    best: set[str] = field(default_factory=set)
    is_scored: bool = True
    is_replaced: bool = False


@dataclass(frozen=True, slots=True)
class _Order:
    """What `saved` was told, for a checkpoint that is still being written."""

    path: str
    step: int
    kind: str
    best: str | None
    aliases: tuple[str, ...]
    metadata: dict[str, Any]
    write_once: bool
    others: tuple[str, ...] | None
    is_side: bool

    @property
    def is_scored(self) -> bool:
        """Whether its metadata have a score."""
        return "score" in self.metadata


class Checkpoints:
    """Keeps a run's checkpoints.

    Args:
        policy: "none"; "best": those that the framework itself counts among its best; "last": the newest;
            "best_and_last": both; "all": each that is saved, for ever.
        run: returns the run, None where nothing is recorded.
        name: the artifact's name; "model-<run id>" without one.

    Raises:
        UsageError: the policy is none.
    """

    def __init__(self, policy: object, run: Callable[[], Run | None], name: str | None = None) -> None:
        self.policy = checked_policy(policy)
        self._run = run
        self._name = name
        self._kept: list[_Kept] | None = None
        self._postponed: list[_Order] = []

    def artifact(self, run: Run) -> str:
        """Return the artifact's name."""
        return self._name or f"model-{run.id}"

    def begin(self) -> None:
        """A training begins, or goes on from an earlier step: a step that was saved before may come to mean another."""
        for kept in self._kept or ():
            kept.step = None

    def saved(
        self,
        path: str | os.PathLike[str],
        *,
        step: int,
        epoch: int | None = None,
        best: bool | str = False,
        metric: str | None = None,
        score: float | None = None,
        mode: str | None = None,
        kind: str = "full",
        write_once: bool = False,
        others: Iterable[str | os.PathLike[str]] | None = None,
        metadata: Mapping[str, Any] | None = None,
        is_side: bool = False,
    ) -> None:
        """The framework has saved a checkpoint. One that is not there yet is looked for again at the next call.

        Args:
            path: a file, or a folder with all below it.
            step, epoch: how far the training had come; aliases are `step-N` and `epoch-N`.
            best: whether it is the best so far; the alias `best` moves to it. A name moves that alias, for the best by
                another metric: it begins with "best".
            metric, score, mode: by which metric, its value, and "min" or "max".
            kind: tells apart what is saved at one step and is not the same, such as "full" and "weights".
            write_once: whether the framework never writes to this file again (it may delete it, or put another in its
                place): a link is enough to keep it then.
            others: the checkpoints that the framework itself still counts among its best ones; None where it does not
                say: then only the best is.
            metadata: more to go with it.
            is_side: whether the training saves a kind beside this one that is the checkpoint proper: then the kind's
                name is part of the aliases, `step-N-weights` and `epoch-N-weights`, and `latest` stays with the other.
        """
        if self.policy == "none":
            return
        facts = {"step": step, "epoch": epoch, "metric": metric, "score": score, "mode": mode, "kind": kind}
        values = {key: value for key, value in facts.items() if value is not None}
        if metric is not None and score is not None:
            values.setdefault(metric, score)
        side = f"-{kind}" if is_side else ""
        aliases = [f"step-{step}{side}"] + ([] if epoch is None else [f"epoch-{epoch}{side}"])
        order = _Order(
            os.path.abspath(path),  # noqa: PTH100  # a link to a checkpoint has a name of its own
            step, kind, "best" if best is True else best or None, tuple(aliases), {**values, **(metadata or {})},
            write_once,
            None if others is None else tuple(os.path.abspath(other) for other in others),  # noqa: PTH100
            is_side,
        )  # fmt: skip
        self.settle()
        if not Path(order.path).exists():
            self._postponed = [*self._postponed[-_MOST_POSTPONED:], order]
            return
        self._take(order)

    def settle(self) -> None:
        """Keep those that were not there yet when they were saved, as far as they are now."""
        waiting, self._postponed = self._postponed, []
        for order in waiting:
            if Path(order.path).exists():
                self._take(order)
            else:
                self._postponed.append(order)

    def best_is(self, path: str | os.PathLike[str], alias: str = "best") -> None:
        """Another one that is kept already is the best now: the alias moves to it."""
        run = self._run()
        where = os.path.abspath(path)  # noqa: PTH100
        if run is None or not run.recording or self.policy == "none":
            return
        for kept in self._all(run):
            if where in kept.paths:
                self._make_best(run, kept, alias)

    def metadata(self) -> list[tuple[Mapping[str, Any], tuple[str, ...]]]:
        """Return what is kept of this run so far, oldest first: of each version its metadata and aliases."""
        run = self._run()
        if run is None or not run.recording:
            return []
        return [(version.metadata, aliases) for version, aliases in run._keeper.kept(self.artifact(run))]

    def end(self) -> None:
        """The training has ended: what has not appeared by now is said."""
        self.settle()
        for order in self._postponed:
            warn_once(f"checkpoint {order.path}", f"{order.path} is not kept: it was not written, or deleted at once.")
        self._postponed.clear()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _take(self, order: _Order) -> None:
        run = self._run()
        if run is None or not run.recording:
            return
        known = self._same(run, order)
        if known is not None and order.is_scored and not known.is_scored:
            self._keep_anew(run, order, known)
        elif known is not None:
            known.paths.add(order.path)
            if order.best:
                self._make_best(run, known, order.best)
        elif order.best or self.policy != "best" or order.path in (order.others or ()):
            self._keep(run, order)
        self._let_go(run, order.others)

    def _same(self, run: Run, order: _Order) -> _Kept | None:
        """Return what is kept of this very checkpoint: saved under a second name, or led to by a link."""
        target = os.path.realpath(order.path)
        for kept in self._all(run):
            if kept.step is not None and (kept.step, kept.kind) == (order.step, order.kind):
                return kept
            if kept.step is not None and target != order.path and target in kept.paths:
                return kept
        return None

    def _keep_anew(self, run: Run, order: _Order, known: _Kept) -> None:
        """Keep a checkpoint that was first saved when it had no score yet: a version's metadata do not change."""
        fresh = self._keep(run, order)
        if fresh is not None:
            for alias in tuple(known.best):
                self._make_best(run, fresh, alias)
            fresh.paths |= known.paths
            known.is_replaced = True

    def _keep(self, run: Run, order: _Order) -> _Kept | None:
        aliases = (*order.aliases, order.best) if order.best else order.aliases
        name = self.artifact(run)
        handle: ArtifactVersion | None = run.log_artifact(
            order.path, name, "model", aliases, {**order.metadata, "path": order.path},
            policy="link" if order.write_once else "auto",
        )  # fmt: skip
        if handle is None:
            return None
        everything = self._all(run)
        paths = {order.path, os.path.realpath(order.path)}
        fresh = _Kept(lambda: handle.version, order.step, order.kind, paths, is_scored=order.is_scored)
        proper = next((kept for kept in reversed(everything) if kept.kind != order.kind), None)
        if order.is_side and proper is not None:
            run._keeper.retag(name, proper.version, ["latest"])
        if order.best:
            _only_best(everything, fresh, order.best)
        for older in everything:
            if order.path in older.paths and older is not fresh:
                older.paths.discard(order.path)  # the framework has another checkpoint under this name now
        everything.append(fresh)
        return fresh

    def _make_best(self, run: Run, kept: _Kept, alias: str) -> None:
        if alias not in kept.best:
            run._keeper.retag(self.artifact(run), kept.version, [alias])
            _only_best(self._all(run), kept, alias)

    def _let_go(self, run: Run, others: tuple[str, ...] | None) -> None:
        everything = self._all(run)
        stay = [kept for kept in everything if self._is_wanted(kept, everything, others)]
        gone = [kept for kept in everything if not any(kept is one for one in stay)]
        if gone:
            # Two checkpoints with the same content are one version: it goes with the last of them.
            run._keeper.let_go(self.artifact(run), lambda: _versions(gone) - _versions(stay))
            self._kept = stay

    def _is_wanted(self, kept: _Kept, everything: list[_Kept], others: tuple[str, ...] | None) -> bool:
        if kept.is_replaced:
            return False
        if self.policy == "all":
            return True
        if self.policy in ("last", "best_and_last") and kept is _newest(everything, kept.kind):
            return True
        wants_best = self.policy in ("best", "best_and_last")
        return wants_best and (bool(kept.best) or not kept.paths.isdisjoint(others or ()))

    def _all(self, run: Run) -> list[_Kept]:
        """Return what is kept, oldest first; at first what earlier processes of this run have."""
        if self._kept is None:
            self._kept = []
            if run.resumed or not run.is_whole:
                for version, aliases in run._keeper.kept(self.artifact(run)):
                    path, kind = version.metadata.get("path"), version.metadata.get("kind")
                    paths = {path} if isinstance(path, str) else set()
                    name = version.version
                    best = {alias for alias in aliases if alias.startswith("best")}
                    self._kept.append(_Kept(lambda name=name: name, None, str(kind), paths, best))  # type: ignore[misc]
        return self._kept


def _versions(kept: Iterable[_Kept]) -> set[str]:
    return {each.version() for each in kept}


def _newest(everything: list[_Kept], kind: str) -> _Kept | None:
    return next((kept for kept in reversed(everything) if kept.kind == kind), None)


def _only_best(everything: list[_Kept], best: _Kept, alias: str) -> None:
    for kept in everything:
        kept.best.discard(alias)
    best.best.add(alias)
