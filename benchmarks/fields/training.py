"""The rows of a field: trained over silos, trained centrally by plain Opacus, and one answer for all."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fedmodel as fm
from fedmodel import plans
from fedmodel.config import read_scenario
from fedmodel.data.own import settled
from fedmodel.data.records import Records
from fedmodel.kinds.shape import SURVIVAL
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import objective
from fields.field import Field, Level, Scores, records_of


def outputs(module: nn.Module, x_NF: NDArray[Any]) -> NDArray[Any]:
    """Return what a model returns for records, `(N, K)`."""
    with torch.no_grad():
        found: NDArray[Any] = module(torch.from_numpy(np.ascontiguousarray(x_NF))).numpy()
    return found


def federated(field: Field, settings: list[str]) -> Scores:
    """Return a run's figures on its held-out records."""
    with TemporaryDirectory() as folder:
        run = fm.simulate(field.scenario, settings, engine="vectorised", out=Path(folder) / "run", progress=False)
        scenario = read_scenario(str(run.folder / "scenario.toml"))
        held_out, _ = records_of(scenario)
        return field.score(scenario, held_out, outputs(run.model, held_out.x_NF))


def central(field: Field, level: Level, settings: list[str], times_the_noise: float = 1.0) -> Scores:
    """Return the figures of the same model, trained on all silos' records together by plain Opacus, in full lots.

    Args:
        field: Whose.
        level: Of which epsilon.
        settings: Overrides of the scenario.
        times_the_noise: How much of the noise that this epsilon asks for is added.
    """
    scenario = settled(read_scenario(field.scenario, settings))
    held_out, silos = records_of(scenario)
    train = Records.joined(silos)
    rate, steps, clip = level.central
    losses = objective(scenario.data.shape, scenario.training.loss).losses
    module = build_model(scenario.model, scenario.data.shape, seed=scenario.seed or 0)
    momentum = scenario.training.momentum
    optimizer: torch.optim.Optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=momentum)
    data = TensorDataset(torch.from_numpy(train.x_NF), torch.from_numpy(train.y_N))
    lots: Any = DataLoader(data, batch_size=len(train), shuffle=True)
    if scenario.privacy.baseline is None:
        noise = times_the_noise * plans.noise_multiplier(scenario.plan(scenario.federation.silos[0]))
        module, optimizer, lots = PrivacyEngine().make_private(
            module=module, optimizer=optimizer, data_loader=lots, noise_multiplier=noise, max_grad_norm=clip
        )
        in_parts: Any = BatchMemoryManager(
            data_loader=lots, max_physical_batch_size=field.at_once, optimizer=cast("DPOptimizer", optimizer)
        )
    else:
        in_parts = nullcontext(lots)
    with in_parts as parts:
        for _ in range(steps):
            for x_BF, y_B in parts:
                optimizer.zero_grad()
                losses(module(x_BF), y_B).mean().backward()
                optimizer.step()
    return field.score(scenario, held_out, outputs(module, held_out.x_NF))


def majority(field: Field, settings: list[str]) -> Scores:
    """Return the figures of the best answer that is one for all, by the training records."""
    scenario = read_scenario(field.scenario, settings)
    held_out, silos = records_of(scenario)
    target_N, classes = Records.joined(silos).y_N, scenario.data.shape.classes
    if scenario.data.shape.task == SURVIVAL:
        interval_N, seen_N = target_N // 2, target_N % 2
        events_K = np.bincount(interval_N[seen_N == 1], minlength=classes)
        without_K = np.array([(interval_N > interval).sum() for interval in range(classes)])
        one_K = np.log(events_K / without_K)
    else:
        logits_K = np.log(np.bincount(target_N, minlength=classes) / len(target_N))
        one_K = logits_K if classes > 2 else logits_K[1:] - logits_K[:1]
    return field.score(scenario, held_out, np.tile(one_K, (len(held_out), 1)))
