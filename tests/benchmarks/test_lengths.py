"""What the benchmark of lengths counts, on texts that can be counted by hand, and that it times the same sums."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmarks.test_adapters import laid_out

_FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(_FOLDER))
    return importlib.import_module("lengths")


def test_padding_is_what_stands_past_texts_that_are_cut(benchmark: ModuleType) -> None:
    share, packed, cut = benchmark.padding(np.array([4, 8, 100]), 16, (4, 8))
    assert share == pytest.approx((12 + 8) / 48)
    assert packed == pytest.approx(48 / 28)
    assert cut == pytest.approx(48 / (4 + 8 + 16))


def test_texts_are_counted_whole_and_read_cut(benchmark: ModuleType, tmp_path: Path) -> None:
    laid_out(tmp_path)  # such as "fine day 7", between two tokens of the base's own
    assert set(benchmark.counts(tmp_path).tolist()) == {5}
    x_N, y_N = benchmark.records(tmp_path, 4, 6)
    assert x_N["tokens"].shape == (6, 4)
    assert len(y_N) == 6


def test_both_pipelines_have_the_same_sum(benchmark: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
    laid_out(tmp_path)
    monkeypatch.setattr(benchmark, "_TARGETS", ("query",))
    x_N, y_N = benchmark.records(tmp_path, 16, 9)
    whole, cut = (benchmark.pipeline(tmp_path, 16, cuts) for cuts in ((), (4, 8)))
    assert [x["tokens"].shape[1] for x, _ in cut.batches(x_N, y_N, np.arange(9))] == [8, 8]
    one, other = (torch.cat([part.reshape(-1) for part in own.of(x_N, y_N, np.arange(9))]) for own in (whole, cut))
    assert torch.allclose(one, other, atol=1e-5)
    assert float(one.abs().max()) > 1e-3
