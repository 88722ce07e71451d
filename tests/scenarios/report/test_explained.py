"""How a model answers, on the page: pictures that say in words what they show, and nothing that acts."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from scenarios.report.document import Report
from scenarios.report.page.catalogue import catalogue
from scenarios.report.page.explained import drawn
from scenarios.report.page.passive import check_passive
from scenarios.report.page.render import render
from scenarios.runs.explanation import Dependence, Effect, Explained, Explanation, Group
from tests import reports
from tests.scenarios.report.reading import Pieces
from tests.scenarios.report.test_catalogue import DATA, louder
from tests.scenarios.report.test_page import Reader

HOSTILE = '$x_{1}$ <b>"&\u202e'


def explanation(*explained: Explained, method: str = "exact") -> Explanation:
    """Return a made-up explanation that fills every field."""
    effects = tuple(
        Effect(name=name, toward=size, away=size / 3) for name, size in (("age", 0.5), (HOSTILE, 0.25), ("smoker", 0.0))
    )
    return Explanation.model_validate({
        "model": "0" * 64, "scenario_hash": "1" * 64, "records": "held-out", "count": 60, "looked_at": 50,
        "curves_over": 40, "method": method, "steps": 0 if method == "exact" else 64, "gap": 0.0123,
        "explained": explained or (Explained(name="malignant", scale="log-odds", effects=effects),),
        "dependence": (
            Dependence(name="age", at=(0.0, 50.0, 100.0), answers={"malignant": (0.1, 0.3, 0.9)}),
            Dependence(name="stage", choices=("I", HOSTILE, "III"), answers={"malignant": (0.1, 0.4, 0.2)}),
        ),
        "not_drawn": 0, "least": 20,
        "groups": (Group(column="stage", group="I", records=31, figures={"loss": 0.5, "accuracy": 0.75}),),
        "left_out": {"stage": 2}, "figures": {"loss": 0.4, "accuracy": 0.8125, "auroc": 0.9}, "no_groups": None,
    })  # fmt: skip


def page(found: Explanation) -> tuple[Report, str]:
    report = reports.report()
    report = report.model_copy(update={"training": report.training.model_copy(update={"explanation": found})})
    return report, render(report)


IMAGE = Explained(
    name="the class", scale="margin", effects=(), towards=((0.0, 0.5), (0.25, 0.0)), aways=((0.1, 0.0), (0.0, 0.0))
)


@pytest.mark.parametrize("found", [explanation(), explanation(IMAGE, method="integrated-gradients")])
def test_the_page_shows_it_says_in_words_what_is_drawn_and_does_nothing(found: Explanation) -> None:
    _, html = page(found)
    check_passive(html)
    reader = Reader(html)
    assert len(set(reader.ids())) == len(reader.ids())
    for name in ("plot-effects-1", "plot-dependence"):
        svg = re.search(rf"<svg [^>]*id=\"{name}\".*?</svg>", html, re.DOTALL)
        assert svg
        root = ET.fromstring(svg[0])  # noqa: S314 - of our own page
        assert root.attrib["role"] == "img"
        title, description = (root.find(f"{{http://www.w3.org/2000/svg}}{key}") for key in ("title", "desc"))
        assert title is not None
        assert title.text
        assert description is not None
        assert re.search(r"\d", description.text or "")
    assert "\u202e" not in html
    assert "<b>" not in html.partition("</head>")[2]
    text = " ".join(reader.text.split())
    assert "They use none of the run’s epsilon. They tell of the held-out records, which no epsilon covers." in text
    assert "Left out, with fewer records than that: 2 of stage." in text
    assert ("Exact: the model is linear" in text) == (found.method == "exact")
    assert ("in 64 steps" in text) == (found.method != "exact")


def test_the_table_of_groups_has_all_records_first_and_says_what_is_not_defined() -> None:
    _, html = page(explanation())
    table = re.search(r"<table(?:(?!<table).)*How good the model is for parts.*?</table>", html, re.DOTALL)
    assert table
    assert re.findall(r'data-label="[^"]*"[^>]*><span>([^<]*)</span>', table[0]) == [
        "", "60", "0.400", "0.812", "0.900", "I", "31", "0.500", "0.750", "none",
    ]  # fmt: skip


def test_no_sentence_of_it_stands_outside_of_the_catalogue() -> None:
    said = catalogue()
    loud = type(said)({key: louder(one) if isinstance(one, str) else [louder(each) for each in one]
                       for key, one in said.texts.items()} | {"front.lang": "xx"})  # fmt: skip
    report, ours = page(explanation())
    theirs = render(report, said=loud)

    def own(html: str) -> set[str]:
        found = [piece for piece in Pieces(html).found if piece.stands_in("#usefulness")]
        (begins,) = (place for place, piece in enumerate(found) if piece.stands_in("#explained"))
        return {piece.text.strip() for piece in found[begins:] if not piece.stands_in(*DATA)}

    alike = {text for text in own(ours) & own(theirs) if re.search(r"[a-z]{2}", text)}
    assert alike <= {"age", "smoker", "stage", "malignant", "…"} | {text for text in alike if "x_{1}" in text}
    assert len(own(ours)) > 30


def test_a_page_without_it_is_the_page_of_before() -> None:
    report = reports.report()
    assert 'id="explained"' not in render(report)
    assert "explanation" not in report.model_dump(mode="json")["training"]


def test_the_same_explanation_gives_the_same_pictures_and_many_columns_fit() -> None:
    many = tuple(Effect(name=f"a column with a long name, number {place}", toward=1.0, away=0.5) for place in range(40))
    answers = {f"class {place}": (0.1 * place, 0.2) for place in range(9)}
    curves = tuple(Dependence(name=one.name, at=(0.0, 1.0), answers=answers) for one in many)
    found = explanation(Explained(name="number", scale="units", effects=many)).model_copy(update={"dependence": curves})
    first, second = ([one.as_svg() for one in drawn(found)] for _ in range(2))
    assert first == second
    bars, lines = drawn(found)
    for one in (bars, lines):
        data = one.as_png()
        assert data == one.as_png()
        assert data.startswith(b"\x89PNG")
    assert bars.description.count("of which") == 12
    assert lines.title.endswith("class 5, class 6, class 7 and class 8")  # which move most
