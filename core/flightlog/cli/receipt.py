"""flightlog receipt: carry a server's proof to a machine that cannot ask it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from .. import keys, settings
from ..client import Patience
from ..errors import DamagedError, FlightlogError, PermanentError, UsageError
from ..protocol.names import checked_name
from ..rundir import RunDir, Unreadable, atomic_write
from ..sync import bundle, receipts
from ..sync.imports import Import, take_in
from ..sync.local import Identity, identify
from ..sync.receipts import Proof, Target
from ..sync.session import find_runs
from ..sync.tidy import Authority, authority
from ..terminal import printable, typed
from .options import json_option, paths_argument, server_option, timeout_of, timeout_option
from .streams import binary_stdout
from .text import counted, print_json
from .unreadable import print_unreadable, unreadable_json

_MOST_LINES = 5


@click.group()
def receipt() -> None:
    """Carry a server's proof of what it holds to a machine that cannot ask it."""


@contextmanager
def _in_words() -> Iterator[None]:
    """Within the block, what the system refuses is an error in words."""
    try:
        yield
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        raise FlightlogError(f"{name}{error.strerror or error}") from None


# -- export ------------------------------------------------------------------------------------------------------------


@receipt.command("export")
@paths_argument
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="The file of receipts; - is stdout.",
)
@server_option
@click.option("--workspace", metavar="NAME", help="The workspace that the runs were delivered to, if not their own.")
@click.option("--project", metavar="NAME", help="The project that they were delivered to, if not their own.")
@timeout_option
@json_option
def export(
    paths: tuple[Path, ...],
    output: Path,
    server: str | None,
    workspace: str | None,
    project: str | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Ask the server what it holds of the runs in PATHS (bundles, runs, folders of runs), and write that down.

    The exit status is 0 when there is a receipt for each, 1 when the server lacks one or a run cannot be read, 2 when
    there is no (valid) API key or a path is no run.
    """
    to_stdout = str(output) == "-"
    if to_stdout and as_json:
        raise UsageError("--json and -o - both want stdout")
    if to_stdout:
        binary_stdout()
    for what, name in (("workspace", workspace), ("project", project)):
        if name is not None:
            checked_name(what, name)
    wanted, faults, unreadable = _wanted(paths)
    chosen = keys.choose_server(settings.load(), server)
    key = keys.find_key(chosen)
    with authority(chosen.origin, key, Patience(timeout_of(timeout))) as asked:
        proofs, missing = _collected(wanted, asked, workspace, project)
    _write(output, receipts.dump(proofs))
    if as_json:
        listed = [_proof_json(p) for p in proofs] + [{**_identity_json(i), "error": why} for i, why in missing]
        listed += [{**_identity_json(None), "error": why} for why in faults]
        facts = {"server": chosen.origin, "file": str(output), "runs": listed}
        print_json({**facts, "unreadable": unreadable_json(unreadable)})
    else:
        print_unreadable(unreadable)
        for why in [*faults, *(f"{identity.name}: {why}" for identity, why in missing)]:
            click.echo(f"failed     {printable(why)}", err=True)
        shown = "stdout" if to_stdout else printable(str(output))
        click.echo(f"{counted(len(proofs), 'receipt')} of {chosen.origin} in {shown}", err=to_stdout)
        if proofs and not to_stdout:
            click.echo(f"where the runs were recorded:  flightlog receipt import {printable(typed(output.name))}")
    click.get_current_context().exit(1 if missing or faults or unreadable else 0)


def _wanted(paths: Sequence[Path]) -> tuple[list[tuple[Identity, RunDir | None]], list[str], list[Unreadable]]:
    """Return the runs of these paths, with their directories where they lie on this disk; what is the matter with those
    of which nobody knows which runs they are; and the folders that may hide more."""
    found: list[tuple[Identity, RunDir | None]] = []
    faults: list[str] = []
    unreadable: list[Unreadable] = []
    others = [path for path in paths if not bundle.is_bundle(path)]
    for path in paths:
        if path not in others:
            with _in_words():
                found += [(identity, None) for identity in bundle.identities(path.resolve())]
    if others or not paths:
        directories, unreadable = find_runs(others)
        for directory in directories:
            try:
                found.append((identify(directory), directory))
            except DamagedError as error:
                faults.append(str(error))
    return found, faults, unreadable


def _collected(
    wanted: Sequence[tuple[Identity, RunDir | None]], asked: Authority, workspace: str | None, project: str | None
) -> tuple[list[Proof], list[tuple[Identity, str]]]:
    proofs: dict[tuple[str, str], Proof] = {}
    missing = []
    for identity, directory in wanted:
        target = asked.target(directory, identity)
        target = Target(workspace or target.workspace, project or target.project, target.id)
        try:
            found = asked.receipt(target)
        except PermanentError as error:
            if error.status not in (404, 410):
                raise
            where = f"{target.workspace}/{target.project}/{target.id}"
            missing.append((identity, f"{asked.origin} has no {where} (any more): flightlog sync"))
            continue
        key = (identity.id, identity.project)
        proofs[key] = Proof(*key, asked.origin, asked.server_id, target, found)
    return list(proofs.values()), missing


def _write(output: Path, content: bytes) -> None:
    try:
        if str(output) == "-":
            stdout = binary_stdout()
            stdout.write(content)
            stdout.flush()
        elif output.exists() and not output.is_file():
            output.write_bytes(content)
        else:
            atomic_write(output, content)
    except BrokenPipeError:
        raise
    except OSError as error:
        shown = "stdout" if str(output) == "-" else str(output)
        raise FlightlogError(f"{shown} cannot be written: {error.strerror or error}") from None


def _identity_json(identity: Identity | None) -> dict[str, Any]:
    if identity is None:
        return {"id": None, "project": None, "name": None}
    return {"id": identity.id, "project": identity.project, "name": identity.name}


def _proof_json(proof: Proof) -> dict[str, Any]:
    target = proof.target
    return {
        "id": proof.id,
        "project": proof.project,
        "target": f"{target.workspace}/{target.project}/{target.id}",
        "writers": len(proof.receipt.writers),
        "files": len(proof.receipt.files),
        "error": None,
    }


# -- import ------------------------------------------------------------------------------------------------------------


@receipt.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@paths_argument
@json_option
def import_(file: Path, paths: tuple[Path, ...], as_json: bool) -> None:
    """Take in the receipts of FILE, and say of each run at or below PATHS whether they prove all of it.

    Nothing is deleted; `flightlog clean` does that, and reads the disk once more. The exit status is 0 when every run
    that has a receipt is proven, 1 when one is not (it has grown since, say), when a folder cannot be searched, or the
    file is damaged.
    """
    proofs = receipts.load(file)
    directories, unreadable = find_runs(paths)
    with _in_words():
        results, elsewhere = take_in(proofs, directories)
    if as_json:
        shown = {"runs": [_import_json(r) for r in results], "elsewhere": [_proof_json(p) for p in elsewhere]}
        print_json({**shown, "unreadable": unreadable_json(unreadable)})
    else:
        print_unreadable(unreadable)
        for result in results:
            _print_import(result)
        for proof in elsewhere:
            click.echo(f"elsewhere  {printable(proof.id)} of {printable(proof.project)}: no such run below here")
        proven = sum(r.proven for r in results)
        click.echo(f"{proven} of {counted(len(results), 'run')} proven" + ("; flightlog clean" if proven else ""))
    click.get_current_context().exit(0 if all(r.proven for r in results) and not unreadable else 1)


def _print_import(result: Import) -> None:
    name = printable(result.identity.name)
    if result.proven:
        click.echo(f"proven     {name}: {result.proof.origin} holds everything that is on this disk")
        return
    click.echo(f"not proven {name}: {printable(result.missing[0])}")
    for line in result.missing[1:_MOST_LINES]:
        click.echo(f"           {printable(line)}")
    if len(result.missing) > _MOST_LINES:
        click.echo(f"           … and {len(result.missing) - _MOST_LINES} more (--json lists all)")


def _import_json(result: Import) -> dict[str, Any]:
    return {
        "path": str(result.directory.path),
        **_identity_json(result.identity),
        "server": result.proof.origin,
        "proven": result.proven,
        "missing": result.missing,
    }
