"""Reading everything back through flightlog.Api and holding it against the notes."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from flightlog.reading import Api, RunView

from .training import PROJECT, Notes


def differences(api: Api, notes: list[Notes]) -> list[str]:
    """Return what does not agree, in words; nothing when everything came back as it was logged."""
    found: list[str] = []
    there = {r.id: r for r in api.runs(PROJECT)}
    if sorted(there) != sorted(n.id for n in notes):
        found.append(f"the runs: {sorted(there)} instead of {sorted(n.id for n in notes)}")
    for note in notes:
        if note.id in there:
            found.extend(f"{note.name}: {text}" for text in _run_differences(api, there[note.id], note))
    return found


def _run_differences(api: Api, run: RunView, note: Notes) -> Iterator[str]:
    for what, got, expected in (
        ("state", run.state, "finished"),
        ("name", run.name, note.name),
        ("config", run.config, note.config),
        ("summary", run.summary, note.summary),
    ):
        if got != expected:
            yield f"{what}: {got!r} instead of {expected!r}"
    rows = {row["_step"]: {k: v for k, v in row.items() if not k.startswith("_")} for row in run.history()}
    if rows != note.rows:
        wrong = [step for step in sorted(rows.keys() | note.rows.keys()) if rows.get(step) != note.rows.get(step)]
        yield f"history: {len(wrong)} steps differ, step {wrong[0]} first"
    yield from _image_differences(run, note)
    yield from _checkpoint_differences(api, note)


def _image_differences(run: RunView, note: Notes) -> Iterator[str]:
    media: list[dict[str, Any]] = [m for m in run.media() if m["key"] == "val/confusion"]
    if len(media) != 1:
        yield f"{len(media)} confusion matrices instead of one"
        return
    with PIL.Image.open(io.BytesIO(run.file(media[0]["path"]))) as image:
        if not np.array_equal(np.asarray(image), note.image):
            yield "the confusion matrix has other pixels"


def _checkpoint_differences(api: Api, note: Notes) -> Iterator[str]:
    artifact = api.artifact(f"{PROJECT}/digits-model:{note.name.replace('=', '-')}")
    with tempfile.TemporaryDirectory() as folder:
        downloaded = artifact.download(folder) / note.checkpoint_name
        got = hashlib.sha256(Path(downloaded).read_bytes()).hexdigest()
    if got != note.checkpoint:
        yield "the checkpoint has other bytes"
