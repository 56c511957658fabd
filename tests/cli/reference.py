"""docs/cli.md, made of what the commands say of themselves: `python -m tests.cli.reference > docs/cli.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from flightlog.cli import cli

HEAD = """# The command line

Every verb and option, as `flightlog VERB --help` says it. (Made by `python -m tests.cli.reference > docs/cli.md`; a
test compares.) What they do together: [delivering](sync.md), [without a network](bundles.md),
[online and live](live.md), [running a server](deployment.md).
"""


def reference() -> str:
    """Return the page."""
    context = click.Context(cli, info_name="flightlog")
    parts = [HEAD]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if command is not None and "flightlog" in str(getattr(command.callback, "__module__", "")):
            parts += _sections(command, click.Context(command, parent=context, info_name=name))
    return "\n".join(parts)


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    yield _section(command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _sections(inner, click.Context(inner, parent=context, info_name=name))


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join(["flightlog", *_path(context), *_arguments(command)])
    lines = [f"## {' '.join(['flightlog', *_path(context)])}", "", f"    {usage}", "", _prose(command.help or ""), ""]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if options:
        lines += ["| Option | |", "|-|-|", *(_row(option) for option in options), ""]
    return "\n".join(lines)


def _path(context: click.Context) -> list[str]:
    names = []
    at: click.Context | None = context
    while at is not None and at.parent is not None:
        names.append(str(at.info_name))
        at = at.parent
    return names[::-1]


def _arguments(command: click.Command) -> Iterator[str]:
    yield "[OPTIONS]"
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            name = str(parameter.name).upper()
            shown = f"{name}..." if parameter.nargs == -1 else name
            yield shown if parameter.required else f"[{shown}]"
    if isinstance(command, click.Group):
        yield "COMMAND"


def _prose(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def _row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    value = "" if option.is_flag or option.count else f" `{option.metavar or option.type.name.upper()}`"
    default = f" Default: {option.default}." if option.show_default and not option.is_flag else ""
    return f"| {names}{value} | {_prose(option.help or '')}{default} |".replace("\n", " ")


if __name__ == "__main__":
    print(reference(), end="")
