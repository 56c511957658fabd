"""What is true: run directories read by the format's page alone, and the server's word compared with them.

Nothing of the product reads or hashes here, or a mistake of it would be made on both sides and not be seen. Only the
last comparison, of what people are shown, goes through flightlog.Api.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import flightlog

from ..server.tools import Server

BLOCK = 4096
MAX_LINE = 1 << 20
_BRANCH = re.compile(r"(~[0-9a-f]{8})+$")

Lines = dict[int, bytes]


@lru_cache(maxsize=50_000)  # a scenario looks at the same lines again and again
def check(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line (with its newline) whose CRC fits, not to be changed; None where it is none."""
    body, tail = line[:-19], line[-19:]
    if len(line) > MAX_LINE or tail != b',"crc":"%08x"}\n' % zlib.crc32(body):
        return None
    record: dict[str, Any] = json.loads(line)
    return record


def _record(line: bytes) -> dict[str, Any]:
    record = check(line)
    assert record is not None
    return record


def read_writer(folder: Path, sizes: dict[str, int] | None = None) -> Lines:
    """Return the good lines of a writer by seq, no further than `sizes` says."""
    found: Lines = {}
    for segment in sorted(folder.glob("*.jsonl"), key=lambda p: int(p.stem)):
        content = segment.read_bytes()
        for part in content[: None if sizes is None else sizes.get(segment.name, 0)].split(b"\n")[:-1]:
            record = check(part + b"\n")
            if record is not None:
                found.setdefault(record["seq"], part + b"\n")
    return found


def read_journal(run: Path, sizes: dict[str, dict[str, int]] | None = None) -> dict[str, Lines]:
    """Return the good lines of a run directory by writer and seq."""
    folders = sorted(p for p in (run / "files" / "journal").iterdir() if p.is_dir())
    journal = {p.name: read_writer(p, None if sizes is None else sizes.get(p.name, {})) for p in folders}
    return {name: lines for name, lines in journal.items() if lines}


def sizes_of(run: Path) -> dict[str, dict[str, int]]:
    """Return how large every segment is, by writer."""
    found: dict[str, dict[str, int]] = {}
    for segment in (run / "files" / "journal").glob("*/*.jsonl"):
        found.setdefault(segment.parent.name, {})[segment.name] = segment.stat().st_size
    return found


def holes(lines: Iterable[int]) -> list[tuple[int, int]]:
    """Return the seqs that are missing before the last one, as ranges."""
    found = []
    expected = 1
    for seq in sorted(lines):
        if seq > expected:
            found.append((expected, seq - 1))
        expected = seq + 1
    return found


def digest(lines: Lines) -> str:
    """Return the protocol's digest: SHA-256 per block of 4,096 seqs, then over the block digests."""
    whole = hashlib.sha256()
    for block in range((max(lines, default=0) + BLOCK - 1) // BLOCK):
        part = hashlib.sha256()
        for seq in range(block * BLOCK + 1, (block + 1) * BLOCK + 1):
            part.update(lines.get(seq, b""))
        whole.update(part.digest())
    return whole.hexdigest()


def named_files(run: Path, journal: dict[str, Lines]) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of every file that records name, manifests and what they name included."""
    files: dict[str, tuple[int, str]] = {}
    versions: dict[tuple[str, str], dict[str, Any]] = {}
    for lines in journal.values():
        for seq in sorted(lines):
            record = _record(lines[seq])
            data = record["data"]
            for entry in _entries(record["kind"], data):
                if isinstance(entry, dict) and {"path", "size", "sha256"} <= entry.keys():
                    files[entry["path"]] = (entry["size"], entry["sha256"])
            if record["kind"] == "artifact":
                key = (data.get("name", ""), data.get("version", ""))
                if data["action"] == "log":
                    versions[key] = data
                elif data["action"] in ("damaged", "pruned"):
                    versions.pop(key, None)
    for data in versions.values():
        content = (run / "files" / data["manifest"]).read_bytes()
        files[data["manifest"]] = (len(content), hashlib.sha256(content).hexdigest())
        for entry in json.loads(content)["files"]:
            path = data["manifest"].removesuffix("manifest.json") + "files/" + entry["path"]
            files[path] = (entry["size"], entry["sha256"])
    return files


def _entries(kind: str, data: dict[str, Any]) -> Iterator[Any]:
    if kind == "media":
        for value in data.values():
            yield from value if isinstance(value, list) else [value]
    elif kind == "provenance":
        yield from data.get("files") or []
    elif kind == "artifact":
        yield from data.get("saved") or []


# -- what the server says ----------------------------------------------------------------------------------------------


@dataclass
class There:
    """Everything a server gives out of a run."""

    facts: dict[str, Any]
    receipt: dict[str, Any]
    lines: dict[str, list[bytes]]

    def own(self, name: str) -> Lines:
        """Return the lines that are kept under a writer's name, by seq; each must be there once."""
        found: Lines = {}
        for line in self.lines.get(name, []):
            record = check(line)
            assert record is not None, f"the server gives out a line of {name} that is no sound record: {line[:200]!r}"
            assert record["seq"] not in found, f"the server gives out seq {record['seq']} of {name} twice"
            found[record["seq"]] = line
        assert list(found) == sorted(found), f"the server gives out the lines of {name} in disorder"
        return found

    def writer(self, name: str) -> Lines:
        """Return a writer's lines by seq; of a branch, `<name>~<digest8>`, also those that it shares with the other."""
        own = self.own(name)
        base, mark, _ = name.rpartition("~")
        if not mark or not own:
            return own
        return {**{seq: line for seq, line in self.writer(base).items() if seq < min(own)}, **own}

    def branches(self, name: str) -> list[str]:
        """Return what the server calls the copies of a writer that were continued: the name itself, and others."""
        return [n for n in self.receipt["writers"] if _BRANCH.sub("", n) == name]


def there(server: Server, path: str, kinds: Iterable[str]) -> There:
    """Ask a server for a run, `path` being workspace/project/id. Raises AssertionError where it does not know it."""
    facts = server.api("GET", f"runs/{path}")
    assert facts.status == 200, f"the server does not know {path}: {facts}"
    receipt = server.api("GET", f"runs/{path}/receipt").json()
    lines: dict[str, list[bytes]] = {}
    wanted = sorted(set(kinds))
    for start in range(0, len(wanted), 20):
        query = urlencode([("kind", kind) for kind in wanted[start : start + 20]])
        answer = server.api("GET", f"runs/{path}/records?{query}")
        assert answer.status == 200, answer
        for part in answer.body.splitlines(keepends=True):
            name, _, line = part.partition(b" ")
            lines.setdefault(name.decode(), []).append(line)
    for name, found in lines.items():
        if len(wanted) > 20:
            lines[name] = sorted(found, key=lambda line: int(json.loads(line)["seq"]))
    return There(facts.json(), receipt, lines)


def kinds_of(*journals: dict[str, Lines]) -> set[str]:
    """Return every kind of record in these journals."""
    return {_record(raw)["kind"] for journal in journals for lines in journal.values() for raw in lines.values()}


@dataclass
class Truth:
    """What the directories of one run hold, to be compared with a server.

    Attributes:
        runs: the run directories; copies that were continued differ under the same names of writers.
        path: workspace/project/id.
    """

    runs: list[Path]
    path: str

    def journals(self) -> list[dict[str, Lines]]:
        return [read_journal(run) for run in self.runs]

    def compare(self, server: Server) -> None:
        """Compare record for record and byte for byte. Raises AssertionError naming what differs."""
        journals = self.journals()
        found = there(server, self.path, kinds_of(*journals))
        branches = _branches(journals)
        for name, kept in branches.items():
            self._compare_writer(found, name, kept)
        known = {n for name in branches for n in found.branches(name)}
        assert set(found.receipt["writers"]) == known, "the server has writers that no directory has"
        total = sum(len({line for lines in kept for line in lines.values()}) for kept in branches.values())
        assert found.facts["records"] == total, f"the server counts {found.facts['records']} records of {total}"
        self._compare_files(server, found, journals)

    def _compare_writer(self, found: There, name: str, kept: list[Lines]) -> None:
        branches = {branch: found.writer(branch) for branch in found.branches(name)}
        assert len(branches) == len(kept), f"{len(kept)} branches of writer {name}; the server has {list(branches)}"
        for lines in kept:
            same = [branch for branch, theirs in branches.items() if theirs == lines]
            assert len(same) == 1, f"{name}: {_difference(lines, list(branches.values()))}"
            said = found.receipt["writers"][same[0]]
            assert said["last"] == max(lines), f"the receipt says {said} of {name}, whose last seq is {max(lines)}"
            assert said["digest"] == digest(lines), f"the receipt's digest of {name} is wrong"
            assert [tuple(r) for r in said["lost"]] == holes(lines), f"{name}: the receipt says lost {said['lost']}"

    def _compare_files(self, server: Server, found: There, journals: list[dict[str, Lines]]) -> None:
        wanted: dict[str, tuple[int, str]] = {}
        for run, journal in zip(self.runs, journals, strict=True):
            wanted.update(named_files(run, journal))
        here = {p: (f["size"], f["sha256"]) for p, f in found.receipt["files"].items()}
        assert here == wanted, f"files differ: {sorted(here.items() ^ wanted.items())[:6]}"
        for path, (size, sha256) in wanted.items():
            answer = server.api("GET", f"runs/{self.path}/files/{quote(path)}")
            assert answer.status == 200 and len(answer.body) == size, f"{path}: {answer.status}, {len(answer.body)}"
            assert hashlib.sha256(answer.body).hexdigest() == sha256, f"{path} has other bytes on the server"

    def compare_views(self, server: Server, scratch: Path) -> None:
        """Compare what flightlog.Api shows of the server's run with what it shows of the directories."""
        workspace, project, run_id = self.path.split("/")
        folder = scratch / "views"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number, run in enumerate(self.runs):
            shutil.copytree(run, folder / f"run-{number}", symlinks=True)
        here = flightlog.Api(folder).run(run_id, project)
        over = flightlog.Api(server.url, api_key=server.key, workspace=workspace).run(run_id, project)
        for what in ("name", "state", "config", "summary", "step", "records", "tags", "definitions"):
            a, b = getattr(here, what), getattr(over, what)
            assert _plain(a) == _plain(b), f"{what}: {a!r} on this disk, {b!r} on the server"
        rows = [[repr(sorted(row.items())) for row in view.history()] for view in (here, over)]
        assert rows[0] == rows[1], f"the history differs: {Counter(rows[0]) - Counter(rows[1])} is missing"
        media = [sorted(repr(sorted(m.items())) for m in view.media()) for view in (here, over)]
        assert media[0] == media[1], "the media differ"

    def nothing_wrong_yet(self, server: Server) -> None:
        """Whatever the server has by now is right: a beginning of a writer as some directory has it, line for line."""
        journals = self.journals()
        if server.api("GET", f"runs/{self.path}").status == 404:
            return
        found = there(server, self.path, kinds_of(*journals))
        for name in found.receipt["writers"]:
            mine = _BRANCH.sub("", name)
            stored = found.writer(name)
            fitting = [j[mine] for j in journals if mine in j and stored.items() <= j[mine].items()]
            assert not stored or fitting, f"the server holds lines of {name} that no directory holds"


def _plain(value: object) -> str:
    """Return a text that is the same for values that are: keys in any order, NaN like NaN."""
    return json.dumps(value, sort_keys=True)


def _branches(journals: list[dict[str, Lines]]) -> dict[str, list[Lines]]:
    """Return by writer what its copies come to: those that agree as far as both go are one, as far as either goes."""
    found: dict[str, list[Lines]] = {}
    for journal in journals:
        for name, lines in journal.items():
            kept = found.setdefault(name, [])
            for other in kept:
                if all(other[seq] == lines[seq] for seq in other.keys() & lines.keys()):
                    other.update({seq: lines[seq] for seq in lines.keys() - other.keys()})
                    break
            else:
                kept.append(dict(lines))
    return {name: [dict(sorted(lines.items())) for lines in kept] for name, kept in found.items()}


def _difference(lines: Lines, there: list[Lines]) -> str:
    said = []
    for other in there:
        missing = sorted(lines.keys() - other.keys())
        more = sorted(other.keys() - lines.keys())
        changed = [s for s in lines.keys() & other.keys() if lines[s] != other[s]]
        said.append(f"lacks {missing[:9]}…({len(missing)}), has {more[:9]}…({len(more)}) more, changed {changed[:9]}")
    return f"{len(lines)} records here; the server's copy " + "; ".join(said)


# -- what the client remembers -----------------------------------------------------------------------------------------


def claims(run: Path, origin: str) -> dict[str, dict[str, int]] | None:
    """Return the sizes of the journal up to which sync.json says that all is delivered; None where it does not."""
    try:
        entry = json.loads((run / "sync.json").read_bytes())["servers"][origin]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return entry["journal"] if entry["complete"] else None


def claim_holds(run: Path, origin: str, server: Server, path: str) -> None:
    """Whatever sync.json says is delivered is on the server, every line and every file of it."""
    sizes = claims(run, origin)
    if sizes is not None:
        is_there(run, sizes, server, path)


def is_there(run: Path, sizes: dict[str, dict[str, int]], server: Server, path: str) -> None:
    """A journal up to these sizes is on the server, and the files that it names. Raises AssertionError."""
    journal = read_journal(run, sizes)
    found = there(server, path, kinds_of(journal))
    for name, lines in journal.items():
        branches = [found.writer(b) for b in found.branches(name)]
        assert any(lines.items() <= b.items() for b in branches), (
            f"it is said that all is delivered; of {name} it is not: {_difference(lines, branches)}"
        )
    here = {p: (f["size"], f["sha256"]) for p, f in found.receipt["files"].items()}
    missing = named_files(run, journal).items() - here.items()
    assert not missing, f"it is said that all is delivered; the server lacks {sorted(missing)[:4]}"


# -- what happens to disks ---------------------------------------------------------------------------------------------


def append(run: Path, writer: str, count: int, mark: str) -> None:
    """Append records to a writer, as the same process does in a copy of its machine that went on elsewhere."""
    folder = run / "files" / "journal" / writer
    lines = read_writer(folder)
    last = max(lines)
    at = _record(lines[last])["t"]
    newest = max(folder.glob("*.jsonl"), key=lambda p: int(p.stem))
    with newest.open("ab") as segment:
        for seq in range(last + 1, last + 1 + count):
            values = json.dumps({"branch": mark, "n": seq})
            body = f'{{"seq":{seq},"t":{at + seq - last:.6f},"kind":"log","step":{seq},"data":{values}'.encode()
            segment.write(b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body)))


def corrupt(run: Path, writer: str, seqs: Iterable[int]) -> None:
    """Change a byte in each of these records of a writer."""
    for segment in (run / "files" / "journal" / writer).glob("*.jsonl"):
        content = segment.read_bytes()
        for seq in seqs:
            start = content.find(b'{"seq":%d,' % seq)
            if start >= 0:
                place = content.index(b'"data":', start) + 8
                content = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        segment.write_bytes(content)
