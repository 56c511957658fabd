"""What a log call can hold besides numbers: one module per kind, each a file in the run named by its content."""

from .base import Media
from .image import Image
from .text import Text

__all__ = ["Image", "Media", "Text"]
