"""One run in several places: moved, copied, continued, damaged here, whole there, its sync.json lost or another's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from . import proxy as net
from .fleet import Forge, Training
from .machine import Machine, results
from .proxy import Proxy, Rule
from .service import Service
from .truth import Truth, append, claims, corrupt, is_there, read_journal, sizes_of


def main_writer(run: Path) -> str:
    """Return the writer with the most records."""
    journal = read_journal(run)
    return max(journal, key=lambda name: len(journal[name]))


def test_moved_during_a_sync(training: Training, here: Machine, proxy: Proxy, server: Service, tmp_path: Path) -> None:
    """A directory that is moved away under a sync: never 0 for what was not read; from its new place all is there."""
    training.finish()
    place = tmp_path / "new" / training.run.name
    place.parent.mkdir()
    proxy.rules = [Rule("packs", net.acting(lambda: training.run.rename(place)))]
    said = here.sync(training.run)
    assert said.code in (0, 1, 3) and "Traceback" not in said.err, said
    assert not training.run.exists(), "the sync has made the old place anew"
    if said.code == 0:  # it had read everything by then
        is_there(place, sizes_of(place), server, training.address)
    assert here.sync(place).code == 0
    Truth([place], training.address).compare(server)


def test_copied_and_synced_from_elsewhere(
    training: Training, here: Machine, elsewhere: Machine, server: Service, proxy: Proxy, tmp_path: Path
) -> None:
    """A copy made while the run was written is delivered from elsewhere; the run itself then sends only what is new."""
    copy = tmp_path / "stick" / training.run.name
    shutil.copytree(training.run, copy)
    assert elsewhere.sync(copy).code == 0
    training.do("log", count=30)
    training.finish()
    sent = len(proxy.packs)
    said = here.sync(training.run)
    assert said.code == 0 and len(proxy.packs) == sent, "what the copy had brought was sent again"
    Truth([training.run, copy], training.address).compare(server)
    assert elsewhere.sync(copy).code == 0  # the server is further than this copy, and no worse


@pytest.mark.parametrize("order", ["original first", "copy first"])
def test_copied_and_continued_on_two_machines(
    training: Training, here: Machine, elsewhere: Machine, server: Service, tmp_path: Path, order: str
) -> None:
    """The same writer went on in two copies, as in two snapshots of one machine: the server has both branches whole."""
    copy = tmp_path / "snapshot" / training.run.name
    shutil.copytree(training.run, copy)
    writer = main_writer(training.run)
    training.do("log", count=40)
    append(copy, writer, 25, "copy")
    pairs = [(here, training.run), (elsewhere, copy)]
    for machine, run in pairs if order == "original first" else pairs[::-1]:
        said = machine.sync(run)
        assert said.code == 0, said
    truth = Truth([training.run, copy], training.address)
    truth.compare(server)
    # Both go on: each is recognised again, and sends only what is new.
    training.do("log", count=10)
    append(copy, writer, 10, "copy")
    training.finish()
    for machine, run in pairs:
        said = machine.sync(run)
        assert said.code == 0, said
        assert int(str(results(said)[0]["records_sent"])) <= 11, said
    truth.compare(server)
    for _, run in pairs:
        (run / "sync.json").unlink()
    for machine, run in pairs:
        said = machine.sync(run)
        assert said.code == 0 and results(said)[0]["records_sent"] == 0, said
    truth.compare(server)


def test_three_branches_of_one_writer(training: Training, here: Machine, server: Service, tmp_path: Path) -> None:
    """Three copies that went on, two of them from a later snapshot: three branches, and none of them twice."""
    writer = main_writer(training.run)
    runs = [training.run]
    for number in range(2):
        copy = tmp_path / f"snapshot-{number}" / training.run.name
        shutil.copytree(runs[-1], copy)
        append(copy, writer, 20, f"copy {number}")
        runs.append(copy)
    append(runs[1], writer, 5, "once more")
    training.finish()
    for run in (*runs, *runs[::-1]):
        said = here.sync(run)
        assert said.code == 0, said
    Truth(runs, training.address).compare(server)


def test_continued_by_the_recorder_on_two_machines(
    training: Training, forge: Forge, here: Machine, elsewhere: Machine, server: Service, tmp_path: Path
) -> None:
    """Resumed on two machines each copy has a writer of its own beside the common one: one run of three writers."""
    training.finish()
    copy = tmp_path / "snapshot" / training.run.name
    shutil.copytree(training.run, copy)
    runs = []
    for number, place in enumerate((training.run.parent, copy.parent)):
        again = forge.training().begin(place, id=training.id, seed=number + 1)
        again.do("log", count=30)
        again.do("artifact", name="model", sizes=[500_000])
        again.finish()
        runs.append(again.run)
    for machine, run in zip((here, elsewhere), runs, strict=True):
        said = machine.sync(run)
        assert said.code == 0, said
    Truth(runs, training.address).compare(server)


def test_without_its_sync_json(training: Training, here: Machine, server: Service, proxy: Proxy) -> None:
    """A lost sync.json costs a look: nothing is sent again, and it is there again afterwards."""
    training.finish()
    assert here.sync(training.run).code == 0
    sent = len(proxy.packs)
    (training.run / "sync.json").unlink()
    said = here.sync(training.run)
    assert said.code == 0 and results(said)[0]["records_sent"] == 0 and len(proxy.packs) == sent, said
    assert claims(training.run, proxy.url)
    Truth([training.run], training.address).compare(server)


def test_with_the_sync_json_of_another_run(
    training: Training, forge: Forge, here: Machine, server: Service, tmp_path: Path
) -> None:
    """The sync.json of a run that was delivered, put beside one that was not, makes nobody believe that it was."""
    training.finish()
    assert here.sync(training.run).code == 0
    other = forge.training().begin(tmp_path / "others", seed=1)
    other.do("log", count=120)
    other.finish()
    shutil.copy(training.run / "sync.json", other.run / "sync.json")
    said = here.sync(other.run)
    assert said.code == 0, said
    Truth([other.run], other.address).compare(server)


def test_with_the_sync_json_of_a_copy_that_went_on(
    training: Training, here: Machine, server: Service, tmp_path: Path, proxy: Proxy
) -> None:
    """Two branches of the same length: the sync.json of the one does not make the other count as delivered."""
    training.kill()
    writer = main_writer(training.run)
    copy = tmp_path / "snapshot" / training.run.name
    shutil.copytree(training.run, copy)
    append(training.run, writer, 20, "a")
    append(copy, writer, 20, "b")
    assert here.sync(training.run).code == 0
    shutil.copy2(training.run / "sync.json", copy / "sync.json")
    said = here.sync(copy)
    assert said.code == 0, said
    Truth([training.run, copy], training.address).compare(server)


def test_damaged_here_and_whole_elsewhere(
    training: Training, here: Machine, elsewhere: Machine, server: Service, tmp_path: Path, proxy: Proxy
) -> None:
    """Corrupt lines are declared lost, and status 3 says so; an intact copy then fills them in."""
    training.finish()
    whole = tmp_path / "backup" / training.run.name
    shutil.copytree(training.run, whole)
    writer = main_writer(training.run)
    corrupt(training.run, writer, [5, 6, 7, 50])
    truth = Truth([training.run], training.address)
    said = here.sync(training.run, options=("--clean",))
    assert said.code == 3 and "Traceback" not in said.err, said
    assert claims(training.run, proxy.url) is None
    assert (training.run / "files" / "journal" / writer).exists(), "a damaged run was cleaned"
    truth.compare(server)
    said = elsewhere.sync(whole)
    assert said.code == 0, said
    truth = Truth([training.run, whole], training.address)
    truth.compare(server)
    Truth([whole], training.address).compare_views(server, tmp_path)
    assert here.sync(training.run).code in (0, 3)
    truth.compare(server)


def test_filled_in_from_two_copies_damaged_differently(
    training: Training, here: Machine, server: Service, tmp_path: Path
) -> None:
    """Two copies, each with holes of its own: the server ends up with what either can read."""
    training.finish()
    writer = main_writer(training.run)
    copy = tmp_path / "backup" / training.run.name
    shutil.copytree(training.run, copy)
    corrupt(training.run, writer, [3, 40, 41, 42])
    corrupt(copy, writer, [41, 60, 61])
    for run in (training.run, copy, training.run):
        said = here.sync(run)
        assert said.code == 3, said
    Truth([training.run, copy], training.address).compare(server)


def test_a_damaged_copy_after_the_whole_one(
    training: Training, here: Machine, elsewhere: Machine, server: Service, tmp_path: Path, proxy: Proxy
) -> None:
    """The server has everything; a copy with corrupt lines takes nothing away, and is told to be damaged."""
    training.finish()
    copy = tmp_path / "backup" / training.run.name
    shutil.copytree(training.run, copy)
    corrupt(copy, main_writer(copy), [9, 10])
    assert here.sync(training.run).code == 0
    said = elsewhere.sync(copy, options=("--clean",))
    assert said.code == 3 and claims(copy, proxy.url) is None and copy.exists(), said
    Truth([training.run], training.address).compare(server)


def test_a_file_that_changed_under_its_link(training: Training, here: Machine, server: Service, proxy: Proxy) -> None:
    """A checkpoint kept as a hard link and written to in place: reported, never delivered as if it were right."""
    kept = training.do("artifact", name="linked", sizes=[300_000, 4000], policy="link")
    training.kill()
    source = Path(kept["source"]) / "part-0.bin"
    if source.stat().st_nlink < 2:
        pytest.skip("this file system makes no hard link of it")
    with source.open("r+b") as file:
        file.seek(1000)
        file.write(b"written to in place")
    said = here.sync(training.run)
    assert said.code == 3 and "has changed since it was recorded" in str(results(said)[0]["faults"]), said
    assert claims(training.run, proxy.url) is None
    receipt = server.api("GET", f"runs/{training.address}/receipt").json()
    assert not [p for p in receipt["files"] if "linked" in p and "part-0" in p]
    names = [a["name"] for a in server.api("GET", f"runs/{training.address}/artifacts").json()["artifacts"]]
    assert names == ["model"], "a version that is not whole was committed"
    for name, lines in read_journal(training.run).items():
        assert receipt["writers"][name]["last"] == max(lines)
    again = here.sync(training.run, options=("--clean",))
    assert again.code == 3 and training.run.exists(), again


def test_a_medium_that_changed_and_was_put_right(training: Training, here: Machine, server: Service) -> None:
    """A file that is not what its record says stays here; once it is restored, the next sync delivers it."""
    training.finish()
    medium = next(p for p in sorted((training.run / "files" / "media").rglob("*.png")))
    right = medium.read_bytes()
    medium.write_bytes(right[:-1])
    said = here.sync(training.run)
    assert said.code == 3 and medium.name in str(results(said)[0]["faults"]), said
    medium.write_bytes(right)
    assert here.sync(training.run).code == 0
    Truth([training.run], training.address).compare(server)


def test_what_changed_after_it_was_delivered_is_kept(training: Training, here: Machine, server: Service) -> None:
    """A delivered file that is written to afterwards is not what the server has: cleaning leaves it."""
    training.finish()
    assert here.sync(training.run).code == 0
    medium = next(p for p in sorted((training.run / "files" / "media").rglob("*.png")))
    content = bytearray(medium.read_bytes())
    content[-1] ^= 1
    medium.write_bytes(content)
    said = here.sync(training.run, options=("--clean",))
    assert said.code == 3 and medium.read_bytes() == content, said


def test_two_machines_sync_two_copies_at_once(
    training: Training, here: Machine, elsewhere: Machine, server: Service, tmp_path: Path
) -> None:
    """Again and again at the same time, while it grows between: both say 0, and everything is there once."""
    copy = tmp_path / "mirror" / training.run.name
    for turn in range(4):
        training.do("log", count=60, text=500)
        training.do("artifact", name="model", sizes=[700_000])
        shutil.copytree(training.run, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("sync.json", ".sync*"))
        both = [here.syncing(training.run), elsewhere.syncing(copy)]
        for said in [command.wait() for command in both]:
            assert said.code == 0, f"turn {turn}: {said}"
    training.finish()
    assert here.sync(training.run).code == 0
    Truth([training.run, copy], training.address).compare(server)


def test_a_refused_pack_is_not_delivered(training: Training, here: Machine, proxy: Proxy, server: Service) -> None:
    """Records that arrived without their files are not a run that was delivered: status 1, and no claim to it."""
    training.finish()
    proxy.rules = [Rule("packs", net.answer(413))]
    said = here.sync(training.run)
    assert said.code == 1, said
    path = training.run / "sync.json"
    assert not path.exists() or not any(s["complete"] for s in json.loads(path.read_bytes())["servers"].values())
    assert here.sync(training.run).code == 0
    Truth([training.run], training.address).compare(server)
