"""How far one record moves a clipped sum on random hostile models, and what keeping it to the clip costs.

    python benchmarks/sensitivity.py [--models 1000] [--seed 0]

For every shipped scenario, and for `hospitals` with a hidden layer at limits of 7, 30 and 50 rows: an even share of the
models, each with a lot of random size and outliers of random scale, through the very pipeline of a silo. Prints the
largest movement over the clip, which is to be at most 1, and CPU milliseconds of a step of 150 records, of what is
measured at each model received, and of the preflight.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from fedmodel import plans
from fedmodel.config import builtin_scenarios, read_scenario
from fedmodel.kinds.layers import Dropout
from fedmodel.learning.conformance import cancel, conforms, fill
from fedmodel.learning.devices import use_device
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.jobs import _pipelines
from fedmodel.learning.preflight import check_received, check_sums, preflight
from fedmodel.privacy.mechanisms import mechanism_of
from fedmodel.privacy.noise import OsNoise

_RECORDS = 150
_LIMITS = (7, 30, 50)


def milliseconds(act: Callable[[], object], times: int = 5) -> float:
    """Return the least CPU time of a call, after one that is not counted."""
    act()
    least = float("inf")
    for _ in range(times):
        started = time.process_time()
        act()
        least = min(least, time.process_time() - started)
    return least * 1e3


def randomise(gradients: ClippedSum, seed: int) -> None:
    """Put a random hostile model in: any magnitude, biases of another, and units that cancel in two cases of three."""
    generator = torch.Generator().manual_seed(seed)
    size, bias, pairs = torch.rand(3, generator=generator).tolist()
    fill(gradients.parameters, generator, 2.0 ** (16 * size - 3))
    with torch.no_grad():
        for parameter in gradients.parameters:
            if parameter.dim() == 1:
                parameter.mul_(2.0 ** (12 * bias - 6))
    if pairs < 2 / 3:
        cancel(gradients.parameters, generator)


def largest(gradients: ClippedSum, scenario: str, settings: list[str], models: int, seed: int) -> tuple[float, int]:
    """Return the largest movement over the clip, and at how many models some record was not treated alike."""
    shape = read_scenario(scenario, settings).data.shape
    moved, unlike = 0.0, 0
    for number in range(models):
        randomise(gradients, seed + number)
        rng = np.random.default_rng([seed, number])
        lot = int(rng.integers(1, 2 * gradients.rows + 4))
        scale = 10 ** rng.uniform(-2, 6)
        moved = max(moved, check_sums(gradients, shape, gradients.max_grad_norm, (1.0, scale), (lot,), seed + number))
        unlike += not conforms(gradients, shape, thorough=False, seed=seed + number)
    return moved, unlike


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    device = use_device("cpu")
    hidden = ["model.hidden=[50]", "model.init=random"]
    runs: list[tuple[str, list[str]]] = [(name, []) for name in sorted(builtin_scenarios())]
    runs += [("hospitals", [*hidden, f"training.max_physical_batch={rows}"]) for rows in _LIMITS]
    share = -(-asked.models // len(runs))
    print(
        f"{'scenario':<40} {'rows':>4} {'models':>6} {'largest':>11} {'unlike':>6} {'step':>7} {'model':>7} {'once':>8}"
    )
    for name, settings in runs:
        scenario = read_scenario(name, settings)
        event = replace(plans.planned_event(scenario.plan(scenario.federation.silos[0])), steps=1)
        gradients = _pipelines.gradients_of(scenario.model_dump_json(), event, device, event.max_grad_norm)
        module, rate = gradients.module, scenario.training.learning_rate
        release = partial(mechanism_of(event).release, event, noise=OsNoise())
        optimizer = torch.optim.SGD(gradients.parameters, lr=rate)
        sgd = DpSgd(gradients, optimizer, release, noise_multiplier=event.noise_multiplier)
        for layer in module.modules():
            if isinstance(layer, Dropout):
                layer.source = OsNoise()
        shape = scenario.data.shape
        x_NF = torch.randn((_RECORDS, *shape.features))
        y_N = torch.randint(shape.classes, (_RECORDS,))
        step = milliseconds(lambda sgd=sgd, x=x_NF, y=y_N: sgd.step(x, y, np.arange(_RECORDS)))
        once = milliseconds(partial(preflight, gradients, shape, event.max_grad_norm), 1)
        model = milliseconds(partial(check_received, gradients, shape, event.max_grad_norm))
        for layer in module.modules():
            if isinstance(layer, Dropout):
                layer.eval()
        moved, unlike = largest(gradients, name, settings, share, asked.seed)
        label = " ".join([name, *(one.removeprefix("training.") for one in settings[2:])])
        print(
            f"{label:<40} {gradients.rows:>4} {share:>6} {moved:>11.9f} {unlike:>6} {step:>7.1f} {model:>7.1f}"
            f" {once:>8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
