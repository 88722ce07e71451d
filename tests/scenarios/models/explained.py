"""Models that are explained in tests: of declared columns, and built by hand, so that what they answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.config import read_scenario
from fedmodel.learning.description import Description, describe
from fedmodel.provision import scenario_hash
from scenarios.models.trained import Trained
from tests.scenarios.models.tables import SCENARIO

NAMES = ("age", "visits", "smoker", "stage")


class Of(nn.Module):
    """A model that answers by a function of a test's own."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.answer(x_BF)  # type: ignore[operator, no-any-return]


def described(folder: Path, text: str = SCENARIO, *settings: str) -> Description:
    """Describe the model of a scenario on tables."""
    (folder / "described.toml").write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
    scenario = read_scenario(str(folder / "described.toml"), settings)
    return describe(scenario, scenario_hash(scenario))


def trained(folder: Path, module: nn.Module | None = None, *settings: str, text: str = SCENARIO) -> Trained:
    """Return a model, by default with the parameters that its description begins with."""
    description = described(folder, text, *settings)
    return Trained(description, (description.built() if module is None else module).eval(), b"a model")


def patients(count: int, seed: int = 3) -> NDArray[np.float32]:
    """Scaled rows of the columns of `SCENARIO`: age, visits, smoker, and one of three stages."""
    draw = np.random.default_rng(seed)
    x_NF = np.zeros((count, 6), dtype=np.float32)
    x_NF[:, :2] = draw.uniform(-1, 1, (count, 2))
    x_NF[:, 2] = draw.choice([-1.0, 1.0], count)
    x_NF[np.arange(count), 3 + draw.integers(0, 3, count)] = 1
    return x_NF


def linear(weights: list[float], bias: float = 0.0) -> nn.Module:
    """Return a linear model of one output."""
    layer = nn.Linear(len(weights), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights]))
        layer.bias.fill_(bias)
    return nn.Sequential(nn.Flatten(), layer)
