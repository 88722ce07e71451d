"""What a round of many silos costs trained side by side, beside a plain loop over the same silos in the same run.

    python benchmarks/stacked.py [--silos 100 1000] [--json]

A network of 10, 64, 32 and 1 units; 64 records a silo, lots of 16 on average, ten local steps. The plain loop trains
one silo after the other with torch alone, on lots of the same sizes, without clip and noise. Figures are CPU seconds of
all threads, which hang less on what else a machine does than a clock's; a round is then that over the cores at best.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.config import Scenario, read_scenario
from fedmodel.data import silo_records
from fedmodel.learning import vectors
from fedmodel.learning.inputs import tensors
from fedmodel.learning.models import build_model, training_losses
from fedmodel.secagg import FRESH
from scenarios.simulation.stacked_trainer import Stacked

CPU = torch.device("cpu")
STEPS = 10
TEXT = """
name = "many"
summary = "many silos of one small network"
rounds = 2
seed = 5
[federation]
silos = [{silos}]
[model]
kind = "mlp"
hidden = [64, 32]
[training]
loss = "cross-entropy"
optimizer = "sgd"
learning_rate = 0.1
local_steps = {steps}
[privacy]
unit = "record"
max_grad_norm = 1.0
delta = 1e-4
noise_multiplier = 2.0
sample_rate = 0.25
expected_batch_size = 16
[data]
source = "synthetic"
records = {records}
features = 10
held_out = 0.02
reference_range = [-2.0, 2.0]
[data.partition]
kind = "iid"
"""


def scenario_of(silos: int, *settings: str) -> Scenario:
    """Return a federation of so many silos."""
    names = ", ".join(f'"silo-{number:05d}"' for number in range(silos))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "many.toml"
        file.write_text(TEXT.format(silos=names, steps=STEPS, records=silos * 66), encoding="utf-8")
        return read_scenario(str(file), settings)


def cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a piece of work."""
    started = time.process_time()
    work()
    return time.process_time() - started


def plain_loop(scenario: Scenario, model_P: NDArray[np.float32]) -> None:
    """Train each silo by itself, by torch alone."""
    module = build_model(scenario.model, scenario.data.shape, 0)
    generator, losses = np.random.default_rng(0), training_losses(scenario.training, scenario.data.shape)
    for silo in scenario.federation.silos:
        vectors.load(module, model_P)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        x_N, y_N = tensors(silo_records(scenario, silo), CPU)
        assert isinstance(x_N, torch.Tensor)
        for _ in range(STEPS):
            lot = torch.from_numpy(np.flatnonzero(generator.random(len(y_N)) < 0.25))
            optimizer.zero_grad()
            (losses(module(x_N[lot]), y_N[lot]).sum() / 16).backward()
            optimizer.step()
        vectors.flatten(module)


def measured(silos: int) -> dict[str, float]:
    """Return the CPU seconds of a round of each, in turn, the least of three."""
    private, bare = scenario_of(silos), scenario_of(silos, "privacy.baseline=no-noise-no-clip")
    fast = scenario_of(silos, "privacy.noise=experiment")
    model_P = vectors.flatten(build_model(private.model, private.data.shape, 1))
    trainers = {
        "record-level DP-SGD": Stacked(private, CPU),
        "with noise of an experiment": Stacked(fast, CPU),
        "no privacy": Stacked(bare, CPU),
    }
    names = private.federation.silos
    found: dict[str, list[float]] = {name: [] for name in (*trainers, "plain loop, no privacy")}
    for number in range(1, 4):
        for name, trainer in trainers.items():
            model_P = model_P + np.float32(1e-3)  # another model, which is measured anew
            found[name].append(cpu_s(lambda: trainer.round(min(number, 2), names, model_P, FRESH)))  # noqa: B023
        found["plain loop, no privacy"].append(cpu_s(lambda: plain_loop(bare, model_P)))  # noqa: B023
    return {name: round(min(seconds), 3) for name, seconds in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--silos", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = {silos: measured(silos) for silos in asked.silos}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if asked.json:
        print(json.dumps({"cpu_s_per_round": rows, "peak_mb": peak_mb}))
        return
    for silos, row in rows.items():
        print(f"{silos} silos: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in row.items()))
    print(f"peak memory {peak_mb} MB")


if __name__ == "__main__":
    main()
