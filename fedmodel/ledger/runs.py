"""What a ledger holds about one run: what it reserved, what was charged of it, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from fedmodel.errors import LedgerTampered
from fedmodel.ledger.scope import Admission
from fedmodel.privacy.events import Event


class Charged(NamedTuple):
    """A charge that stands.

    Attributes:
        round: Of the run.
        steps: Charged.
        key: Under which.
        part: Of the run's reservation, from 0.
    """

    round: int
    steps: int
    key: str
    part: int


@dataclass
class Run:
    """What a scope's ledger holds about one run.

    Attributes:
        scope: The scope's name.
        parts: All that it may do, as reserved: the plan, then what else it may release, as statistics.
        costs: The divergence of each part in millionths.
        admitted: In which of the two ways.
        scenario: Hash of the scenario that the plan is of.
        sequence: Of its reservation.
        drawn: Steps charged of each part.
        charges: By sequence, of those that stand.
        until: From when on it may lapse; empty where it does not.
        name: What its server calls it; empty where it has no name.
        closed: Whether the rest was given back.
        lapsed: Whether it was given back because it lapsed.
        touched: Whether anything of it was ever charged, whether or not that stands.
        ended: Sequence of the entry that countersigns its end, None where there is none.
        model: SHA-256 of the model that this entry is for, in hexadecimal.
        code: Hash of the code that the silo ran by then.
    """

    scope: str
    parts: tuple[Event, ...]
    costs: tuple[int, ...]
    admitted: Admission
    scenario: str
    sequence: int
    drawn: list[int]
    charges: dict[int, Charged] = field(default_factory=dict)
    until: str = ""
    name: str = ""
    closed: bool = False
    lapsed: bool = False
    touched: bool = False
    ended: int | None = None
    model: str = ""
    code: str = ""

    @property
    def plan(self) -> Event:
        """The first part: what the run is for."""
        return self.parts[0]

    @property
    def taken(self) -> int:
        """Steps charged of the plan."""
        return self.drawn[0]

    @property
    def cost(self) -> int:
        """The divergence of all parts in millionths."""
        return sum(self.costs)

    @property
    def events(self) -> list[Event]:
        """What was charged, oldest first."""
        return [self.parts[one.part].times(one.steps) for one in self.charges.values()]

    @property
    def claimed(self) -> list[Event]:
        """What its epsilon is of, whenever and however it ended: all of its parts, once any step of one was charged.

        Epsilon of `events` alone would be a bound only if their number had been fixed in advance.

        Raises:
            LedgerTampered: When it took more steps than a part has, which no ledger lets it.
        """
        for part, taken in zip(self.parts, self.drawn, strict=True):
            if taken > part.steps:
                raise LedgerTampered(f"a run took {taken} steps of a plan of {part.steps}", self.sequence)
        return list(self.parts) if self.charges else []

    @property
    def spent(self) -> int:
        """Of the cost, what the steps taken are, in millionths."""
        each = zip(self.costs, self.drawn, self.parts, strict=True)
        return sum(share(cost, taken, part.steps) for cost, taken, part in each)

    @property
    def reserved(self) -> int:
        """Of the cost, what is still held for the run or spent by it, in millionths."""
        return self.spent if self.closed else self.cost

    @property
    def matters(self) -> bool:
        """Whether anything of it was, or can yet be, released."""
        return not self.closed or bool(self.charges)


def share(cost: int, taken: int, steps: int) -> int:
    """Return what the first `taken` of a plan's steps cost, rounded up; the whole plan costs exactly its cost.

    >>> share(10, 1, 3), share(10, 3, 3)
    (4, 10)
    """
    return -(-cost * taken // steps)
