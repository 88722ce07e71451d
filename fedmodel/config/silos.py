"""The section `federation`: which silos take part, how many have to, and what each weighs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, field_validator, model_validator

from fedmodel.kinds.own_names import names_own_or_one_on_board
from fedmodel.kinds.section import Positive, Section, SiloName, is_inert, known_silos
from fedmodel.kinds.spelling import Later

# Of a class. At a noise multiplier of 1 the clip is 2^30 steps of the fine grid (`fedmodel.privacy.grid`) or more: at
# the least weight, 2^10 of them are left of a gradient as long as the clip, so that no class is cut away unsaid. At the
# most, 2^20 times the largest feature of 10^9 is under 2^50 of the 2^128 that a float32 holds.
LEAST_WEIGHT = 2.0**-20
MOST_WEIGHT = 2.0**20
LEAST_EFFECTIVE = 2.0
LEAST_SHARE = 1e-4  # of an update: what is put back is multiplied with one over it, noise included
MOST_RANK = 1024  # of an update: columns of a basis, of which each is made orthogonal to all before it

OptionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
OptionValue = bool | int | float | Annotated[str, Field(max_length=100), AfterValidator(is_inert)]
_MOST_OPTIONS: Final = 20
_MOST_SILOS: Final = 10_000


def _names_a_strategy(value: str) -> str:
    """Refuse what names neither a strategy on board, as its file is named, nor code, as "package.module:function"."""
    if ":" in value:
        return names_own_or_one_on_board(value)
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", value):
        told = f'{value!r} is no name of a strategy, such as "fedavg", nor of code, as "package.module:function"'
        raise ValueError(told)
    return value


class FederationConfig(Section, Later):
    """Who takes part, and which part of an update is sent. Weights are public and never the number of records.

    `strategy` names a file of `server/strategies`, which is above this: the server looks it up before it asks anybody,
    and holds `strategy_options` to what that file declares. Or it names code of the user's own, at the server alone.
    """

    LATER = ("strategy", "strategy_options", "update_share", "update_rank")

    silos: Annotated[tuple[SiloName, ...], Field(strict=False, min_length=1, max_length=_MOST_SILOS)]
    cohort: int | None = Field(default=None, ge=1)
    min_silos: int = Field(default=2, ge=1)
    weights: dict[str, Positive] = {}
    round_timeout_s: float = Field(default=600.0, gt=0, le=86_400)
    tolerated_failures: int = Field(default=0, ge=0)
    strategy: Annotated[str, Field(max_length=200), AfterValidator(_names_a_strategy)] = "fedavg"
    strategy_options: Annotated[dict[OptionName, OptionValue], Field(max_length=_MOST_OPTIONS)] = {}
    update_share: float = Field(default=1.0, ge=LEAST_SHARE, le=1)
    update_rank: int | None = Field(default=None, ge=1, le=MOST_RANK)

    @field_validator("silos", mode="before")
    @classmethod
    def _named_by_number(cls, value: Any) -> Any:
        """Name as many silos as a number says; what is then read, written and hashed are the names."""
        if type(value) is not int:
            return value
        if not 1 <= value <= _MOST_SILOS:
            raise ValueError(f"{value} is no number of silos; name them, or say how many there are, 1 to {_MOST_SILOS}")
        return tuple(f"silo-{number:04d}" for number in range(value))

    @field_validator("strategy_options", mode="before")
    @classmethod
    def _options_are_plain(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for name, one in value.items():
                if not isinstance(one, bool | int | float | str):
                    told = f"{name} is a {type(one).__name__}; an option is a number, true, false or a text"
                    raise ValueError(told)  # noqa: TRY004 - pydantic tells of a ValueError
        return value

    @model_validator(mode="after")
    def _names_and_counts(self) -> FederationConfig:
        repeated = sorted(name for name, times in Counter(self.silos).items() if times > 1)
        if repeated:
            raise ValueError(f"silo {repeated[0]!r} is named twice; every silo needs its own name")
        if self.cohort_size > len(self.silos):
            raise ValueError(f"cohort = {self.cohort} is more than the {len(self.silos)} silos named")
        if self.min_silos > self.cohort_size:
            raise ValueError(
                f"min_silos = {self.min_silos} is more than the cohort of {self.cohort_size}, so no round could count"
            )
        known_silos(self.weights, self.silos, "federation.weights")
        if self.update_share < 1 and self.update_rank is not None:
            raise ValueError(
                f"update_share = {self.update_share:g} and update_rank = {self.update_rank} are two ways to send a part"
                " of an update; leave one of them out"
            )
        return self

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Each silo's place among all: to look for one of thousands by name costs as many steps for each."""
        return MappingProxyType({silo: place for place, silo in enumerate(self.silos)})

    @property
    def sends_part(self) -> bool:
        """Whether a part of each update is sent, and not all of it."""
        return self.update_share < 1 or self.update_rank is not None

    @property
    def cohort_size(self) -> int:
        """How many silos are asked to train each round."""
        return len(self.silos) if self.cohort is None else self.cohort

    def weight(self, silo: str) -> float:
        """Return the silo's public weight in the average, 1 unless declared."""
        return self.weights.get(silo, 1.0)

    def relative_weight(self, silo: str) -> float:
        """Return the silo's weight over the largest, so that a bound on updates bounds weighted ones too."""
        return self.weight(silo) / max(map(self.weight, self.silos)) if self.weights else 1.0
