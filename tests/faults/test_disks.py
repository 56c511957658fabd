"""Disks that are full or read-only, on either side: said in a sentence, nothing half there, and well again later."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from .fleet import MIB, Forge, Training
from .machine import Machine, results
from .proxy import Proxy
from .service import Service, started
from .truth import Truth, claims


def fill(disk: Path, *, leave: int = 0) -> Path:
    """Fill a disk up to its last byte, or but for a few; return the ballast."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
        if leave:
            file.truncate(file.tell() - leave)
    return ballast


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@pytest.fixture
def cramped(small_disk: Path, forge: Forge) -> Iterator[Service]:
    """A server whose data are on a disk of 4 MiB."""
    with started(small_disk, forge) as server:
        yield server


def test_the_servers_disk_fills_up_with_files(
    training: Training, cramped: Service, forge: Forge, tmp_path: Path
) -> None:
    """Packs that find no room: the sync fails and says why, the server lives, and with room the next one goes on."""
    training.do("artifact", name="large", sizes=[3 * MIB, 3 * MIB])
    training.finish()
    with Proxy(cramped.port) as proxy, Machine(tmp_path / "machine", proxy.url, cramped.key, forge) as machine:
        said = machine.sync(training.run, timeout=0)
        assert said.code == 1 and "disk is full" in str(results(said)[0]["error"]), said
        assert claims(training.run, proxy.url) is None
        truth = Truth([training.run], training.address)
        truth.nothing_wrong_yet(cramped)
        assert not list(cramped.data.rglob(".put.*")), "half a pack was left behind"
        resize(cramped.folder, "64m")
        assert machine.sync(training.run, timeout=0).code == 0
        truth.compare(cramped)
        assert proxy.resent_bytes() <= max(1, proxy.most_packs) * proxy.largest_pack()


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_servers_disk_fills_up_with_records(
    killed: bool, training: Training, cramped: Service, forge: Forge, tmp_path: Path
) -> None:
    """A database that finds no room: what was taken stays, and what was refused comes with the next sync.

    So it is, too, when the server is killed in this state: with room it starts on what it has.
    """
    training.do("log", count=100, text=8000)
    training.finish()
    ballast = fill(cramped.folder, leave=300 << 10)
    truth = Truth([training.run], training.address)
    with Machine(tmp_path / "machine", cramped.url, cramped.key, forge) as machine:
        said = machine.sync(training.run, timeout=0)
        assert said.code == 1 and "disk is full" in str(results(said)[0]["error"]), said
        truth.nothing_wrong_yet(cramped)
        if killed:
            cramped.kill()
        ballast.unlink()
        resize(cramped.folder, "64m")
        if killed:
            cramped.start()
        assert machine.sync(training.run, timeout=0).code == 0
    truth.compare(cramped)


def test_the_servers_temporary_folder_is_full(
    training: Training, small_disk: Path, forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request so large that it has to be put aside, and cannot: the same sentence, and the same way out."""
    resize(small_disk, "32m")
    monkeypatch.setenv("TMPDIR", str(small_disk))
    with started(tmp_path / "server", forge) as server:
        monkeypatch.delenv("TMPDIR")
        with Machine(tmp_path / "machine", server.url, server.key, forge, small=False) as machine:
            training.do("log", count=400, text=8000)
            assert machine.sync(training.run).code == 0  # from now on the server knows this folder as its own
            ballast = fill(small_disk)
            training.do("log", count=400, text=8000)
            training.finish()
            said = machine.sync(training.run, timeout=0)
            assert said.code == 1 and "disk is full" in str(results(said)[0]["error"]), said
            ballast.unlink()
            assert machine.sync(training.run, timeout=0).code == 0
        Truth([training.run], training.address).compare(server)


def test_the_clients_disk_is_full(
    training: Training, server: Service, proxy: Proxy, here: Machine, small_disk: Path
) -> None:
    """No room for sync.json beside the run: it is kept in the user's state folder, and the run counts as delivered."""
    training.finish()
    run = small_disk / training.run.name
    resize(small_disk, "16m")
    shutil.copytree(training.run, run)
    fill(small_disk)
    said = here.sync(run)
    assert said.code == 0, said
    assert not (run / "sync.json").exists() and not list(run.glob(".sync*")), "rubbish on a full disk"
    again = here.sync(run)
    assert again.code == 0 and results(again)[0]["status"] == "up_to_date", again
    Truth([run], training.address).compare(server)


def test_cleaning_makes_room_on_a_full_disk(
    training: Training, server: Service, here: Machine, small_disk: Path
) -> None:
    """Not a byte is free: what is proven goes all the same, and what a requeued job needs is left behind."""
    training.finish()
    run = small_disk / training.run.name
    resize(small_disk, "16m")
    shutil.copytree(training.run, run)
    fill(small_disk)
    said = here.sync(run, options=("--clean",))
    assert said.code == 0 and results(said)[0]["cleaned"], said
    (left,) = (small_disk / ".delivered").iterdir()
    assert orjson.loads(left.read_bytes())["delivered_to"] == [here.url]
    assert {path.name for path in small_disk.iterdir()} == {"ballast", ".delivered"}
    Truth([training.run], training.address).compare(server)


def test_where_nothing_can_be_left_behind_the_run_stays_as_it_was(
    training: Training, here: Machine, server: Service
) -> None:
    """Something is in the way of .delivered: the error names it, and the run has its own name, and is delivered."""
    training.finish()
    (training.run.parent / ".delivered").write_text("")
    said = here.sync(training.run, options=("--clean",))
    assert said.code == 1 and ".delivered" in str(results(said)[0]["error"]), said
    assert training.run.is_dir() and not list(training.run.parent.glob("*.cleaning"))
    assert results(here.sync(training.run))[0]["status"] == "up_to_date"
    Truth([training.run], training.address).compare(server)


def test_no_disk_of_the_client_takes_anything(
    training: Training, server: Service, forge: Forge, small_disk: Path, proxy: Proxy
) -> None:
    """Run, home and temporary folder on one full disk: what can be read is delivered, and never said to be in vain."""
    training.finish()
    run = small_disk / training.run.name
    resize(small_disk, "16m")
    shutil.copytree(training.run, run)
    with Machine(small_disk, proxy.url, server.key, forge) as here:
        here.home.mkdir()
        fill(small_disk)
        for _ in range(2):
            said = here.sync(run, TMPDIR=str(small_disk))
            assert said.code in (0, 1) and "Traceback" not in said.err, said
            if said.code == 0:
                Truth([run], training.address).compare(server)
        (small_disk / "ballast").unlink()
        assert here.sync(run, TMPDIR=str(small_disk)).code == 0
    Truth([run], training.address).compare(server)


def test_a_pack_finds_no_room_in_the_clients_temporary_folder(
    training: Training, server: Service, here: Machine, small_disk: Path
) -> None:
    """A pack that is put aside on a full disk: a sentence and status 1, not a traceback; elsewhere it works."""
    training.do("artifact", name="large", sizes=[9 * MIB])
    training.finish()
    fill(small_disk)
    said = here.sync(training.run, TMPDIR=str(small_disk))
    assert said.code in (0, 1) and "Traceback" not in said.err, said
    if said.code == 1:
        assert "No space left" in str(results(said)[0]["error"]), said
    assert here.sync(training.run).code == 0
    Truth([training.run], training.address).compare(server)


def test_a_run_that_can_only_be_read(
    training: Training, server: Service, here: Machine, small_disk: Path, proxy: Proxy
) -> None:
    """A read-only medium: delivered, known as delivered the next time, and --clean deletes nothing and says so."""
    training.finish()
    run = small_disk / training.run.name
    resize(small_disk, "16m")
    shutil.copytree(training.run, run)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert here.sync(run).code == 0
    again = here.sync(run)
    assert again.code == 0 and results(again)[0]["status"] == "up_to_date", again
    said = here.sync(run, options=("--clean",))
    assert said.code == 1 and "Read-only" in str(results(said)[0]["error"]) and run.exists(), said
    Truth([run], training.address).compare(server)
