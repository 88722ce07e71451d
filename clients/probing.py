"""A silo's side of an audited run: canaries into its data, and what its noised sums are on them.

Order, which the audit's gauges rest on: the time is taken before any record is read; each lot is noted as it was drawn;
each noised gradient is read when the inner optimiser is about to step, which is after clip, sum, noise and division. A
second optimiser of the same kind takes the same steps on a copy of the model as received, from the gradients that were
read: what it ends with is what may leave, and how far the update is from that is noted. A round that is to begin fresh
begins with a fresh state, and any other with the one that the second optimiser ended the round of that lineage with;
from a state that is neither, no update is explained.

The gradients are read on every tensor: on the canaries' block as they are, on all others only for how much noise is in
them, which is told by the clipped sum that they were made of and never kept.

Only a simulated silo takes part in an audited run (`clients.policy`).

Shapes: N records, F features, K canaries, P parameters, L tensors of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from clients.hiding import lineage_left
from clients.silo import Silo
from fedmodel.canaries.observations import Release, coins, keep, keep_state, known_states
from fedmodel.canaries.probes import (
    Probed,
    block_of,
    chosen_coordinates,
    loss_canaries,
    on_canaries,
    on_model,
    with_probes,
)
from fedmodel.data.named import together
from fedmodel.learning import vectors
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.inputs import Inputs, tensors
from fedmodel.learning.lengths import of_shape
from fedmodel.learning.optimizers import build_optimizer, hold_near
from fedmodel.privacy import grid
from fedmodel.privacy.events import Event, clip_of
from fedmodel.secagg import FRESH
from fedmodel.wire import TrainRequest

_TOLD: Final = 2.0**20  # steps of the grid, exact in float32; a division rounds by 2^-24 of a value, a sixteenth of one


def observers(silo: Silo, request: TrainRequest) -> list[Probing]:
    """Return what looks on while a silo trains on a request: nothing, but in an audited run."""
    return [] if silo.scenario.audit is None else [Probing(silo, request)]


class Probing:
    """The canaries of one round at one silo, an observer of its training (`fedmodel.learning.jobs.Observer`).

    Args:
        silo: Whose.
        request: The round and the global model.
    """

    def __init__(self, silo: Silo, request: TrainRequest) -> None:
        self._silo, self._request = silo, request
        self.wrapper = block_of(silo.scenario)

    def ready(self) -> None:
        """Refuse a round whose coins were not tossed, or are not as they were written."""
        coins(self._silo.folder)

    def begin(self, event: Event) -> None:
        """Take the time, and begin to note."""
        # As a ledger writes time: a charge of the same millisecond counts as before.
        self._started = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._event = event
        self._coins_K = coins(self._silo.folder)
        self._lots: list[NDArray[np.intp]] = []
        self._sums: list[NDArray[np.float32]] = []
        self._noise: list[list[float]] = []
        self._followed: list[NDArray[np.float32]] = []
        self._is_known = True
        self._off_grid = 0.0
        self._ended: Callable[[], str] = str
        self._sizes: list[int] = []
        self._records = 0
        self._block = 0
        self._again = nn.ParameterList()

    def add(self, x_N: Inputs, y_N: Tensor) -> tuple[Inputs, Tensor]:
        """Return the silo's records and targets with the canaries that are in its data."""
        if self.wrapper is not None:
            scenario = self._silo.scenario
            lengths = of_shape(scenario.model.cut_to, scenario.data.shape)
            x_N, y_N = with_probes(x_N, y_N, self._coins_K, self._event.max_records, lengths)
        else:
            made = loss_canaries(self._silo.scenario, self._silo.name)
            chosen = np.repeat(np.flatnonzero(self._coins_K), self._event.max_records)
            more_x, more_y = tensors(made.take(chosen), y_N.device)
            x_N = together([x_N, more_x], torch.cat)
            y_N = torch.cat([y_N, more_y])
        self._records = len(y_N)
        return x_N, y_N

    def watch(self, sgd: DpSgd) -> None:
        """Note each noised gradient from here on, and take each step again."""
        module, parameters, optimizer = sgd.gradients.module, sgd.gradients.parameters, sgd.optimizer
        self._block = module.block.weight.numel() if isinstance(module, Probed) else 0
        self._sizes = [parameter.numel() for parameter in parameters]
        self._again = nn.ParameterList([nn.Parameter(parameter.detach().clone()) for parameter in parameters])
        vectors.load(self._again, self._request.model_P)
        training, rounds = self._silo.scenario.training, self._silo.scenario.rounds
        again = build_optimizer(training, self._again, training.rate(self._request.round_number, rounds))
        # What a silo kept of an earlier round may be what the audit's own copy ended that round with, and nothing else.
        named = self._request.lineage
        allowed = [state_digest(again)] if named == FRESH else known_states(self._silo.folder, named)
        self._is_known = state_digest(optimizer) in allowed
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        hold_near(again, training.proximal)
        self._ended = partial(state_digest, again)
        followed_S = torch.from_numpy(chosen_coordinates(self._silo.scenario, sum(self._sizes) - self._block))

        def note(*_: Any) -> None:
            for parameter, copied in zip(parameters, self._again, strict=True):
                copied.grad = None if parameter.grad is None else parameter.grad.detach().clone()
            added = [
                _noised(parameter, self._event.denominator) - sum_.reshape(-1)
                for parameter, sum_ in zip(parameters, sgd.sums, strict=True)
            ]
            self._off_grid = max(self._off_grid, *(_off_grid(one, self._event) for one in parameters))
            self._noise.append([float((one**2).mean()) for one in added])
            own_P = torch.cat([*(one.cpu() for one in (added[:-1] if self._block else added))])
            self._followed.append(own_P[followed_S].float().numpy())
            if self._block:  # the block is last
                self._sums.append(_noised(parameters[-1], self._event.denominator).float().cpu().numpy())
            again.step()

        optimizer.register_step_pre_hook(note)

    def drew(self, lot: NDArray[np.intp]) -> None:
        """Note a lot."""
        self._lots.append(lot)

    def end(self, update_P: NDArray[np.float32]) -> None:
        """Write down what was seen of the round."""
        scenario, model_P = self._silo.scenario, self._request.model_P
        sums = np.stack(self._sums) if self._sums else np.empty((len(self._lots), 1), dtype=np.float32)
        canaries, update_S = max(self._block - 1, 0), on_model(scenario, update_P)
        expected_P = vectors.flatten(self._again) - model_P
        keep(
            self._silo.folder,
            Release(
                round_number=self._request.round_number,
                started=self._started,
                sums_TK=sums[:, :canaries],
                poison_T=sums[:, -1] if self._block else np.empty(0, dtype=np.float32),
                lots_T=np.array([len(lot) for lot in self._lots], dtype=np.int64),
                drawn_N=np.bincount(np.concatenate(self._lots), minlength=self._records).astype(np.int64),
                update_K=on_canaries(scenario, update_P),
                model_K=on_canaries(scenario, model_P),
                noise_TL=np.array(self._noise).reshape(len(self._noise), len(self._sizes)),
                sizes_L=np.array(self._sizes, dtype=np.int64),
                update_S=update_S,
                model_S=on_model(scenario, model_P),
                followed_TS=np.stack(self._followed) if self._followed else np.empty((0, len(update_S)), np.float32),
                unexplained=_relative(update_P, expected_P) if self._is_known else math.inf,
                off_grid=self._off_grid,
            ),
        )
        keep_state(self._silo.folder, lineage_left(self._silo, self._request), self._ended())


def _noised(parameter: nn.Parameter, denominator: int) -> Tensor:
    """Return a noised sum, float64 and flat, from the gradient that was made of it; NaN where there is none."""
    if parameter.grad is None:
        return torch.full((parameter.numel(),), torch.nan, dtype=torch.float64, device=parameter.device)
    return parameter.grad.detach().reshape(-1).double() * denominator


def _off_grid(parameter: nn.Parameter, event: Event) -> float:
    """Return how far a tensor's noised sums are from their grid, in steps of it, where float32 can tell."""
    steps_P = _noised(parameter, event.denominator) / grid.coarse(event.noise_multiplier * clip_of(event))
    told_P = steps_P[steps_P.abs() <= _TOLD]
    return float((told_P - told_P.round()).abs().max()) if len(told_P) else 0.0


def state_digest(optimizer: Optimizer) -> str:
    """Return a hash of an optimiser's state, in hexadecimal; a fresh one's is of nothing."""
    found = sha256()
    for index, held in sorted(optimizer.state_dict()["state"].items()):
        for name, value in sorted(held.items()):
            if isinstance(value, Tensor):
                found.update(f"{index}.{name}\0".encode() + value.detach().cpu().numpy().tobytes())
    return found.hexdigest()


def _relative(update_P: NDArray[np.float32], expected_P: NDArray[np.float32]) -> float:
    """Return the largest difference over the largest entry of what was expected; NaN where one is not a number."""
    difference = float(np.abs(update_P.astype(np.float64) - expected_P).max(initial=0.0))
    return difference / max(float(np.abs(expected_P).max(initial=0.0)), 1e-30) if difference else 0.0
