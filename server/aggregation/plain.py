"""Rounds in which the server sees every update, and averages them or has the strategy combine them.

Shapes: P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fedmodel import wire
from fedmodel.config import TRAINING, FederationConfig
from fedmodel.errors import ProtocolError
from server.aggregation._loop import Aggregation, Asked, Mean, Taking
from server.aggregation._sums import check_enough

MODE: Final = "off"


class Rounds(Aggregation[wire.TrainReply]):
    """Every update is seen; fewer than `min_silos` of them fail a round closed."""

    def __init__(self, taking: Taking) -> None:
        super().__init__(taking)
        self._updates: dict[str, NDArray[np.float32]] = {}
        self._number = 0

    def _open(self, number: int, cohort: list[str]) -> Asked:
        self._updates, self._number = {}, number
        return Asked(dict.fromkeys(cohort, ()))

    def _read(self, reply: Message) -> wire.TrainReply:
        return wire.read_train_reply(reply)

    def _add(self, silo: str, answer: wire.TrainReply) -> None:
        self._updates[silo] = answer.update_P

    def _close(self) -> Mean:
        federation = self._counting
        updates, self._updates = self._updates, {}
        check_enough(len(updates), federation.min_silos)
        combine = self.taking.combine
        # A job besides training asks for the sum over all silos, whatever the strategy.
        if combine is not None and self.taking.scenario.job_of(self._number) == TRAINING:
            return Mean(combine(updates), tuple(updates))
        return Mean(average_updates(updates, federation), tuple(updates))


def average_updates(updates: Mapping[str, NDArray[np.float32]], federation: FederationConfig) -> NDArray[np.float32]:
    """Return the weighted mean of the silos' updates, shape `(P,)`, summed in float64 in order of names.

    Weights are the scenario's public ones, never how many records a silo holds.

    Args:
        updates: By silo, all of one length.
        federation: Holds the public weights.

    Raises:
        ProtocolError: When there is no update.
    """
    if not updates:
        raise ProtocolError("a round without updates has no average")
    total_P = np.zeros(len(next(iter(updates.values()))), dtype=np.float64)
    for silo in sorted(updates):
        total_P += federation.weight(silo) * updates[silo].astype(np.float64)
    return (total_P / sum(federation.weight(silo) for silo in updates)).astype(np.float32)
