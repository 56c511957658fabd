"""A chunk of a series as bytes: the seqs, steps and values of up to some thousand records, as compressed columns.

    byte 0      version, 1
    byte 1      kind of the values: f float64, i int64, b bool, j JSON
    bytes 2-5   count n, little-endian
    then        zstd of: seqs (int64, differences), steps (int64, differences), values

Numbers are stored byte plane by byte plane (all first bytes, all second bytes …), which halves what zstd makes of them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import zstandard

from flightlog.journal.record import restore
from flightlog.journal.values import nonfinite_paths, spell

_HEADER = struct.Struct("<BcI")
_MAX_EXACT = 1 << 53

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class Columns:
    """Values of one series: `seqs` and `steps` as int64, `values` as they were logged, in order of seq."""

    seqs: Ints
    steps: Ints
    values: list[Any] | Floats | Ints | npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.seqs)

    def floats(self) -> Floats:
        """Return the values as float64; what is no number is NaN."""
        if isinstance(self.values, np.ndarray):
            return self.values.astype(np.float64)
        return np.array([_number(v) for v in self.values], dtype=np.float64)

    def to_list(self) -> list[Any]:
        """Return the values as Python objects."""
        return self.values.tolist() if isinstance(self.values, np.ndarray) else self.values

    def sliced(self, part: slice) -> Columns:
        return Columns(self.seqs[part], self.steps[part], self.values[part])


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def from_values(seqs: Sequence[int], steps: Sequence[int], values: list[Any]) -> Columns:
    """Return values as columns, in the narrowest type that gives every one back as it was logged."""
    return Columns(np.array(seqs, dtype=np.int64), np.array(steps, dtype=np.int64), _typed(values))


def _typed(values: list[Any]) -> Any:
    kinds = set(map(type, values))
    if kinds == {bool}:
        return np.array(values, dtype=np.bool_)
    if kinds == {int} and all(-(1 << 63) <= v < 1 << 63 for v in values):
        return np.array(values, dtype=np.int64)
    if kinds == {float} or (kinds == {int, float} and all(abs(v) <= _MAX_EXACT for v in values if type(v) is int)):
        return np.array(values, dtype=np.float64)
    return values


def concatenate(parts: Sequence[Columns]) -> Columns:
    """Return several stretches of a series as one."""
    if len(parts) == 1:
        return parts[0]
    seqs = np.concatenate([p.seqs for p in parts]) if parts else np.empty(0, np.int64)
    steps = np.concatenate([p.steps for p in parts]) if parts else np.empty(0, np.int64)
    arrays = [p.values for p in parts if isinstance(p.values, np.ndarray)]
    if len(arrays) == len(parts) and len({a.dtype for a in arrays}) == 1:
        whole: Any = np.concatenate(arrays)
        return Columns(seqs, steps, whole)
    return Columns(seqs, steps, _typed([v for p in parts for v in p.to_list()]))


def encode(columns: Columns) -> bytes:
    """Return columns as the bytes of a chunk."""
    values = columns.values
    if isinstance(values, np.ndarray):
        kind = {"f": b"f", "i": b"i", "b": b"b"}[values.dtype.kind]
        body = values.tobytes() if kind == b"b" else _planes(np.diff(values, prepend=0) if kind == b"i" else values)
    else:
        kind = b"j"
        body = orjson.dumps({"v": spell(values), "n": nonfinite_paths(values)})
    raw = _planes(np.diff(columns.seqs, prepend=0)) + _planes(np.diff(columns.steps, prepend=0)) + body
    return _HEADER.pack(1, kind, len(columns)) + zstandard.ZstdCompressor(level=1).compress(raw)


def decode(chunk: bytes) -> Columns:
    """Return the columns of a chunk. Raises ValueError where it is of another version."""
    version, kind, count = _HEADER.unpack_from(chunk)
    if version != 1:
        raise ValueError(f"a series chunk of version {version}")
    raw = zstandard.ZstdDecompressor().decompress(chunk[_HEADER.size :])
    width = 8 * count
    seqs = np.cumsum(_unplanes(raw[:width], np.int64))
    steps = np.cumsum(_unplanes(raw[width : 2 * width], np.int64))
    rest = raw[2 * width :]
    values: Any
    if kind == b"f":
        values = _unplanes(rest, np.float64)
    elif kind == b"i":
        values = np.cumsum(_unplanes(rest, np.int64))
    elif kind == b"b":
        values = np.frombuffer(rest, dtype=np.bool_)
    else:
        whole = orjson.loads(rest)
        values = whole["v"]
        for path in whole["n"]:
            restore(values, path)
    return Columns(seqs, steps, values)


def _planes(numbers: npt.NDArray[Any]) -> bytes:
    planes: bytes = np.ascontiguousarray(numbers).view(np.uint8).reshape(-1, 8).T.tobytes()
    return planes


def _unplanes(raw: bytes, dtype: Any) -> Any:
    planes = np.frombuffer(raw, dtype=np.uint8).reshape(8, -1)
    return np.ascontiguousarray(planes.T).view(dtype).ravel()
