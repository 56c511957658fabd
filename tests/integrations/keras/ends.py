"""A training that ends in one way or another; run by test_ends.py, each case in a process and a folder of its own.

Usage: ends.py CASE…; several cases are forked from one process that has imported everything.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from flightlog_keras import FlightlogCallback

EPOCHS = 4


class At(keras.callbacks.Callback):
    """Does something at the fourth batch of the third epoch: batch 20 of 8 an epoch."""

    def __init__(self, action: Any) -> None:
        super().__init__()
        self.action = action
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == (2, 3):
            self.action()


def fail() -> None:
    raise MemoryError("no room")


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def send(number: int) -> Any:
    return lambda: os.kill(os.getpid(), number)


def train(action: Any, cb: FlightlogCallback | None = None) -> None:
    random = np.random.default_rng(20)
    x = random.normal(size=(80, 4)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("int32")
    keras.utils.set_random_seed(7)
    layers = keras.layers
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3, "relu"), layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [
        cb or FlightlogCallback(project="ends", log_every=1, artifact="m"),
        keras.callbacks.BackupAndRestore("backup"),
        keras.callbacks.ModelCheckpoint("c/{epoch:02d}-{loss:.2f}.keras", "loss"),
        *([At(action)] if action else []),
    ]
    model.fit(x, y, batch_size=10, epochs=EPOCHS, verbose=0, callbacks=callbacks)


def caught() -> None:
    try:
        train(fail)
    except MemoryError:
        print("going on")


def caught_and_tried_again() -> None:
    cb = FlightlogCallback(project="ends", log_every=1)
    try:
        train(interrupt, cb)
    except KeyboardInterrupt:
        train(None, cb)


def another_fit() -> None:
    try:
        train(fail, FlightlogCallback(project="ends", log_every=1, id="first"))
    except MemoryError:
        train(None, FlightlogCallback(project="ends", log_every=1, id="second"))


CASES = {
    "uncaught": lambda: train(fail),
    "interrupted": lambda: train(interrupt),
    "caught": caught,
    "tried-again": caught_and_tried_again,
    "another": another_fit,
    "exit": lambda: train(lambda: sys.exit(0)),
    "terminated": lambda: train(send(signal.SIGTERM)),
    "killed": lambda: train(send(signal.SIGKILL)),
    "resumed": lambda: train(None),
}


def main(names: list[str]) -> None:
    gc.freeze()  # else each child copies and takes apart at its end, in seconds, all that was imported before it
    for name in names[1:]:
        child = os.fork()
        if child == 0:
            return main([name])
        print(name, os.waitpid(child, 0)[1], flush=True)
    folder = Path("killed" if names[0] == "resumed" else names[0])
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    CASES[names[0]]()
    return None


signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
if keras.backend.backend() == "torch":
    import torch

    torch.set_num_threads(1)
main(sys.argv[1:])
