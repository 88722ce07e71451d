"""The section `training.lots`: from which rounds on lots are how many times as large as in the first.

Large lots have more signal for their noise, and small ones cost less of the budget; a run that begins with small lots
and ends with large ones spends most where a model gains from it (Smith et al. 2018, "Don't decay the learning rate,
increase the batch size"; Anil et al. 2021, "Large-scale differentially private BERT", section 4.2).

The schedule is public and fixed before the first round. Each silo's sample rate and divisor are multiplied alike, so
that how silos compare in a sum does not change. Nothing here says what it costs: each phase is a part of a run's
reservation, with an event of its own at its own rate (`fedmodel.plans`), and the parts are composed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final, NamedTuple

from pydantic import Field

from fedmodel.kinds.section import Section

MOST_GROWTHS: Final = 15


class LotsConfig(Section):
    """Larger lots from a round on.

    Attributes:
        from_round: The first round that has them.
        times: How many times as many records as in the first round a lot is expected to have: what sample rates and
            divisors are multiplied with.
    """

    from_round: int = Field(ge=2, le=100_000)
    times: float = Field(gt=1, le=1_000)


Lots = Annotated[tuple[LotsConfig, ...], Field(strict=False, max_length=MOST_GROWTHS)]


class Phase(NamedTuple):
    """Neighbouring rounds whose lots are drawn alike.

    Attributes:
        first: The first of them.
        rounds: How many.
        times: What sample rates and divisors are multiplied with.
    """

    first: int
    rounds: int
    times: float

    def divisor(self, expected_batch_size: int) -> int:
        """Return the public divisor of a phase's sums: the product, rounded to nearest, and to even from the middle.

        >>> Phase(1, 4, 1.0).divisor(25), Phase(5, 2, 1.5).divisor(25)
        (25, 38)
        """
        return expected_batch_size if self.times == 1 else round(expected_batch_size * self.times)


def check_growth(lots: Sequence[LotsConfig]) -> None:
    """Refuse entries that do not go forward, or after which lots are no larger than before.

    Raises:
        ValueError: Which of the two.
    """
    for before, after in pairwise(lots):
        if after.from_round <= before.from_round:
            raise ValueError(
                f"lots: from_round = {after.from_round} stands after {before.from_round}; list them by rising rounds"
            )
        if after.times <= before.times:
            raise ValueError(
                f"lots: times = {after.times:g} from round {after.from_round} on is no more than {before.times:g}"
                " before; lots grow"
            )


def phases_of(lots: Sequence[LotsConfig], rounds: int) -> tuple[Phase, ...]:
    """Return the phases of a run, one where its lots do not grow.

    Args:
        lots: In the order of their rounds.
        rounds: Of the run; the last phase begins within them.

    >>> phases_of([LotsConfig(from_round=6, times=2.0)], 30)
    (Phase(first=1, rounds=5, times=1.0), Phase(first=6, rounds=25, times=2.0))
    """
    starts = (1, *(one.from_round for one in lots))
    ends = (*starts[1:], rounds + 1)
    times = (1.0, *(one.times for one in lots))
    return tuple(Phase(first, end - first, factor) for first, end, factor in zip(starts, ends, times, strict=True))
