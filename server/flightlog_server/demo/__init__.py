"""The demo: training.py records, compare.py holds what came back against what was logged, story.py tells it all."""

from .story import run

__all__ = ["run"]
