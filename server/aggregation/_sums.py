"""From a sum of quantised, weighed updates to their mean, and which sums are worth opening.

Shapes: P parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import LEAST_EFFECTIVE, FederationConfig, Scenario
from fedmodel.errors import DropoutError
from fedmodel.provision import scenario_policy, unevenness
from fedmodel.secagg.quantize import Quantizer
from fedmodel.secagg.ring import Words
from server.answers import too_few


def check_enough(found: int, needed: int) -> None:
    """Refuse a mean of fewer answers than the scenario says.

    Raises:
        DropoutError: When they are.
    """
    if found < needed:
        raise DropoutError(f"{too_few(found)} for a mean, where federation.min_silos = {needed}")


def check_even_sum(scenario: Scenario, silos: Collection[str]) -> None:
    """Refuse a sum that no silo with a law as `provision` writes it would open.

    Raises:
        DropoutError: When it could be nearly one silo's update.
    """
    found = unevenness(scenario, silos, LEAST_EFFECTIVE, scenario_policy(scenario).colluding)
    if found is not None:
        raise DropoutError(f"a sum of {len(silos)} silos could be nearly one silo's update: {found}")


def uneven(scenario: Scenario, silos: Collection[str]) -> str:
    """Return why the sum of these silos would not be opened where all of them train in each round, or nothing."""
    if scenario.federation.cohort_size < len(silos):
        return ""
    try:
        check_even_sum(scenario, silos)
    except DropoutError as error:
        return str(error)
    return ""


def mean_of_sum(
    total_P: Words, survivors: Iterable[str], quantizer: Quantizer, federation: FederationConfig
) -> NDArray[np.float32]:
    """Return the weighted mean behind a sum of quantised, weighed updates, shape `(P,)`."""
    weight = sum(federation.relative_weight(silo) for silo in survivors)
    return (quantizer.decode(total_P) / weight).astype(np.float32)
