"""keep_last= and keep_best=: what a rule lets go, what it never does, and that nothing of it looks like damage."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import flightlog
from flightlog import UsageError
from flightlog.artifacts.catalog import LOGGED, Version
from flightlog.artifacts.retention import Rule, checked_rule, superseded
from flightlog.contents import Named, named_files
from flightlog.rundir import RunDir
from flightlog.verify import verify

JournalOf = Callable[[Path], Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "model.bin"


def there(run: Any, name: str = "model") -> set[str]:
    """Return the versions whose files are there."""
    return {p.parent.name for p in (run.dir / "files" / "artifacts" / name).glob("*/manifest.json")}


def log(run: Any, model: Path, number: int, **more: Any) -> Any:
    model.write_bytes(bytes([number]) * 5000)
    return run.log_artifact(model, name="model", **more)


def test_the_newest_stay(model: Path, journal: JournalOf) -> None:
    """keep_last=2 of five: v3 and v4; each record stands before the deletion, and nothing counts as damage."""
    run = flightlog.init()
    versions = [log(run, model, number, keep_last=2) for number in range(5)]
    run.finish()
    assert there(run) == {"v3", "v4"} and [v.state for v in versions] == ["pruned"] * 3 + ["logged"] * 2
    with pytest.raises(flightlog.errors.NotFound, match="let go"):
        versions[0].download()
    pruned = [r.data for r in journal(run.dir).of("artifact") if r.data["action"] == "pruned"]
    assert [(d["name"], d["version"], d["digest"]) for d in pruned] == [
        ("model", f"v{n}", versions[n].digest) for n in range(3)
    ]
    verdict = verify(RunDir(run.dir))
    assert verdict.sound and verdict.files == 4


def test_an_alias_protects(model: Path) -> None:
    """A version that an alias holds stays until the alias moves on; `latest` alone protects the last one."""
    run = flightlog.init()
    for number, aliases in enumerate([["best", "paper"], [], ["best"], []]):
        log(run, model, number, keep_last=1, aliases=aliases)
    run.finish()
    assert there(run) == {"v0", "v2", "v3"}


@pytest.mark.parametrize(("rule", "stay"), [(("loss", "min"), {"v1", "v4"}), (("loss", "max", 2), {"v0", "v2", "v4"})])
def test_the_best_stay(model: Path, rule: Any, stay: set[str]) -> None:
    """By a metric of the metadata, smallest or largest; and always the last one, which `latest` holds."""
    run = flightlog.init()
    for number, loss in enumerate([4.0, 1.0, 3.0, 2.0, 2.5]):
        log(run, model, number, keep_best=rule, metadata={"loss": loss})
    run.finish()
    assert there(run) == stay


def test_the_metric_may_come_from_the_summary(model: Path) -> None:
    """Logged with run.log, it need not be said again."""
    run = flightlog.init()
    for number, loss in enumerate([2.0, 1.0, 3.0, 4.0]):
        run.log({"val/loss": loss})
        version = log(run, model, number, keep_best=("val/loss", "min"), metadata={"epoch": number})
        assert version.metadata == {"epoch": number, "val/loss": loss}
    run.finish()
    assert there(run) == {"v1", "v3"}


def test_a_number_is_never_given_twice(model: Path) -> None:
    """Content that was let go and comes again is a new version."""
    run = flightlog.init()
    for number in (1, 2, 3, 1):
        version = log(run, model, number, keep_last=1)
    run.finish()
    assert version.version == "v3" and there(run) == {"v3"} and verify(RunDir(run.dir)).sound


def test_shared_bytes_survive_the_version_they_came_from(tmp_path: Path) -> None:
    """A file that two versions have is there as long as one of them is."""
    run = flightlog.init()
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer").write_bytes(os.urandom(50_000))
    for number in range(4):
        (folder / "weights").write_bytes(bytes([number]) * 5000)
        version = run.log_artifact(folder, keep_last=1)
    run.finish()
    assert version is not None and there(run) == {"v3"}
    version.verify()


def test_large_ones_too(tmp_path: Path, dice: random.Random) -> None:
    """Copied in the background, one after the other, each letting the one before go."""
    run = flightlog.init()
    path = tmp_path / "model.bin"
    for _ in range(4):
        path.unlink(missing_ok=True)
        path.write_bytes(dice.randbytes(9 << 20))
        version = run.log_artifact(path, keep_last=1)
    run.finish()
    assert version is not None and version.version == "v3" and there(run) == {"v3"}
    version.verify()


def test_a_resumed_run_goes_on_counting_and_letting_go(model: Path) -> None:
    """The next job continues the run: versions count on, also over several directories, and no two are alike."""
    run = flightlog.init(id="requeued")
    first = [log(run, model, number).version for number in range(2)]
    run.finish()
    run = flightlog.init(id="requeued", resume="must")
    assert [log(run, model, number).version for number in (2, 3, 1)] == ["v2", "v3", "v1"]
    log(run, model, 4, keep_last=2)
    run.finish()
    assert first == ["v0", "v1"]
    assert {p.name for p in (run.dir / "files/artifacts/model").iterdir() if list(p.rglob("manifest.json"))} == {
        "v1",
        "v4",
    }
    assert all(verify(RunDir(p)).sound for p in Path("flightlog").glob("run-*"))


def test_directories_of_one_run_never_name_one_place_twice(model: Path, tmp_path: Path) -> None:
    """Delivered and cleaned, or on another node: what cannot be seen from here is not written over on a server."""
    places: list[str] = []
    for number in range(3):
        run = flightlog.init(id="requeued", resume="allow", dir=tmp_path / f"node{number}" / "flightlog")
        if number:
            run._keeper._alone = False
        log(run, model, number)
        run.finish()
        places += [p.relative_to(run.dir).as_posix() for p in run.dir.rglob("model.bin")]
    assert len(set(places)) == 3 and places[0] == "files/artifacts/model/v0/files/model.bin"


@pytest.mark.parametrize(
    "wrong",
    [{"keep_last": 0}, {"keep_last": -1}, {"keep_last": True}, {"keep_last": "2"}, {"keep_best": "loss"},
     {"keep_best": ("loss",)}, {"keep_best": ("loss", "least")}, {"keep_best": ("loss", "min", 0)},
     {"keep_best": (1, "min")}, {"keep_best": ("a", "min", 1, 2)}],
    ids=str,
)  # fmt: skip
def test_a_rule_that_is_none_is_misuse(model: Path, wrong: dict[str, Any]) -> None:
    """Nothing is made, and above all nothing deleted."""
    with pytest.raises(UsageError, match="keep_"):
        log(flightlog.init(), model, 1, **wrong)


def test_without_a_rule_nothing_is_let_go() -> None:
    """No rule, no deletion."""
    assert checked_rule(None, None) is None


scores = st.one_of(st.floats(allow_nan=True), st.integers(-3, 3), st.none(), st.text(max_size=2), st.booleans())


@example([1, 2], 3, 0, False, set())
@given(st.lists(scores, max_size=8), st.integers(0, 3), st.integers(0, 3), st.booleans(), st.sets(st.integers(0, 7)))
def test_what_a_rule_lets_go(values: list[Any], last: int, best: int, largest: bool, held: set[int]) -> None:
    """Never a protected one, never one of the last, never one better than what stays for being good."""
    versions = [
        Version("a", f"v{i}", state=LOGGED, metadata={} if v is None else {"m": v}) for i, v in enumerate(values)
    ]
    gone = superseded(versions, Rule(last, best, "m", largest), {f"v{i}" for i in held})
    stay = [v for v in versions if v not in gone]
    assert not {int(v.version[1:]) for v in gone} & (held | set(range(len(values) - last, len(values))))
    numbers = [v.metadata["m"] for v in versions if type(v.metadata.get("m")) in (int, float)]
    numbers = sorted((n for n in numbers if abs(n) < float("inf")), reverse=largest)
    kept = [v.metadata.get("m") for v in stay]
    assert all(n in kept for n in numbers[:best])


def test_the_contents_of_a_run_are_without_what_was_let_go(model: Path, journal: JournalOf) -> None:
    """Sync asks for the files of what is still there, whatever the order in which it reads the writers."""
    run = flightlog.init()
    for number in range(3):
        log(run, model, number, keep_last=1)
    run.finish()
    records = journal(run.dir).of("artifact")
    for order in (records, records[::-1]):
        named = Named()
        for record in order:
            named.add_record(record)
        files, ready, faults = named_files(RunDir(run.dir), named)
        assert not faults and len(ready) == 1 and all("/v2/" in path for path in files)
