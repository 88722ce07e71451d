"""What every mechanism keeps to, and what accountants make of the parts that it names."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedmodel import plans
from fedmodel.config import read_scenario, scenario_to_toml
from fedmodel.errors import ConfigError, LedgerError, PolicyRefused, PrivacyError
from fedmodel.learning.jobs import Question, Site, training
from fedmodel.privacy import accounting
from fedmodel.privacy.conformance import check_parts, check_release
from fedmodel.privacy.events import bounded, clip_of, event_to_json, protects
from fedmodel.privacy.mechanisms import MECHANISMS, event_from_json, mechanism_of, protecting_mechanism
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.mechanisms.none_unsafe import UnprotectedEvent
from fedmodel.privacy.noise import SeededNoise
from fedmodel.privacy.plan import SiloPlan
from fedmodel.privacy.primitives import SampledGaussian, Unbounded
from fedmodel.provision import laws as making
from fedmodel.provision import scenario_hash
from scenarios.selftest import mutations
from scenarios.selftest.planting import fresh

PLAN = SiloPlan("north", "d", "person", 3, 1e-5, None, 2.0, 1.0, 0.5, 10, 4, 4, "os")
EVENT, BARE = DpSgdEvent(2.0, 1.0, 0.5, 4, 10), UnprotectedEvent(1.0, 0.5, 4, 10)


def with_parts(*parts: Any) -> Any:
    return SimpleNamespace(parts=lambda: parts)


@pytest.mark.parametrize("name", MECHANISMS)
def test_what_a_mechanism_plans_is_stored_under_its_name_and_read_back(name: str) -> None:
    event = MECHANISMS[name].plan(PLAN)
    assert isinstance(event, MECHANISMS[name].event)
    assert mechanism_of(event) is MECHANISMS[name]
    assert event_from_json(event_to_json(event)) == event
    assert protects(event) is MECHANISMS[name].protects


@pytest.mark.parametrize("name", MECHANISMS)
def test_an_event_of_more_steps_differs_in_its_steps_and_in_how_often_its_parts_are_released(name: str) -> None:
    event = MECHANISMS[name].plan(PLAN)
    assert asdict(event.times(32)) == {**asdict(event), "steps": 32}
    assert event.times(32).parts() == tuple((part, 2 * count) for part, count in event.parts())


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_part_is_of_the_unit_that_the_event_is_of(name: str) -> None:
    assert {part.records for part, _ in MECHANISMS[name].plan(PLAN).parts()} == {PLAN.max_records}


@pytest.mark.parametrize("name", MECHANISMS)
def test_what_a_mechanism_releases_is_what_its_event_says_and_charges_for(name: str) -> None:
    """`fedmodel.privacy.conformance` says what is measured; one that protects nobody releases the mean itself."""
    event = MECHANISMS[name].plan(PLAN)
    if MECHANISMS[name].protects:
        check_parts(event)
        for figures in ({}, {"noise_multiplier": 0.37, "max_grad_norm": 1e-3, "denominator": 7}):
            check_release(MECHANISMS[name], replace(event, **figures))  # type: ignore[arg-type]
    else:
        sums_L = [torch.tensor([3.5, -1e-9], dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)]
        means_L = MECHANISMS[name].release(event, sums_L, SeededNoise(1))
        assert all(torch.equal(mean, sum_.float() / 10) for mean, sum_ in zip(means_L, sums_L, strict=True))
        with pytest.raises(PrivacyError, match="charges for 0 of them"):
            check_parts(event)


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_mechanism_says_what_was_done_in_whole_sentences(name: str) -> None:
    for said in MECHANISMS[name].describe(MECHANISMS[name].plan(PLAN), "person"):
        assert said[0].isupper()
        assert said.endswith(".")


def test_the_parts_of_dp_sgd_are_its_steps_at_the_rate_that_is_drawn_with() -> None:
    event = DpSgdEvent(2.0, 1.0, 0.3, 7, 10, max_records=3, realised_sample_rate=0.4)
    assert event.parts() == ((SampledGaussian(0.4, 2.0, 3), 7),)
    assert bounded([event, EVENT]) == [(SampledGaussian(0.4, 2.0, 3), 7), (SampledGaussian(0.5, 2.0, 1), 4)]


@pytest.mark.parametrize("more", [BARE, with_parts(), with_parts((SampledGaussian(0.5, 2.0, 1), 4), (Unbounded(1), 1))])
def test_what_has_a_part_without_a_bound_or_names_none_is_never_left_out(more: Any) -> None:
    for events in ([more], [EVENT, more], [more, EVENT]):
        assert bounded(events) is None
        assert accounting.epsilon(events, 1e-5) == accounting.least_epsilon(events, 1e-5) == math.inf
        assert accounting.deltas(events, [0.0, 700.0]) == [1.0, 1.0]
    assert accounting.renyi(more, 8) == math.inf


@pytest.mark.parametrize("count", [0, -4, 1.5, True])
def test_a_part_is_released_at_least_once(count: Any) -> None:
    with pytest.raises(LedgerError, match="each released at least once"):
        accounting.epsilon([EVENT, with_parts((SampledGaussian(0.5, 2.0, 1), count))], 1e-5)


def test_an_event_of_two_parts_costs_what_both_cost() -> None:
    both = with_parts((SampledGaussian(0.5, 2.0, 1), 4), (SampledGaussian(1.0, 9.0, 1), 2))
    apart = [EVENT, DpSgdEvent(9.0, 1.0, 1.0, 2, 10)]
    assert accounting.epsilon([both], 1e-5) == accounting.epsilon(apart, 1e-5)
    assert accounting.least_epsilon([both], 1e-5) == accounting.least_epsilon(apart, 1e-5)
    assert accounting.renyi(both, 8) == pytest.approx(sum(accounting.renyi(one, 8) for one in apart), rel=1e-12)


def test_noise_is_found_for_any_parts_and_none_is_where_a_part_alone_is_over_the_target() -> None:
    def parts(noise: float, least: float = 1e9) -> list[tuple[SampledGaussian, int]]:
        return [(SampledGaussian(0.5, noise, 1), 4), (SampledGaussian(1.0, min(2 * noise, least), 1), 1)]

    noise = accounting.calibrate_parts(3.0, 1e-5, parts)
    assert noise is not None
    found = [accounting.epsilon([with_parts(*parts(one))], 1e-5) for one in (noise, noise * 0.999)]
    assert found[0] <= 3.0 < found[1]
    assert accounting.calibrate_parts(3.0, 1e-5, lambda noise: parts(noise, 0.2)) is None


def test_a_plan_reaches_every_mechanism_by_one_function() -> None:
    assert plans.planned_event(PLAN) == DpSgdEvent(2.0, 1.0, 0.5, 16, 10, max_records=3)
    bare = replace(PLAN, baseline="no-noise-no-clip")
    assert plans.planned_event(bare) == UnprotectedEvent(None, 0.5, 16, 10, max_records=3)
    assert plans.private_event(bare) == plans.planned_event(PLAN)
    assert plans.pipeline_event(bare, plans.planned_event(bare).times(4)) == plans.planned_event(PLAN).times(4)


def test_a_law_is_held_to_by_the_mechanism_itself_and_none_admits_a_release_without_noise() -> None:
    law: Any = SimpleNamespace(least_noise_multiplier=2.0, largest_clip=1.0)
    mechanism_of(EVENT).check(EVENT, law)
    for looser, why in ((replace(EVENT, noise_multiplier=1.99), "1.99 is under"), (replace(EVENT, max_grad_norm=2.0),
                        "clip 2 is over")):  # fmt: skip
        with pytest.raises(PolicyRefused, match=why):
            mechanism_of(EVENT).check(looser, law)
    with pytest.raises(PolicyRefused, match="no law of a silo allows it"):
        mechanism_of(BARE).check(BARE, law)


def test_a_scenario_or_law_names_a_mechanism_that_protects() -> None:
    assert protecting_mechanism("dp-sgd") == "dp-sgd"
    for name, why in (("none-unsafe", "unknown mechanism 'none-unsafe'"), ("dp-sdg", "did you mean 'dp-sgd'")):
        with pytest.raises(ValueError, match=why):
            protecting_mechanism(name)


def test_a_scenario_that_names_dp_sgd_is_the_scenario_that_names_none() -> None:
    plain, named = read_scenario("quickstart"), read_scenario("quickstart", ["privacy.mechanism=dp-sgd"])
    assert named == plain
    assert scenario_hash(named) == scenario_hash(plain)
    assert "mechanism" not in scenario_to_toml(plain) + plain.model_dump_json()
    for name in ("none-unsafe", "laplace", "dp_sgd"):
        with pytest.raises(ConfigError, match=rf"privacy\.mechanism.*unknown mechanism '{name}'"):
            read_scenario("quickstart", [f"privacy.mechanism={name}"])


def test_a_silo_of_several_scenarios_may_release_by_what_each_of_them_names(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = read_scenario("quickstart"), read_scenario("quickstart", ["rounds=3"])
    law_of, named = making.law_of, {one.rounds: ("dp-sgd",), other.rounds: ("another", "dp-sgd")}

    def said(scenario: Any, *rest: Any) -> Any:
        return law_of(scenario, *rest).model_copy(update={"mechanisms": named[scenario.rounds]})

    monkeypatch.setattr(making, "law_of", said)
    assert making.joint_law([one, other], "left", bytes(32)).mechanisms == ("another", "dp-sgd")


@pytest.mark.parametrize("parts", [
    (),
    ((SampledGaussian(0.5, 2.0, 1), 3),),
    ((SampledGaussian(0.5, 2.1, 1), 4),),
    ((SampledGaussian(0.4, 2.0, 1), 4),),
    ((SampledGaussian(0.5, 2.0, 1), 4), (Unbounded(1), 1)),
])  # fmt: skip
def test_no_event_is_trained_by_that_charges_for_less_than_a_step_releases(
    monkeypatch: pytest.MonkeyPatch, parts: Any
) -> None:
    training._check_charged(EVENT)
    monkeypatch.setattr(DpSgdEvent, "parts", lambda _: parts)
    with pytest.raises(PrivacyError, match="of them; nothing was trained"):
        training._check_charged(EVENT)
    federation, settings = SimpleNamespace(silos=("north",)), SimpleNamespace(threads=1, max_physical_batch=8)
    scenario: Any = SimpleNamespace(
        plan=lambda *_: PLAN, phase_of=lambda _: 0, federation=federation, training=settings, seed=1
    )
    job = training.Answering(Site("north", scenario, "cpu", simulated=True))
    question = Question(1, np.zeros(1, dtype=np.float32))
    with pytest.raises(PrivacyError, match="nothing was trained"):
        job.check(question, EVENT)
    with pytest.raises(PrivacyError, match="nothing was trained"):
        job.answer(question, pytest.fail, EVENT, {})  # type: ignore[arg-type]  # no record is read


def test_no_mechanism_is_trained_by_that_releases_less_noise_than_its_event_says() -> None:
    """At the silo, before the charge and before a record is read: the figures are right, and the release is not."""
    federation, settings = SimpleNamespace(silos=("north",)), SimpleNamespace(threads=1, max_physical_batch=8)
    scenario: Any = SimpleNamespace(
        plan=lambda *_: PLAN, phase_of=lambda _: 0, federation=federation, training=settings, seed=1
    )
    job = training.Answering(Site("north", scenario, "cpu", simulated=True))
    question = Question(1, np.zeros(1, dtype=np.float32))
    with fresh(), mutations.release_noises_less(0.9):
        with pytest.raises(PrivacyError, match=r"releases noise of 0\.8\d+ times what its event says"):
            job.check(question, EVENT)
        with pytest.raises(PrivacyError, match="times what its event says"):
            job.answer(question, pytest.fail, EVENT, {})  # type: ignore[arg-type]  # no record is read


@pytest.mark.parametrize("parts", [
    ((SampledGaussian(0.5, 2.0, 1), 5),),
    ((SampledGaussian(0.5, 1.9, 1), 3), (SampledGaussian(0.6, 2.0, 1), 1)),
    ((SampledGaussian(0.5, 2.0, 2), 4), (SampledGaussian(0.1, 9.0, 1), 4)),
])  # fmt: skip
def test_what_costs_no_less_than_a_step_covers_it(monkeypatch: pytest.MonkeyPatch, parts: Any) -> None:
    monkeypatch.setattr(DpSgdEvent, "parts", lambda _: parts)
    check_parts(EVENT)
    with pytest.raises(PrivacyError, match="of them; nothing was trained"):
        check_parts(replace(EVENT, max_records=3))


def test_what_rests_on_a_clip_is_not_done_without_one() -> None:
    assert clip_of(EVENT) == 1.0
    with pytest.raises(PrivacyError, match="without a clip"):
        clip_of(UnprotectedEvent(None, 0.5, 4, 10))


def test_an_event_is_stored_under_no_other_mechanisms_name() -> None:
    """Read back as the other's, it would be charged as the other is."""

    @dataclass(frozen=True)
    class Dearer(DpSgdEvent):
        mechanism: str = "dearer"

    assert Dearer(2.0, 1.0, 0.5, 4, 10).times(8).mechanism == "dearer"
    for kind, name in ((DpSgdEvent, "dearer"), (Dearer, "dp-sgd")):
        with pytest.raises(LedgerError, match="mechanism"):
            kind(2.0, 1.0, 0.5, 4, 10, mechanism=name)
