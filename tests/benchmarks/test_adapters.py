"""The rows of the benchmark of adapters differ in what they say that they differ in, and in nothing else."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fedmodel.learning.inputs import tensors
from fedmodel.learning.models import build_model
from tests.bases import make_base

_FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(_FOLDER))
    return importlib.import_module("adapters")


def laid_out(folder: Path) -> list[str]:
    """Lay a tiny base and tiny messages out as `mail.py` does, and return the settings that go with them."""
    make_base(folder / "base", "encoder")
    for part, count in (("train", 60), ("held-out", 12)):
        (folder / "mail" / part).mkdir(parents=True)
        words = {"mail": "fine day", "spam": "poor night"}
        lines = [
            {"text": f"{words[label]} {number}", "label": label, "sender": f"{part}{number}"}
            for number in range(count)
            for label in words
        ]
        (folder / "mail" / part / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    own = folder / "base" / "tokenizer.json"
    shutil.copy(own, folder / "mail" / "tokenizer.json")
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    tokenizer = f"data.tokenizer={{sha256='{digest}', vocabulary=257}}"
    return [tokenizer, "data.length=8", "model.targets=['query']", "privacy.max_grad_norm=1e6"]


def test_opacus_and_the_plain_loop_take_the_same_step_where_nothing_is_clipped_or_noised(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = benchmark.scenario_of(tmp_path, laid_out(tmp_path), 1)
    monkeypatch.setattr(benchmark.plans, "noise_multiplier", lambda _: 0.0)
    plain = build_model(scenario.model, scenario.data.shape, seed=1)
    other = copy.deepcopy(plain)
    x_N, y_N = tensors(benchmark._all(scenario), torch.device("cpu"))
    assert len(y_N) == 120
    steps = benchmark._plain_step(plain, scenario, 50), benchmark._opacus_step(other, scenario, 50)
    before = [one.detach().clone() for one in benchmark._trained(plain)]
    for _ in range(2):
        for step in steps:
            step(x_N, y_N, torch.arange(0, 120, 3))
    moved = [one - then for one, then in zip(benchmark._trained(plain), before, strict=True)]
    assert min(float(one.detach().abs().max()) for one in moved) > 0.1 * scenario.training.learning_rate
    for one, two in zip(benchmark._trained(plain), benchmark._trained(other), strict=True):
        assert torch.allclose(one, two, atol=0.05 * scenario.training.learning_rate)


def test_silos_have_one_plan_by_which_a_central_row_trains_too(benchmark: ModuleType, tmp_path: Path) -> None:
    scenario = benchmark.scenario_of(tmp_path, laid_out(tmp_path), 1)
    plans = [scenario.plan(silo) for silo in scenario.federation.silos]
    assert len({(one.steps, one.sample_rate, one.expected_batch_size) for one in plans}) == 1
    assert plans[0].steps == 24  # as the text says


def test_what_is_done_is_read_back_and_a_row_has_its_mean(benchmark: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    assert benchmark.done(path) == ()
    lines = [
        {"row": "majority", "seed": seed, "accuracy": accuracy, "auroc": 0.5, "parameters": 0, "seconds": 1.0}
        for seed, accuracy in ((11, 0.6), (12, 0.8))
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert benchmark.table(benchmark.done(path))[-1] == "| majority | 0.700 ± 0.141 | 0.500 ± 0.000 | 2 | 0 | 1 |"


def test_features_are_what_the_base_makes_of_each_message(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = laid_out(tmp_path)
    own = benchmark.scenario_of
    monkeypatch.setattr(benchmark, "scenario_of", lambda folder, more, seed: own(folder, [*settings, *more], seed))
    found = benchmark.features(str(tmp_path))
    x_NF, y_N = found["train"]
    assert x_NF.shape == (120, 32)
    assert found["test"][0].shape == (24, 32)
    assert np.isfinite(x_NF).all()
    assert float(np.ptp(x_NF, axis=0).max()) > 0
    assert set(y_N.tolist()) == {0, 1}
