"""The model of a run as a module, for what its vector cannot do: be begun, be measured, be saved.

Shapes: P parameters, of the model and, in an audited run, of the block of its canaries beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.errors import ProtocolError
from fedmodel.learning import vectors
from fedmodel.learning.averaging import outcome
from fedmodel.learning.jobs import State
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import objective
from fedmodel.privacy.events import Event
from fedmodel.seeds import derive_seed
from server.metrics import evaluate
from server.run_files import RunFiles
from server.usefulness import usefulness


class ServedModel:
    """A module for vectors of one run. It holds nothing of the run but what it was last given.

    Args:
        scenario: Whose model.
        place: Where the run's things lie.
        device: Where the model is measured.
        beside: Parameters behind the model's own, which train with it and are measured and saved with nothing.
    """

    def __init__(self, scenario: Scenario, place: RunFiles, device: torch.device, beside: int = 0) -> None:
        self._scenario, self._place, self._device, self._beside = scenario, place, device, beside
        self._test = place.held_out(scenario)
        seed = derive_seed(scenario.seed or 0, "model")
        self._module = build_model(scenario.model, scenario.data.shape, seed)
        self._aim = objective(scenario.data.shape, scenario.training.loss)

    def begin(self) -> NDArray[np.float32]:
        """Return what a run begins from: random by the scenario's seed, or of the file that it names.

        Raises:
            ConfigError: When that file is gone, another, or does not fit.
        """
        self._place.begin(self._module, self._scenario)
        return np.concatenate([vectors.flatten(self._module), np.zeros(self._beside, dtype=np.float32)])

    def measure(self, vector_P: NDArray[np.float32]) -> dict[str, float]:
        """Return the figures of a vector on the server's own records.

        Raises:
            ProtocolError: When it does not fit, or anything is not finite.
        """
        self._load(vector_P)
        return evaluate(self._module, self._aim, self._test, self._device, self._scenario.metrics)

    def save(self, state: State, round_number: int) -> None:
        """Write the run's model after a round, whole or not at all."""
        self._load(self._outcome(state))
        self._place.save(self._module, self._scenario, round_number)

    def judge(self, state: State, charges: Mapping[str, Event]) -> None:
        """Write down at a run's end whether its model is of use; nothing where no round was whole."""
        self._load(self._outcome(state))
        self._place.judge(usefulness(self._module, self._scenario, self._test, charges, self._device))

    def _outcome(self, state: State) -> NDArray[np.float32]:
        return outcome(state.vector_P, state.kept, self._scenario.training.ema_decay)

    def _load(self, vector_P: NDArray[np.float32]) -> None:
        if not np.isfinite(vector_P).all():
            raise ProtocolError("a model or an update holds NaN or infinity; it is not used")
        self._module.to(self._device)
        vectors.load(self._module, vector_P[: len(vector_P) - self._beside])
