"""The command line: one file per verb, loaded when it is used.

Exit codes: 0 done; 1 something failed; 2 the command was wrong, or there is no (valid) API key; 3 delivered, but part
of the local data is damaged; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from importlib.metadata import entry_points

import click

from ..errors import AuthError, FlightlogError, KeyNeeded, NotFound, SettingsError, UsageError
from ..terminal import printable, without_keys
from . import streams

_VERBS = {
    "sync": "Deliver recorded runs to a server.",
    "status": "Show what is pending, and what blocks it.",
    "clean": "Delete from this disk what a server has proven to hold.",
    "pack": "Put runs into one file, for machines without a network.",
    "receipt": "Carry a server's proof to a machine that cannot ask it.",
    "verify": "Look over recorded runs: what is there, torn, corrupt.",
    "login": "Keep an API key for a server.",
    "logout": "Forget the API key of a server.",
    "whoami": "Show which account the stored key belongs to.",
    "mode": "Show in which mode runs are recorded here, and why.",
    "online": "Let the runs of a folder be delivered while they are recorded.",
    "offline": "Let the runs of a folder be recorded only, and delivered later.",
    "disabled": "Let the runs of a folder not be recorded at all.",
}
# Verbs that share a file.
_FILES = {"online": "mode", "offline": "mode", "disabled": "mode"}


class _Verbs(click.Group):
    """Our own verbs by name, other rooms' by the entry-point group `flightlog.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_VERBS, *sorted(e.name for e in entry_points(group="flightlog.commands"))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _VERBS:
            module = importlib.import_module(f".{_FILES.get(cmd_name, cmd_name)}", __name__)
            command = getattr(module, cmd_name)
            assert isinstance(command, click.Command)
            return command
        for entry in entry_points(group="flightlog.commands", name=cmd_name):
            command = entry.load()
            assert isinstance(command, click.Command)
            return command
        return None


def _extra(package: str) -> str:
    """Return which of our extras brings a package that a verb of another room needs."""
    return "demo" if package in ("sklearn", "PIL") else "server"


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        import flightlog

        click.echo(flightlog.__version__)
        ctx.exit()


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """flightlog: the flight recorder for ML training."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    with contextlib.suppress(OSError):
        streams.prepare()
    status = _status(arguments)
    if fault := streams.fault():
        click.echo(f"flightlog: {fault}", err=True)
        status = status or 1
    sys.exit(status)


def _status(arguments: list[str] | None) -> int:
    """Run the command line and return its exit code."""
    try:
        # Outside of its standalone mode click returns the status of `Context.exit` instead of raising it.
        status = cli.main(arguments, prog_name="flightlog", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("flightlog: interrupted; what was done stays done", err=True)
        return 130
    except (KeyNeeded, AuthError, UsageError, NotFound, SettingsError) as error:
        click.echo(f"flightlog: {printable(without_keys(str(error)))}", err=True)
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("flightlog") or package in sys.stdlib_module_names:
            raise
        click.echo(f"flightlog: this needs the package {package}: pip install 'flightlog[{_extra(package)}]'", err=True)
        return 1
    except FlightlogError as error:
        click.echo(f"flightlog: {printable(without_keys(str(error)))}", err=True)
        return 1
    except BrokenPipeError:
        sys.stdout = None  # nobody reads any more; python would complain at its exit
        return 1
