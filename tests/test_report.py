"""The report page, looked at by a real browser: what it says, what it loads, how it behaves and how wide it is."""

import dataclasses
import re

import numpy as np
import pytest
from browser import Browser
from records import pair_profile, tall_profile
from report_cases import around, plan, profile  # noqa: F401

import lampq
from lampq.core.values.fitted import Fitted
from lampq.core.values.history import history_from_json
from lampq.core.values.plan_product import PlanProduct
from lampq.core.values.product import Product
from lampq.page import markup
from lampq.page.document import MOST_BYTES, render
from lampq.page.findings import Findings
from lampq.verbs.report import surroundings

HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "a\"b'c&d onclick=\"document.title='owned'\"",
    "line\u2028separator\u2029",
    "x" * 5000,
    "\u202eright to left",
    "<!-- ]]> -->",
    "\ud800 half a pair",
    "nul\x00 and \x1b",
)


@pytest.fixture(scope="module")
def browser():
    with Browser() as started:
        yield started


@pytest.fixture(scope="module")
def page(plan, around, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(Findings(plan=plan, around=around)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def sites_page(tmp_path_factory):
    """A page of a plan of pairs of widths with products, under names that are long."""
    pairs = pair_profile()
    made = lampq.plan(pairs, average_bits=4)
    name = "encoder.transformer.layers.{}.self_attention.multi_head@scores"
    products = tuple(
        PlanProduct(
            product=Product(
                name=name.format(place), left="q", right="k", left_values=512, right_values=512, macs=4096
            ),
            left=Fitted(tag="head_channel", bits=4),
            predicted_kl=1.234e-7,
            why="w4a4 adds 3.55e-05 for 419 bytes less; w4a8 saves 1.00e-07 for 48 bytes more, over a limit",
        )
        for place in range(3)
    )
    path = tmp_path_factory.mktemp("report") / "sites.html"
    findings = Findings(plan=dataclasses.replace(made, products=products), around=surroundings(made, pairs))
    path.write_text(render(findings), encoding="utf-8")
    return path


def overflow(browser):
    """Pixels by which the page is wider than its window, and what sticks out."""
    return browser.evaluate(
        """(() => {
            const wide = document.documentElement.scrollWidth - innerWidth;
            const inside = (e) => e.closest(".scroll, .whole, svg, [hidden]");
            const out = [...document.body.querySelectorAll("*")]
                .filter((e) => !inside(e) && e.getBoundingClientRect().right > innerWidth + 1)
                .map((e) => e.outerHTML.slice(0, 80));
            return [wide, out];
        })()"""
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 768, 1200])
@pytest.mark.parametrize("which", ["page", "sites_page"])
def test_it_opens_without_complaint_request_or_overflow(browser, which, width, dark, request):
    page = request.getfixturevalue(which)
    browser.look(width=width, height=800, dark=dark)
    browser.open(page)
    assert browser.complaints() == []
    assert {url.partition(":")[0] for url in browser.requests()} <= {"file", "data"}
    assert [url for url in browser.requests() if url.startswith("file")] == [page.as_uri()]
    assert overflow(browser) == [0, []]
    assert page.stat().st_size < MOST_BYTES


def luminance(colour):
    values = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear_values = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear_values))


def contrast(one, other):
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_told_apart(browser, page, dark):
    browser.look(dark=dark)
    browser.open(page)
    colours = browser.evaluate(
        """(() => {
            const probe = document.body.appendChild(document.createElement("p"));
            const read = (name) => ((probe.style.color = `var(--${name})`), getComputedStyle(probe).color);
            const names = ["paper", "card", "ink", "soft", "accent", "teal", "hollow", "on-b", "on-pale"];
            return Object.fromEntries([...names, ..."12345678"].map((n) => [n, read(n.length > 1 ? n : "b" + n)]));
        })()"""
    )
    assert (luminance(colours["paper"]) < 0.2) == dark
    for text in ("ink", "soft", "accent"):
        assert contrast(colours[text], colours["paper"]) >= 4.5
        assert contrast(colours[text], colours["card"]) >= 4.5
    for mark in ("teal", "hollow"):
        assert contrast(colours[mark], colours["paper"]) >= 3
    for bits in range(1, 9):
        assert contrast(colours[str(bits)], colours["paper"]) >= (2.5 if bits < 3 else 3)
        on = colours["on-pale" if bits < 3 else "on-b"]
        assert contrast(colours[str(bits)], on) >= 4.5, bits
    ramp = [luminance(colours[str(bits)]) for bits in range(1, 9)]
    assert ramp == sorted(ramp, reverse=not dark)


@pytest.mark.parametrize("which", ["page", "sites_page"])
def test_every_picture_table_and_field_has_a_name(browser, which, request):
    browser.look()
    browser.open(request.getfixturevalue(which))
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"image", "img", "table", "slider", "combobox", "searchbox", "button", "region", "heading"}
    named = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(named) > 15
    assert [node for node in named if not node.get("name", {}).get("value")] == []
    levels = browser.evaluate("[...document.querySelectorAll('h1,h2')].map((e) => e.tagName).join(' ')")
    assert levels.startswith("H1 H2") and levels.count("H1") == 1


@pytest.mark.parametrize("width", [768, 1200])
def test_no_number_breaks(browser, sites_page, width):
    browser.look(width=width)
    browser.open(sites_page)
    broken = browser.evaluate(
        """[...document.querySelectorAll(".figures td:not(:last-child)")].filter((cell) => {
            const range = document.createRange();
            range.selectNodeContents(cell);
            return new Set([...range.getClientRects()].map((box) => Math.round(box.bottom / 8))).size > 2;
        }).map((cell) => cell.textContent)"""
    )
    assert broken == []


def test_the_table_sorts_and_filters(browser, page, plan):
    browser.look()
    browser.open(page)
    shown = "[...document.querySelectorAll('#layers-table tbody tr:not([hidden])')]"
    column = f"{shown}.map((r) => r.cells[%d].textContent)"
    browser.evaluate("document.querySelectorAll('#layers-table thead button')[3].click()")
    sizes = [int(text.replace(",", "")) for text in browser.evaluate(column % 3)]
    assert sizes == sorted((layer.size for layer in plan.layers), reverse=True)
    browser.evaluate("document.querySelectorAll('#layers-table thead button')[1].click()")
    assert browser.evaluate("document.querySelector('[aria-sort]').ariaSort") == "ascending"
    assert browser.evaluate(column % 1) == sorted(layer.name for layer in plan.layers)
    damage = "document.querySelectorAll('#layers-table thead button')[6].click()"
    browser.evaluate(damage)
    names = [
        layer.name for layer in sorted(plan.layers, key=lambda layer: -float(f"{layer.predicted_kl:.2e}"))
    ]
    assert browser.evaluate(column % 1) == names
    browser.evaluate(
        "(() => { const s = document.getElementById('of-kind'); s.value = 'qkv';"
        "s.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )
    assert set(browser.evaluate(column % 2)) == {"qkv"}
    assert browser.evaluate("document.getElementById('shown').textContent") == "2 of 10"


def test_a_bar_leads_to_its_row(browser, page):
    browser.look()
    browser.open(page)
    browser.evaluate(
        "document.querySelector('[data-row=\"4\"]').dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    assert browser.evaluate("document.querySelector('tr.shown').id") == "l4"


def test_the_map_reads_out_what_it_shows(browser, page, plan, around):
    browser.look()
    browser.open(page)
    pairs = around.pairs
    code = """(async () => {
        const map = document.getElementById("heat"), box = map.getBoundingClientRect(), n = %d;
        const readout = document.getElementById("heat-readout"), before = readout.textContent;
        map.dispatchEvent(new PointerEvent("pointermove", {
            clientX: box.left + (%d + 0.5) * box.width / n, clientY: box.top + (%d + 0.5) * box.height / n}));
        // It is painted in a later frame, which on a busy machine may take a while.
        for (let tries = 0; readout.textContent === before && tries < 200; tries++)
            await new Promise((done) => setTimeout(done, 50));
        return readout.textContent;
    })()"""
    rows, columns = np.unravel_index(np.argsort(-np.abs(np.triu(pairs, 1)), axis=None)[:3], pairs.shape)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        text = browser.evaluate(code % (len(pairs), column, row))
        names, _, figure = text.rpartition(": about ")
        assert names == f"{plan.layers[row].name} and {plan.layers[column].name}"
        shown = float(figure.replace("−", "-").removesuffix(" nats"))
        assert shown == pytest.approx(pairs[row, column], rel=0.05)


def test_it_prints_on_light_paper(browser, page):
    browser.look(dark=True)
    browser.open(page)
    assert browser.printed().startswith(b"%PDF")
    browser.look(width=700, dark=True, media="print")
    # What is printed is black on white whatever the screen was.
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.querySelector('.controls')).display") == "none"
    assert overflow(browser)[0] == 0


def test_hostile_names_stay_text(browser, plan, around, tmp_path):
    layers = [dataclasses.replace(layer, name=name) for layer, name in zip(plan.layers, HOSTILE, strict=True)]
    told = [dataclasses.replace(layer, kind=layer.name, why=layer.name) for layer in layers]
    provenance = {"model": HOSTILE[1], HOSTILE[0]: {HOSTILE[2]: HOSTILE[3]}}
    for chosen in (layers, told):
        hostile = dataclasses.replace(
            plan,
            layers=tuple(chosen),
            notes=HOSTILE,
            solver=HOSTILE[0],
            mode=HOSTILE[1],
            budget={HOSTILE[0]: 1.0},
            provenance=provenance,
        )
        page = tmp_path / "report.html"
        page.write_text(render(Findings(plan=hostile, around=around)), encoding="utf-8")
        browser.look(width=360)
        browser.open(page)
        assert browser.complaints() == []
        assert browser.evaluate("document.title") == f"{HOSTILE[1]} · lampq"
        assert browser.evaluate("document.scripts.length") == 1
        assert (
            browser.evaluate("document.querySelectorAll('[onerror], [onclick], img:not(#heat)').length") == 0
        )
        shown = browser.evaluate(
            "[...document.querySelectorAll('#layers-table tbody th')].map((e) => e.textContent)"
        )
        assert shown == [markup.short(re.sub("[\x00\x1b\ud800]", "�", name)) for name in HOSTILE]
        assert overflow(browser) == [0, []]


def test_the_policy_lets_no_other_script_run(browser, page, tmp_path):
    injected = tmp_path / "injected.html"
    text = page.read_text(encoding="utf-8")
    injected.write_text(
        text.replace("</main>", "<script>document.title='owned'</script></main>"), encoding="utf-8"
    )
    browser.open(injected)
    assert browser.evaluate("document.title") != "owned"
    assert browser.complaints()


def test_a_thousand_layers_fit(browser, tmp_path):
    profile = tall_profile()
    plan = lampq.plan(profile, average_bits=3.5)
    page = lampq.report(plan, tmp_path / "report.html", profile=profile)
    assert page.stat().st_size < MOST_BYTES
    browser.look(width=360)
    browser.open(page)
    assert browser.complaints() == []
    assert overflow(browser) == [0, []]
    rows = browser.evaluate("document.querySelectorAll('#layers-table tbody tr').length")
    assert rows == len(profile.layers)


def test_a_plan_alone_makes_a_page(browser, plan, tmp_path):
    for index, made in enumerate(
        (plan, dataclasses.replace(plan, history=(), measured_kl=None, predicted_kl=None, bound=None))
    ):
        browser.open(lampq.report(made, tmp_path / f"{index}.html"))
        assert browser.complaints() == []
        assert "--profile" in browser.evaluate("document.getElementById('tradeoff').textContent")


def test_swaps_of_the_published_update_are_drawn(browser, plan, tmp_path):
    swaps = tuple({"raised": 1, "lowered": 2, "kl": 0.1 / (i + 1), "kept": i % 3 > 0} for i in range(40))
    odd = ({"raised": 0, "kl": "x"}, {"measured": None}, {"anything": [1]}, {"number": 1, "measured": True})
    history = history_from_json((*swaps, *odd))
    page = lampq.report(dataclasses.replace(plan, history=history), tmp_path / "report.html")
    browser.look(width=360)
    browser.open(page)
    assert browser.evaluate("document.querySelectorAll('#rounds svg .dot').length") == 40
    assert overflow(browser) == [0, []]
