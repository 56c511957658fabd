"""What a model says of some samples, as a table: on request, at the end of each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

import flightlog
from flightlog.errors import UsageError

_CHANNELS = (1, 3, 4)
_MOST_NUMBERS = 1_000  # of one sample's output or target in a table; a larger one is told by its shape
_WANTED = "predictions= takes a pair (inputs, targets) of arrays, or what gives batches of such pairs"


class Predictions:
    """Some samples, and what is said of them.

    Args:
        samples: inputs and what they should lead to: a pair of arrays, or anything that gives batches of such pairs (a
            DataLoader, a PyDataset, a tf.data.Dataset), of which the first is taken. Several inputs, or the targets of
            several outputs, come in a list or by name.
        rows: how many of them.

    Raises:
        UsageError: it is neither, or of no use.
    """

    def __init__(self, samples: Any, rows: int) -> None:
        if type(rows) is not int or rows < 1:
            raise UsageError(f"prediction_rows={rows!r}: a number of samples from 1")
        pair = samples if isinstance(samples, tuple | list) else _first_batch(samples)
        if not isinstance(pair, tuple | list) or len(pair) < 2:
            raise UsageError(_WANTED)
        self._inputs = _each(pair[0], lambda value: _first(value, rows))
        self._targets = _each(pair[1], lambda value: _first(value, rows))
        counts = {len(value) for value in [*_members(self._inputs), *_members(self._targets)]}
        if len(counts) != 1 or 0 in counts:
            found = " and ".join(map(str, sorted(counts)))
            raise UsageError(f"predictions=: as many targets as inputs are needed, one at least, not {found}")

    def table(self, model: Any) -> Any:
        """Return the table: for each sample its image if it is one, its target, what the model says, and how surely."""
        outputs = _each(model.predict_on_batch(self._inputs), _array)
        columns: dict[str, Sequence[Any]] = {}
        if images := _images(self._inputs):
            columns["input"] = [flightlog.Image(image) for image in images]
        names = _names(model, outputs)
        targets = dict(zip(_names(model, self._targets), _members(self._targets), strict=True))
        for name, output in zip(names, _members(outputs), strict=True):
            target = targets.get(name) if len(names) > 1 else next(iter(targets.values()))
            columns.update({f"{column} {name}".rstrip(): cells for column, cells in _said(output, target).items()})
        table = flightlog.Table(columns=["row", *columns])
        for row, cells in enumerate(zip(*columns.values(), strict=True)):
            table.add_data(row, *cells)
        return table


def _said(output: Any, target: Any) -> dict[str, list[Any]]:
    """Return the columns of one of a model's outputs."""
    labels = None if target is None else _labels(target, output)
    columns: dict[str, list[Any]] = {}
    if target is not None:
        columns["target"] = [_plain(one) for one in (target if labels is None else labels)]
    if labels is None:
        columns["prediction"] = [_plain(one) for one in output]
    else:
        columns["prediction"] = output.argmax(axis=1).tolist()
        columns["score"] = output.max(axis=1).tolist()
    if np.size(output[0]) <= _MOST_NUMBERS:
        columns["output"] = [np.ravel(one).tolist() for one in output]
    return columns


def _labels(target: Any, output: Any) -> Any:
    """Return the targets as numbers of classes; None where an output is not one score a class."""
    if output.ndim != 2 or output.shape[1] < 2 or target.dtype.kind not in "iufb":
        return None
    if target.size == len(target):  # a class each, as sparse losses take it
        flat = target.reshape(-1)
        return flat.astype(int) if np.equal(np.mod(flat, 1), 0).all() else None
    is_share = target.shape == output.shape and (target >= 0).all() and np.allclose(target.sum(axis=1), 1)
    return target.argmax(axis=1) if is_share else None


def _first_batch(samples: Any) -> Any:
    if isinstance(samples, keras.utils.PyDataset):
        return samples[0]
    return next(iter(samples), None) if hasattr(samples, "__iter__") else None


def _array(value: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(value))


def _first(value: Any, rows: int) -> Any:
    array = _array(value)
    if not array.ndim:
        raise UsageError(_WANTED)
    return array[:rows]


def _each(value: Any, made: Callable[[Any], Any]) -> Any:
    """Return what is made of an array, or of each of several in a list or mapping."""
    if isinstance(value, Mapping):
        return {name: made(one) for name, one in value.items()}
    if isinstance(value, tuple | list) and value and all(getattr(one, "shape", ()) for one in value):
        return [made(one) for one in value]
    return made(value)


def _members(arrays: Any) -> list[Any]:
    """Return all of them, in order."""
    return list(arrays.values()) if isinstance(arrays, dict) else arrays if isinstance(arrays, list) else [arrays]


def _names(model: Any, arrays: Any) -> list[str]:
    """Return what each of them is called: by itself, by the model's outputs, or by its number; "" if it is alone."""
    if isinstance(arrays, dict):
        return [str(name) for name in arrays]
    count = len(_members(arrays))
    known = getattr(model, "output_names", None) or ()
    return [""] if count == 1 else list(map(str, known if len(known) == count else range(count)))


def _images(inputs: Any) -> Sequence[Any]:
    """Return what inputs look like, if they are images: (rows, height, width), with or without channels."""
    if isinstance(inputs, np.ndarray) and (inputs.ndim == 3 or (inputs.ndim == 4 and inputs.shape[-1] in _CHANNELS)):
        shown = inputs[..., 0] if inputs.ndim == 4 and inputs.shape[-1] == 1 else inputs
        return list(shown)
    return ()


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    if array.size > _MOST_NUMBERS:
        return f"{array.dtype} of {' x '.join(map(str, array.shape))}"
    return array.item() if array.size == 1 else array.tolist()
