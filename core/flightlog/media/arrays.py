"""Arrays of whatever library as numpy's, and as the bytes that pictures are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependency, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def as_array(data: Any, what: str) -> NDArray[Any]:
    """Return numbers as a numpy array: of numpy, torch, jax, tensorflow, or nested lists.

    Args:
        data: the numbers; a tensor may be on a GPU, and part of a graph.
        what: what an error's text calls the value.

    Raises:
        MissingDependency: numpy is not installed.
        UsageError: they are no array of numbers or booleans, or there are none.
    """
    np = numpy(what)
    if callable(getattr(data, "detach", None)):
        data = data.detach().cpu()
        for resolve in ("resolve_conj", "resolve_neg"):  # a view that is yet to be computed
            data = getattr(data, resolve, lambda data=data: data)()
        if str(data.dtype).startswith(("torch.bfloat16", "torch.float8")):
            data = data.float()
    try:
        array: NDArray[Any] = np.asarray(data)
        if array.dtype.kind == "V" and array.dtype.names is None:  # bfloat16 and its like, which jax brings along
            array = array.astype(np.float32)
    except Exception as error:  # rows of different lengths, or whatever the object's own code raises
        raise UsageError(f"{what}: {type(data).__name__} is no array: {error}") from None
    if array.dtype.kind not in "buif":
        given = type(data).__name__ if array.ndim == 0 else f"an array of {array.dtype} and shape {array.shape}"
        raise UsageError(f"{what}: {given} holds no numbers")
    if array.size == 0:
        raise UsageError(f"{what}: an array of shape {array.shape} is empty")
    return array


def check_items(data: Any, most: int, what: str) -> None:
    """Raise UsageError where an array, tensor or list has more than `most` items, before it is turned into a list."""
    shape = getattr(data, "shape", None)
    try:
        count = len(data) if shape is None else math.prod(int(side) for side in shape)
    except TypeError:  # no array and no list either; whoever wants one will say so
        return
    if count > most:
        raise UsageError(f"{what}: {count:,} items are more than {most:,}; log a file as an artifact")


def numpy(what: str) -> Any:
    """Return numpy. Raises MissingDependency."""
    try:
        import numpy
    except ImportError:
        raise MissingDependency(f"{what} needs numpy for this value: pip install 'flightlog[media]'") from None
    return numpy


def finite_range(blocks: Iterable[NDArray[Any]]) -> tuple[float, float] | None:
    """Return the least and the greatest of the finite values in some arrays, None where there is none.

    They are looked at one by one, so that no copy of all of them is made.
    """
    import numpy as np

    low, high = math.inf, -math.inf
    for block in blocks:
        finite = block[np.isfinite(block)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return None if low > high else (low, high)


def brightness_span(frames: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return which values of float frames are to be black and white.

    0 and 1 where all lie between them, -1 and 1 where all lie between those, else the least and the greatest.
    NaN and the infinities do not count.
    """
    low, high = finite_range(frames) or (0.0, 1.0)
    if low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    if low >= -1.0 and high <= 1.0:
        return -1.0, 1.0
    return low, high


def as_uint8(array: NDArray[Any], span: tuple[float, float] | None = None) -> NDArray[Any]:
    """Return brightnesses as uint8.

    Args:
        array: booleans, integers (cut off at 0 and 255), or floats.
        span: for floats, which values become 0 and 255 (those beyond are cut off, NaN is black); None for floats that
            are in 0..255 already.
    """
    import numpy as np

    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind != "f":
        clipped: NDArray[Any] = np.clip(array, 0, 255).astype(np.uint8)
        return clipped
    low, high = span or (0.0, 255.0)
    with np.errstate(all="ignore"):
        scaled = (array.astype(np.float64) - low) / ((high - low) or 1.0)
    bright: NDArray[Any] = np.rint(np.nan_to_num(np.clip(scaled, 0.0, 1.0), nan=0.0) * 255).astype(np.uint8)
    return bright
