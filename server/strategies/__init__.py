"""Strategies: who trains in a round, and what the mean of their updates does to the model; a file each.

A kind is one file here, whose `make(scenario)` returns a `Strategy`. `federation.strategy` names it, as its file is
named, with a hyphen for each underscore.

Guarantee: a strategy costs no privacy. `apply` is given means that are differentially private already, each charged at
every silo that is in it, and what it computes from them, over however many rounds, is post-processing (Dwork and Roth
2014, proposition 2.1). `choose` is given the names of silos and the number of the round, and never a record or anything
made of one. No privacy amplification is claimed for who was chosen: each silo's ledger is charged as if everyone knew.

Does NOT protect the model from silos that lie: a strategy sees one mean and no single update. What is released is the
model after every round, so that a strategy hides nothing that its state holds.

Shapes: P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.errors import ConfigError
from fedmodel.system.kinds import kinds, not_known


class Strategy(Protocol):
    """Who trains in a round, and what a mean does to the model. It holds nothing that changes: its state is bytes.

    The state that `apply` returns is kept in the run's checkpoint with the model, and given to the next `apply`, in
    this process or, where that was killed, in another one. Before the first mean it is empty. A round that failed
    closed has no mean, and leaves model and state as they were.
    """

    def choose(self, silos: Sequence[str], number: int) -> list[str]:
        """Return which of these silos train.

        Args:
            silos: Those that can still be asked, in any order.
            number: The round; under secure aggregation the first one of its window, in which a cohort stays.

        Returns:
            Silos among them, each once: the same for the same arguments, in any process.
        """

    def apply(
        self, model_P: NDArray[np.float32], mean_P: NDArray[np.float32], state: bytes
    ) -> tuple[NDArray[np.float32], bytes]:
        """Return the model after a round, and the state for the next.

        Args:
            model_P: The model that was trained from, float32 of shape `(P,)`; not changed.
            mean_P: The weighted mean of the updates, float32 of shape `(P,)`; not changed.
            state: What the last call returned; empty at first.
        """


KINDS = kinds(__name__)
"""By name, the modules of the strategies."""


def strategy_of(scenario: Scenario) -> Strategy:
    """Return the strategy that a scenario names.

    Raises:
        ConfigError: When there is none of that name.
    """
    name = scenario.federation.strategy
    if name not in KINDS:
        raise ConfigError(f"federation.strategy: {not_known('strategy', name, KINDS)}")
    strategy: Strategy = KINDS[name].make(scenario)
    return strategy
