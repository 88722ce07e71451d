"""From a sum of quantised, weighed updates to their mean, which sums are worth opening, and who could come to one.

Shapes: P parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import LEAST_EFFECTIVE, FederationConfig, Scenario
from fedmodel.errors import DropoutError, ProtocolError
from fedmodel.provision import scenario_policy, unevenness
from fedmodel.secagg import Policy, Roster
from fedmodel.secagg.masking import Words
from fedmodel.secagg.quantize import Quantizer
from server.joining import Joined, reasons


def check_even_sum(scenario: Scenario, silos: Collection[str]) -> None:
    """Refuse a sum that no silo with a law as `provision` writes it would open.

    Raises:
        DropoutError: When it could be nearly one silo's update.
    """
    found = unevenness(scenario, silos, LEAST_EFFECTIVE, scenario_policy(scenario).colluding)
    if found is not None:
        raise DropoutError(f"a sum of {len(silos)} silos could be nearly one silo's update: {found}")


def check_can_begin(scenario: Scenario, roster: Roster, joined: Joined) -> None:
    """Refuse to begin a run with silos of which no round could come to a sum; none of them was charged yet.

    Guarantee: in a run that may begin, and whose silos all stay, every round has a cohort that its policy allows and
    a quorum to sign its list of survivors; and where all that joined train in each, their sum is even enough to be
    opened. Who did not join stays out of a run that began, so one that began with too few would fail in every round,
    whoever is back by then.

    Raises:
        DropoutError: What is in the way, the keys that it follows from, and who did not join.
    """
    mode, federation, found = scenario.encryption.secure_aggregation, scenario.federation, len(joined.members)
    if mode == "off":
        return
    policy = scenario_policy(scenario)
    obstacle = _too_few(policy, roster, found) if mode == "on" else ""
    try:
        if mode == "on" and not obstacle:
            policy.topology(min(federation.cohort_size, found))
        if federation.cohort_size >= found and not obstacle:
            check_even_sum(scenario, joined.members)
    except ProtocolError as error:
        obstacle = str(error)
    if obstacle:
        gone = f"; did not join: {reasons(joined.absent)}. Each silo's own log says why" if joined.absent else ""
        raise DropoutError(f"{found} silos are too few to begin: {obstacle}{gone}")


def _too_few(policy: Policy, roster: Roster, found: int) -> str:
    """Return which rule of secure aggregation asks for more silos than these, empty where none does."""
    quorum = policy.quorum(roster) if policy.consistency == "commit" else 0
    if found < policy.least_cohort:
        return (
            f"under secure aggregation {policy.least_cohort} silos begin a round at least (federation.min_silos ="
            f" {policy.n_min} is how many must be left in its sum); if the others stay out, name more under"
            " federation.silos, or turn encryption.secure_aggregation off"
        )
    if found < quorum:
        return (
            f"{quorum} of the {len(roster)} in federation.silos have to sign each list of survivors"
            f" (encryption.colluding = {policy.colluding}); if the others stay out, name those alone that take part"
        )
    return ""


def mean_of_sum(
    total_P: Words, survivors: Iterable[str], quantizer: Quantizer, federation: FederationConfig
) -> NDArray[np.float32]:
    """Return the weighted mean behind a sum of quantised, weighed updates, shape `(P,)`."""
    weight = sum(federation.relative_weight(silo) for silo in survivors)
    return (quantizer.decode(total_P) / weight).astype(np.float32)
