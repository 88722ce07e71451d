"""All sentences of page and draft stand in the catalogue: with another one, no sentence of the first is left."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

import pytest

from scenarios.report.document import Report
from scenarios.report.page.catalogue import Catalogue, catalogue
from scenarios.report.page.render import render
from tests import reports
from tests.scenarios.report.reading import Pieces
from tests.scenarios.report.test_front import PURPOSE, REPORTS

# What of a document is a name by which code knows something, and not what anybody wrote.
NAMES = {
    "format", "unit", "adjacency", "mode", "model", "verdict", "engine", "noise_source", "mechanism", "admitted",
    "at", "time", "first_charge", "last_charge", "key_from", "head", "what",
}  # fmt: skip
# Text that is data as it stands in a file: keys and values of a plan, codes, hashes, packages and versions.
DATA = ("code", "pre#", ".versions", "style#")


def louder(said: str) -> str:
    """Return a sentence in capitals, but for its markup and for what is filled in."""
    parts = re.split(r"(<[^>]*>|\{[^}]*\})", said)
    return "".join(part if place % 2 else part.upper() for place, part in enumerate(parts))


@pytest.fixture(scope="module")
def loud() -> Catalogue:
    """A second catalogue: the first one, in capitals."""
    texts = {
        key: louder(said) if isinstance(said, str) else [louder(one) for one in said]
        for key, said in catalogue().texts.items()
    }
    return Catalogue({**texts, "front.lang": "xx"})


def shouted(report: Report) -> Report:
    """Return a report all of whose own sentences and names are in capitals."""

    def up(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {inside: up(one, inside) for inside, one in value.items()}
        if isinstance(value, list):
            return [up(one, key) for one in value]
        is_name = key in NAMES or not isinstance(value, str) or re.fullmatch(r"[0-9a-f]{64}", value)
        return value if is_name else value.upper()

    found = up(report.model_dump(mode="json"))
    for method, own in zip(found["accounting"]["methods"], report.accounting.methods, strict=True):
        method["name"] = own.name
    if report.audit is not None:
        found["audit"]["plan"]["kind"] = report.audit.plan["kind"]
        for part in ("gauges", "unmeasured"):
            for row, own in zip(found["audit"][part], getattr(report.audit, part), strict=True):
                row["name"] = own.name
    return Report.model_validate_json(json.dumps(found))


@pytest.mark.parametrize("name", REPORTS)
def test_no_sentence_of_a_page_stands_outside_of_the_catalogue(
    name: str, loud: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "audit not-refuted":  # it has all plots, and they take most of the time
        monkeypatch.setattr("scenarios.report.page.render.figures", lambda report, said: {})
    report = shouted(REPORTS[name]().model_copy(update={"purpose": PURPOSE}))
    html = render(report, said=loud)
    found = Pieces(html)
    quiet = [
        piece.text.strip() for piece in found.found if not piece.stands_in(*DATA) and piece.text != piece.text.upper()
    ]
    assert quiet == []
    spoken = [value for key, value in found.attributes if key in ("aria-label", "alt") or (key == "data-label")]
    plan_keys = {key for row in (report.audit.plan.get("silos", []) if report.audit else []) for key in row}  # type: ignore[union-attr]
    assert [value for value in spoken if value != value.upper() and value not in plan_keys] == []
    assert html.startswith('<!DOCTYPE html>\n<html lang="xx">')


def test_every_sentence_of_a_page_is_another_with_another_catalogue(loud: Catalogue) -> None:
    report = reports.report(reports.audit()).model_copy(update={"purpose": PURPOSE})
    ours = {piece.text.strip() for piece in Pieces(render(report)).found if not piece.stands_in(*DATA)}
    own = shouted(report)
    theirs = {piece.text.strip() for piece in Pieces(render(own, said=loud)).found if not piece.stands_in(*DATA)}
    assert {text for text in ours & theirs if re.search(r"[a-z]{2}", text)} == set()
    assert len(ours) > 300


def test_every_sentence_of_the_catalogue_is_said_somewhere() -> None:
    sources = "".join(
        one.read_text(encoding="utf-8")
        for package in ("scenarios.report", "scenarios.report.page")
        for one in resources.files(package).iterdir()
        if one.name.endswith((".py", ".j2"))
    )
    # Keys that are made from a name: of a part, of a column, of a check and so on.
    made = re.compile(r"[\"'](\w+)\.([\w-]*)[\"'] ~|f\"([\w-]+)\.([\w-]*)\{|say\(\"([\w-]+)\.([\w-]*)\" ~")
    beginnings = {next(filter(None, found)) for found in made.findall(sources)}
    beginnings |= {"col", "dpia", "plot", "scale", "usefulness", "annex", "names", "short", "count", "front"}
    unsaid = [
        key
        for key in catalogue().texts
        if not re.search(rf"[\"']{re.escape(key)}[\"']", sources)
        and key.split(".")[0] not in beginnings
        and not key.endswith(".title")
    ]
    assert unsaid == []


def test_what_is_filled_in_is_escaped_and_what_is_missing_is_refused() -> None:
    said = catalogue().say("decision.not_stated", what="<b>&")
    assert said == "Not stated: &lt;b&gt;&amp;."
    assert catalogue().plain("decision.not_stated", what="<b>&") == "Not stated: <b>&."
    with pytest.raises(KeyError):
        catalogue().say("decision.not_stated")
    with pytest.raises(KeyError):
        catalogue().say("about.nothing")
    with pytest.raises(ValueError, match="no catalogue of language 'xx'; there are en"):
        catalogue("xx")


def test_a_long_list_of_silos_stays_short() -> None:
    names = [f"s{one}" for one in range(60)]
    assert catalogue().few(names[:4]) == "s0, s1, s2 and s3"
    assert catalogue().few(names) == "s0, s1, s2 and 57 others"
    assert catalogue().few(names[:5]) == "s0, s1, s2 and 2 others"
