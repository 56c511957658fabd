"""Images: arrays, PIL images, matplotlib figures, or the path of an image file; with boxes and masks over them."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependency, UsageError
from .annotations import Annotations, read_annotations
from .arrays import as_array, as_uint8, brightness_span
from .base import CapturedMedia, Encoding, Entry, KeyFolder, caption_fact
from .payload import check_size, read_file
from .pictures import MAX_PIXELS, is_whole, pillow

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BYTES = 256 << 20
_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"}
# What each format can hold; whatever else an image is becomes the last of them.
_FORMATS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "png": ("PNG", ("1", "L", "LA", "P", "RGBA", "I;16", "RGB"), {"compress_level": 1}),
    "jpg": ("JPEG", ("L", "RGB"), {"quality": 90}),
    "jpeg": ("JPEG", ("L", "RGB"), {"quality": 90}),
    "webp": ("WEBP", ("RGBA", "RGB"), {"quality": 90}),
    "gif": ("GIF", ("L", "P", "RGB"), {}),
    "bmp": ("BMP", ("1", "L", "P", "RGB"), {}),
}


class Image(CapturedMedia):
    """An image for `log()`, alone or in a list; the images of a list belong together.

    Args:
        data_or_path: an array or tensor of shape (H, W), (H, W, 1|3|4) or (1|3|4, H, W): booleans, integers in 0..255,
            or floats in 0..1 or -1..1 (values beyond are scaled from their minimum and maximum); a PIL image; a
            matplotlib figure, axes, or pyplot itself; or the path of a png, jpeg, gif, webp or bmp file of at most
            256 MiB, which is kept byte for byte.
        mode: a mode of Pillow ("L", "RGB" …) to convert an array or PIL image to.
        caption: a line of text to go with it.
        grouping: how many images a page puts side by side.
        classes: names of classes, `[{"id": 1, "name": "cat"}, …]`, for boxes and masks that bring none.
        boxes: by set ("predictions", "ground_truth"), `{"box_data": [{"position": {"minX", "minY", "maxX", "maxY"} or
            {"middle": [x, y], "width", "height"}, "class_id", "box_caption", "scores", "domain": "pixel"}, …],
            "class_labels": {id: name}}`; positions are fractions of the image, or pixels where the domain says so.
        masks: by set, `{"mask_data": an array (H, W) of class ids in 0..65535, or "path": an image file,
            "class_labels": {id: name}}`.
        file_type: "png" (the default), "jpg", "webp", "gif" or "bmp"; how an array or PIL image is encoded.
        normalize: False takes floats as brightnesses in 0..255.

    The data is encoded here, not at `log()`, so later changes to an array do not reach the image. What is no image, or
    cannot be read, or needs a package that is not installed, raises nothing here: `log()` leaves out its key with a
    warning that says why.
    """

    kind = "image"

    def __init__(
        self,
        data_or_path: Any,
        mode: str | None = None,
        caption: str | None = None,
        grouping: int | None = None,
        classes: Sequence[Mapping[str, Any]] | None = None,
        boxes: Mapping[str, Any] | None = None,
        masks: Mapping[str, Any] | None = None,
        file_type: str | None = None,
        normalize: bool = True,
    ) -> None:
        self._annotations: Annotations | None = None

        def make() -> Encoding:
            if isinstance(data_or_path, str | os.PathLike):
                content, suffix, size = _from_path(Path(data_or_path))
            else:
                content, suffix, size = _encoded(data_or_path, mode, file_type or "png", normalize)
            if boxes or masks:
                self._annotations = read_annotations(boxes or {}, masks or {}, classes or (), size)
            facts = {} if size is None else {"width": size[0], "height": size[1]}
            if grouping is not None:
                facts["grouping"] = int(grouping)
            return Encoding(content, suffix, {**facts, **caption_fact(caption)})

        self._capture(make)

    def write(self, folder: KeyFolder) -> Entry:
        entry = super().write(folder)
        if self._annotations is not None:
            entry["annotations"] = self._annotations.write(folder.for_parts())
        return entry


_Picture = tuple[bytes, str, "tuple[int, int] | None"]


def _from_path(path: Path) -> _Picture:
    what = f"Image({str(path)!r})"
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UsageError(f"{what}: a file ending in {', '.join(sorted(_SUFFIXES))} is needed")
    content = read_file(path, MAX_BYTES, what)
    try:
        with pillow("flightlog.Image").open(io.BytesIO(content)) as image:
            size = image.size
            _check_pixels(*size)
            whole = is_whole(content)
            if whole is False:
                raise UsageError(f"{what}: it is cut off, or damaged")
            if whole is None:
                image.load()  # the decoder's word counts: it raises where something is missing
        return content, suffix, size
    except MissingDependency:
        if not is_whole(content):
            raise UsageError(f"{what}: it is cut off, damaged, or no image") from None
        return content, suffix, None
    except UsageError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders raise
        raise UsageError(f"{what}: not a readable image ({error})") from None


def _encoded(data: Any, mode: str | None, file_type: str, normalize: bool) -> _Picture:
    figure = _figure(data)
    if figure is not None:
        return _drawn(figure)
    kind = str(file_type).lower().lstrip(".")
    if kind not in _FORMATS:
        raise UsageError(f"Image(file_type={file_type!r}): one of {', '.join(_FORMATS)} is needed")
    module = pillow("flightlog.Image")
    image = data if isinstance(data, module.Image) else module.fromarray(_pixels(data, normalize))
    _check_pixels(*image.size)
    if mode is not None and image.mode != mode:
        image = image.convert(mode)
    name, modes, options = _FORMATS[kind]
    if image.mode not in modes:
        image = image.convert("I;16" if image.mode == "I" and "I;16" in modes else modes[-1])
    buffer = io.BytesIO()
    image.save(buffer, format=name, **options)
    check_size(buffer.tell(), MAX_BYTES, "Image()")
    return buffer.getvalue(), f".{kind}", image.size


def _figure(data: Any) -> Any:
    """Return what can draw itself: a figure of any plotting library, the figure of axes, pyplot's current one."""
    if callable(getattr(data, "savefig", None)):
        numbers = getattr(data, "get_fignums", None)
        if callable(numbers) and not numbers():
            raise UsageError("Image(): no figure of pyplot is open")
        return data
    of_axes = getattr(data, "get_figure", None)
    return of_axes() if callable(of_axes) else None


def _drawn(figure: Any) -> _Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    content = buffer.getvalue()
    check_size(len(content), MAX_BYTES, "Image()")
    # A PNG's width and height stand at fixed places: https://www.w3.org/TR/png-3/#11IHDR
    return content, ".png", (int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big"))


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UsageError(
            f"Image(): {width:,} x {height:,} pixels are more than {MAX_PIXELS:,}; log a file as an artifact"
        )


def _pixels(data: Any, normalize: bool) -> NDArray[Any]:
    """Return an array-like as uint8 of shape (H, W), (H, W, 3) or (H, W, 4)."""
    array = as_array(data, "Image()")
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise UsageError(f"Image(): shape {array.shape} is none of (H, W), (H, W, 1|3|4), (1|3|4, H, W)")
    _check_pixels(array.shape[1], array.shape[0])
    return as_uint8(array, brightness_span([array]) if normalize and array.dtype.kind == "f" else None)
