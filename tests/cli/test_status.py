"""`flightlog status`: what is pending, how much, how old, and what blocks it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flightlog.rundir import RunDir

from ..server.tools import Server, add_media, line, on_terminal, quick, run_dir
from .tools import age, recorded


def standing(*words: str | Path, home: Path, **more: str) -> dict[str, dict[str, object]]:
    """Return what `status --json` says, by run id or, where that is unknown, by the directory's name."""
    said = quick("status", *words, "--json", home=home, **more)
    assert said.code == 0, said
    return {str(r["id"] or Path(r["path"]).name): r for r in json.loads(said.out)["runs"]}


def test_every_way_a_run_can_stand_is_told(server: Server, home: Path, place: Path, run_id: str) -> None:
    """Delivered, grown since, never delivered, damaged, and no run that anybody can tell: each with its reason."""
    done = recorded(place, f"{run_id}done")
    grown = run_dir(place / "run-grown", f"{run_id}grown")
    hurt = run_dir(place / "run-hurt", f"{run_id}hurt")
    (hurt / "files" / add_media(hurt, "a.txt", b"hello")).write_bytes(b"other")
    assert server.sync(place, home=home).code == 3
    with (grown / "files" / "journal" / ("w" * 16) / "000001.jsonl").open("ab") as journal:
        journal.write(line(23, "log", {"loss": 1}))
    new = recorded(place, f"{run_id}new", size=70_000)
    age(new, 3 * 86400)
    (place / "run-blank" / "files" / "journal").mkdir(parents=True)
    (place / "run-blank" / "latest.spec").write_text("{")
    key = {"FLIGHTLOG_API_KEY": server.key, "FLIGHTLOG_BASE_URL": server.url}
    found = standing(place, home=home, **key)
    assert {name: (run["status"], run["pending"]) for name, run in found.items()} == {
        f"{run_id}done": ("delivered", False),
        f"{run_id}grown": ("pending", True),
        f"{run_id}hurt": ("damaged", True),
        f"{run_id}new": ("pending", True),
        "run-blank": ("damaged", True),
    }
    assert "grown since" in str(found[f"{run_id}grown"]["note"])
    assert "a.txt" in str(found[f"{run_id}hurt"]["trouble"])
    assert int(str(found[f"{run_id}new"]["pending_bytes"])) > 70_000
    assert int(str(found[f"{run_id}grown"]["pending_bytes"])) < 1000
    assert found[f"{run_id}done"]["delivered_to"] == server.url
    said = quick("status", place, home=home, **key)
    assert f"{run_id}done" not in said.out and "3 d old" in said.out and "3 runs pending" in said.out, said
    assert "1 run cannot be delivered" in said.out, said
    assert "blocked" not in said.out
    assert f"name-{run_id}done" in quick("status", place, "--all", home=home, **key).out
    shutil.rmtree(place)
    assert not done.path.exists()


@pytest.mark.parametrize(
    "wrong", [{"journal": [1]}, {"journal": {"w": 1}}, {"url": ["x"]}, {"server_id": 1}, {"faults": 1}], ids=str
)
def test_a_strangers_sync_json_harms_nobody(home: Path, place: Path, run_id: str, wrong: dict[str, object]) -> None:
    """Facts of kinds that none of ours has written are no facts: the run is pending, and every other one is listed."""
    run, _ = (run_dir(place / f"run-{name}", f"{run_id}{name}") for name in "ab")
    said = {"server_id": "s", "workspace": "w", "project": "p", "url": "", "complete": True, **wrong}
    (run / "sync.json").write_text(json.dumps({"format": 1, "servers": {"http://127.0.0.1:9": said}}))
    found = standing(place, home=home, FLIGHTLOG_BASE_URL="http://127.0.0.1:9")
    assert [(r["status"], r["note"]) for r in found.values()] == [("pending", "never delivered")] * 2


def test_what_blocks_everything_is_said(server: Server, home: Path, place: Path, run_id: str) -> None:
    """No key, an address that only a project file names, a server that is away or refuses the key (--ask)."""
    recorded(place, run_id)

    def blocked(*words: str, **more: str) -> str | None:
        said = quick("status", place, "--json", *words, home=home, cwd=place, **more)
        assert said.code == 0 and server.key not in said.out, said
        found: str | None = json.loads(said.out)["blocked"]
        return found

    url = {"FLIGHTLOG_BASE_URL": server.url}
    assert "FLIGHTLOG_API_KEY" in str(blocked(**url))
    assert blocked(FLIGHTLOG_API_KEY=server.key, **url) is None
    assert blocked("--ask", FLIGHTLOG_API_KEY=server.key, **url) is None
    assert "no account here has it" in str(blocked("--ask", FLIGHTLOG_API_KEY="fl_00000000_wrong", **url))
    away = {"FLIGHTLOG_BASE_URL": "http://127.0.0.1:9", "FLIGHTLOG_API_KEY": server.key}
    assert blocked(**away) is None and "cannot be reached" in str(blocked("--ask", **away))
    (place / "flightlog.toml").write_text(f'base_url = "{server.url}"\n')
    assert "flightlog.toml" in str(blocked(FLIGHTLOG_API_KEY=server.key))
    assert "blocked: " in quick("status", place, home=home, **url).out


def test_status_asks_nothing_of_anybody(server: Server, home: Path, place: Path, run_id: str) -> None:
    """On a terminal, without a key, it prompts for none; an empty folder and one without runs are said."""
    from ..server.tools import command, environment

    recorded(place / "flightlog", run_id)
    said = on_terminal(command("status"), environment(home, FLIGHTLOG_BASE_URL=server.url, TERM="xterm"), place)
    assert said.code == 0 and "never delivered" in said.out, said
    assert "no runs below" in quick("status", home=home).out
    assert quick("status", place / "nothing", home=home).code == 2


def test_a_run_of_a_later_format_is_left_to_a_later_flightlog(
    server: Server, home: Path, place: Path, run_id: str
) -> None:
    """What is not known how to be read is neither called delivered nor cleaned; the other runs go on."""
    later, other = RunDir(run_dir(place / "run-a", run_id)), run_dir(place / "run-b", f"{run_id}b")
    later.write_spec({**later.read_spec(), "format": 7})
    said = server.sync(place, home=home, options=("--clean",))
    assert said.code == 1 and {r["status"] for r in said.runs} == {"failed", "delivered"}, said
    (error,) = (str(r["error"]) for r in said.runs if r["status"] == "failed")
    assert str(later.spec_path) in error and "format 7" in error and later.path.exists() and not other.exists()
    said = quick("status", place, home=home)
    assert "format 7" in said.out and "1 run cannot be delivered" in said.out and "flightlog sync" not in said.out, said
    said = quick("sync", place, home=home, FLIGHTLOG_API_KEY=server.key, FLIGHTLOG_BASE_URL=server.url)
    assert said.code == 1 and said.err.startswith(f"failed     run-a: {later.spec_path}: "), said


@pytest.mark.parametrize("spec", [b"{", b"[]", b'{"id": 1}'])
def test_a_broken_spec_does_not_hide_the_others(home: Path, place: Path, run_id: str, spec: bytes) -> None:
    """Garbage for a latest.spec is told by the journal; without one too it is damage, and the others are listed."""
    run_dir(place / "run-a", run_id)
    broken = RunDir(run_dir(place / "run-b", f"{run_id}b"))
    broken.spec_path.write_bytes(spec)
    assert set(standing(place, home=home)) == {run_id, f"{run_id}b"}
    shutil.rmtree(broken.files)
    found = standing(place, home=home)
    assert found["run-b"]["trouble"] and found[run_id]["pending"]
