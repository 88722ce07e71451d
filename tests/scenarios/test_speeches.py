"""The scenario `speeches` on made-up speeches of the same form: it learns, under privacy too."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import fedmodel as fm
from fedmodel.config import read_scenario
from fedmodel.data import held_out_records, silo_records
from tests.speeches import write_speeches

_SMALL = [
    "encryption={}", "privacy.noise=seeded-unsafe", "rounds=12", "federation.strategy_options.eta=0.05",
    "privacy.sample_rate=0.4", "privacy.expected_batch_size=20", "training.max_physical_batch=32", "model.hidden=[16]",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speeches(tmp_path_factory.mktemp("texts") / "data")


def bits(folder: Path, out: Path, *settings: str) -> float:
    """Return how many bits a byte of what was held out takes."""
    said = [*_SMALL, f"data.folder={folder}", *settings]
    run = fm.simulate("speeches", said, engine="vectorised", out=out, progress=False)
    return math.log2(run.figures["perplexity"])


def test_the_next_byte_is_learnt_under_privacy_and_better_without(folder: Path, tmp_path: Path) -> None:
    private = bits(folder, tmp_path / "private", "privacy.epsilon=20.0")
    free = bits(folder, tmp_path / "free", 'privacy.baseline="no-noise-no-clip"')
    assert free < private < _by_shares(folder) - 0.3


def _by_shares(folder: Path) -> float:
    """Return the bits for each byte of a model without a context, which knows the shares of what is held out itself."""
    held_out = held_out_records(read_scenario("speeches", [f"data.folder={folder}"]))
    assert isinstance(held_out.x, dict)
    count_V = np.bincount(held_out.x["tokens"][:, 1:].ravel())
    share_V = count_V[count_V > 0] / count_V.sum()
    return float(-(share_V * np.log2(share_V)).sum())


def test_each_speaker_has_what_that_speaker_said_first(folder: Path) -> None:
    scenario = read_scenario("speeches", [f"data.folder={folder}"])
    sizes = {silo: len(silo_records(scenario, silo)) for silo in scenario.federation.silos}
    assert set(sizes.values()) == {61}  # two texts of 31 records, of which one is held out
