"""Gauges of what canaries, and a record that is not a number, add to a silo's sums.

An included canary's records add C for each of them that is drawn, a canary that is not in the data adds nothing, and
neither does the record whose gradient is not a number.

Shapes: T steps, I canaries that are in, O that are out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import chi2, norm

from fedmodel.audit.intervals import thinned_interval
from fedmodel.audit.measured import Gauge, Seen, gauge, groups, worst


def canary_gauges(seen: Sequence[Seen], level: float) -> list[Gauge]:
    """Return every gauge of canaries that can be measured, each at the level over all silos."""
    found = list(_poison(seen, level))
    share = level / max(1, len(seen))
    for one in seen:
        found += [*_canary_mean(one, share), *_canary_peak(one, share), *_out_mean(one, share)]
    return found


def _canary_mean(one: Seen, level: float) -> Iterator[Gauge]:
    """The mean over included canaries and steps, in clips, against q times the records of a unit.

    Under correct code it is a binomial count plus normal noise, over the number of values. Blind to a clip that is
    wrong for some canaries and makes up for it at others, and at a small rate to a factor that drowns in noise.
    """
    in_TI, event = one.kept, one.event
    if not in_TI.size:
        return
    size = in_TI.size
    low, high = thinned_interval(
        size * event.max_records, event.realised_sample_rate, event.noise_multiplier * size**0.5, level
    )
    expected = event.realised_sample_rate * event.max_records
    yield gauge(
        "canary_mean",
        one.silo,
        in_TI.mean(),
        expected,
        (low / size, high / size),
        f"an included canary adds {in_TI.mean():.4f} clips to a sum on average; {expected:.4f} is claimed, and"
        f" {low / size:.4f} to {high / size:.4f} what noise and lots leave open",
    )


def _canary_peak(one: Seen, level: float) -> Iterator[Gauge]:
    """The value farthest out on coordinates of included canaries, in clips.

    Under correct code a value is between 0 and the records of a unit, plus noise; the interval is the union bound's.
    Finds a clip that is missing at rates at which the mean drowns. Blind to what is under some five standard deviations
    of the noise.
    """
    in_TI, event = one.kept, one.event
    if not in_TI.size:
        return
    reach = event.noise_multiplier * float(norm.isf(level / 2 / in_TI.size))
    middle = event.max_records / 2
    peak = float(in_TI.flat[np.abs(in_TI - middle).argmax()])
    yield gauge(
        "canary_peak",
        one.silo,
        peak,
        middle,
        (-reach, event.max_records + reach),
        f"the value farthest out on an included canary's coordinate is {peak:.2f} clips; a unit adds at most"
        f" {event.max_records}, and noise lets it lie from {-reach:.2f} to {event.max_records + reach:.2f}",
    )


def _out_mean(one: Seen, level: float) -> Iterator[Gauge]:
    """The mean on coordinates of canaries that are out, in standard deviations of the noise, against 0.

    Normal under correct code. Finds canaries that are in the data though their coins say out, and records that write on
    coordinates not their own. Blind to one canary among many.
    """
    out_TO = one.noise
    if out_TO.size:
        reach = float(norm.isf(level / 2)) / out_TO.size**0.5
        yield gauge(
            "out_mean",
            one.silo,
            out_TO.mean(),
            0.0,
            (-reach, reach),
            f"the mean over coordinates whose canaries are not in the data is {out_TO.mean():.4f} standard deviations"
            f" of the noise; 0 is claimed, and noise lets it be {reach:.4f} off",
        )


def _poison(seen: Sequence[Seen], level: float) -> Iterator[Gauge]:
    """Mean and size of what is on the coordinate of the record whose gradient is not a number; the worse of both.

    Noise alone under correct code: normal and chi-square, in the claimed standard deviations. Blind to less than some
    5 sigma / sqrt(T) clips a step, with T the steps of a silo, or of all together.
    """
    for group, silo, share in groups(seen, level):
        value_T = np.concatenate([one.of.poison_T.astype(np.float64) / one.scale for one in group])
        steps = len(value_T)
        if not steps:
            continue
        reach = float(norm.isf(share / 4)) / steps**0.5
        ends = [(float(end) / steps) ** 0.5 for end in (chi2.ppf(share / 4, steps), chi2.isf(share / 4, steps))]
        told = "on the coordinate of the record whose gradient is not a number the"
        mean, size = float(value_T.mean()), float((value_T**2).mean()) ** 0.5
        yield worst(
            [
                gauge(
                    "poison",
                    silo,
                    mean,
                    0.0,
                    (-reach, reach),
                    f"{told} mean is {mean:.4f} claimed standard deviations of the noise; 0 is claimed, and chance"
                    f" leaves {reach:.4f} either way",
                ),
                gauge(
                    "poison",
                    silo,
                    size,
                    1.0,
                    (ends[0], ends[1]),
                    f"{told} values have a size of {size:.4f} claimed standard deviations of the noise; 1 is claimed,"
                    f" and chance leaves {ends[0]:.4f} to {ends[1]:.4f}",
                ),
            ]
        )
