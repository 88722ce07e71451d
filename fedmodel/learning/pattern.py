"""What of an update a silo sends in a round: all of it, or a part by a public random pattern that every silo has alike.

    kind    federation      what leaves                                                     put back
    share   update_share    K of the P words (`fedmodel.learning.random_places`)            times P / K
    rank    update_rank     each matrix times r orthonormal columns                         times n / r, for n columns
                            (`fedmodel.learning.random_bases`)

A pattern is a linear map that follows from the scenario's seed and the round, so that nobody sends it, and sums, masks
and means are of the words that are sent alone (Konecny et al. 2016, "Federated Learning: Strategies for Improving
Communication Efficiency", sections 2 and 3).

Guarantees, of each kind:
- every party that has the same scenario has the same pattern, whatever its library: it is drawn from AES in counter
  mode, not from a generator that another version may draw otherwise;
- what the server puts back is right on average over patterns: its expected value is the mean of whole updates;
- what the pattern leaves out of an update does not leave the silo, in this round or later, with one exception: where
  `training.keep_optimizer_state` lets the optimiser's state cross rounds, momentum is made of whole noised gradients,
  and a later update, of another pattern, has a part of what this one left out.

It costs no privacy. What is left out is a part of an update that is differentially private as a whole, and was charged
for as a whole; which part is left out depends on no record. What an optimiser's state brings later is of the same
noised gradients. For the same reason it saves no privacy.

Does NOT keep the average error small: the variance that leaving words out adds is P / K - 1, or n / r - 1 of each
matrix, times the squared length of the mean, noise of privacy included. No silo keeps the rest of an update
to send it later, as error feedback does: that would be a state which a later round's update depends on, and which would
have to be taken back with a charge that a person voids.

Shapes: P words of an update, K of them that are sent.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import TRAINING, Scenario, scenario_from_json
from fedmodel.errors import ConfigError, ProtocolError
from fedmodel.learning import random_bases, random_places
from fedmodel.learning.random_bases import Shapes
from fedmodel.seeds import derive_seed


class Pattern(Protocol):
    """A public linear map from the P words of an update to the K that are sent, and back."""

    @property
    def sent(self) -> int:
        """K."""

    @property
    def digest(self) -> bytes:
        """A hash of it, which masks are bound to: silos of different patterns do not mask together."""

    def take(self, update_P: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the words that are sent, shape `(K,)`."""

    def put(self, mean_K: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an estimate of the whole mean, shape `(P,)`, which is right on average over patterns."""


def check_pattern(scenario: Scenario, size: int) -> None:
    """Refuse a rank at which a model's updates would be sent whole.

    Args:
        scenario: What is to be done.
        size: P, how many parameters its model has.

    Raises:
        ConfigError: When each matrix has no more columns than that.
    """
    rank = scenario.federation.update_rank
    if rank is not None and words_sent(scenario, size) == size:
        raise ConfigError(
            f"federation.update_rank = {rank} makes no update smaller: no parameter of the model is a matrix of more"
            " columns than that; take a smaller rank, or leave it out"
        )


def words_sent(scenario: Scenario, size: int) -> int:
    """Return K, how many words leave of an update of P; all of them where nothing else is said.

    Raises:
        ProtocolError: When the scenario's model has not P parameters.
    """
    federation = scenario.federation
    if federation.update_rank is not None:
        return random_bases.words_sent(federation.update_rank, _shapes(scenario, size))
    return random_places.words_sent(federation.update_share, size)


def noise_grows(scenario: Scenario, size: int) -> tuple[float, float]:
    """Return how much larger the variance of noise is as it is put back: on average over the P words, and at most.

    Raises:
        ProtocolError: When the scenario's model has not P parameters.
    """
    federation = scenario.federation
    if federation.update_rank is not None:
        return random_bases.noise_grows(federation.update_rank, _shapes(scenario, size))
    grown = size / random_places.words_sent(federation.update_share, size)
    return grown, grown


def pattern_of(scenario: Scenario, round_number: int, size: int) -> Pattern | None:
    """Return a round's pattern, None where updates are sent whole; answers to jobs besides training always are.

    Args:
        scenario: Says what of an update is sent, and the seed; without a seed it is that of 0.
        round_number: From 1.
        size: P.

    Raises:
        ProtocolError: When the scenario's model has not P parameters.
    """
    federation, seed = scenario.federation, scenario.seed or 0
    if not federation.sends_part or scenario.job_of(round_number) != TRAINING:
        return None
    if federation.update_rank is not None:
        drawn_from = derive_seed(seed, "update-basis", round_number)
        return random_bases.drawn(federation.update_rank, _shapes(scenario, size), drawn_from)
    kept = random_places.words_sent(federation.update_share, size)
    return random_places.drawn(kept, size, derive_seed(seed, "update-pattern", round_number))


def _shapes(scenario: Scenario, size: int) -> Shapes:
    """Return the shapes of the parameters that P words are of, in their order."""
    found = _shapes_of(scenario.json_text)
    if (words := random_bases.words_of(found)) != size:
        raise ProtocolError(f"a vector of {size} words does not fit a model of {words} parameters")
    return found


@lru_cache(maxsize=4)
def _shapes_of(scenario_json: str) -> Shapes:
    """Build a scenario's model without memory where it can be, and return its trainable parameters' shapes."""
    from fedmodel.learning.models import parameter_shapes  # which imports torch, and a message may train nothing

    scenario = scenario_from_json(scenario_json)
    return parameter_shapes(scenario.model, scenario.data.shape)


def forget_shapes() -> None:
    """Forget the shapes of models, where code that a scenario names may be another by now."""
    _shapes_of.cache_clear()
