"""What holds of a run that may end at any step, where somebody who sees its releases chooses the step.

A run ends early because its loss is low enough, because a server or a person stops it, because silos leave. Each of
these may hang on what was released, and so on the records. Then epsilon of the steps that were taken is no bound:
whoever stops when the privacy loss is high makes high losses likelier than in any number of steps that was fixed in
advance.

**The plan's figure** holds at every stop. Let a plan have T steps, fixed before the first release, and let a rule that
sees all releases so far, and coins of its own, end it after tau <= T steps. Draw the steps that are left as well, and
throw them away: what was released until tau is then computed from the transcript of all T steps, without the records.
Post-processing keeps (epsilon, delta), so that of T steps bounds every stop. It is what a run is said to have cost, and
what it reserved in its silo's ledger. A run that released nothing, tau = 0, cost nothing.

**The odometer** is a smaller figure for a run that ended soon. Public checkpoints n_1 < ... < n_J = T and shares
delta_1 + ... + delta_J <= delta are fixed by the plan alone; its reading at tau is epsilon(tau) = epsilon_j, the PLD
epsilon of n_j steps at delta_j, where n_j is the first checkpoint that is not under tau.

Guarantee: for neighbouring data sets with distributions P and Q of the transcript up to its stop, for every rule that
stops, and every event S,

    P(S) <= E_Q[exp(epsilon(tau)) 1_S] + delta.

Proof. Let S_j be S with n_(j-1) < tau <= n_j. Whether S_j happens is computed, as above, from the transcript of the
first n_j steps, which are (epsilon_j, delta_j)-private: P(S_j) <= exp(epsilon_j) Q(S_j) + delta_j. Add over j. QED.
So a reading may be told at whatever step a run ended; compare Rogers et al. 2016 and Whitehouse et al. 2023
("Privacy odometers and filters", "Fully-adaptive composition in differential privacy"), whose odometers need no plan.

The odometer is a statement of its own, for the same delta as the plan's figure. Whoever relies on both, as on the
smaller of the two, relies on two statements, and their deltas add: 2 delta.

Checkpoints are T, half of it, a quarter and so on, five of them, with a fifth of delta each. That costs some tenths of
epsilon at each, and saves what the steps from there to T would have cost.

Does NOT cover plans that are chosen one after the other: a later run of the same records has a plan of its own, and
what all runs come to is the cap of a budget's filter (`fedmodel.ledger.admission`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedmodel.errors import ConfigError
from fedmodel.privacy.accounting.pld import COARSE_GRID, epsilon
from fedmodel.privacy.events import LEAST_DELTA, Event

_CHECKPOINTS = 5


@dataclass(frozen=True)
class Reading:
    """What an odometer says at a stop.

    Attributes:
        epsilon: That holds there; infinity where none is computed.
        checkpoint: Steps that it is of.
        share: Of delta, at which it was read.
    """

    epsilon: float
    checkpoint: int
    share: float


def checkpoints(steps: int) -> tuple[int, ...]:
    """Return a plan's checkpoints, in rising order; they hang on its length and on nothing else.

    >>> checkpoints(40), checkpoints(3), checkpoints(1)
    ((3, 5, 10, 20, 40), (1, 2, 3), (1,))
    """
    found = [steps]
    while found[-1] > 1 and len(found) < _CHECKPOINTS:
        found.append(-(-found[-1] // 2))
    return tuple(reversed(found))


def odometer(plan: Event, taken: int, delta: float, grid: float = COARSE_GRID) -> Reading:
    """Return what the odometer of a plan says after some of its steps.

    Args:
        plan: All steps, fixed before the first of them.
        taken: Steps that were taken when it ended, whoever chose that by whatever was released.
        delta: Of the statement, in (0, 1).
        grid: As for `epsilon`.

    Raises:
        ConfigError: When more steps were taken than the plan has, or delta is out of range.
    """
    if not 0 <= taken <= plan.steps:
        raise ConfigError(f"{taken} steps were taken of a plan of {plan.steps}; of such a run nothing is claimed")
    ends = checkpoints(plan.steps)
    share = math.nextafter(delta / len(ends), 0.0)  # so that all of them add up to delta at most
    if taken == 0:
        return Reading(0.0, 0, share)
    checkpoint = next(end for end in ends if end >= taken)
    if share < LEAST_DELTA:
        return Reading(math.inf, checkpoint, share)
    return Reading(epsilon([plan.times(checkpoint)], share, grid), checkpoint, share)
