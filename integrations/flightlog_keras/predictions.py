"""What a model says of some samples, as a table: on request, at the end of each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import flightlog
from flightlog.errors import UsageError

_CHANNELS = (1, 3, 4)


class Predictions:
    """Some samples, and what is said of them.

    Args:
        samples: inputs and what they should lead to: a pair of arrays, or anything that gives batches of such pairs (a
            DataLoader, a PyDataset, a tf.data.Dataset), of which the first is taken.
        rows: how many of them.

    Raises:
        UsageError: it is neither.
    """

    def __init__(self, samples: Any, rows: int) -> None:
        pair = samples if isinstance(samples, tuple | list) else _first_batch(samples)
        if not isinstance(pair, tuple | list) or len(pair) < 2:
            raise UsageError(
                "predictions= takes a pair (inputs, targets) of arrays, or what gives batches of such pairs"
            )
        self._inputs = _cut(pair[0], rows)
        self._targets = _array(pair[1])[:rows]

    def table(self, model: Any) -> Any:
        """Return the table: for each sample its image if it is one, its target, what the model says, and how surely."""
        outputs = _array(model.predict_on_batch(self._inputs))
        images = _images(self._inputs)
        is_class = outputs.ndim == 2 and outputs.shape[1] > 1
        columns = ["row", *(["input"] if images else []), "target", "prediction", *(["score"] if is_class else [])]
        table = flightlog.Table(columns=[*columns, "output"])
        for row, output in enumerate(outputs):
            target = self._targets[row]
            if is_class and np.ndim(target) == 1 and len(target) == len(output):
                target = target.argmax()  # one-hot
            said = [int(output.argmax()), float(output.max())] if is_class else [_plain(output)]
            image = [flightlog.Image(images[row])] if images else []
            table.add_data(row, *image, _plain(target), *said, np.ravel(output).tolist())
        return table


def _first_batch(samples: Any) -> Any:
    if isinstance(samples, keras.utils.PyDataset):
        return samples[0]
    return next(iter(samples), None) if hasattr(samples, "__iter__") else None


def _array(value: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(value))


def _cut(inputs: Any, rows: int) -> Any:
    """Return the first rows of a model's inputs: an array, or several in a list or mapping."""
    if isinstance(inputs, dict):
        return {name: _array(value)[:rows] for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return [_array(value)[:rows] for value in inputs]
    return _array(inputs)[:rows]


def _images(inputs: Any) -> Sequence[Any]:
    """Return what inputs look like, if they are images: (rows, height, width), with or without channels."""
    if isinstance(inputs, np.ndarray) and (inputs.ndim == 3 or (inputs.ndim == 4 and inputs.shape[-1] in _CHANNELS)):
        shown = inputs[..., 0] if inputs.ndim == 4 and inputs.shape[-1] == 1 else inputs
        return list(shown)
    return ()


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return array.item() if array.size == 1 else array.tolist()
