"""use_artifact in a training whose disk has nothing: the version comes from the server, when the script asks for it."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog.artifacts import Lineage
from flightlog.errors import DamagedError, NotFound

from .tools import Server, environment


def deliver(server: Server, place: Path, home: Path, script: str) -> None:
    """Record a run and deliver it, so that only the server has it in the end."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=place, env=environment(home, FLIGHTLOG_CONSOLE="off", FLIGHTLOG_PROVENANCE="false"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = server.sync(place, home=home)
    assert said.code == 0, said


MAKER = """
    import flightlog, pathlib
    from flightlog.artifacts import Artifact
    artifact = Artifact("{name}", "dataset", "cleaned", {{"rows": 3}})
    for n in range(3):
        with artifact.new_file(f"part/{{n}}", "wb") as file:
            file.write(bytes([n]) * 1000 * (n + 1))
    artifact.add_reference("s3://bucket/raw", "raw", size=1)
    with flightlog.init("shared", id="{run}") as run:
        run.log_artifact(artifact, aliases="clean")
"""


@pytest.fixture
def signed_in(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The settings of a user of the shared server."""
    monkeypatch.setenv("FLIGHTLOG_BASE_URL", server.url)
    monkeypatch.setenv("FLIGHTLOG_API_KEY", server.key)
    return server


def test_a_version_of_the_server_is_used_and_fetched_when_needed(
    signed_in: Server, place: Path, home: Path, run_id: str, tmp_path: Path
) -> None:
    """Name, type, description, metadata, lineage; files one by one, all, or into a folder; then from this disk."""
    name = f"set-{run_id}"
    deliver(signed_in, place, home, MAKER.format(name=name, run=run_id))
    run = flightlog.init("mine", dir=tmp_path / "here")
    used = run.use_artifact(f"shared/{name}:clean", type="dataset")
    assert (used.name, used.project, used.version, used.made_by, used.type) == (name, "shared", "v0", run_id, "dataset")
    assert (used.description, used.metadata, used.aliases) == ("cleaned", {"rows": 3}, ("latest", "clean"))
    assert [r.uri for r in used.references] == ["s3://bucket/raw"] and used.state == "logged" and used.wait() is used
    assert not list((tmp_path / "here").rglob("part/*")), "nothing is fetched before it is needed"
    one = used.file("part/1")
    assert one.read_bytes() == b"\1" * 2000 and not (one.parent / "0").exists()
    folder = used.download(tmp_path / "out")
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["0", "1", "2"]
    assert (used.files / "part" / "2").read_bytes() == b"\2" * 3000
    used.verify()
    again = run.use_artifact(f"shared/{name}:v0")
    assert again.download(tmp_path / "again") == tmp_path / "again" and again.digest == used.digest
    run.finish()
    lineage = Lineage(tmp_path / "here")
    assert [(use.name, use.made_by, use.project, use.version) for use in lineage.inputs_of(run.id)] == [
        (name, run_id, "shared", "v0")
    ] * 2
    assert [used_by.run for used_by in lineage.users_of(used.digest)] == [run.id, run.id]
    assert [r.id for r in flightlog.Api(tmp_path / "here").runs()] == [run.id]  # what was fetched is no run


def test_this_disk_comes_first_and_a_workspace_can_be_named(
    signed_in: Server, place: Path, home: Path, run_id: str, tmp_path: Path
) -> None:
    """What is here answers without the server; by workspace only where that is meant."""
    name = f"set-{run_id}"
    deliver(signed_in, place, home, MAKER.format(name=name, run=run_id))
    account = signed_in.api("GET", "me").json()["default_workspace"]
    run = flightlog.init("shared", dir=tmp_path / "here")
    (tmp_path / "own").write_bytes(b"own")
    assert run.use_artifact(f"{account}/shared/{name}").made_by == run_id
    with pytest.raises(NotFound, match="you may see"):
        run.use_artifact(f"nobody/shared/{name}")
    run.log_artifact(tmp_path / "own", name=name)
    assert run.use_artifact(name).file().read_bytes() == b"own"
    with flightlog.init("shared", dir=tmp_path / "off", mode="disabled") as off:
        assert off.use_artifact(f"shared/{name}").file("part/0").read_bytes() == b"\0" * 1000


def test_both_places_are_named_where_there_is_nothing(
    signed_in: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not there, no server, a wrong key, no key for a strange address, a dead server: one sentence, and no question."""
    run = flightlog.init("p", dir=tmp_path / "here")

    def refusal(**variables: str) -> str:
        with monkeypatch.context() as patch:
            for variable in ("FLIGHTLOG_BASE_URL", "FLIGHTLOG_API_KEY"):
                patch.delenv(variable)
                if variable in variables:
                    patch.setenv(variable, variables[variable])
            with pytest.raises(NotFound) as error:
                run.use_artifact("nothing:v3")
        text = str(error.value)
        assert text.startswith(f"there is no artifact p/nothing:v3 below {tmp_path / 'here'}, and ")
        return text

    url, key = signed_in.url, signed_in.key
    assert f"{url} has no artifact p/nothing:v3" in refusal(FLIGHTLOG_BASE_URL=url, FLIGHTLOG_API_KEY=key)
    assert "no server is set up" in refusal()
    assert "no API key" in refusal(FLIGHTLOG_BASE_URL=url)
    assert "API key is wrong" in refusal(FLIGHTLOG_BASE_URL=url, FLIGHTLOG_API_KEY="fl_x_y")
    assert "plain http" in refusal(FLIGHTLOG_BASE_URL="http://example.invalid", FLIGHTLOG_API_KEY=key)
    (tmp_path / "flightlog.toml").write_text(f'base_url = "{url}"\n')
    assert "flightlog.toml" in refusal(FLIGHTLOG_API_KEY=key)
    (tmp_path / "flightlog.toml").unlink()
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{dead.getsockname()[1]}"
        monkeypatch.setattr("flightlog.reading.fetched.PATIENCE", 0.2)
        assert f"{address} cannot be reached" in refusal(FLIGHTLOG_BASE_URL=address, FLIGHTLOG_API_KEY=key)


def test_a_training_opens_no_connection_of_its_own(server: Server, place: Path, home: Path, run_id: str) -> None:
    """Signed in or not: log, artifacts, versions of this disk and finish; only what is not here is asked for."""
    source = """
        import sys
        tries = []
        sys.addaudithook(lambda event, args: tries.append(event) if event.startswith("socket.") else None)
        import flightlog
        open("x", "w").close()
        with flightlog.init("p") as run:
            run.log({"loss": 1})
            run.log_artifact("x")
            assert run.use_artifact("x").file().exists()
            assert not {"socket.connect", "socket.getaddrinfo"}.intersection(tries) and "requests" not in sys.modules
            try:
                run.use_artifact("elsewhere")
            except flightlog.FlightlogError as error:
                print(error)
        assert "socket.connect" in tries
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        cwd=place, capture_output=True, text=True, timeout=60, check=False,
        env=environment(home, FLIGHTLOG_BASE_URL=server.url, FLIGHTLOG_API_KEY=server.key, FLIGHTLOG_CONSOLE="off"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"and {server.url} has no artifact p/elsewhere:latest" in done.stdout


def test_a_server_that_changes_a_file_is_found_out(
    signed_in: Server, place: Path, home: Path, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives is compared with the manifest, and the manifest with its digest."""
    from flightlog.reading.remote import RemoteSource

    name = f"set-{run_id}"
    deliver(signed_in, place, home, MAKER.format(name=name, run=run_id))
    run = flightlog.init("mine", dir=tmp_path / "here")
    used = run.use_artifact(f"shared/{name}")
    stored = next(p for p in signed_in.data.rglob("*.tar") if b"\2" * 3000 in p.read_bytes())
    whole = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(whole.replace(b"\2" * 3000, b"\2" * 2999 + b"\3"))
    try:
        with pytest.raises(DamagedError, match="part/2"):
            used.file("part/2")
        with pytest.raises(DamagedError, match="part/2"):
            used.download(tmp_path / "out")
    finally:
        stored.write_bytes(whole)
    assert used.file("part/2").read_bytes() == b"\2" * 3000
    honest = RemoteSource._get

    def lying(self: RemoteSource, path: str, **params: Any) -> dict[str, Any]:
        answer = honest(self, path, **params)
        if "files" in answer:
            answer["files"][0]["sha256"] = "0" * 64
        return answer

    monkeypatch.setattr(RemoteSource, "_get", lying)
    with pytest.raises(DamagedError, match="digest"):
        run.use_artifact(f"shared/{name}:clean")
