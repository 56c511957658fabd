"""What came of a sync, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..sync.clean import Cleaned
from ..sync.session import Planned, Report, Result
from ..terminal import printable, without_keys
from .text import counted, size_text

_MOST_LINES = 20


class Shown:
    """Prints results.

    Args:
        quiet: only what went wrong.
        bundles: where bundles were unpacked, and what they are called: paths in there mean nothing to anybody.
    """

    def __init__(self, quiet: bool, bundles: Mapping[Path, Path] | None = None) -> None:
        self._quiet = quiet
        self._bundles = bundles or {}

    def words(self, text: str) -> str:
        """Return a text that may name paths of an unpacked bundle as it is to be shown."""
        return printable(without_keys(self._located(text)))

    def _located(self, text: str) -> str:
        for place, bundle in self._bundles.items():
            text = text.replace(f"{place}/", f"{bundle}: ")
        return text

    def result(self, result: Result) -> None:
        """Print what came of a run."""
        name = self.name(result)
        if result.gone:
            if not self._quiet:
                click.echo(
                    f"gone       {name}: deleted on the server; it stays here (--restore-deleted sends it again)"
                )
        elif result.error:
            click.echo(f"failed     {name}: {self.words(result.error)}", err=True)
        elif result.outcome is not None:
            self._outcome(result, name)
        elif result.cleaned is not None and not self._quiet:
            click.echo(f"up to date {name}: another sync has delivered it meanwhile, and cleaned it here")

    def name(self, result: Result) -> str:
        return printable(result.identity.name if result.identity else result.directory.path.name)

    def _outcome(self, result: Result, name: str) -> None:
        outcome = result.outcome
        assert outcome is not None
        if not self._quiet:
            word = "delivered " if outcome.complete else "damaged   "
            running = "" if outcome.identity.ended else ", still running" if outcome.alive else ", never finished"
            click.echo(
                f"{word} {name}: {outcome.records:,} records ({outcome.records_sent:,} new){running}  "
                f"{printable(outcome.url)}"
            )
        elif outcome.faults:
            click.echo(f"damaged    {name}", err=True)
        for fault in outcome.faults[:_MOST_LINES]:
            click.echo(f"           {self.words(fault)}", err=True)
        if len(outcome.faults) > _MOST_LINES:
            click.echo(f"           … and {len(outcome.faults) - _MOST_LINES} more (--json lists all)", err=True)
        if result.cleaned is not None:
            print_cleaned(result.cleaned, str(result.directory.path), self._quiet)

    def summary(self, report: Report) -> None:
        """Print the last line."""
        count = {status: sum(r.status == status for r in report.results) for status in _STATUSES}
        if count["up to date"] == len(report.results):
            which = "the one run" if len(report.results) == 1 else f"all {len(report.results):,} runs"
            click.echo(f"nothing to sync: {report.origin} has {which} below here")
            return
        parts = [f"{count['delivered']} delivered to {report.origin} as {printable(report.account)}"]
        words = {"damaged": "damaged", "up to date": "up to date", "gone": "deleted on the server", "failed": "failed"}
        parts += [f"{count[status]} {word}" for status, word in words.items() if count[status]]
        click.echo(", ".join(parts))

    def as_json(self, result: Result) -> dict[str, Any]:
        """Return what came of a run for programs."""
        outcome, cleaned = result.outcome, result.cleaned
        shown: dict[str, Any] = {
            "path": self._located(str(result.directory.path)),
            "id": result.identity.id if result.identity else None,
            "project": result.identity.project if result.identity else None,
            "name": result.identity.name if result.identity else None,
            "status": result.status.replace(" ", "_"),
            "error": self._located(result.error) if result.error else None,
            "retryable": result.retryable,
        }
        if outcome is not None:
            shown.update(
                workspace=outcome.workspace,
                url=outcome.url,
                records=outcome.records,
                records_sent=outcome.records_sent,
                bytes_sent=outcome.bytes_sent,
                faults=[self._located(fault) for fault in outcome.faults],
            )
        if cleaned is not None:
            shown["cleaned"] = cleaned_json(cleaned)
        return shown

    def plan(self, planned: Sequence[Planned], origin: str) -> None:
        """Print what a sync would do."""
        waiting = [p for p in planned if p.pending and not p.error]
        for each in planned:
            name = printable(each.identity.name if each.identity else each.directory.path.name)
            if each.error:
                click.echo(f"would fail {name}: {self.words(each.error)}", err=True)
            elif each.pending and each.identity is not None and not self._quiet:
                there = printable(f"{each.workspace}/{each.identity.project}/{each.identity.id}")
                click.echo(f"would send {name}: up to {size_text(each.bytes)}, to {there}")
        if not self._quiet:
            total = size_text(sum(p.bytes for p in waiting))
            known = sum(not p.pending and not p.gone and not p.error for p in planned)
            gone = sum(p.gone for p in planned)
            click.echo(
                f"{counted(len(waiting), 'run')} of up to {total} would go to {origin}; nothing was sent"
                + (f", {known} up to date" if known else "")
                + (f", {gone} deleted there" if gone else "")
            )

    def plan_json(self, planned: Planned) -> dict[str, Any]:
        """Return what a sync would do with a run for programs."""
        identity = planned.identity
        status = (
            "failed" if planned.error else "gone" if planned.gone else "pending" if planned.pending else "up_to_date"
        )
        return {
            "path": self._located(str(planned.directory.path)),
            "id": identity.id if identity else None,
            "project": identity.project if identity else None,
            "name": identity.name if identity else None,
            "workspace": planned.workspace or None,
            "status": status,
            "bytes": planned.bytes,
            "error": self._located(planned.error) if planned.error else None,
        }


_STATUSES = ("delivered", "up to date", "damaged", "failed", "gone")


def print_cleaned(cleaned: Cleaned, path: str, quiet: bool) -> None:
    """Print what came of cleaning a run."""
    if cleaned.reason:
        click.echo(f"           kept on disk: {printable(cleaned.reason)}", err=quiet)
    elif cleaned.by_another and not quiet:
        click.echo(f"           cleaned by another sync: {printable(path)}")
    elif not quiet:
        click.echo(f"           cleaned: {size_text(cleaned.freed)} freed in {printable(str(cleaned.home or path))}")
    print_kept(cleaned, quiet)


def print_kept(cleaned: Cleaned, quiet: bool) -> None:
    """Print what stays of a run that was cleaned."""
    if cleaned.artifacts and not quiet:
        click.echo(f"           kept on disk: {counted(cleaned.artifacts, 'file')} of artifacts")
    for kept in cleaned.kept[:_MOST_LINES]:
        click.echo(f"           kept on disk, as no record names it: {printable(kept)}", err=quiet)
    if len(cleaned.kept) > _MOST_LINES:
        click.echo(f"           … and {len(cleaned.kept) - _MOST_LINES} more", err=quiet)


def cleaned_json(cleaned: Cleaned) -> dict[str, Any]:
    """Return what came of cleaning a run for programs."""
    return {
        "reason": cleaned.reason,
        "freed": cleaned.freed,
        "kept": cleaned.kept,
        "artifacts": cleaned.artifacts,
        "by_another": cleaned.by_another,
    }
