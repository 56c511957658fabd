"""What the page does by itself: new values, runs that appear, a server that goes and comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

DATA = "metric => document.querySelector(`[data-metric='${metric}'] .plot`)?.plot?.data"

RUNNING = """
    import flightlog, sys
    run = flightlog.init("live", name="slow", mode="offline", dir=".", id="live000000001")
    for step in range(10):
        run.log({"loss": 1 / (step + 1)})
    print("first", flush=True)
    sys.stdin.readline()
    for step in range(10, 25):
        run.log({"loss": 1 / (step + 1), "late/metric": step})
    print("second", flush=True)
    sys.stdin.readline()
    run.finish()
"""


Start = Callable[[str], "Popen[str]"]


def said(training: Popen[str]) -> str:
    """Wait for the next line that a training prints."""
    assert training.stdout is not None
    return training.stdout.readline().strip()


def proceed(training: Popen[str]) -> None:
    assert training.stdin is not None
    training.stdin.write("\n")
    training.stdin.flush()


def test_a_running_run_grows_without_a_reload(signed_in: Any, server: Any, training: Start, tmp_path: Path) -> None:
    """Synced again while it runs, a run's chart grows, new charts appear, and its state ends: all without a reload."""
    slow = training(RUNNING)
    assert said(slow) == "first"
    server.deliver(tmp_path / "training")
    signed_in.goto("/w/admin/live/runs/live000000001")
    signed_in.evaluate("window.stayed = true")
    signed_in.locator("header .state.running").wait_for()
    signed_in.wait_for_function(f"() => ({DATA})('loss')?.[0].length === 10")
    proceed(slow)
    assert said(slow) == "second"
    server.deliver(tmp_path / "training")
    signed_in.wait_for_function(f"() => ({DATA})('loss')?.[0].length === 25")
    signed_in.wait_for_function(f"() => ({DATA})('late/metric')?.[1].at(-1) === 24")
    assert signed_in.evaluate(DATA, "loss")[1] == [1 / (step + 1) for step in range(25)]
    proceed(slow)
    assert slow.wait(30) == 0
    server.deliver(tmp_path / "training")
    signed_in.locator("header .state.finished").wait_for()
    assert signed_in.evaluate("window.stayed") is True


def test_what_did_not_change_is_not_fetched_again(signed_in: Any, server: Any, training: Start, tmp_path: Path) -> None:
    """While a running run's version stays the same, only the run itself is asked for, about once a second."""
    slow = training(RUNNING.replace("live000000001", "still00000001"))
    assert said(slow) == "first"
    server.deliver(tmp_path / "training")
    signed_in.goto("/w/admin/live/runs/still00000001")
    signed_in.wait_for_function(f"() => ({DATA})('loss')?.[0].length === 10")
    asked: list[str] = []
    signed_in.on("request", lambda request: asked.append(request.url))
    signed_in.wait_for_timeout(4500)
    assert {url.rsplit("/", 1)[1] for url in asked} == {"still00000001"}
    assert 3 <= len(asked) <= 6


def test_a_run_appears_in_the_table(signed_in: Any, server: Any, recorded: Callable[[str], None]) -> None:
    """A run delivered while the table is open comes in at its top without a reload."""
    script = """
        import flightlog
        with flightlog.init("growing", name="NAME", mode="offline", dir=".") as run:
            run.log({"score": 1})
    """
    recorded(script.replace("NAME", "earlier"))
    signed_in.goto("/w/admin/growing")
    signed_in.get_by_role("link", name="earlier").wait_for()
    recorded(script.replace("NAME", "later"))
    signed_in.get_by_role("link", name="later").wait_for()
    assert signed_in.locator("[data-row='0']").inner_text() == "later"


def test_a_missing_run_shows_itself_once_delivered(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """The address of a run that is not there says so and what to do, and becomes the run when it comes."""
    signed_in.goto("/w/admin/coming/runs/coming0000001")
    signed_in.get_by_role("heading", name="There is no such run").wait_for()
    signed_in.get_by_text("flightlog sync", exact=True).wait_for()
    recorded(
        """
        import flightlog
        with flightlog.init("coming", name="here now", mode="offline", dir=".", id="coming0000001") as run:
            run.log({"score": 1})
        """
    )
    signed_in.get_by_role("heading", name="here now").wait_for()


def test_an_unknown_address_leads_back(signed_in: Any) -> None:
    """An address that means nothing says so and has a way to the projects."""
    signed_in.goto("/settings/nothing")
    signed_in.get_by_role("heading", name="There is no such page").wait_for()
    signed_in.get_by_role("link", name="All projects").click()
    assert signed_in.evaluate("location.pathname") == "/"


def test_the_page_outlives_its_server(page: Any, own_server: Any) -> None:
    """While the server is away the page keeps what it shows and says so; when it is back, it goes on by itself."""
    page.goto(f"{own_server.url}/#key={own_server.key}")
    page.get_by_text("flightlog sync", exact=True).wait_for()
    port = own_server.port
    own_server.stop()
    page.get_by_text("The server does not answer since").wait_for()
    assert page.get_by_text("flightlog sync", exact=True).is_visible()
    own_server.start(port)
    page.get_by_text("The server does not answer since").wait_for(state="hidden", timeout=20_000)
    page.get_by_role("button", name="Sign out").wait_for()


def test_a_session_that_ended_asks_for_the_key(signed_in: Any) -> None:
    """When the server no longer knows the session, the page asks for the key and stays at its address."""
    signed_in.goto("/w/admin/anything")
    signed_in.get_by_role("heading", name="There is no such project").wait_for()
    signed_in.context.clear_cookies()
    signed_in.get_by_label("API key").wait_for()
    assert signed_in.url.endswith("/w/admin/anything")
