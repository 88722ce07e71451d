"""A silo's side of an audited run: canaries into its data, and what its noised sums are on them.

Order, which the audit's gauges rest on: the time is taken before any record is read; each lot is noted as it was drawn;
each noised gradient is read when the inner optimiser is about to step, which is after clip, sum, noise and division,
and is all that an observer of the mechanism could see.

Only a simulated silo takes part in an audited run (`clients.policy`).

Shapes: N records, F features, K canaries, P parameters.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from clients.silo import Silo
from fedmodel.audit.observations import Release, coins, keep
from fedmodel.audit.probes import Probed, loss_canaries, with_probes
from fedmodel.mechanisms import DpSgdEvent
from fedmodel.wire import TrainRequest


class Probing:
    """The canaries of one round at one silo. Make it before records are read.

    Args:
        silo: Whose.
        event: What was charged for the round.
        request: The round and the global model.
    """

    def __init__(self, silo: Silo, event: DpSgdEvent, request: TrainRequest) -> None:
        # As a ledger writes time: a charge of the same millisecond counts as before.
        self._started = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._silo, self._event, self._request = silo, event, request
        self._coins_K = coins(silo.folder)
        self._lots: list[NDArray[np.intp]] = []
        self._sums: list[NDArray[np.float32]] = []
        self._records = 0
        self._block = 0

    def add_canaries(self, x_NF: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the silo's features and labels with the canaries that are in its data."""
        audit = self._silo.scenario.audit
        if audit is not None and audit.canaries == "probe":
            x_NF, y_N = with_probes(x_NF, y_N, self._coins_K, self._event.max_records)
        else:
            made = loss_canaries(self._silo.scenario, self._silo.name)
            chosen = np.repeat(np.flatnonzero(self._coins_K), self._event.max_records)
            x_NF = torch.cat([x_NF, torch.from_numpy(made.x_NF[chosen]).to(x_NF.device)])
            y_N = torch.cat([y_N, torch.from_numpy(made.y_N[chosen]).to(y_N.device)])
        self._records = len(y_N)
        return x_NF, y_N

    def watch(self, module: nn.Module, optimizer: Optimizer) -> None:
        """Note each noised sum on the block, from here on."""
        if not isinstance(module, Probed):
            return
        weight = module.block.weight
        self._block = weight.numel()

        def note(_: Optimizer, *__: Any) -> None:
            if weight.grad is not None:
                noised_K = weight.grad.detach().reshape(-1).double() * self._event.denominator
                self._sums.append(noised_K.float().cpu().numpy())

        optimizer.register_step_pre_hook(note)

    def drew(self, lot: NDArray[np.intp]) -> None:
        """Note a lot."""
        self._lots.append(lot)

    def keep(self, update_P: NDArray[np.float32]) -> None:
        """Write down what was seen of the round."""
        block = self._block
        sums = np.stack(self._sums) if self._sums else np.empty((len(self._lots), 1), dtype=np.float32)
        canaries = max(block - 1, 0)
        keep(
            self._silo.folder,
            Release(
                round_number=self._request.round_number,
                started=self._started,
                sums_TK=sums[:, :canaries],
                poison_T=sums[:, -1] if block else np.empty(0, dtype=np.float32),
                lots_T=np.array([len(lot) for lot in self._lots], dtype=np.int64),
                drawn_N=np.bincount(np.concatenate(self._lots), minlength=self._records).astype(np.int64),
                update_K=_block_of(update_P, block),
                model_K=_block_of(self._request.model_P, block),
            ),
        )


def _block_of(vector_P: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Return a vector on the canaries' coordinates: the block is last, and the last of it is no canary's."""
    return vector_P[len(vector_P) - block : len(vector_P) - 1] if block else np.empty(0, dtype=np.float32)
