"""The customers of the CoIL Challenge 2000 are what its file and its documentation say."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds.sources.coil_caravan import CoilCaravanConfig

CUSTOMERS = CoilCaravanConfig(source="coil-caravan", held_out=0.3, reference_range=(0.0, 9.0))
# The first line ends in "0,5,0,0,0,0,0,1,0,...,No": fire is the sixteenth product.
FIRST = {"car": 6, "fire": 5, "area: high schooling": 1, "area: own homes": 8, "area: average income": 4}


def test_as_many_customers_hold_the_policy_as_the_challenge_says() -> None:
    x_NF, y_N = CUSTOMERS.load(7)
    assert x_NF.shape == (5822, 36) == (5822, len(CUSTOMERS.shape.names))
    assert y_N.sum() == 348
    assert (x_NF.min(), x_NF.max()) == (0.0, 9.0)


def test_each_feature_is_the_column_that_it_is_named_after() -> None:
    x_NF, y_N = CUSTOMERS.load(7)
    first = dict(zip(CUSTOMERS.shape.names, x_NF[0].tolist(), strict=True))
    assert {name: first[name] for name in FIRST} == FIRST
    mean, of_holders = (
        dict(zip(CUSTOMERS.shape.names, one.round(2).tolist(), strict=True))
        for one in (x_NF.mean(axis=0), x_NF[y_N == 1].mean(axis=0))
    )
    assert (mean["car"], of_holders["car"]) == (2.97, 4.72)
    assert (mean["moped"], of_holders["moped"]) == (0.22, 0.07)
    assert (mean["area: purchasing power"], of_holders["area: purchasing power"]) == (4.24, 5.0)


def test_no_claim_for_persons_is_made_of_customers_without_an_id() -> None:
    example = str(Path(__file__).parents[4] / "docs" / "examples" / "insurance.toml")
    with pytest.raises(ConfigError, match="the customers of coil-caravan have no ids"):
        read_scenario(example, ["privacy.unit=person", "privacy.max_records=1"])
