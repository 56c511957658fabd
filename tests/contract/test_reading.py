"""flightlog.Api says the same of a run whether it is read from its directory or from a server."""

from __future__ import annotations

import hashlib
import math
import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog import Api
from flightlog.errors import DamagedError, NotFound, UsageError
from flightlog.reading import RunView

from ..server.tools import begin, line, run_dir
from .conftest import SOURCES, Read, Train

both = pytest.mark.parametrize("source", SOURCES)
PLAIN = (
    *("id", "project", "name", "state", "group", "job_type", "tags", "notes", "host", "command"),
    *("config", "summary", "step", "records", "started_at", "updated_at", "finished_at", "definitions"),
)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same, NaN equal to itself and True not to 1."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def unordered(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its keys sorted: in which order the metrics of a row come is not promised."""
    return dict(sorted(row.items()))


def rows(run: RunView, *names: str) -> list[dict[str, Any]]:
    """History without the times."""
    return [{k: v for k, v in row.items() if k != "_timestamp"} for row in run.history(list(names) or None)]


def compare(local: RunView, remote: RunView) -> None:
    """Hold everything that two views of one run say against each other."""
    for name in PLAIN:
        one, two = getattr(local, name), getattr(remote, name)
        if name in ("config", "summary"):
            one, two = unordered(one), unordered(two)
        assert same(one, two), f"{name}: {one!r} here, {two!r} on the server"
    metrics = sorted({k for row in local.history() for k in row if not k.startswith("_")})
    for names in (None, metrics[:1], metrics[1:3], ["no such metric"], ["_step"], []):
        here, there = local.history(names), remote.history(names)
        assert len(here) == len(there), names
        for one, two in zip(here, there, strict=True):
            assert same(unordered(one), unordered(two)), f"{one!r} here, {two!r} on the server"
    assert same([unordered(m) for m in local.media()], [unordered(m) for m in remote.media()])
    assert [unordered(a) for a in local.alerts()] == [unordered(a) for a in remote.alerts()]


@both
def test_a_run_is_described(source: str, place: Path, read: Read, train: Train) -> None:
    """Who it is, how it stands, config and summary, with every kind of value."""
    train("""
        import flightlog
        config = {"lr": 1e-3, "layers": [64, 32], "opt": {"name": "adam", "eps": float("nan")}, "none": None,
                  "on": True, "text": "NaN", "big": 2**53 + 1, "limit": float("inf")}
        with flightlog.init(project="digits", name="first try", id="abc", config=config, tags=["a", "b"], notes="n",
                            group="g", job_type="train") as run:
            run.log({"loss": 0.5, "bad": float("nan"), "word": "-Infinity", "flag": False, "nothing": None})
            run.log({"loss": 0.25, "low": float("-inf")}, step=41)
            run.config.update({"later": float("-inf")})
            run.summary["best"] = float("inf")
    """)
    (run,) = read(source).runs()
    assert (run.id, run.project, run.name, run.state) == ("abc", "digits", "first try", "finished")
    assert (run.group, run.job_type, run.tags, run.notes) == ("g", "train", ("a", "b"), "n")
    assert run.host == socket.gethostname() and run.command[0].rpartition("/")[2].startswith("python")
    assert same(run.config.pop("opt"), {"name": "adam", "eps": math.nan})
    assert run.config.pop("text") == "NaN", "a text that reads like a number stays one"
    assert run.config == {
        "lr": 1e-3,
        "layers": [64, 32],
        "none": None,
        "on": True,
        "big": 2**53 + 1,
        "limit": math.inf,
        "later": -math.inf,
    }
    assert run.config["on"] is True
    assert math.isnan(run.summary.pop("bad"))
    assert run.summary == {
        "loss": 0.25,
        "word": "-Infinity",
        "flag": False,
        "nothing": None,
        "low": -math.inf,
        "best": math.inf,
    }
    assert run.step == 42 and run.records >= 6
    assert run.started_at is not None and run.finished_at is not None
    assert run.started_at <= run.finished_at <= (run.updated_at or 0)


@both
def test_history_gives_every_value_back(source: str, read: Read, train: Train) -> None:
    """Numbers that JSON lacks, texts like them, booleans, large integers, None, lists; in order of step."""
    train("""
        import flightlog, math
        with flightlog.init(project="p") as run:
            run.log({"a": 1.5, "n": math.nan, "i": math.inf, "m": -math.inf})
            run.log({"a": 2, "text": "NaN", "flag": True, "none": None, "list": [1, 2.5, math.nan]})
            run.log({"large": 2**63 - 1, "larger": 2**64 - 1, "small": -2**63, "exact": 2**53 + 1})
            run.log({"a": 7.0}, step=-3)
            run.log({"a": 8.0}, step=10**12)
            run.log({"a": 9.0}, step=5)
            run.log({"a": 10.0, "b": 1}, step=5)
            run.log({"b": 2}, step=5)
            run.log({}, step=6)
    """)
    (run,) = read(source).runs()
    expected: list[dict[str, Any]] = [
        {"_step": -3, "a": 7.0},
        {"_step": 0, "a": 1.5, "n": math.nan, "i": math.inf, "m": -math.inf},
        {"_step": 1, "a": 2, "text": "NaN", "flag": True, "none": None, "list": [1, 2.5, math.nan]},
        {"_step": 2, "large": 2**63 - 1, "larger": 2**64 - 1, "small": -(2**63), "exact": 2**53 + 1},
        {"_step": 5, "a": 10.0, "b": 2},
        {"_step": 6},
        {"_step": 10**12, "a": 8.0},
    ]
    found = rows(run)
    assert len(found) == len(expected)
    for row, want in zip(found, expected, strict=True):
        assert same(unordered(row), unordered(want)), (row, want)
    assert [r["_step"] for r in run.scan_history()] == [r["_step"] for r in expected]
    assert rows(run, "b") == [{"_step": 5, "b": 2}]
    assert [unordered(r) for r in rows(run, "a", "b")] == [
        *({"_step": -3, "a": 7.0}, {"_step": 0, "a": 1.5}, {"_step": 1, "a": 2}),
        *({"_step": 5, "a": 10.0, "b": 2}, {"_step": 10**12, "a": 8.0}),
    ]
    times = [row["_timestamp"] for row in run.history()]
    assert all(isinstance(t, float) for t in times)


@both
def test_runs_by_project_and_id(source: str, read: Read, train: Train) -> None:
    """The newest start first; by project; by id with and without the project; what is not there is NotFound."""
    train("""
        import flightlog
        for project, name in (("a", "r1"), ("b", "r2"), ("a", "r3")):
            flightlog.init(project=project, id=name).finish()
    """)
    api = read(source)
    assert [r.id for r in api.runs()] == ["r3", "r2", "r1"]
    assert [r.id for r in api.runs("a")] == ["r3", "r1"] and api.runs("none") == []
    assert api.run("r2").project == "b" and api.run("b/r2").id == "r2" and api.run("r2", project="b").id == "r2"
    for missing in ("nothing", "a/r2", "..", "a/..", "r2%2f..", ""):
        with pytest.raises(NotFound):
            api.run(missing)
    for missing in ("a/model:latest", "none/model:v0"):
        with pytest.raises(NotFound):
            api.artifact(missing)
    for wrong in ("model", "model:v0", "a/b/c:v0", "/model", "a/"):
        with pytest.raises(UsageError):
            api.artifact(wrong)


@both
def test_states(source: str, place: Path, read: Read, train: Train) -> None:
    """finished, failed by exit code and by exception, and crashed where a process ended without a word."""
    train("""
        import flightlog, os, subprocess, sys
        flightlog.init(project="p", id="finished").finish()
        flightlog.init(project="p", id="failed").finish(exit_code=3)
        try:
            with flightlog.init(project="p", id="raised"):
                raise ValueError("no")
        except ValueError:
            pass
        subprocess.run([sys.executable, "-c", "import flightlog, os; "
                        "flightlog.init(project='p', id='crashed').log({'a': 1}); os._exit(9)"])
    """)
    api = read(source)
    states = {r.id: r.state for r in api.runs()}
    assert states == {"finished": "finished", "failed": "failed", "raised": "failed", "crashed": "crashed"}
    assert api.run("crashed").finished_at is None


@both
def test_a_resumed_run_is_one_run(source: str, place: Path, read: Read, train: Train) -> None:
    """The second process goes on where the first ended; what it logs at an old step is the later value."""
    train("""
        import flightlog, os
        run = flightlog.init(project="p", id="again", config={"lr": 1, "kept": True})
        for i in range(5):
            run.log({"loss": i})
        run.finish(exit_code=1)
    """)
    train("""
        import flightlog
        with flightlog.init(project="p", id="again", resume="must", config={"lr": 2}) as run:
            assert run.step == 5
            run.log({"loss": 50})
            run.log({"loss": -3}, step=3)
    """)
    run = read(source).run("again")
    assert rows(run) == [{"_step": s, "loss": v} for s, v in enumerate([0, 1, 2, -3, 4, 50])]
    assert run.state == "finished" and run.config == {"lr": 2, "kept": True} and run.summary["loss"] == -3


@both
def test_forked_children_write_to_the_same_run(source: str, place: Path, read: Read, train: Train) -> None:
    """Every process' values are there; the run ends when its own process ends it."""
    train("""
        import flightlog, os
        run = flightlog.init(project="p", id="forked")
        run.log({"parent": 1})
        children = []
        for n in range(3):
            pid = os.fork()
            if pid == 0:
                for step in range(10):
                    run.log({f"child{n}": step, "shared": n}, step=step)
                run.finish()
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        run.log({"parent": 2, "shared": "last"}, step=20)
        run.finish()
    """)
    run = read(source).run("forked")
    found = rows(run)
    assert [r["_step"] for r in found] == [*range(10), 20]
    assert all(r[f"child{n}"] == r["_step"] for r in found[:-1] for n in range(3))
    assert run.state == "finished" and run.summary["parent"] == 2 and run.summary["shared"] == "last"


@both
def test_media_and_files(source: str, read: Read, train: Train) -> None:
    """Entries in order of step, and the bytes behind them; a path that leads elsewhere is no file."""
    train("""
        import flightlog, numpy
        with flightlog.init(project="p", id="pictures") as run:
            run.log({"sample": flightlog.Image(numpy.full((4, 6, 3), 200, "uint8"), caption="späte")}, step=3)
            run.log({"sample": flightlog.Image(numpy.zeros((2, 2), "uint8"))}, step=1)
            run.log({"two": [flightlog.Image(numpy.full((2, 3), n, "uint8")) for n in (1, 2)]}, step=2)
            run.log({"words": "x" * 100_000}, step=4)
    """)
    run = read(source).run("pictures")
    media = run.media()
    assert [(m["key"], m["step"]) for m in media] == [
        ("sample", 1),
        ("two", 2),
        ("two", 2),
        ("sample", 3),
        ("words", 4),
    ]
    assert media[3]["caption"] == "späte" and (media[3]["width"], media[3]["height"]) == (6, 4)
    for entry in media:
        content = run.file(entry["path"])
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["size"], entry["sha256"])
    assert run.file(media[4]["path"]) == b"x" * 100_000
    for path in (
        "",
        "media",
        "nothing.png",
        "../latest.spec",
        "../metrics",
        "/etc/passwd",
        f"media/../{media[0]['path']}",
        "a\0",
    ):
        with pytest.raises(NotFound):
            run.file(path)


@both
def test_an_artifact_is_downloaded_as_it_was(
    source: str, place: Path, read: Read, train: Train, tmp_path: Path
) -> None:
    """Versions, aliases, metadata; a folder with empty, nested and oddly named files; files in the way are replaced."""
    train("""
        import flightlog, os, pathlib
        folder = pathlib.Path("weights")
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "empty").write_bytes(b"")
        (folder / "deep" / "er" / "a b#?%.bin").write_bytes(bytes(range(256)) * 9000)
        (folder / "ünï").write_bytes(b"unicode")
        with flightlog.init(project="digits", id="maker") as run:
            run.log_artifact(folder, name="model", type="weights", aliases=["best"], metadata={"f1": 0.5})
            (folder / "ünï").write_bytes(b"changed")
            run.log_artifact(folder, name="model", type="weights")
    """)
    api = read(source)
    first, last = api.artifact("digits/model:best"), api.artifact("digits/model")
    assert (first.version, last.version, last.aliases, first.aliases) == ("v0", "v1", ("latest",), ("best",))
    assert api.artifact("digits/model:v0").digest == first.digest != last.digest
    assert (first.name, first.type, first.metadata, first.run) == ("model", "weights", {"f1": 0.5}, "maker")
    assert first.size == 256 * 9000 + 7 == sum(f.size for f in first.files)
    target = tmp_path / "here"
    target.mkdir()
    (target / "empty").write_text("in the way")
    assert first.download(target) == target
    found = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert found == {"empty": b"", "deep/er/a b#?%.bin": bytes(range(256)) * 9000, "ünï": b"unicode"}
    assert (last.download(tmp_path / "other") / "ünï").read_bytes() == b"changed"
    for wrong in ("digits/model:v7", "digits/model:nothing", "digits/other:latest", "other/model:latest"):
        with pytest.raises(NotFound):
            api.artifact(wrong)


@both
def test_what_an_artifact_says_of_itself(source: str, place: Path, read: Read, train: Train, tmp_path: Path) -> None:
    """Description, metadata, references with and without size, its project; a version without them has none."""
    train("""
        import flightlog
        from flightlog.artifacts import Artifact
        artifact = Artifact("set", "dataset", "scanned, für später", {"rows": 3, "none": None, "deep": {"a": [1, 2.5]}})
        with artifact.new_file("a.txt") as file:
            file.write("a")
        artifact.add_reference("s3://bucket/raw.tar?x=1", "raw.tar", size=5, sha256="0" * 64)
        artifact.add_reference("https://host/y", "there/y")
        with flightlog.init(project="digits") as run:
            run.log_artifact(artifact)
            open("b", "w").close()
            run.log_artifact("b", name="bare")
    """)
    api = read(source)
    found, bare = api.artifact("digits/set"), api.artifact("digits/bare")
    assert (found.project, found.type, found.description) == ("digits", "dataset", "scanned, für später")
    assert found.metadata == {"rows": 3, "none": None, "deep": {"a": [1, 2.5]}}
    assert [(r.path, r.uri, r.size, r.sha256) for r in found.references] == [
        ("raw.tar", "s3://bucket/raw.tar?x=1", 5, "0" * 64),
        ("there/y", "https://host/y", -1, ""),
    ]
    assert bare.description is None and bare.references == () and bare.metadata == {}
    assert [p.name for p in found.download(tmp_path / "x").iterdir()] == ["a.txt"]


@both
def test_an_artifact_of_many_files(source: str, place: Path, read: Read, train: Train, tmp_path: Path) -> None:
    """Small ones, empty ones and larger ones between them, some of the same content: each as it was."""
    train(f"""
        import flightlog, pathlib, random
        chance = random.Random({SEED})
        folder = pathlib.Path("many")
        for number in range(700):
            file = folder / f"{{chance.randrange(9)}}" / f"{{number:03d}}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(chance.randbytes(chance.choice([0, 1, 700, 5000])) if number % 5 else b"same")
        (folder / "4" / "large").write_bytes(chance.randbytes(9 << 20))
        with flightlog.init(project="p") as run:
            run.log_artifact(folder, name="many")
    """)
    version = read(source).artifact("p/many")
    target = version.download(tmp_path / "here")
    found = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    folder = place / "many"
    assert len(found) == 701 == len(version.files)
    assert found == {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@both
def test_a_download_never_leaves_its_folder(source: str, read: Read, train: Train, tmp_path: Path) -> None:
    """A link that stands in the target folder is not followed."""
    train("""
        import flightlog, pathlib
        pathlib.Path("w/sub").mkdir(parents=True)
        pathlib.Path("w/sub/file").write_bytes(b"new")
        with flightlog.init(project="p") as run:
            run.log_artifact("w", name="model")
    """)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"precious")
    target = tmp_path / "target"
    target.mkdir()
    (target / "sub").symlink_to(outside)
    with pytest.raises(DamagedError):
        read(source).artifact("p/model").download(target)
    assert (outside / "file").read_bytes() == b"precious"


@both
def test_an_empty_source(source: str, read: Read) -> None:
    """No runs is a list without runs."""
    api = read(source)
    assert api.runs() == [] and api.runs("p") == []
    with pytest.raises(NotFound):
        api.run("x")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """NotFound names it."""
    with pytest.raises(NotFound, match="nowhere"):
        Api(tmp_path / "nowhere")


SEED = int(os.environ.get("FLIGHTLOG_TEST_SEED", "20261123"))


def random_guide(kind: str, data: dict[str, Any], writers: list[str], chance: random.Random) -> dict[str, Any]:
    """The data of a record that says how others are to be seen; of any other, what it was."""
    if kind == "rewind":
        named = {chance.choice([*writers, "unknown"]): chance.randint(0, 14) for _ in range(2)}
        return {"step": chance.randint(-2, 6), "writers": named}
    if kind == "define":
        summary = chance.sample(["min", "max", "last", "best", "none"], chance.randint(0, 2))
        return {
            "name": chance.choice(["a", "b", "[cd]", "*"]),
            "summary": summary,
            "goal": chance.choice(["minimize", 3]),
        }
    return {"title": "t", "level": "INFO"} if kind == "alert" else data


def random_run(place: Path, run_id: str, chance: random.Random) -> None:
    """A run of several writers with clocks of their own, forks, resumes, endings, and records of all kinds."""
    writers: dict[str, list[bytes]] = {}
    values: list[Any] = [0, 1, -1.5, 2**60, True, "x", None, 1e300, [1]]
    for number in range(chance.randint(1, 4)):
        name = f"{chance.randrange(16**6):06x}"
        clock = 1_700_000_000.0 + chance.randint(-3, 3)
        set_back = chance.random() < 0.3
        parents = {other: chance.randint(1, len(lines)) for other, lines in writers.items() if chance.random() < 0.6}
        config = {chance.choice("abc"): number}
        role = chance.choice([{}, {}, {"launch": "L1"}, {"launch": "L1", "rank": number}, {"forked": True}])
        who = {"id": run_id, "project": "p", "name": run_id, "config": config, "parents": parents, **role}
        first = line(1, "run", who, t=clock)
        lines = [first]
        for seq in range(2, chance.randint(3, 14)):
            # A clock set back is told by the values' own times only, so nothing else comes between in such a writer.
            clock += chance.choice([0.0, 0.0, 0.25, 1.0, -0.5 if set_back and seq > 2 else 0.5])
            data: Any = {chance.choice("abcd"): chance.choice(values) for _ in range(chance.randint(0, 3))}
            others = ["config", "summary", "heartbeat", "unheard_of", "define", "rewind", "preempting", "alert"]
            kind = chance.choice(["log"] * 8 + ([] if set_back else others))
            data = random_guide(kind, data, [*writers, name], chance)
            step = chance.randint(-2, 6) if kind == "log" else None
            lines.append(line(seq, kind, data, step=step, t=clock))
        if chance.random() < 0.4:
            data = {"state": chance.choice(["finished", "failed", "preempted"]), "exit_code": 0}
            data.update(chance.choice([{}, {}, {"closes_run": False}, {"closes_run": False, "rank": number}]))
            lines.append(line(len(lines) + 1, "finish", data, t=clock + chance.choice([0.0, 2.0])))
        writers[name] = lines
    run_dir(place / f"run-{run_id}", run_id, writers, finished=False)
    (place / f"run-{run_id}" / "latest.spec").unlink()


def test_random_runs_of_several_writers_read_the_same(place: Path, read: Read) -> None:
    """Whatever clocks, parents, steps and endings: both sources agree on everything, also when delivered bit by bit."""
    chance = random.Random(SEED)
    for number in range(20):
        random_run(place, f"r{number:02d}", chance)
    # Begin with half of every journal, so that the server meets the writers in pieces.
    whole = {path: path.read_bytes() for path in place.rglob("*.jsonl")}
    for path, content in whole.items():
        lines = content.splitlines(keepends=True)
        path.write_bytes(b"".join(lines[: max(1, chance.randint(0, len(lines)))]))
    read("server")
    for path, content in whole.items():
        path.write_bytes(content)
    remote, local = read("server"), read("local")
    here, there = ({run.id: run for run in api.runs()} for api in (local, remote))
    assert here.keys() == there.keys()
    for name, run in here.items():
        try:
            compare(run, there[name])
        except AssertionError as error:
            raise AssertionError(f"seed {SEED}, run {name}: {error}") from error


def test_records_that_no_view_can_use_are_passed_over(place: Path, read: Read) -> None:
    """Sound lines of console, system and alert whose data nest without end, or are no objects: the others are read."""
    deep: Any = {"text": "x"}
    for _ in range(200):
        deep = {"deeper": deep}
    lines = [
        begin("odd"),
        line(2, "console", {"stream": "stdout", "lines": [[1, "one"]]}),
        line(3, "console", deep),
        line(4, "system", deep),
        line(5, "system", {"cpu": 1.5}),
        line(6, "console", [1, 2]),
        line(7, "console", {"stream": "stdout", "lines": [[2, "two"]]}),
    ]
    run_dir(place / "run-odd", "odd", {"w": lines})
    for source in ("local", "server"):
        run = read(source).run("odd")
        assert run.console() == ["one", "two"] and [row["cpu"] for row in run.system()] == [1.5], source
        assert run.provenance() == {}


def test_a_long_history_comes_in_pages(place: Path, read: Read) -> None:
    """More rows than a page holds, steps backwards: each row once, in order."""
    lines = [begin("long"), *(line(seq, step=25_000 - seq) for seq in range(2, 23_000))]
    run_dir(place / "run-long", "long", {"w": lines})
    local, remote = read("local").run("long"), read("server").run("long")
    assert [r["_step"] for r in remote.scan_history()] == sorted(25_000 - seq for seq in range(2, 23_000))
    assert local.history() == remote.history()


def test_the_source_is_the_environments_without_an_argument(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Api() reads what is recorded here."""
    monkeypatch.setenv("FLIGHTLOG_DIR", str(place / "flightlog"))
    flightlog.init(project="p", id="mine").finish()
    assert [run.id for run in Api().runs()] == ["mine"]
