"""From a sum of quantised, weighed updates to their mean, and which sums are worth opening.

Shapes: P parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import LEAST_EFFECTIVE, FederationConfig, Scenario
from fedmodel.errors import DropoutError
from fedmodel.masking import Words
from fedmodel.provision import scenario_policy, unevenness
from fedmodel.quantize import Quantizer


def check_even_sum(scenario: Scenario, silos: Collection[str]) -> None:
    """Refuse a sum that no silo with a law as `provision` writes it would open.

    Raises:
        DropoutError: When it could be nearly one silo's update.
    """
    found = unevenness(scenario, silos, LEAST_EFFECTIVE, scenario_policy(scenario).colluding)
    if found is not None:
        raise DropoutError(f"a sum of {len(silos)} silos could be nearly one silo's update: {found}")


def mean_of_sum(
    total_P: Words, survivors: Iterable[str], quantizer: Quantizer, federation: FederationConfig
) -> NDArray[np.float32]:
    """Return the weighted mean behind a sum of quantised, weighed updates, shape `(P,)`."""
    weight = sum(federation.relative_weight(silo) for silo in survivors)
    return (quantizer.decode(total_P) / weight).astype(np.float32)
