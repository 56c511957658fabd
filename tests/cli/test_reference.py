"""The reference of the command line is what the commands say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from flightlog.cli import cli

from .reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and those below it, each with what is typed for it."""
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield f"{path} {name}", inner
            yield from commands(inner, f"{path} {name}")


def test_the_page_is_what_the_commands_say() -> None:
    """docs/cli.md is up to date: `python -m tests.cli.reference > docs/cli.md` makes it again."""
    assert PAGE.read_text() == reference(), "python -m tests.cli.reference > docs/cli.md"


def test_every_verb_and_option_has_help_and_stands_on_the_page() -> None:
    """No verb, argument or option is undocumented, and every help is a sentence."""
    sections = {part.partition("\n")[0]: part for part in PAGE.read_text().split("\n## ")[1:]}
    for typed, command in commands(cli, "flightlog"):
        assert command.help and command.help.rstrip().endswith("."), typed
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, (typed, parameter.name)
                for name in parameter.opts:
                    assert f"`{name}`" in sections[typed], (typed, name)


def test_help_is_printed_for_every_verb() -> None:
    """`--help` of each works, and says how it is called."""
    from click.testing import CliRunner

    for typed, _ in commands(cli, "flightlog"):
        done = CliRunner().invoke(cli, [*typed.split()[1:], "--help"])
        assert done.exit_code == 0 and done.output.startswith("Usage:"), (typed, done.output)
