"""The rows of a field: trained over silos, trained centrally by plain Opacus, and one answer for all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fedmodel as fm
from fedmodel import plans
from fedmodel.config import read_scenario
from fedmodel.data.own import settled
from fedmodel.data.records import Records
from fedmodel.kinds.shape import SURVIVAL
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import objective
from fields.field import Field, Scores, records_of


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


def central(field: Field, how: tuple[float, int, float], settings: list[str], times_the_noise: float = 1.0) -> Scores:
    """Return the figures of the same model, trained on all silos' records together by plain Opacus, in full lots.

    Args:
        field: Whose.
        how: Learning rate, steps and clip.
        settings: Overrides of the scenario, epsilon among them.
        times_the_noise: How much of the noise that this epsilon asks for is added.
    """
    scenario = settled(read_scenario(field.scenario, settings))
    held_out, silos = records_of(scenario)
    train = Records.joined(silos)
    rate, steps, clip = how
    losses = objective(scenario.data.shape, scenario.training.loss).losses
    module = build_model(scenario.model, scenario.data.shape, seed=scenario.seed or 0)
    optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=scenario.training.momentum)
    data = _Records(torch.from_numpy(train.x_NF), torch.from_numpy(train.y_N))
    lots: Any = DataLoader(data, batch_size=len(train), shuffle=True, collate_fn=tuple)
    if scenario.privacy.baseline is None:
        noise = times_the_noise * plans.noise_multiplier(scenario.plan(scenario.federation.silos[0]))
        run = _private(field, _Run(module, optimizer, _Mean(losses), lots), noise, clip)
    else:
        run = _Run(module, optimizer, _Mean(losses), nullcontext(lots))
    with run.lots as parts:
        for _ in range(steps):
            for x_BF, y_B in parts:
                run.optimizer.zero_grad()
                run.loss(run.module(x_BF), y_B).backward()
                run.optimizer.step()
    return field.score(scenario, held_out, outputs(module, held_out.x_NF))


@dataclass(frozen=True)
class _Run:
    """What a loop trains with; the loss is that of a part of a lot, and lots come when they are entered."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Tensor, Tensor], Any]
    lots: Any


def _private(field: Field, plain: _Run, noise: float, clip: float) -> _Run:
    """Return the same by Opacus, whose lots come in parts that are added up."""
    engine, given = PrivacyEngine(), {"noise_multiplier": noise, "max_grad_norm": clip}
    given |= {"module": plain.module, "optimizer": plain.optimizer, "data_loader": plain.lots}
    loss = plain.loss
    if field.ghost:
        given |= {"criterion": loss, "grad_sample_mode": "ghost"}
        module, optimizer, loss, lots = engine.make_private(**given)
    else:
        module, optimizer, lots = engine.make_private(**given)
    parts = BatchMemoryManager(data_loader=lots, max_physical_batch_size=field.at_once, optimizer=optimizer)
    return _Run(module, optimizer, loss, parts)


class _Records(TensorDataset):
    """Records that are taken by all their places at once, which one by one takes longer than a step."""

    def __getitems__(self, places: list[int]) -> tuple[Tensor, ...]:
        return tuple(tensor[places] for tensor in self.tensors)


class _Mean:
    """The mean loss of records, or each record's, by the word that Opacus sets for its two passes."""

    def __init__(self, losses: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.losses, self.reduction = losses, "mean"

    def __call__(self, output_BK: Tensor, target_B: Tensor) -> Tensor:
        each_B = self.losses(output_BK, target_B)
        return each_B.mean() if self.reduction == "mean" else each_B


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
