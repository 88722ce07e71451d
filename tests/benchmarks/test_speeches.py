"""What the benchmark of the next byte compares is measured on what was held out, by noise as it says."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmodel.config import read_scenario
from tests.speeches import write_speeches

_FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(_FOLDER))
    return importlib.import_module("speeches")


class _Follows(nn.Module):
    """Logits by which the next token is likely the one a step on, whatever is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return 3.0 * nn.functional.one_hot((tokens + 1) % 257, 257).float() + 0.0 * self.idle


def test_a_central_figure_is_the_mean_over_all_held_out_bytes_but_a_records_first(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in write_speeches(tmp_path, size=200).iterdir():
        path.write_text("abcz" * 50)
    monkeypatch.setattr(benchmark, "build_model", lambda *_, **__: _Follows())
    settings = [f"data.folder={tmp_path}", "encryption={}", "rounds=1", "data.length=4", "privacy.sample_rate=0.5"]
    found = benchmark.central([*settings, 'privacy.baseline="no-noise-no-clip"'])
    total = math.log2(256 + math.e**3)
    assert found == pytest.approx(total - 2 / 3 * 3 / math.log(2))  # of b, c and z the first two were likely


def test_counts_of_pairs_know_what_counts_of_bytes_do_not(benchmark: ModuleType) -> None:
    text_NT = np.tile([5, 6], (200, 8))
    found = benchmark.counts(text_NT, text_NT[:3])
    assert found["uniform"] == 8.0
    assert found["one byte"] == pytest.approx(1.0, abs=0.05)  # 8 of 15 are one of them, and 257 were seen .1 times more
    assert found["two bytes"] == pytest.approx(0.0, abs=0.05)


def test_the_same_noise_is_that_of_all_silos_together(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def central(settings: list[str], times_the_noise: float = 1.0) -> Any:
        seen.append(times_the_noise)

    monkeypatch.setattr(benchmark, "central", central)
    for who in (benchmark.CENTRAL, benchmark.CENTRAL_AS_NOISY):
        benchmark.trained(who, read_scenario("speeches"), [])
    assert seen == [1.0, math.sqrt(10)]
