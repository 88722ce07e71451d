"""A budget scope: whose data, under what unit and order, and the room for Rényi divergence that its cap stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, get_args

from fedmodel.errors import LedgerError, PrivacyBudgetExceeded
from fedmodel.privacy import accounting
from fedmodel.privacy.events import LEAST_DELTA, MOST_EPSILON, MOST_RECORDS, Event, UnitName
from fedmodel.system.counts import counted

Admission = Literal["filter", "plan", "none"]
MICRO: Final = 1_000_000
UNBOUNDED: Final = 10**18
"""The cost of a plan without noise, which stands for infinity: the first of `MOST_STEPS` steps is over every cap."""


MOST_ORDER: Final = 256


@dataclass(frozen=True)
class Scope:
    """A budget: on what, and how much.

    Attributes:
        data: The data set.
        unit: Whose presence is hidden.
        max_records: Most records of one unit.
        delta: Of the claim.
        epsilon: The cap.
        order: Of the Rényi filter, a whole number from 2, fixed with the scope.
        adjacency: How neighbouring data sets differ.
    """

    data: str
    unit: UnitName
    max_records: int
    delta: float
    epsilon: float
    order: int
    adjacency: Literal["add-or-remove-one"] = "add-or-remove-one"

    @property
    def name(self) -> str:
        """What entries call it; epsilons of two scopes are never added."""
        return f"{self.data}/{self.unit}" + ("" if self.unit == "record" else f"-{self.max_records}")

    @cached_property
    def cap(self) -> int:
        """The room for Rényi divergence, in millionths, rounded down."""
        return math.floor(accounting.renyi_room(self.epsilon, self.delta, self.order) * MICRO)

    def check(self) -> None:
        """Refuse a scope of which no claim could be made.

        Raises:
            LedgerError: When a figure is out of range, or of another type.
        """
        numbers = (self.delta, self.epsilon)
        if (
            not all(type(number) in (int, float) for number in numbers)
            or not (LEAST_DELTA <= self.delta < 1 and 0 < self.epsilon <= MOST_EPSILON)
            or self.unit not in get_args(UnitName)
            or type(self.max_records) is not int
            or not 1 <= self.max_records <= (1 if self.unit == "record" else MOST_RECORDS)
            or type(self.order) is not int
            or not 2 <= self.order <= MOST_ORDER
            or type(self.data) is not str
        ):
            raise LedgerError(f"no claim can be made of a budget with these figures: {self}")
        accounting.check_supported(self.adjacency, "poisson")

    def cost(self, plan: Event) -> int:
        """Return the divergence of a plan in millionths, rounded up, at least 1; `UNBOUNDED` where it has no bound."""
        divergence = accounting.renyi(plan, self.order)
        return max(1, math.ceil(divergence * MICRO)) if math.isfinite(divergence) else UNBOUNDED

    def check_records(self, plan: Event) -> None:
        """Refuse a plan for units of another number of records.

        Raises:
            PrivacyBudgetExceeded: When it is.
        """
        if plan.max_records != self.max_records:
            raise PrivacyBudgetExceeded(
                f"a plan for units of {counted(plan.max_records, 'record')} cannot be charged to {self.name}, whose"
                f" units have {self.max_records}: what protects one does not protect the other"
            )
