"""Video: an array of frames as mp4, webm or gif, or the path of a video file."""

from __future__ import annotations

import importlib
import io
import math
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependency, UsageError
from .arrays import as_array, as_uint8, brightness_span
from .base import CapturedMedia, Encoding, caption_fact
from .containers import container_of, suffix_for
from .payload import check_size, take_file
from .pictures import pillow

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_FILE = 2 << 30
MAX_RAW = 1 << 30
MAX_ENCODED = 512 << 20
MAX_SIDE = 16_384
ENCODING_SECONDS = 600
DEFAULT_FPS = 4
_CONTAINERS = ("mp4", "webm", "ogg", "gif")
# H.264 and VP9 with 4:2:0 colours are what browsers play.
_CODECS = {
    "mp4": ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-movflags", "+faststart"],
    "webm": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "5", "-b:v", "0", "-crf", "32",
             "-pix_fmt", "yuv420p"],
}  # fmt: skip


class Video(CapturedMedia):
    """A video for `log()`.

    Args:
        data_or_path: an array or tensor of shape (T, H, W, 1|3|4), (T, 1|3|4, H, W) or (T, H, W), or with one more axis
            in front, several videos shown side by side: booleans, integers in 0..255, or floats in 0..1 or -1..1
            (values beyond are scaled from their minimum and maximum), of at most 1 GiB as uint8 RGB. Or the
            path, or the bytes in an io.BytesIO, of an mp4, webm, ogg or gif file of at most 2 GiB, which is kept byte
            for byte.
        caption: a line of text to go with it.
        fps: frames per second of an array; 4 without it.
        format: "mp4", "webm" or "gif": how an array is encoded. mp4 and webm need imageio-ffmpeg, gif needs Pillow;
            without it, mp4 where imageio-ffmpeg is installed, else gif.

    An array is encoded here, and a file read (above 8 MiB: held open, and copied at `log()`), so later changes do not
    reach the video, or are refused. What is wrong with it costs its key at `log()`, with a warning.
    """

    kind = "video"

    def __init__(
        self, data_or_path: Any, caption: str | None = None, fps: float | None = None, format: str | None = None
    ) -> None:
        def make() -> Encoding:
            if isinstance(data_or_path, str | os.PathLike):
                encoding = _from_path(Path(data_or_path))
            elif isinstance(data_or_path, io.BytesIO):
                encoding = _from_bytes(data_or_path.getvalue())
            else:
                encoding = _from_frames(data_or_path, fps, format)
            encoding.facts.update(caption_fact(caption))
            return encoding

        self._capture(make)


def _from_path(path: Path) -> Encoding:
    what = f"Video({str(path)!r})"
    content = take_file(path, MAX_FILE, what)
    container = container_of(content)
    if container not in _CONTAINERS:
        raise UsageError(f"{what}: none of {', '.join(_CONTAINERS)} by its first bytes")
    return Encoding(content, suffix_for(container, path.suffix, "video"), {})


def _from_bytes(content: bytes) -> Encoding:
    check_size(len(content), MAX_FILE, "Video()")
    container = container_of(content)
    if container not in _CONTAINERS:
        raise UsageError(f"Video(): bytes that are none of {', '.join(_CONTAINERS)}")
    return Encoding(content, suffix_for(container, "", "video"), {})


# -- frames ------------------------------------------------------------------------------------------------------------


def _from_frames(data: Any, fps: Any, format: str | None) -> Encoding:
    rate = _checked_rate(DEFAULT_FPS if fps is None else fps)
    container = _checked_format(format)
    frames = _rgb(as_array(data, "Video()"))
    count, height, width, _ = frames.shape
    content = _gif(frames, rate) if container == "gif" else _ffmpeg(frames, rate, container)
    check_size(len(content), MAX_ENCODED, "Video()")
    facts = {"width": width, "height": height, "frames": count, "fps": rate}
    return Encoding(content, f".{container}", facts)


def _checked_rate(fps: Any) -> float:
    rate = float(fps)
    if not (math.isfinite(rate) and 0.01 <= rate <= 1000):
        raise UsageError(f"Video(fps={fps!r}): a number in 0.01..1000 is needed")
    return rate


def _checked_format(format: str | None) -> str:
    if format is None:
        return "gif" if _imageio_ffmpeg() is None else "mp4"
    container = str(format).lower().lstrip(".")
    if container not in (*_CODECS, "gif"):
        raise UsageError(f"Video(format={format!r}): an array is encoded as mp4, webm or gif")
    return container


def _rgb(array: NDArray[Any]) -> NDArray[Any]:
    """Return frames as uint8 of shape (T, H, W, 3)."""
    import numpy as np

    shape = array.shape
    if array.ndim == 5:
        array = _side_by_side(np.stack([_channels_last(video, shape) for video in array]))
    else:
        array = _channels_last(array, shape)
    count, height, width, channels = array.shape
    if max(height, width) > MAX_SIDE or count * height * width * 3 > MAX_RAW:
        raise UsageError(f"Video(): shape {shape} is more than {MAX_RAW >> 20} MiB as RGB, or {MAX_SIDE:,} a side")
    span = brightness_span(array) if array.dtype.kind == "f" else None
    frames: NDArray[Any] = np.empty((count, height, width, 3), np.uint8)
    for frame, source in zip(frames, array, strict=True):  # one by one: floats take eight times the memory
        frame[:] = as_uint8(source[:, :, :1] if channels == 1 else source[:, :, :3], span)
    return frames


def _channels_last(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if array.ndim == 3:
        return array.reshape(*array.shape, 1)
    if array.ndim == 4 and array.shape[3] in (1, 3, 4):
        return array
    if array.ndim == 4 and array.shape[1] in (1, 3, 4):
        turned: NDArray[Any] = array.transpose(0, 2, 3, 1)
        return turned
    raise UsageError(f"Video(): shape {shape} is none of (T, H, W, 1|3|4), (T, 1|3|4, H, W), (T, H, W)")


def _side_by_side(videos: NDArray[Any]) -> NDArray[Any]:
    """Lay (N, T, H, W, C) out as one video, in a grid that is as wide as high, or one wider; the rest stays black."""
    import numpy as np

    number, count, height, width, channels = videos.shape
    columns = math.isqrt(number - 1) + 1
    rows = -(-number // columns)
    grid: NDArray[Any] = np.zeros((count, rows * height, columns * width, channels), videos.dtype)
    for i, video in enumerate(videos):
        top, left = i // columns * height, i % columns * width
        grid[:, top : top + height, left : left + width] = video
    return grid


# -- encoders ----------------------------------------------------------------------------------------------------------


def _gif(frames: NDArray[Any], fps: float) -> bytes:
    module = pillow("flightlog.Video(format='gif')")
    first, *rest = (module.fromarray(frame) for frame in frames)
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=max(1000 / fps, 10), loop=0)
    return buffer.getvalue()


def _ffmpeg(frames: NDArray[Any], fps: float, container: str) -> bytes:
    program = _ffmpeg_program(container)
    frames = _even(frames)
    _, height, width, _ = frames.shape
    with tempfile.TemporaryDirectory(prefix="flightlog-video-") as folder:
        target = Path(folder, f"video.{container}")
        done = subprocess.run(
            [program, "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
             "-r", f"{fps:.6f}", "-i", "pipe:0", "-an", *_CODECS[container], str(target)],
            input=frames.reshape(-1).data, capture_output=True, timeout=ENCODING_SECONDS, check=False,
            start_new_session=True,
        )  # fmt: skip
        if done.returncode != 0 or not target.exists():
            raise UsageError(f"Video(): ffmpeg failed: {done.stderr.decode('utf-8', 'replace').strip()[-300:]}")
        return target.read_bytes()


def _imageio_ffmpeg() -> Any:
    try:
        return importlib.import_module("imageio_ffmpeg")
    except ImportError:
        return None


def _ffmpeg_program(container: str) -> str:
    module = _imageio_ffmpeg()
    if module is None:
        raise MissingDependency(
            f"flightlog.Video needs imageio-ffmpeg to make {container} of an array: pip install imageio-ffmpeg "
            "(or format='gif')"
        )
    return str(module.get_ffmpeg_exe())


def _even(frames: NDArray[Any]) -> NDArray[Any]:
    """Return frames of even height and width, as 4:2:0 colours need: the last row or column is shown twice."""
    import numpy as np

    _, height, width, _ = frames.shape
    odd = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    padded: NDArray[Any] = np.pad(frames, odd, mode="edge") if height % 2 or width % 2 else frames
    return padded
