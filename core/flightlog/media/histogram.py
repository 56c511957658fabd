"""Histograms: the distribution of weights, gradients or predictions at a step, small enough to be its own entry."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .arrays import as_array, finite_range
from .base import Entry, KeyFolder, Media, as_fault

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BINS = 512
MAX_YIELDED = 4 << 20
_BLOCK = 1 << 20


class Histogram(Media):
    """A histogram for `log()`.

    Args:
        sequence: the values, an array, tensor or list of any shape, or a generator of at most 4 Mi of them; NaN
            and infinities are counted apart.
        np_histogram: or a histogram as `numpy.histogram` returns it: (counts, edges), one edge more than counts.
        num_bins: into how many bins of equal width the values are sorted, at most 512.

    It is counted here, so later changes to the values do not reach it. It has no file: counts and edges stand in the
    journal, since a training logs thousands of these.
    """

    kind = "histogram"

    def __init__(
        self, sequence: Any = None, np_histogram: tuple[Sequence[float], Sequence[float]] | None = None,
        num_bins: int = 64,
    ) -> None:  # fmt: skip
        self._entry: Entry = {}
        self._fault: Exception | None = None
        try:
            self._entry = _counted(sequence, num_bins) if np_histogram is None else _given(np_histogram)
        except Exception as error:  # whatever an array library raises
            self._fault = as_fault(error, "Histogram")

    @property
    def histogram(self) -> list[float]:
        """The counts."""
        return list(self._entry.get("counts", ()))

    @property
    def bins(self) -> list[float]:
        """The edges of the bins, one more than counts."""
        return list(self._entry.get("edges", ()))

    def write(self, folder: KeyFolder) -> Entry:
        if self._fault is not None:
            raise self._fault
        return {"type": self.kind, **self._entry}


def _counted(sequence: Any, num_bins: int) -> Entry:
    values = as_array(_listed(sequence), "Histogram()").reshape(-1)
    if not 1 <= int(num_bins) <= MAX_BINS:
        raise UsageError(f"Histogram(num_bins={num_bins!r}): 1 to {MAX_BINS} bins")
    counts, edges, apart = count(values, int(num_bins))
    return {"counts": counts.tolist(), "edges": edges.tolist(), **({"nonfinite": apart} if apart else {})}


def _listed(sequence: Any) -> Any:
    """Return what a generator gives, up to a bound, since it may have no end; anything else as it is."""
    if not isinstance(sequence, Iterator):
        return sequence
    found = list(itertools.islice(sequence, MAX_YIELDED + 1))
    if len(found) > MAX_YIELDED:
        raise UsageError(f"Histogram(): a generator of more than {MAX_YIELDED:,} values; give an array")
    return found


def count(values: NDArray[Any], bins: int) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Sort numbers into bins of equal width, in blocks, so that a billion weights take no second billion of memory.

    Args:
        values: of shape (n,).
        bins: how many bins.

    Returns:
        The counts, the edges, and how many values are NaN or infinite.

    Raises:
        UsageError: all of them are.
    """
    import numpy as np

    low, high = _edges(finite_range(_blocks(values)))
    counts: NDArray[Any] = np.zeros(bins, np.int64)
    edges: NDArray[Any] = np.linspace(low, high, bins + 1)
    for block in _blocks(values):
        found, edges = np.histogram(block[np.isfinite(block)], bins=bins, range=(low, high))
        counts += found
    return counts, edges, int(values.size - counts.sum())


def _blocks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for at in range(0, len(values), _BLOCK):
        yield values[at : at + _BLOCK].astype("f8")


def _edges(limits: tuple[float, float] | None) -> tuple[float, float]:
    """Return where the first bin begins and the last ends."""
    if limits is None:
        raise UsageError("Histogram(): no value is finite")
    low, high = limits
    if not math.isfinite(high - low):
        raise UsageError("Histogram(): the values span more than a float can hold")
    if high - low <= 1e-12 * max(abs(low), abs(high)):  # too close together for edges that differ
        middle, half = (low + high) / 2, max(0.5, abs(low) * 1e-6)
        return middle - half, middle + half
    return low, high


def _given(np_histogram: tuple[Sequence[float], Sequence[float]]) -> Entry:
    import numpy as np

    counts, edges = (as_array(part, "Histogram(np_histogram=)") for part in np_histogram)
    if counts.ndim != 1 or edges.shape != (len(counts) + 1,):
        raise UsageError("Histogram(np_histogram=): (counts, edges) with one edge more than counts is needed")
    if len(counts) > MAX_BINS:
        raise UsageError(f"Histogram(np_histogram=): more than {MAX_BINS} bins")
    if not (np.isfinite(edges).all() and (np.diff(edges) > 0).all() and np.isfinite(counts).all()):
        raise UsageError("Histogram(np_histogram=): counts and edges must be finite, and the edges must rise")
    return {"counts": counts.tolist(), "edges": edges.tolist()}
