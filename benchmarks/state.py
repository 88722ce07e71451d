"""What lineages, checks of sums and decoding cost a round, beside what a silo does anyway.

    python benchmarks/state.py [--parameters P]

CPU seconds, the least of several repeats, all in one run: what to read is the ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from fedmodel.config import read_scenario
from fedmodel.crypto import random_bytes
from fedmodel.provision import scenario_hash, scenario_policy, unevenness
from fedmodel.provision.influence import levels_of_noise
from fedmodel.secagg import FRESH, configuration, lineage_after, model_digest, shamir
from fedmodel.secagg.masking import Sign, apply_masks
from fedmodel.secagg.messages import words_digest

_SILOS = 100


def least(work: Callable[[], object], repeats: int = 7) -> float:
    """Return the least CPU seconds of a few repeats."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def lineage(parameters: int) -> None:
    """Print what a lineage costs a silo of a hundred, beside rounding, masking and hashing its update."""
    scenario = read_scenario("hospitals")
    hashed, quantizer = scenario_hash(scenario), scenario_policy(scenario).quantizer
    update_P = np.random.default_rng(0).normal(size=parameters).astype(np.float32)
    masks: list[tuple[bytes, Sign]] = [(random_bytes(32), 1) for _ in range(_SILOS)]

    def anyway() -> None:
        model_digest(update_P)
        words_P = quantizer.encode(update_P)
        apply_masks(words_P, masks)
        words_digest(32, words_P)

    def more() -> None:
        configuration(hashed, lineage_after(FRESH, 1, 1, model_digest(update_P), hashed))

    before, added = least(anyway), least(more, 21)
    print(f"{parameters:,} parameters, {_SILOS} silos: {1e3 * before:.2f} ms, lineage {1e3 * added:.3f} ms more,")
    print(f"  {(before + added) / before:.4f} times as long")


def sums() -> None:
    """Print what it costs to look at a list of survivors, and at a scenario."""
    for silos in (_SILOS, 1_000):
        names = ",".join(f'"s{number}"' for number in range(silos))
        changes = [f"federation.silos=[{names}]", f"federation.min_silos={silos // 2}", "encryption.colluding=10"]
        scenario = read_scenario("hospitals", changes)
        quantizer = scenario_policy(scenario).quantizer
        looked = least(lambda one=scenario: unevenness(one, one.federation.silos, 2.0, 10))  # type: ignore[misc]
        levels = least(lambda one=scenario, q=quantizer: levels_of_noise(one, "s0", 1.0, q))  # type: ignore[misc]
        print(f"{silos} silos: a list {1e3 * looked:.2f} ms, levels {1e3 * levels:.2f} ms")


def decoding() -> None:
    """Print what it costs to find as many false shares of a secret as can be, beside bringing it back."""
    for shares, threshold in ((50, 28), (100, 60), (300, 181)):
        dealt = shamir.split(5, threshold, range(1, shares + 1))
        false = range(1, (shares - threshold) // 2 + 1)
        spoilt = {**dealt, **{point: shamir.random_element() for point in false}}
        points = range(1, threshold + 1)
        chosen = {point: dealt[point] for point in points}
        once = least(lambda p=points, c=chosen: shamir.combine(c, shamir.lagrange_at_zero(p)))  # type: ignore[misc]
        found = least(lambda s=spoilt, t=threshold: shamir.agreeing(s, t), 3)  # type: ignore[misc]
        print(f"{threshold} of {shares} shares: {1e3 * once:.2f} ms; {len(false)} false found in {1e3 * found:.1f} ms")


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    lineage(parser.parse_args().parameters)
    sums()
    decoding()


if __name__ == "__main__":
    main()
