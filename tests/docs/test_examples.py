"""What the documentation prints is what happens: its examples are run, its commands and variables exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from flightlog import settings
from flightlog.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return [code for lang, code in _BLOCK.findall(page.read_text()) if lang == language]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_examples_run_in_order_as_printed(page: Path, tmp_path: Path) -> None:
    """Every Python block of a page runs as it stands, in one folder, each as a script of its own."""
    if page.name == "format.md":  # the page describes a run that must be there
        subprocess.run([sys.executable, "-c", blocks(ROOT / "README.md", "python")[1]], cwd=tmp_path, check=True)
    for number, code in enumerate(blocks(page, "python"), 1):
        script = tmp_path / f"example_{number}.py"
        script.write_text(code)
        done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{page.name}, Python block {number}:\n{code}\n{done.stderr}"


def test_the_reader_in_the_format_page_reads_what_the_recorder_wrote(tmp_path: Path) -> None:
    """The short reader printed in docs/format.md prints every step of the README's wandb script."""
    script = blocks(ROOT / "README.md", "python")[1]
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    (reader,) = blocks(ROOT / "docs" / "format.md", "python")
    done = subprocess.run([sys.executable, "-c", reader], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("log ")] == [
        f"log {i} {{'metric': {i}, 'loss': {10 - i}}}" for i in range(10)
    ]


def test_the_script_for_wandb_leaves_what_the_readme_says(tmp_path: Path) -> None:
    """`import flightlog as wandb` leaves flightlog/latest.spec and flightlog/files/, and the same under latest/."""
    script = blocks(ROOT / "README.md", "python")[1]
    assert "import flightlog as wandb" in script
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    root = tmp_path / "flightlog"
    for place in (root, root / "latest"):
        assert (place / "latest.spec").is_file()
        assert (place / "files" / "journal").is_dir()


def _documented_commands() -> set[tuple[str, ...]]:
    texts = [code for page in PAGES for code in blocks(page, "sh")]
    texts += [ast.get_docstring(ast.parse(path.read_text())) or "" for path in (ROOT / "examples").rglob("*.py")]
    found = set()
    for line in "\n".join(texts).splitlines():
        for command in re.split(r"&&|#|\|", line):
            words = command.split()
            if words[:1] == ["flightlog"]:
                found.add(tuple(words[1:]))
    return found


def test_the_commands_in_the_documentation_exist() -> None:
    """Every `flightlog …` line of documentation and examples names a verb that exists and options that it takes."""
    commands = _documented_commands()
    assert len(commands) >= 5
    for words in sorted(commands):
        command = cli.get_command(click.Context(cli), words[0])
        assert command is not None, words
        if isinstance(command, click.Group) and len(words) > 1 and not words[1].startswith("-"):
            command = command.get_command(click.Context(command), words[1])
            assert command is not None, words
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        assert {w for w in words if w.startswith("--")} <= options, words


def test_every_verb_is_in_the_documentation() -> None:
    """No verb of the command line is undocumented."""
    text = "\n".join(p.read_text() for p in PAGES)
    verbs = cli.list_commands(click.Context(cli))
    assert [v for v in verbs if f"flightlog {v}" not in text and v not in ("logout", "whoami")] == []


def test_every_setting_is_in_the_readme() -> None:
    """Every FLIGHTLOG_* variable that init reads stands in the README's table."""
    readme = (ROOT / "README.md").read_text()
    for variable, _ in settings._VARIABLES.values():
        assert variable in readme or f"`{variable.removeprefix('FLIGHTLOG')}`" in readme, variable


def test_ci_runs_the_readmes_test_command() -> None:
    """.ci/run calls the test command exactly as the README prints it."""
    command = next(c for c in blocks(ROOT / "README.md", "sh") if "pytest" in c).strip()
    assert command in (ROOT / ".ci" / "run").read_text()


def test_links_between_pages_lead_somewhere() -> None:
    """Relative links in the documentation name files that are there."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_leads_to_every_page() -> None:
    """Nothing is written that nobody finds."""
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES[2:] if f"](docs/{page.name}" not in readme] == []
