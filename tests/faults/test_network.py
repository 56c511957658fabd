"""Networks and servers that misbehave in ways a random draw may miss; a process that does not end is a failure, too."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import proxy as net
from .fleet import MIB, Forge, Training
from .machine import Machine, results
from .proxy import Proxy, Rule
from .scenario import FLEETING, LASTING
from .service import Service, started
from .truth import Truth, claims


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The address of something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hole:
        yield f"http://127.0.0.1:{hole.getsockname()[1]}"


def test_a_black_hole(black_hole: str, server: Service, training: Training, forge: Forge, tmp_path: Path) -> None:
    """A server that takes the connection and never answers: --timeout bounds that as well."""
    with Machine(tmp_path / "machine", black_hole, server.key, forge) as machine:
        said = machine.syncing(training.run, timeout=2).wait(20)
    assert said.code == 1 and "Traceback" not in said.err and black_hole in said.err, said


def test_a_request_that_is_never_answered(server: Service, training: Training, here: Machine, proxy: Proxy) -> None:
    """One request in the midst disappears without an answer: the sync does not wait for it for ever."""
    gone = threading.Event()

    def swallow(exchange: net.Exchange) -> None:
        exchange.read()
        gone.wait(20)

    proxy.rules = [Rule("missing", swallow)]
    said = here.syncing(training.run, timeout=2).wait(20)
    gone.set()
    assert said.code in (0, 1) and "Traceback" not in said.err, said
    assert here.sync(training.run).code == 0


def test_after_a_pack_that_failed_no_other_sets_out(training: Training, here: Machine, proxy: Proxy) -> None:
    """The first pack hangs and the second is refused: those on their way arrive, the rest would be sent for nothing."""
    training.do("artifact", name="large", sizes=[12 * MIB])
    training.finish()
    full = net.answer(507, b"the disk is full")
    proxy.rules = [Rule("packs", net.stall(2, full)), Rule("packs", full)]
    assert here.sync(training.run, timeout=0).code == 1
    assert len(proxy.packs) <= 4
    assert here.sync(training.run).code == 0


_QUICK = ("lost answer", "503", "captive portal", "cut request")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in _QUICK else [pytest.mark.slow]) for n in (*FLEETING, *LASTING)]
)
def test_at_every_single_request(name: str, training: Training, here: Machine, proxy: Proxy, server: Service) -> None:
    """The same trouble at the first request, at the second …, each time ending the sync: it still comes to an end.

    Every attempt must get at least as far as the one before, so there are never more attempts than requests.
    """
    training.finish()
    fault = {**FLEETING, **LASTING}[name]
    for skip in range(0, 40, 3):
        proxy.rules = [Rule("any", fault, skip, name)]
        said = here.sync(training.run, timeout=0)
        assert "Traceback" not in said.err, said
        if said.code == 0:
            break
        assert said.code in (1, 3) and claims(training.run, proxy.url) is None, said
    proxy.rules = []
    assert here.sync(training.run).code == 0
    Truth([training.run], training.address).compare(server)
    assert proxy.resent_bytes() <= len(proxy.met) * proxy.largest_pack()


def test_only_the_pack_under_way_is_sent_again(
    forge: Forge, here: Machine, proxy: Proxy, server: Service, tmp_path: Path
) -> None:
    """SIGKILL in the midst of each pack in turn, of a run of many: a kill costs the packs under way and no other."""
    training = forge.training().begin(tmp_path / "runs", seed=5)
    training.do("artifact", name="model", sizes=[3 * MIB, 3 * MIB])
    training.finish()
    for turn in range(6):
        reached = threading.Event()
        proxy.rules = [Rule("packs", net.acting(reached.set, "midway"), skip=1)]
        command = here.syncing(training.run)
        while not reached.wait(0.005) and proxy.statuses[-1:] != [("receipt", 200)]:
            pass
        command.kill()
        command.wait()
        done = here.sync(training.run, timeout=0) if turn == 5 else None
    assert done is not None and done.code == 0
    Truth([training.run], training.address).compare(server)
    at_once = max(1, proxy.most_packs)
    assert proxy.resent_bytes() <= 6 * at_once * proxy.largest_pack(), [p.status for p in proxy.packs]


def test_the_server_is_away_for_a_while(training: Training, here: Machine, proxy: Proxy, server: Service) -> None:
    """Every connection is reset for two seconds in the midst of a sync: it is waited out, and status 0 is true."""

    def go() -> None:
        proxy.down = True
        threading.Timer(2.0, lambda: setattr(proxy, "down", False)).start()
        raise net.Reset

    proxy.rules = [Rule("packs", net.acting(go))]
    said = here.sync(training.run, timeout=30)
    assert said.code == 0, said
    training.finish()
    assert here.sync(training.run).code == 0
    Truth([training.run], training.address).compare(server)


def test_a_key_that_is_revoked_in_the_midst(
    training: Training, server: Service, forge: Forge, proxy: Proxy, tmp_path: Path
) -> None:
    """401 in the middle of a run: status 2, nothing marked; with a new key it goes on where it was."""
    key = server.create_user(f"guest-{training.number}")
    training.finish()
    (hint,) = [h for (h,) in server.query("SELECT hint FROM api_keys") if key.startswith(h)]
    proxy.rules = [
        Rule("packs", net.acting(lambda: server.execute("UPDATE api_keys SET revoked_at = 1 WHERE hint = ?", hint)))
    ]
    with Machine(tmp_path / "machine", proxy.url, key, forge) as machine:
        said = machine.sync(training.run)
        assert said.code == 2 and "Traceback" not in said.err, said
        assert claims(training.run, proxy.url) is None
        server.execute("UPDATE api_keys SET revoked_at = NULL WHERE hint = ?", hint)
        assert machine.sync(training.run).code == 0


def test_another_server_at_the_same_address(
    training: Training, forge: Forge, proxy: Proxy, here: Machine, tmp_path: Path
) -> None:
    """The server was set up anew, with an empty disk, behind the same address: everything is delivered once more."""
    training.finish()
    assert here.sync(training.run).code == 0
    with started(tmp_path / "another", forge) as another:
        proxy.port, here.key = another.port, another.key
        said = here.sync(training.run)
        assert said.code == 0 and results(said)[0]["status"] == "delivered", said
        Truth([training.run], training.address).compare(another)


@pytest.mark.parametrize("how", ["by a plain sync", "with --include-synced", "by another machine"])
def test_a_server_set_back_to_a_backup(
    how: str, training: Training, forge: Forge, proxy: Proxy, here: Machine, tmp_path: Path
) -> None:
    """The server's data of an hour ago are put back: what it has lost is delivered again, and nothing is double.

    Meanwhile nothing is cleaned on the word of what sync.json remembers.
    """
    with started(tmp_path / "server", forge) as own:
        proxy.port, here.key = own.port, own.key
        assert here.sync(training.run).code == 0
        own.stop()
        shutil.copytree(own.data, tmp_path / "backup")
        own.start()
        training.do("log", count=50)
        training.do("artifact", name="model", sizes=[MIB])
        training.finish()
        assert here.sync(training.run).code == 0
        own.stop()
        shutil.rmtree(own.data)
        shutil.copytree(tmp_path / "backup", own.data)
        own.start()
        here.start("clean", training.run, "--server", here.url).wait()
        assert training.run.exists(), "cleaned, though the server has lost it"
        if how == "by another machine":
            (training.run / "sync.json").unlink()
        said = here.sync(training.run, options=("--include-synced",) if how == "with --include-synced" else ())
        assert said.code == 0 and int(str(results(said)[0]["records_sent"])) > 50, said
        Truth([training.run], training.address).compare(own)


def test_requests_that_come_late(training: Training, here: Machine, proxy: Proxy, server: Service) -> None:
    """Every request of a sync reaches the server once more after the sync has ended: nothing changes."""
    proxy.rules = [Rule("any", net.again_later(1000)) for _ in range(60)]
    training.finish()
    assert here.sync(training.run).code == 0
    proxy.rules = []
    truth = Truth([training.run], training.address)
    truth.compare(server)
    before = server.api("GET", f"runs/{training.address}/receipt").json()
    proxy.deliver_late()
    truth.compare(server)
    assert server.api("GET", f"runs/{training.address}/receipt").json() == before
