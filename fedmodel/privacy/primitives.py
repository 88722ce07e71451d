"""What accountants see: the few elementary releases that every event is composed of.

A mechanism says of its event which of these it makes, and how often (`Event.parts`); an accountant knows nothing else
of it. So a new mechanism needs no new accountant, as long as it is composed of what is here.

    SampledGaussian  a noised sum over a Poisson lot, which every accountant bounds
    Unbounded        a release that nothing bounds: every figure over it is infinite
"""

from __future__ import annotations

from typing import NamedTuple


class SampledGaussian(NamedTuple):
    """One sum over a Poisson lot of its own, with Gaussian noise.

    Two noised sums over one lot are not two of these, and cost more: what one of them tells of who is in the lot holds
    of the other too. One sum that is noised twice, by s and by t, is one of these, of noise (s^-2 + t^-2)^(-1/2).

    Attributes:
        rate: The probability with which the sampler really draws a record, in (0, 1].
        noise: Standard deviation of the noise over what one record may add to the sum, in the L2 norm.
        records: Most records of one privacy unit.
    """

    rate: float
    noise: float
    records: int


class Unbounded(NamedTuple):
    """One release of records without noise.

    Attributes:
        records: Most records of one privacy unit.
    """

    records: int


Primitive = SampledGaussian | Unbounded
Parts = tuple[tuple[Primitive, int], ...]
"""Primitives, each with how often it is released."""
