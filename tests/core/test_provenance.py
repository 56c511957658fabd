"""Where a run comes from: read from real repositories, environments and processes, friendly and hostile ones."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.errors import UsageError
from flightlog.provenance import git as git_part
from flightlog.provenance.code import home, save_folder
from flightlog.provenance.collect import Collector, slow
from flightlog.provenance.environment import packages, variables
from flightlog.provenance.git import describe
from flightlog.provenance.ignore import Ignore
from flightlog.provenance.quick import quick
from flightlog.provenance.store import CodeStore, holds_keys, read_bounded, without_keys
from flightlog.redact import REDACTED

Script = Callable[..., "subprocess.CompletedProcess[str]"]
KEY = "hf_abcdefghijklmnopqrstuvwxyz"


def git(folder: Path, *words: str, **more: str) -> str:
    """Run the real git as a user would."""
    names = {"NAME": "a", "EMAIL": "a@b"}
    identity = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in names.items()}
    done = subprocess.run(
        ["git", *words], cwd=folder, env={**os.environ, **identity, **more}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit of two files."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    (root / "train.py").write_text("lr = 1\n" * 5)
    (root / "a file.txt").write_text("without a newline")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "The first\n\nbody")
    return root


@pytest.fixture
def store(tmp_path: Path) -> CodeStore:
    return CodeStore(tmp_path / "run" / "files")


def patch_of(tmp_path: Path) -> str:
    return (tmp_path / "run" / "files" / "code" / "diff.patch").read_text()


# -- git ---------------------------------------------------------------------------------------------------------------


def test_a_clean_repository(repository: Path, store: CodeStore) -> None:
    """Commit, branch, subject and time; no patch where there is no difference."""
    facts = describe(repository, store)
    assert facts["commit"] == git(repository, "rev-parse", "HEAD") and facts["branch"] == "main"
    assert facts["subject"] == "The first" and abs(facts["committed_at"] - time.time()) < 600
    assert facts["dirty"] is False and facts["untracked"] == 0 and facts["diff_complete"] is True
    assert "diff" not in facts and store.entries == [] and "error" not in facts


def test_the_patch_makes_the_commit_what_was_run(repository: Path, store: CodeStore, tmp_path: Path) -> None:
    """Changed, staged, removed and new files, executable or empty or oddly ended: `git apply` brings them all back."""
    (repository / "train.py").write_text("lr = 2\n" * 3)
    (repository / "staged.py").write_text("staged\n")
    git(repository, "add", "staged.py")
    (repository / "a file.txt").unlink()
    (repository / "new folder").mkdir()
    (repository / "new folder" / "run me.sh").write_text("#!/bin/sh\necho")
    (repository / "new folder" / "run me.sh").chmod(0o755)
    (repository / "empty.py").touch()
    (repository / "one.py").write_text("one line\n")
    (repository / "blank.py").write_text("\n")
    facts = describe(repository / "new folder", store)
    assert facts["dirty"] and facts["untracked"] == 4 and facts["diff_complete"] and facts["diff_files"] == 7
    assert facts["diff"] == "code/diff.patch" == store.entries[0]["path"]
    git(tmp_path, "clone", "-q", str(repository), "again")
    git(tmp_path / "again", "apply", str(tmp_path / "run" / "files" / "code" / "diff.patch"))
    for path in (p for p in repository.rglob("*") if p.is_file() and ".git" not in p.parts):
        copy = tmp_path / "again" / path.relative_to(repository)
        assert copy.read_bytes() == path.read_bytes() and copy.stat().st_mode == path.stat().st_mode
    assert not (tmp_path / "again" / "a file.txt").exists()


def test_what_does_not_belong_into_a_patch(repository: Path, store: CodeStore, tmp_path: Path) -> None:
    """Binary, large, key-holding and ignored files are listed and not kept; a link is not followed."""
    (repository / "weights.bin").write_bytes(b"\0\1\2")
    (repository / "large.txt").write_text("x" * (1 << 20))
    (repository / ".env").write_text("TOKEN=abc")
    (repository / "secrets.yaml").write_text("token: abc")
    (repository / "scratch").mkdir()
    (repository / "scratch" / "notes.py").write_text("no")
    (repository / ".flightlogignore").write_text("scratch/\n")
    (repository / "passwd").symlink_to("/etc/passwd")
    (repository / "pipe").mkdir()
    os.mkfifo(repository / "pipe" / "fifo")
    (repository / 'odd "name".py').write_text("x")
    (repository / "good.py").write_text(f"key = '{KEY}'\n")
    facts = describe(repository, store)
    assert sorted(facts["left_out"]) == sorted(
        [".env", "large.txt", 'odd "name".py', "passwd", "scratch/notes.py", "secrets.yaml", "weights.bin"]
    )
    assert facts["diff_complete"] is False
    patch = patch_of(tmp_path)
    assert "good.py" in patch and ".flightlogignore" in patch and REDACTED in patch
    assert KEY not in patch and "root:" not in patch and "abc" not in patch


def test_known_secrets_stay_out_of_code_and_patch(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's, credentials in URLs, and a file of keys that was committed by mistake and has changed."""
    secret = "5ecret-of-the-env"
    monkeypatch.setenv("SOME_API_KEY", secret)
    (repository / ".env").write_text("A=1\n")
    git(repository, "add", "-f", ".env")
    git(repository, "commit", "-qm", "oops")
    (repository / ".env").write_text(f"A=1\nPLAIN=hidden-by-name\n{secret}\n")
    (repository / "new.py").write_text(f"login('{secret}')\nurl = 'https://me:pa55word-x@host/y'\n")
    (repository / "train.py").write_text(f"key = '{secret}'\n")
    monkeypatch.chdir(repository)
    found = Collector(tmp_path / "files", lambda data: None, save_code=repository).collect()
    assert found["git"]["left_out"] == [".env"] and not found["git"]["diff_complete"]
    assert found["code"]["left_out"] == 0 and len(found["files"]) >= 3
    for entry in found["files"]:
        content = (tmp_path / "files" / entry["path"]).read_text()
        assert not any(word in content for word in (secret, "pa55word", "hidden-by-name")), entry
    assert "https://[redacted]@host/y" in (tmp_path / "files" / found["git"]["diff"]).read_text()


def test_a_repository_before_its_first_commit(tmp_path: Path, store: CodeStore) -> None:
    """Everything in it is new."""
    git(tmp_path, "init", "-q", "-b", "trunk")
    (tmp_path / "train.py").write_text("x\n")
    git(tmp_path, "add", "train.py")
    (tmp_path / ".gitignore").write_text("run\n")
    facts = describe(tmp_path, store)
    assert facts["commit"] is None and facts["branch"] == "trunk" and facts["diff_files"] == 2 and "error" not in facts


def test_detached_heads_worktrees_submodules_and_bare_ones(repository: Path, store: CodeStore, tmp_path: Path) -> None:
    """Each is described as what it is; outside of a repository there is nothing to say."""
    git(repository, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    facts = describe(tmp_path / "tree", store)
    assert facts["branch"] is None and facts["commit"] and facts["root"] == str(tmp_path / "tree")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "part")
    facts = describe(repository / "part", store)
    assert facts["root"] == str(repository / "part") and facts["commit"] and "error" not in facts
    assert describe(repository, store)["dirty"] is True
    git(tmp_path, "init", "-q", "--bare", "bare")
    assert describe(tmp_path / "bare", store) == {} == describe(Path("/"), store)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / ".git").write_text("gitdir: nowhere")
    assert "error" in describe(tmp_path / "broken", store)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"https://me:{KEY}@host/x.git", f"https://{REDACTED}@host/x.git"),
        ("git@github.com:flightlog/flightlog.git", "git@github.com:flightlog/flightlog.git"),
        ("/srv/x.git", "/srv/x.git"),
    ],
)
def test_a_remote_has_no_credentials(repository: Path, address: str, shown: str) -> None:
    """origin, where there are several."""
    git(repository, "remote", "add", "another", "https://elsewhere/x.git")
    git(repository, "remote", "add", "origin", address)
    assert describe(repository, None)["remote"] == shown


def test_a_hostile_repository_runs_nothing(repository: Path, store: CodeStore, tmp_path: Path) -> None:
    """Every setting that names a program is tried: monitor, hooks, diffs, converters, filters, pagers, helpers."""
    trap = tmp_path / "trap.sh"
    trap.write_text(f'#!/bin/sh\necho "$0 $@" >> {tmp_path}/sprung\ncat\n')
    trap.chmod(0o755)
    (repository / ".gitattributes").write_text("*.py filter=evil diff=evil merge=evil\n*.txt filter=we=ird.one\n")
    git(repository, "add", ".gitattributes")
    git(repository, "commit", "-q", "-m", "attributes")
    config = {
        "core.fsmonitor": trap, "core.hooksPath": tmp_path / "hooks", "core.pager": trap, "core.sshCommand": trap,
        "core.editor": trap, "core.askPass": trap, "diff.external": trap, "diff.evil.textconv": trap,
        "diff.evil.command": trap, "filter.evil.clean": trap, "filter.evil.smudge": trap, "filter.evil.process": trap,
        "filter.evil.required": "true", "filter.we=ird.one.clean": trap, "merge.evil.driver": trap,
        "credential.helper": trap, "gpg.program": trap, "log.showSignature": "true", "pager.status": trap,
        "pager.diff": trap, "alias.status": f"!{trap}", "remote.origin.url": f"ext::{trap}",
        "protocol.ext.allow": "always",
        "remote.origin.promisor": "true", "extensions.partialClone": "origin", "diff.trustExitCode": "true",
    }  # fmt: skip
    (tmp_path / "hooks").mkdir()
    for hook in ("post-index-change", "fsmonitor-watchman", "pre-auto-gc", "post-checkout"):
        (tmp_path / "hooks" / hook).write_text(trap.read_text())
        (tmp_path / "hooks" / hook).chmod(0o755)
    for name, value in config.items():
        git(repository, "config", name, str(value))
    (repository / "train.py").write_text("changed\n")
    (repository / "a file.txt").write_text("changed")
    missing = git(repository, "rev-parse", "HEAD:a file.txt")
    blob = repository / ".git" / "objects" / missing[:2] / missing[2:]
    blob.parent.chmod(0o755)
    blob.unlink()  # a partial clone would fetch it
    (tmp_path / "sprung").unlink(missing_ok=True)
    before = (repository / ".git" / "index").stat()
    facts = describe(repository, store)
    assert not (tmp_path / "sprung").exists(), (tmp_path / "sprung").read_text()
    assert facts["commit"] and facts["dirty"]
    after = (repository / ".git" / "index").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    # The trap works: without the precautions it is sprung at once.
    subprocess.run(["git", "status"], cwd=repository, capture_output=True, timeout=60)
    assert (tmp_path / "sprung").exists()


def test_a_hostile_submodule_runs_nothing(repository: Path, store: CodeStore, tmp_path: Path) -> None:
    """Its configuration is another one, and git would ask for its state by a process of its own."""
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "part")
    git(repository, "commit", "-q", "-m", "part")
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    git(repository / "part", "config", "core.fsmonitor", str(trap))
    (repository / "part" / "train.py").write_text("changed\n")
    (tmp_path / "sprung").unlink(missing_ok=True)
    assert describe(repository, store)["commit"]
    assert not (tmp_path / "sprung").exists()


def test_a_working_tree_elsewhere_is_not_read(repository: Path, store: CodeStore, tmp_path: Path) -> None:
    """A repository that calls somebody's home its working tree would have its files for untracked ones."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "diary.txt").write_text("private")
    git(repository, "config", "core.worktree", str(tmp_path / "home"))
    facts = describe(repository, store)
    assert "elsewhere" in facts["error"] and store.entries == []


def test_somebody_elses_repository_is_refused_by_git(
    repository: Path, store: CodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own check of owners stays in force, whatever the environment says."""
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    for path in (repository, repository / ".git"):
        os.chown(path, 12345, 12345)
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    facts = describe(repository, store)
    assert "dubious ownership" in facts["error"] and "commit" not in facts


def test_no_git_or_one_that_hangs_or_has_no_end(
    repository: Path, store: CodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs its own part of the record, and a bounded time."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    assert "git cannot be run" in describe(repository, store)["error"]
    fake = tools / "git"
    fake.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setattr(git_part, "CALL_SECONDS", 0.3)
    assert "took longer than" in describe(repository, store)["error"]
    monkeypatch.setattr(git_part, "CALL_SECONDS", 10.0)
    fake.write_text('#!/bin/sh\ncase "$*" in *rev-parse*) pwd;; *) exec /usr/bin/yes;; esac\n')
    assert "no end" in describe(repository, store)["error"]


def test_a_difference_that_is_too_large_is_cut_between_files(
    repository: Path, store: CodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept can be applied, and that it is not all is said."""
    for i in range(6):
        (repository / f"f{i}.py").write_text("old\n" * 300)
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "more")
    for i in range(6):
        (repository / f"f{i}.py").write_text("new\n" * 300)
    monkeypatch.setattr(git_part, "MAX_DIFF", 10_000)
    facts = describe(repository, store)
    assert facts["diff_complete"] is False and facts["diff_files"] == 3
    git(tmp_path, "clone", "-q", str(repository), "again")
    git(tmp_path / "again", "apply", str(tmp_path / "run" / "files" / "code" / "diff.patch"))
    assert (tmp_path / "again" / "f2.py").read_text() == "new\n" * 300


# -- ignoring ----------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["a", "b", "ab", "*", "?", "**", "a*", "*.py", "[ab]", "[!a]", "[^a]", "\\*", "a b", "[", "]", "!", "#"]
)
PATTERNS = st.lists(PIECES | st.just("/"), min_size=1, max_size=6).map("".join)
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "c.py", "a.py", "*", "a b", "[", "x"]), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def empty_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ignore")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True, timeout=60)
    return root


def test_patterns_mean_what_they_mean_to_git(empty_repository: Path) -> None:
    """Thousands of random ones, compared with `git check-ignore`."""

    @given(st.lists(PATTERNS, max_size=4), st.lists(PATHS, min_size=1, max_size=8))
    def compare(lines: list[str], paths: list[list[str]]) -> None:
        # Not compared: a slash inside of brackets, of which git has its own idea.
        lines = [line for line in lines if not re.search(r"\[[^\]]*/", line)]
        lines = [line for line in lines if "//" not in line and not ("**" in line and "/**/" not in f"/{line}/")]
        names = ["/".join(path) for path in paths]
        (empty_repository / ".gitignore").write_text("\n".join(lines) + "\n")
        done = subprocess.run(
            ["git", "check-ignore", "--no-index", "-z", "--stdin"],
            cwd=empty_repository, input="\0".join(names), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        ignored = set(done.stdout.split("\0"))
        ignore = Ignore(lines)
        for name in names:
            assert ignore.leaves_out_with_parents(name) == (name in ignored), (lines, name)

    compare()


def test_no_pattern_takes_long() -> None:
    """Nor does a file without end."""
    ignore = Ignore(["*a" * 200 + "b", "**/" * 30 + "x", "[" * 500, *("a*" for _ in range(100_000))])
    assert ignore.leaves_out("a" * 250) and not ignore.leaves_out("/".join("y" * 60))


# -- code --------------------------------------------------------------------------------------------------------------


def test_a_folder_of_sources(tmp_path: Path, store: CodeStore) -> None:
    """Sources are kept where they lie; data, keys, environments, runs and links are not, nor what is ignored."""
    folder = tmp_path / "project"
    for name in [
        "train.py", "conf/model.yaml", "nested/deep/util.py", "data.npy", "secrets.yaml", ".env", "old/train.py",
        "venv/pyvenv.cfg", "venv/lib.py", "flightlog/CACHEDIR.TAG", "flightlog/copy.py", ".git/hook.py", "huge.py",
        "__pycache__/x.py", "Dockerfile", "env.py",
    ]:  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\n")
    (folder / "huge.py").write_text("x" * (2 << 20))
    (folder / ".flightlogignore").write_text("/old/\n")
    (folder / "link.py").symlink_to("/etc/passwd")
    facts = save_folder(store, folder)
    assert sorted(entry["path"] for entry in store.entries) == [
        "code/Dockerfile", "code/conf/model.yaml", "code/env.py", "code/nested/deep/util.py", "code/train.py",
    ]  # fmt: skip
    assert facts == {"folder": str(folder), "left_out": 2}  # the huge one and the link


def test_the_store_has_bounds_and_true_hashes(tmp_path: Path) -> None:
    """Neither more bytes nor more files than agreed, and no path out of it."""
    store = CodeStore(tmp_path, max_total=100, max_files=3)
    assert store.add("a.py", b"x" * 60) and not store.add("b.py", b"x" * 60) and store.add("c.py", b"y")
    assert not store.add("../out.py", b"x") and not store.add("/etc/x", b"x")
    assert store.add("d.py", f"'{KEY}'".encode()) and not store.add("e.py", b"")
    for entry in store.entries:
        content = (tmp_path / entry["path"]).read_bytes()
        assert entry["size"] == len(content) and entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert KEY.encode() not in content


def test_processes_of_one_run_do_not_write_over_each_other(tmp_path: Path) -> None:
    """What a record named stays as it was, whoever resumes the run or shares its directory."""
    stores = [CodeStore(tmp_path) for _ in range(3)]
    for number, store in enumerate(stores):
        store.add("a.py", b"%d" % number)
        store.add("b.py", b"b")
    assert [s.entries[0]["path"] for s in stores] == ["code/a.py", "code-2/a.py", "code-3/a.py"]
    assert [(tmp_path / s.entries[0]["path"]).read_bytes() for s in stores] == [b"0", b"1", b"2"]


@given(st.binary(max_size=300), st.integers(0, 300))
def test_code_comes_through_as_it_is_but_for_keys(content: bytes, at: int) -> None:
    """Odd bytes too."""
    assert without_keys(content) == content or b"hf_" in content
    assert KEY.encode() not in without_keys(
        content[:at].replace(b"\0", b"") + b"\n" + KEY.encode() + b"\n" + content[at:].replace(b"\0", b"")
    )


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A pipe or a device would hold the reader up for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert read_bounded(tmp_path / "pipe") is None is read_bounded(tmp_path) is read_bounded(Path("/dev/zero"))
    assert read_bounded(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "name",
    [
        ".env", ".env.local", ".envrc", "prod.env", "id_rsa", "id_ed25519_work", "a.pem", ".netrc", "_netrc", ".pypirc",
        ".npmrc", "x/.ssh/config", "tokens.json", "kaggle.json", ".kaggle/x", "credentials.json", "credentials",
        ".aws/config", "token", "stored_tokens", "huggingface_token.txt",
        "application_default_credentials.json", "my-service-account.json",
        "my-project-0123456789ab.json", "client_secret_1.json", "rootkey.csv", "accessKeys.csv", "rclone.conf", ".boto",
        "a.ppk", "release.keystore", ".streamlit/secrets.toml", ".databrickscfg", ".my.cnf", ".git-credentials",
        "terraform.tfvars",
    ],
)  # fmt: skip
def test_files_that_hold_keys(name: str) -> None:
    """Told by their names."""
    assert holds_keys(name)


@pytest.mark.parametrize(
    "name",
    [
        "env.py",
        "environment.yml",
        "tokens.py",
        "tokenizer.json",
        "train.py",
        "keyboard.txt",
        "config.json",
        "vocab-0123.json",
        "kaggle.py",
        "monkey.csv",
    ],
)
def test_files_that_hold_none(name: str) -> None:
    """Though they sound like it."""
    assert not holds_keys(name)


# -- what is known at once, and the whole ------------------------------------------------------------------------------


def test_what_is_known_at_once(script: Script, tmp_path: Path) -> None:
    """From a real command line, under a launcher's environment; no secret in it."""
    source = "import json; from flightlog.provenance.quick import quick; print(json.dumps(quick()))"
    done = script(
        source, "--api-key", KEY, "--lr", "0.1", "--note=x12345678y", RANK="3", WORLD_SIZE="8", MY_TOKEN="12345678"
    )
    facts = json.loads(done.stdout)
    assert facts["command"][-5:] == ["--api-key", REDACTED, "--lr", "0.1", f"--note=x{REDACTED}y"]
    assert facts["ranks"] == {"RANK": "3", "WORLD_SIZE": "8"} and facts["cwd"] == str(tmp_path)
    assert facts["executable"] == sys.executable and facts["os"].startswith("Linux") and facts["host"]
    assert quick()["python"].startswith("3.")


def test_variables_that_tell_of_the_job_and_of_nothing_else() -> None:
    """A list of what is wanted, without its secrets, each value bounded."""
    environ = {
        "SLURM_JOB_ID": "17", "CUDA_VISIBLE_DEVICES": "0,1", "HF_TOKEN": "abcdefghij", "HF_HOME": "/x/abcdefghij",
        "FLIGHTLOG_API_KEY": "k" * 20, "HOME": "/home/me", "MY_DIARY": "private", "NCCL_DEBUG": "x" * 5000,
        "AWS_SECRET_ACCESS_KEY": "no", "FLIGHTLOG_BASE_URL": "https://me:pw@host", "PYTHONPATH": "/a:/b",
    }  # fmt: skip
    shown = variables(environ=environ)
    assert shown == {
        "SLURM_JOB_ID": "17", "CUDA_VISIBLE_DEVICES": "0,1", "HF_TOKEN": REDACTED, "HF_HOME": f"/x/{REDACTED}",
        "FLIGHTLOG_API_KEY": REDACTED, "NCCL_DEBUG": "x" * 1000, "FLIGHTLOG_BASE_URL": f"https://{REDACTED}@host",
        "PYTHONPATH": "/a:/b",
    }  # fmt: skip
    assert variables(["HF_TOKEN"], environ)["HF_TOKEN"] == "abcdefghij"


def test_packages_are_those_that_python_itself_finds() -> None:
    """Compared with importlib.metadata, which reads every one of their files."""
    expected: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        name = found.metadata["Name"].lower().replace("_", "-").replace(".", "-")
        expected.setdefault(name, found.version)
    assert packages() == expected


def test_the_whole_is_one_record_and_its_files(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every part is there, in JSON, under its bound; the files it lists are there with their hashes."""
    monkeypatch.chdir(repository)
    (repository / "train.py").write_text("changed\n")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(repository / "train.py"), raising=False)
    files = tmp_path / "run" / "files"
    data = slow(files, save_code=".")
    assert len(orjson.dumps(data)) < 512 << 10
    assert {"packages", "program", "git", "files", "code"} <= set(data) and "unfinished" not in data
    assert data["program"] == {"path": str(repository / "train.py"), "saved": True}
    assert sorted(entry["path"] for entry in data["files"]) == ["code/diff.patch", "code/train.py"]
    for entry in data["files"]:
        assert hashlib.sha256((files / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
    assert not slow(tmp_path / "none", save_code=False)["files"] and not (tmp_path / "none").exists()
    with pytest.raises(UsageError, match="save_code=3"):
        slow(files, save_code=3)  # type: ignore[arg-type]


def test_an_installed_command_does_not_say_where_the_code_is(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment in a repository of its own: the working directory's counts; the script's, where it is one."""
    command, elsewhere = tmp_path / "home" / "env" / "bin" / "train", tmp_path / "elsewhere"
    command.parent.mkdir(parents=True)
    command.touch()
    elsewhere.mkdir()
    git(tmp_path / "home", "init", "-q")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(command), raising=False)
    assert home(repository) == home(elsewhere) == command.parent
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "home" / "env"))
    assert home(repository) == repository
    assert home(elsewhere) == command.parent


def test_a_notebook_is_kept_without_its_outputs(
    tmp_path: Path, store: CodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the front end names it; what the cells showed is data."""
    from flightlog.provenance.code import save_program

    cell = {"cell_type": "code", "source": ["x = 1"], "outputs": [{"data": "picture" * 1000}], "execution_count": 3}
    (tmp_path / "train.ipynb").write_text(json.dumps({"cells": [cell, {"cell_type": "markdown"}], "nbformat": 4}))
    monkeypatch.setitem(sys.modules, "IPython", sys)
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "train.ipynb"))
    assert save_program(store) == {"path": str(tmp_path / "train.ipynb"), "saved": True}
    kept = json.loads((tmp_path / "run" / "files" / "code" / "train.ipynb").read_text())
    assert kept["cells"][0] == {**cell, "outputs": [], "execution_count": None}


def test_collecting_on_a_thread(tmp_path: Path) -> None:
    """One record, however often one waits for it, and no thread is left."""
    handed: list[dict[str, Any]] = []
    collector = Collector(tmp_path, handed.append)
    collector.start()
    collector.finish(30)
    collector.finish(30)
    assert len(handed) == 1 and "packages" in handed[0]
    assert not [t for t in threading.enumerate() if t.name == "flightlog-provenance"]


def test_a_part_that_hangs_does_not_hold_up_the_end(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known by then is handed over, with the names of what is not."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "git").write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    (tools / "git").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.chdir(repository)
    monkeypatch.setattr(git_part, "CALL_SECONDS", 1.5)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    handed: list[dict[str, Any]] = []
    collector = Collector(tmp_path / "files", handed.append)
    collector.start()
    until = time.monotonic() + 30
    while "hardware" not in {*collector._found, *collector._failed} and time.monotonic() < until:
        time.sleep(0.01)
    collector.finish(0.1)
    assert handed[0]["unfinished"] == ["git"] and "packages" in handed[0]
    assert collector._thread is not None
    collector._thread.join(30)
    assert len(handed) == 1


def test_a_forked_child_hands_over_nothing(script: Script) -> None:
    """The thread is its parent's."""
    source = """
import os, warnings
from pathlib import Path
from flightlog.provenance.collect import Collector
warnings.simplefilter("ignore")
collector = Collector(Path("files"), lambda data: print(os.getpid() == parent, flush=True))
parent = os.getpid()
collector.start()
if os.fork() == 0:
    collector.finish(0.1)
    os._exit(0)
os.wait()
collector.finish(30)
"""
    assert script(source).stdout == "True\n"
