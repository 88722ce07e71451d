"""What hiding an update costs in its parts, in one run: masks, shares, quantisation.

    python benchmarks/secagg_primitives.py [--json]

CPU seconds of one core, medians. The protocol is made of these: a silo with k neighbours stretches k + 1 masks and
deals 2k shares a round; the server stretches one mask a survivor and k a dropout, and combines t shares for each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from fedmodel.masking import add_mask
from fedmodel.quantize import Quantizer
from fedmodel.shamir import combine, lagrange_at_zero, random_element, split

_PARAMETERS = 1_000_000
_REPEATS = 9


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the median CPU time of a call, after one that is not counted."""
    work()
    times = []
    for _ in range(_REPEATS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return statistics.median(times)


def measure() -> dict[str, float]:
    """Return CPU seconds by part."""
    words = np.zeros(_PARAMETERS, dtype="<u4")
    half_words = np.zeros(_PARAMETERS, dtype="<u2")
    update = np.random.default_rng(0).normal(0, 0.1, _PARAMETERS).astype(np.float32)
    key, secret = bytes(32), random_element()
    shares = split(secret, 67, range(1, 101))
    points = list(range(1, 68))
    coefficients = lagrange_at_zero(points)
    chosen = {point: shares[point] for point in points}
    return {
        "mask of 1M 32-bit words": cpu_seconds(lambda: add_mask(words, key)),
        "mask of 1M 16-bit words": cpu_seconds(lambda: add_mask(half_words, key)),
        "quantise 1M parameters": cpu_seconds(lambda: Quantizer(1.0, 32, 100).encode(update)),
        "deal 100 shares, threshold 67": cpu_seconds(lambda: split(secret, 67, range(1, 101))),
        "coefficients of 67 shares": cpu_seconds(lambda: lagrange_at_zero(points)),
        "combine 67 shares": cpu_seconds(lambda: combine(chosen, coefficients)),
    }


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = measure()
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, seconds in figures.items():
        print(f"{name:32} {seconds * 1e3:9.3f} ms")


if __name__ == "__main__":
    main()
