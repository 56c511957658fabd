"""Train a small network on scikit-learn's handwritten digits with Keras, and record it.

    pip install -e ".[keras]" torch scikit-learn      # in a clone of the repository
    python examples/keras_digits.py

Stop it with Ctrl-C and start it again: BackupAndRestore takes the training up where it was, and the run goes on.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from flightlog_keras import FlightlogCallback


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.05)
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = (digits.images[..., None] / 16.0).astype("float32")
    x, x_val, y, y_val = train_test_split(images, digits.target, test_size=0.2, random_state=0)

    model = keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    steps = args.epochs * (len(x) // args.batch_size)
    model.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(args.lr, steps), momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )

    flight = FlightlogCallback(project="digits", config=vars(args), predictions=(x_val, y_val), prediction_rows=16)
    model.fit(
        x,
        y,
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(x_val, y_val),
        verbose=2,
        callbacks=[
            flight,
            keras.callbacks.BackupAndRestore("backup"),
            keras.callbacks.ModelCheckpoint("checkpoints/{epoch:02d}-{val_loss:.2f}.keras"),
        ],
    )
    model.evaluate(x_val, y_val, verbose=2, callbacks=[flight])


if __name__ == "__main__":
    main()
