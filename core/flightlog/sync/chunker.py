"""Cutting files into chunks whose borders depend on their content, so that a shifted file shares most of them.

The cut is named by CHUNKER; another library or other parameters get another name, and test vectors hold this one fixed.
FastCDC: W. Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach", USENIX ATC 2016.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

CHUNKER = "fastcdc-1m-1"
_MIN, _AVERAGE, _MAX = 256 << 10, 1 << 20, 4 << 20


@dataclass(frozen=True, slots=True)
class Cut:
    """A file read once: its SHA-256, size, and chunks as (SHA-256, size) in order."""

    sha256: str
    size: int
    chunks: tuple[tuple[str, int], ...]


def cut(file: BinaryIO) -> Cut:
    """Read a file from its beginning and cut it. Memory does not grow with the file."""
    from pyfastcdc import FastCDC

    whole = hashlib.sha256()
    chunks: list[tuple[str, int]] = []
    size = 0
    file.seek(0)
    for chunk in FastCDC(avg_size=_AVERAGE, min_size=_MIN, max_size=_MAX).cut_stream(cast("Any", file)):
        data = chunk.data
        whole.update(data)
        chunks.append((hashlib.sha256(data).hexdigest(), len(data)))
        size += len(data)
    return Cut(whole.hexdigest(), size, tuple(chunks))
