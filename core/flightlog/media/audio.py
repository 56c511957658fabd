"""Sound: an array of samples as WAV, or the path of a sound file."""

from __future__ import annotations

import contextlib
import io
import math
import os
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .arrays import as_array
from .base import CapturedMedia, Encoding, caption_fact
from .containers import container_of, suffix_for
from .payload import check_size, take_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_FILE = 1 << 30
MAX_SAMPLES = 128 << 20
MAX_CHANNELS = 32
MAX_RATE = 1_000_000
_CONTAINERS = ("wav", "flac", "ogg", "mp3", "aac", "mp4", "webm")


class Audio(CapturedMedia):
    """A sound for `log()`.

    Args:
        data_or_path: an array, tensor or list of shape (frames,), (frames, channels) or, where it has more than 32
            columns and at most 32 rows, (channels, frames): floats in -1..1 (what lies beyond is cut off), 16-bit
            values as integers, or the full range of int8, uint8 and int32; kept as WAV of 16 bits. Or the path of
            a wav, flac, ogg, mp3, m4a, aac or webm file of at most 1 GiB, which is kept byte for byte.
        sample_rate: frames per second; needed with an array.
        caption: a line of text to go with it.

    An array is encoded here, and a file read (above 8 MiB: held open, and copied at `log()`), so later changes do not
    reach the sound, or are refused. What is wrong with it costs its key at `log()`, with a warning.
    """

    kind = "audio"

    def __init__(self, data_or_path: Any, sample_rate: int | None = None, caption: str | None = None) -> None:
        def make() -> Encoding:
            if isinstance(data_or_path, str | os.PathLike):
                encoding = _from_path(Path(data_or_path))
            else:
                encoding = _wav(as_array(data_or_path, "Audio()"), sample_rate)
            encoding.facts.update(caption_fact(caption))
            return encoding

        self._capture(make)


def _from_path(path: Path) -> Encoding:
    what = f"Audio({str(path)!r})"
    content = take_file(path, MAX_FILE, what)
    container = container_of(content)
    if container not in _CONTAINERS:
        raise UsageError(f"{what}: none of {', '.join(_CONTAINERS)} by its first bytes")
    facts = _wav_facts(content) if container == "wav" and isinstance(content, bytes) else {}
    return Encoding(content, suffix_for(container, path.suffix, "audio"), facts)


def _wav_facts(content: bytes) -> dict[str, Any]:
    # The standard library knows integer PCM only; other WAV files are kept all the same, without these facts.
    with contextlib.suppress(wave.Error, EOFError, ValueError), wave.open(io.BytesIO(content)) as file:
        rate = file.getframerate()
        if rate > 0:
            return _facts(rate, file.getnchannels(), file.getnframes())
    return {}


def _facts(rate: int, channels: int, frames: int) -> dict[str, Any]:
    return {"sample_rate": rate, "channels": channels, "duration": round(frames / rate, 6)}


def _wav(array: NDArray[Any], sample_rate: Any) -> Encoding:
    rate = _checked_rate(sample_rate)
    if array.size > MAX_SAMPLES:
        check_size(2 * array.size, 2 * MAX_SAMPLES, "Audio()")
    array = _frames_first(array)
    channels = array.shape[1] if array.ndim == 2 else 1
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(_int16(array).tobytes())
    return Encoding(buffer.getvalue(), ".wav", _facts(rate, channels, array.shape[0]))


def _checked_rate(sample_rate: Any) -> int:
    if sample_rate is None:
        raise UsageError("Audio(): an array needs sample_rate=")
    rate = float(sample_rate)
    if not (math.isfinite(rate) and rate == int(rate) and 0 < rate <= MAX_RATE):
        raise UsageError(f"Audio(sample_rate={sample_rate!r}): an integer in 1..{MAX_RATE:,} is needed")
    return int(rate)


def _frames_first(array: NDArray[Any]) -> NDArray[Any]:
    """Return samples as (frames,) or (frames, channels)."""
    if array.ndim == 2 and array.shape[1] > MAX_CHANNELS >= array.shape[0]:
        array = array.T
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] <= MAX_CHANNELS):
        return array
    raise UsageError(f"Audio(): shape {array.shape} is none of (frames,), (frames, channels), (channels, frames)")


def _int16(array: NDArray[Any]) -> NDArray[Any]:
    """Return samples with 16 bits each, the lower byte first, as WAV has them."""
    import numpy as np

    samples: NDArray[Any]
    if array.dtype.kind == "f":
        finite = np.nan_to_num(array.astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
        samples = np.rint(np.clip(finite, -1.0, 1.0) * 32767)
    elif array.dtype == np.uint8:
        samples = (array.astype(np.int32) - 128) * 256
    elif array.dtype == np.int8:
        samples = array.astype(np.int32) * 256
    elif array.dtype == np.int32 and max(abs(int(array.min())), abs(int(array.max()))) > 32768:
        samples = array >> 16
    else:
        samples = np.clip(array, -32768, 32767)
    return samples.astype("<i2")
