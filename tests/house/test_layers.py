"""The house holds: the layers that import-linter guards, and what the core may cost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "integrations", "server")


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over a copy of the house."""
    code = (
        "import sys; sys.path[:0] = [f'{sys.argv[1]}/{room}' for room in ('core', 'integrations', 'server')];"
        "from importlinter.cli import lint_imports_command; sys.argv[1:] = ['--no-cache']; lint_imports_command()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(root)], cwd=root, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources and of the contracts."""
    copy = tmp_path_factory.mktemp("house")
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def test_the_contracts_hold(house: Path) -> None:
    """The sources as they stand break no contract."""
    done = lint_imports(house)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("place", "planted"),
    [
        ("core/flightlog/redact.py", "import flightlog_server.app"),
        ("core/flightlog/redact.py", "import flightlog_keras"),
        ("core/flightlog/journal/reader.py", "import torch"),
        ("server/flightlog_server/accounts.py", "import flightlog_lightning"),
        ("integrations/flightlog_keras/__init__.py", "import flightlog_server"),
        ("integrations/flightlog_keras/__init__.py", "import flightlog_transformers"),
        ("core/flightlog/journal/writer.py", "import flightlog.cli"),
    ],
)
def test_a_planted_violation_is_found(house: Path, place: str, planted: str) -> None:
    """An import against the arrows breaks a contract, and the linter says so by its exit status."""
    path = house / place
    before = path.read_text()
    try:
        path.write_text(f"{before}\n\ndef _planted() -> None:\n    {planted}\n")
        done = lint_imports(house)
        assert done.returncode != 0
        assert "BROKEN" in done.stdout
    finally:
        path.write_text(before)


def test_the_core_depends_on_little() -> None:
    """The core's dependencies are the few that DESIGN names, or fewer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {d.split(">")[0].split(";")[0].strip() for d in project["dependencies"]}
    assert names <= {"orjson", "requests", "click", "rich", "psutil", "zstandard", "pyfastcdc", "nvidia-ml-py", "tomli"}


def test_importing_flightlog_loads_nothing_heavy() -> None:
    """`import flightlog` loads no third-party package but orjson."""
    code = (
        "import sys; before = set(sys.modules); import flightlog;"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"flightlog", "orjson"}
