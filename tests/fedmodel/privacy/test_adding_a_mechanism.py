"""The mechanism that docs/architecture.md adds: its release is measured, a law admits it, it is charged and claimed.

The file is the page's own, loaded as if it lay in its folder. That it then trains and is reported,
`tests/test_how_to_add.py` shows in a run.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from clients import policy
from fedmodel import plans
from fedmodel.config import Scenario, read_scenario, scenario_to_toml
from fedmodel.crypto import SigningKey
from fedmodel.errors import ConfigError, PolicyRefused, PrivacyError
from fedmodel.learning.jobs import training
from fedmodel.ledger import Asked, Ledger, verify_ledger
from fedmodel.privacy import accounting
from fedmodel.privacy.conformance import check_release
from fedmodel.privacy.events import Event, event_to_json
from fedmodel.privacy.mechanisms import MECHANISMS, event_from_json, mechanism_of
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import law_of, scenario_hash
from scenarios.runs.claims import claim_of
from tests.ledgers import make_budget
from tests.test_how_to_add import added

PATH = "fedmodel/privacy/mechanisms/two_draws.py"
PLAIN = read_scenario("quickstart")


@pytest.fixture
def two_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's file, in the list of mechanisms while a test runs."""
    path = tmp_path / "two_draws.py"
    path.write_text(added()[PATH], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("fedmodel.privacy.mechanisms.two_draws", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(MECHANISMS, "two-draws", module.MECHANISM)  # type: ignore[misc]  # a list of files, but here
    event_from_json.cache_clear()  # of another test's class of that name
    return module


@pytest.fixture
def scenario(two_draws: ModuleType) -> Scenario:
    """A scenario that names it."""
    return read_scenario("quickstart", ["privacy.mechanism=two-draws"])


@pytest.fixture
def event(scenario: Scenario) -> Event:
    """What a silo of that scenario is charged for a whole run."""
    return plans.planned_event(scenario.plan("left"))


def test_it_is_named_and_no_other_name_is(scenario: Scenario) -> None:
    assert 'mechanism = "two-draws"' in scenario_to_toml(scenario)
    assert scenario_hash(scenario) != scenario_hash(PLAIN)
    for name, why in (("two-drwas", "did you mean 'two-draws'"), ("os", "unknown mechanism 'os'")):
        with pytest.raises(ConfigError, match=why):
            read_scenario("quickstart", [f"privacy.mechanism={name}"])


def test_it_is_planned_within_its_target_by_the_noise_of_one_draw(scenario: Scenario, event: Event) -> None:
    plan, alone = scenario.plan("left"), plans.planned_event(PLAIN.plan("left"))
    assert plan.epsilon is not None
    assert 0.99 * plan.epsilon < accounting.epsilon([event], plan.delta) <= plan.epsilon
    assert event.noise_multiplier == pytest.approx(math.sqrt(2) * alone.noise_multiplier, rel=1e-12)
    assert event_from_json(event_to_json(event)) == event
    declared = plans.planned_event(replace(plan, epsilon=None, noise_multiplier=3.0))
    assert declared.noise_multiplier == 3.0


def test_it_is_trained_by_as_its_release_is_measured_to_be_what_its_event_says(
    two_draws: ModuleType, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    training._check_charged(event)
    monkeypatch.setattr(two_draws.TwoDraws, "draws", 1)
    with pytest.raises(PrivacyError, match="2 draws of noise for each coordinate, and says 1"):
        check_release(mechanism_of(event), event)


@pytest.mark.parametrize("share", [math.sqrt(0.4), math.sqrt(0.6)])
def test_two_draws_of_other_noise_than_is_charged_are_refused(
    two_draws: ModuleType, event: Event, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(two_draws, "_SHARE", share)
    with pytest.raises(PrivacyError, match="times what its event says"):
        check_release(mechanism_of(event), event)


def test_a_law_that_names_it_admits_it_within_its_limits_and_one_of_before_does_not(
    scenario: Scenario, event: Event
) -> None:
    law = law_of(scenario, "left", bytes(32))
    assert law.mechanisms == ("two-draws",)
    policy.check_event(law, event)
    with pytest.raises(PolicyRefused, match="is under"):
        policy.check_event(law.model_copy(update={"least_noise_multiplier": 2 * event.noise_multiplier}), event)
    with pytest.raises(PolicyRefused, match=r"^mechanism 'two-draws' is none of this silo's: dp-sgd$"):
        policy.check_event(law_of(PLAIN, "left", bytes(32)), event)


def test_it_is_charged_and_what_is_claimed_is_what_its_parts_cost(
    scenario: Scenario, event: Event, tmp_path: Path
) -> None:
    plan, key = scenario.plan("left"), SigningKey.generate()
    scope = policy.budget_scope(law_of(scenario, "left", bytes(32)), plan.data)
    with Ledger(tmp_path / "a.sqlite", "left", key, tmp_path / "head") as ledger:
        make_budget(ledger, scope)
        ledger.reserve(Asked(scope, "1", event, plan.steps_per_round))
        charged = ledger.charge("1", 1, plan.steps_per_round, "k").event
    standing = verify_ledger(tmp_path / "a.sqlite", key.public).standing
    assert charged == event.times(plan.steps_per_round)
    assert standing.claimed(scope.name) == [event]
    run = standing.runs["1"]
    half = DpSgdEvent(
        math.sqrt(0.5) * event.noise_multiplier, 1.0, plan.sample_rate, plan.steps, 10, max_records=plan.max_records
    )
    claimed = claim_of(run.claimed, run.drawn, scope.delta)["epsilon"]
    assert claimed == pytest.approx(accounting.epsilon([half], scope.delta), rel=1e-9)
