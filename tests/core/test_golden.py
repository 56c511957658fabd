"""Run directories written by earlier versions are read by every later one: tests/golden/format-<n>/."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

import flightlog
from flightlog.rundir import RunDir
from flightlog.verify import verify

GOLDEN = Path(__file__).parents[1] / "golden" / "format-1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the golden root: a run that finished, was resumed, failed, and whose first journal has a torn tail."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "flightlog"))


def test_format_1_is_read_whole(root: Path) -> None:
    """Config, summary, every value of the history, media and artifact come back as they were logged."""
    (run,) = flightlog.Api(root).runs()
    assert (run.id, run.name, run.project, run.state) == ("golden000001", "the golden run", "golden", "failed")
    assert (run.tags, run.notes, run.group, run.job_type) == (("a", "b"), "ünïcode", "g", "train")
    assert run.config["lr"] == 0.1 and run.config["layers"] == [1, 2] and math.isnan(run.config["inner"]["nan"])
    rows = {row["_step"]: row for row in run.history()}
    assert sorted(rows) == list(range(21))
    assert [rows[i]["loss"] for i in range(20)] == [1 / (i + 1) for i in range(20)] and rows[20]["loss"] == 0.01
    assert [rows[i]["flag"] for i in range(20)] == [i % 2 == 0 for i in range(20)]
    odd = rows[5]
    assert math.isnan(odd["odd"]) and odd["inf"] == -math.inf and odd["text"] == "NaN" and odd["none"] is None
    assert odd["big"] == 2**70 and odd["deep.a.b"] == 1
    assert run.summary["best"] == 0.25 and run.summary["loss"] == 0.01
    (text,) = run.media()
    assert (text["key"], text["step"], text["caption"]) == ("sample", 7, "c")
    assert run.file(text["path"]) == b"a text in a file"
    artifact = flightlog.Api(root).artifact("golden/model:best")
    assert artifact.metadata == {"score": 0.5}
    assert (artifact.download(root / "down") / "weights").read_bytes() == b"weights" * 100


def test_format_1_verifies_and_goes_on(root: Path) -> None:
    """It is sound (the torn tail is no damage), and can be resumed by this version."""
    (directory,) = root.glob("run-*")
    verdict = verify(RunDir(directory))
    assert verdict.sound and any("torn" in note for note in verdict.notes)
    with flightlog.init("golden", id="golden000001", dir=root, resume="must") as run:
        assert run.step == 21 and run.config["lr"] == 0.1
        run.log({"loss": 0.005})
    assert [row["loss"] for row in flightlog.Api(root).run("golden000001").history()][-2:] == [0.01, 0.005]


EVERY_KIND = GOLDEN.with_name("format-1-every-kind")


def test_every_kind_of_record_is_read(tmp_path: Path) -> None:
    """Rewound, with definitions, a child's writer, alerts, console, system metrics, provenance, media and artifacts."""
    root = Path(shutil.copytree(EVERY_KIND, tmp_path / "flightlog"))
    (run,) = flightlog.Api(root).runs()
    assert (run.id, run.name, run.state) == ("golden000002", "every kind", "finished")
    rows = run.history()
    assert [row["_step"] for row in rows] == list(range(8)) and rows[3]["child"] == 1
    assert [row["loss"] for row in rows] == [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 1.5]
    assert run.summary["loss"] == 1.5 and run.summary["val/loss"] == 0
    assert run.definitions[0] == {
        "name": "val/*", "step_metric": "epoch", "summary": ["min"], "goal": "minimize",
    }  # fmt: skip
    assert [(a["level"], a["title"]) for a in run.alerts()] == [("WARN", "title")]
    assert "hello" in run.console("stdout") and "careful" in run.console("stderr")
    assert run.system()[0]["memory_percent"] > 0 and run.provenance()["executable"] == "/usr/bin/python3"
    assert run.media() == []  # of a step that is hidden
    (directory,) = root.glob("run-*")
    verdict = verify(RunDir(directory))
    assert verdict.sound, verdict.faults
    artifact = flightlog.Api(root).artifact("golden/model:best")
    assert (artifact.download(root / "down") / "w.bin").read_bytes() == b"w" * 1000
