"""accelerate's tracker: what an Accelerator logs and saves, and which run it goes on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator, tracking
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import ProjectConfiguration

import flightlog
from flightlog import current
from flightlog.errors import UsageError
from flightlog.reading.views import ArtifactView, RunView
from flightlog_transformers import FlightlogTracker, attach

# Before 1.15 a tracker is known by no name; it is passed as an object.
by_name = pytest.mark.skipif(not hasattr(tracking, "register_tracker_class"), reason="accelerate before 1.15")
Runs = Callable[[], list[RunView]]
Versions = Callable[[RunView], dict[int, ArtifactView]]


@pytest.fixture(autouse=True)
def no_accelerator_left() -> Iterator[None]:
    """Forget the Accelerator that another test, or a Trainer, has made in this process."""
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def accelerator(log_with: Any = "flightlog", folder: str | None = None) -> tuple[Accelerator, Any, Any]:
    """Return an Accelerator, and a model with its optimizer, prepared; with a folder, it names its checkpoints."""
    AcceleratorState._reset_state()
    configuration = ProjectConfiguration(folder, automatic_checkpoint_naming=True) if folder else None
    made = Accelerator(log_with=log_with, project_config=configuration, cpu=True)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    return (made, *made.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1)))


def train(made: Accelerator, model: Any, optimizer: Any, steps: range) -> list[float]:
    """Train, log each step's loss, and save every fifth; return the losses."""
    losses = []
    for step in steps:
        loss = model(torch.ones(8, 4)).pow(2).mean() + 1
        made.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        made.log({"loss": losses[-1]}, step=step)
        if step % 5 == 4:
            made.save_state()
    return losses


@by_name
def test_what_an_accelerator_logs_is_recorded(runs: Runs) -> None:
    """log_with="flightlog" is enough: values, settings, images and tables; end_training ends the run."""
    made, *_ = accelerator()
    made.init_trackers("digits", config={"lr": 0.1}, init_kwargs={"flightlog": {"name": "first", "tags": ["a"]}})
    losses = [float(step) for step in range(3)]
    for step, loss in enumerate(losses):
        made.log({"loss": loss, "odd": object()} if step == 1 else {"loss": loss}, step=step)
    tracker = made.get_tracker("flightlog")
    tracker.log_images({"inputs": [np.zeros((4, 4), dtype=np.uint8)]}, step=2)
    tracker.log_table("errors", columns=["n", "text"], data=[[1, "one"]], step=2)
    run = made.get_tracker("flightlog", unwrap=True)
    assert run.state == "running" and run is current.current_or_none()
    made.end_training()
    (view,) = runs()
    assert (view.project, view.name, view.tags, view.state) == ("digits", "first", ("a",), "finished")
    assert [row["loss"] for row in view.history(["loss"])] == losses
    assert view.config == {"lr": 0.1}
    assert {media["key"] for media in view.media()} >= {"inputs", "errors"}


@by_name
def test_a_training_goes_on_after_load_state(runs: Runs, versions: Versions) -> None:
    """With attach, checkpoints are kept, and load_state leads to the run that saved them, at their step."""
    first, *state = accelerator(folder="work")
    attach(first)
    attach(first)
    first.init_trackers("digits", config={"lr": 0.1}, init_kwargs={"flightlog": {"checkpoints": "all"}})
    before = train(first, *state, range(8))
    made_by_first = current.current_or_none()
    assert made_by_first is not None
    made_by_first.fail(RuntimeError("the node went away"))

    again, *state = accelerator(folder="work")
    attach(again)
    again.init_trackers("digits", config={"lr": 0.1}, init_kwargs={"flightlog": {"checkpoints": "all"}})
    again.load_state("work/checkpoints/checkpoint_0")
    again.project_configuration.iteration = 1
    after = train(again, *state, range(5, 10))
    again.end_training()
    (view,) = runs()
    assert (view.id, view.state) == (made_by_first.id, "finished")
    assert [row["loss"] for row in view.history()] == before[:5] + after
    kept = versions(view)
    assert set(kept) == {4, 9} and "latest" in kept[9].aliases
    assert {"model.safetensors", "flightlog.json"} <= {file.path for file in kept[9].files}


@by_name
def test_the_next_training_leaves_the_ended_run_alone(runs: Runs, versions: Versions) -> None:
    """The Accelerator keeps its old tracker and tells it everything, too: neither values nor checkpoints go there."""
    made, model, optimizer = accelerator(folder="out")
    attach(made)
    for project, steps in (("one", range(5)), ("two", range(10))):
        made.init_trackers(project)
        losses = train(made, model, optimizer, steps)
        made.end_training()
    first, second = runs()
    assert (first.project, second.project) == ("one", "two")
    assert [row["_step"] for row in first.history()] == list(range(5)) and list(versions(first)) == [4]
    assert [row["loss"] for row in second.history()] == losses and list(versions(second)) == [9]


@by_name
def test_a_folder_that_is_saved_into_again_is_kept_each_time(runs: Runs, versions: Versions) -> None:
    """Without names of accelerate's own making, a checkpoint is written over; each version has what it had then."""
    made, model, _ = accelerator()
    attach(made)
    made.init_trackers("digits", init_kwargs={"flightlog": {"checkpoints": "all"}})
    weights = []
    for step in range(2):
        with torch.no_grad():
            model.weight.fill_(float(step))
        made.log({"loss": 1.0}, step=step)
        made.save_state("ckpt")
        weights.append(Path("ckpt/model.safetensors").read_bytes())
    made.end_training()
    (view,) = runs()
    for step, version in versions(view).items():
        assert version.download_file("model.safetensors", f"copy-{step}").read_bytes() == weights[step]
    assert weights[0] != weights[1] and len(versions(view)) == 2


def test_a_tracker_may_be_passed_as_an_object_beside_another(tmp_path: Path, runs: Runs) -> None:
    """An object goes to the script's own run, which it does not end; TensorBoard has the same values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with flightlog.init(project="own") as run:
        AcceleratorState._reset_state()
        made = Accelerator(log_with=[FlightlogTracker(run=run), "tensorboard"], project_dir="board", cpu=True)
        made.init_trackers("digits", config={"lr": 0.1})
        made.log({"loss": 2.0}, step=3)
        made.log({"loss": 1.0}, step=torch.tensor(4))
        made.end_training()
        assert run.state == "running"
    (view,) = runs()
    assert view.project == "own" and view.config == {"lr": 0.1}
    assert [(row["_step"], row["loss"]) for row in view.history()] == [(3, 2.0), (4, 1.0)]
    (events,) = {path.parent for path in tmp_path.rglob("events.out.tfevents.*") if path.parent.name == "digits"}
    assert [e.value for e in EventAccumulator(str(events)).Reload().Scalars("loss")] == [2.0, 1.0]


@by_name
def test_misuse_is_said_when_trackers_are_made() -> None:
    """A policy that is none is an error where it is given."""
    made, *_ = accelerator()
    with pytest.raises(UsageError, match="checkpoints='some'"):
        made.init_trackers("digits", init_kwargs={"flightlog": {"checkpoints": "some"}})
