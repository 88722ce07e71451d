"""The section `training.schedule`: which share of the learning rate each round has.

A share follows from the round's number and from the scenario, which are public, and multiplies what is made of noised
gradients. So it is post-processing (Dwork and Roth 2014, proposition 2.1), and no event says anything of it.

The share is one throughout a round, as in federated optimisation (Reddi et al. 2021, section 5.3). So all updates of a
round are scaled alike, whatever number of steps a silo takes, and what one update weighs in a sum is as without it
(`fedmodel.provision.influence`).
"""

from __future__ import annotations

import math
from typing import Final, Literal

from pydantic import Field, model_validator

from fedmodel.kinds.section import Section

_LAST: Final = 0.1


class ScheduleConfig(Section):
    """Rounds of a linear warm-up, then a decay to the last round.

    Guarantee: every share is over 0 and at most 1. Shares rise while it warms up, and never rise afterwards.

    | Rounds | Share |
    |---|---|
    | the w of the warm-up | 1/(w + 1), 2/(w + 1), ... w/(w + 1) |
    | the first after it | 1 |
    | those in between | 1 throughout; or on half a cosine's wave (Loshchilov and Hutter 2017); or on a line |
    | the last one | 1; or `last` |

    Attributes:
        decay: How shares fall after the warm-up.
        warm_up_rounds: w, how many rounds begin with smaller shares.
        last: The share of the last round, where there is a decay.
    """

    decay: Literal["constant", "cosine", "linear"] = "constant"
    warm_up_rounds: int = Field(default=0, ge=0, lt=100_000)
    last: float = Field(default=_LAST, ge=1e-6, le=1)

    @model_validator(mode="after")
    def _says_something(self) -> ScheduleConfig:
        if self.decay == "constant" and not self.warm_up_rounds:
            raise ValueError("says neither a decay nor warm_up_rounds; say one, or leave the section out")
        if self.decay == "constant" and self.last != _LAST:
            raise ValueError('last belongs to decay = "cosine" or "linear"; leave it out')
        return self

    def share(self, number: int, rounds: int) -> float:
        """Return the share of a round.

        Args:
            number: The round, from 1 to `rounds`.
            rounds: Of the run, more than are warmed up in.

        >>> halved = ScheduleConfig(decay="linear", warm_up_rounds=1, last=0.5)
        >>> [halved.share(number, 4) for number in (1, 2, 3, 4)]
        [0.5, 1.0, 0.75, 0.5]
        """
        if number <= self.warm_up_rounds:
            return number / (self.warm_up_rounds + 1)
        done = (number - self.warm_up_rounds - 1) / max(1, rounds - self.warm_up_rounds - 1)
        match self.decay:
            case "constant":
                return 1.0
            case "linear":
                return 1 - (1 - self.last) * done
            case "cosine":
                return self.last + (1 - self.last) * (1 + math.cos(math.pi * done)) / 2

    @property
    def described(self) -> str:
        """What the learning rate does, in a few words for a report."""
        warmed = self.warm_up_rounds
        did = [f"rose over {warmed} round{'s' if warmed > 1 else ''}"] if warmed else []
        falls = {"cosine": "fell on half a cosine's wave", "linear": "fell on a line"}
        if self.decay in falls:
            did.append(f"{falls[self.decay]}, to {self.last:g} of its height in the last round")
        return ", and then ".join(did)
