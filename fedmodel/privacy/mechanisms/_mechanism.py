"""What a mechanism is: how its event is planned, held to a law's limits, released by, and described."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from fedmodel.privacy.events import Event
from fedmodel.privacy.plan import SiloPlan

if TYPE_CHECKING:
    from torch import Tensor

    from fedmodel.privacy.noise import NoiseSource


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
    """One kind of event: all that the rest of the program asks of it.

    Guarantee, which every kind that protects gives: what `release` returns is a function of S + Z alone, where S is the
    sum that it is given and Z is Gaussian noise, N(0, std^2 I) with std the event's noise multiplier times its clip,
    all of it drawn anew from the source that it is given. `fedmodel.privacy.conformance` measures that, before anything
    is charged, and that the event's parts charge for no less.
    """

    @property
    def event(self) -> type[Event]:
        """The class of its events, whose `mechanism` is the kind's name."""

    @property
    def draws(self) -> int:
        """How often `release` draws noise for a coordinate; 0 where none is added.

        Each draw is rounded to a grid, and a sum of rounded draws is no rounded sum. So of several, the event charges
        for no more noise than one of them has: given the others, what is released is a rounding of that one's.
        """

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

    def release(self, event: Event, sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:
        """Return what a clipped sum is released as: a mean, float32, a tensor for each of the sum's.

        Args:
            event: What is charged for it, of one step; every figure is taken from here.
            sums_L: The clipped sum of one lot, float64 multiples of `grid.fine(std)`, on one device. Sensitive.
            noise: Where noise is drawn from.
        """

    def describe(self, event: Event, unit: str) -> Facts:
        """Return what holds of an event, for neighbours that differ by one such unit."""
