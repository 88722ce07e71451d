"""The plain sentences of a report say no more than holds: of seeded noise, of engines, units and audits."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedmodel.config.besides import BesidesConfig
from fedmodel.privacy.accounting import deltas
from fedmodel.privacy.mechanisms.dp_sgd import MECHANISM, DpSgdEvent
from scenarios.report import build, sections, sentences, verification
from scenarios.report.anchors import Held
from scenarios.report.document import Report
from scenarios.report.gather import Gathered, read_run
from scenarios.report.page import odds, registry
from tests.conftest import TINY
from tests.runs import simulated

PERSON = ("privacy.unit=person", "privacy.max_records=3", "data.records_per_person=3", "data.partition.min_records=5",
          "data.records=360", "privacy.noise_multiplier=4.0")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("statements"), TINY)


@pytest.fixture(scope="module")
def gathered(run: Path) -> Gathered:
    return read_run(run)


@pytest.fixture(scope="module")
def report(run: Path) -> Report:
    return build.gather(run)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build.gather(simulated(tmp_path_factory.mktemp("seeded"), TINY, "privacy.noise=seeded-unsafe"))


def test_of_seeded_noise_no_figure_is_told_anywhere(seeded: Report) -> None:
    claim, entry = seeded.claim, registry.entry(seeded)["deployment"]
    assert (claim.protects, claim.epsilon) == (False, None)
    assert {(one.epsilon, one.epsilon_all_runs, one.mu, one.advantage) for one in claim.silos} == {(None,) * 4}
    assert claim.sentence.startswith("Nothing is claimed for tiny: its noise was seeded")
    assert claim.meaning == "Nothing is claimed, so no figure says how well anybody is hidden."
    assert not [one.holds for one in seeded.trust.parties if "epsilon" in one.holds]
    assert [one.holds for one in seeded.trust.parties if one.who == "Whoever gets the model"] == [
        "No figure: nothing is claimed of this run."
    ]
    assert entry["privacy_loss"]["privacy_parameters"] == {"epsilon": None, "delta": None}
    assert entry["dp_flavor"]["bound_on_output_distance"] is None
    assert entry["dp_flavor"]["name"] is None
    told = entry["privacy_loss"]["privacy_parameters_description"]
    assert "Nothing is bounded: noise was seeded, or none was added" in told
    assert "None" not in told


def test_a_claim_has_its_figures_in_the_registry_and_against_the_parties(report: Report) -> None:
    entry = registry.entry(report)["deployment"]
    assert entry["privacy_loss"]["privacy_parameters"] == {"epsilon": report.claim.epsilon, "delta": 1e-3}
    assert entry["dp_flavor"]["bound_on_output_distance"] == report.claim.epsilon is not None
    assert f"silo is {report.scope.largest_bound}." in entry["privacy_loss"]["privacy_parameters_description"]
    holds = {one.who: one.holds for one in report.trust.parties}
    assert holds["Whoever gets the model"] == (
        "(epsilon, delta) for each record, as the silo's ledger says; post-processing costs nothing."
    )


def test_noise_that_only_the_ledgers_call_seeded_is_seeded(gathered: Gathered) -> None:
    north = gathered.ledgers["north"]
    assert sentences.known_noise(gathered) is None
    said: Any = SimpleNamespace(events=[DpSgdEvent(2.0, 1.0, 0.5, 4, 10, "seeded-unsafe")])
    assert sentences.known_noise(replace(gathered, ledgers={**gathered.ledgers, "north": said})) is not None
    assert {event.noise_source for event in north.events} == {"os"}


@pytest.mark.parametrize(("epsilon", "times"), [(0.3283, "1.39"), (3.0, "20.1"), (8.0, "2,981"), (800.0, "10^348")])
def test_the_claim_says_how_many_times_as_likely(gathered: Gathered, epsilon: float, times: str) -> None:
    said = sentences.claim(gathered, epsilon, None, 1e-3, "record", 1)
    assert f"at most {times} times (e^epsilon) as likely with that record as without, plus delta" in said
    assert "in 1 round, is" in said
    assert "nearly" not in said


def test_what_an_event_can_tell_is_the_least_of_all_bounds_that_hold(report: Report) -> None:
    """At a sample rate under 1 the Gaussian curve is loose, and the privacy curve is not."""
    found = odds.right_at_most(0.01, report.claim.silos, report.accounting.silos)
    silo, curve = report.claim.silos[0], report.accounting.silos[0].curve
    assert silo.mu is not None
    by_points = min(math.exp(point.epsilon) * 0.01 + point.delta for point in curve)
    assert found <= by_points < odds.by_gdp(0.01, silo.mu)
    assert f"finds at most {math.ceil(found * 1000) / 10}% of" in report.claim.meaning
    event = DpSgdEvent(2.0, 1.0, 0.5, 4, 10)
    exact = min(math.exp(one / 20) * 0.01 + deltas([event], [one / 20])[0] for one in range(120))
    assert exact - 1e-3 < found < exact + 0.01


def test_a_silo_without_bound_tells_everything_and_one_with_the_largest_claim_counts(report: Report) -> None:
    silos, counted = report.claim.silos, report.accounting.silos
    unbounded = (silos[0].model_copy(update={"epsilon": None}), *silos[1:])
    assert odds.right_at_most(0.01, unbounded, counted) == 1.0
    weak = (silos[0].model_copy(update={"epsilon": 9.0, "mu": None}), *silos[1:])
    flat = (counted[0].model_copy(update={"curve": ()}), *counted[1:])
    assert odds.right_at_most(0.01, weak, flat) == 1 - math.exp(-9.0) * (1 - 1e-3 - 0.01)


def test_who_reads_records_depends_on_the_engine(gathered: Gathered, report: Report) -> None:
    assert "in the one process that all silos and the server shared" in report.trust.noise_added_by
    assert "Records of all silos were read in the one process" in report.trust.access
    flower = replace(gathered, summary={**gathered.summary, "engine": "flower"})
    assert "worker process" in sentences.noise_added_by(flower)
    assert "worker processes of one simulation" in sentences.access(flower)
    deployed = replace(gathered, summary={**gathered.summary, "engine": "deployment"})
    assert "in its own process" in sentences.noise_added_by(deployed)
    assert "are read by its own process alone" in sentences.access(deployed)
    for engine in (gathered, flower):
        assert "own process" not in sentences.noise_added_by(engine) + sentences.access(engine)


def test_what_floating_point_takes_from_the_accountant_is_counted(report: Report) -> None:
    assert "counts what floating point may take from it in the accountant" in report.mechanism.side_channels
    assert "no rounding counted" in next(one.means for one in report.accounting.methods if one.name == "prv")


def test_floating_point_adds_nothing_and_what_is_assumed_of_the_keystream_is_said(report: Report) -> None:
    said = report.mechanism.side_channels
    assert "a true Gaussian rounded to a grid, exactly, so that floating point adds nothing to epsilon" in said
    assert "that nobody tells them from uniform ones is assumed, and not in the figures" in said
    assert "Gaussian" not in sentences.side_channels("no-noise")


def test_an_audit_tells_lots_and_may_not_be_the_only_one(gathered: Gathered) -> None:
    audited = replace(gathered, audit={})
    assert any("How many records each silo held" in one for one in sentences.not_protected(audited))
    assert any("other audits of this scenario were made and not kept" in one for one in sentences.limits(audited))
    assert "the audit's figures tell how many records it held" in sentences.access(audited)
    assert "no count of records" in sentences.access(gathered)
    for of in (sentences.not_protected, sentences.limits):
        assert not [one for one in of(gathered) if "lots tell" in one or "other audits" in one]


def test_lengths_of_rows_are_told_by_time_where_there_are_several(gathered: Gathered) -> None:
    for cuts in ((), (16, 32)):
        scenario = gathered.scenario.model_copy(update={"model": SimpleNamespace(cut_to=cuts)})
        found = sentences.not_protected(replace(gathered, scenario=scenario))
        assert sum("How long the texts of a step are" in one for one in found) == len(cuts[:1])


def counting(gathered: Gathered) -> Gathered:
    """Return the same of a run that told counts besides training."""
    jobs = {"label-counts": BesidesConfig(noise_multiplier=4.0, bound=50.0)}
    return replace(gathered, scenario=gathered.scenario.model_copy(update={"besides": jobs}))


def test_what_a_run_told_besides_training_is_said_wherever_it_says_what_left(
    gathered: Gathered, report: Report
) -> None:
    """No sentence says that no count leaves a silo of a run that was asked for counts."""
    counted, terms = counting(gathered), report.trust.secure_aggregation
    said = sentences.access(counted)
    assert "no count of records but with noise" in said
    assert "Noised answers of label-counts leave too, charged as a release and counted in the claim." in said
    assert "no count of records and" not in said
    masked = terms.model_copy(update={"mode": "on", "least_silos_in_a_sum": 2, "colluding_tolerated": 1})
    for mode in (terms, masked):
        sees = {one.who: one.sees for one in sentences.parties(counted, mode, protects=True)}
        assert "noised answers of label-counts" in sees["The server"]
        assert "noised answers of label-counts" in sees["Whoever gets the model"]
        alone = sentences.parties(gathered, mode, protects=True)
        assert not [one for one in alone if "answers" in one.sees + one.holds]
    assert "in 4 rounds and in noised answers of label-counts, is" in sentences.claim(
        counted, 1.0, None, 1e-3, "record", 4
    )
    facts = sections.run_facts(counted)
    assert facts.besides == ("label-counts",)
    assert "besides" not in sections.run_facts(gathered).model_dump()
    model = registry.entry(report.model_copy(update={"run": facts}))["deployment"]["model"]
    assert model["release_type"] == "Many releases"
    assert model["release_type_description"].endswith("rounds, and noised answers of label-counts")
    assert "answers" not in registry.entry(report)["deployment"]["model"]["release_type_description"]


def test_a_rehearsal_is_called_one_and_no_deployment(gathered: Gathered) -> None:
    rehearsed = replace(gathered, summary={**gathered.summary, "engine": "deployment", "network": "loopback"})
    deployed = replace(gathered, summary={**gathered.summary, "engine": "deployment"})
    assert [sections.run_facts(one).setting for one in (gathered, rehearsed, deployed)] == [
        "simulated", "rehearsed", "deployed"
    ]  # fmt: skip
    assert sections.run_facts(rehearsed).model_dump()["rehearsal"] is True
    assert "rehearsal" not in sections.run_facts(deployed).model_dump()
    assert sentences.access(rehearsed).startswith("This was a rehearsal: one account owned all tables")
    assert "Records stay at their silo" not in sentences.access(rehearsed)
    assert "rehearsal" not in sentences.access(deployed)


def test_of_a_deployed_table_it_is_said_that_rows_may_be_held_out_and_handed_over(gathered: Gathered) -> None:
    """A report cannot know whether a silo's own file says so, and says that nothing else leaves."""
    deployed = replace(gathered, summary={**gathered.summary, "engine": "deployment"})
    table: Any = SimpleNamespace(besides={}, data=SimpleNamespace(is_dealt=False))
    rows = "but for rows that a silo's own file holds out and its people hand to the server's operator"
    assert rows in sentences.access(replace(deployed, scenario=table))
    assert rows not in sentences.access(replace(deployed, scenario=table), before=True)
    assert "rows" not in sentences.access(deployed)  # what is dealt out is nobody's own


def test_a_report_from_before_keeps_its_words_of_records_and_its_verification_says_so(
    gathered: Gathered, report: Report
) -> None:
    data: Any = SimpleNamespace(is_dealt=False)
    scenario = gathered.scenario.model_copy(update={"data": data})
    table = replace(gathered, scenario=scenario, summary={**gathered.summary, "engine": "deployment"})
    told = sections.told_of(gathered)
    now = sections.trust(table, told, None)
    before, other = (
        now.model_copy(update={"access": access}) for access in (sentences.access(table, before=True), "No row leaves.")
    )
    assert sections.trust(table, told, before) == before != now
    assert sections.trust(table, told, now) == sections.trust(table, told, other) == now

    def found(stored: Report) -> dict[str, str]:
        return dict(
            verification.items(
                gathered, stored, held=Held((), None), given=False, compared=True, not_attacked="", page="", fewer=()
            )
        )

    assert "access" not in found(report)
    said = found(report.model_copy(update={"trust": before}))["access"]
    assert said == "in the words of before, which do NOT tell of rows that a silo may hold out and hand over"


def test_one_person_moves_a_sum_by_all_of_their_records(tmp_path: Path) -> None:
    report = build.gather(simulated(tmp_path, TINY, *PERSON))
    assert "one record moves a sum by at most that" in report.mechanism.sensitivity
    assert "one person with at most 3 records by at most 3 times as much, 3." in report.mechanism.sensitivity
    assert "distinct units" not in report.accounting.composition
    assert "what several silos hold of one unit together" in report.accounting.composition
    assert any("records at several silos" in one for one in report.not_protected.statements)
    assert "times as much" not in MECHANISM.describe(DpSgdEvent(2.0, 1.0, 0.5, 4, 10), "record").sensitivity
