"""The scenarios of fields learn what they are said to learn, in small forms, with noise that repeats itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fedmodel as fm
from fedmodel.config import read_scenario
from fedmodel.kinds.models.scorecard import ScorecardConfig
from fedmodel.kinds.signed import Signed

INSURANCE = Path(__file__).parents[2] / "docs" / "examples" / "insurance.toml"
SMALL: dict[str, tuple[list[str], str, float]] = {
    # By scenario: its small form, a figure, and what the answer of the majority, or of chance, has of it.
    "heart": (["rounds=10"], "accuracy", 130 / 252),
    "credit": (["rounds=10"], "average-precision", 0.3),
    "survival": (["rounds=15"], "concordance", 0.5),
    str(INSURANCE): (["rounds=15", "training.learning_rate=3.0"], "recall@0.2", 0.2),
}


def figures(name: str, settings: list[str], folder: Path) -> dict[str, Any]:
    """Return a run's figures; all silos train in one process, whose sums are those of a masked run."""
    settings = [*settings, "encryption={}", "privacy.noise=seeded-unsafe"]
    return fm.simulate(name, settings, engine="vectorised", out=folder, progress=False).figures


@pytest.mark.parametrize("name", SMALL, ids=lambda name: Path(name).stem)
def test_a_field_learns_under_privacy_and_more_without(name: str, tmp_path: Path) -> None:
    small, figure, known = SMALL[name]
    private = figures(name, small, tmp_path / "private")
    free = figures(name, [*small, 'privacy.baseline="no-noise-no-clip"'], tmp_path / "free")
    assert known + 0.1 < private[figure] <= free[figure] + 0.05
    assert private["loss"] > free["loss"]


def test_no_noise_turns_what_a_trained_card_declares(tmp_path: Path) -> None:
    """At an epsilon at which noise has turned some of the parameters: else this could not fail."""
    settings = ["rounds=2", "privacy.epsilon=0.3", "encryption={}", "privacy.noise=seeded-unsafe"]
    run = fm.simulate("credit", settings, engine="vectorised", out=tmp_path / "run", progress=False)
    scenario = read_scenario("credit")
    assert isinstance(scenario.model, ScorecardConfig)
    names = scenario.data.shape.names
    sign_F = torch.tensor([(name in scenario.model.rising) - (name in scenario.model.falling) for name in names])
    (card,) = (layer for layer in run.model.modules() if isinstance(layer, Signed))
    assert (card.weight * sign_F < 0).any()
    x_BF = torch.randn(20, len(names), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for feature, sign in enumerate(sign_F.tolist()):
            more_BF = x_BF.clone()
            more_BF[:, feature] += 1
            assert (sign * (run.model(more_BF) - run.model(x_BF)) >= 0).all(), names[feature]
