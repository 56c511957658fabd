"""Images and texts: what they take, what they refuse, what lies over them, and where they are kept."""

from __future__ import annotations

import hashlib
import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import flightlog

JournalOf = Callable[[Path], Any]
GRAY = np.arange(42, dtype=np.uint8).reshape(6, 7) * 6
COLOUR = np.arange(126, dtype=np.uint8).reshape(6, 7, 3) * 2
ALPHA = np.arange(168, dtype=np.uint8).reshape(6, 7, 4)


def pixels(image: flightlog.Image) -> np.ndarray[Any, Any]:
    content, suffix, facts = image.encode()
    assert suffix == ".png"
    with PIL.Image.open(io.BytesIO(content)) as opened:
        assert opened.size == (facts["width"], facts["height"])
        return np.asarray(opened)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (GRAY, GRAY),
        (GRAY[:, :, None], GRAY),
        (GRAY[None], GRAY),
        (COLOUR, COLOUR),
        (COLOUR.transpose(2, 0, 1), COLOUR),
        (ALPHA, ALPHA),
        (COLOUR[::-1, ::2], COLOUR[::-1, ::2]),
        (GRAY.astype(np.int64) * 100, np.clip(GRAY.astype(np.int64) * 100, 0, 255)),
        (GRAY / 255, GRAY),
        ((GRAY / 255).astype(np.float16), GRAY),
        (COLOUR.astype(np.float32) / 255, COLOUR),
        (np.array([[0.0, 10.0], [5.0, 20.0]]), [[0, 128], [64, 255]]),
        (np.array([[-1.0, 1.0]]), [[0, 255]]),
        (np.array([[-0.5, 0.5]]), [[64, 191]]),
        (np.array([[-2.0, 2.0]]), [[0, 255]]),
        (np.array([[-math.inf, -1.0, 1.0, math.inf]]), [[0, 0, 255, 255]]),
        (np.array([[0.0, math.nan, math.inf]]), [[0, 0, 255]]),
        (np.full((2, 2), 7.0), [[0, 0], [0, 0]]),
        (np.array([[True, False]]), [[255, 0]]),
        ([[0, 255], [255, 0]], [[0, 255], [255, 0]]),
        (PIL.Image.fromarray(COLOUR), COLOUR),
        (PIL.Image.fromarray(GRAY).convert("1"), np.asarray(PIL.Image.fromarray(GRAY).convert("1"))),
    ],
    ids=lambda x: f"{type(x).__module__}-{getattr(x, 'dtype', '')}-{getattr(x, 'shape', '')}",
)
def test_every_form_of_an_image(data: Any, expected: Any) -> None:
    """(H, W), (H, W, C), (C, H, W), floats, booleans, lists, tensors, PIL: the pixels come out as they went in."""
    assert np.array_equal(pixels(flightlog.Image(data)), expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "LAB", "F", "I", "I;16"])
def test_every_mode_of_pillow(mode: str) -> None:
    """Whatever Pillow holds becomes a PNG of the same size."""
    image = PIL.Image.new(mode, (5, 4))
    assert pixels(flightlog.Image(image)).shape[:2] == (4, 5)


class Hostile:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((0, 4)), np.zeros(5), np.zeros((2, 3, 4, 5)), np.zeros((5, 5, 2)), np.zeros((2, 5, 5)),
        np.array([["a"]]), np.array([[1j]]), np.array([[object()]]), [[1, 2], [3]], 5, None, "no.such.kind", Hostile(),
    ],
    ids=lambda x: f"{type(x).__name__}-{getattr(x, 'shape', '')}",
)  # fmt: skip
def test_what_is_no_image_costs_its_key(bad: Any, journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """One warning says what it was and what is needed; the call's other values are kept, and nothing is raised."""
    with flightlog.init() as run:
        run.log({"x": 1, "picture": flightlog.Image(bad)})
    assert journal(run.dir).logged("x") == [1] and not journal(run.dir).of("media")
    said = capfd.readouterr().err
    assert said.count("picture is left out") == 1 and "Image(" in said


def test_a_file_is_kept_byte_for_byte(tmp_path: Path, journal: JournalOf) -> None:
    """A jpeg stays the jpeg it was, with its size looked up; text or Path."""
    PIL.Image.fromarray(COLOUR).save("photo.JPG", format="JPEG")
    run = flightlog.init()
    run.log({"a": flightlog.Image("photo.JPG"), "b": flightlog.Image(Path("photo.JPG"), caption="two")})
    Path("photo.JPG").unlink()
    run.finish()
    data = journal(run.dir).of("media")[0].data
    assert (data["a"]["width"], data["a"]["height"], data["b"]["caption"]) == (7, 6, "two")
    assert data["a"]["sha256"] == data["b"]["sha256"] and data["a"]["path"].endswith(".jpg")


def test_files_that_are_no_images(tmp_path: Path, journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """Rubbish under an image's name, other kinds, a missing file, a folder: each costs its key, and is named."""
    (tmp_path / "rubbish.png").write_text("no")
    (tmp_path / "folder.png").mkdir()
    names = ("rubbish.png", "text.txt", "missing.png", "folder.png")
    with flightlog.init() as run:
        run.log({"x": 1, **{name: flightlog.Image(name) for name in names}})
    assert journal(run.dir).logged("x") == [1] and not journal(run.dir).of("media")
    said = capfd.readouterr().err
    assert all(f"{name} is left out" in said for name in names)


def test_an_image_is_what_it_was_when_made() -> None:
    """Later changes to the array do not reach it."""
    array = GRAY.copy()
    image = flightlog.Image(array)
    array[:] = 0
    assert np.array_equal(pixels(image), GRAY)


class Figure:
    """What matplotlib's figures have in common with any plotting library's."""

    def savefig(self, target: Any, **options: Any) -> None:
        PIL.Image.fromarray(COLOUR).save(target, format="PNG")


class BrokenFigure:
    def savefig(self, target: Any, **options: Any) -> None:
        raise RuntimeError("no renderer")


def test_figures(journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """A figure is logged as it is; one that cannot be drawn costs its key."""
    run = flightlog.init()
    run.log({"plot": Figure(), "broken": BrokenFigure(), "x": 1})
    run.finish()
    found = journal(run.dir)
    assert found.logged("x") == [1] and found.of("media")[0].data["plot"]["width"] == 7
    assert list(found.of("media")[0].data) == ["plot"]
    assert capfd.readouterr().err.count("broken is left out") == 1


def test_media_stand_beside_values_of_the_same_step(journal: JournalOf) -> None:
    """One call with both makes a log and a media record of one step; an entry names path, size and hash of its file."""
    run = flightlog.init()
    run.log(
        {
            "loss": 1.0,
            "img": flightlog.Image(GRAY, caption="first"),
            "many": [flightlog.Image(GRAY), flightlog.Image(COLOUR)],
        }
    )
    run.log({"only": flightlog.Image(GRAY)})
    run.finish()
    found = journal(run.dir)
    assert [(r.kind, r.step) for r in found.records[1:-1]] == [("log", 0), ("media", 0), ("media", 1)]
    data = found.of("media")[0].data
    assert data["img"]["type"] == "image" and data["img"]["caption"] == "first" and len(data["many"]) == 2
    for entry in (data["img"], *data["many"]):
        content = (run.dir / "files" / entry["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["size"], entry["sha256"])
    assert found.fold.step == 2 and found.fold.summary == {"loss": 1.0}


def test_the_same_picture_is_stored_once(journal: JournalOf) -> None:
    """A hundred times the same content under one key is one file and a hundred entries."""
    run = flightlog.init()
    for _ in range(100):
        run.log({"img": flightlog.Image(GRAY)})
    run.finish()
    assert len(list((run.dir / "files" / "media").rglob("*.png"))) == 1
    assert len(journal(run.dir).of("media")) == 100


@pytest.mark.parametrize(
    "key",
    [
        "../../../escape", "/etc/passwd", "..", ".", "", "a/../../b", "a\0b", "a\\..\\b", "\U00020000" * 200, "a/" * 50,
        "\udcff",
    ],
    ids=lambda k: ascii(k)[:20],
)  # fmt: skip
def test_a_key_never_leads_out_of_the_run(key: str, tmp_path: Path, journal: JournalOf) -> None:
    """Whatever the key, the file lies below files/media, and is found by its entry."""
    run = flightlog.init()
    before = {p for p in tmp_path.rglob("*") if run.dir not in p.parents}
    run.log({key: flightlog.Image(GRAY)})
    run.finish()
    ((entry),) = journal(run.dir).of("media")[0].data.values()
    path = run.dir / "files" / entry["path"]
    assert path.is_file() and (run.dir / "files" / "media") in path.resolve().parents
    assert ".." not in Path(entry["path"]).parts
    assert {p for p in tmp_path.rglob("*") if run.dir not in p.parents} == before


def test_texts(journal: JournalOf) -> None:
    """A Text is a file of UTF-8, with a caption; odd characters are no reason to lose it."""
    run = flightlog.init()
    run.log({"t": flightlog.Text("grüße\u2028\udcff", caption="c\udcff")})
    run.finish()
    entry = journal(run.dir).of("media")[0].data["t"]
    assert entry["caption"] == "c\\udcff" and entry["path"].endswith(".txt")
    assert (run.dir / "files" / entry["path"]).read_text() == "grüße\u2028?"


def test_more_images_than_find_room_in_a_line(journal: JournalOf) -> None:
    """Ten thousand images in one call are divided into records that can all be read."""
    run = flightlog.init()
    image = flightlog.Image(GRAY)
    run.log({"grid": [image] * 9_000, "one": image}, step=3)
    run.finish()
    found = journal(run.dir)
    assert found.sound and {r.step for r in found.of("media")} == {3}
    assert sum(len(r.data.get("grid", [])) for r in found.of("media")) == 9_000
    assert sum("one" in r.data for r in found.of("media")) == 1


def test_a_picture_that_cannot_be_written_costs_its_key(journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """One warning, and the rest of the call is kept."""
    run = flightlog.init()
    (run.dir / "files" / "media").write_text("in the way")
    for i in range(3):
        run.log({"x": i, "img": flightlog.Image(GRAY)})
    run.finish()
    assert journal(run.dir).logged("x") == [0, 1, 2] and not journal(run.dir).of("media")
    assert capfd.readouterr().err.count("img is left out") == 1


# -- how they are encoded ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_type", ["png", "jpg", "jpeg", "webp", "gif", "bmp", ".PNG"])
@pytest.mark.parametrize("data", [GRAY, COLOUR, ALPHA, PIL.Image.new("I;16", (4, 3), 9), PIL.Image.new("CMYK", (4, 3))])
def test_every_file_type(file_type: str, data: Any) -> None:
    """Whatever the pixels, the file is of the type that was asked for, and of the same size."""
    content, suffix, facts = flightlog.Image(data, file_type=file_type).encode()
    assert suffix == f".{file_type.lower().lstrip('.')}"
    with PIL.Image.open(io.BytesIO(content)) as opened:
        assert opened.format == {"jpg": "JPEG"}.get(suffix[1:], suffix[1:].upper())
        assert opened.size == (facts["width"], facts["height"])


def test_modes_and_brightness() -> None:
    """`mode=` converts as Pillow does; without `normalize` floats are brightnesses in 0..255."""
    assert pixels(flightlog.Image(COLOUR, "L")).ndim == 2
    assert pixels(flightlog.Image(GRAY, mode="RGB")).shape == (6, 7, 3)
    assert np.array_equal(pixels(flightlog.Image(np.array([[0.4, 300.0, -5.0]]), normalize=False)), [[0, 255, 0]])
    assert flightlog.Image(GRAY, grouping=3).encode()[2]["grouping"] == 3


@pytest.mark.parametrize(
    "options",
    [
        {"file_type": "tiff"}, {"mode": "nope"}, {"grouping": "x"},
        {"boxes": {"a": {}}}, {"boxes": {"a": {"box_data": [{"position": {"minX": 1}}]}}}, {"boxes": [1]},
        {"boxes": {"a": {"box_data": [{"position": {"minX": 0, "maxX": 1, "minY": 0, "maxY": math.nan}}]}}},
        {"boxes": {"a": {"box_data": [{"position": {"middle": [1, 2, 3], "width": 1, "height": 1}}]}}},
        {"boxes": {"a": {"box_data": [7] * 3}}}, {"boxes": {"a": {"box_data": [{}] * 10_001}}},
        {"masks": {"a": {}}}, {"masks": {"a": {"mask_data": [[-1]]}}}, {"masks": {"a": {"mask_data": [[70_000]]}}},
        {"masks": {"a": {"mask_data": [[0.5]]}}}, {"masks": {"a": {"path": "missing.png"}}},
        {"masks": {"a": {"path": "/etc/passwd"}}}, {"masks": {"a": {"mask_data": [[1]], "class_labels": [1]}}},
        {"classes": [{"id": 1}], "masks": {"a": {"mask_data": [[1]]}}},
    ],
    ids=lambda x: str(x)[:60],
)  # fmt: skip
def test_options_that_cannot_be(options: Any, journal: JournalOf, capfd: pytest.CaptureFixture[str]) -> None:
    """They cost the image's key, with a warning that names the argument, and nothing else."""
    with flightlog.init() as run:
        run.log({"x": 1, "picture": flightlog.Image(GRAY, **options)})
    assert journal(run.dir).logged("x") == [1] and not journal(run.dir).of("media")
    assert capfd.readouterr().err.count("picture is left out") == 1


def test_boxes_and_masks(tmp_path: Path, journal: JournalOf) -> None:
    """Boxes in fractions or pixels come out as fractions; a mask is a gray PNG; all of it is named by entries."""
    PIL.Image.fromarray(GRAY.T).save("truth.png")
    labels = {1: "cat", 2: "dög"}
    image = flightlog.Image(
        COLOUR,
        boxes={
            "predictions": {
                "box_data": [
                    {
                        "position": {"minX": 0.0, "maxX": 0.5, "minY": 0.25, "maxY": 1.0},
                        "class_id": np.int64(2),
                        "box_caption": "a dog",
                        "scores": {"p": np.float32(0.5), "iou": math.nan},
                    },
                    {"position": {"middle": [3.5, 3], "width": 7, "height": 6}, "domain": "pixel", "class_id": 1},
                ],
                "class_labels": labels,
            }
        },
        masks={
            "predictions": {"mask_data": GRAY, "class_labels": labels},
            "truth": {"path": "truth.png"},
            "many": {"mask_data": GRAY.astype(int) * 250},
        },
        classes=[{"id": 0, "name": "sky"}],
    )
    with flightlog.init() as run:
        run.log({"seen": image})
    *parts, entry = journal(run.dir).of("media")[0].data["seen"]
    assert [part["type"] for part in parts] == ["part"] * 4 and entry["type"] == "image"
    files = run.dir / "files"
    found = json.loads((files / entry["annotations"]["path"]).read_text())
    assert entry["annotations"]["path"] in {part["path"] for part in parts}
    first, second = found["boxes"]["predictions"]["box_data"]
    assert found["boxes"]["predictions"]["class_labels"] == {"1": "cat", "2": "dög"}
    assert first["position"] == {"minX": 0.0, "minY": 0.25, "maxX": 0.5, "maxY": 1.0}
    assert (first["class_id"], first["box_caption"], first["scores"]) == (2, "a dog", {"p": 0.5, "iou": "NaN"})
    assert found["nonfinite"] == ["boxes.predictions.box_data.0.scores.iou"]
    assert second["position"] == {"minX": 0.0, "minY": 0.0, "maxX": 1.0, "maxY": 1.0}
    masks = found["masks"]
    assert np.array_equal(np.asarray(PIL.Image.open(files / masks["predictions"]["path"])), GRAY)
    assert np.array_equal(np.asarray(PIL.Image.open(files / masks["many"]["path"])), GRAY.astype(int) * 250)
    assert (files / masks["truth"]["path"]).read_bytes() == Path("truth.png").read_bytes()
    assert masks["truth"]["class_labels"] == {"0": "sky"}
    for part in parts:
        content = (files / part["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (part["size"], part["sha256"])


def test_captions_have_an_end(journal: JournalOf) -> None:
    """A caption of a megabyte does not make an entry of a megabyte; one whose str() raises is no reason to raise."""

    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError

    with flightlog.init() as run:
        run.log({"a": flightlog.Image(GRAY, caption="x" * (1 << 20))})
        run.log({"b": [flightlog.Image(GRAY, caption="y" * 10_000)] * 500})
        run.log({"c": flightlog.Image(GRAY, caption=Unspeakable())})  # type: ignore[arg-type]
    found = journal(run.dir)
    assert found.of("media")[0].data["a"]["caption"] == "x" * 4096
    assert sum(len(r.data.get("b", [])) for r in found.of("media")) == 500
    assert found.of("media")[-1].data["c"]["caption"] == "<Unspeakable>"


def test_an_image_larger_than_any_screen_is_refused_before_it_is_encoded() -> None:
    """2^27 pixels are the limit, whatever memory they would not take."""
    with pytest.raises(flightlog.UsageError, match="pixels are more than"):
        flightlog.Image(np.broadcast_to(np.uint8(1), (1 << 14, 1 << 14))).encode()


@pytest.mark.parametrize("pillow_is_there", [True, False])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_a_file_that_was_cut_off_is_no_image(
    kind: str, pillow_is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Anywhere in it, with Pillow and without; whole, with something behind its end, it is kept byte for byte."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(buffer, format=kind)
    whole = buffer.getvalue()
    path = tmp_path / f"image.{kind.lower().replace('jpeg', 'jpg')}"
    if not pillow_is_there:
        monkeypatch.setitem(sys.modules, "PIL.Image", None)
    for content in (whole, whole + b"\0" * 8):
        path.write_bytes(content)
        assert flightlog.Image(path).encode()[0] == content
    for size in (len(whole) - 1 - (kind in ("JPEG", "PNG")), len(whole) * 2 // 3, len(whole) // 3, 30):
        path.write_bytes(whole[:size])
        with flightlog.init() as run:
            run.log({"x": 1, "image": flightlog.Image(path)})
        assert [entry["key"] for entry in flightlog.Api(run.dir).runs()[0].media()] == [], size
    assert capfd.readouterr().err.count("image is left out") == 1


def test_a_file_whose_middle_has_changed_is_no_image(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A PNG has checksums."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(COLOUR).save(buffer, format="PNG")
    content = bytearray(buffer.getvalue())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "x.png").write_bytes(content)
    with flightlog.init() as run:
        run.log({"image": flightlog.Image(tmp_path / "x.png")})
    assert "image is left out" in capfd.readouterr().err


def test_a_cut_off_mask_costs_its_image(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A mask given by path is looked at like an image."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(GRAY).save(buffer, format="PNG")
    (tmp_path / "mask.png").write_bytes(buffer.getvalue()[:-20])
    with flightlog.init() as run:
        run.log({"image": flightlog.Image(COLOUR, masks={"m": {"path": tmp_path / "mask.png"}})})
    assert "mask.png is cut off" in capfd.readouterr().err


def test_the_same_picture_under_several_keys_is_one_file(tmp_path: Path) -> None:
    """As an array, by path, in a list and in a table; another run has its own; a deleted one is written again."""
    PIL.Image.fromarray(COLOUR).save(tmp_path / "x.png", compress_level=1)
    table = flightlog.Table(columns=["image"], data=[[flightlog.Image(COLOUR)]])
    with flightlog.init() as run:
        run.log({"a": flightlog.Image(COLOUR), "b": [flightlog.Image(COLOUR)] * 2, "t": table})
        run.log({"c/d": flightlog.Image(tmp_path / "x.png"), "a": flightlog.Image(COLOUR)})
        files = list((run.dir / "files" / "media").rglob("*.png"))
        assert len(files) == 1
        files[0].unlink()
        run.log({"e": flightlog.Image(COLOUR)})
    (found,) = flightlog.Api(run.dir).runs()
    pictures = [entry for entry in found.media() if entry["type"] == "image"]
    assert len(pictures) == 6 and len({entry["path"] for entry in pictures}) == 1
    assert found.file(pictures[0]["path"]) == flightlog.Image(COLOUR).encode()[0]
    with flightlog.init() as other:
        other.log({"a": flightlog.Image(COLOUR)})
    assert len(list((other.dir / "files" / "media").rglob("*.png"))) == 1
