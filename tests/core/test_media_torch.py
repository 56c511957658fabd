"""PyTorch's tensors as media: in a graph, in half precision, channels first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flightlog
from flightlog import plot
from flightlog.media import Audio, Histogram, Image, Table, Video, recognise
from flightlog.media.arrays import as_array
from flightlog.media.video import _rgb

from .test_media_table import written
from .test_plot import drawn

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16", "float8_e4m3fn"])
def test_floats_of_every_width(name: str) -> None:
    """A tensor that is part of a graph, of any width, is the same sound, histogram and picture as numpy's."""
    tensor = torch.tensor([0.0, 0.5, 1.0, -0.5]).to(getattr(torch, name))
    if name.startswith("float") and name != "float8_e4m3fn":
        tensor.requires_grad_()
    values = np.array([0.0, 0.5, 1.0, -0.5])
    assert Audio(tensor, 8000).encode() == Audio(values, 8000).encode()
    assert Histogram(tensor).histogram == Histogram(values).histogram
    assert Image(tensor.reshape(1, 2, 2)).encode() == Image(values.reshape(2, 2)).encode()


def test_videos_with_channels_first() -> None:
    """(T, C, H, W), as torch has them, and a batch of these."""
    frames = np.random.default_rng(1).integers(0, 256, (5, 8, 10, 3)).astype(np.uint8)
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)
    assert np.array_equal(_rgb(as_array(tensor, "Video()")), frames)
    assert Video(tensor[None], format="gif").encode() == Video(frames, format="gif").encode()


def test_tables_and_plots(tmp_path: Path) -> None:
    """Tensors are rows, cells and scores."""
    assert Table(columns=["a", "b"], data=torch.ones(1, 2)).data == [[1.0, 1.0]]
    table = Table(["one", "many"], [[torch.tensor(3), torch.zeros(2)]])
    assert written(table, tmp_path)[1]["rows"] == [[3, [0.0, 0.0]]]
    truth, scores = torch.tensor([0, 1, 1]), torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], requires_grad=True)
    for series in drawn(plot.roc_curve(truth, scores))["series"]:
        assert series["area"] == 1.0
    assert drawn(plot.confusion_matrix(scores, truth))["counts"] == [[1, 0], [1, 1]]
    assert drawn(plot.line_series(torch.arange(2), torch.eye(2)))["series"][1]["y"] == [0.0, 1.0]


def test_a_tensor_alone_is_no_media() -> None:
    """It stays a value."""
    assert recognise("k", torch.zeros(2)) is None and recognise("k", [torch.zeros(2)]) is None


def test_views_that_are_yet_to_be_computed() -> None:
    """A conjugate's imaginary part is a tensor with its sign still to come; as an image, a histogram and a number."""
    values = torch.view_as_complex(torch.rand(4, 5, 2)).conj().imag
    assert values.is_neg()
    assert sum(flightlog.Histogram(values).histogram) == 20
    assert flightlog.Image(values).encode()[2]["width"] == 5
    with flightlog.init() as run:
        run.log({"one": values[0, 0]})
    assert flightlog.Api(run.dir).runs()[0].history()[0]["one"] == pytest.approx(float(values[0, 0]))
