"""Accuracy of FedAvg, FedAdam and FedProx on one partition that is skewed by label, with privacy and without.

    python benchmarks/strategies.py [--json]

Handwritten digits on board, five silos in each of which three of the ten labels are common, and a linear model.
Partition and start of the model are the same for all strategies of a seed, and differ between seeds; noise is the
operating system's. Rates are chosen first, on other seeds, by the mean accuracy there, from as many candidates for each
strategy. Choosing is not charged for: over data that are private it would cost a budget too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import statistics
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import torch

from fedmodel.config import read_scenario
from scenarios.simulation.simulate import check_scenario, run_folder, simulate

SEEDS = (11, 12, 13, 14, 15)
CHOOSING = (101, 102)
_SCENARIO = [
    'federation.silos=["a","b","c","d","e"]', "federation.min_silos=5", "rounds=10",
    'model={kind="mlp", hidden=[]}', "data.partition.label_concentration=0.2",
    "data.partition.size_concentration=1000.0", "data.partition.min_records=120",
    "training.momentum=0.0", "training.keep_optimizer_state=false", "training.local_steps=10",
    "privacy.expected_batch_size=60", "privacy.sample_rate=0.25", "privacy.epsilon=3.0",
]  # fmt: skip
PRIVACY = {"epsilon 3": [], "no privacy": ['privacy.baseline="no-noise-no-clip"']}
_RATES = (0.1, 0.3, 1.0, 3.0)
CANDIDATES: dict[str, list[list[str]]] = {
    "FedAvg": [[f"training.learning_rate={rate}"] for rate in _RATES],
    "FedAdam": [
        [
            f"training.learning_rate={rate}",
            "federation.strategy=fedadam",
            f"federation.strategy_options={{eta = {eta}}}",
        ]
        for rate, eta in itertools.product((0.3, 1.0), (0.03, 0.1))
    ],
    "FedProx": [
        [f"training.learning_rate={rate}", f"training.proximal={mu}"]
        for rate, mu in itertools.product((0.3, 1.0), (0.1, 0.5))
    ],
}


def accuracy(settings: list[str], seed: int) -> float:
    """Return the held-out accuracy of one run."""
    scenario = read_scenario("digits", [*_SCENARIO, *settings, f"seed={seed}"])
    with TemporaryDirectory() as folder, run_folder(scenario, Path(folder) / "run") as run_dir:
        summary = simulate(scenario, check_scenario(scenario), "in-process", "cpu", run_dir, nullcontext())
    return float(summary["metrics"]["accuracy"])


def chosen(strategy: str, privacy: list[str]) -> tuple[list[str], float]:
    """Return the candidate with the best mean accuracy on the seeds for choosing, and that accuracy."""
    found = [
        (statistics.mean(accuracy([*privacy, *candidate], seed) for seed in CHOOSING), candidate)
        for candidate in CANDIDATES[strategy]
    ]
    best, candidate = max(found, key=lambda one: one[0])
    return candidate, best


def main() -> None:
    """Choose, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    found = []
    for strategy, privacy in itertools.product(CANDIDATES, PRIVACY):
        candidate, best = chosen(strategy, PRIVACY[privacy])
        runs = [accuracy([*PRIVACY[privacy], *candidate], seed) for seed in SEEDS]
        mean, spread = statistics.mean(runs), statistics.stdev(runs)
        found.append({"strategy": strategy, "privacy": privacy, "settings": candidate, "chosen_at": best, "runs": runs})
        if not as_json:
            each = " ".join(f"{one:.3f}" for one in runs)
            print(f"{strategy}, {privacy}: {mean:.3f} +- {spread:.3f} ({each}); {', '.join(candidate)}", flush=True)
    if as_json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
