"""The integration that docs/integrations.md shows how to write: it is as short as the page says, and it works."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import flightlog
from flightlog.reading import Api
from flightlog.reading.views import RunView

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:xgboost")
def test_the_printed_integration_records_keeps_and_resumes(tmp_path: Path, only_run: Callable[[], RunView]) -> None:
    """The callback for XGBoost has less than 50 lines; its training, gone on with from a saved model, is one run."""
    pytest.importorskip("xgboost")
    (source,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (callback,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    assert callback.end_lineno is not None and callback.end_lineno - callback.lineno < 50
    exec(compile(source, str(PAGE), "exec"), {"__name__": "__main__"})
    flightlog.finish()
    view = only_run()
    rows = list(view.history())
    assert view.state == "finished" and view.project == "trees"
    assert [row["_step"] for row in rows if "test/mlogloss" in row] == list(range(15))
    assert all("perf/steps_per_second" in row for row in rows)
    assert view.config["learner_model_param"]["num_class"] == "10"
    best = Api("flightlog").artifact(f"trees/model-{view.id}:best")
    assert best.metadata["step"] == 14 and "latest" in best.aliases
