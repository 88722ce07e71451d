"""Who masks with whom, and how many shares recover a secret.

Up to `COMPLETE_UP_TO` silos, every pair shares a mask. Above that, each silo has `degree` neighbours on a ring in
random order (a Harary graph on a permutation; Bell et al. 2020, section 3.2), so that a silo's work does not grow with
the federation.

The threshold t protects against a server that asks half of a silo's neighbours for one of its secrets and the other
half for the other. With k neighbours (in a complete graph: n silos, itself included) of which c collude, every honest
one answers once, so both secrets need 2t <= (k - c) + 2c shares. Hence

    t > (k + c) / 2          secrecy: never both secrets of one silo
    t <= k - d               correctness: d dropouts leave enough shares

In a complete graph both hold with certainty for the numbers tolerated. On a ring, the number of colluders and dropouts
among a silo's neighbours is random. It is hypergeometric, because the order is drawn from nonces to which honest silos
contribute. `plan_topology` finds the smallest degree for which

    some silo's secrecy fails, or the survivors' graph falls apart, with probability at most 2^-secrecy_bits
    one silo's secrets cannot be recovered with probability at most 2^-CORRECTNESS_BITS

The first is a union bound over all silos. The second is for one silo: it costs a round, not a secret.

Colluders and dropouts are assumed to be fixed without knowledge of the order. A server that calls live silos dead after
it knows the order gets no secret by that (the first line holds for any such choice). It cannot cut the survivors' graph
in two either. This rests on the protocol, where survivors alone give shares of `b`: `docs/secure-aggregation.md`,
section 5, says with what probability.

The order is drawn anew with every dealing, once per window. So both probabilities are for a dealing, and not for a
round: an order that fails does so in all rounds of its window. `log2_of_run` is the union bound over the orders of a
run.

Does NOT claim anything if there are more colluders than tolerated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from fedmodel.crypto import digest
from fedmodel.errors import ConfigError

COMPLETE_UP_TO: Final = 300
CORRECTNESS_BITS: Final = 40
LEAST_SILOS: Final = 3  # of two, each learns the other's update from the sum


@dataclass(frozen=True)
class Topology:
    """The parameters of a round's graph.

    Attributes:
        silos: n, the size of the cohort.
        degree: Neighbours of each silo; n - 1 in a complete graph.
        threshold: Shares that recover a secret.
    """

    silos: int
    degree: int
    threshold: int

    @property
    def decoded(self) -> int:
        """How many false shares of a secret are found for certain, if no share is missing."""
        return (self.shares - self.threshold) // 2

    @property
    def complete(self) -> bool:
        """Whether every pair shares a mask."""
        return self.degree == self.silos - 1

    @property
    def shares(self) -> int:
        """Shares of each secret: one per neighbour, and in a complete graph one that the silo keeps."""
        return self.silos if self.complete else self.degree


@cache
def plan_topology(silos: int, colluding: int, dropping: int, secrecy_bits: int = 40) -> Topology:
    """Choose degree and threshold for a cohort.

    Args:
        silos: n, at least `LEAST_SILOS`.
        colluding: c, silos that may work with the server.
        dropping: d, silos that may vanish in a round.
        secrecy_bits: -log2 of the failure probability on a ring, at least 1.

    Returns:
        A ring above `COMPLETE_UP_TO` silos, if one meets the probabilities; otherwise the complete graph.

    Raises:
        ConfigError: When no threshold fits the numbers.

    >>> plan_topology(100, 33, 33)
    Topology(silos=100, degree=99, threshold=67)
    """
    if silos < LEAST_SILOS or min(colluding, dropping) < 0 or silos - colluding - dropping < 1 or silos - colluding < 2:
        raise ConfigError(
            f"{silos} silos with {colluding} colluding and {dropping} dropping out: hiding one update in a sum takes at"
            f" least {LEAST_SILOS} silos, 2 of them honest, and one that stays"
        )
    threshold = (silos + colluding) // 2 + 1
    if threshold > silos - dropping:
        raise ConfigError(
            f"{silos} silos cannot tolerate {colluding} colluding and {dropping} dropping out at once: the threshold is"
            f" {threshold}, and {silos - dropping} would be left"
        )
    ring = _plan_ring(silos, colluding, dropping, secrecy_bits) if silos > COMPLETE_UP_TO else None
    return ring or Topology(silos, silos - 1, threshold)


def log2_of_run(secrecy_bits: int, orders: int) -> float:
    """Return log2 of the probability that secrecy fails in any of `orders` orders of a ring, by the union bound.

    An honest server draws one order per window, and another one if a dealing fails. A hostile server may look at as
    many as it can compute, because it chooses whose adverts are in U1, and its colluders' nonces. Each of them counts.

    >>> log2_of_run(80, 1_024)
    -70.0
    """
    return math.log2(orders) - secrecy_bits


def ring_order(silos: Sequence[int], seed: bytes) -> list[int]:
    """Return the silos in the pseudorandom order that a seed gives, by sorting under a keyed hash."""
    return sorted(silos, key=lambda silo: digest(b"fedmodel/v1/ring-order", seed, silo.to_bytes(4, "big")))


def neighbours(topology: Topology, silos: Sequence[int], seed: bytes) -> dict[int, list[int]]:
    """Return each silo's neighbours, in ascending order. The relation is symmetric and regular.

    Args:
        topology: Of this many silos.
        silos: Their numbers, distinct, from 1.
        seed: The seed of the order; unused in a complete graph.

    Raises:
        ConfigError: When the number of silos is not the topology's.
    """
    order = _order(topology, silos, seed)
    return {silo: _around(topology, order, place) for place, silo in enumerate(order)}


def neighbours_of(topology: Topology, silos: Sequence[int], seed: bytes, silo: int) -> list[int]:
    """Return one silo's neighbours: its entry of `neighbours`, without the others'."""
    order = _order(topology, silos, seed)
    return _around(topology, order, order.index(silo))


def _order(topology: Topology, silos: Sequence[int], seed: bytes) -> list[int]:
    """Return the silos in the order of the ring; in a complete graph any order will do."""
    if len(set(silos)) != topology.silos or len(silos) != topology.silos:
        raise ConfigError(f"a graph for {topology.silos} silos was asked of {len(set(silos))} distinct ones")
    return list(silos) if topology.complete else ring_order(silos, seed)


def _around(topology: Topology, order: Sequence[int], place: int) -> list[int]:
    """Return the neighbours of the silo at a place, ascending."""
    if topology.complete:
        return sorted(set(order) - {order[place]})
    reach = topology.degree // 2
    return sorted(order[(place + step) % len(order)] for step in range(-reach, reach + 1) if step)


def _plan_ring(silos: int, colluding: int, dropping: int, secrecy_bits: int) -> Topology | None:
    """Return the smallest even degree, with its largest threshold, that meets both probabilities, if one does."""
    if secrecy_bits < 1:
        raise ConfigError(f"secrecy_bits = {secrecy_bits} is no probability to stay under; ask for at least 1")
    gone = (colluding + dropping) / silos
    missing = 0
    for degree in range(2, silos - 1, 2):
        # The number of neighbours that may be missing only grows with the degree, so the search goes on from there.
        while _log2_tail(silos, dropping, degree, missing + 1) > -CORRECTNESS_BITS:
            missing += 1
        threshold = degree - missing
        both_secrets = _log2_tail(silos, colluding, degree, 2 * threshold - degree)
        # A ring falls apart only if `degree / 2` silos in a row are gone: less likely than as many at random places.
        apart = degree // 2 * math.log2(gone) if gone else -math.inf
        if math.log2(silos) + float(np.logaddexp2(both_secrets, apart)) <= -secrecy_bits:
            return Topology(silos, degree, threshold)
    return None


def _log2_tail(silos: int, marked: int, drawn: int, least: int) -> float:
    """Return log2 of the chance that at least `least` of a silo's `drawn` neighbours are among the `marked`."""
    from scipy.stats import hypergeom  # a quarter of what every process would import

    return float(hypergeom.logsf(least - 1, silos - 1, marked, drawn)) / math.log(2)
