"""A law for several scenarios: the loosest that one of them asks for, and nothing that cannot be added up."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.policy import budget_scope
from fedmodel.config import Scenario, read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import ConfigError
from fedmodel.ledger import Asked, Ledger
from fedmodel.plans import planned_parts
from fedmodel.privacy import accounting
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import joint_law, law_of, scenario_hash
from scenarios.simulation.simulate import check_scenario
from tests.ledgers import make_budget

SERVER = SigningKey(bytes(32)).public
ON = ["encryption.secure_aggregation=on", "encryption.bound=2.0", "encryption.colluding=0"]


@pytest.fixture
def scenarios(tiny_file: Path) -> list[Scenario]:
    first = read_scenario(str(tiny_file))
    second = read_scenario(
        str(tiny_file),
        [
            "name=other",
            "privacy.noise_multiplier=4.0",
            "privacy.max_grad_norm=0.5",
            "federation.min_silos=3",
            "rounds=3",
            'federation.silos=["north", "south", "west", "east"]',
        ],
    )
    return [first, second]


def test_a_joint_law_admits_each_scenario_and_is_the_loosest_of_all(scenarios: list[Scenario]) -> None:
    law = joint_law(scenarios, "north", SERVER)
    first, second = (law_of(scenario, "north", SERVER) for scenario in scenarios)
    assert law.scenarios == tuple(scenario_hash(scenario).hex() for scenario in scenarios)
    assert (law.least_noise_multiplier, law.largest_clip) == (2.0, 1.0)
    assert (law.smallest_cohort, law.min_silos, law.smallest_threshold, law.largest_roster) == (2, 2, 1, 4)
    spent = [law.budgets["synthetic"].epsilon for law in (first, second)]
    assert law.budgets["synthetic"].epsilon == pytest.approx(sum(spent), abs=1.1e-4)
    assert law.budgets["synthetic"].epsilon >= sum(spent) - 1e-9
    assert (law.budgets["synthetic"].unit, law.budgets["synthetic"].delta) == ("record", 1e-3)


def test_a_law_has_room_for_what_its_scenario_releases_besides(tiny_file: Path) -> None:
    jobs = ["besides.label-counts.noise_multiplier=1.5", "besides.label-counts.bound=40.0"]
    alone, more = (law_of(read_scenario(str(tiny_file), asked), "north", SERVER) for asked in ([], jobs))
    assert (alone.mechanisms, more.mechanisms) == (("dp-sgd",), ("dp-sgd", "gaussian"))
    assert (alone.least_noise_multiplier, more.least_noise_multiplier) == (2.0, 1.5)
    parts = planned_parts(read_scenario(str(tiny_file), jobs), "north")
    assert more.budgets["synthetic"].epsilon >= accounting.epsilon(parts, 1e-3) > alone.budgets["synthetic"].epsilon


def test_an_answer_that_would_be_quantised_to_nothing_is_refused(tiny_file: Path) -> None:
    jobs = ["besides.label-counts.noise_multiplier=1.5", "besides.label-counts.bound=1e9"]
    scenario = read_scenario(str(tiny_file), [*ON, *jobs, "encryption.ring_bits=16", "training.learning_rate=9.0"])
    with pytest.raises(ConfigError, match=r"noise of job 'label-counts' is .* lower besides.label-counts.bound"):
        law_of(scenario, "north", SERVER)


def test_a_silo_has_only_the_scenarios_that_name_it(scenarios: list[Scenario]) -> None:
    assert joint_law(scenarios, "east", SERVER) == law_of(scenarios[1], "east", SERVER)
    with pytest.raises(ConfigError, match=r"silo 'far' is in none of the scenarios \(tiny, other\)"):
        joint_law(scenarios, "far", SERVER)


def test_budgets_of_another_delta_or_unit_are_not_added(tiny_file: Path) -> None:
    first = read_scenario(str(tiny_file))
    for settings in (["privacy.delta=1e-4"], ["privacy.unit=client", "privacy.max_records=2"]):
        with pytest.raises(ConfigError, match=r"budget of 'synthetic' in figures that do not add up"):
            joint_law([first, read_scenario(str(tiny_file), ["name=other", *settings])], "north", SERVER)


def test_a_silo_masks_in_one_way(tiny_file: Path) -> None:
    masked = read_scenario(str(tiny_file), ON)
    for settings, words in (
        ([], r"differ under \[encryption\]"),
        ([*ON, "encryption.window=4"], r"differ under \[encryption\]"),
        ([*ON, "federation.min_silos=3"], r"differ in min_silos or in how many silos they name \(2 of 3, 3 of 3\)"),
        ([*ON, 'federation.silos=["north","south","west","east"]'], r"\(2 of 3, 2 of 4\)"),
    ):
        with pytest.raises(ConfigError, match=words):
            joint_law([masked, read_scenario(str(tiny_file), ["name=other", *settings])], "north", SERVER)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_sum_of_budgets_pays_for_a_run_of_each_in_either_order(
    scenarios: list[Scenario], order: tuple[int, int], tmp_path: Path
) -> None:
    """Though the filter, which admits plans one after the other, is looser than what either budget was counted by."""
    law = joint_law(scenarios, "north", SERVER)
    scope = budget_scope(law, "synthetic")
    with Ledger(tmp_path / "north.sqlite", "north", SigningKey(bytes(32)), tmp_path / "head") as ledger:
        make_budget(ledger, scope)
        for number in order:
            plan = scenarios[number].plan("north")
            event = DpSgdEvent(
                plan.noise_multiplier or 0.0, plan.max_grad_norm, plan.sample_rate, plan.steps, plan.expected_batch_size
            )
            assert ledger.reserve(Asked(scope, str(number + 1), event, plan.steps_per_round)).steps == plan.steps


@pytest.mark.parametrize("setting", ["privacy.noise_multiplier=1e6", "privacy.sample_rate=1e-9"])
def test_a_run_that_delta_alone_covers_has_a_budget_all_the_same(setting: str, tiny_file: Path) -> None:
    """Its epsilon is 0, which no budget can be."""
    scenario = read_scenario(str(tiny_file), [setting])
    check_scenario(scenario)
    assert law_of(scenario, "north", SERVER).budgets["synthetic"].epsilon == 1e-4
