"""Receipts that travel: a server's word on what it holds of runs, as a file for machines that cannot ask it.

A receipt is bound to the server, to the run as it is called there and here, and to digests of all that it proves. It
deletes nothing by itself: `flightlog clean` reads the disk anew and holds that against it.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ..client import Client, Patience, path_of
from ..errors import DamagedError, PermanentError
from ..journal.reader import open_regular
from ..protocol.manifest import is_safe_path, is_sha256
from ..protocol.messages import Receipt
from ..protocol.names import name_fault
from ..resume import DELIVERED
from ..rundir import atomic_write

FORMAT = 1
_MAX = 1 << 30
_SUFFIX = ".receipt"


@dataclass(frozen=True, slots=True)
class Target:
    """A run as a server knows it."""

    workspace: str
    project: str
    id: str

    @property
    def path(self) -> str:
        """Its address below /api/v1."""
        return f"runs/{path_of(self.workspace, self.project, self.id)}"


@dataclass(frozen=True, slots=True)
class Proof:
    """A server's receipt for one run.

    Attributes:
        id, project: what the run was recorded as.
        origin, server_id: the server, and who it said that it was.
        target: the run as it is called there.
        receipt: what it holds.
        issued_at: when it was asked for, UTC seconds.
    """

    id: str
    project: str
    origin: str
    server_id: str
    target: Target
    receipt: Receipt
    issued_at: float = field(default_factory=time.time)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, with a check over all of it."""
        body: dict[str, Any] = {
            "id": self.id,
            "project": self.project,
            "server": self.origin,
            "server_id": self.server_id,
            "target": {"workspace": self.target.workspace, "project": self.target.project, "id": self.target.id},
            "issued_at": self.issued_at,
            "receipt": self.receipt.to_json(),
        }
        return {**body, "sha256": _check(body)}

    @classmethod
    def from_json(cls, data: Any) -> Proof:
        """Read what `to_json` has made. Raises ValueError, saying what is wrong with it."""
        try:
            body = {key: value for key, value in data.items() if key != "sha256"}
            if data["sha256"] != _check(body):
                raise ValueError("its check does not fit its content")
            target = Target(*(data["target"][key] for key in ("workspace", "project", "id")))
            names = (data["id"], data["project"], target.workspace, target.project, target.id)
            if any(name_fault(name) is not None for name in names):
                raise ValueError("a name in it cannot be")
            receipt = Receipt.from_json(data["receipt"])
            held = [*receipt.files.items(), *((path, one) for path, each in receipt.former.items() for one in each)]
            if not all(is_safe_path(path) and is_sha256(digest) for path, (_, digest) in held):
                raise ValueError("a file in it cannot be")
            origin, server_id, at = str(data["server"]), str(data["server_id"]), float(data["issued_at"])
        except (KeyError, TypeError, AttributeError, OverflowError):
            raise ValueError("it is no receipt") from None
        return cls(data["id"], data["project"], origin, server_id, target, receipt, at)


def _check(body: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


def fetch(client: Client, target: Target, patience: Patience) -> Receipt:
    """Ask a server what it holds of a run.

    Raises:
        PermanentError: it does not know the run (404), or has deleted it (GoneError), or does not tell.
        RetryableError: it cannot be reached.
    """
    answer = patience.call(lambda: client.json("GET", f"{target.path}/receipt"))
    try:
        return Receipt.from_json(answer)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PermanentError(f"{client.origin} sent a receipt that cannot be understood") from None


# -- the file that travels ---------------------------------------------------------------------------------------------


def dump(proofs: Iterable[Proof]) -> bytes:
    """Return a file of receipts."""
    content = {"format": FORMAT, "kind": "flightlog-receipts", "receipts": [proof.to_json() for proof in proofs]}
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def load(path: Path) -> list[Proof]:
    """Read a file of receipts.

    Raises:
        DamagedError: it cannot be read, is none, or has come to harm on its way: then nothing of it is believed.
    """
    try:
        with open_regular(path.resolve()) as file:
            content = file.read(_MAX + 1)
        if len(content) > _MAX:
            raise ValueError("it is beyond all bounds")
        data = orjson.loads(content)
        if not isinstance(data, dict) or data.get("kind") != "flightlog-receipts":
            raise ValueError("it holds no receipts")
        if data.get("format") != FORMAT:
            raise ValueError(f"its format is {data.get('format')!r}; update flightlog")
        found = data.get("receipts")
        if not isinstance(found, list):
            raise ValueError("it holds no receipts")
        return [Proof.from_json(item) for item in found]
    except orjson.JSONDecodeError:
        raise DamagedError(f"{path} is not JSON, or is cut off; copy it again") from None
    except ValueError as error:
        raise DamagedError(f"{path}: {error}; copy it again") from None
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise DamagedError(f"{path}: {reason or error}") from None


# -- what was imported -------------------------------------------------------------------------------------------------


def keep(root: Path, proof: Proof) -> None:
    """Keep a receipt beside the runs of a folder, in place of an older one of the same run. Raises OSError."""
    path = root / DELIVERED / f"{proof.id}{_SUFFIX}"
    with contextlib.suppress(DamagedError):
        if path.exists() and load(path)[0].project != proof.project:
            path = path.with_name(f"{proof.id}@{proof.project}{_SUFFIX}")
    path.parent.mkdir(exist_ok=True)
    atomic_write(path, dump([proof]))


def kept(root: Path, run_id: str, project: str) -> Proof | None:
    """Return the receipt that was imported for a run of this folder; None where there is none.

    Raises:
        DamagedError: there is one, and it is damaged.
    """
    for name in (run_id, f"{run_id}@{project}"):
        path = root / DELIVERED / f"{name}{_SUFFIX}"
        if not path.exists():
            continue
        for proof in load(path):
            if (proof.id, proof.project) == (run_id, project):
                return proof
    return None
