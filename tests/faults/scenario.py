"""One scenario: from a seed to a run, a sequence of troubles, and the sync that must then bring everything home.

What a scenario did is written down as it happens, so that a failure shows it; the same seed does the same again, as far
as processes that race can. Between the troubles, whatever the server holds must be right as far as it goes, no command
may say 0 when it has not proven everything, and sync.json may not claim more than is so. When the troubles are over,
one sync of every directory must be enough.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..server.tools import Said
from . import proxy
from .fleet import MIB, Forge, Training, record
from .machine import Command, Machine, results
from .proxy import Fault, Proxy, Rule
from .service import Service
from .truth import Truth, append, claim_holds, claims, corrupt, is_there, read_journal, sizes_of, there

# What one meets on a network, and what a sync gets over by trying again.
FLEETING: dict[str, Fault] = {
    "reset": proxy.reset,
    "cut request": proxy.cut_request(0.5),
    "cut request at its end": proxy.cut_request(0.999),
    "lost answer": proxy.lose_answer,
    "cut answer": proxy.cut_answer(0.5),
    "no body": proxy.cut_answer(0.0),
    "502": proxy.answer(502),
    "503": proxy.answer(503),
    "504, though done": proxy.late(504),
    "429": proxy.answer(429, Retry_After="1"),
    "stall, then reset": proxy.stall(0.4, proxy.reset),
}
# What ends a sync; the next one goes on.
LASTING: dict[str, Fault] = {
    "captive portal": proxy.answer(200, proxy.PORTAL),
    "other JSON": proxy.answer(200, b"[]", Content_Type="application/json"),
    "redirect": proxy.answer(302, Location="http://portal.example/"),
    "404": proxy.answer(404),
    "413": proxy.answer(413),
    "short request": proxy.short_request(0.6),
}
# What nobody should notice.
HARMLESS: dict[str, Fault] = {
    "twice": proxy.twice,
    "twice at once": proxy.twice_at_once,
    "again later": proxy.again_later(3),
    "stall": proxy.stall(0.3),
    "trickle": proxy.trickle(0.2),
}
_ROUTES = (
    *("hello", "me", "register", "parcels", "parcels", "records", "records", "missing"),
    *("packs", "packs", "files", "manifests", "receipt"),
)


@dataclass
class Scenario:
    """A scenario under way.

    Args:
        seed: what decides about everything.
        folder: the scenario's own.
        server: the server; killed and started again where the seed says so and `kills` allows it.
        forge: where runs are recorded.
        fresh: start an interpreter for every process, instead of forking it.
    """

    seed: int
    folder: Path
    server: Service
    forge: Forge
    fresh: bool = False
    script: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.proxy = Proxy(self.server.port)
        where = None if self.fresh else self.forge
        self.machine = Machine(self.folder / "machine", self.proxy.url, self.server.key, where)
        self.other = Machine(self.folder / "other", self.proxy.url, self.server.key, where)
        self.training: Training = self.forge.training()
        self.trainings = [self.training]
        self.runs: list[Path] = []
        self.interruptions = 0
        self.packs_shared = False  # two syncs at once may both send a pack; so may a copy that was under way
        self.path = ""

    # -- the whole -----------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Record, trouble, end the troubles, sync, compare. Raises AssertionError where anything is not as it must."""
        record(self.training, self.chance, self.folder / "runs", large=self.chance.random() < 0.8)
        self.runs = [self.training.run]
        self.path = self.training.address
        self.say(f"a run of {sum(map(len, read_journal(self.run).values()))} records in {self.run}")
        if self.chance.random() < 0.5:
            self._end_training()
        for _ in range(self.chance.randrange(1, 4)):
            trouble = self.chance.choice(self._troubles())
            self.say(f"-- {trouble.__name__.strip('_').replace('_', ' ')}")
            trouble()
            self.proxy.rules.clear()
            self._all_is_well_so_far()
        self._converge()

    def close(self) -> None:
        """End everything that was begun."""
        for training in self.trainings:
            if training.open:
                training.kill()
        self.machine.close()
        self.other.close()
        self.proxy.close()

    def say(self, what: str) -> None:
        self.script.append(what)

    @property
    def run(self) -> Path:
        return self.runs[0]

    def _end_training(self) -> None:
        how = self.chance.choice(["finish", "finish", "fail", "kill"])
        self.say(f"the training ends: {how}")
        if how == "kill":
            self.training.kill()
        else:
            self.training.finish(exit_code=int(how == "fail"))

    def _troubles(self) -> list[Callable[[], None]]:
        always = [
            self._bad_network,
            self._bad_network,
            self._bad_network_with_patience,
            self._kill_client,
            self._kill_client_at_any_time,
            self._interrupt_client,
            self._kill_server,
            self._kill_both,
            self._two_at_once,
            self._lose_sync_json,
            self._copy_and_sync_from_elsewhere,
            self._move_during_sync,
            self._move_between,
            self._continued_elsewhere,
            self._damaged_for_a_while,
        ]
        growing = [self._grow_during_sync, self._finish_during_sync, self._grow_between]
        return always + (growing * 2 if self.training.open else [])

    # -- troubles ------------------------------------------------------------------------------------------------------

    def _bad_network(self) -> None:
        """Faults that nobody has the patience for: the sync ends with the first that counts."""
        self._script_faults({**FLEETING, **LASTING, **HARMLESS}, self.chance.randrange(1, 4))
        self._sync(timeout=0)
        self._count_met()

    def _bad_network_with_patience(self) -> None:
        """Faults that a sync gets over."""
        self._script_faults({**FLEETING, **HARMLESS}, self.chance.randrange(1, 3))
        said = self._sync(timeout=30)
        assert said.code == 0, f"a sync with patience gave up: {said}"
        self._count_met()

    def _kill_client(self) -> None:
        self._kill_at_a_request(client=True, server=False)

    def _kill_server(self) -> None:
        self._kill_at_a_request(client=False, server=True)

    def _kill_both(self) -> None:
        self._kill_at_a_request(client=True, server=True)

    def _kill_at_a_request(self, *, client: bool, server: bool) -> None:
        struck = threading.Event()
        victim: list[Command] = []
        ready = threading.Event()

        def strike() -> None:
            ready.wait(10)
            if client:
                victim[0].kill()
            if server:
                self.server.kill()
                self.server.start(self.fresh)
            struck.set()

        skip, when = self.chance.randrange(0, 12), self.chance.choice(["before", "midway", "after"])
        self.say(f"kill {'client ' * client}{'server ' * server}at request {skip}, {when}")
        self.proxy.rules = [Rule("any", proxy.acting(strike, when), skip, "kill")]
        victim.append(self.machine.syncing(self.run, timeout=30))
        ready.set()
        said = victim[0].wait()
        while not struck.is_set() and not self.proxy.rules:  # the server is being started again
            struck.wait(10)
        self.interruptions += struck.is_set()
        self._judge(said, killed=client and struck.is_set(), patient=not client)

    def _kill_client_at_any_time(self) -> None:
        delay = self.chance.uniform(0.2, 0.8)
        self.say(f"kill the client after {delay:.3f} s")
        command = self.machine.syncing(self.run)
        threading.Event().wait(delay)
        command.kill()
        self.interruptions += 1
        self._judge(command.wait(), killed=True)

    def _interrupt_client(self) -> None:
        """Ctrl-C, or a batch system's SIGTERM."""
        how = self.chance.choice([signal.SIGINT, signal.SIGTERM])
        skip = self.chance.randrange(0, 12)
        self.say(f"{how.name} at request {skip}")
        victim: list[Command] = []
        ready, struck = threading.Event(), threading.Event()

        def strike() -> None:
            ready.wait(10)
            victim[0].kill(how)
            struck.set()
            struck.wait(0.05)

        self.proxy.rules = [Rule("any", proxy.acting(strike), skip, "interrupt")]
        victim.append(self.machine.syncing(self.run))
        ready.set()
        said = victim[0].wait()
        self.interruptions += struck.is_set()
        self._judge(said, killed=struck.is_set())

    def _two_at_once(self) -> None:
        """Two machines sync the same run: one directory on a shared disk, or a copy of it."""
        self.packs_shared = True
        run = self.run
        if self.chance.random() < 0.5 and not self.training.open:
            run = self._copied("twin")
        self.say(f"two syncs at once, of {self.run.name} and {run.parent.name}/{run.name}")
        one, two = self.machine.syncing(self.run), self.other.syncing(run)
        for said in (one.wait(), two.wait()):
            assert said.code == 0, f"two syncs at once: one failed: {said}"
            self._judge(said)

    def _lose_sync_json(self) -> None:
        self._sync(timeout=20)
        path = self.run / "sync.json"
        how = self.chance.choice(["lost", "garbage", "another run's"])
        self.say(f"sync.json is {how}")
        if how == "lost":
            path.unlink(missing_ok=True)
        elif how == "garbage":
            path.write_bytes(self.chance.randbytes(100))
        elif path.exists():
            known = json.loads(path.read_bytes())
            for entry in known["servers"].values():
                entry.update(journal={"0123456789abcdef": {"000001.jsonl": 1000}}, complete=True)
            path.write_text(json.dumps(known))

    def _copy_and_sync_from_elsewhere(self) -> None:
        self.packs_shared |= self.training.open
        run = self._copied("elsewhere")
        self.say(f"copied to {run.parent.name} and synced from there")
        said = self.other.sync(run)
        assert said.code == 0, f"a copy was not delivered: {said}"
        claim_holds(run, self.proxy.url, self.server, self.path)

    def _continued_elsewhere(self) -> None:
        """A snapshot of the machine goes on by itself: the same writer, other records."""
        copy = self._copied("snapshot")
        journal = read_journal(copy)
        writer = max(journal, key=lambda name: len(journal[name]))
        count = self.chance.randrange(1, 60)
        append(copy, writer, count, f"snapshot {len(self.runs)}")
        self.runs.append(copy)
        self.packs_shared = True
        self.say(f"copied to {copy.parent.name} and continued there by {count} records of {writer}")
        if self.chance.random() < 0.7:
            said = self.other.sync(copy)
            assert said.code == 0, f"a copy that went on was not delivered: {said}"
            claim_holds(copy, self.proxy.url, self.server, self.path)

    def _damaged_for_a_while(self) -> None:
        """Bad blocks, a sync that says so, and a backup that is put back."""
        if self.training.open:
            self._end_training()
        journal = read_journal(self.run)
        writer = self.chance.choice(sorted(journal))
        seqs = sorted(
            self.chance.sample(sorted(journal[writer]), min(len(journal[writer]), self.chance.randrange(1, 6)))
        )
        backup = self._copied("backup")
        corrupt(self.run, writer, seqs)
        said = self.machine.sync(self.run)
        self.say(f"damaged seqs {seqs} of {writer}: exit {said.code}")
        # 0 where nothing is to be sent any more, or where only the end of a run that broke off is torn.
        assert said.code in (0, 3) and "Traceback" not in said.err, said
        shutil.rmtree(self.run / "files" / "journal" / writer)
        shutil.copytree(backup / "files" / "journal" / writer, self.run / "files" / "journal" / writer)

    def _copied(self, name: str) -> Path:
        """Copy the run directory to another place, where it does not grow. Returns the copy."""
        place = self.folder / f"{name}-{len(self.script)}" / self.run.name
        shutil.copytree(self.run, place, symlinks=True)
        return place

    def _move_between(self) -> None:
        if self.training.open:
            self._end_training()
        self._move()
        self._sync(timeout=20)

    def _move(self) -> None:
        place = self.folder / f"moved-{len(self.script)}" / "deeper"
        place.mkdir(parents=True)
        self.say(f"moved to {place}")
        self.runs[0] = self.run.rename(place / self.run.name)

    def _move_during_sync(self) -> None:
        if self.training.open:
            self._end_training()
        self._at_a_request(self._move)
        before = self.run
        said = self.machine.sync(before, timeout=5)
        self.interruptions += 1
        self._judge(said, moved=self.run != before)

    def _grow_during_sync(self) -> None:
        count, text = self.chance.randrange(1, 300), self.chance.choice([0, 2000])

        def grow() -> None:
            self.training.do("log", count=count, text=text)
            self.training.do("media", count=2)

        self.say(f"{count} steps more during the sync")
        self._at_a_request(grow)
        self._sync(timeout=20)

    def _finish_during_sync(self) -> None:
        def finish() -> None:
            self.training.do("log", count=50)
            self._end_training()

        self._at_a_request(finish)
        self._sync(timeout=20)

    def _grow_between(self) -> None:
        self._sync(timeout=20)
        self.say("it grows, with a child and another artifact")
        self.training.do("child", count=20)
        self.training.do("artifact", name="model", sizes=[self.chance.randrange(MIB)])

    # -- what they are made of -----------------------------------------------------------------------------------------

    def _script_faults(self, kinds: dict[str, Fault], count: int) -> None:
        for _ in range(count):
            name = self.chance.choice(list(kinds))
            route, skip = self.chance.choice(_ROUTES), self.chance.choice([0, 0, 1, 2])
            self.proxy.rules.append(Rule(route, kinds[name], skip, name))
            self.say(f"{name} at {route}, after {skip}")

    def _count_met(self) -> None:
        self.say(f"met {self.proxy.met}")
        self.interruptions += sum(not met.startswith(tuple(HARMLESS)) for met in self.proxy.met)
        self.proxy.met.clear()

    def _at_a_request(self, action: Callable[[], None]) -> None:
        skip = self.chance.randrange(2, 10)
        self.say(f"at request {skip}:")
        self.proxy.rules = [Rule("any", proxy.acting(action, "before"), skip, "act")]

    def _sync(self, timeout: float) -> Said:
        said = self.machine.sync(self.run, timeout=timeout)
        self._judge(said)
        return said

    def _judge(self, said: Said, *, killed: bool = False, moved: bool = False, patient: bool = False) -> None:
        """What a sync said must be so: 0 only if all that was there when it began is there."""
        self.say(f"exit {said.code} {[(r['status'], r['error'] or r.get('faults')) for r in results(said)]}")
        assert "Traceback" not in said.err, said
        assert said.code in ((0, -9, -15, 130) if killed else (0, 1, 3) if moved else (0, 1)), (
            f"exit {said.code}: {said}"
        )
        if patient:
            assert said.code == 0, f"it was not waited for: {said}"
        for result in results(said):
            if said.code == 0:
                assert result["status"] in ("delivered", "up_to_date"), said
        if said.code == 0 and not moved:  # where it was moved to it has no sync.json yet
            assert claims(self.run, self.proxy.url) is not None, "exit 0, and sync.json does not say so"

    def _all_is_well_so_far(self) -> None:
        claim_holds(self.run, self.proxy.url, self.server, self.path)
        Truth(self.runs, self.path).nothing_wrong_yet(self.server)
        if self.chance.random() < 0.3:
            self._status_is_true()

    def _status_is_true(self) -> None:
        sizes = sizes_of(self.run)
        said = self.machine.start("status", self.run, "--server", self.proxy.url, "--all", "--json").wait()
        assert said.code == 0, said
        (result,) = results(said)
        self.say(f"status: {result['status']}, {result['note']}")
        if not result["pending"]:
            is_there(self.run, sizes, self.server, self.path)

    def _converge(self) -> None:
        """The troubles are over."""
        self.proxy.deliver_late()
        if self.training.open:
            self._end_training()
        for run in self.runs:
            said = self.machine.sync(run)
            self.say(f"the last sync: exit {said.code}")
            assert said.code == 0, f"the troubles are over, and it is not delivered: {said}"
        truth = Truth(self.runs, self.path)
        truth.compare(self.server)
        if len(self.runs) == 1 and self.chance.random() < 0.5:
            truth.compare_views(self.server, self.folder)
        assert claims(self.run, self.proxy.url) == sizes_of(self.run)
        self._nothing_more_to_do(truth)
        self._not_sent_again()
        assert not self.proxy.troubles, self.proxy.troubles
        self._clean(truth)

    def _nothing_more_to_do(self, truth: Truth) -> None:
        if self.chance.random() < 0.3:
            (self.run / "sync.json").unlink()
            before, version = len(self.proxy.packs), self._version()
            said = self.machine.sync(self.run)
            assert said.code == 0 and results(said)[0]["records_sent"] == 0, f"delivered already: {said}"
            assert len(self.proxy.packs) == before and self._version() == version, "something was sent again"

    def _version(self) -> object:
        facts = there(self.server, self.path, ["finish"]).facts
        return facts["records"]

    def _not_sent_again(self) -> None:
        if not self.packs_shared:
            most = self.interruptions * max(1, self.proxy.most_packs) * self.proxy.largest_pack()
            resent = self.proxy.resent_bytes()
            assert resent <= most, f"{resent} bytes of chunks sent again for {self.interruptions} interruptions"

    def _clean(self, truth: Truth) -> None:
        """Sometimes all is deleted here at the end, and still there."""
        if self.chance.random() < 0.2:
            stays = any(b'"kind":"finish"' not in b"".join(lines.values()) for lines in read_journal(self.run).values())
            copy = self._copied("kept")
            said = self.machine.sync(self.run, options=("--clean",))
            self.say(f"cleaned: {results(said)}")
            assert said.code == 0 and (stays or not self.run.exists()), said
            Truth([copy, *self.runs[1:]], self.path).compare(self.server)
