"""The report page, looked at by a real browser: what it says, what it loads, how it behaves and how wide it is."""

import base64
import dataclasses
import io
import json
import re
import struct
import time

import numpy as np
import pytest
from browser import Browser
from PIL import Image
from records import make_profile, pair_profile, tall_profile

import lampq
from lampq.cli import main
from lampq.core.values.errors import PlanError
from lampq.core.values.fitted import Fitted
from lampq.core.values.gaussian import Gaussian
from lampq.core.values.history import Round, history_from_json
from lampq.core.values.option import Option
from lampq.core.values.plan import Neighbour
from lampq.core.values.plan_product import PlanProduct
from lampq.core.values.product import Product
from lampq.core.values.tables import known_tables
from lampq.page import markup
from lampq.page.axis import linear, logarithmic
from lampq.page.document import MOST_BYTES, render
from lampq.page.findings import Findings
from lampq.page.heat import _picture
from lampq.page.png import encode
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
def profile():
    return make_profile(3)


@pytest.fixture(scope="module")
def plan(profile):
    """A plan as `quantize` leaves it: measured, with rounds."""
    rounds = (
        Round(number=0, measured=0.09, accepted=True),
        Round(number=1, before=0.09, predicted=0.07, measured=0.08, accepted=True),
        Round(number=2, before=0.08, predicted=0.06, measured=0.085, accepted=False),
    )
    made = lampq.plan(profile, average_bits=3.5)
    return dataclasses.replace(made, measured_kl=0.08, history=rounds)


@pytest.fixture(scope="module")
def around(plan, profile):
    return surroundings(plan, profile)


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


def test_the_line_is_of_plans_that_none_of_their_size_beats():
    pairs = pair_profile()
    around = surroundings(lampq.plan(pairs, average_bits=4), pairs)
    front = [(point.size_bytes, point.damage) for point in around.front]
    assert 2 < len(front) < len(around.curve)
    sizes, damages = zip(*front, strict=True)
    assert list(sizes) == sorted(set(sizes)) and list(damages) == sorted(set(damages), reverse=True)
    for point in around.curve:
        assert any(size <= point.size_bytes and damage <= point.damage for size, damage in front)


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


def test_thousands_of_layers_end_in_seconds(tmp_path):
    """Matching and listing every layer against every other took two minutes."""
    few, blocks = make_profile(2, kinds=("qkv", "proj", "fc1", "fc2"), samples=2, classes=2), 1000
    rng = np.random.default_rng(0)
    layers = tuple(
        dataclasses.replace(
            layer,
            name=f"layers.{block}.{layer.kind}",
            fingerprint=dataclasses.replace(layer.fingerprint, fourth=float(rng.exponential())),
        )
        for block in range(blocks)
        for layer in few.layers
    )
    tables = {name: np.tile(few.array(name), (blocks, 1)) for name in ("weight_error", "payload_bytes", "kl")}
    tables["kl"] = tables["kl"] * rng.uniform(0.1, 10, (len(layers), 1))
    profile = dataclasses.replace(few, layers=layers, tables=known_tables(**tables))
    plan = lampq.plan(profile, average_bits=3.5)
    begun = time.perf_counter()
    page = lampq.report(plan, tmp_path / "report.html", profile=profile)
    assert page.stat().st_size < MOST_BYTES
    assert time.perf_counter() - begun < 60


def test_more_layers_than_fit_are_cut_and_it_says_so(plan):
    layer = plan.layers[0]
    many = tuple(
        dataclasses.replace(layer, name=f"{i}{'ü' * 90}", predicted_kl=float(i), why="w" * 150)
        for i in range(3000)
    )
    text = render(Findings(plan=dataclasses.replace(plan, layers=many)))
    assert len(text.encode()) < MOST_BYTES
    assert "layers of greatest damage" in text
    assert "2999üü" in text and "<th scope=row>0üü" not in text
    kinds = tuple(dataclasses.replace(layer, name=str(i), kind=f"kind {i}") for i in range(1500))
    assert len(render(Findings(plan=dataclasses.replace(plan, layers=kinds))).encode()) < MOST_BYTES


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


def test_predictions_are_those_of_the_other_verbs(plan, profile, around):
    assert around.here.damage == pytest.approx(plan.predicted_kl, rel=1e-9)
    assert around.here.size_bytes == plan.total_bytes
    for bits, point in around.uniform.items():
        uniform = lampq.plan(profile, average_bits=bits, pins=[f"*={bits}"])
        assert (point.size_bytes, point.damage) == (uniform.total_bytes, pytest.approx(uniform.predicted_kl))
    damages = [point.damage for point in around.curve]
    assert damages == sorted(damages, reverse=True)
    assert min(
        point.damage for point in around.curve if point.size_bytes <= around.here.size_bytes
    ) == pytest.approx(around.here.damage, rel=0.02)
    # A plan's damage is what its layers lose alone and what all pairs add.
    alone, pairs = np.trace(around.pairs), np.triu(around.pairs, 1).sum()
    assert alone + pairs == pytest.approx(plan.predicted_kl, rel=1e-6)


@pytest.mark.parametrize("mode", ["superposition", "kl", "fisher", "lampq"])
def test_steps_are_what_plans_with_that_layer_moved_lose(profile, mode):
    plan = lampq.plan(profile, average_bits=4, mode=mode)
    around = surroundings(plan, profile)
    assert all(np.isfinite(point.damage) for point in (*around.curve, *around.uniform.values()))
    assert set(around.uniform) == set(range(2, 9))
    assert "this plan" in render(Findings(plan=plan, around=around))
    for index in (1, 4):
        widths = dict(plan.widths)
        step = around.wider[index]
        widths[plan.layers[index].name] = step.bits
        pins = [f"{name}={bits}" for name, bits in widths.items()]
        moved = lampq.plan(profile, average_bits=8, mode=mode, pins=pins)
        assert step.damage == pytest.approx(moved.predicted_kl - around.here.damage, abs=1e-9)
        assert step.bytes == moved.total_bytes - plan.total_bytes


def test_profiles_in_another_order_are_matched(plan, profile, around):
    order = np.random.default_rng(0).permutation(len(profile.layers))
    ours, theirs = around, surroundings(plan, profile.part(order))
    np.testing.assert_allclose(theirs.pairs, ours.pairs, rtol=1e-6, atol=1e-9)
    assert theirs.here.damage == pytest.approx(ours.here.damage)
    assert [step.bits for step in theirs.wider if step] == [step.bits for step in ours.wider if step]


def test_pairs_of_widths(profile, tmp_path):
    options = tuple(Option(weight_bits=bits, activation_bits=wide) for bits in (2, 4, 8) for wide in (4, 8))
    columns = [0, 0, 2, 2, 6, 6]
    activation = Gaussian(mean=np.zeros(1), std=np.ones(1), min=-np.ones(1), max=np.ones(1), count=8)
    pairs = dataclasses.replace(
        profile,
        layers=tuple(dataclasses.replace(layer, activation=activation) for layer in profile.layers),
        options=options,
        tables=known_tables(
            weight_error=profile.weight_error[:, columns],
            payload_bytes=profile.payload_bytes[:, columns],
            kl=profile.kl[:, columns] * np.array([1.5, 1] * 3),
        ),
    )
    plan = lampq.plan(pairs, average_bits=4)
    around = surroundings(plan, pairs)
    inputs = {layer.activation_bits for layer in plan.layers}
    assert inputs == {8}
    for bits, point in around.uniform.items():
        uniform = lampq.plan(pairs, average_bits=bits, pins=[f"*=w{bits}a8"])
        assert point.damage == pytest.approx(uniform.predicted_kl)
    for layer, narrower, wider in zip(plan.layers, around.narrower, around.wider, strict=True):
        assert narrower is None or narrower.bits == {4: 2, 8: 4}[layer.weight_bits]
        assert wider is None or wider.bits == {2: 4, 4: 8}[layer.weight_bits]
    page = lampq.report(plan, tmp_path / "report.html", profile=pairs).read_text()
    assert ">input</button>" in page


def test_another_rounding_is_told(plan, profile):
    assert surroundings(plan, profile.with_tables(logit_delta=None)).caveat == ""
    fitted = dataclasses.replace(plan, rounding="inputs", mode="kl")
    around = surroundings(fitted, profile.with_tables(logit_delta=None))
    assert "fitted to the layers’ inputs" in render(Findings(plan=fitted, around=around))


def test_the_next_plans_are_told(plan, tmp_path):
    cheaper = Neighbour(total_bytes=plan.total_bytes - 1234, average_bits=3.4, predicted_kl=0.25)
    page = lampq.report(dataclasses.replace(plan, cheaper=cheaper, dearer=None), tmp_path / "report.html")
    assert (
        "The next cheaper plan takes 1,234 bytes less and is predicted to lose 0.250 nats."
        in page.read_text()
    )


def test_odd_figures_of_a_file_make_a_page(plan):
    rng = np.random.default_rng(0)
    figures = (None, 0.0, -1.0, 1e308, -1e308, 1e-320, 0.5)
    for _ in range(200):
        pick = [figures[i] for i in rng.integers(len(figures), size=6)]
        steps = [{"number": 1, "predicted": pick[3], "measured": pick[4], "accepted": True}]
        history = history_from_json(steps)
        layers = (dataclasses.replace(plan.layers[0], predicted_kl=pick[5]), *plan.layers[1:])
        odd = dataclasses.replace(
            plan, predicted_kl=pick[0], bound=pick[1], measured_kl=pick[2], history=history, layers=layers
        )
        assert "nan" not in render(Findings(plan=odd))


def test_foreign_profiles_are_refused(plan, profile, tmp_path):
    with pytest.raises(PlanError, match="not of the plan's model"):
        lampq.report(plan, tmp_path / "report.html", profile=make_profile(4))
    narrow = make_profile(3, widths=(2, 8))
    with pytest.raises(PlanError, match=r"the profile has no \d bits"):
        lampq.report(plan, tmp_path / "report.html", profile=narrow)
    assert list(tmp_path.iterdir()) == []


def test_without_data_the_axis_does_not_speak_of_nats(tmp_path):
    profile = make_profile(5, data=False)
    plan = lampq.plan(profile, average_bits=4)
    text = lampq.report(plan, tmp_path / "report.html", profile=profile).read_text()
    assert "predicted damage, relative weight error" in text


def test_the_command(plan, profile, tmp_path, capfd):
    plan.write(tmp_path / "plan.json")
    profile.write(tmp_path / "profile.json")
    words = ["report", str(tmp_path / "plan.json"), "-o", str(tmp_path / "report.html")]
    assert main([*words, "--profile", str(tmp_path / "profile.json"), "--json"]) == 0
    out, _ = capfd.readouterr()
    assert json.loads(out)["bytes"] == (tmp_path / "report.html").stat().st_size
    assert main(words) == 2
    assert "--force" in capfd.readouterr().err
    assert main([*words, "--force", "--quiet"]) == 0
    assert main(["report", str(tmp_path / "profile.json"), "-o", str(tmp_path / "x.html")]) == 2
    assert "this is a profile" in capfd.readouterr().err


def test_pictures_decode_to_what_was_encoded():
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 5, (7, 3)).astype(np.uint8)
    palette = rng.integers(0, 256, (5, 4)).astype(np.uint8)
    image = Image.open(io.BytesIO(encode(indices, palette))).convert("RGBA")
    np.testing.assert_array_equal(np.asarray(image), palette[indices])


def test_the_map_of_a_large_model_is_averaged():
    pairs = np.random.default_rng(0).normal(size=(1000, 1000))
    pairs += pairs.T
    picture, blocks = _picture(pairs, float(np.abs(pairs).max()))
    assert len(blocks) == 160 and blocks[0][0] == 0 and blocks[-1][1] == 1000
    width, height = struct.unpack(">II", base64.b64decode(picture)[16:24])
    assert (width, height) == (160, 160)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1e-12, "1.00e-12"), (-0.5, "−0.500"), (-1e-9, "−1.00e-9"), (float("nan"), "–"), (True, "–"),
     ("x", "–"),      (1234567.0, "1.23e6"), (999.9, "1000")],
)  # fmt: skip
def test_numbers(value, text):
    assert markup.number(value) == text


@pytest.mark.parametrize(
    "values", [[5.0], [0.0], [1.0, 1.0 + 1e-12], [1e-9, 1e9], [3.0, 7.0], [0.011, 0.012], [1e308, 1e-308]]
)
def test_axes_hold_their_values_and_have_ticks(values):
    axes = [linear(values, str), linear(values, str, zero=True)]
    if min(values) > 0:
        axes.append(logarithmic(values, str))
    for axis in axes:
        assert all(0 <= axis.place(value) <= 1 for value in values)
        assert all(axis.low - 1e-9 <= tick <= axis.high * (1 + 1e-9) for tick in axis.ticks)
        assert len(axis.ticks) <= 12
    assert axes[0].ticks


def test_inputs_of_16_bits_are_on_the_curve(tmp_path):
    profile = pair_profile(2, weights=(3, 4), inputs=(8, 16))
    plan = lampq.plan(profile, average_bits=3.5)
    lampq.report(plan, tmp_path / "r.html", profile=profile)
    sweep = surroundings(plan, profile).sweep
    widest = [sweep.options[option].activation_bits for option in sweep.choices[-1]]
    assert widest == list(lampq.sweep(profile)[-1].input_widths)
    assert 16 in widest
