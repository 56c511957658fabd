"""What lies over an image: boxes and masks by set, kept in a file beside it (docs/media.md, "Boxes and masks")."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..journal.values import key_text, plain
from .arrays import as_array
from .base import Entry, KeyFolder
from .documents import dump
from .payload import check_size, read_file
from .pictures import MAX_PIXELS, is_whole, pillow

MAX_SETS = 100
MAX_BOXES = 10_000
MAX_CLASSES = 65_536
MAX_BYTES = 64 << 20
MAX_LABEL = 1000
_MASK_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"}
_EDGES = ("minX", "minY", "maxX", "maxY")

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Annotations:
    """Boxes and masks, ready to be written: the document, and the masks' files, (content, suffix) by set."""

    boxes: dict[str, Any]
    labels: dict[str, dict[str, str]]
    masks: dict[str, tuple[bytes, str]]

    def write(self, folder: KeyFolder) -> Entry:
        """Write the masks and the document that names them; return {path, size, sha256} of the document."""
        masks = {
            name: {"class_labels": self.labels[name], **folder.put(content, suffix)}
            for name, (content, suffix) in self.masks.items()
        }
        content = dump({"boxes": self.boxes, "masks": masks})
        check_size(len(content), MAX_BYTES, "Image(boxes=)")
        return folder.put(content, ".annotations.json")


def read_annotations(
    boxes: Mapping[str, Any], masks: Mapping[str, Any], classes: Sequence[Mapping[str, Any]], size: Size | None
) -> Annotations:
    """Return what `Image(boxes=, masks=, classes=)` was given, for an image of (width, height) pixels.

    Raises:
        UsageError: it is not of the form that Image describes; the text says what is wrong.
    """
    _check_sets("boxes", boxes)
    _check_sets("masks", masks)
    common = _class_names(classes)
    return Annotations(
        {key_text(name): _box_set(key_text(name), given, common, size) for name, given in boxes.items()},
        {key_text(name): _labels(given, common) for name, given in masks.items()},
        {key_text(name): _mask(key_text(name), given) for name, given in masks.items()},
    )


def _check_sets(what: str, sets: Mapping[str, Any]) -> None:
    if not isinstance(sets, Mapping) or not all(isinstance(given, Mapping) for given in sets.values()):
        raise UsageError(f"Image({what}=): a mapping of names to mappings is needed")
    if len(sets) > MAX_SETS:
        raise UsageError(f"Image({what}=): more than {MAX_SETS} sets")


def _class_names(classes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    first = itertools.islice(classes, MAX_CLASSES)
    return {key_text(one["id"]): key_text(one["name"])[:MAX_LABEL] for one in first}


def _labels(given: Mapping[str, Any], common: dict[str, str]) -> dict[str, str]:
    labels = given.get("class_labels")
    if labels is None:
        return common
    if not isinstance(labels, Mapping) or len(labels) > MAX_CLASSES:
        raise UsageError(f"Image(): class_labels is a mapping of at most {MAX_CLASSES:,} ids to names")
    return {key_text(key): key_text(name)[:MAX_LABEL] for key, name in labels.items()}


def _box_set(name: str, given: Mapping[str, Any], common: dict[str, str], size: Size | None) -> dict[str, Any]:
    data = given.get("box_data")
    if not isinstance(data, list | tuple):
        raise UsageError(f"Image(boxes=): {name} has no list box_data")
    if len(data) > MAX_BOXES:
        raise UsageError(f"Image(boxes=): {name} has more than {MAX_BOXES:,} boxes")
    return {"class_labels": _labels(given, common), "box_data": [_box(name, box, size) for box in data]}


def _box(name: str, box: Mapping[str, Any], size: Size | None) -> dict[str, Any]:
    if not isinstance(box, Mapping) or not isinstance(box.get("position"), Mapping):
        raise UsageError(f"Image(boxes=): a box of {name} has no position")
    edges = _edges(name, box["position"])
    if box.get("domain") == "pixel":
        if size is None:
            raise UsageError("Image(boxes=): boxes in pixels need the image's size: pip install 'flightlog[media]'")
        edges = [edge / size[i % 2] for i, edge in enumerate(edges)]
    found: dict[str, Any] = {"position": dict(zip(_EDGES, edges, strict=True))}
    if box.get("class_id") is not None:
        found["class_id"] = int(box["class_id"])
    if box.get("box_caption") is not None:
        found["box_caption"] = key_text(box["box_caption"])[:MAX_LABEL]
    if box.get("scores"):
        found["scores"] = {key_text(key): float(plain(score)) for key, score in box["scores"].items()}
    return found


def _edges(name: str, position: Mapping[str, Any]) -> list[float]:
    """Return a box as minX, minY, maxX, maxY, from these or from its middle, width and height."""
    try:
        if "middle" in position:
            (x, y), width, height = position["middle"], float(position["width"]), float(position["height"])
            edges = [float(x) - width / 2, float(y) - height / 2, float(x) + width / 2, float(y) + height / 2]
        else:
            edges = [float(position[edge]) for edge in _EDGES]
    except (KeyError, TypeError, ValueError):
        raise UsageError(
            f"Image(boxes=): a position in {name} has neither {', '.join(_EDGES)} nor middle, width, height"
        ) from None
    if not all(-1e9 < edge < 1e9 for edge in edges):
        raise UsageError(f"Image(boxes=): a position in {name} is not finite")
    return edges


def _mask(name: str, given: Mapping[str, Any]) -> tuple[bytes, str]:
    if given.get("mask_data") is not None:
        return _mask_png(name, given["mask_data"]), ".png"
    if given.get("path") is None:
        raise UsageError(f"Image(masks=): {name} has neither mask_data nor path")
    path = Path(given["path"])
    if path.suffix.lower() not in _MASK_SUFFIXES:
        raise UsageError(f"Image(masks=): {name}: a file ending in {', '.join(sorted(_MASK_SUFFIXES))} is needed")
    content = read_file(path, MAX_BYTES, f"Image(masks=): {name}")
    if not is_whole(content):
        raise UsageError(f"Image(masks=): {name}: {path} is cut off, or no image")
    return content, path.suffix.lower()


def _mask_png(name: str, data: Any) -> bytes:
    """Return class ids as a gray PNG, of 16 bits where there are more than 256."""
    import numpy as np

    array = as_array(data, f"Image(masks=): {name}")
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[:, :, 0]
    if array.ndim != 2 or array.size > MAX_PIXELS:
        raise UsageError(f"Image(masks=): {name} has the shape {array.shape}, not (H, W)")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 65_535) or (array.dtype.kind == "f" and (array % 1).any()):
        raise UsageError(f"Image(masks=): the classes of {name} are not integers in 0..65535")
    ids = array.astype(np.uint8 if high <= 255 else np.uint16)
    buffer = io.BytesIO()
    pillow("flightlog.Image").fromarray(ids).save(buffer, format="PNG")
    return buffer.getvalue()
