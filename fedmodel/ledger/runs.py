"""What a ledger holds about one run: what it reserved, what was charged of it, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
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
        """The first part: what the run is for, or the first phase of that, where lots grow."""
        return self.parts[0]

    @property
    def phases(self) -> int:
        """How many parts, from the first on, are phases of what the run is for: its steps, with ever larger lots.

        What a run releases besides has a divisor of 1, so that it is none.
        """
        return phases_in(self.parts)

    @property
    def steps(self) -> int:
        """Steps reserved of what the run is for, in all phases."""
        return sum(part.steps for part in self.parts[: self.phases])

    @property
    def taken(self) -> int:
        """Steps charged of what the run is for, in all phases."""
        return sum(self.drawn[: self.phases])

    @property
    def rounds(self) -> int:
        """Rounds of what the run is for that a charge stands of."""
        return len({one.round for one in self.charges.values() if one.part < self.phases})

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


def phases_in(parts: Sequence[Event]) -> int:
    """Return how many of a run's parts, from the first on, are its steps with ever larger lots; 0 of no parts.

    >>> from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
    >>> small, large = DpSgdEvent(1.0, 1.0, 0.1, 5, 10), DpSgdEvent(1.0, 1.0, 0.2, 5, 20)
    >>> phases_in([small, large, large])
    2
    """
    found = len(parts[:1])
    while found < len(parts) and _grown(parts[found - 1], parts[found]):
        found += 1
    return found


def _grown(before: Event, after: Event) -> bool:
    """Return whether an event is another's steps with larger lots, and nothing else."""
    if type(before) is not type(after) or after.denominator <= before.denominator:
        return False
    lots = ("sample_rate", "realised_sample_rate", "denominator", "steps")
    same = all(getattr(before, one.name) == getattr(after, one.name) for one in fields(before) if one.name not in lots)
    return same and after.sample_rate > before.sample_rate


def share(cost: int, taken: int, steps: int) -> int:
    """Return what the first `taken` of a plan's steps cost, rounded up; the whole plan costs exactly its cost.

    >>> share(10, 1, 3), share(10, 3, 3)
    (4, 10)
    """
    return -(-cost * taken // steps)
