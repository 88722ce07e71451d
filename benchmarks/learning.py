"""Accuracy at an epsilon with and without what makes DP-SGD learn better, for each of it and for all of it together.

    python benchmarks/learning.py [--seeds 5] [--choosing 2] [--json]

The built-in scenario `digits`: ten silos, 30 rounds of one step, a small CNN. A way of training is one or several keys
of the scenario, and nothing else differs; `bf16` is among them since it is to cost no accuracy. All ways meet the same
epsilon, and but for the two ways of smaller lots, what is charged is the same to the bit. Partition and start of the
model are the same for all ways of a seed, and differ between seeds; noise is the operating system's. The learning rate
of each way at each epsilon is chosen first, on other seeds, by the mean accuracy there, from the same candidates.
Choosing is not charged for: over data that are private it would cost a budget too.

What is printed is the table of `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import torch

from fedmodel.config import read_scenario
from scenarios.simulation.simulate import check_scenario, run_folder, simulate

EPSILONS: Final = (1.0, 3.0, 8.0)
RATES: Final = (0.1, 0.2, 0.4)
_FIRST_SEED: Final = 11
_FIRST_CHOOSING: Final = 101
_COPIES: Final = "rotate = 10.0"
_AVERAGE: Final = ["training.ema_decay=0.8"]
_SCHEDULE: Final = ["training.schedule.decay=cosine"]
_STANDARDISED: Final = ["model.weight_standardization=true"]
_HALF: Final = ["privacy.sample_rate=0.5", "privacy.expected_batch_size=30"]
WAYS: Final[dict[str, list[str]]] = {
    "as it is": [],
    "one copy": [f"data.augment={{{_COPIES}}}"],
    "8 views": [f"data.augment={{{_COPIES}, views = 8}}"],
    "average": _AVERAGE,
    "bf16": ["training.precision=bf16"],
    "weight standardisation": _STANDARDISED,
    "cosine schedule": _SCHEDULE,
    "half lots": _HALF,
    "lots that grow": [*_HALF, "training.lots=[{from_round = 16, times = 2.0}]"],
    "average, standardisation, schedule": [*_AVERAGE, *_STANDARDISED, *_SCHEDULE],
    "all of it, 8 views": [f"data.augment={{{_COPIES}, views = 8}}", *_AVERAGE, *_STANDARDISED, *_SCHEDULE],
}


def accuracy(settings: Iterable[str], seed: int) -> float:
    """Return the held-out accuracy of one run."""
    scenario = read_scenario("digits", [*settings, f"seed={seed}"])
    with TemporaryDirectory() as folder, run_folder(scenario, Path(folder) / "run") as run_dir:
        summary = simulate(scenario, check_scenario(scenario), "in-process", "cpu", run_dir, nullcontext())
    return float(summary["metrics"]["accuracy"])


def measured(way: str, epsilon: float, seeds: int, choosing: int) -> dict[str, Any]:
    """Return the rate that was chosen for a way at an epsilon, and the accuracy of each seed at that rate."""
    started = time.process_time()
    settings = [*WAYS[way], f"privacy.epsilon={epsilon}"]
    rate = RATES[-1]
    if choosing:
        found = {
            one: statistics.mean(
                accuracy([*settings, f"training.learning_rate={one}"], _FIRST_CHOOSING + seed)
                for seed in range(choosing)
            )
            for one in RATES
        }
        rate = max(RATES, key=lambda one: found[one])
    chosen = [*settings, f"training.learning_rate={rate}"]
    runs = [accuracy(chosen, _FIRST_SEED + seed) for seed in range(seeds)]
    return {
        "way": way,
        "epsilon": epsilon,
        "learning_rate": rate,
        "runs": runs,
        "cpu_seconds": time.process_time() - started,
    }


def cell(one: dict[str, Any]) -> str:
    """Return a cell of the table: the mean, one standard deviation where there are several seeds, and the rate.

    >>> cell({"runs": [0.8, 0.9], "learning_rate": 0.4})
    '0.850 ± 0.071 (0.4)'
    """
    runs = one["runs"]
    spread = f" ± {statistics.stdev(runs):.3f}" if len(runs) > 1 else ""
    return f"{statistics.mean(runs):.3f}{spread} ({one['learning_rate']:g})"


def main() -> None:
    """Choose, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many runs of each cell")
    parser.add_argument("--choosing", type=int, default=2, help="seeds that a rate is chosen on; 0 takes digits' own")
    parser.add_argument("--epsilons", nargs="*", type=float, default=EPSILONS)
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    found = []
    if not arguments.json:
        print(f"| | {' | '.join(f'epsilon {epsilon:g}' for epsilon in arguments.epsilons)} | CPU s |")
        print(f"|---|{'---|' * (len(arguments.epsilons) + 1)}", flush=True)
    for way in arguments.ways:
        row = [measured(way, epsilon, arguments.seeds, arguments.choosing) for epsilon in arguments.epsilons]
        found += row
        if not arguments.json:
            spent = sum(one["cpu_seconds"] for one in row)
            print(f"| {way} | {' | '.join(map(cell, row))} | {spent:.0f} |", flush=True)
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
