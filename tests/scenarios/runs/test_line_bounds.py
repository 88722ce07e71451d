"""What lines of rounds say of silos' epsilons: what follows from the charges, in either form, or nothing."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Final

import pytest

from fedmodel.errors import ClaimRefuted
from fedmodel.privacy.events import EPSILON_IF_HIDDEN
from scenarios.runs.line_bounds import check_bounds
from server.metrics import labelled_together

COSTS: Final = {"north": 1.5, "south": 2.5, "west": math.inf}
FOLLOWS: Final = {"north": 1.5, "south": 2.5, "west": None}


@pytest.mark.parametrize("noise", ["os", "seeded-unsafe", "experiment", "none-unsafe"])
@pytest.mark.parametrize("silos", [3, 40])
def test_what_the_round_loop_writes_holds(noise: str, silos: int) -> None:
    costs = {f"s{place}": list(COSTS.values())[place % 3] for place in range(silos)}
    bounds = {silo: cost if math.isfinite(cost) else None for silo, cost in costs.items()}
    line = {"round": 1, **labelled_together(noise, bounds)}
    check_bounds([line], costs, hidden=noise == "experiment")
    for other in {"experiment", "os"} - {noise if noise == "experiment" else "os"}:
        with pytest.raises(ClaimRefuted):
            check_bounds([line], costs, hidden=other == "experiment")


@pytest.mark.parametrize(
    ("told", "holds"),
    [
        ({}, True),
        (FOLLOWS, True),
        ({"north": 1.5 * (1 + 1e-12)}, True),
        ({"north": 1.4999}, False),
        ({"north": 0.0123}, False),
        ({"north": None}, False),
        ({"west": 1.5}, False),
        ({"nobody": 1.5}, False),
        ({"north": True}, False),
        ({"north": "1.5"}, False),
        ([[1.5, 1], [2.5, 1], [None, 1]], True),
        ([[1.5, 3]], True),
        ([[1.5, 4]], False),
        ([[0.0123, 1]], False),
        ([1.5], False),
        ("1.5", False),
        (1.5, False),
        (None, False),
    ],
)
def test_a_bound_is_that_of_the_charge(told: object, holds: bool) -> None:
    with (
        nullcontext() if holds else pytest.raises(ClaimRefuted, match=r"metrics\.jsonl: round 7: epsilon: is not what")
    ):
        check_bounds([{"round": 7, "epsilon": told}], COSTS, hidden=False)
    label = {"round": 7, "epsilon": dict.fromkeys(FOLLOWS), EPSILON_IF_HIDDEN: told}
    with nullcontext() if holds else pytest.raises(ClaimRefuted, match=EPSILON_IF_HIDDEN):
        check_bounds([label], COSTS, hidden=True)
