"""The scenarios of fields learn what they are said to learn, in small forms, with noise that repeats itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fedmodel as fm

SMALL: dict[str, tuple[list[str], str, float]] = {
    # By scenario: its small form, a figure, and what the answer of the majority, or of chance, has of it.
    "heart": (["rounds=10"], "accuracy", 130 / 252),
    "credit": (["rounds=10"], "average-precision", 0.3),
    "survival": (["rounds=15"], "concordance", 0.5),
}


def figures(name: str, settings: list[str], folder: Path) -> dict[str, Any]:
    """Return a run's figures; all silos train in one process, whose sums are those of a masked run."""
    settings = [*settings, "encryption={}", "privacy.noise=seeded-unsafe"]
    return fm.simulate(name, settings, engine="vectorised", out=folder, progress=False).figures


@pytest.mark.parametrize("name", SMALL)
def test_a_field_learns_under_privacy_and_more_without(name: str, tmp_path: Path) -> None:
    small, figure, known = SMALL[name]
    private = figures(name, small, tmp_path / "private")
    free = figures(name, [*small, 'privacy.baseline="no-noise-no-clip"'], tmp_path / "free")
    assert known + 0.1 < private[figure] <= free[figure] + 0.05
    assert private["loss"] > free["loss"]
