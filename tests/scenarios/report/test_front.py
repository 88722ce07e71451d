"""The first page: every sentence is short and follows from figures, nothing is promised that does not hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from scenarios.report.document import Odometer, Purpose, Report
from scenarios.report.document.purpose import Answerable
from scenarios.report.page.catalogue import bare, catalogue
from scenarios.report.page.front import Front, front
from scenarios.report.page.releases import KNOWN, place
from scenarios.report.page.render import render
from tests import reports
from tests.scenarios.report.reading import Pieces, blocks

MOST_WORDS = 24
LONG = "a-silo-with-a-name-of-forty-characters-"
PURPOSE = Purpose(
    statement="Find masses.", controller="North Trust", contact="a@b.example", legal_basis="Article 9(2)(h)",
    retention="2030", decision="May it be used?",
    silos=tuple(Answerable(silo=one, name="A Trust", contact=None, retention=None) for one in reports.SILOS),
)  # fmt: skip


def changed(part: str, **update: Any) -> Report:
    """Return a report of which one section is another."""
    report = reports.report()
    return report.model_copy(update={part: getattr(report, part).model_copy(update=update)})


def without_noise() -> Report:
    report = changed("claim", protects=False, epsilon=None)
    rows = tuple(one.model_copy(update={"mechanism": "none-unsafe"}) for one in report.mechanism.silos)
    return report.model_copy(update={"mechanism": report.mechanism.model_copy(update={"silos": rows})})


def seeded() -> Report:
    return changed("claim", protects=False)


def without_a_bound() -> Report:
    report = reports.report()
    silos = tuple(one.model_copy(update={"epsilon": None}) for one in report.claim.silos)
    return changed("claim", protects=False, epsilon=None, silos=silos)


def of_others_without_a_bound() -> Report:
    report = reports.report()
    budgets = tuple(one.model_copy(update={"protects": False, "bound": None}) for one in report.scope.budgets)
    return changed("scope", protects=False, budgets=budgets, largest_bound=None)


def of_many_silos() -> Report:
    """A report of 60 silos with the longest names, none of which did what was asked of it."""
    report, names = reports.report(), tuple(f"{LONG}{one:02}"[-40:] for one in range(60))
    first = report.claim.silos[0]
    claims = tuple(first.model_copy(update={"silo": one, "epsilon": None, "steps": 3}) for one in names)
    budgets = tuple(
        report.scope.budgets[0].model_copy(update={"silo": one, "taken_whole": bool(place % 2), "cap": 3.0 + place})
        for place, one in enumerate(names)
    )
    ledgers = tuple(
        report.integrity.ledgers[0].model_copy(update={"silo": one, "head": None, "countersigned": None})
        for one in names
    )
    return report.model_copy(
        update={
            "run": report.run.model_copy(update={"silos": names}),
            "claim": report.claim.model_copy(update={"silos": claims}),
            "scope": report.scope.model_copy(update={"budgets": budgets}),
            "accounting": report.accounting.model_copy(update={"silos": report.accounting.silos[:1] * len(names)}),
            "integrity": report.integrity.model_copy(update={"ledgers": ledgers, "not_countersigned": names}),
        }
    )


def of_units(unit: str) -> Report:
    return changed("claim", unit=unit, max_records=1_000_000)


def deployed(mode: str) -> Report:
    report = changed("run", engine="deployment")
    secagg = report.trust.secure_aggregation.model_copy(update={"mode": mode, "colluding_tolerated": 0})
    return report.model_copy(
        update={"trust": report.trust.model_copy(update={"secure_aggregation": secagg}), "purpose": PURPOSE}
    )


def rehearsed() -> Report:
    return changed("run", engine="deployment", rehearsal=True)


def counting(jobs: int) -> Report:
    return changed("run", besides=tuple(f"a-job-with-a-name-of-forty-characters-{one:02}" for one in range(jobs)))


def reported(copy_for: str | None = None) -> Report:
    """A report of what silos said, of no ledger; a copy for one of them where that is named."""
    report = changed("run", engine="deployment", reported=True, copy_for=copy_for)
    scope = report.scope.model_copy(update={"budgets": (), "largest_bound": None, "prior_runs": 0})
    integrity = report.integrity.model_copy(update={"overrides": ()})
    silos = tuple(
        one.model_copy(update={"epsilon_all_runs": None}) for one in report.claim.silos if copy_for in (None, one.silo)
    )
    claim = report.claim.model_copy(update={"silos": silos})
    rows = report.accounting.silos[: len(silos)]
    return report.model_copy(
        update={
            "scope": scope,
            "integrity": integrity,
            "claim": claim,
            "accounting": report.accounting.model_copy(update={"silos": rows}),
            "training": report.training.model_copy(update={"usefulness": "The loss is no better.", "budgets": ()}),
        }
    )


def ended_early() -> Report:
    report = reports.report()
    read = Odometer(epsilon=2.7654321, delta=1e-3, steps=20)
    silos = tuple(
        one.model_copy(update={"steps": 20, "epsilon_of_steps_taken": 2.1234567, "odometer": read})
        for one in report.claim.silos
    )
    return changed("claim", silos=silos, early="Fewer.")


REPORTS: dict[str, Callable[[], Report]] = {
    **{
        f"audit {verdict}": lambda verdict=verdict: reports.report(reports.audit(verdict))  # type: ignore[misc]
        for verdict in ("not-refuted", "refuted", "inconclusive")
    },
    "audit strayed": lambda: reports.report(reports.strayed()),
    "not audited": reports.report,
    "without noise": without_noise,
    "seeded": seeded,
    "without a bound": without_a_bound,
    "others without a bound": of_others_without_a_bound,
    "many silos": of_many_silos,
    "persons": lambda: of_units("person"),
    "clients": lambda: of_units("client"),
    "deployed, masked": lambda: deployed("on"),
    "deployed, not masked": lambda: deployed("off"),
    "rehearsed": rehearsed,
    "one job besides": lambda: counting(1),
    "many jobs besides": lambda: counting(16),
    "reported": reported,
    "ended early": ended_early,
    "a copy": lambda: reported("aurora"),
    "nothing measured": lambda: changed("training", figures={}),
}


def of(report: Report) -> Front:
    return front(report, catalogue())


def told(report: Report) -> str:
    """Return the first page as text."""
    return " ".join(blocks(render(report), "#front"))


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: plots stand in the annex, and take most of the time."""
    monkeypatch.setattr("scenarios.report.page.render.figures", lambda report, said: {})


def counted(report: Report) -> dict[str, int]:
    """Return the sentences of the first page as it is built, each with its number of words."""
    sentences = [
        sentence
        for block in blocks(render(report), "#front", without=("quoted",))
        for sentence in re.split(r"(?<=[.?!])\s+(?=[“A-Z0-9])", block)
    ]
    return {sentence: len(re.findall(r"\S*\w\S*", sentence)) for sentence in sentences}


@pytest.mark.parametrize("name", REPORTS)
def test_every_sentence_of_the_first_page_has_fewer_than_25_words(name: str, quickly: None) -> None:
    found = counted(REPORTS[name]())
    assert len(found) > 40
    assert {sentence: words for sentence, words in found.items() if words > MOST_WORDS} == {}


def test_the_measure_of_sentences_sees_a_long_one(quickly: None) -> None:
    report = reports.report()
    long = report.model_copy(update={"run": report.run.model_copy(update={"silos": (" ".join(["silo"] * 30),)})})
    assert [words for words in counted(long).values() if words > MOST_WORDS]


@pytest.mark.parametrize("name", ["without noise", "seeded", "without a bound"])
def test_where_nothing_is_claimed_the_first_page_promises_nothing(name: str) -> None:
    found = of(REPORTS[name]())
    assert [bare(one) for one in found.promise] == ["Nothing is promised by this run."]
    assert len(found.banners) == 1
    assert found.scale[0].epsilon == "no bound"
    assert "at most" not in " ".join([*found.promise, *found.opens])
    assert found.findings[0] in (
        "The run protects nobody.",
        "Noise was drawn from a seed, and protects nobody.",
        "No bound is computed, and nothing is promised.",
    )
    for promised in ("people like you", "within this promise"):
        assert promised not in " ".join(found.opens)
    assert "within this promise" in " ".join(of(reports.report()).opens)


def test_a_model_that_moved_otherwise_is_not_called_an_audit_that_saw_too_little(quickly: None) -> None:
    """It saw all that there was, and what it saw was another run than the declared one."""
    page = render(REPORTS["audit strayed"]())
    found = of(REPORTS["audit strayed"]())
    assert "The server did not move the model as its declared strategy does." in found.findings
    assert page.count("the server did not move the model as its declared strategy does") == 2
    for words in ("saw too little", "That it found nothing says nothing", "refuted this promise"):
        assert words not in page
    for verdict in ("inconclusive", "refuted"):
        assert "did not move the model" not in render(REPORTS[f"audit {verdict}"]())


def test_a_promise_that_the_audit_refuted_says_so_first() -> None:
    found = of(REPORTS["audit refuted"]())
    assert found.promise[0] == "This was claimed, and the audit refuted it."
    assert "The audit refuted the promise." in found.findings


def test_the_promise_follows_from_the_figures(quickly: None) -> None:
    text = told(reports.report())
    for said in ("20.1 times", "at most 0.001", "at most 8.7% of those", "epsilon 3.00 and delta 0.001", "one record"):
        assert said in text
    half = told(changed("claim", epsilon=1.5, delta=1e-7))
    for said in ("4.49 times", "at most 10⁻⁷", "epsilon 1.50 and delta 10⁻⁷"):
        assert said in half
    assert "20.1" not in half


def test_a_plan_is_called_fixed_in_advance_where_every_charged_ledger_held_it_first() -> None:
    audit = reports.audit()
    fixed = "What would refute it stood in every ledger before the first charge."
    assert fixed in of(reports.report(audit)).attacked
    late = audit.entered[0].model_copy(update={"plan_entry": 9})
    for entered in ((), (late, *audit.entered[1:]), audit.entered[1:]):
        found = of(reports.report(audit.model_copy(update={"entered": entered}))).attacked
        assert fixed not in found
        assert found[-1] == "What would refute it was not in every ledger before the first charge."


def test_what_is_not_stated_is_a_finding_and_what_is_stated_is_none() -> None:
    nothing = of(reports.report())
    missing = "Not stated: the purpose, who decides, a contact, the legal basis and how long the model is kept."
    assert missing in nothing.findings
    how = "is not stated. A silo states it in its silo.toml, under [controller]."
    assert f"Who answers for the records of aurora, borealis, cascade and dune {how}" in nothing.findings
    assert nothing.decision is None
    said = of(reports.report().model_copy(update={"purpose": PURPOSE}))
    assert not [one for one in said.findings if "not stated" in one.lower()]
    assert said.decision == "May it be used?"
    some = PURPOSE.model_copy(update={"contact": None, "silos": PURPOSE.silos[:3]})
    findings = of(reports.report().model_copy(update={"purpose": some})).findings
    assert "Not stated: a contact." in findings
    assert f"Who answers for the records of dune {how}" in findings


def test_what_ledgers_lack_and_people_changed_is_a_finding() -> None:
    report = reports.report()
    assert "dune did not countersign the end of the run." in of(report).findings
    assert "A person raised or lowered a budget." in of(report).findings
    whole = changed("integrity", not_countersigned=(), overrides=(), ledgers=report.integrity.ledgers)
    kept = of(whole.model_copy(update={"run": report.run.model_copy(update={"engine": "deployment"})})).findings
    assert not [one for one in kept if "countersign" in one or "budget" in one or "simulation" in one]
    bare_ledgers = tuple(one.model_copy(update={"head": None}) for one in report.integrity.ledgers[:1])
    headless = changed("integrity", ledgers=bare_ledgers)
    assert "Without a signed head of their ledger here: aurora." in of(headless).findings


def test_what_is_left_of_a_budget_is_told_by_what_took_it() -> None:
    left = [bare(one) for one in of(reports.report()).left]
    assert left[0].startswith("borealis, cascade and dune: nothing is left.")
    assert left[1] == "aurora: later runs are admitted, until all together reach epsilon 8.00."
    assert left[2] == "Steps taken so far cost at most 4.24 of it, had every plan been fixed in advance."
    assert "does not renew" in left[3]
    others = [bare(one) for one in of(of_others_without_a_bound()).left]
    assert others == ["aurora, borealis, cascade and dune: nothing bounds all runs together, and no cap holds."]
    assert of(changed("scope", budgets=())).left == ["No silo charged a budget for this run."]


def test_what_silos_reported_is_called_that_and_says_nothing_of_other_runs(quickly: None) -> None:
    found = of(reported())
    assert "No ledger was at hand. These figures are what silos reported to the server." in found.promise
    assert found.left == ["It is not known here: no ledger was at hand."]
    assert "No ledger was at hand, and the figures are what silos reported." in found.findings
    assert "The model is of no use, as it stands." in found.findings
    text = " ".join(blocks(render(reported()), "#annex"))
    assert "What other runs the silos’ ledgers hold is not known here: no ledger was at hand." in text
    for never in ("changed by a person", "hold no person’s approval", "With all runs", "What each silo’s ledger backs"):
        assert never not in text
    assert "What each silo reported" in text
    copy = of(reported("aurora"))
    assert copy.about[0].said[0] == "This is the copy of silo aurora: it has no other silo’s figures."
    here = "Who answers for the records of aurora is not stated here. A silo’s own report states it, by its silo.toml."
    assert here in copy.findings


def test_who_sees_a_single_update_is_told_by_the_mode() -> None:
    assert "help of more than 1 silo." in " ".join(of(reports.report()).opens)
    assert "help of another silo." in " ".join(of(deployed("on")).opens)
    assert "The server saw each, and its noise alone" in " ".join(of(deployed("off")).opens)
    assert "Silos from one another" not in " ".join(of(deployed("off")).opens)


def test_a_rehearsal_reads_as_no_deployment(quickly: None) -> None:
    """One account owned all tables: its page says so wherever a deployment's says that records did not leave."""
    text = told(rehearsed())
    for said in (
        "It was a rehearsal: one account on one machine owned all tables.",
        "In this rehearsal they shared one machine.",
        "It was a rehearsal on one machine, and no evidence about a deployment.",
    ):
        assert said in text
    for never in ("its records did not", "simulation"):
        assert never not in text
    annex = " ".join(blocks(render(rehearsed()), "#annex"))
    assert "In a rehearsal all keys lie in the run’s folder" in annex
    assert "A rehearsal starts with fresh ledgers" in annex
    assert "rehearsal" not in told(deployed("on")) + told(reports.report())


def test_of_a_deployment_rows_that_a_silo_holds_out_are_named_where_records_are_said_to_stay(quickly: None) -> None:
    text = told(deployed("on"))
    assert "by the protocol, its records did not. Its people may hand rows that it holds out to the server’s" in text
    assert "hand rows" not in told(reports.report()) + told(rehearsed())


def test_what_a_run_told_besides_training_stands_in_what_was_done(quickly: None) -> None:
    def done(report: Report) -> str:
        return " ".join(map(bare, of(report).about[0].said))

    counts = changed("run", besides=("label-counts",))
    assert "Besides training, silos gave noised answers: label-counts." in done(counts)
    assert "The promise counts these answers too." in done(counts)
    nothing = without_noise()
    nothing = nothing.model_copy(update={"run": counts.run})
    assert "noised answers" in done(nothing)
    assert "promise" not in done(nothing)
    assert "silos gave noised answers: 16 jobs." in done(counting(16))
    assert "answers" not in done(reports.report())


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"loss": 0.5, "rmse": 9.1234, "r2": 0.25}, "R² of the model: 0.250,"),
        ({"loss": 0.5, "rmse": 0.00098765, "mae": 1.0}, "Root of the mean squared error of the model: 0.000988,"),
        ({"loss": 0.5, "recall@0.05": 0.1, "brier": 0.2}, "recall@0.05 of the model: 0.100,"),
        ({"loss": 0.5}, "How good the model is was not measured."),
    ],
)
def test_a_figure_that_was_measured_stands_for_the_models_use(
    figures: dict[str, float], said: str, quickly: None
) -> None:
    report = changed("training", figures=figures)
    assert said in " ".join(map(bare, of(report).about[0].said))
    left_out = changed("training", figures=figures, left_out=("f1",))
    assert "F1 is left out, as it is not defined on the held-out records." in " ".join(
        blocks(render(left_out), "#usefulness")
    )


def test_known_releases_stand_beside_the_run_with_unit_delta_and_source(quickly: None) -> None:
    report, text = reports.report(), told(reports.report())
    assert "Epsilons of different units do not compare." in text
    marks = of(report).scale
    assert [one.this for one in marks] == [True, *(False for _ in KNOWN)]
    for mark in marks[1:]:
        assert mark.name in text
        assert f"{mark.unit} ({mark.source})" in text
    assert [(one.epsilon, one.delta) for one in marks[1:]] == [
        ("about 1", "10⁻⁷"), ("0.994 to 13.69", "10⁻¹⁰"), ("19.61", "10⁻¹⁰")
    ]  # fmt: skip
    annex = " ".join(blocks(render(report), "#claim"))
    for publisher in ("Wikimedia Foundation, analytics.wikimedia.org", "Google Research", "US Census Bureau, “Census"):
        assert publisher in annex
    assert [round(place(one.low)) for one in KNOWN] == [33, 33, 76]


def test_words_of_people_on_the_first_page_are_text(quickly: None) -> None:
    evil = "<script>x</script>[a](javascript:x)<a href='https://evil.example'>y</a>"
    purpose = PURPOSE.model_copy(
        update={
            **dict.fromkeys(("statement", "controller", "contact", "legal_basis", "retention", "decision"), evil),
            "silos": (Answerable(silo="aurora", name=evil, contact=evil, retention=evil),),
        }
    )
    html = render(reports.report().model_copy(update={"purpose": purpose}))
    found = Pieces(html)
    assert sum(evil in piece.text for piece in found.found) >= 8
    assert not [value for key, value in found.attributes if key == "href" and not value.startswith("#")]
    assert not [piece for piece in found.found if piece.stands_in("script#")]
