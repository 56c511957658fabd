"""What an integration costs a training: the median step with and without it, and what is added to the start.

    python benchmarks/integrations.py              each framework that is installed
    python benchmarks/integrations.py lightning

The model's step takes about 5 ms on one core. Trainings with and without take turns, and of each kind the quietest
counts: the machine's other work is noise to both. `hooks` is the processor time that the training's own thread spends
in our hooks, per step.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import functools
import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STEPS = 200
ROUNDS = 4
STEP_SECONDS = 0.005


def work() -> Callable[[], None]:
    """Return a function that keeps one core busy for about 5 ms."""
    import torch

    torch.set_num_threads(1)
    a = torch.rand(256, 256)
    took = []
    for _ in range(100):
        began = time.perf_counter()
        a @ a
        took.append(time.perf_counter() - began)
    times = max(1, int(STEP_SECONDS / min(took)))

    def step() -> None:
        for _ in range(times):
            a @ a

    return step


class Meter:
    """Takes the times between the begins of steps, and how long a start took."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.start = self.start_processor = 0.0

    def mark(self) -> None:
        self.marks.append(time.perf_counter())

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Count a block as part of the start."""
        began, processor = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.start += time.perf_counter() - began
            self.start_processor += time.thread_time() - processor

    @property
    def median(self) -> float:
        return statistics.median(b - a for a, b in zip(self.marks, self.marks[1:], strict=False))


class Spent:
    """Adds up the processor time that this thread spends in some methods, without that of asking for the time."""

    def __init__(self) -> None:
        self._total = self._empty = 0.0
        self._calls = self._empties = 0
        self._inside = False

    @property
    def seconds(self) -> float:
        return self._total - self._calls * self._empty / max(1, self._empties)

    def ask(self) -> None:
        """Take the time of nothing: after other work it is far from what it is in a loop."""
        began = time.thread_time()
        self._empty += time.thread_time() - began
        self._empties += 1

    def watch(self, owner: Any, names: list[str]) -> None:
        """Count what these methods of an object take, but not twice where one calls another."""
        for name in names:
            setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return method(*args, **kwargs)
            self._inside = True
            began = time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                self._total += time.thread_time() - began
                self._calls += 1
                self._inside = False

        return counted


def lightning(recorded: bool, folder: Path, step: Callable[[], None], spent: Spent, every: int = 50) -> Meter:
    """Train with Lightning; the other kind has a logger that does nothing, and no callback."""
    import lightning as L
    import torch
    from lightning.pytorch.loggers.logger import DummyLogger

    meter = Meter()

    class Model(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            meter.mark()
            step()
            spent.ask()
            loss = self.layer(batch).mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(torch.rand(STEPS * 4, 4), batch_size=4)

    logger: Any = DummyLogger()
    if recorded:
        with meter.starting():
            from flightlog_lightning import FlightlogLogger

            logger = FlightlogLogger(project="benchmark", dir=folder)
    trainer = L.Trainer(
        max_epochs=1, logger=logger, log_every_n_steps=every, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=str(folder),
    )  # fmt: skip
    ours = next((c for c in trainer.callbacks if type(c).__name__ == "FlightlogCallback"), None)
    if not recorded:
        trainer.callbacks = [c for c in trainer.callbacks if c is not ours]
    elif ours is not None:
        time_method(meter, ours, "_begin")
        spent.watch(ours, ["on_train_batch_start", "on_train_batch_end"])
        spent.watch(logger, ["log_metrics"])
    trainer.fit(Model())
    if recorded:
        logger.training.finish()
    return meter


def pytorch(recorded: bool, folder: Path, step: Callable[[], None], spent: Spent) -> Meter:
    """Train in a plain loop, with `run.track` and `run.log`."""
    import torch

    import flightlog

    meter = Meter()
    loader = torch.utils.data.DataLoader(torch.rand(STEPS * 4, 4), batch_size=4)
    with meter.starting():
        run = flightlog.init("benchmark", dir=folder) if recorded else None
    if run is not None:
        spent.watch(run, ["log"])
    for _ in run.track(loader) if run is not None else loader:
        meter.mark()
        step()
        spent.ask()
        if run is not None:
            run.log({"loss": 1.0})
    if run is not None:
        run.finish()
    return meter


def trainer(recorded: bool, folder: Path, step: Callable[[], None], spent: Spent, every: int = 500) -> Meter:
    """Train with the Hugging Face Trainer; the other kind has no callback of ours."""
    import torch
    import transformers

    meter = Meter()

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x: Any) -> Any:
            meter.mark()
            step()
            spent.ask()
            return {"loss": self.layer(x).mean()}

    arguments = transformers.TrainingArguments(
        str(folder / "out"), max_steps=STEPS, per_device_train_batch_size=4, logging_steps=every, save_strategy="no",
        report_to="none", disable_tqdm=True, use_cpu=True, remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    callbacks: list[Any] = []
    if recorded:
        with meter.starting():
            from flightlog_transformers import FlightlogCallback

            callbacks = [FlightlogCallback(project="benchmark", dir=folder)]
        time_method(meter, callbacks[0], "on_train_begin")
        spent.watch(callbacks[0], ["on_step_begin", "on_optimizer_step", "on_step_end", "on_log"])
    data = [{"x": torch.rand(4)} for _ in range(STEPS * 4)]
    loop = transformers.Trainer(Model(), arguments, train_dataset=data, callbacks=callbacks)
    loop.remove_callback(transformers.PrinterCallback)
    loop.train()
    for callback in callbacks:
        callback.training.finish()
    return meter


def keras_fit(recorded: bool, folder: Path, step: Callable[[], None], spent: Spent, every: Any = "auto") -> Meter:
    """Fit with Keras on torch; the other kind has no callback of ours."""
    import keras
    import numpy as np

    meter = Meter()

    class Model(keras.Sequential):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            meter.mark()
            step()
            spent.ask()
            return super().train_step(data)

    model = Model([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callbacks: list[Any] = []
    if recorded:
        with meter.starting():
            from flightlog_keras import FlightlogCallback

            callbacks = [FlightlogCallback(project="benchmark", dir=folder, log_every=every)]
        time_method(meter, callbacks[0], "on_train_begin")
        spent.watch(callbacks[0], ["on_train_batch_begin", "on_train_batch_end"])
    data = np.random.default_rng(0).random((STEPS * 4, 4), np.float32)
    model.fit(data, data[:, :1], batch_size=4, verbose=0, callbacks=callbacks)
    for callback in callbacks:
        callback.finish()
    return meter


def time_method(meter: Meter, owner: Any, name: str) -> None:
    """Count what a method takes as part of the start."""
    method = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        with meter.starting():
            return method(*args, **kwargs)

    setattr(owner, name, timed)


SUBJECTS: dict[str, tuple[str, Callable[[bool, Path, Callable[[], None], Spent], Meter]]] = {
    "lightning": ("lightning", lightning),
    "lightning, logging every step": ("lightning", functools.partial(lightning, every=1)),
    "transformers": ("transformers", trainer),
    "transformers, every step": ("transformers", functools.partial(trainer, every=1)),
    "keras": ("keras", keras_fit),
    "keras, logging every step": ("keras", functools.partial(keras_fit, every=1)),
    "pytorch": ("torch", pytorch),
}


def measure(name: str) -> None:
    train = SUBJECTS[name][1]
    step, spent, medians, starts = work(), Spent(), {True: [], False: []}, []  # type: ignore[var-annotated]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2 * ROUNDS):
            recorded = number % 2 == 1
            meter = train(recorded, Path(folder), step, spent)
            medians[recorded].append(meter.median)
            if recorded:
                starts.append(meter)
    without, with_ = min(medians[False]), min(medians[True])
    hooks = spent.seconds / (ROUNDS * STEPS)
    print(
        f"{name:30} step {without * 1e3:6.3f} ms without, {with_ * 1e3:6.3f} ms with: "
        f"{(with_ / without - 1) * 100:+5.2f} %   hooks {hooks * 1e6:5.1f} µs: {hooks / without * 100:4.2f} %   "
        f"start {starts[0].start * 1e3:5.1f} ms ({starts[0].start_processor * 1e3:.1f} ms of processor), "
        f"{min(meter.start for meter in starts) * 1e3:5.1f} ms later"
    )


def byte_compile() -> None:
    """Compile our modules, as pip does when it installs them: a start is not to pay for that."""
    for name in ("flightlog", "flightlog_lightning", "flightlog_transformers", "flightlog_keras"):
        found = importlib.util.find_spec(name)
        for place in (found.submodule_search_locations if found else None) or ():
            compileall.compile_dir(place, quiet=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *SUBJECTS])
    warnings.simplefilter("ignore")
    import logging
    import os

    os.environ.update(FLIGHTLOG_SILENT="1", KERAS_BACKEND="torch")
    byte_compile()
    logging.disable(logging.WARNING)
    for name in parser.parse_args().names or SUBJECTS:
        if importlib.util.find_spec(SUBJECTS[name][0]) is None:
            print(f"{name:30} is not installed", file=sys.stderr)
            continue
        measure(name)


if __name__ == "__main__":
    main()
