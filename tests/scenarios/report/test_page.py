"""The report's page and its plots: what a browser shows, says, fetches and prints of them, and what stands in them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedmodel.audit.gauges import OF_ALL, OF_SILOS
from fedmodel.system.inert import inert, inert_lines
from scenarios.report.document import Answerable, Exposure, ExposureBefore, Purpose, Report
from scenarios.report.page import plots
from scenarios.report.page.catalogue import catalogue
from scenarios.report.page.pictures import framed
from scenarios.report.page.render import CONTENTS, odds, render
from scenarios.report.page.standing import excepted, unpromised
from scenarios.report.page.told import Told
from tests import reports
from tests.chromium import Chromium, start

VOID = {"meta", "link", "br", "img", "input", "hr"}
PLOTS = ["plot-budget", "plot-delta", "plot-learning", "plot-bounds", "plot-scores", "plot-roc"]
OF_AUDIT = PLOTS[3:]
VERDICTS = ["not-refuted", "refuted", "inconclusive"]
HOSTILE = """<script>alert(1)</script>"onload='x'"""


@pytest.fixture(scope="module")
def audited() -> Report:
    return reports.report(reports.audit())


@pytest.fixture(scope="module")
def html(audited: Report) -> str:
    return render(audited)


@pytest.fixture(scope="module")
def of_empty_picture(audited: Report) -> str:
    return render(audited, {"A picture": of_svg("")})


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with start() as running:
        yield running


@pytest.fixture(scope="module", params=["audited", "bare"])
def page_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, html: str) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html if request.param == "audited" else render(reports.report()), encoding="utf-8")
    return path


class Reader(HTMLParser):
    """Reads a page strictly: every element is closed, in order; ids and attributes are kept."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, {key: value or "" for key, value in attrs}))
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def ids(self) -> list[str]:
        return [attrs["id"] for _, attrs in self.seen if "id" in attrs]


def svg_of(html: str, name: str) -> ET.Element:
    """Return one plot of a page, parsed."""
    found = re.search(rf"<svg [^>]*id=\"{name}\".*?</svg>", html, re.DOTALL)
    assert found, f"no {name}"
    return ET.fromstring(found[0])  # noqa: S314 - of our own page


# ---------------------------------------------------------------- in a browser


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")])
def test_a_browser_shows_every_section_fetches_nothing_and_says_nothing(
    browser: Chromium, page_file: Path, width: int, scheme: Any
) -> None:
    with browser.page(page_file, width, scheme=scheme) as page:
        assert page.evaluate("[...document.querySelectorAll('a')].every(a => document.querySelector(a.hash))")
        assert page.evaluate("document.querySelectorAll('details[open]').length") == 0
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        shown = "[...document.querySelectorAll('main .body')].filter(s => s.getBoundingClientRect().height > 50)"
        assert page.evaluate(f"{shown}.map(s => s.id)") == list(CONTENTS)
        assert page.complaints == []
        assert [one for one in page.requested if not one.startswith("data:")] == [page_file.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(WIDER) == []
        low = page.evaluate(CONTRAST)
        assert low["looked_at"] > 100
        assert low["found"] == []
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (max(paper) < 60) == (scheme == "dark")


def test_a_browser_shows_a_picture_in_its_frame_and_nothing_that_it_brings(
    browser: Chromium, audited: Report, tmp_path: Path
) -> None:
    hostile = HOSTILE_XML["processing instruction"].replace(" >", " viewBox='0 0 1 1'>", 1)
    path = tmp_path / "report.html"
    path.write_text(render(audited, {"One digit, three ways.": picture(), "Another.": hostile}), encoding="utf-8")
    with browser.page(path, 390) as page:
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert page.complaints == []
        assert [one for one in page.requested if not one.startswith("data:")] == [path.as_uri()]
        drawn, brought = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight])")
        assert drawn[0]
        assert min(drawn[1:]) > 0
        assert brought[0]
        assert page.evaluate("document.body.innerText.includes('at most 0.01')") is False
        assert page.evaluate("document.querySelectorAll('h1').length") == 1
        assert page.evaluate(WIDER) == []


# Elements that stick out of the window, unless they lie in a box of their own that scrolls.
WIDER = """[...document.body.querySelectorAll('*')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && box.right > document.documentElement.clientWidth + 0.5 && !e.closest('.box.scroll, .versions');
}).map(e => e.tagName + ' ' + e.className + ' ' + e.textContent.slice(0, 40))"""

# Text on the first background under it that is not transparent, by WCAG's relative luminance; plots' text too.
CONTRAST = """(() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parts(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  const found = []; let looked_at = 0;
  for (const e of document.body.querySelectorAll('*')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    if (['title', 'desc'].includes(e.tagName)) continue;
    const style = getComputedStyle(e), text = e.closest('svg') ? style.fill : style.color;
    const [a, b] = [luminance(parts(text)), luminance(behind(e))].sort((x, y) => y - x);
    looked_at += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(e.tagName + ' ' + text + ' ' + e.textContent.slice(0, 40));
  }
  return {found, looked_at};
})()"""


def test_the_first_part_is_short_on_a_telephone_and_its_promise_stands_on_the_first_screen(
    browser: Chromium, page_file: Path
) -> None:
    with browser.page(page_file, 390, 844) as page:
        assert page.evaluate("document.querySelector('.promise').getBoundingClientRect().bottom") < 844
        assert page.evaluate("document.querySelector('#annex').getBoundingClientRect().top") < 5 * 844
        assert page.evaluate("document.documentElement.scrollHeight") < 10 * 844


def test_the_first_screen_of_a_desk_has_the_beginning_of_every_card(browser: Chromium, page_file: Path) -> None:
    with browser.page(page_file, 1280, 900) as page:
        tops = "[...document.querySelectorAll('.card')].map(one => one.getBoundingClientRect().top)"
        assert max(page.evaluate(tops)) < 900 - 100
        assert page.evaluate("document.querySelector('.date').getBoundingClientRect().bottom") < 60


@pytest.mark.parametrize("verdict", [*VERDICTS, None])
def test_the_first_page_on_paper_holds_the_whole_first_part(
    browser: Chromium, tmp_path: Path, verdict: str | None
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(reports.report(reports.audit(verdict) if verdict else None)), encoding="utf-8")
    with browser.page(path, *PAPER, paper=True) as page:
        assert page.evaluate("document.querySelector('#front').getBoundingClientRect().bottom") < PAPER[1]
        assert page.evaluate("document.documentElement.scrollWidth") == PAPER[0]
        # What is folded on a screen is printed.
        shown = page.evaluate("[...document.querySelectorAll('main .body')].map(one => one.checkVisibility())")
        assert shown == [True] * len(CONTENTS)
        assert page.evaluate("document.documentElement.scrollHeight") > 5 * PAPER[1]


PAPER = (673, 990)  # what A4 leaves inside of the margins, in CSS pixels


def test_a_link_opens_the_part_of_the_annex_that_it_leads_to(browser: Chromium, page_file: Path) -> None:
    with browser.page(page_file, 1280) as page:
        opened = "[...document.querySelectorAll('details[open] .body')].map(one => one.id)"
        assert page.evaluate(opened) == []
        page.evaluate("document.querySelector('.open .more a').click()")
        assert page.evaluate(opened) == ["not-protected"]
        page.evaluate("document.querySelector('.scale .more a').click()")
        assert page.evaluate(opened) == ["claim", "not-protected"]


def test_a_table_that_scrolls_says_so_where_it_is_wider_than_a_telephone(browser: Chromium, page_file: Path) -> None:
    with browser.page(page_file, 390) as page:
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        wide = """[...document.querySelectorAll('.box')].filter(one => one.scrollWidth > one.clientWidth)
          .map(one => one.querySelector('.cue')?.getBoundingClientRect().height ?? 0)"""
        cues = page.evaluate(wide)
        assert cues
        assert min(cues) > 10
        shades = "[...document.querySelectorAll('.box.scroll')].map(one => getComputedStyle(one).backgroundImage)"
        assert all(one.count("linear-gradient") == 4 for one in page.evaluate(shades))


def test_text_of_plots_stays_readable_on_a_telephone(browser: Chromium, tmp_path: Path, html: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    with browser.page(path, 390) as page:
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        sizes = page.evaluate("""[...document.querySelectorAll('svg.plot text')].map(t => {
          const shown = t.getScreenCTM();
          return parseFloat(getComputedStyle(t).fontSize) * Math.hypot(shown.a, shown.b); })""")
        assert len(sizes) > 50
        assert min(sizes) > 8


def test_it_prints_on_more_than_one_page_and_fewer_than_fifteen(browser: Chromium, page_file: Path) -> None:
    with browser.page(page_file, scheme="dark") as page:
        pdf = page.pdf()
    assert pdf.startswith(b"%PDF-")
    assert 1 < len(re.findall(rb"/Type /Page\b", pdf)) < 15
    sizes = {(round(float(w)), round(float(h))) for w, h in re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)}
    assert sizes == {(595, 842)}  # A4


@pytest.mark.parametrize("verdict", ["not-refuted", None])
def test_the_longest_words_of_people_leave_the_first_printed_page_one_page(
    browser: Chromium, tmp_path: Path, verdict: str | None
) -> None:
    """They are cut there, and stand in full in the annex."""
    words = ("Whatever a person may have to say of this, in one line. " * 8)[:400]
    silos = tuple(Answerable(silo=one, name=words, contact=words, retention=words) for one in reports.SILOS)
    keys = ("statement", "controller", "contact", "legal_basis", "retention", "decision")
    purpose = Purpose(**dict.fromkeys(keys, words), silos=silos)
    report = reports.report(reports.audit(verdict) if verdict else None).model_copy(update={"purpose": purpose})
    path = tmp_path / "report.html"
    path.write_text(render(report), encoding="utf-8")
    with browser.page(path) as page:
        assert page.evaluate("document.querySelector('#purpose').textContent").count(words) == 6 + 3 * len(silos)
        page.evaluate("document.querySelectorAll('main, footer').forEach(one => { one.remove() })")
        assert "Whatever a person" in page.evaluate("document.body.textContent")
        assert len(re.findall(rb"/Type /Page\b", page.pdf())) == 1


def test_the_driver_sees_what_a_page_must_not_do(browser: Chromium, tmp_path: Path) -> None:
    """The checks above can fail: a page that fetches, logs and is too wide is seen to."""
    path = tmp_path / "bad.html"
    path.write_text("<!DOCTYPE html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
                    "<title>x</title><p style='width:900px;color:#999'>wide</p>"
                    "<script>console.log('said'); nowhere()</script>"
                    "<img src='missing.png'>", encoding="utf-8")  # fmt: skip
    with browser.page(path, 390) as page:
        assert "said" in page.complaints
        assert any("Uncaught" in one for one in page.complaints)
        assert (tmp_path / "missing.png").as_uri() in page.requested
        assert page.evaluate("document.documentElement.scrollWidth") > 390
        assert len(page.evaluate(WIDER)) == 1
        assert len(page.evaluate(CONTRAST)["found"]) == 1


# ---------------------------------------------------------------- as text


@pytest.mark.parametrize("verdict", [*VERDICTS, None])
def test_the_page_is_well_formed_and_has_nothing_that_runs_or_is_elsewhere(verdict: str | None) -> None:
    html = render(reports.report(reports.audit(verdict) if verdict else None))
    reader = Reader(html)
    ids = reader.ids()
    assert len(set(ids)) == len(ids)
    referred = re.findall(r"(?:href=\"#|url\(#)([^\")]+)", html)
    labels = [one for _, attrs in reader.seen for one in attrs.get("aria-labelledby", "").split()]
    assert {*referred, *labels} <= set(ids)
    assert not {tag for tag, _ in reader.seen} & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "foreignobject",
    }
    assert "<script" not in html
    for tag, attrs in reader.seen:
        for key, value in attrs.items():
            assert not key.startswith("on"), (tag, key)
            if key in ("src", "href", "xlink:href", "action", "data"):
                assert value.startswith(("#", "data:")), (tag, key, value)
    for target in re.findall(r"url\(([^)]*)\)|@import", html):
        assert target.startswith("#")
    policy = next(attrs["content"] for _, attrs in reader.seen if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert "script-src" not in policy
    head = {tag: attrs for tag, attrs in reader.seen if tag == "html"}
    assert head["html"]["lang"] == "en"


def test_every_section_is_there_with_its_questions_and_every_table_with_caption_and_scopes(
    html: str, audited: Report
) -> None:
    reader = Reader(html)
    assert [attrs["id"] for _, attrs in reader.seen if attrs.get("class") == "body"] == list(CONTENTS)
    for part in (audited.claim, audited.scope, audited.trust, audited.mechanism, audited.accounting, audited.training,
                 audited.not_protected, audited.audit, audited.integrity, audited.limits):  # fmt: skip
        assert part is not None
        for question in part.nist:
            assert question in html
    tags = [tag for tag, _ in reader.seen]
    assert tags.count("table") == tags.count("caption") > 10
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in reader.seen if tag == "th")


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_says_in_words_what_it_shows_and_takes_the_pages_colours(html: str, name: str) -> None:
    svg = svg_of(html, name)
    space = "{http://www.w3.org/2000/svg}"
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-labelledby"] == f"{name}-title {name}-desc"
    title, description = svg.find(f"{space}title"), svg.find(f"{space}desc")
    assert title is not None
    assert title.text
    assert description is not None
    assert re.search(r"\d", description.text or "")
    assert svg.attrib["viewBox"].startswith("0 0 360 ")
    assert not {"width", "height"} & svg.attrib.keys()
    text = ET.tostring(svg, encoding="unicode")
    assert not re.findall(r"#[0-9a-f]{6}\b", text)
    assert "var(--line1)" in text
    assert "<ns0:style" not in text


def test_exposure_of_canaries_is_told_with_what_chance_has_where_it_was_measured(html: str) -> None:
    exposed = Exposure(mean=1.52, largest=6.25, by_chance=1.41, most=7.5, canaries=93, among=180)
    told = reports.report(audit=reports.audit().model_copy(update={"exposure": exposed}))
    (text,) = re.findall(r"<h3>Exposure of canaries</h3>\s*<p>(.*?)</p>", render(told), re.DOTALL)
    for part in (
        "93 canaries",
        "and 180 others",
        "1.520 on average and 6.250 at most",
        "where 1.410 on",
        "and 7.500 is",
    ):
        assert part in text
    assert "no bounds" in text
    assert "Exposure of canaries" not in html
    assert "Before the run" not in render(told)
    before = exposed.model_copy(update={"before": ExposureBefore(mean=1.25, largest=5.5)})
    after = render(reports.report(audit=reports.audit().model_copy(update={"exposure": before})))
    assert "Before the run, by the model that it began with, the same canaries had 1.250 bits on average and 5.500" in (
        after
    )


def test_a_run_without_audit_says_so_and_how_to_audit() -> None:
    html = render(reports.report())
    assert "This run was not audited." in html
    # by the file, and no name: that of a scenario which is not on board leads nowhere
    assert "<code>fedmodel audit run scenario.toml</code>, the file beside this page. Where the parties" in html
    assert "<code>--set data.folder=FOLDER</code>, a folder that holds those of each." in html
    assert "Not audited" in html
    assert not [name for name in OF_AUDIT if name in html]


@pytest.mark.parametrize(
    ("verdict", "says", "never"),
    [
        ("not-refuted", "That does not prove it.", "The claim is refuted."),
        ("refuted", "The audit refuted this promise.", "did not refute"),
        ("inconclusive", "The audit is inconclusive, and counts as none.", "did not refute"),
    ],
)
def test_a_verdict_is_told_for_what_it_is_worth(verdict: str, says: str, never: str) -> None:
    html = render(reports.report(reports.audit(verdict)))
    assert says in html
    assert never not in html
    assert "no estimate of epsilon" in html
    assert "Epsilon is not under" in html
    for word in ("proven", "verified private", "true epsilon is"):
        assert word not in html


def test_a_failed_check_is_told_first_and_one_that_was_not_made_is_told_too() -> None:
    audit = reports.audit("refuted")
    html = render(reports.report(audit))
    assert "1 check of 29 failed:" in html
    assert html.index("measured 3.28, expected 6.56") < html.index("Every check</caption>")
    unmade = audit.model_copy(
        update={"unmeasured": tuple(reports.unmeasured("noise_lag1", one) for one in ("aurora", "dune"))}
    )
    assert "Noise does not repeat from step to step (aurora and dune)" in render(reports.report(unmade))
    assert "Not checked," not in html


def test_a_power_that_no_simulation_can_show_is_not_told() -> None:
    audit = reports.audit()
    sure = audit.model_copy(update={"power": audit.power.model_copy(update={"power": 1.0})})
    html = render(reports.report(sure))
    assert '<dd class="big">99.2%</dd>' in html  # 0.05 to the power of 1/400 is 0.9925
    assert "lower limit at 95% (Clopper and Pearson): 100.0% of 400 simulated runs noticed" in html
    assert "would have noticed in at least 99.2% of cases" in html
    seldom = audit.model_copy(update={"power": audit.power.model_copy(update={"power": 0.85})})
    assert '<dd class="big">81.7%</dd>' in render(reports.report(seldom))  # of 340 in 400
    trained = sure.model_copy(update={"plan": {**audit.plan, "kind": "loss"}})
    assert "an estimate by a normal curve, from 400 trained runs" in render(reports.report(trained))


def test_an_audit_of_enough_power_can_be_inconclusive_and_says_why_in_words() -> None:
    audit = reports.audit("inconclusive")
    why = "gauges without which nothing is passed could not be measured: noise_everywhere, update_explained"
    fit = audit.power.model_copy(update={"power": 0.95})
    html = render(reports.report(audit.model_copy(update={"power": fit, "reasons": (why,)})))
    assert "counts as none.</strong> That it found nothing says nothing. Why:" in html
    assert "measured: noise lies on every tensor of the model, the update is what the noised gradients make<" in html
    assert "that an audit needs" not in html
    assert "that an audit needs" in render(reports.report(audit))


def test_odds_are_by_epsilon_and_delta_where_a_silo_has_no_mu(audited: Report) -> None:
    silos = (audited.claim.silos[0].model_copy(update={"mu": None}), *audited.claim.silos[1:])
    flat = (audited.accounting.silos[0].model_copy(update={"curve": ()}), *audited.accounting.silos[1:])
    without = audited.model_copy(
        update={
            "claim": audited.claim.model_copy(update={"silos": silos}),
            "accounting": audited.accounting.model_copy(update={"silos": flat}),
        }
    )
    told = Told(catalogue())
    assert odds(audited, told)[1] == ("1%", "8.7%")
    assert odds(without, told)[1] == ("1%", "20.2%")


def test_a_plan_that_came_after_the_first_charge_is_not_called_fixed_in_advance() -> None:
    audit = reports.audit()
    late = audit.entered[0].model_copy(update={"plan_entry": 9})
    html = render(reports.report(audit.model_copy(update={"entered": (late, *audit.entered[1:])})))
    assert "Not in every ledger:" in html
    assert "nothing was chosen" not in html
    assert "No ledger holds the plan" in render(reports.report(audit.model_copy(update={"entered": ()})))


def test_seeded_noise_is_told_in_a_banner_and_promises_nothing() -> None:
    report = reports.report()
    seeded = report.model_copy(update={"claim": report.claim.model_copy(update={"protects": False})})
    html = render(seeded)
    assert "These figures protect nobody." in html
    assert "no promise" in html
    assert "they are right about presence" not in html
    assert excepted(seeded) == [("anybody_seeded", [])]
    assert "protect nobody" not in render(report)


def seeded_before(report: Report, ours: bool) -> Report:
    """Return a report of which aurora's first run, this one or another, had seeded noise."""
    budget = report.scope.budgets[0]
    runs = tuple(
        one.model_copy(update={"noise_source": "seeded-unsafe", "epsilon": None}) if one.this == ours else one
        for one in budget.runs
    )
    budget = budget.model_copy(update={"protects": False, "spent": None, "bound": None, "runs": runs})
    silos = (report.claim.silos[0].model_copy(update={"epsilon_all_runs": None}), *report.claim.silos[1:])
    scope = report.scope.model_copy(
        update={"protects": False, "largest_bound": None, "budgets": (budget, *report.scope.budgets[1:])}
    )
    return report.model_copy(update={"scope": scope, "claim": report.claim.model_copy(update={"silos": silos})})


def test_another_run_of_seeded_noise_is_told_in_a_banner_and_bounds_nothing(html: str) -> None:
    shown = render(seeded_before(reports.report(), ours=False))
    assert "All runs on these data together are bounded by nothing.</strong>" in shown
    assert "protect nobody" not in shown
    assert "nothing bounds what was released about the same data" in shown
    assert "nothing is bounded: a run’s noise was seeded; the cap of 8.00 holds nothing" in shown
    assert shown.count("<span>A SEED: protects nobody</span>") == 1
    assert "In figures: epsilon <strong>3.00</strong>" in shown  # of this run alone
    for never in ("bounded by nothing", "A SEED", "no promise"):
        assert never not in html


def test_the_table_of_runs_has_a_column_of_where_noise_came_from(html: str) -> None:
    table = re.search(r"Every run in these ledgers.*?</table>", html, re.DOTALL)
    assert table
    assert table[0].count('data-label="Noise from"><span>operating system</span>') == 5
    assert '<th role="columnheader" scope="col">Noise from</th>' in table[0]
    assert table[0].count("columnheader") == table[0].split("</tr>")[1].count("<td") + 1


def test_of_seeded_noise_there_is_no_figure_of_a_claim() -> None:
    report = reports.report()
    silos = tuple(one.model_copy(update=dict.fromkeys(("epsilon", "epsilon_all_runs", "mu", "advantage")))
                  for one in report.claim.silos)  # fmt: skip
    rows = tuple(one.model_copy(update={"noise_source": "seeded-unsafe"}) for one in report.mechanism.silos)
    seeded = report.model_copy(
        update={
            "claim": report.claim.model_copy(update={"protects": False, "epsilon": None, "silos": silos}),
            "mechanism": report.mechanism.model_copy(update={"silos": rows}),
        }
    )
    html = render(seeded)
    assert "These figures protect nobody." in html
    assert html.count('data-label="Epsilon, this run" class="num strong"><span>no promise</span>') == 4
    assert "it would be" not in html
    assert "know nothing of seeds" in html
    assert "PLD, the claim" not in html
    assert "plot-delta" not in html
    assert "Nothing is promised by this run." in html
    assert "In figures" not in html
    assert "not computed" not in html
    assert excepted(seeded) == [("anybody_seeded", [])]


def test_a_budget_of_seeded_noise_is_not_drawn_and_one_that_turned_so_says_where(html: str) -> None:
    def of(*bounded: bool | None) -> str:
        report = reports.report()
        lines = tuple(
            line.model_copy(
                update={
                    "points": tuple(
                        point if has or (has is None and place < 5) else point.model_copy(update={"epsilon": None})
                        for place, point in enumerate(line.points)
                    )
                }
            )
            for line, has in zip(report.training.budgets, bounded, strict=True)
        )
        return render(report.model_copy(update={"training": report.training.model_copy(update={"budgets": lines})}))

    assert "plot-budget" not in of(False, False, False, False)
    some = of(False, True, True, True)
    assert "aurora" not in "".join(svg_of(some, "plot-budget").itertext())
    assert "Where steps stop" not in some + html
    assert "Where steps stop short of it, noise was drawn from a seed" in of(None, True, True, True)


def test_what_was_spent_never_looks_over_a_cap_that_holds() -> None:
    report = reports.report()
    budget = report.scope.budgets[0].model_copy(update={"spent": 2.43006, "cap": 2.43007})
    scope = report.scope.model_copy(update={"budgets": (budget, *report.scope.budgets[1:])})
    html = render(report.model_copy(update={"scope": scope}))
    assert "2.44 of 2.44 " in html
    assert "3.00 of 3.00 " in html


def test_a_claim_without_a_bound_is_not_said_to_be_of_a_seed() -> None:
    report = reports.report()
    silos = (report.claim.silos[0].model_copy(update={"epsilon": None}), *report.claim.silos[1:])
    claim = report.claim.model_copy(update={"silos": silos, "epsilon": None, "protects": False})
    html = render(report.model_copy(update={"claim": claim}))
    assert "Nothing is claimed.</strong> For the charges of a silo no bound is computed" in html
    assert "seed" not in html.split("<main")[0].split("</style>")[1]


def test_delta_is_no_chance_that_the_promise_fails(html: str) -> None:
    assert "Beyond that factor, a probability may differ by at most <strong>0.001</strong>." in html
    assert "may fail" not in html
    assert "fails less" not in html


def test_the_page_knows_no_release_past_these_ledgers(html: str) -> None:
    assert "holds all of it" not in html
    assert "what was released past them counts nowhere on this page. A simulation" in html.replace("\n", " ")
    assert "everything that this run released, nothing of other runs" in html
    report = reports.report()
    deployed = report.model_copy(update={"run": report.run.model_copy(update={"engine": "deployment"})})
    assert "starts with fresh ledgers" not in render(deployed)


def test_the_page_says_who_vouches_for_what(html: str, audited: Report) -> None:
    assert "needs no trust in whoever made this page" not in html
    assert "came with the folder" in html
    assert "the roster in the folder" in html
    assert "No signed head" not in html
    ledgers = tuple(
        one.model_copy(update={"head": None, "head_entries": None}) for one in audited.integrity.ledgers[:2]
    )
    integrity = audited.integrity.model_copy(update={"ledgers": (*ledgers, *audited.integrity.ledgers[2:])})
    shown = render(audited.model_copy(update={"integrity": integrity}))
    assert "<strong>No signed head</strong> of the ledger of aurora and borealis lay beside it." in shown


def test_odds_are_the_least_of_all_points_of_the_privacy_curve(audited: Report) -> None:
    silos = tuple(one.model_copy(update={"mu": 3.0}) for one in audited.claim.silos)
    loose = audited.model_copy(update={"claim": audited.claim.model_copy(update={"silos": silos})})
    assert odds(loose, Told(catalogue()))[1] == ("1%", "8.7%")  # by the curve: 8.6598%


def test_every_check_has_a_plain_name() -> None:
    for key in (*OF_SILOS, *OF_ALL, "accountants", "accountants_at_extremes"):
        assert catalogue().has(f"names.{key}")


def test_a_silo_without_a_bound_is_named_and_has_no_number() -> None:
    report = reports.report()
    silos = (report.claim.silos[0].model_copy(update={"epsilon": None}), *report.claim.silos[1:])
    html = render(
        report.model_copy(update={"claim": report.claim.model_copy(update={"silos": silos, "epsilon": None})})
    )
    assert "Records of aurora. No bound is computed for them." in html
    assert "no bound computed" in html
    assert "they are right about presence" not in html


def test_figures_are_rounded_so_that_they_hold(html: str) -> None:
    assert "epsilon <strong>3.00</strong>" in html  # of 2.9999998755
    assert "6.5602" in html  # noise of 6.56015609 that suffices
    assert "<span>1.13</span>" in html  # a lower bound of 1.1399
    assert "8.7%" in html  # by mu, 8.6597%
    audit = reports.audit()
    low = audit.lower_bounds["fdp"].model_copy(update={"epsilon": 1.99999})
    shown = render(reports.report(audit.model_copy(update={"lower_bounds": {"fdp": low}})))
    assert "<span>1.99</span>" in shown
    assert "<span>2.00</span>" not in shown


def test_the_same_report_gives_the_same_bytes_whatever_matplotlib_is_set_to(audited: Report, html: str) -> None:
    other: Any = {"svg.fonttype": "path", "lines.linewidth": 9.0, "xtick.major.size": 30.0, "svg.hashsalt": None}
    with mpl.rc_context(other):
        assert render(audited) == html
        assert {key: mpl.rcParams[key] for key in other} == other


@pytest.mark.parametrize("of_several", [False, True], ids=["one panel", "several panels"])
def test_a_figure_is_drawn_once(of_several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    draw = Figure.draw

    def noting(figure: Figure, renderer: Any) -> None:
        drawn.append(figure)
        draw(figure, renderer)

    monkeypatch.setattr(Figure, "draw", noting)
    if of_several:
        plots.learning("some", [1, 2], {"loss": [2.0, 1.0], "accuracy": [0.5, 0.75]}, "A title", "In words")
    else:
        plots.bounds("some", [("an estimator", 1.0)], 8.0, "A title", "In words")
    assert len(drawn) == 1


def test_text_of_people_comes_out_escaped() -> None:
    report = reports.report(reports.audit())
    integrity, run = report.integrity, report.run
    audit = report.audit
    assert audit is not None
    hostile = report.model_copy(
        update={
            "run": run.model_copy(update={"scenario": HOSTILE, "summary": HOSTILE}),
            "claim": report.claim.model_copy(update={"sentence": HOSTILE}),
            "scope": report.scope.model_copy(update={"data_sets": (reports.data_set(HOSTILE),)}),
            "integrity": integrity.model_copy(
                update={"overrides": (integrity.overrides[0].model_copy(update={"reason": HOSTILE, "time": HOSTILE}),)}
            ),
            "training": report.training.model_copy(
                update={"budgets": tuple(one.model_copy(update={"silo": HOSTILE}) for one in report.training.budgets)}
            ),
            "audit": audit.model_copy(update={"plan": {HOSTILE: HOSTILE, "silos": [{HOSTILE: HOSTILE}]}}),
        }
    )
    html = render(hostile, {HOSTILE: picture()})
    assert html.count("&lt;script&gt;") > 8
    reader = Reader(html)
    assert not [tag for tag, attrs in reader.seen if tag == "script" or "onload" in attrs]


# ---------------------------------------------------------------- plots by themselves


def digits() -> list[tuple[str, np.ndarray]]:
    random, truth = np.random.default_rng(1), np.outer(np.arange(8), np.arange(8))
    return [
        ("the record", truth),
        ("unprotected gradient", truth * 3 + 1),
        ("clipped and noised", random.normal(size=(8, 8))),
    ]


def picture() -> str:
    return plots.pictures_row("pictures", digits(), "What a server sees", "Three pictures.")


def test_pictures_stand_on_the_page_as_an_illustration(audited: Report) -> None:
    html = render(audited, {"One digit, three ways.": picture()})
    assert "An illustration" in html
    (image,) = [attrs for tag, attrs in Reader(html).seen if tag == "img"]
    assert image["alt"] == "What a server sees Three pictures."
    svg = shown(html)
    images = [element.get("href", "") for element in svg.iter() if element.tag.endswith("}image")]
    assert len(images) == 3
    assert all(re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", one) for one in images)
    text = "".join(svg.itertext())
    assert "correlation 1.00" in text
    assert "correlation −" in text or "correlation 0" in text


@pytest.mark.parametrize(
    "bad",
    [
        "<p>no picture</p>",
        "<svg",
        "<svg><script>x</script></svg>",
        "<svg onload='x'/>",
        "<svg><image href='https://example.org/a.png'/></svg>",
        "<svg><image href='data:image/svg+xml,x'/></svg>",
        "<svg><rect style='fill:url(https://example.org/a)'/></svg>",
        "<!DOCTYPE svg [<!ENTITY a 'b'>]><svg><text>&a;</text></svg>",
    ],
)
def test_a_picture_that_is_anything_else_is_refused(audited: Report, bad: str) -> None:
    for written in (bad, bad.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')):
        with pytest.raises(ValueError, match="a picture"):
            render(audited, {"caption": written})


def test_a_picture_is_refused_before_anything_is_drawn(audited: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenarios.report.page.render.figures", lambda _: pytest.fail("was drawn"))
    with pytest.raises(ValueError, match="a picture"):
        render(audited, {"one": of_svg(""), "another": "<svg"})


def of_svg(inside: str, root: str = "") -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" {root}>{inside}</svg>'


COVER = '</svg></figure><div style="position:fixed;inset:0"><h1>quickstart</h1><p>Epsilon, at most 0.01</p></div>'
# Each is well-formed XML that HTML's parser would read as something else.
HOSTILE_XML = {
    "processing instruction": of_svg(f"<?x >{COVER}<?y ?><g/>"),
    "CDATA": of_svg(f"<text><![CDATA[{COVER}]]></text>"),
    "comment": of_svg(f"<!-->{COVER}<!-- --><g/>"),
    "text in a title": of_svg(f"<title>{COVER.replace('<', '&lt;')}</title>"),
    "numbers for brackets": of_svg(f"<text>{COVER.replace('<', '&#60;')}</text>"),
    "attribute": of_svg(f"<g id='{COVER.replace('<', '&lt;')}'/>"),
    "quote in an attribute": of_svg("<g id='&quot;&gt;&lt;/svg&gt;&lt;script&gt;x&lt;/script&gt;'/>"),
    "foreign object": of_svg('<foreignObject><p xmlns="http://www.w3.org/1999/xhtml">Epsilon 0.01</p></foreignObject>'),
    "another namespace": of_svg('<h:g xmlns:h="http://www.w3.org/1999/xhtml">Epsilon, at most 0.01</h:g>'),
    "a script of another namespace": of_svg('<h:script xmlns:h="http://www.w3.org/1999/xhtml">x</h:script>'),
    "a prefix for a name": '<s:svg xmlns:s="http://www.w3.org/2000/svg"><s:text>Epsilon 0.01</s:text></s:svg>',
    "style sheet": of_svg("<style>body{display:none}</style>"),
    "style": of_svg("", 'style="position:fixed;inset:0"'),
    "handler": of_svg('<g onload="x"/>'),
    "animated reference": of_svg('<use href="#a"><set attributeName="href" to="https://example.org/a.svg"/></use>'),
    "reference elsewhere": of_svg('<use href="https://example.org/a.svg#a"/>'),
    "reference of a namespace": of_svg('<use xmlns:k="http://www.w3.org/1999/xlink" k:href="javascript:x"/>'),
    "link": of_svg('<a href="javascript:x"><text>Epsilon 0.01</text></a>'),
    "entity": f'<!DOCTYPE svg [<!ENTITY a "{COVER.replace("<", "&#60;")}">]>' + of_svg("<text>&a;</text>"),
}


@pytest.mark.parametrize("name", HOSTILE_XML)
def test_xml_that_is_hostile_html_leaves_nothing_on_the_page_but_an_image(
    audited: Report, of_empty_picture: str, name: str
) -> None:
    try:
        html = render(audited, {"A picture": HOSTILE_XML[name]})
    except ValueError as refused:
        assert "a picture" in str(refused)  # noqa: PT017 - either is an answer
        return
    (image,) = [attrs for tag, attrs in Reader(html).seen if tag == "img"]
    assert set(image) == {"class", "alt", "src"}
    assert re.fullmatch(r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]+", image["src"])
    # But for what is in the image's own attributes, the page is that of an empty picture.
    assert tags(html) == tags(of_empty_picture)
    assert "at most 0.01" not in Reader(html).text
    drawn = {element.tag.partition("}")[2] for element in shown(html).iter()}
    assert drawn <= {"svg", "g", "text", "title", "use"}
    assert shown(html).tag.startswith("{http://www.w3.org/2000/svg}")


def tags(html: str) -> list[str]:
    return [tag for tag, _ in Reader(html).seen]


def shown(html: str) -> ET.Element:
    """Return the picture that an image on the page is of."""
    (image,) = [attrs for tag, attrs in Reader(html).seen if tag == "img"]
    data = image["src"].removeprefix("data:image/svg+xml;base64,")
    return ET.fromstring(base64.b64decode(data, validate=True).decode())  # noqa: S314 - written by our own page


def test_no_character_of_the_page_acts_whoever_wrote_it(audited: Report) -> None:
    acting = "a\x1b[2J\x9b31m\r\u202eb\u2066\u200b\ufeff\u2028\U000e0041c"
    run = audited.run.model_copy(update={"scenario": acting, "summary": acting})
    budgets = tuple(one.model_copy(update={"silo": acting}) for one in audited.training.budgets)
    hostile = audited.model_copy(
        update={"run": run, "training": audited.training.model_copy(update={"budgets": budgets})}
    )
    html = render(hostile, {acting: of_svg(f"<text>{acting[4:].replace(chr(13), '')}</text>")})
    assert inert_lines(html) == html
    assert html.count(inert(acting)) > 4
    text = "".join(shown(html).itertext())
    assert inert_lines(text) == text


def test_the_row_of_pictures_is_a_png_too() -> None:
    png = plots.pictures_png(digits())
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png == plots.pictures_png(digits())
    width = int.from_bytes(png[16:20], "big")
    assert width == 1080


def test_roc_points_agree_with_a_count_over_all_thresholds() -> None:
    random = np.random.default_rng(2)
    inside, outside = (
        random.integers(0, 9, 40).astype(float).tolist(),
        random.integers(-3, 6, 30).astype(float).tolist(),
    )
    false, true = plots.roc_points(inside, outside)
    thresholds = sorted({*inside, *outside}, reverse=True)
    assert true.tolist() == pytest.approx([0.0, *(sum(x >= t for x in inside) / 40 for t in thresholds)])
    assert false.tolist() == pytest.approx([0.0, *(sum(x >= t for x in outside) / 30 for t in thresholds)])


def test_correct_runs_stay_under_the_band_and_half_the_noise_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shaded band is what its caption says: at most 5% of correct runs leave it anywhere."""
    drawn: dict[str, Any] = {}
    fill = Axes.fill_between

    def keep(self: Axes, x: Any, low: Any, high: Any, **more: Any) -> Any:
        drawn.update(x=x, high=high)
        return fill(self, x, low, high, **more)

    monkeypatch.setattr(Axes, "fill_between", keep)
    random, mu, outside = np.random.default_rng(3), 0.96, {1.0: 0, 2.0: 0}
    scores = {k: (random.normal(k * mu, 1, (60, 500)), random.normal(0, 1, (60, 500))) for k in outside}
    plots.roc("roc", scores[1.0][0][0].tolist(), scores[1.0][1][0].tolist(), mu, True, "t", "d")
    for factor, (inside, out) in scores.items():
        for one, other in zip(inside, out, strict=True):
            false, true = plots.roc_points(one.tolist(), other.tolist())
            outside[factor] += bool((true > np.interp(false, drawn["x"], drawn["high"]) + 1e-9).any())
    assert outside[1.0] <= 3
    assert outside[2.0] >= 50


@pytest.mark.parametrize("silos", [1, 2, 5, 9])
def test_budgets_of_any_number_of_silos_are_drawn_and_the_rest_is_owned_up_to(silos: int) -> None:
    report = reports.report()
    line = report.training.budgets[0]
    lines = tuple(line.model_copy(update={"silo": f"silo-{one}"}) for one in range(silos))
    html = render(report.model_copy(update={"training": report.training.model_copy(update={"budgets": lines})}))
    text = list(svg_of(html, "plot-budget").itertext())
    assert sum(one in [f"silo-{n}" for n in range(silos)] for one in text) == min(silos, 6)
    assert ("3 are not." in html) == (silos == 9)


def test_a_report_with_little_in_it_has_a_page_too() -> None:
    report = reports.report()
    training = report.training.model_copy(update={"rounds": (), "budgets": (), "figures": {}})
    silos = tuple(one.model_copy(update={"pld": None, "curve": ()}) for one in report.accounting.silos)
    accounting = report.accounting.model_copy(update={"silos": silos})
    run = report.run.model_copy(update={"run": None, "first_charge": None, "last_charge": None})
    bare = report.model_copy(update={"training": training, "accounting": accounting, "run": run})
    html = render(bare)
    Reader(html)
    assert "<svg" not in html
    assert "in no ledger" in html


def test_a_delta_that_is_nothing_is_left_off_a_logarithmic_axis() -> None:
    curve = [(0.0, 0.1), (3.0, 1e-3), (9.0, 0.0)]
    assert "the claim" in plots.delta_curve("curve", curve, (3.0, 1e-3), "t", "d")
    assert "the claim" in plots.delta_curve("curve", [(9.0, 0.0)], (3.0, 1e-3), "t", "d")
    nothing = 0.0  # is spent where delta alone covers a run; a plot of no width would be warned of
    assert "the claim" in plots.delta_curve("curve", [(nothing, 1e-9)], (nothing, 1e-3), "t", "d")
    assert "the claim" in plots.bounds("bounds", [("exact", nothing)], nothing, "t", "d")


def test_a_name_that_cannot_begin_an_id_is_refused() -> None:
    with pytest.raises(ValueError, match="begins its ids"):
        plots.pictures_row('x"onload="', digits(), "t", "d")


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ('class="plot"', 'class="plot" style="position:fixed;width:100vw;height:100vh;background:white"'),
        ('class="plot"', 'class="banner"'),
        ('class="plot"', 'class="plot" overflow="visible"'),
        ("fill: none", "fill: none; position: fixed"),
    ],
    ids=["over the page", "another class", "out of its frame", "a style"],
)
def test_a_picture_stays_in_its_frame(written: str, instead: str) -> None:
    svg = plots.pictures_row("pictures", digits(), "What a server sees", "Three pictures.")
    assert written in svg
    assert framed(svg) == framed(svg)
    with pytest.raises(ValueError, match="does not draw with"):
        framed(svg.replace(written, instead, 1))


def test_a_seeded_run_in_a_budget_of_another_name_leaves_no_promise_for_all_runs() -> None:
    """A budget may count several data sets, and then bears another name than the run's."""
    report = reports.report()
    (first, *others) = report.scope.budgets
    assert any(run.this for run in first.runs)
    renamed = first.model_copy(update={"data": "joint", "scope": "joint/record", "protects": False})
    joint = report.model_copy(update={"scope": report.scope.model_copy(update={"budgets": (renamed, *others)})})
    assert (unpromised(report), unpromised(joint)) == ([], [first.silo])
    elsewhere = renamed.model_copy(update={"runs": tuple(one.model_copy(update={"this": False}) for one in first.runs)})
    other = report.model_copy(update={"scope": report.scope.model_copy(update={"budgets": (elsewhere, *others)})})
    assert unpromised(other) == []
