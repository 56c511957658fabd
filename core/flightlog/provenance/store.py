"""Files of a run's `files/code/`: written once, within bounds, each with the entry by which sync knows it.

The processes of a job, and those that resume a run, may write into one directory, each its own: the first has `code`,
the others `code-2`, `code-3` and on.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..journal.reader import regular_file
from ..protocol.manifest import is_safe_path
from ..redact import is_secret_name, redact_code
from ..rundir import atomic_write

MAX_FILE = 1 << 20
MAX_FOLDERS = 10_000
_CHUNK = 64 << 10
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
# Files that are there to hold keys, wherever they lie.
_KEY_FILES = re.compile(
    r"\.env(?:rc|[._-].+)?|.*\.(?:env|pem|key|p8|p12|pfx|pkcs12|jks|keystore|kdbx|ppk|asc|gpg|ovpn|tfstate|tfvars)|"
    r"id_(?:rsa|dsa|ecdsa|ed25519).*|[._](?:netrc|npmrc|yarnrc|pypirc|pgpass|htpasswd|dockercfg|dockerconfigjson|boto|s3cfg|"
    r"my\.cnf|databrickscfg|cdsapirc|msmtprc|comet\.config)|\.?rclone\.conf|kubeconfig.*|kaggle\.json|rootkey\.csv|adc\.json|"
    # What Google calls the keys of a service account: project-0123456789ab.json
    r".*service[-_]?account.*\.json|[a-z][\w-]*-[0-9a-f]{12}\.json",
    re.IGNORECASE,
)
CODE_SUFFIXES = frozenset((
    ".py", ".pyx", ".pyi", ".ipynb", ".c", ".h", ".cc", ".cpp", ".cu", ".cuh", ".hpp", ".rs", ".go", ".js", ".ts",
    ".r", ".jl", ".md", ".rst",
))  # fmt: skip
_KEY_FOLDERS = frozenset((
    ".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", ".config", ".kaggle", ".huggingface", ".gcloud", ".oci",
    ".password-store", ".snowsql", ".mc", ".terraform.d",
))  # fmt: skip


def holds_keys(path: str) -> bool:
    """Tell whether a file, by its name, is likely to hold keys: .env, id_rsa, secrets.yaml (but not secrets.py)."""
    *folders, name = path.split("/")
    stem, dot, suffix = name.rpartition(".")
    if _KEY_FILES.fullmatch(name) or not _KEY_FOLDERS.isdisjoint(folders):
        return True
    return f"{dot}{suffix.lower()}" not in CODE_SUFFIXES and is_secret_name(stem or name)


class CodeStore:
    """Writes into a folder of its own, `files/code` if no other process has that.

    Args:
        files: the run's `files` folder.
        max_total: bytes over all files.
        max_files: how many.
        secrets: texts that no file may hold, as `redact.secret_values` gives them.
    """

    def __init__(
        self, files: Path, *, max_total: int = 32 << 20, max_files: int = 5000, secrets: Sequence[str] = ()
    ) -> None:
        self._files = files
        self._secrets = secrets
        self._room = max_total
        self._left = max_files
        self._paths: set[str] = set()
        self.folder: str | None = None  # made with the first file
        self.entries: list[dict[str, Any]] = []

    def add(self, path: str, content: bytes, *, durable: bool = True) -> bool:
        """Write a file below the folder, without known secrets and keys. Returns False where it is not kept.

        Args:
            path: its name there, relative with "/" between.
            content: what to write.
            durable: wait until it is on the disk; of thousands of files that would take minutes.

        Raises:
            OSError: it cannot be written.
        """
        content = without_keys(content, self._secrets)
        if path in self._paths:
            return True
        if len(content) > self._room or self._left < 1 or not is_safe_path(path):
            return False
        if self.folder is None:
            self.folder = _own_folder(self._files)
        name = f"{self.folder}/{path}"
        target = self._files / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if durable:
            atomic_write(target, content)
        else:
            target.write_bytes(content)
        self._room -= len(content)
        self._left -= 1
        self._paths.add(path)
        self.entries.append({"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        return True


def _own_folder(files: Path) -> str:
    """Make the first of `code`, `code-2` … that is not there, and return its name. Raises OSError."""
    files.mkdir(parents=True, exist_ok=True)
    for number in range(1, MAX_FOLDERS):
        name = "code" if number == 1 else f"code-{number}"
        try:
            os.mkdir(files / name)  # noqa: PTH102  # which tells who was first
        except FileExistsError:
            continue
        return name
    raise OSError(f"{files} already holds the code of {MAX_FOLDERS} processes")


def read_bounded(path: Path, limit: int = MAX_FILE, *, follow: bool = True) -> bytes | None:
    """Return a regular file's bytes; None where it is none, cannot be read, or is larger than `limit`.

    Args:
        path: the file.
        limit: bytes.
        follow: whether a link may be followed.
    """
    try:
        fd = os.open(path, _READ | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
        with regular_file(fd, path) as file:
            content = file.read(limit + 1)
    except (OSError, ValueError):
        return None
    return content if len(content) <= limit else None


def without_keys(content: bytes, secrets: Sequence[str] = ()) -> bytes:
    """Return a text without keys, credentials in URLs and known secrets; what is no text stays as it is.

    It is done in parts, between lines: a regular expression over megabytes would hold up the training's threads.
    """
    if b"\0" in content[:8000]:
        return content
    parts = []
    at = 0
    while at < len(content):
        end = content.find(b"\n", at + _CHUNK) + 1 or len(content)
        if b"-----BEGIN " in content[at:end]:
            end = len(content)  # a private key is as many lines as it likes
        parts.append(redact_code(content[at:end].decode("utf-8", "surrogateescape"), secrets))
        at = end
    return "".join(parts).encode("utf-8", "surrogateescape")
