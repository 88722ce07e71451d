"""What does not fit how many records a silo holds is said with what mends it there, and with nothing that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmodel.config import Scenario
from fedmodel.data import settled
from fedmodel.data.sizes import far_from_divisors
from fedmodel.errors import DataError
from scenarios.simulation.simulate import check_scenario
from tests.fedmodel.data.test_folders import SILOS, images, scenario_of
from tests.fedmodel.data.test_own import own, pair

DEAL = ", or set data.partition.min_records to deal more"


def changed(scenario: Scenario, **said: Any) -> Scenario:
    """The same scenario, its lots, and how it is dealt."""
    document = scenario.model_dump(mode="json", exclude_none=True)
    document["privacy"]["expected_batch_size"] = said.pop("lot")
    document["data"] |= said
    return Scenario.model_validate(document)


def refused(scenario: Scenario) -> str:
    with pytest.raises(DataError) as error:
        check_scenario(scenario)
    told = str(error.value)
    for silo in SILOS:
        fewer = f"silo {silo!r} holds fewer records than a lot: privacy.expected_batch_size = "
        if told.startswith(fewer):
            mends = f"declare a smaller lot for it, privacy.silo.{silo}.expected_batch_size"
            found = told.removeprefix(fewer).partition("; ")[2]
            assert found.startswith(mends)
            return found.removeprefix(mends)
    raise AssertionError(told)


def test_min_records_is_advised_where_it_deals_more(tiny: Scenario) -> None:
    sizes = {"kind": "sizes", "shares": [1.0, 2.0, 3.0]}
    assert refused(changed(tiny, lot=25)) == DEAL  # of 23, 26 and 41 records
    assert refused(changed(tiny, lot=31)) == ""  # three silos cannot have as many of 90
    assert refused(changed(tiny, lot=25, partition=sizes)) == ""  # which deals by shares alone


@pytest.mark.parametrize("are_dealt", [True, False])
def test_no_min_records_is_advised_where_each_silo_has_its_own(are_dealt: bool, tiny: Scenario, tmp_path: Path) -> None:
    dealt, own_ones = {"train": 100, "held-out": 20}, {"north": 20, "south": 40, "west": 40, "held-out": 20}
    for party, count in (dealt if are_dealt else own_ones).items():
        images(tmp_path / "scans" / party, count)
    scenario = scenario_of(tiny, "images", tmp_path / "scans", size=[6, 4], partition={"size_concentration": 2.0})
    assert refused(changed(scenario, lot=33)) == (DEAL if are_dealt else "")


@pytest.mark.parametrize("are_dealt", [True, False])
def test_no_min_records_is_advised_where_a_function_gives_each_silo_its_own(are_dealt: bool, tiny: Scenario) -> None:
    train = pair(0, 100) if are_dealt else [pair(0, 20), pair(20, 60), pair(60, 100)]
    scenario = own(tiny, lambda: {"train": train, "test": pair(100)}, partition={"size_concentration": 2.0})
    assert refused(settled(changed(scenario, lot=33))) == (DEAL if are_dealt else "")


def test_lots_of_many_silos_are_one_line_that_names_the_first_ones(tiny: Scenario) -> None:
    document = tiny.model_dump(mode="json", exclude_none=True)
    document["federation"]["silos"] = [f"s{number}" for number in range(12)]
    many = Scenario.model_validate(document)
    plans = [many.plan(silo) for silo in many.federation.silos]
    (said,) = far_from_divisors([(plan, 100 + number) for number, plan in enumerate(plans)])
    assert said.startswith("s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, 2 more: lots have some ")
    assert "\n" not in said
    assert far_from_divisors([(plan, 0) for plan in plans]) == []
    assert np.isclose(plans[0].sample_rate, 0.5)
