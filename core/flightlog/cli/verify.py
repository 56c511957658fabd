"""flightlog verify: look over recorded runs on this disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..sync.session import find_runs
from ..terminal import printable
from ..verify import Verdict
from ..verify import verify as look
from .text import print_json, size_text
from .unreadable import print_unreadable, unreadable_json


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Make latest.spec again from the journal; nothing is ever deleted.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def verify(paths: tuple[Path, ...], repair: bool, as_json: bool) -> None:
    """Read the runs at or below PATHS whole; without PATHS, all below this folder.

    Says of each what is there, what is torn (a dying process's half line; nothing acknowledged is lost), and what is
    corrupt: file, line, missing seq, changed file. The exit status is 0 when all are sound and 1 when one is damaged
    or cannot be looked at.
    """
    verdicts = []
    runs, unreadable = find_runs(paths, blank=True)
    for directory in runs:
        verdict = look(directory, repair=repair)
        verdicts.append(verdict)
        if not as_json:
            _print(verdict)
    if as_json:
        print_json({"runs": [_as_json(v) for v in verdicts], "unreadable": unreadable_json(unreadable)})
    else:
        print_unreadable(unreadable)
        if not verdicts:
            click.echo("no runs below this folder")
    click.get_current_context().exit(0 if all(v.sound for v in verdicts) and not unreadable else 1)


def _print(verdict: Verdict) -> None:
    fold = verdict.fold
    records = sum(r.records for r in verdict.writers.values())
    journal = sum(r.bytes for r in verdict.writers.values())
    word = "sound  " if verdict.sound else "damaged"
    writers = f"{len(verdict.writers)} writer{'s' * (len(verdict.writers) != 1)}"
    files = f", {verdict.files:,} files of {size_text(verdict.bytes)}" if verdict.files else ""
    click.echo(f"{word}  {verdict.directory.path}")
    if fold.id:
        name = printable(str(fold.identity.get("name") or fold.id))
        click.echo(f"         {name} of {printable(str(fold.project))}: {writers}, {records:,} records, ", nl=False)
        click.echo(f"{size_text(journal)}, {fold.step:,} steps{files}")
    for line in verdict.faults:
        click.echo(f"         {printable(line)}")
    for line in verdict.notes:
        click.echo(f"         ({printable(line)})")


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "path": str(verdict.directory.path),
        "id": verdict.fold.id,
        "project": verdict.fold.project,
        "sound": verdict.sound,
        "state": verdict.fold.state,
        "steps": verdict.fold.step,
        "files": verdict.files,
        "bytes": verdict.bytes,
        "repaired": verdict.repaired,
        "faults": verdict.faults,
        "notes": verdict.notes,
        "writers": {
            name: {
                "records": report.records,
                "last_seq": report.last_seq,
                "bytes": report.bytes,
                "missing": [list(r) for r in report.missing],
                "damage": [{"path": str(d.path), "line": d.line, "reason": d.reason} for d in report.damage],
                "torn": [{"path": str(d.path), "line": d.line, "reason": d.reason} for d in report.torn],
            }
            for name, report in verdict.writers.items()
        },
    }
