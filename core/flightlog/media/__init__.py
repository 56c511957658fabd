"""What a log call can hold besides numbers: one module per kind, each a file in the run named by its content."""

from .audio import Audio
from .base import Media, divide, save_all
from .histogram import Histogram
from .html import Html
from .image import Image
from .plot import Plot
from .plotly import Plotly
from .recognise import recognise
from .table import Table
from .text import Text
from .video import Video

__all__ = [
    "Audio",
    "Histogram",
    "Html",
    "Image",
    "Media",
    "Plot",
    "Plotly",
    "Table",
    "Text",
    "Video",
    "divide",
    "recognise",
    "save_all",
]
