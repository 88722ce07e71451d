"""Gauges of sampling, from how many records each step drew and how often each record was drawn.

Claimed is a Poisson lot: every record is in every step's with probability q, independently. Privacy amplification by
sampling is for such lots alone; a shuffle's lots are of one size, and draw each record once an epoch.

Blind, all of them, to records that are drawn together, to a choice that hangs on a record's content, and to draws
that an adversary could predict.

Shapes: T steps, N records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedmodel.audit.intervals import binomial_interval, dispersion, dispersion_interval
from fedmodel.audit.measured import Gauge, Seen, gauge


def lot_gauges(seen: Sequence[Seen], level: float) -> list[Gauge]:
    """Return every gauge of sampling that can be measured, each at the level over all silos."""
    found: list[Gauge] = []
    for one in seen:
        if len(one.of.lots_T) and one.of.records:
            share = level / len(seen)
            found += [*_lot_rate(one, share), *_lot_dispersion(one, share), *_draw_dispersion(one, share)]
    return found


def _lot_rate(one: Seen, level: float) -> Iterator[Gauge]:
    """The share of all records that a step draws, against the realised q.

    Exactly binomial under correct code; at q = 1 it is 1 and nothing else. Blind to how draws are spread over steps
    and records.
    """
    trials, rate = one.of.records * len(one.of.lots_T), one.event.realised_sample_rate
    low, high = binomial_interval(trials, rate, level)
    share = int(one.of.lots_T.sum()) / trials
    yield gauge(
        "lot_rate",
        one.silo,
        share,
        rate,
        (low / trials, high / trials),
        f"a step drew a share of {share:.6f} of the records; {rate:.6f} is claimed, and Poisson lots leave"
        f" {low / trials:.6f} to {high / trials:.6f}",
    )


def _lot_dispersion(one: Seen, level: float) -> Iterator[Gauge]:
    """How far lots are from Nq, squared, in binomial variances, a step; a lot counts at most 25.

    The sum over steps is of independent summands of a known distribution, bounded by Chernoff. Lots of one size have 0.
    Left out where even that could be chance: with five steps and Nq around 50 it no longer can, and `draw_dispersion`
    needs fewer. At q = 1 it is how many steps drew fewer than all records, 0. Blind to who is drawn.
    """
    lots_T, steps = one.of.lots_T, len(one.of.lots_T)
    yield from _dispersion("lot_dispersion", one, lots_T, one.of.records, level, f"sizes of {steps} lots")


def _draw_dispersion(one: Seen, level: float) -> Iterator[Gauge]:
    """How far a record's draws are from Tq, squared, in binomial variances, on average; a record counts at most 25.

    Distributed as for `lot_dispersion`, with T trials and N summands. A shuffle has 0 after whole epochs, and within
    the first (1 - Tq) / (1 - q); the same lot in every step has many times 1. At q = 1 it is how many records were not
    drawn in every step, 0. Blind to lots of one size, each drawn afresh.
    """
    steps, told = len(one.of.lots_T), f"draws of {one.of.records} records"
    yield from _dispersion("draw_dispersion", one, one.of.drawn_N, steps, level, told)


def _dispersion(
    name: str, one: Seen, counts: NDArray[np.int64], trials: int, level: float, told: str
) -> Iterator[Gauge]:
    """Yield a gauge of counts against the binomial of so many trials; none where none too even could fail it."""
    rate = one.event.realised_sample_rate
    if rate >= 1:
        fewer = int((counts != trials).sum())
        yield gauge(
            name, one.silo, fewer, 0.0, (0, 0), f"of the {told}, {fewer} are not {trials}, which all are when q is 1"
        )
        return
    low, high = dispersion_interval(len(counts), trials, rate, level)
    if low is None:
        return
    size = len(counts)
    ends = (low / size, 25.0 if high is None else high / size)
    measured = dispersion(counts, trials, rate) / size
    yield gauge(
        name,
        one.silo,
        measured,
        1.0,
        ends,
        f"the {told} vary by {measured:.4f} times the variance of Poisson lots; chance leaves {ends[0]:.4f} to"
        f" {ends[1]:.4f}",
    )
