"""Cutting files into chunks whose borders depend on their content, so that a shifted file shares most of them.

The cut is named by CHUNKER; another library or other parameters get another name, and test vectors hold this one fixed.
FastCDC: W. Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach", USENIX ATC 2016.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
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


def chunks_of(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """Yield a file's chunks, from its beginning. Memory does not grow with the file.

    Args:
        file: the file.
        size: what it should be, where that is known: a small one is read at once.

    Raises:
        OSError: it cannot be read.
    """
    file.seek(0)
    if size is not None and size <= _MIN:
        content = file.read(_MIN + 1)
        if len(content) <= _MIN:
            if content:
                yield content
            return
        file.seek(0)
    from pyfastcdc import FastCDC

    for chunk in FastCDC(avg_size=_AVERAGE, min_size=_MIN, max_size=_MAX).cut_stream(cast("Any", file)):
        yield bytes(chunk.data)


def cut(file: BinaryIO) -> Cut:
    """Read a file from its beginning and cut it."""
    whole = hashlib.sha256()
    chunks: list[tuple[str, int]] = []
    for data in chunks_of(file):
        whole.update(data)
        chunks.append((hashlib.sha256(data).hexdigest(), len(data)))
    return Cut(whole.hexdigest(), sum(size for _, size in chunks), tuple(chunks))
