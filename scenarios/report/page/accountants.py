"""A run's charges as another library's accountant reads them, to stand beside the claim.

The claim is PLD's (`fedmodel.privacy.accounting`): an upper bound, floating point included. Beside it, with no rounding
counted, and so for comparison alone: PRV, of Gopi et al. 2021 (arXiv 2106.02848), by Opacus, the upper end of its
interval, within 0.01 of its estimate; and RDP (`scenarios.report.verifier.renyi`).

Two that agree share no code from an event's primitives on, so a fault in one shows. Neither is ever the claim.

Does NOT cover several records of one unit by PRV: Opacus knows one.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from fedmodel.audit.accountants import prv_is_close
from fedmodel.audit.prv import prv_accountant
from fedmodel.privacy import accounting
from fedmodel.privacy.events import Event, bounded

_PRV_ERROR: Final = 0.01
_LARGEST_PRV: Final = 200.0  # past which the grid of PRV outgrows memory


def prv(events: Sequence[Event], delta: float) -> tuple[float | None, str | None]:
    """Return the upper end of Opacus's interval for epsilon, or None and why there is none.

    It holds in exact arithmetic; where rounding may exceed the error that it counts, none is told.

    Args:
        events: What was charged, of one unit.
        delta: In (0, 1).
    """
    if not events:
        return None, "nothing was released"
    parts = bounded(events)
    if parts is None:
        return None, "no noise was added"
    if any(step.records > 1 for step, _ in parts):
        return None, "Opacus's accountant knows one record of a unit, and these units have several"
    if not accounting.epsilon(events, delta, accounting.COARSE_GRID) < _LARGEST_PRV:
        return None, f"past epsilon {_LARGEST_PRV:g} its grid outgrows memory"
    if not prv_is_close(sum(count for _, count in parts), delta):
        return None, "over so many steps at such a delta its rounding, which it does not count, may exceed its error"
    steps = Counter[tuple[float, float]]()
    for step, count in parts:
        steps[step.noise, step.rate] += count
    accountant = prv_accountant()
    accountant.history = [(noise, rate, count) for (noise, rate), count in steps.items()]
    # Its formula takes the log of 0 where every record is in every lot, and means it; the domain it searches by RDP.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            found = float(accountant.get_epsilon(delta, eps_error=_PRV_ERROR))
        except (ArithmeticError, ValueError, RuntimeError, MemoryError) as error:
            return None, f"Opacus's accountant gave none ({type(error).__name__})"
    return (found, None) if math.isfinite(found) else (None, "Opacus's accountant gave no finite figure")
