"""Which silos train side by side: those that are charged alike, as many as a processor's cache or a card holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.privacy.events import Event

_CACHED: Final = {"cpu": 1 << 19, "cuda": 1 << 25}  # parameters of a stack, whose float64 sums a cache or a card holds
_FEW: Final = 32  # silos of a stack: fewer take nearly as long

Alike = tuple[Event, int]
"""How silos of a group are charged: the event of one step, and a round's steps."""


class Stacks:
    """Cuts silos of a scenario into stacks.

    Args:
        scenario: What is done.
        parameters: Of its model.
        device: What trains: "cpu" or "cuda".

    Attributes:
        alike: How each silo is charged.
        most: How many silos a stack of a group has.
    """

    def __init__(self, scenario: Scenario, parameters: int, device: str) -> None:
        self.alike: dict[str, Alike] = {}
        for plan in map(scenario.plan, scenario.federation.silos):
            self.alike[plan.silo] = (plans.planned_event(plan).times(1), plan.steps_per_round)
        most = max(1, _CACHED[device] // parameters)
        self.most = {key: _each(silos, most) for key, silos in Counter(self.alike.values()).items()}

    def of(self, silos: Sequence[str]) -> list[tuple[Alike, list[str]]]:
        """Return stacks of some silos, those of one group after another's, each in the order of the silos."""
        return [
            (key, named[start : start + self.most[key]])
            for key, named in self.grouped(silos).items()
            for start in range(0, len(named), self.most[key])
        ]

    def grouped(self, silos: Sequence[str]) -> dict[Alike, list[str]]:
        """Return some silos by how they are charged, in their order."""
        found = defaultdict[Alike, list[str]](list)
        for silo in silos:
            found[self.alike[silo]].append(silo)
        return found


def _each(silos: int, most: int) -> int:
    """Return how many silos a stack has: stacks are of one size, none of them nearly empty.

    They come in fours, or two by two where there are few silos, so that cores which take them in turn end together.

    >>> _each(1000, 186), _each(130, 186), _each(100, 186), _each(60, 186), _each(3, 1), _each(1001, 2)
    (125, 33, 50, 60, 1, 2)
    """
    count = -(-silos // most)
    for several in (4, 2):
        if silos >= several * _FEW:
            return -(-silos // (-(-count // several) * several))
    return -(-silos // count)
