"""Projects, the table of runs, and one run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

# A chart's uPlot object hangs on its element; its data is [steps, values, low, high].
DATA = "metric => document.querySelector(`[data-metric='${metric}'] .plot`)?.plot?.data"
HOSTILE = '<img src=x onerror="window.owned = true">'

DIGITS = """
    import math, flightlog
    config = {"lr": 0.01, "optimizer": {"name": "adamw", "betas": [0.9, 0.999]}}
    with flightlog.init("digits", name="plain", mode="offline", dir=".", id="plain00000001", config=config,
                        tags=["baseline"], notes="first try") as run:
        for step in range(100):
            run.log({"loss": 1 / (step + 1), "val/acc": math.nan if step in (40, 60) else step / 100})
        for step in (10, 20, 30):
            image = [[[(16 * x) % 256, 8 * y, step] for x in range(16)] for y in range(12)]
            import numpy
            run.log({"samples": flightlog.Image(numpy.array(image, dtype="uint8"), caption=f"at {step}")}, step=step)
        open("weights.bin", "wb").write(bytes(range(256)) * 10)
        run.log_artifact("weights.bin", name="model", type="model", aliases=["best"])
        run.log({"remark": flightlog.Text("<b>fine</b>")})
"""


def open_run(page: Any, project: str, run_id: str) -> None:
    page.goto(f"/w/admin/{project}/runs/{run_id}")


def wait_for_data(page: Any, metric: str) -> None:
    page.wait_for_function(f"metric => ({DATA})(metric) !== undefined", arg=metric)


def test_from_projects_to_a_chart_by_clicks(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """A delivered run is found by two clicks, and its chart draws exactly the values that were logged."""
    recorded(DIGITS)
    signed_in.goto("/")
    signed_in.get_by_role("link", name="digits").click()
    row = signed_in.get_by_role("row").filter(has_text="plain")
    row.wait_for()
    assert "finished" in row.inner_text()
    row.get_by_role("link").click()
    signed_in.get_by_role("heading", name="plain").wait_for()
    wait_for_data(signed_in, "loss")
    steps, values, low, high = signed_in.evaluate(DATA, "loss")
    assert steps == list(range(100))
    assert values == [1 / (step + 1) for step in range(100)]
    assert set(low) == set(high) == {None}
    canvas = signed_in.locator("[data-metric='loss'] canvas")
    drawn = canvas.evaluate("c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0)")
    assert drawn
    sections = signed_in.locator("[aria-expanded]").all_inner_texts()
    assert [text.split()[1] for text in sections][:2] == ["charts", "val"]


def test_nan_is_a_gap_with_a_mark(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """Values that are NaN are gaps in the data, counted beside the metric's name, and named in the summary's way."""
    recorded(DIGITS)
    open_run(signed_in, "digits", "plain00000001")
    wait_for_data(signed_in, "val/acc")
    values = signed_in.evaluate(DATA, "val/acc")[1]
    assert [step for step, value in enumerate(values) if value is None] == [40, 60]
    assert "\u00d7 2" in signed_in.locator("[data-metric='val/acc'] figcaption").inner_text()


def test_config_and_summary(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """Nested config stands as a tree of keys, and the summary has the last values."""
    recorded(DIGITS)
    open_run(signed_in, "digits", "plain00000001")
    signed_in.locator("aside .line").first.wait_for()
    lines = signed_in.locator("aside .line").all_inner_texts()
    flat = [" ".join(line.split()) for line in lines]
    assert "loss 0.01" in flat
    assert "lr 0.01" in flat
    assert "optimizer" in flat
    assert "betas [0.9,0.999]" in flat
    assert "first try" in signed_in.locator(".notes").inner_text()


def test_images_by_step(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """The latest image is shown, and the slider goes back to the first."""
    recorded(DIGITS)
    open_run(signed_in, "digits", "plain00000001")
    strip = signed_in.locator("[data-media='samples']")
    strip.get_by_text("step 30").wait_for()
    strip.scroll_into_view_if_needed()
    signed_in.wait_for_function("() => document.querySelector('[data-media=samples] img').naturalWidth > 0")
    assert strip.locator("img").evaluate("i => [i.naturalWidth, i.naturalHeight]") == [16, 12]
    strip.get_by_role("slider").press("Home")
    strip.get_by_text("step 10").wait_for()
    assert "at 10" in strip.inner_text()


def test_a_text_stays_text(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """A text that was logged is shown where it is, tags and all."""
    recorded(DIGITS)
    open_run(signed_in, "digits", "plain00000001")
    text = signed_in.locator("[data-media='remark'] pre")
    text.scroll_into_view_if_needed()
    text.filter(has_text="<b>fine</b>").wait_for()


def test_media_of_other_kinds_have_a_place(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """A histogram is drawn, a sound can be played, a table is a file to take away; none stands for damage."""
    recorded(
        """
        import flightlog
        with flightlog.init(project="digits", id="kinds0000001") as run:
            run.log({"x": 1.0, "weights": flightlog.Histogram([0.1, 0.2, 0.2, 0.9], num_bins=4)})
            run.log({"beep": flightlog.Audio([0.0, 0.5, -0.5] * 1000, sample_rate=8000)})
            run.log({"rows": flightlog.Table(columns=["a"], data=[[1], [2]])})
        """
    )
    open_run(signed_in, "digits", "kinds0000001")
    bars = signed_in.locator("[data-media='weights'] svg rect")
    bars.first.wait_for(state="attached")
    assert bars.count() == 4
    signed_in.locator("[data-media='beep'] audio").wait_for()
    signed_in.locator("[data-media='rows']").get_by_role("link", name="table file").wait_for()
    assert "damaged" not in signed_in.locator("main").inner_text()


def test_artifact_files_are_downloaded_whole(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """An artifact's row has version and aliases, and its file comes back byte for byte."""
    recorded(DIGITS)
    open_run(signed_in, "digits", "plain00000001")
    row = signed_in.locator("[data-artifact='model:v0']")
    row.locator("summary").click()
    assert "best" in row.inner_text()
    with signed_in.expect_download() as download:
        row.get_by_role("link", name="weights.bin").click()
    assert download.value.suggested_filename == "weights.bin"
    assert Path(download.value.path()).read_bytes() == bytes(range(256)) * 10


def test_a_long_curve_is_reduced_and_a_zoom_is_exact(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """Of 20,000 values a band is drawn; a zoom shows the values as logged, stands in the address, and resets."""
    recorded(
        """
        import flightlog
        with flightlog.init("long", mode="offline", dir=".", id="long000000001") as run:
            for step in range(20_000):
                run.log({"saw": step % 7})
        """
    )
    open_run(signed_in, "long", "long000000001")
    wait_for_data(signed_in, "saw")
    steps, _, low, high = signed_in.evaluate(DATA, "saw")
    assert len(steps) < 3000
    assert (min(low), max(high)) == (0, 6)
    box = signed_in.locator("[data-metric='saw'] .u-over").bounding_box()
    for _ in range(2):
        signed_in.mouse.move(box["x"] + 50, box["y"] + 40)
        signed_in.mouse.down()
        signed_in.mouse.move(box["x"] + 75, box["y"] + 40, steps=5)
        signed_in.mouse.up()
        signed_in.wait_for_timeout(500)
    assert "from=" in signed_in.url
    signed_in.wait_for_function(f"() => ({DATA})('saw')[2].every(v => v === null)")
    steps, values, _, _ = signed_in.evaluate(DATA, "saw")
    assert values == [step % 7 for step in steps]
    assert steps == list(range(steps[0], steps[0] + len(steps)))
    signed_in.reload()
    wait_for_data(signed_in, "saw")
    assert signed_in.evaluate(DATA, "saw")[0] == steps
    signed_in.mouse.dblclick(box["x"] + 50, box["y"] + 40)
    signed_in.wait_for_function(f"() => ({DATA})('saw')[0].at(-1) === 19999")
    assert "from=" not in signed_in.url


def test_charts_out_of_view_are_not_fetched(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """Of a run with 90 metrics only those near the visible part are asked for; the others come when scrolled to."""
    recorded(
        """
        import flightlog
        with flightlog.init("wide", mode="offline", dir=".", id="wide000000001") as run:
            for step in range(3):
                run.log({f"layer{i:02}/norm": i + step for i in range(90)})
        """
    )
    asked: list[str] = []
    signed_in.on("request", lambda request: asked.append(request.url) if "/series?" in request.url else None)
    open_run(signed_in, "wide", "wide000000001")
    wait_for_data(signed_in, "layer00/norm")
    signed_in.wait_for_timeout(500)
    assert 1 <= len(asked) < 20
    signed_in.locator("[data-metric='layer89/norm']").scroll_into_view_if_needed()
    wait_for_data(signed_in, "layer89/norm")
    assert signed_in.evaluate(DATA, "layer89/norm")[1] == [89, 90, 91]


def test_hostile_text_stays_text(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """Markup in names, tags, notes, keys and values is shown and never acts, in the table and on the run's page."""
    recorded(
        f"""
        import flightlog
        evil = {HOSTILE!r}
        with flightlog.init("hostile", name=evil, mode="offline", dir=".", id="hostile000001", notes=evil,
                            tags=[evil], config={{evil: {{evil: evil}}}}) as run:
            run.log({{evil: 1.0, evil + "/x": evil}})
        """
    )
    signed_in.goto("/w/admin/hostile")
    signed_in.get_by_role("link", name=HOSTILE).wait_for()
    signed_in.get_by_role("link", name=HOSTILE).click()
    signed_in.get_by_role("heading", name=HOSTILE).wait_for()
    signed_in.wait_for_timeout(500)
    assert signed_in.locator("img[src='x']").count() == 0
    assert signed_in.evaluate("() => window.owned") is None
    assert signed_in.title().startswith(HOSTILE)
    assert signed_in.locator(".notes").inner_text() == HOSTILE


def test_many_runs_by_keyboard_and_filter(signed_in: Any, recorded: Callable[[str], None]) -> None:
    """A long table is scrolled, filtered and opened without the mouse, and only what is in view of it is drawn."""
    recorded(
        """
        import flightlog
        for i in range(120):
            with flightlog.init("many", name=f"trial {i}", mode="offline", dir=".", id=f"many{i:09}") as run:
                run.log({"score": i})
        """
    )
    signed_in.goto("/w/admin/many")
    signed_in.locator("[data-row='0']").wait_for()
    assert signed_in.locator("[data-row]").count() < 80
    for row in range(116):
        signed_in.keyboard.press("j")
        signed_in.wait_for_function(f"() => document.activeElement.dataset.row === '{row}'")
    signed_in.keyboard.press("/")
    signed_in.keyboard.type("TRIAL 77")
    signed_in.get_by_text("1 of 120").wait_for()
    signed_in.keyboard.press("Escape")
    signed_in.keyboard.press("k")
    signed_in.wait_for_function("() => document.activeElement.dataset.row === '0'")
    signed_in.keyboard.press("Enter")
    signed_in.get_by_role("heading", name="trial 77").wait_for()
    signed_in.go_back()
    signed_in.get_by_text("1 of 120").wait_for()
    signed_in.keyboard.press("?")
    signed_in.get_by_role("dialog").get_by_text("next row").wait_for()


def test_a_row_that_is_not_there_yet_gets_the_focus_when_it_comes(
    signed_in: Any, recorded: Callable[[str], None]
) -> None:
    """The keys are faster than the server: what was pressed while the next page of runs was on its way counts."""
    recorded(
        """
        import flightlog
        for i in range(120):
            with flightlog.init("slow", name=f"trial {i}", mode="offline", dir=".", id=f"slow{i:09}") as run:
                run.log({"score": i})
        """
    )
    held: list[Any] = []
    signed_in.route(re.compile("offset=100"), lambda route: held.append(route))
    signed_in.goto("/w/admin/slow")
    signed_in.locator("[data-row='0']").wait_for()
    for row in range(100):
        signed_in.keyboard.press("j")
        signed_in.wait_for_function(f"() => document.activeElement.dataset.row === '{row}'")
    for _ in range(3):
        signed_in.keyboard.press("j")
    signed_in.wait_for_timeout(300)
    assert held and signed_in.evaluate("() => document.activeElement.dataset.row") == "99"
    signed_in.unroute(re.compile("offset=100"))
    for route in held:
        with contextlib.suppress(Exception):  # what has scrolled out of view is not asked for any more
            route.continue_()
    signed_in.wait_for_function("() => document.activeElement.dataset.row === '102'")


def test_the_page_comes_with_rules_for_the_browser(server: Any) -> None:
    """The page's address answers with rules under which nothing from a run can act as a script."""
    with urlopen(Request(server.url + "/w/admin/digits")) as answer:
        rules = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in rules
    assert "unsafe-eval" not in rules
