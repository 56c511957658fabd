"""A training in a process of its own, as a batch system would start it again and again: `python job.py STEPS PAUSE`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from models import job

if __name__ == "__main__":
    job(int(sys.argv[1]), float(sys.argv[2]))
