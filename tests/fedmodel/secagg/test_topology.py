"""Thresholds and graphs: the published parameters, exact tails, and a ring that is regular, symmetric and connected."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmodel.errors import ConfigError
from fedmodel.secagg.topology import CORRECTNESS_BITS, Topology, _log2_tail, neighbours, plan_topology, ring_order


@pytest.mark.parametrize(
    ("silos", "colluding", "dropping", "bits", "degree", "threshold"),
    [
        (3, 0, 1, 40, 2, 2),
        (3, 1, 0, 40, 2, 3),
        (4, 0, 1, 40, 3, 3),
        (100, 33, 33, 40, 99, 67),
        (300, 100, 99, 40, 299, 201),
        (1000, 200, 100, 40, 158, 115),
        (1000, 200, 100, 80, 198, 149),
    ],
)
def test_parameters(silos: int, colluding: int, dropping: int, bits: int, degree: int, threshold: int) -> None:
    assert plan_topology(silos, colluding, dropping, bits) == Topology(silos, degree, threshold)


def exact_tail(silos: int, marked: int, drawn: int, least: int) -> Fraction:
    """The hypergeometric tail by counting."""
    others = silos - 1
    ways = sum(
        math.comb(marked, hits) * math.comb(others - marked, drawn - hits)
        for hits in range(least, min(marked, drawn) + 1)
    )
    return Fraction(ways, math.comb(others, drawn))


@pytest.mark.parametrize("bits", [40, 80])
def test_a_rings_probabilities_hold_exactly_and_a_smaller_degrees_do_not(bits: int) -> None:
    silos, colluding, dropping = 1000, 200, 100
    chosen = plan_topology(silos, colluding, dropping, bits)

    def largest_correct(degree: int) -> int:
        most = Fraction(1, 2**CORRECTNESS_BITS)
        return next(t for t in range(degree, 0, -1) if exact_tail(silos, dropping, degree, degree - t + 1) <= most)

    def secrecy_failure(degree: int, threshold: int) -> Fraction:
        return silos * exact_tail(silos, colluding, degree, 2 * threshold - degree)

    assert largest_correct(chosen.degree) == chosen.threshold
    assert secrecy_failure(chosen.degree, chosen.threshold) <= Fraction(1, 2**bits)
    # A smaller threshold only makes secrecy worse, so the largest one speaks for all.
    smaller = chosen.degree - 2
    assert secrecy_failure(smaller, largest_correct(smaller)) > Fraction(1, 2**bits)


@pytest.mark.parametrize(("marked", "drawn", "least"), [(200, 158, 72), (100, 158, 44), (200, 50, 11)])
def test_tails_in_floating_point_are_the_counted_ones(marked: int, drawn: int, least: int) -> None:
    exact = exact_tail(1000, marked, drawn, least)
    log2 = math.log2(exact.numerator) - math.log2(exact.denominator)
    assert _log2_tail(1000, marked, drawn, least) == pytest.approx(log2, abs=1e-6)


@given(st.integers(3, 300), st.data())
def test_in_a_complete_graph_no_split_of_the_honest_gives_both_secrets(silos: int, data: st.DataObject) -> None:
    """Every honest silo answers for one of the two; colluders answer for both."""
    colluding = data.draw(st.integers(0, silos - 2))
    dropping = data.draw(st.integers(0, silos - colluding - 1))
    try:
        threshold = plan_topology(silos, colluding, dropping).threshold
    except ConfigError:
        assert (silos + colluding) // 2 + 1 > silos - dropping
        return
    honest = silos - colluding
    assert not any(
        asked + colluding >= threshold and honest - asked + colluding >= threshold for asked in range(honest + 1)
    )
    assert silos - dropping >= threshold


def test_the_complete_graph_serves_where_no_ring_does() -> None:
    assert plan_topology(301, 0, 150) == Topology(301, 300, 151)
    with pytest.raises(ConfigError, match="at least 1"):
        plan_topology(1000, 200, 100, 0)


@pytest.mark.parametrize(
    ("silos", "colluding", "dropping", "words"),
    [
        (2, 0, 0, "at least 3 silos"),
        (3, 2, 0, "2 of them honest"),
        (3, -1, 0, "at least 3 silos"),
        (3, 1, 1, "cannot tolerate 1 colluding and 1 dropping out at once: the threshold is 3, and 2 would be left"),
        (1000, 500, 400, "cannot tolerate 500 colluding and 400 dropping out at once"),
        (1000, 333, 400, "cannot tolerate"),
    ],
)
def test_impossible_numbers_are_refused(silos: int, colluding: int, dropping: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_topology(silos, colluding, dropping)


RING = Topology(400, 20, 15)


def ring(seed: bytes) -> dict[int, list[int]]:
    return neighbours(RING, range(1, 401), seed)


def test_a_ring_is_symmetric_and_regular() -> None:
    graph = ring(b"nonces")
    assert all(len(set(near)) == 20 and silo not in near for silo, near in graph.items())
    assert all(silo in graph[other] for silo, near in graph.items() for other in near)


def test_a_ring_stays_connected_when_a_third_are_gone() -> None:
    graph = ring(b"nonces")
    gone = {silo for silo in graph if int.from_bytes(silo.to_bytes(2, "big"), "big") * 7919 % 3 == 0}
    alive = set(graph) - gone
    reached = {min(alive)}
    frontier = list(reached)
    while frontier:
        for other in graph[frontier.pop()]:
            if other in alive and other not in reached:
                reached.add(other)
                frontier.append(other)
    assert reached == alive
    assert len(gone) > 100


def test_the_order_follows_from_the_seed_alone_and_favours_nobody() -> None:
    assert ring_order([3, 1, 2], b"a") == ring_order([1, 2, 3], b"a")
    assert ring(b"a") == ring(b"a") != ring(b"b")
    first = Counter(ring_order(range(1, 6), bytes([n % 256, n // 256]))[0] for n in range(4_000))
    assert all(abs(first[silo] / 4_000 - 0.2) < 5 * math.sqrt(0.2 * 0.8 / 4_000) for silo in range(1, 6))


def test_a_complete_graph_pairs_everybody() -> None:
    assert neighbours(plan_topology(4, 0, 1), [4, 9, 2, 7], b"") == {
        2: [4, 7, 9],
        4: [2, 7, 9],
        7: [2, 4, 9],
        9: [2, 4, 7],
    }


def test_a_graph_is_for_its_own_number_of_silos() -> None:
    with pytest.raises(ConfigError, match="400 silos was asked of 3"):
        neighbours(RING, [1, 2, 3], b"")
    with pytest.raises(ConfigError, match="4 silos was asked of 3"):
        neighbours(plan_topology(4, 0, 1), [1, 2, 3, 3], b"")
