"""Scripts as people write them for wandb, run with `import flightlog as wandb` and nothing else changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog import Api, UsageError
from flightlog.wandb_names import NAMES, Settings, init_arguments

Script = Callable[..., Any]

MNIST = """
import argparse
import torch
import torch.nn as nn
import torch.nn.functional as F
import flightlog as wandb

torch.manual_seed(0)
torch.set_num_threads(1)
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4 * 6 * 6, 10)
    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return F.log_softmax(self.fc(x.flatten(1)), dim=1)

def batches():
    for _ in range(4):
        target = torch.randint(0, 10, (16,))
        data = torch.zeros(16, 1, 14, 14)
        for i, t in enumerate(target):
            data[i, 0, t:t + 3] = 1
        yield data, target

wandb.login()
wandb.init(project="mnist", entity="me", config=args, settings=wandb.Settings(start_method="thread", console="off"))
config = wandb.config
model = Net()
wandb.watch(model, log="all", log_freq=2)
optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
for epoch in range(config.epochs):
    model.train()
    for data, target in batches():
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        wandb.log({"loss": loss.item(), "epoch": epoch})
    model.eval()
    with torch.no_grad():
        data, target = next(batches())
        guess = model(data).argmax(1)
        wandb.log({
            "accuracy": (guess == target).float().mean(),
            "examples": [wandb.Image(d, caption=f"{g} ({t})") for d, g, t in zip(data[:3], guess, target)],
        })
torch.save(model, "whole.pt")
torch.load("whole.pt", weights_only=False)(torch.zeros(1, 1, 14, 14))
torch.save(model.state_dict(), "model.h5")
wandb.save("model.h5")
wandb.run.summary["best_accuracy"] = 0.5
wandb.unwatch(model)
model(data)
wandb.termlog(f"view it at {wandb.run.get_url()}, {wandb.run.path}, {wandb.run.dir}")
wandb.finish()
"""


def the_run(tmp_path: Path, project: str) -> Any:
    (run,) = Api(tmp_path / "flightlog").runs(project)
    assert run.state == "finished"
    return run


def test_a_loop_of_pytorch_with_watch(script: Script, tmp_path: Path) -> None:
    """Histograms of every gradient and parameter at every second batch; the model is pickled and none of it breaks."""
    pytest.importorskip("torch")
    done = script(MNIST, "--epochs", "2")
    run = the_run(tmp_path, "mnist")
    assert run.config == {"epochs": 2, "lr": 0.1} and run.workspace == "me" and run.summary["best_accuracy"] == 0.5
    assert [row["_step"] for row in run.history(["loss"])] == [0, 1, 2, 3, 5, 6, 7, 8]
    seen: dict[str, list[int]] = {}
    for entry in run.media():
        if entry["type"] == "histogram":
            assert sum(entry["counts"]) > 0
            seen.setdefault(entry["key"], []).append(entry["step"])
    names = ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]
    assert set(seen) == {f"{what}/{name}" for what in ("gradients", "parameters") for name in names}
    assert all(steps == [1, 3, 6, 8] for steps in seen.values()), seen
    assert [e["caption"] for e in run.media() if e["key"] == "examples"] != []
    assert len(run.file("saved/model.h5")) > 1000 and f"view it at None, mnist/{run.id}" in done.stderr
    assert "Traceback" not in done.stderr and "warning" not in done.stderr, done.stderr


SKLEARN = """
import numpy as np
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split
import flightlog as wandb

X, y = make_classification(400, 6, n_informative=4, n_classes=3, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
labels = ["a", "b", "c"]
run = wandb.init(project="forest", config={"n_estimators": 20}, reinit=True, anonymous="allow")
model = RandomForestClassifier(n_estimators=run.config["n_estimators"], random_state=0).fit(X_train, y_train)
y_pred, y_probas = model.predict(X_test), model.predict_proba(X_test)
wandb.sklearn.plot_classifier(model, X_train, X_test, y_train, y_test, y_pred, y_probas, labels,
                              model_name="RandomForest", feature_names=[f"f{i}" for i in range(6)])
wandb.sklearn.plot_learning_curve(model, X_train, y_train)
wandb.sklearn.plot_learning_curve(model, X_train, y_train)
wandb.sklearn.plot_regressor(LinearRegression().fit(X_train, y_train), X_train, X_test, y_train, y_test)
wandb.log({"roc2": wandb.plot.roc_curve(y_test, y_probas, labels=labels),
           "cm2": wandb.plot.confusion_matrix(probs=y_probas, y_true=y_test, class_names=labels),
           "by_hand": wandb.plot_table("wandb/scatter/v0", wandb.Table(columns=["a", "b"], data=[[1, 2]]),
                                       {"x": "a", "y": "b"}, {"title": "t"}),
           "own": wandb.plot_table("me/own", wandb.Table(columns=["a"], data=[[1]]), {"x": "a"})})
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
expected = (accuracy_score(y_test, y_pred), *(s(y_test, y_pred, average="weighted")
            for s in (f1_score, precision_score, recall_score)))
print(*map(float, expected))
run.finish()
"""


def test_a_script_of_scikit_learn(script: Script, tmp_path: Path) -> None:
    """Every chart of plot_classifier and plot_regressor, scikit-learn's own numbers, what is missing named once."""
    pytest.importorskip("sklearn")
    done = script(SKLEARN)
    run = the_run(tmp_path, "forest")
    charts = {entry["key"]: entry.get("plot", entry["type"]) for entry in run.media()}
    assert charts == {
        "feature_importances": "bar", "class_proportions": "bar", "confusion_matrix": "confusion_matrix",
        "roc": "roc_curve", "precision_recall": "pr_curve", "residuals": "scatter", "roc2": "roc_curve",
        "cm2": "confusion_matrix", "by_hand": "scatter", "own": "table",
    }  # fmt: skip
    accuracy, f1, precision, recall = map(float, done.stdout.split())
    expected = {"accuracy_score": accuracy, "f1_score": f1, "precision": precision, "recall": recall}
    assert {key: run.summary[key] for key in expected} == pytest.approx(expected)
    assert done.stderr.count("plot_learning_curve() has no counterpart") == 1 and "LearningCurveDisplay" in done.stderr
    assert done.stderr.count("plot_table('me/own')") == 1 and "Traceback" not in done.stderr


TABLES = """
import numpy as np
import flightlog as wandb

rng = np.random.default_rng(0)
run = wandb.init(project="media", job_type="eval", tags=["eval"], mode="offline")
classes = wandb.Classes([{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}])
table = wandb.Table(columns=["image", "text", "score"], allow_mixed_types=True)
for i in range(4):
    position = {"minX": 0.1, "maxX": 0.4, "minY": 0.2, "maxY": 0.9}
    boxes = {"predictions": {"box_data": [{"position": position, "class_id": i % 2}]}}
    table.add_data(wandb.Image(rng.random((8, 8, 3)), boxes=boxes, classes=classes), f"row {i}", i / 3)
run.log({"table": table, "audio": wandb.Audio(np.sin(np.arange(800)), sample_rate=800),
         "video": wandb.Video(np.zeros((3, 3, 8, 8), dtype=np.uint8), fps=4, format="gif"),
         "html": wandb.Html("<b>x</b>"), "hist": wandb.Histogram(rng.random(100)), "loss": 1.0,
         "cloud": wandb.Object3D(rng.random((10, 3))), "molecule": wandb.Molecule("x.pdb"),
         "cloud2": wandb.Object3D.from_numpy(rng.random((10, 3)))})
artifact = wandb.Artifact("predictions", type="predictions")
artifact.add(table, "table")
artifact["picture"] = wandb.Image(np.zeros((4, 4)))
run.log_artifact(artifact)
artifact.wait()
print(artifact.version, len(artifact.digest), run.entity, run.sweep_id, run.project_name(), run.url, run.offline)
assert run.link_artifact(artifact, "registry") is None and run.link_artifact(artifact, "registry") is None
again = run.use_artifact("predictions:latest").get("table")
for number, row in again.iterrows():
    assert row[1] == f"row {number}" and isinstance(row[0], wandb.Image), row
run.log({"again": again})
wandb.log_artifact(artifact, aliases=None)
run.log_code(".", include_fn=lambda path: path.endswith(".py"))
wandb.alert("done", "all of it", wandb.AlertLevel.INFO)
wandb.join() if hasattr(wandb, "join") else wandb.finish()
"""


def test_tables_and_media(script: Script, tmp_path: Path) -> None:
    """What has a form is kept, what has none costs its key with a line on what to use; tables go through artifacts."""
    (tmp_path / "helper.py").write_text("x = 1\n")
    (tmp_path / "notes.md").write_text("no code\n")
    done = script(TABLES)
    run = the_run(tmp_path, "media")
    kinds = {entry["key"]: entry["type"] for entry in run.media()}
    assert kinds == {
        "table": "table", "audio": "audio", "video": "video", "html": "html", "hist": "histogram", "again": "table"
    }  # fmt: skip
    assert run.history()[0]["loss"] == 1.0 and done.stdout.split() == [
        "v0",
        "64",
        "None",
        "None",
        "media",
        "None",
        "True",
    ]
    for key in ("cloud", "cloud2", "molecule"):
        assert done.stderr.count(f"log(): {key} is left out") == 1
    assert "keep the file with log_artifact()" in done.stderr and done.stderr.count("run.link_artifact()") == 1
    code = {entry["path"] for entry in run.provenance()["files"]}
    assert code == {"code/helper.py", "code/script.py"}, code
    assert "Traceback" not in done.stderr


CHAIN = """
import json, os, sys
import flightlog as wandb

def make():
    with wandb.init(project="chain", job_type="data", id=wandb.util.generate_id()) as run:
        os.makedirs("raw/sub", exist_ok=True)
        for name in ("raw/a.json", "raw/sub/b.json"):
            with open(name, "w") as file:
                json.dump({"name": name}, file)
        raw = wandb.Artifact("raw", type="dataset", description="raw data", metadata={"files": 2})
        raw.add_dir("raw")
        raw.add_file("raw/a.json", name="copy.json", is_tmp=True)
        raw.add_reference("https://example.org/x", name="x", checksum=False)
        with raw.new_file("made.txt", mode="w") as file:
            file.write("made")
        run.log_artifact(raw, aliases=["latest", "clean"])

def train():
    run = wandb.init(project="chain", job_type="train")
    raw = run.use_artifact("raw:clean", type="dataset")
    folder = raw.download(root="data")
    assert sorted(os.listdir(folder)) == ["a.json", "copy.json", "made.txt", "sub"], os.listdir(folder)
    path = raw.get_path("sub/b.json").download()
    assert json.load(open(path)) == {"name": "raw/sub/b.json"} and raw.get_entry("a.json").size == 22
    assert raw.metadata["files"] == 2 and raw.get("nothing") is None
    with open("model.bin", "wb") as file:
        file.write(b"weights")
    model = wandb.Artifact(f"model-{run.project}", type="model")
    model.add_file("model.bin")
    logged = run.log_artifact(model)
    logged.wait()
    assert model.version == logged.version == "v0" and not logged.digest == ""
    wandb.log_model("model.bin", name="other", aliases=["best"])
    assert open(run.use_model("other:best"), "rb").read() == b"weights"
    run.finish()

def evaluate():
    run = wandb.init(project="chain", job_type="eval")
    model = run.use_artifact("me/chain/model-chain:latest")
    assert open(model.file(), "rb").read() == b"weights"
    fresh = wandb.Artifact("fresh", type="x")
    fresh.add_file("model.bin")
    assert run.use_artifact(fresh).digest == model.digest
    run.finish()

make(); train(); evaluate()
"""


def test_a_chain_of_artifacts(script: Script, tmp_path: Path) -> None:
    """Data, training, evaluation, each a run; folders, files by name, versions, and who used what."""
    from flightlog.artifacts import Lineage

    done = script(CHAIN)
    assert "Traceback" not in done.stderr
    runs = Api(tmp_path / "flightlog").runs("chain")
    lineage = Lineage(tmp_path / "flightlog")
    evaluated, trained, made = runs
    assert [use.name for use in lineage.inputs_of(evaluated.id)] == ["model-chain", "fresh"]
    assert [(use.name, use.made_by) for use in lineage.inputs_of(trained.id)] == [
        ("raw", made.id), ("other", trained.id),
    ]  # fmt: skip


CONFIG = """
import argparse, dataclasses, types
import flightlog as wandb

@dataclasses.dataclass
class Optimizer:
    lr: float = 0.1
    betas: tuple = (0.9, 0.99)

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--layers", type=int, nargs="+", default=[1, 2])
args = parser.parse_args()
args.optimizer = Optimizer()
args.data = argparse.Namespace(path="x", nested=types.SimpleNamespace(size=3))
wandb.init(project="config", config=args, name="first", group="g", notes="n", save_code=True,
           settings={"unheard_of": 1})
wandb.config.update({"lr": 0.2}, allow_val_change=True)
wandb.config["batch"] = 32
wandb.config.setdefaults({"batch": 1, "seed": 7})
wandb.define_metric("epoch")
wandb.define_metric("val/*", step_metric="epoch", summary="min")
for epoch in range(3):
    wandb.log({"val/loss": 1.0 / (epoch + 1), "epoch": epoch}, step=epoch)
assert wandb.run.config.lr == 0.2 and wandb.run.config.batch == 32
wandb.run.name = "renamed"
wandb.mark_preempting()
wandb.setup(); wandb.require("core")
try:
    raise wandb.Error("x")
except wandb.Error:
    wandb.termwarn("caught", repeat=False); wandb.termwarn("caught", repeat=False); wandb.termerror("error")
wandb.finish(exit_code=0, quiet=True)
"""


def test_config_with_argparse(script: Script, tmp_path: Path) -> None:
    """Nested namespaces and dataclasses are kept; settings that mean nothing are named; definitions hold."""
    done = script(CONFIG, "--lr", "0.5")
    run = the_run(tmp_path, "config")
    assert run.config == {
        "lr": 0.2, "layers": [1, 2], "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]},
        "data": {"path": "x", "nested": {"size": 3}}, "batch": 32, "seed": 7,
    }  # fmt: skip
    assert run.name == "renamed" and run.group == "g" and run.notes == "n"
    assert run.summary["val/loss"] == pytest.approx(1 / 3)
    assert done.stderr.count("'unheard_of'") == 1 and done.stderr.count("caught") == 1 and "error: error" in done.stderr


def test_every_name_is_there_and_none_needs_a_framework() -> None:
    """Asked for without a run, each is something; what is no name is an AttributeError still."""
    for name in NAMES:
        assert getattr(flightlog, name) is getattr(flightlog, name) is not None
    assert not hasattr(flightlog, "no_such_name")
    flightlog.wandb_names.find("sklearn")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no_such_plot"):
        getattr(flightlog.sklearn, "no_such_plot")  # type: ignore[attr-defined]  # noqa: B009
    assert isinstance(flightlog.Settings(mode="offline"), dict)  # type: ignore[attr-defined]


def test_settings_are_arguments_of_init(tmp_path: Path) -> None:
    """By wandb's names or ours; init()'s own arguments win; a key in them goes nowhere."""
    assert init_arguments(
        Settings(
            mode="disabled", entity="w", root_dir="d", run_name="n", console="redirect", x_disable_stats=True,
            disable_code=True, api_key="secret", init_timeout=3, run_id=None,
        )
    ) == {
        "mode": "disabled", "workspace": "w", "dir": "d", "name": "n", "console": "fd", "system_interval": 0,
        "save_code": False,
    }  # fmt: skip
    run = flightlog.init("p", settings=Settings(project="q", run_tags=["a"], root_dir=str(tmp_path / "r")), name="mine")
    assert (run.project, run.name, run.tags, run.dir.parent) == ("p", "mine", ("a",), tmp_path / "r")
    assert flightlog.init(settings={"mode": "disabled"}).recording is False
    with pytest.raises(UsageError, match="settings"):
        flightlog.init(settings=3)


def test_login_keeps_no_strangers_key_and_asks_nobody(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A wandb key is neither kept nor sent; ours is kept for the server that the user has named, and for no other."""
    from flightlog import keys

    assert flightlog.login() is False  # type: ignore[attr-defined]
    assert flightlog.login("0" * 40) is False and keys.default_server() is None  # type: ignore[attr-defined]
    assert "no key of a flightlog server" in capfd.readouterr().err
    assert flightlog.login("fl_a_b", host="http://example.org") is False  # type: ignore[attr-defined]
    Path("flightlog.toml").write_text('base_url = "https://stranger.example"\n')
    assert flightlog.login("fl_a_b") is False and keys.default_server() is None  # type: ignore[attr-defined]
    assert "flightlog login" in capfd.readouterr().err
    assert flightlog.login("fl_a_b", host="https://host.example") is True  # type: ignore[attr-defined]
    assert keys.stored("https://host.example") == "fl_a_b"


def test_watch_takes_modules_only_and_counts_batches() -> None:
    """Misuse is said; sparse gradients, parameters without any, several models, evaluation; copies are silent."""
    torch = pytest.importorskip("torch")
    import copy

    run = flightlog.init("p")
    for wrong in (lambda: run.watch(3), lambda: run.watch(torch.nn.Linear(1, 1), log="x"), lambda: run.watch(None)):
        with pytest.raises(UsageError, match="watch"):
            wrong()
    with pytest.raises(UsageError, match="log_freq"):
        run.watch(torch.nn.Linear(1, 1), log_freq=0)
    embedding, linear = torch.nn.Embedding(5, 2, sparse=True), torch.nn.Linear(2, 1)
    linear.bias.requires_grad = False
    run.watch([embedding, linear], log="all", log_freq=1)
    run.watch([embedding, linear], log="all", log_freq=1)  # anew, not twice
    clone = copy.deepcopy(linear)
    linear(embedding(torch.tensor([1, 1, 3]))).sum().backward()
    clone(torch.zeros(1, 2)).sum().backward()
    linear.eval()
    with torch.no_grad():
        linear(torch.zeros(1, 2))
    run.log({"loss": 1})
    run.finish()
    linear.train()
    linear(torch.zeros(1, 2)).sum().backward()  # after the end: no hook is left
    found = [(entry["key"], entry["step"]) for entry in Api(run.dir).runs()[0].media()]
    keys = {key for key, _ in found}
    assert len(found) == len(keys) == 5 and all(step == 0 for _, step in found), found
    assert keys == {
        "gradients/model2.weight", "gradients/model3.weight", "parameters/model2.weight", "parameters/model3.weight",
        "parameters/model3.bias",
    }  # fmt: skip
    with flightlog.init("p", mode="disabled") as off:
        off.watch(linear)
        off.unwatch()
        off.log_code()
        assert off.path == f"p/{off.id}" and off.disabled


def test_a_run_knows_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where server and workspace are known; `path` is what Api finds it by."""
    run = flightlog.init("a b", workspace="lab")
    assert run.url is None
    monkeypatch.setenv("FLIGHTLOG_BASE_URL", "https://host.example")
    assert run.url == run.get_url() == f"https://host.example/lab/a%20b/runs/{run.id}"
    assert Api(run.dir).run(run.path).id == run.id
    with pytest.raises(AttributeError, match="nothing_such"):
        run.nothing_such  # noqa: B018
