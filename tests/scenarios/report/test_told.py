"""One figure has one spelling on the page, and none is raw."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import JsonValue

from fedmodel.privacy.rounding import down, percent_down, percent_up, small, up
from scenarios.report.document import Report
from scenarios.report.page.catalogue import catalogue
from scenarios.report.page.render import render
from scenarios.report.page.told import Told
from scenarios.runs import words
from tests import reports
from tests.scenarios.report.reading import Pieces


@pytest.fixture(scope="module")
def audited() -> Report:
    """A report whose figures have so many digits that no two are spelled alike by chance."""
    report = reports.report(reports.audit())
    audit = report.audit
    assert audit is not None
    steinke = audit.lower_bounds["steinke"].model_copy(update={"epsilon": 1.2777})
    claim = report.claim.model_copy(update={"delta": 0.0012341})
    training = report.training.model_copy(update={"figures": {**report.training.figures, "auroc": 0.8765432}})
    bounds, power = {**audit.lower_bounds, "steinke": steinke}, audit.power.model_copy(update={"power": 0.87375})
    audit = audit.model_copy(update={"lower_bounds": bounds, "power": power})
    prv = report.accounting.silos[0].model_copy(update={"prv": 3.2187})
    accounting = report.accounting.model_copy(update={"silos": (prv, *report.accounting.silos[3:], prv, prv)})
    return report.model_copy(update={"claim": claim, "training": training, "audit": audit, "accounting": accounting})


@pytest.fixture(scope="module")
def tokens(audited: Report) -> set[str]:
    pieces = [one.text for one in Pieces(render(audited)).found if not one.stands_in("pre#", ".versions", "code.hash")]
    return set(re.findall(r"(?<![\w.,−-])−?\d[\d,]*(?:\.\d+)?(?: × 10[⁰-⁹⁻¹²³]+)?%?(?![\w,]|\.\d)", " ".join(pieces)))


def floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from floats(one)


def spellings(figure: float) -> set[str]:
    """Return every way in which a figure could be told, with three digits that count or more."""
    ways = {tell(figure, digits) for tell in (up, down) for digits in range(2, 7)}
    ways |= {tell(figure, digits) for tell in (percent_up, percent_down) for digits in range(1, 3)}
    ways |= {words.number(figure), f"{figure:.4g}", f"{figure:g}", repr(figure)}
    ways |= {small(figure)} if figure > 0 else set()
    return {way for way in ways if len(re.sub(r"\D", "", way).lstrip("0")) >= 3}


def test_no_figure_is_spelled_in_two_ways(audited: Report, tokens: set[str]) -> None:
    document = audited.model_dump(mode="json")
    document["audit"].pop("scores")  # what is drawn of them is told in words of their own
    for curve in document["accounting"]["silos"]:
        curve["curve"] = []
    document["training"]["budgets"] = document["training"]["rounds"] = []
    twice = {figure: spellings(figure) & tokens for figure in set(floats(document))}
    assert {figure: found for figure, found in twice.items() if len(found) > 1} == {}
    assert sum(len(found) == 1 for found in twice.values()) > 20


def test_the_look_for_spellings_finds_two(audited: Report, tokens: set[str]) -> None:
    advantage = audited.claim.silos[0].advantage
    assert advantage is not None
    assert spellings(advantage) & tokens == {"37.1%"}
    assert len(spellings(advantage) & {*tokens, "0.3703"}) == 2
    assert len(spellings(reports.EPSILON) & {*tokens, "3.0000"}) == 2


def test_no_figure_is_raw(audited: Report) -> None:
    assert audited.audit is not None
    plan: dict[str, JsonValue] = {**audited.audit.plan, "shares": [0.1234567891, {"deep": 7.000000001}]}
    report = audited.model_copy(update={"audit": audited.audit.model_copy(update={"plan": plan})})
    pieces = [one.text for one in Pieces(render(report)).found if not one.stands_in(".versions", "pre#", "style#")]
    text = " ".join(one for one in pieces if not re.fullmatch(r"[0-9a-f]{64}", one))
    assert re.findall(r"\d\.\d{7,}|\de[-+]\d", text) == []
    assert json.dumps(plan)  # it had one to find
    assert "0.1235" in text


def test_figures_are_told_by_their_quantity() -> None:
    told = Told(catalogue())
    assert (told.epsilon(2.9999999), told.epsilon(0.01234), told.epsilon(0.0)) == ("3.00", "0.0124", "0.00")
    assert (told.epsilon(None), told.epsilon(float("inf"))) == ("no bound computed", "no bound computed")
    assert (told.epsilon_at_least(1.999), told.share(0.37021), told.share_at_least(0.37021)) == (
        "1.99",
        "37.1%",
        "37.0%",
    )
    assert (told.noise(6.56012), told.noise(0.0), told.noise(None)) == ("6.5602", "none", None)
    assert told.gauge("noise_std", 6.56012) == told.noise(6.56012)
    assert told.gauge("lot_rate", 0.123) == told.rate(0.123) == "0.123"
    assert (told.metric("loss", 0.0946), told.metric("auroc", 0.9947)) == ("0.095", "0.994")
