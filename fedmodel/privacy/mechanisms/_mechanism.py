"""What a mechanism is: how its event is planned, held to a law's limits, and described."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from fedmodel.privacy.events import Event
from fedmodel.privacy.plan import SiloPlan


class Limits(Protocol):
    """What a silo's law says of every release, whatever its mechanism."""

    @property
    def least_noise_multiplier(self) -> float:
        """Least noise over the clip."""

    @property
    def largest_clip(self) -> float:
        """Largest clip of a gradient."""


class Facts(NamedTuple):
    """What holds of an event, each in whole sentences.

    Attributes:
        description: What was done to records.
        sensitivity: How what one unit can do is bounded.
        sampling: How lots are drawn, and what it is worth.
    """

    description: str
    sensitivity: str
    sampling: str


class Mechanism(Protocol):
    """One kind of event: all that the rest of the program asks of it."""

    @property
    def event(self) -> type[Event]:
        """The class of its events, whose `mechanism` is the kind's name."""

    @property
    def protects(self) -> bool:
        """Whether what it releases has a bound, so that a scenario and a law may name it."""

    def plan(self, plan: SiloPlan) -> Event:
        """Return what a whole plan is charged as: its own figures, and the noise that it needs.

        Raises:
            ConfigError: When no noise meets the plan's target, or the plan says none.
        """

    def check(self, event: Event, law: Limits) -> None:
        """Refuse an event that is looser than a law's limits.

        Raises:
            PolicyRefused: Which limit it breaks.
        """

    def describe(self, event: Event, unit: str) -> Facts:
        """Return what holds of an event, for neighbours that differ by one such unit."""
