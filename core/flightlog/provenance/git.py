"""What git knows of the code: commit, branch, remote, and what is not committed.

The repository may be anybody's, and its configuration can name programs for git to run: hooks, a file system monitor,
external diffs, text converters, filters, helpers for remotes. None of them is run here: each is overridden, the
environment's GIT_* are not passed on, submodules are not entered, nothing is fetched. git's own check of who owns a
repository (safe.directory) stays in force. And git may hang, on a dead file server say: every call ends in time.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..redact import redact_text
from .ignore import Ignore
from .store import CodeStore, holds_keys, read_bounded

PATCH = "diff.patch"
MAX_DIFF = 4 << 20
MAX_UNTRACKED = 1 << 20
MAX_UNTRACKED_FILE = 128 << 10
MAX_UNTRACKED_FILES = 500
MAX_LISTED = 100
_MAX_ANSWER = 1 << 20
CALL_SECONDS = 10.0
TOTAL_SECONDS = 30.0
_MAX_DRIVERS = 200

_SETTINGS = {
    "core.fsmonitor": "false", "core.hooksPath": os.devnull, "core.pager": "cat", "core.sshCommand": "false",
    "core.askPass": "", "core.quotePath": "true", "credential.helper": "", "diff.external": "", "diff.renames": "false",
    "diff.noprefix": "false", "diff.mnemonicPrefix": "false", "diff.submodule": "short", "diff.orderFile": os.devnull,
    "log.showSignature": "false", "protocol.allow": "never", "submodule.recurse": "false", "color.ui": "never",
    "gc.auto": "0", "maintenance.auto": "false",
}  # fmt: skip
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none",
    "GIT_PAGER": "cat", "GIT_ASKPASS": "", "LC_ALL": "C",
}  # fmt: skip
_DIFF = (
    "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--ignore-submodules=dirty", "--full-index",
    "--src-prefix=a/", "--dst-prefix=b/", "--unified=3",
)  # fmt: skip


T = TypeVar("T")


class GitFailed(Exception):
    """git said no, or not in time; the text is what it said."""


@dataclass(frozen=True, slots=True)
class _Answer:
    output: bytes
    whole: bool


class Repository:
    """A working tree, asked through git without letting its configuration run anything.

    Args:
        root: the folder that holds `.git`.

    Raises:
        GitFailed: there is no git, or it does not accept this repository.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._until = time.monotonic() + TOTAL_SECONDS
        self._settings = dict(_SETTINGS)
        # With a core.worktree of its own a repository could have the whole home listed as its untracked files.
        top = os.fsdecode(self.ask("rev-parse", "--show-toplevel").output).rstrip("\n")
        if not root.samefile(top):
            raise GitFailed(f"its working tree is said to be elsewhere, in {top}")
        self._disarm_drivers()

    def ask(self, *words: str, limit: int = _MAX_ANSWER) -> _Answer:
        """Run git and return what it wrote, up to `limit` bytes.

        Raises:
            GitFailed: see above.
        """
        seconds = min(CALL_SECONDS, self._until - time.monotonic())
        if seconds <= 0:
            raise GitFailed("there was no more time to ask")
        return _run(["git", "--no-pager", *words], self.root, self._environment(), seconds, limit)

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        numbered = {}
        for i, (key, value) in enumerate(self._settings.items()):  # git-config(1), GIT_CONFIG_COUNT
            numbered[f"GIT_CONFIG_KEY_{i}"], numbered[f"GIT_CONFIG_VALUE_{i}"] = key, value
        return {**inherited, **_ENVIRONMENT, **numbered, "GIT_CONFIG_COUNT": str(len(self._settings))}

    def _disarm_drivers(self) -> None:
        """Override the programs of filters and diff drivers, whose names are the repository's own to choose."""
        try:
            found = self.ask("config", "--null", "--name-only", "--get-regexp", r"^(filter|diff|merge)\..*\.")
        except GitFailed:  # there are none
            return
        if not found.whole:
            raise GitFailed("its configuration has no end")
        names = {os.fsdecode(key) for key in found.output.split(b"\0") if key}
        if len(names) > _MAX_DRIVERS:
            raise GitFailed(f"its configuration names {len(names)} programs")
        for name in names:
            driver, _, action = name.rpartition(".")
            if action in ("clean", "smudge", "process", "textconv", "command", "driver"):
                self._settings[name] = ""
                if name.startswith("filter."):
                    self._settings[f"{driver}.required"] = "false"


def find_root(start: Path) -> Path | None:
    """Return the nearest folder at or above `start` that holds `.git` (a folder, or the file of a worktree)."""
    try:
        start = start.absolute()
        return next((folder for folder in (start, *start.parents) if (folder / ".git").exists()), None)
    except OSError:
        return None


def describe(start: Path, store: CodeStore | None) -> dict[str, Any]:
    """Return what git knows of the folder: root, commit, branch, remote, dirty …; empty outside of a repository.

    Args:
        start: a folder.
        store: takes the difference from the commit, untracked files included, as `diff.patch`; None leaves it.
    """
    root = find_root(start)
    if root is None:
        return {}
    facts: dict[str, Any] = {"root": os.fspath(root)}
    try:
        repository = Repository(root)
        # Each waits for a process of its own, and several seconds in a large repository on a slow disk.
        remote = _Later(lambda: _remote(repository))
        untracked = _Later(lambda: _untracked(repository)) if store is not None else None
        facts.update(_standing(repository))
        commit = _Later(lambda: _commit(repository, facts["commit"]))
        if untracked is not None and store is not None:
            facts.update(_difference(repository, facts["commit"], untracked.result(), store))
        facts.update(commit.result())
        facts.update(remote.result())
    except (GitFailed, OSError, ValueError) as error:
        facts["error"] = redact_text(str(error), prose=True)[:500]
    return facts


class _Later(Generic[T]):
    """What a function returns, called on a thread of its own."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._found: list[T] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="flightlog-git", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads for this user, or the interpreter is shutting down
            self._run()

    def _run(self) -> None:
        try:
            self._found.append(self._function())
        except Exception as error:
            self._error = error

    def result(self) -> T:
        """Wait for it. Raises what the function has raised."""
        if self._thread.ident is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found[0]


def _standing(repository: Repository) -> dict[str, Any]:
    """Return commit, branch and whether tracked files differ (git-status(1), porcelain version 2)."""
    answer = repository.ask(
        "status",
        "--porcelain=v2",
        "--branch",
        "-z",
        "--untracked-files=no",
        "--ignore-submodules=dirty",
        "--no-renames",
    )
    facts: dict[str, Any] = {"commit": None, "branch": None, "dirty": False}
    for line in answer.output.split(b"\0"):
        words = os.fsdecode(line)
        if words.startswith("# branch.oid "):
            oid = words[13:]
            facts["commit"] = oid if re.fullmatch(r"[0-9a-f]{40,64}", oid) else None  # "(initial)" before the first
        elif words.startswith("# branch.head "):
            facts["branch"] = None if words[14:] == "(detached)" else words[14:][:500]
        elif words and not words.startswith("#"):
            facts["dirty"] = True
    return facts


def _commit(repository: Repository, commit: str | None) -> dict[str, Any]:
    """Return the time and the first line of a commit (gitformat-commit)."""
    if commit is None:
        return {}
    head, _, message = repository.ask("cat-file", "commit", commit).output.partition(b"\n\n")
    at = re.search(rb"^committer .*> (\d{1,12}) [+-]\d{4}$", head, re.MULTILINE)
    first = message.split(b"\n", 1)[0].decode(errors="replace")
    return {"committed_at": int(at[1]) if at else None, "subject": redact_text(first, prose=True)[:200]}


def _remote(repository: Repository) -> dict[str, Any]:
    """Return the address of the remote, origin where there is one, without credentials."""
    try:
        answer = repository.ask("config", "--null", "--get-regexp", r"^remote\..*\.url$")
    except GitFailed:
        return {}
    addresses: dict[str, str] = {}
    for entry in answer.output.split(b"\0"):
        name, _, address = os.fsdecode(entry).partition("\n")
        if address:
            addresses.setdefault(name, address)
    address = addresses.get("remote.origin.url") or next(iter(addresses.values()), "")
    return {"remote": redact_text(address)[:500]} if address else {}


# -- what is not committed ---------------------------------------------------------------------------------------------


def _untracked(repository: Repository) -> _Answer:
    """Return the names of the files that git does not know and does not ignore, each ended by a NUL."""
    return repository.ask("ls-files", "--others", "--exclude-standard", "-z")


def _difference(repository: Repository, commit: str | None, listed: _Answer, store: CodeStore) -> dict[str, Any]:
    """Keep the difference from the commit as a patch that `git apply` takes, and say what is missing from it.

    Args:
        repository: it. commit: the commit; None before the first. listed: the untracked files. store: takes the patch.
    """
    answer = repository.ask(*_DIFF, commit, "--", limit=MAX_DIFF) if commit else _Answer(b"", True)
    patch, hidden = _without_key_files(answer.output if answer.whole else _whole_files(answer.output))
    if not commit:
        listed = repository.ask("ls-files", "--others", "--exclude-standard", "-z", "--cached")
    names = [os.fsdecode(name) for name in listed.output.split(b"\0") if name]
    if not listed.whole:
        names = names[:-1]
    added, kept, left_out = _as_added(repository.root, names)
    left_out = [*hidden, *left_out]
    facts: dict[str, Any] = {"untracked": len(names), "diff_complete": answer.whole and listed.whole and not left_out}
    if left_out:
        facts["left_out"] = [name.encode("utf-8", "replace").decode()[:300] for name in left_out[:MAX_LISTED]]
    whole = patch + added
    if whole and store.add(PATCH, whole):
        facts.update(
            diff=f"{store.folder}/{PATCH}", diff_files=patch.count(b"\ndiff --git ") + (patch[:5] == b"diff ") + kept
        )
    return facts


def _whole_files(patch: bytes) -> bytes:
    """Return of a patch that was cut the files that are in it whole."""
    return patch[: max(0, patch.rfind(b"\ndiff --git ") + 1)]


def _without_key_files(patch: bytes) -> tuple[bytes, list[str]]:
    """Return a patch without the files that hold keys by their names (committed by mistake), and those names."""
    kept: list[bytes] = []
    hidden: list[str] = []
    for part in re.split(rb"^(?=diff --git )", patch, flags=re.MULTILINE):
        name = os.fsdecode(part.partition(b"\n")[0].rpartition(b" b/")[2].rstrip(b'"'))
        if part and holds_keys(name):
            hidden.append(name)
        else:
            kept.append(part)
    return b"".join(kept), hidden


def _as_added(root: Path, names: Sequence[str]) -> tuple[bytes, int, list[str]]:
    """Return untracked files as a patch that adds them, how many they are, and the names of those it leaves out."""
    ignore = Ignore.beside(root)
    parts: list[bytes] = []
    left_out: list[str] = []
    room = MAX_UNTRACKED
    for name in names:
        part = None
        if len(parts) < MAX_UNTRACKED_FILES and not holds_keys(name) and not ignore.leaves_out_with_parents(name):
            part = _added_file(root, name)
        if part is None or len(part) > room:
            left_out.append(name)
            continue
        parts.append(part)
        room -= len(part)
    return b"".join(parts), len(parts), left_out


def _added_file(root: Path, name: str) -> bytes | None:
    """Return a text file as a patch that adds it; None for what is no text, too large, or oddly named."""
    if re.search(r'[\x00-\x1f"\\\x7f-\uffff]', name) or name.endswith("/"):
        return None
    content = read_bounded(root / name, MAX_UNTRACKED_FILE, follow=False)
    if content is None or b"\0" in content:
        return None
    executable = os.access(root / name, os.X_OK)
    path = name.encode()
    head = b"diff --git a/%b b/%b\nnew file mode %b\n" % (path, path, b"100755" if executable else b"100644")
    if not content:
        return head + b"index 0000000..e69de29\n"
    lines = content.split(b"\n")
    ends = lines[-1] == b""
    lines = lines[:-1] if ends else lines
    tab = b"\t" if b" " in path else b""
    body = b"--- /dev/null\n+++ b/%b%b\n@@ -0,0 +1%b @@\n" % (path, tab, b",%d" % len(lines) if len(lines) > 1 else b"")
    added = b"".join(b"+%b\n" % line for line in lines)
    return head + body + added + (b"" if ends else b"\\ No newline at end of file\n")


# -- running git -------------------------------------------------------------------------------------------------------


def _run(command: Sequence[str], folder: Path, environment: dict[str, str], seconds: float, limit: int) -> _Answer:
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise GitFailed(f"git cannot be run: {error.strerror or error}") from None
    with _ending(process, seconds) as timed_out:
        assert process.stdout is not None and process.stderr is not None
        output = process.stdout.read(limit + 1)
        whole = len(output) <= limit
        if not whole:
            process.kill()
        complaint = process.stderr.read(4096).decode(errors="replace").strip()
        status = process.wait()
    if timed_out.is_set():
        raise GitFailed(f"{' '.join(command[2:4])} took longer than {seconds:.0f} s")
    if whole and status:
        raise GitFailed(complaint.splitlines()[0] if complaint else f"{' '.join(command[2:4])}: status {status}")
    return _Answer(output[:limit], whole)


@contextlib.contextmanager
def _ending(process: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kill the process when its time is over, and leave nothing of it behind."""
    timed_out = threading.Event()

    def kill() -> None:
        timed_out.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield timed_out
    finally:
        timer.cancel()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        if process.poll() is None:
            process.kill()
