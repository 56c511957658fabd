"""What the terminal shows becomes lines, within bounds, whoever prints and however often."""

from __future__ import annotations

import io
import itertools
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.console import Console
from flightlog.console.outbox import BURST, MAX_WAITING, RATE, RUN_LIMIT, Outbox
from flightlog.console.recorder import MAX_WRITE, Recorder
from flightlog.console.screen import HEIGHT, MAX_WAIT, MIN_WAIT, WIDTH, Screen
from flightlog.console.transcript import Transcript, render
from flightlog.errors import UsageError

# What a line may hold: anything but control characters, tabs and colours excepted.
CLEAN = re.compile(r"(?:[^\x00-\x08\x0a-\x1f\x7f-\x9f]|\x1b\[[0-9;]+m)*")


def shown(*pieces: str) -> list[str]:
    """Return what a screen shows in the end of what is written to it piece by piece."""
    screen = Screen(itertools.count(1))
    lines: dict[int, str] = {}
    for piece in pieces:
        lines.update(screen.feed(piece, 0.0))
    lines.update(screen.changed(0.0, all=True))
    return [lines[number] for number in sorted(lines)]


# -- the screen --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("\n\na", ["", "", "a"]),
        ("tabs\tstay\n", ["tabs\tstay"]),
        ("  kept  \n", ["  kept  "]),
        ("0%\r50%\r100%\n", ["100%"]),
        ("100%\r9%\n", ["9%0%"]),
        ("bar 100/100\r           \rdone\n", ["done"]),
        ("working|\b/\b-\bok\n", ["workingok"]),
        ("abcdef\r\x1b[Kxy\n", ["xy"]),
        ("abcdef\x1b[3D\x1b[K!\n", ["abc!"]),
        ("abcdef\x1b[1K\n", [""]),
        ("abc\x1b[2K\rx\n", ["x"]),
        ("one\ntwo\x1b[A\rONE\x1b[B\rTWO\n", ["ONE", "TWO"]),
        ("one\ntwo\nthree\n\x1b[3F\x1b[Jnew\n", ["new", "", ""]),
        ("a\x1b[5Gb\n", ["a   b"]),
        ("a\x1b[3Cb\n", ["a   b"]),
        ("x\x1b[99999999Ay\n", ["xy"]),
        ("\x1b]0;a title\x07text\n", ["text"]),
        ("\x1b]8;;https://x/\x1b\\link\x1b]8;;\x1b\\\n", ["link"]),
        ("\x1b[?25lhidden cursor\x1b[?25h\n", ["hidden cursor"]),
        ("bell\a\0\x7f\x9b\n", ["bell"]),
        ("\x1b[31mred\x1b[0m plain\n", ["\x1b[31mred\x1b[0m plain"]),
        ("\x1b[1;38;5;9mbold\nstill\x1b[m\n", ["\x1b[1;38;5;9mbold\x1b[0m", "\x1b[1;38;5;9mstill\x1b[0m"]),
        ("\x1b[32mgreen\x1b[39m\x1b[4m line\x1b[24m\n", ["\x1b[32mgreen\x1b[0m\x1b[4m line\x1b[0m"]),
        ("\x1b[31mabcdef\x1b[0m\rxy\n", ["xy\x1b[31mcdef\x1b[0m"]),
        ("before\n\x1b[2J\x1b[Hafter\n", ["before", "after"]),
        ("\x1b[H\x1b[2J\x1b[Hframe 1\n\x1b[Hframe 2\n", ["frame 2"]),
        ("\ud800 odd\n", ["\\ud800 odd"]),
        ("über\n", ["über"]),
    ],
)
def test_lines_are_what_a_terminal_shows(written: str, lines: list[str]) -> None:
    """Whole, and character by character."""
    assert shown(written) == lines == shown(*written)


SEQUENCES = st.sampled_from([
    *"ab \t\n\r\b\x07", "\r\n", "word", "\x1b[K", "\x1b[2K", "\x1b[A", "\x1b[2B", "\x1b[3D", "\x1b[J", "\x1b[2J",
    "\x1b[4;2H", "\x1b[31m", "\x1b[0m", "\x1b[38;2;1;2;3m", "\x1b]0;t\x07", "\x1b[?25l", "\x1b7", "ü", "\x1b", "\x9b",
])  # fmt: skip


@given(st.lists(SEQUENCES | st.text(max_size=8), max_size=40), st.integers(1, 9))
def test_it_does_not_matter_how_a_stream_is_cut(parts: list[str], size: int) -> None:
    """The same lines come out, and never a control character but tabs and colours."""
    text = "".join(parts)
    lines = shown(text)
    assert shown(*[text[i : i + size] for i in range(0, len(text), size)]) == lines
    assert all(CLEAN.fullmatch(line) for line in lines)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=60), max_size=100))
def test_plain_lines_come_back_as_they_are(lines: list[str]) -> None:
    """Any number of them, beyond the screen's height too."""
    assert shown("".join(f"{line}\n" for line in lines)) == lines


def test_tqdm_bars_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """Two nested bars of the real library end as it shows them: the outer one full, in the order of their places."""
    tqdm = pytest.importorskip("tqdm").tqdm
    written = io.StringIO()
    for _ in tqdm(range(3), desc="outer", file=written, position=0, mininterval=0, ncols=60):
        for _ in tqdm(range(4), desc="inner", file=written, position=1, mininterval=0, ncols=60, leave=False):
            pass
    lines = shown(written.getvalue())
    assert lines[0].startswith("outer: 100%") and "3/3" in lines[0]
    assert not [line for line in lines[1:] if line.strip()]


def test_a_progress_display_of_rich_is_its_last_frame() -> None:
    """Which the real library draws anew again and again, moving up and erasing."""
    from rich.console import Console as Rich
    from rich.progress import Progress

    written = io.StringIO()
    with Progress(console=Rich(file=written, force_terminal=True, width=70), auto_refresh=False) as progress:
        tasks = [progress.add_task(name, total=10) for name in ("first", "second")]
        for _ in range(10):
            for task in tasks:
                progress.advance(task)
            progress.refresh()
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown(written.getvalue()) if line]
    assert [line.split()[0] for line in lines] == ["first", "second"] and all("100%" in line for line in lines)


def test_a_line_that_changes_keeps_its_number_and_is_told_ever_more_rarely() -> None:
    """A second at first, a fiftieth of its age later: a bar of a day is told some thousand times, and ends as it is."""
    screen = Screen(itertools.count(1))
    told = []
    for second in range(24 * 3600):
        assert screen.feed(f"\rstep {second}", float(second)) == []
        told += screen.changed(float(second))
    assert {number for number, _ in told} == {1} and 24 * 3600 / MAX_WAIT < len(told) < 24 * 3600 / MAX_WAIT + 300
    assert screen.feed("\n", 90000.0) == [(1, f"step {24 * 3600 - 1}")] and MIN_WAIT == 1.0


def test_what_is_too_long_is_cut() -> None:
    """A line without end, or with a colour for every letter, takes no more than its share."""
    assert shown("x" * 100_000 + "\n") == ["x" * WIDTH + "…"]
    colourful = shown("".join(f"\x1b[38;5;{i % 256}mx" for i in range(WIDTH)) + "\n")[0]
    assert len(colourful) <= 2 * WIDTH and colourful.count("x") == WIDTH
    assert shown("\x1b]0;" + "t" * 100_000, "\x07after\n")[-1].endswith("after")


def test_the_screen_forgets_what_has_scrolled_away() -> None:
    """A cursor cannot be moved back further than the screen is high."""
    lines = shown("".join(f"{i}\n" for i in range(200)) + "\x1b[500A\rX")
    assert lines[200 - HEIGHT + 1] == "X" + str(200 - HEIGHT + 1)[1:] and lines[0] == "0" and len(lines) == 200


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_a_flood_is_thinned_to_its_rate_and_the_rest_is_counted() -> None:
    """Every line is either there or counted, and the newest are there."""
    outbox = Outbox(0.0)
    records: list[dict[str, Any]] = []
    total, seconds = 0, 15
    for tick in range(seconds * 2):
        for _ in range(2000):
            total += 1
            outbox.add("stdout", [(total, f"line {total} of a flood")])
        records += outbox.take(tick / 2)
    records += outbox.take(seconds, everything=True)
    kept = [line for record in records for line in record["lines"]]
    size = sum(len(text) for _, text in kept)
    assert size < BURST + RATE * seconds + 2 * MAX_WAITING
    assert len(kept) + sum(record.get("dropped", 0) for record in records) == total
    assert kept[-1][0] == total and [number for number, _ in kept] == sorted(number for number, _ in kept)


def test_beyond_the_runs_limit_little_is_kept_but_the_end_is() -> None:
    """A program that prints for a week takes its ten megabytes and a trickle."""
    outbox = Outbox(0.0)
    size = number = 0
    last: list[list[Any]] = []
    for second in range(7 * 24 * 360):  # every ten seconds
        number += 1
        outbox.add("stderr", [(number, "x" * 16_000)])
        size += sum(len(text) for record in outbox.take(second * 10.0) for _, text in record["lines"])
    for record in outbox.take(7 * 24 * 3600.0, everything=True):
        last = record["lines"]
    assert RUN_LIMIT < size < 2.2 * RUN_LIMIT and last[-1][0] == number


def test_a_line_that_waits_is_replaced_by_its_update() -> None:
    """Only its last state leaves; a record has one stream."""
    outbox = Outbox(0.0)
    outbox.add("stdout", [(1, "10%")])
    outbox.add("stderr", [(2, "warning")])
    outbox.add("stdout", [(1, "20%"), (3, "end")])
    assert outbox.take(0.0) == [
        {"stream": "stdout", "lines": [[1, "20%"], [3, "end"]]},
        {"stream": "stderr", "lines": [[2, "warning"]]},
    ]
    assert not outbox and outbox.take(0.0) == []


def test_a_burst_within_what_is_allowed_is_whole_in_records_that_fit() -> None:
    """Two hundred kilobytes at once, four bytes a sign: nothing is missing, and no line of a journal too long."""
    outbox = Outbox(0.0)
    outbox.add("stdout", [(number, "\U0001f680" * 100) for number in range(1, 1500)])
    records = outbox.take(0.0)
    assert [number for record in records for number, _ in record["lines"]] == list(range(1, 1500))
    assert all("dropped" not in record and len(orjson.dumps(record)) < 1 << 19 for record in records)


# -- handing over ------------------------------------------------------------------------------------------------------


def test_a_line_is_handed_over_before_print_returns() -> None:
    """Not by a thread some time later; what is unfinished waits for its end or a flush."""
    records: list[dict[str, Any]] = []
    recorder = Recorder(records.append)
    recorder.take("stdout", "loss 0.3")
    assert records == []
    recorder.take("stdout", "\n")
    assert records == [{"stream": "stdout", "lines": [[1, "loss 0.3"]]}]
    recorder.take("stderr", "half")
    recorder.flush()
    assert records[1:] == [{"stream": "stderr", "lines": [[2, "half"]]}]
    recorder.take("stderr", " done\n")
    recorder.close()
    recorder.take("stdout", "too late\n")
    assert render(records) == ["loss 0.3", "half done"]


def test_threads_printing_at_once_lose_nothing() -> None:
    """Each thread's lines are all there, in its order."""
    records: list[dict[str, Any]] = []
    recorder = Recorder(records.append)

    def work(name: int) -> None:
        for i in range(300):
            recorder.take("stdout" if name % 2 else "stderr", f"{name} {i}\n")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close()
    lines = render(records)
    for name in range(6):
        mine = [line for line in lines if line.startswith(f"{name} ")]
        # Two threads may write into one line; nothing of it is lost, and these write whole lines.
        assert mine == [f"{name} {i}" for i in range(300)]


def test_what_prints_while_it_records_does_not_go_round_in_circles() -> None:
    """A warning of the journal's own, printed while a line is handed over, becomes a line, and that is all."""
    records: list[dict[str, Any]] = []

    def emit(data: dict[str, Any]) -> None:
        records.append(data)
        recorder.take("stderr", f"warning {len(records)}\n")

    recorder = Recorder(emit)
    recorder.take("stdout", "one\n")
    assert 1 < len(records) < 10
    assert render(records)[:2] == ["one", "warning 1"]


def test_a_thread_that_holds_the_journal_may_print() -> None:
    """It waits for nobody, though another one is just handing lines over to that journal."""
    journal = threading.Lock()
    entered = threading.Event()
    records: list[dict[str, Any]] = []

    def emit(data: dict[str, Any]) -> None:
        entered.set()
        with journal:
            records.append(data)

    recorder = Recorder(emit)
    with journal:
        printing = threading.Thread(target=recorder.take, args=("stdout", "from the thread\n"))
        printing.start()
        assert entered.wait(10)
        recorder.take("stderr", "from the holder\n")  # would wait for ever if it waited at all
    printing.join(10)
    recorder.close()
    assert render(records) == ["from the thread", "from the holder"]


def test_an_enormous_write_costs_its_beginning() -> None:
    """It does not hold up whoever prints; how many lines are missing is said."""
    records: list[dict[str, Any]] = []
    recorder = Recorder(records.append)
    recorder.take("stdout", "start\n")
    lines = 500_000
    recorder.take("stdout", "".join(f"{i}\n" for i in range(lines)))
    recorder.close()
    kept = [line for record in records for line in record["lines"]]
    dropped = sum(record.get("dropped", 0) for record in records)
    assert kept[0] == [1, "start"] and kept[-1][1] == str(lines - 1)
    assert sum(len(text) for _, text in kept) < MAX_WRITE and len(kept) + dropped == lines + 1


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_line_of_many_megabytes_keeps_its_beginning(end: str) -> None:
    """In one write: cut as any other long line is; the lines before it are counted, what a return brought stays."""
    records: list[dict[str, Any]] = []
    recorder = Recorder(records.append)
    recorder.take("stdout", "begun")
    recorder.flush()
    recorder.take("stdout", " and ended\ngone\ngone\n" + "head " + "x" * (2 * MAX_WRITE) + end)
    recorder.take("stdout", "\n" * (not end) + "bar " * MAX_WRITE + "\r100 %" + end)
    recorder.close()
    lines = [*dict(line for record in records for line in record["lines"]).values()]
    assert [line[:6] for line in lines] == ["begun", "head x", "100 %"]
    assert len(lines[1]) == WIDTH + 1 and lines[1].endswith("…")
    assert sum(record.get("dropped", 0) for record in records) == 2


def test_a_failing_journal_does_not_stop_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs one warning, and what comes later is recorded."""
    from flightlog import terminal

    monkeypatch.setattr(terminal, "raise_internal_errors", False)
    records: list[dict[str, Any]] = []

    def emit(data: dict[str, Any]) -> None:
        if data["lines"][0][1] == "bad":
            raise OSError("no")
        records.append(data)

    recorder = Recorder(emit)
    for line in ("good", "bad", "good again"):
        recorder.take("stdout", f"{line}\n")
    assert render(records) == ["good", "good again"]


# -- the readers' side -------------------------------------------------------------------------------------------------


def test_rendering_puts_later_states_in_their_place_and_says_what_is_missing() -> None:
    """By number; of one stream if that is asked for."""
    records = [
        {"stream": "stdout", "lines": [[1, "start"], [3, "10%"]]},
        {"stream": "stderr", "lines": [[2, "warning"]]},
        {"stream": "stdout", "lines": [[3, "100%"], [1005, "end"]], "dropped": 1001},
    ]
    assert render(records) == ["start", "warning", "100%", "[1,001 lines left out]", "end"]
    assert render(records, "stderr") == ["warning"]
    assert [line.stream for line in _transcript(records)] == ["stdout", "stderr", "stdout", "stdout"]


def _transcript(records: list[dict[str, Any]]) -> list[Any]:
    transcript = Transcript()
    for data in records:
        transcript.add(data)
    return transcript.lines()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
LINES = st.lists(JSON | st.lists(JSON, min_size=2, max_size=2) | st.tuples(st.integers(1, 9), st.text()), max_size=5)


@given(
    st.lists(
        st.fixed_dictionaries({"stream": JSON | st.just("stdout"), "lines": JSON | LINES, "dropped": JSON}), max_size=4
    )
)
def test_whatever_stands_in_a_journal_can_be_shown(records: list[dict[str, Any]]) -> None:
    """A hostile record neither stops a reader nor acts on his terminal."""
    for line in render(records):
        assert CLEAN.fullmatch(line.replace("\x1b[m", "")) is not None


# -- following the streams ---------------------------------------------------------------------------------------------


def records_of(console_records: list[dict[str, Any]], stream: str) -> list[str]:
    return render(console_records, stream)


def test_streams_stay_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under pytest's own capture: the same objects before, during and after, and everything printed is there twice."""
    import logging

    handler = logging.StreamHandler()  # takes hold of sys.stderr before we do
    out, err = sys.stdout, sys.stderr
    records: list[dict[str, Any]] = []
    console = Console(tmp_path, emit=records.append)
    console.start()
    console.start()
    assert sys.stdout is out and sys.stderr is err
    print("to stdout", "in two")
    handler.emit(logging.LogRecord("x", 20, "p", 1, "to stderr", (), None))
    assert sys.stdout.write("12345") == 5
    sys.stdout.writelines(["\n", "line\n"])
    console.stop()
    console.stop()
    print("after")
    assert "write" not in vars(out) and "write" not in vars(err)
    captured = capsys.readouterr()
    assert captured.out == "to stdout in two\n12345\nline\nafter\n" and captured.err == "to stderr\n"
    assert records_of(records, "stdout") == ["to stdout in two", "12345", "line"]
    assert records_of(records, "stderr") == ["to stderr"]


def test_others_may_come_and_go_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream put in place later is not touched; who follows the same stream after us keeps doing so."""
    first: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    one, two = Console(tmp_path, emit=first.append), Console(tmp_path, emit=second.append)
    one.start()
    two.start()
    print("both")
    one.stop()
    print("the second")
    replaced = io.StringIO()
    sys.stdout = replaced
    print("neither")
    two.stop()
    assert sys.stdout is replaced
    print("nobody", file=stream)
    assert stream.getvalue() == "both\nthe second\nnobody\n" and replaced.getvalue() == "neither\n"
    assert (render(first), render(second)) == (["both"], ["both", "the second"])


def test_a_stream_that_is_put_back_as_it_was_is_followed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As IPython does after each cell; where somebody follows it after us, we hear each word once."""
    from flightlog.console.streams import FollowedStream

    stream = io.StringIO()
    heard: list[str] = []
    before = stream.write
    followed = FollowedStream(stream, heard.append)
    stream.write = before  # type: ignore[method-assign]
    followed.ensure()
    stream.write("back ")
    ours = stream.write
    stream.write = lambda text, /: ours(text)  # type: ignore[method-assign]
    followed.ensure()
    stream.write("again")
    followed.let_go()
    followed.ensure()
    stream.write(" and gone")
    assert heard == ["back ", "again"] and stream.getvalue() == "back again and gone"


NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("from pathlib import Path; from flightlog.console import Console\\n"
               "console = Console(Path('journal')); console.start(); print('cell 1')")
for i in (2, 3, 4): shell.run_cell(f"print('cell', {i})")
shell.run_cell("console.stop(); print('after')")
"""


def test_cells_of_a_notebook(script: Any, tmp_path: Path) -> None:
    """Of the real IPython, which follows the streams itself during each cell: every line once."""
    pytest.importorskip("IPython")
    done = script(NOTEBOOK, IPYTHONDIR=str(tmp_path / "ipython"))
    lines = [line for path in (tmp_path / "journal").glob("*/*") for line in path.read_bytes().splitlines()]
    assert render(orjson.loads(line)["data"] for line in lines) == ["cell 1", "cell 2", "cell 3", "cell 4"]
    assert done.stdout.splitlines() == ["cell 1", "cell 2", "cell 3", "cell 4", "after"]


class _Slotted:
    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> int:
        self.lines.append(text)
        return len(text)

    def flush(self) -> None:
        raise OSError("not today")


class _Odd(io.StringIO):
    def fileno(self) -> int:
        raise RuntimeError("no")


def test_streams_that_are_none_closed_or_odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them stops a training; an error of the stream itself is its caller's, as ever."""
    for out, err in [(None, None), (_Slotted(), _Odd()), (_Odd(), None)]:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        console = Console(tmp_path, emit=lambda data: None)
        console.start()
        print("x")
        console.flush()
        console.stop()
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    records: list[dict[str, Any]] = []
    console = Console(tmp_path, emit=records.append)
    console.start()
    with pytest.raises(ValueError, match="closed"):
        print("x")
    console.stop()
    assert records == []
    with pytest.raises(UsageError, match="console='loud'"):
        Console(tmp_path, "loud")


def test_progress_is_told_while_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar that has no end yet is in the journal within a second or two."""
    records: list[dict[str, Any]] = []
    console = Console(tmp_path, emit=records.append)
    console.start()
    until = time.monotonic() + 30
    while not records and time.monotonic() < until:
        sys.stderr.write(f"\r{time.monotonic()}")
        time.sleep(0.02)
    sys.stderr.write("\rlast")
    console.stop()
    assert {number for record in records for number, _ in record["lines"]} == {1} and len(records) >= 2
    assert render(records)[0].startswith("last")
