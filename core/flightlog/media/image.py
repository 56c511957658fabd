"""Images: arrays, PIL images, matplotlib figures, or the path of an image file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from ..errors import MissingDependency, UsageError
from ..journal.reader import open_regular
from ..journal.values import text
from .base import Media

MAX_BYTES = 256 << 20
_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"}


class Image(Media):
    """An image for `log()`.

    Args:
        data: an array or tensor of shape (H, W), (H, W, 1|3|4) or (1|3|4, H, W), uint8 in 0..255 or float in 0..1
            (a float array with values beyond that is scaled from its minimum and maximum); a PIL image; a matplotlib
            figure; or the path of a png, jpeg, gif, webp or bmp file, which is kept byte for byte.
        caption: a line of text to go with it.

    The data is encoded here, not at `log()`, so later changes to an array do not reach the image. What is no image, or
    cannot be read, or needs a package that is not installed, raises nothing here: `log()` leaves out its key with a
    warning that says why.
    """

    kind = "image"

    def __init__(self, data: Any, caption: str | None = None) -> None:
        self._caption = caption
        self._fault: Exception | None = None
        self._content, self._suffix = b"", ".png"
        self._size: tuple[int, int] | None = None
        try:
            if isinstance(data, str | os.PathLike):
                self._content, self._suffix, self._size = _from_path(Path(data))
            else:
                self._content, self._size = _png(data)
        except Exception as error:  # whatever a plotting or imaging library raises
            self._fault = error

    def encode(self) -> tuple[bytes, str, dict[str, Any]]:
        if self._fault is not None:
            raise self._fault
        facts: dict[str, Any] = {}
        if self._size is not None:
            facts["width"], facts["height"] = self._size
        if self._caption is not None:
            facts["caption"] = text(self._caption)
        return self._content, self._suffix, facts


def _pillow() -> Any:
    try:
        import PIL.Image
    except ImportError:
        raise MissingDependency("flightlog.Image needs Pillow for this value: pip install 'flightlog[media]'") from None
    return PIL.Image


def _from_path(path: Path) -> tuple[bytes, str, tuple[int, int] | None]:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UsageError(f"Image({str(path)!r}): a file ending in {', '.join(sorted(_SUFFIXES))} is needed")
    with open_regular(path.resolve()) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UsageError(f"Image({str(path)!r}): larger than {MAX_BYTES >> 20} MiB; log it as an artifact")
    try:
        with _pillow().open(io.BytesIO(content)) as image:
            size = image.size
    except MissingDependency:
        size = None
    except Exception as error:  # Pillow raises whatever its decoders raise
        raise UsageError(f"Image({str(path)!r}): not a readable image ({error})") from None
    return content, suffix, size


def _png(data: Any) -> tuple[bytes, tuple[int, int]]:
    if callable(getattr(data, "savefig", None)):
        buffer = io.BytesIO()
        data.savefig(buffer, format="png", bbox_inches="tight")
        content = buffer.getvalue()
        # A PNG's width and height stand at fixed places: https://www.w3.org/TR/png-3/#11IHDR
        return content, (int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big"))
    pillow = _pillow()
    image = data if isinstance(data, pillow.Image) else pillow.fromarray(_pixels(data))
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("I;16" if image.mode == "I" else "RGB")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue(), image.size


def _pixels(data: Any) -> Any:
    """Return an array-like as uint8 of shape (H, W), (H, W, 3) or (H, W, 4)."""
    import numpy as np

    if callable(getattr(data, "detach", None)):
        data = data.detach().cpu()
        if str(data.dtype) == "torch.bfloat16":
            data = data.float()
        data = data.numpy()
    try:
        array = np.asarray(data)
    except Exception as error:  # rows of different lengths, or whatever the object's own code raises
        raise UsageError(f"Image(): {type(data).__name__} is no array: {error}") from None
    if array.dtype == object or array.dtype.kind not in "buif" or array.size == 0:
        raise UsageError(f"Image(): an array of {array.dtype} and shape {array.shape} is no image")
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise UsageError(f"Image(): shape {array.shape} is none of (H, W), (H, W, 1|3|4), (1|3|4, H, W)")
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "f":
        array = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
        low, high = float(array.min()), float(array.max())
        if low < 0.0 or high > 1.0:
            array = (array - low) / ((high - low) or 1.0)
        return np.rint(array * 255).astype(np.uint8)
    return np.clip(array, 0, 255).astype(np.uint8)
