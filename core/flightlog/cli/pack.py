"""flightlog pack: put runs into one file, for a machine that never sees a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from ..errors import DamagedError, FlightlogError, UsageError
from ..rundir import RunDir
from ..sync import bundle, state
from ..sync.bundle import PackedRun
from ..sync.session import find_runs, folder_of
from ..terminal import printable, typed
from .options import json_option, paths_argument
from .progress import bars, has_bars
from .streams import binary_stdout
from .text import counted, print_json, size_text
from .unreadable import print_unreadable, unreadable_json

_MOST_LINES = 20


@click.command()
@paths_argument
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="The bundle; .tar.zst is compressed, - is stdout.",
)
@click.option("--include-synced", is_flag=True, help="Also those of the runs that have been delivered.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@json_option
@click.option("--quiet", is_flag=True, help="Print only what went wrong.")
def pack(paths: tuple[Path, ...], output: Path, include_synced: bool, force: bool, as_json: bool, quiet: bool) -> None:
    """Put the pending runs at or below PATHS into one file, and each that PATHS name; without PATHS, all pending ones.

    Carry the file to a machine that sees the server, and `flightlog sync FILE` there. Runs that are still being
    recorded go in as far as they are. The exit status is 0 when all is in, 1 when something is not, 2 when the command
    was wrong or a path is no run, 3 when part of it is damaged.
    """
    to_stdout = str(output) == "-"
    if to_stdout and as_json:
        raise UsageError("--json and -o - both want stdout")
    if to_stdout and binary_stdout().isatty():
        raise UsageError("a bundle is nothing for a terminal; name a file with -o")
    found, unreadable = find_runs(paths)
    runs, failed = _looked_at(_chosen(found, paths, include_synced))
    if runs:
        _write(runs, output, force, quiet or as_json)
    size = output.stat().st_size if runs and not to_stdout and output.is_file() else 0
    if as_json:
        listed = [*map(_as_json, runs), *failed]
        bundled = str(output) if runs else None
        print_json({"bundle": bundled, "bytes": size, "runs": listed, "unreadable": unreadable_json(unreadable)})
    else:
        print_unreadable(unreadable)
        if runs or failed:
            _print(runs, failed, output, size, quiet)
        elif not quiet:
            click.echo("nothing to pack: no pending runs (--include-synced takes delivered ones, too)", err=to_stdout)
    damaged = any(run.faults for run in runs)
    click.get_current_context().exit(1 if failed or unreadable else 3 if damaged else 0)


def _chosen(runs: Sequence[RunDir], paths: Sequence[Path], include_synced: bool) -> list[RunDir]:
    """Return the runs to pack: those that are named themselves, and of the others the pending ones."""
    named = set(map(folder_of, paths))
    return [run for run in runs if include_synced or run.path in named or not _is_delivered(run)]


def _is_delivered(directory: RunDir) -> bool:
    """Tell whether some server had all of a run when it was last asked."""
    return any(
        known.gone or not state.is_pending(directory, origin, known.server_id)
        for origin, known in state.load(directory).items()
    )


def _looked_at(directories: Sequence[RunDir]) -> tuple[list[PackedRun], list[dict[str, Any]]]:
    runs: list[PackedRun] = []
    failed: list[dict[str, Any]] = []
    taken: set[str] = set()
    for directory in directories:
        try:
            runs.append(bundle.look(directory, taken))
        except (DamagedError, OSError) as error:
            words = f"{directory.path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            failed.append({"path": str(directory.path), "id": None, "status": "failed", "error": words})
    return runs, failed


def _write(runs: Sequence[PackedRun], output: Path, force: bool, silent: bool) -> None:
    try:
        with _opened(output, force) as out:
            if silent or not has_bars():
                bundle.write(runs, out)
                return
            with bars() as drawn:
                task = drawn.add_task(f"packing {counted(len(runs), 'run')}", total=sum(run.bytes for run in runs))
                bundle.write(runs, out, lambda size: drawn.advance(task, size))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FlightlogError(f"{_called(output)} cannot be written: {error.strerror or error}") from None


def _called(output: Path) -> str:
    return "stdout" if str(output) == "-" else str(output)


@contextmanager
def _opened(output: Path, force: bool) -> Iterator[IO[bytes]]:
    if str(output) == "-":
        stdout = binary_stdout()
        yield stdout
        stdout.flush()
        return
    with bundle.opened_for_writing(output, replace=force) as out:
        yield out


def _print(runs: Sequence[PackedRun], failed: Sequence[dict[str, Any]], output: Path, size: int, quiet: bool) -> None:
    to_stderr = str(output) == "-"
    for run in runs:
        if not quiet:
            amount = f"{counted(len(run.files), 'file')}, {size_text(run.bytes)}"
            click.echo(f"packed     {printable(run.identity.name)}: {amount}", err=to_stderr)
        elif run.faults:
            click.echo(f"damaged    {printable(run.identity.name)}", err=True)
        for fault in run.faults[:_MOST_LINES]:
            click.echo(f"           {printable(fault)}", err=True)
        if len(run.faults) > _MOST_LINES:
            click.echo(f"           … and {len(run.faults) - _MOST_LINES} more (--json lists all)", err=True)
    for each in failed:
        click.echo(f"failed     {printable(each['error'])}", err=True)
    if runs and not quiet:
        shown = printable(_called(output))
        written = f", {size_text(size)}" if size else ""
        click.echo(f"{counted(len(runs), 'run')} in {shown}{written}", err=to_stderr)
        if not to_stderr:
            click.echo(f"where the server can be reached:  flightlog sync {printable(typed(output.name))}")


def _as_json(run: PackedRun) -> dict[str, Any]:
    return {
        "path": str(run.directory.path),
        "id": run.identity.id,
        "project": run.identity.project,
        "name": run.identity.name,
        "status": "damaged" if run.faults else "packed",
        "folder": run.folder,
        "files": len(run.files),
        "bytes": run.bytes,
        "faults": run.faults,
    }
