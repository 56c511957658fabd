"""The public surface, pinned: a name added or lost is a decision, not an accident."""

from __future__ import annotations

import inspect

import pytest

import flightlog
from flightlog import errors


def test_the_public_names() -> None:
    """What `flightlog` offers, and that each name is there."""
    assert flightlog.__all__ == [
        "AlertLevel", "Api", "Artifact", "Audio", "FlightlogError", "Histogram", "Html", "Image", "Plotly", "Run",
        "Table", "Text", "UsageError", "Video", "alert", "define_metric", "finish", "init", "log", "log_artifact",
        "log_model", "mark_preempting", "plot", "save", "unwatch", "use_artifact", "watch",
    ]  # fmt: skip
    flightlog.init(mode="disabled")
    assert all(getattr(flightlog, name) is not None for name in dir(flightlog))
    assert set(dir(flightlog)) == {*flightlog.__all__, "config", "run", "summary", "__version__"}
    with pytest.raises(AttributeError, match="nope"):
        flightlog.nope  # noqa: B018


def test_looking_at_the_module_without_a_run_does_no_harm() -> None:
    """`import *`, hasattr and inspect work before init; config says what to do when it is asked for."""
    names: dict[str, object] = {}
    exec("from flightlog import *", names)
    assert names["init"] is flightlog.init
    assert flightlog.run is None and not hasattr(flightlog, "config")
    with pytest.raises(flightlog.UsageError, match=r"call flightlog\.init"):
        flightlog.config  # noqa: B018


def test_the_arguments_of_init() -> None:
    """Those of the issue, by keyword after the project."""
    parameters = inspect.signature(flightlog.init).parameters
    assert [*parameters][:11] == [
        "project", "name", "id", "config", "tags", "notes", "group", "job_type", "dir", "mode", "resume",
    ]  # fmt: skip
    assert [*inspect.signature(flightlog.log).parameters] == ["data", "step", "commit", "sync"]
    assert [*inspect.signature(flightlog.finish).parameters] == ["exit_code", "quiet"]


def test_every_public_thing_says_what_it_does() -> None:
    """Public functions, classes and methods have docstrings."""
    for thing in (getattr(flightlog, name) for name in flightlog.__all__):
        assert inspect.getdoc(thing)
    for name, method in inspect.getmembers(flightlog.Run, inspect.isfunction):
        assert name.startswith("_") or inspect.getdoc(method), name


def test_the_exception_tree_is_as_it_is_drawn() -> None:
    """Every exception of errors.py stands in its drawing, and derives from FlightlogError."""
    kinds = [k for k in vars(errors).values() if inspect.isclass(k) and issubclass(k, Exception)]
    assert kinds and errors.__doc__
    for kind in kinds:
        assert issubclass(kind, flightlog.FlightlogError) and kind.__name__ in errors.__doc__
