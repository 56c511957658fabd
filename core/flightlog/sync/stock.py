"""What a run directory holds, read anew: the one thing that a receipt is held against before anything is deleted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..beneath import open_beneath
from ..contents import Named, named_files
from ..errors import DamagedError
from ..journal.reader import WriterReport, writer_folders
from ..protocol.digest import JournalDigest
from ..protocol.manifest import FileEntry
from ..protocol.messages import Receipt, WriterState, format_ranges
from ..protocol.names import is_writer
from ..rundir import RunDir
from .local import Identity, lines_of

_BLOCK = 4 << 20
Advance = Callable[[int], None]


@dataclass(slots=True)
class Stock:
    """What a run directory held from `began` on.

    Attributes:
        directory, identity: which run it is.
        began: when reading began, UTC seconds; what has changed since shows by its time.
        journal: by writer and segment, the bytes that were read.
        writers: by name, the last seq and the digest.
        files: by path below `files/`, size and SHA-256 of what records name and what is as it was recorded.
        faults: what is damaged or missing, a sentence each: with any, nothing is proven.
    """

    directory: RunDir
    identity: Identity
    began: float = field(default_factory=time.time)
    journal: dict[str, dict[str, int]] = field(default_factory=dict)
    writers: dict[str, WriterState] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def take_stock(directory: RunDir, identity: Identity, advance: Advance = lambda size: None) -> Stock:
    """Read a run directory whole: every line of its journals, every byte of the files that they name.

    Args:
        directory, identity: the run. advance: told the bytes that have been read.

    Raises:
        OSError: its journal cannot be looked into.
    """
    stock, named = Stock(directory, identity), Named()
    stock.journal = directory.journal_sizes()
    for folder in writer_folders(directory.journal):
        if folder.name not in stock.journal:
            continue
        if not is_writer(folder.name):
            stock.faults.append(f"{folder} has a name that no writer has")
            continue
        digest, report = JournalDigest(), WriterReport(folder.name)
        last = 0
        try:
            for line in lines_of(folder, report, stock.journal[folder.name]):
                named.add(line)
                digest.add(line.seq, line.raw)
                advance(len(line.raw))
                last = line.seq
        except DamagedError as error:
            stock.faults.append(str(error))
        stock.writers[folder.name] = WriterState(last, digest.upto(last), list(report.missing))
        stock.faults.extend(str(damage) for damage in report.damage)
        stock.faults.extend(f"{folder}: seq {format_ranges([r])} cannot be read" for r in report.missing)
    for name, seq in identity.writers.items():
        here = stock.writers[name].last if name in stock.writers else 0
        if here < seq:
            stock.faults.append(
                f"{directory.journal / name} ends at seq {here}; latest.spec says that it went to {seq}"
            )
    entries, _, faults = named_files(directory, named)
    stock.faults.extend(faults)
    for entry in entries.values():
        _take_file(stock, entry, advance)
    return stock


def _take_file(stock: Stock, entry: FileEntry, advance: Advance) -> None:
    where = stock.directory.files / entry.path
    whole, size = hashlib.sha256(), 0
    try:
        with open_beneath(stock.directory.files, entry.path) as file:
            while block := file.read(_BLOCK):
                whole.update(block)
                size += len(block)
                advance(len(block))
    except OSError as error:
        stock.faults.append(f"{where}: {error.strerror or error}")
        return
    if (size, whole.hexdigest()) != (entry.size, entry.sha256):
        stock.faults.append(f"{where} is not what was recorded: it has changed since")
        return
    stock.files[entry.path] = (entry.size, entry.sha256)


def lacking(stock: Stock, receipt: Receipt) -> list[str]:
    """Return what of a stock a receipt does not prove, a sentence each; nothing where it proves all of it."""
    faults = list(stock.faults)
    for name, here in stock.writers.items():
        there = receipt.writers.get(name)
        if there is None:
            if here.last:
                faults.append(f"it does not name writer {name}, which has {here.last:,} records here")
        elif there.lost:
            faults.append(f"it lacks seq {format_ranges(there.lost)} of writer {name}")
        elif there.last < here.last:
            faults.append(f"writer {name} has {here.last - there.last:,} records more here")
        elif there.last > here.last:
            faults.append(f"it holds more of writer {name} than this copy, and so cannot speak of it")
        elif there.digest != here.digest:
            faults.append(f"it holds other records of writer {name} than this copy")
    missing = [path for path, facts in stock.files.items() if not receipt.holds(path, facts)]
    faults.extend(f"it does not name {path} as it is here" for path in missing[:20])
    if len(missing) > 20:
        faults.append(f"nor {len(missing) - 20:,} more files")
    return faults
