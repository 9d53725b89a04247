"""The report's slider, moved in a real browser: every plan of the sweep is behind it and all figures follow."""

import dataclasses
import re
import shlex

import numpy as np
import pytest
from browser import Browser
from records import make_profile, pair_profile, tall_profile
from report_cases import plans_of, values_of

import lampq
from lampq.cli import main
from lampq.core.values.factors import factor_bytes
from lampq.core.values.head import Head
from lampq.core.values.option import all_options
from lampq.core.values.plan import Plan
from lampq.core.values.tables import known_tables
from lampq.page import explorer, markup
from lampq.page.document import MOST_BYTES, render
from lampq.page.findings import Findings
from lampq.verbs.report import surroundings


@pytest.fixture(scope="module")
def browser():
    with Browser() as started:
        started.look()
        yield started


@pytest.fixture(scope="module")
def profile():
    """Without interactions, so that a sweep is the same however busy the machine is."""
    return make_profile(3).with_tables(logit_delta=None)


@pytest.fixture(scope="module")
def plan(profile):
    """A plan that does not lie on the curve: nobody remembers why fc1 has 8 bits."""
    made = lampq.plan(profile, average_bits=4.5, pins=["fc1=8"])
    return dataclasses.replace(made, request=None, budget={"average_bits": 4.5})


@pytest.fixture(scope="module")
def points(profile):
    return lampq.sweep(profile)


@pytest.fixture(scope="module")
def page(plan, profile, tmp_path_factory):
    return lampq.report(plan, tmp_path_factory.mktemp("report") / "report.html", profile=profile)


def opened(browser, page):
    """The page with its plans unpacked."""
    browser.open(page)
    assert browser.evaluate(
        """(async () => {
            while (document.getElementById("explorer").hidden) await new Promise((next) => setTimeout(next, 20));
            return true;
        })()"""
    )
    return browser


def text(browser, selector):
    return browser.evaluate(f"document.querySelector({selector!r}).textContent")


def move(browser, index):
    browser.evaluate(
        f"(() => {{ slider.value = {index}; slider.dispatchEvent(new Event('input', {{ bubbles: true }})); }})()"
    )


def key(browser, name, code):
    browser.evaluate("document.getElementById('slider').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)
    return browser.evaluate("slider.valueAsNumber")


def bars(browser):
    """Height of each bar in model order."""
    return browser.evaluate(
        "[...document.querySelectorAll('.strips rect')].sort((a, b) => a.dataset.row - b.dataset.row)"
        ".map((rect) => Number(rect.getAttribute('height')))"
    )


def column(browser, table, index):
    """The texts of one column."""
    return browser.evaluate(
        f"[...document.querySelectorAll('{table} tbody tr')].map((row) => row.cells[{index}].textContent)"
    )


def drawn(browser, lines):
    """The paths of all strips, one after the other."""
    return browser.evaluate(
        f"[...document.querySelectorAll('.strips {lines}')].map((path) => path.getAttribute('d')).join('')"
    )


def rested(browser):
    browser.evaluate("new Promise((next) => setTimeout(next, 200))")


def test_the_page_holds_every_plan_of_the_sweep_and_its_own(page, plan, points):
    values = values_of(page)
    widths = np.array([option[0] for option in values["options"]])[plans_of(values)].tolist()
    own = widths.pop(values["start"])
    assert own == [layer.weight_bits for layer in plan.layers]
    assert widths == [list(point.widths) for point in points]
    sizes, damages = values["bytes"], values["damages"]
    assert sizes.pop(values["start"]) == plan.total_bytes
    damages.pop(values["start"])
    assert sizes == [point.size_bytes for point in points]
    assert damages == pytest.approx([point.predicted_kl for point in points], rel=1e-3)


def test_bars_and_figures_follow_the_slider(browser, page, points, plan, profile):
    opened(browser, page)
    start = browser.evaluate("slider.valueAsNumber")
    last = len(points)
    for index in (0, start - 1, start + 1, last):
        point = points[index - (index > start)]
        move(browser, index)
        assert bars(browser) == list(point.widths)
        shown = (number_of(browser, "bits"), number_of(browser, "predicted"))
        assert shown == (markup.number(point.average_bits), markup.number(round_to(point.predicted_kl, 4)))
        assert number_of(browser, "size") == markup.size(point.size_bytes)
        words = f"{markup.number(point.average_bits)} bits, {markup.size(point.size_bytes)}"
        assert text(browser, "#reading").startswith(f"Plan {index + 1} of {last + 1}: {words}")
        assert text(browser, "#bits .legend").count("layer") == len(set(point.widths))
        stored = browser.evaluate(
            "[...document.querySelectorAll('.kinds tbody tr')].map((r) => r.cells[4].textContent)"
        )
        assert sum(int(value.replace(",", "")) for value in stored) == point.size_bytes
        rested(browser)
        rows = browser.evaluate(
            "[...document.querySelectorAll('#layers-table tbody tr')].map((r) => r.cells[4].textContent)"
        )
        assert rows == [str(bits) for bits in point.widths]
    browser.evaluate("document.getElementById('own').click()")
    assert bars(browser) == [layer.weight_bits for layer in plan.layers]
    assert number_of(browser, "bits") == markup.number(plan.average_bits)
    assert browser.complaints() == []


def number_of(browser, tile):
    return browser.evaluate(f"document.querySelector('#{tile}-tile b').firstChild.textContent.trim()")


def round_to(value, digits):
    return float(f"{value:.{digits}g}")


def test_keys_move_the_slider_and_screen_readers_hear_the_plan(browser, page, points):
    opened(browser, page)
    start = browser.evaluate("slider.valueAsNumber")
    assert key(browser, "ArrowRight", 39) == start + 1
    assert key(browser, "End", 35) == len(points)
    assert bars(browser) == list(points[-1].widths)
    assert key(browser, "PageDown", 34) < len(points)
    assert key(browser, "Home", 36) == 0
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    (slider,) = [node for node in nodes if node.get("role", {}).get("value") == "slider"]
    assert "plans" in slider["name"]["value"]
    said = browser.evaluate("slider.getAttribute('aria-valuetext')")
    first = points[0]
    assert said.startswith(f"{markup.number(first.average_bits)} bits, {markup.size(first.size_bytes)}, ")


def test_a_click_on_the_curve_goes_to_the_plan_of_that_size(browser, page, points):
    opened(browser, page)
    right, middle = browser.evaluate(
        """(() => {
            const area = document.querySelector("#tradeoff .area");
            area.scrollIntoView({ block: "center", behavior: "instant" });
            const box = area.getBoundingClientRect();
            return [box.right, (box.top + box.bottom) / 2];
        })()"""
    )
    place = {"x": right - 2, "y": middle}
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)
    assert browser.evaluate("slider.valueAsNumber") == len(points)


def test_the_copied_command_makes_the_plan(browser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    profile = make_profile(3)
    profile.write(tmp_path / "my profile.json")
    lampq.plan(profile, average_bits=3.5, mode="kl", pins=["head=8"]).write(tmp_path / "plan.json")
    words = ["report", "plan.json", "--profile", "my profile.json", "-o", "report.html"]
    assert main(words) == 0
    opened(browser, tmp_path / "report.html")
    values = values_of(tmp_path / "report.html")
    assert text(browser, "#command") == "lampq apply random plan.json -o FILE"
    for index in {0, 3, values["start"] + 1, len(values["bytes"]) - 1}:
        move(browser, index)
        command = shlex.split(text(browser, "#command"))
        assert command[:3] == ["lampq", "plan", "my profile.json"] and "head=8" in command
        assert main(command[1:]) == 0
        made = Plan.read(command[-1])
        assert made.average_bits == pytest.approx(average(values, index))
        assert made.predicted_kl == pytest.approx(values["damages"][index], rel=1e-3)


def test_commands_of_plans_with_interactions_say_that_the_search_may_differ(plan, page, tmp_path):
    profile = make_profile(3)
    near = lampq.report(lampq.plan(profile, average_bits=3.5), tmp_path / "report.html", profile=profile)
    assert "the search behind this command" in near.read_text(encoding="utf-8")
    assert "the search behind this command" not in page.read_text(encoding="utf-8")


def average(values, index):
    widths = [values["options"][option][0] for option in plans_of(values)[index]]
    return np.dot(widths, values["weights"]) / sum(values["weights"])


def with_ranks(profile, rank=2):
    """The profile with factors of a rank beside every width, too, which take off some of the damage."""
    factors = np.array([[0, factor_bytes(layer.shape, rank)] for layer in profile.layers])
    less = np.linspace(0.3, 0.9, len(profile.layers))[:, None] ** [0, 1]
    widths = profile.weight_bits.tolist()
    kl, payload = (table[:, :, None] for table in (profile.kl, profile.payload_bytes))
    return dataclasses.replace(
        profile,
        rounding="inputs",
        options=all_options(widths, ranks=(0, rank)),
        tables=known_tables(
            weight_error=np.repeat(profile.weight_error, 2, axis=1),
            payload_bytes=(payload + factors[:, None]).reshape(len(factors), -1),
            kl=(kl * less[:, None]).reshape(len(factors), -1),
        ),
    )


def test_ranks_of_a_plan_are_in_its_rows_and_its_budget(browser, profile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ranked = with_ranks(profile)
    ranked.write(tmp_path / "ranked.json")
    lampq.plan(ranked, average_bits=4.5).write(tmp_path / "plan.json")
    assert main(["report", "plan.json", "--profile", "ranked.json", "-o", "report.html"]) == 0
    opened(browser, tmp_path / "report.html")
    titles = browser.evaluate(
        "[...document.querySelectorAll('#layers-table th')].map((th) => th.textContent)"
    )
    place = [title.strip() for title in titles].index("rank")
    points = lampq.sweep(ranked)
    for index in (3, len(points) // 2, len(points) - 1):
        move(browser, index)
        command = shlex.split(text(browser, "#command"))
        if command[1] == "apply":
            continue
        assert main(command[1:]) == 0
        made = Plan.read(command[-1])
        rested(browser)
        assert column(browser, "#layers-table", place) == [str(layer.rank) for layer in made.layers]
        assert float(command[command.index("--avg-bits") + 1]) == pytest.approx(made.average_bits, abs=1e-3)
    assert browser.complaints() == []


def test_the_command_is_copied(browser, page):
    opened(browser, page)
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.evaluate("window.focus()")
    browser.evaluate(
        "(async () => { document.getElementById('copy').click();"
        "while (!document.getElementById('copied').textContent) await new Promise((next) => setTimeout(next, 20)); })()"
    )
    assert text(browser, "#copied") in ("copied", "press Ctrl+C")
    assert browser.complaints() == []


def test_two_plans_lie_over_each_other(browser, page, plan, points):
    opened(browser, page)
    choose = "(() => {{ against.value = '{}'; against.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()"
    assert drawn(browser, ".other") == ""
    browser.evaluate(choose.format("own"))
    move(browser, len(points))
    assert drawn(browser, ".other").count("M") == len(plan.layers)
    wider = sum(layer.weight_bits < bits for layer, bits in zip(plan.layers, points[-1].widths, strict=True))
    said = text(browser, "#difference")
    assert f"{wider} layers wider, 0 narrower" in said
    assert f"{markup.size(points[-1].size_bytes - plan.total_bytes)} more" in said
    browser.evaluate(choose.format("hold"))
    assert "the same weights’ widths; the same size; the same damage" in text(browser, "#difference")
    move(browser, 0)
    assert f"{markup.size(points[-1].size_bytes - points[0].size_bytes)} less" in text(browser, "#difference")
    browser.evaluate(choose.format("4"))
    heights = set(re.findall(r"M\d+ (\d+)h", drawn(browser, ".other")))
    assert heights == {"4"}
    browser.evaluate(choose.format(""))
    assert (drawn(browser, ".other"), text(browser, "#difference")) == ("", "")


@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (1200, True)])
def test_it_fits_every_screen_and_paper(browser, page, width, dark):
    browser.look(width=width, dark=dark)
    opened(browser, page)
    move(browser, 0)
    assert browser.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    browser.look(width=width, media="print")
    hidden = "document.querySelectorAll('{}')[0].offsetParent === null"
    assert all(browser.evaluate(hidden.format(what)) for what in ("#slider", "#copy", "#command"))
    assert text(browser, "#reading").startswith("Plan 1 of")
    browser.look()


def test_without_a_script_or_a_profile_nothing_pretends_to_move(browser, page, plan, tmp_path):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert [node for node in nodes if node.get("role", {}).get("value") == "slider"] == []
    alone = lampq.report(plan, tmp_path / "report.html")
    assert 'id="explorer"' not in alone.read_text(encoding="utf-8")


def test_input_widths_move_too(browser, tmp_path):
    profile = pair_profile(2)
    plan = lampq.plan(profile, average_bits=4)
    page = lampq.report(plan, tmp_path / "report.html", profile=profile)
    points = lampq.sweep(profile)
    opened(browser, page)
    last = browser.evaluate("(() => { const n = Number(slider.max); return n; })()")
    move(browser, last)
    rested(browser)
    cells = browser.evaluate(
        "[...document.querySelectorAll('#layers-table tbody tr')].map((r) => r.cells[5].textContent)"
    )
    assert cells == [str(bits) for bits in points[-1].input_widths]
    marks = browser.evaluate(
        "[...document.querySelectorAll('.strips .inputs')].map((p) => p.getAttribute('d')).join('')"
    )
    assert marks.count("M") == len(plan.layers)
    assert f"--max-bops {points[-1].bops} " in text(browser, "#command")


def test_a_curve_that_does_not_fit_is_thinned_and_says_so(plan, profile, monkeypatch):
    around = surroundings(plan, profile)
    monkeypatch.setattr(explorer, "_MOST_CELLS", 200)
    page = render(Findings(plan=plan, around=around))
    assert f"of {len(around.sweep.points)}, evenly spread" in page
    monkeypatch.setattr(explorer, "_MOST_PACKED", 1000)
    shorter = render(Findings(plan=plan, around=around))
    assert len(shorter) < len(page)
    thin = around.sweep.thinned(5)
    assert thin.points[thin.start] == around.sweep.points[around.sweep.start]
    assert (thin.points[0], thin.points[-1]) == (around.sweep.points[0], around.sweep.points[-1])


def test_outputs_are_listed(browser, plan, profile, tmp_path):
    heads = (
        Head(name="logits", role="classes", reason="one of 4"),
        Head(name="<b>boxes", role="values", weight=0.5),
        Head(name="index", role="ignore"),
    )
    page = lampq.report(plan, tmp_path / "report.html", profile=dataclasses.replace(profile, heads=heads))
    browser.open(page)
    assert column(browser, "#outputs", 0) == ["logits", "<b>boxes", "index"]
    assert column(browser, "#outputs", 2) == ["1", "0.5", "–"]
    assert column(browser, "#outputs", 3) == ["one of 4", "as asked for", "as asked for"]
    assert "sum over 2 outputs" in text(browser, "#outputs .lead")


def test_a_thousand_layers_and_all_their_plans_fit_and_move(browser, tmp_path):
    profile = tall_profile()
    plan = lampq.plan(profile, average_bits=3.5)
    page = lampq.report(plan, tmp_path / "report.html", profile=profile)
    assert page.stat().st_size < MOST_BYTES
    opened(browser, page)
    points = lampq.sweep(profile)
    assert len(values_of(page)["bytes"]) == len(points) + 1
    move(browser, 0)
    counts = {}
    styles = browser.evaluate(
        "[...document.querySelectorAll('.strips path[class^=b]')]"
        ".map((path) => [path.getAttribute('class'), path.getAttribute('d')])"
    )
    for style, path in styles:
        counts[int(style[1:])] = counts.get(int(style[1:]), 0) + path.count("M")
    widths, sizes = np.unique(points[0].widths, return_counts=True)
    assert counts == dict(zip(widths.tolist(), sizes.tolist(), strict=True))
    assert browser.complaints() == []
