"""Silos trained side by side: the rounds that they train one by one, to 1e-9 in float64, by the same lots and noise.

The reference is `fedmodel.learning.jobs.training`'s loop in float64, put together here from its own parts: lots and
noise of a silo's seed, book-keeping's clipped sum, the mechanism's release, torch's optimiser.

In float32 what two orders of a sum differ by is mostly rounded away with the sum, to the coarse grid. Where it is not,
a coordinate of one step differs by one unit of that grid, over the divisor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from fedmodel import plans
from fedmodel.config import Scenario, read_scenario
from fedmodel.data import silo_records
from fedmodel.errors import DataError, PrivacyError
from fedmodel.learning import vectors
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import physical_batch
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.inputs import tensors
from fedmodel.learning.models import build_model, training_losses
from fedmodel.learning.optimizers import build_optimizer, hold_near, keep_state, recall_state
from fedmodel.privacy import grid
from fedmodel.privacy.events import clip_of
from fedmodel.privacy.mechanisms import mechanism_of
from fedmodel.privacy.noise import SeededNoise
from fedmodel.secagg import FRESH
from fedmodel.seeds import derive_seed
from scenarios.runs.summary import read_metrics
from scenarios.simulation import stacked_trainer
from scenarios.simulation.prepared import prepare
from scenarios.simulation.stacked_trainer import Stacked, why_not
from scenarios.simulation.stacks_over_cores import trainer_of
from scenarios.simulation.trainers import OneByOne
from tests.conftest import TINY

CPU = torch.device("cpu")
SEEDED = ["privacy.noise=seeded-unsafe", "model.hidden=[3]"]
UNEQUAL = [
    'data.partition={kind="dirichlet",label_concentration=0.5,size_concentration=0.5,min_records=12}',
    "data.records=200",
]
CASES = {
    "unequal": [*UNEQUAL],
    "empty lots": ["privacy.sample_rate=0.01", "privacy.expected_batch_size=1", "training.local_steps=6"],
    "momentum kept": ["training.momentum=0.9", "training.keep_optimizer_state=true"],
    "adam kept": ["training.optimizer=adam", "training.keep_optimizer_state=true", "training.learning_rate=0.05"],
    "adagrad": ["training.optimizer=adagrad", "training.learning_rate=0.05"],
    "proximal": ["training.proximal=0.3", "training.local_steps=4"],
    "figures of their own": [
        "privacy.silo.north={noise_multiplier=3.0}", "privacy.silo.west={sample_rate=0.25,expected_batch_size=5}",
    ],
    "epochs": ["training.local_steps=", "training.local_epochs=2", "privacy.silo.west={sample_rate=0.25}"],
    "persons": [
        "privacy.unit=person", "privacy.max_records=2", "data.records_per_person=3", "data.partition.min_records=5",
    ],
    "weights": ["training.class_weights=[0.5,2.0]", 'model.activation="tanh"'],
    "large lots": ["privacy.sample_rate=1.0", "training.max_physical_batch=8"],
    "no noise": ["privacy.baseline=no-noise"],
    "no noise, no clip": ["privacy.baseline=no-noise-no-clip"],
}  # fmt: skip


def scenario_of(file: Path, *settings: str) -> Scenario:
    return read_scenario(str(file), [*SEEDED, "rounds=2", *settings])


class Reference:
    """Trains one silo after the other in float64."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.carried: dict[str, dict[str, dict[str, NDArray[Any]]]] = {}

    def update(self, silo: str, number: int, model_P: NDArray[np.float32], *, fresh: bool) -> NDArray[np.float64]:
        scenario, shape = self.scenario, self.scenario.data.shape
        plan = scenario.plan(silo)
        event = plans.planned_event(plan).times(plan.steps_per_round)
        pipeline = plans.pipeline_event(plan, event)
        clip = math.inf if event.max_grad_norm is None else clip_of(pipeline)
        unit = grid.fine(pipeline.noise_multiplier * clip_of(pipeline))
        module = build_model(scenario.model, shape, 0)
        losses = training_losses(scenario.training, shape)
        gradients = BookKeeping(
            module, losses, max_grad_norm=clip, unit=unit, rows=physical_batch(event.denominator, 16)
        )
        vectors.load(module, model_P)
        module.double()
        optimizer = build_optimizer(scenario.training, module, scenario.training.rate(number, scenario.rounds))
        noise = SeededNoise(derive_seed(scenario.seed or 0, "unsafe-noise", silo, number))
        release = partial(mechanism_of(event).release, event.times(1), noise=noise)
        sgd = DpSgd(
            gradients,
            optimizer,
            lambda sums: [one.double() for one in release(sums)],
            noise_multiplier=pipeline.noise_multiplier,
        )
        carried = {} if fresh else self.carried.get(silo, {})
        recall_state(optimizer, carried)
        x_N, y_N = tensors(silo_records(scenario, silo), CPU)
        hold_near(optimizer, scenario.training.proximal)
        assert isinstance(x_N, torch.Tensor)
        for _ in range(event.steps):
            sgd.step(x_N.double(), y_N, noise.lot(len(y_N), event.sample_rate))
        if scenario.training.keep_optimizer_state:
            keep_state(optimizer, self.carried.setdefault(silo, {}))
        after_P = torch.cat([one.detach().reshape(-1) for one in module.parameters()]).numpy()
        return np.asarray(after_P - model_P.astype(np.float64))


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_a_round_in_float64_is_that_of_silos_by_themselves_to_1e_9(
    settings: Sequence[str], tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = scenario_of(tiny_file, *settings)
    assert why_not(scenario) == ""
    trainer, reference = Stacked(scenario, CPU, torch.float64), Reference(scenario)
    # From here on nothing but the update itself is float32: a mean that is rounded to it could be rounded two ways.
    monkeypatch.setattr("fedmodel.privacy.release.divided", lambda sum_, denominator: sum_.double() / denominator)
    model_P = vectors.flatten(build_model(scenario.model, scenario.data.shape, 7))
    lineage = FRESH
    # The second round is without a silo, as one is that vanished, and begins from what the first one left.
    for number, silos in ((1, scenario.federation.silos), (2, scenario.federation.silos[1:])):
        trained = trainer.round(number, silos, model_P, lineage)
        assert trained.failed == {}
        assert trained.updates.keys() == set(silos)
        for silo in silos:
            expected_P = reference.update(silo, number, model_P, fresh=lineage == FRESH)
            assert np.abs(trained.updates[silo] - expected_P).max() <= 1e-9 + 2.0**-24 * np.abs(expected_P).max()
            assert np.abs(expected_P).max() > 1e-4
        model_P = model_P + np.mean(list(trained.updates.values()), axis=0)
        lineage = b"of the first round"


@pytest.mark.parametrize(
    "settings",
    [
        [*UNEQUAL, "training.local_steps=4"],
        ["faults.train=0.3", "federation.tolerated_failures=9", "federation.min_silos=1", "federation.cohort=2"],
    ],
    ids=["unequal", "vanished"],
)
def test_a_run_is_that_of_the_apps_with_ledgers_within_what_its_grid_rounds(
    settings: Sequence[str], tmp_path: Path
) -> None:
    (tmp_path / "s.toml").write_text(TINY, encoding="utf-8")
    models, lines = [], []
    for engine in ("in-process", "vectorised"):
        prepared = prepare(tmp_path / "s.toml", [*SEEDED, "rounds=3", *settings], engine, "cpu", tmp_path / engine)
        with prepared.held() as run_dir:
            prepared.run(run_dir, nullcontext())
        models.append(load_file(run_dir / "model.safetensors"))
        lines.append(
            [(line["cohort"], line["dropouts"], line["summed"]) for line in read_metrics(run_dir / "metrics.jsonl")]
        )
        assert "one by one" not in (run_dir / "server.log").read_text(encoding="utf-8")
    assert lines[0] == lines[1]
    scenario = prepared.scenario
    plan = scenario.plan("north")
    unit = grid.coarse(2.0) / plan.expected_batch_size
    bound = scenario.training.learning_rate * plan.steps * 2 * unit
    for name, values in models[0].items():
        assert np.abs(values - models[1][name]).max() <= bound


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["model.dropout=0.5"], "Dropout"),
        (["model.weight_standardization=true"], "StandardisedLinear"),
        (["data.augment={views=2,noise=0.1}"], "augment"),
        (['training.precision="bf16"'], "rounds in each layer"),
    ],
)
def test_what_is_not_trained_side_by_side_is_trained_one_by_one_and_said(
    settings: Sequence[str], why: str, tiny_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scenario = scenario_of(tiny_file, *settings)
    assert why in why_not(scenario)
    with caplog.at_level("INFO", logger="server.trainers"):
        assert isinstance(trainer_of(scenario, CPU), OneByOne)
    assert why in caplog.text
    assert isinstance(trainer_of(scenario_of(tiny_file), CPU), Stacked)


def test_noise_of_the_operating_system_is_each_silos_own_at_the_deviation_that_is_charged(
    tiny_file: Path, same_bytes: None
) -> None:
    settings = ["privacy.sample_rate=1e-9", "privacy.noise=os", "model.hidden=[40]", "training.local_steps=1"]
    scenario = read_scenario(str(tiny_file), [*SEEDED, *settings])
    model_P = vectors.flatten(build_model(scenario.model, scenario.data.shape, 0))
    updates = Stacked(scenario, CPU).round(1, scenario.federation.silos, model_P, FRESH).updates
    std = scenario.training.learning_rate * 2.0 * 1.0 / 10
    found = np.stack([updates[silo] for silo in scenario.federation.silos]) / std
    count = found.shape[1]
    assert np.abs((found**2).mean(axis=1) - 1).max() < 5 * math.sqrt(2 / count)
    assert np.abs(np.corrcoef(found) - np.eye(3)).max() < 5 / math.sqrt(count)


def test_lots_are_each_silos_own_records_at_the_rate_that_is_charged(same_bytes: None) -> None:
    begin_S, size_S = np.array([5000, 0, 2000]), np.array([4000, 0, 3000])
    draws = stacked_trainer._Together(stacked_trainer.OsNoise(), begin_S, size_S)
    lot_L, owner_L = draws.lots(1.0)
    assert lot_L.tolist() == [*range(5000, 9000), *range(2000, 5000)]
    assert owner_L.tolist() == [0] * 4000 + [2] * 3000
    lot_L, owner_L = draws.lots(0.3)
    for silo in (0, 2):
        own_L = lot_L[owner_L == silo]
        assert bool(((own_L >= begin_S[silo]) & (own_L < begin_S[silo] + size_S[silo])).all())
        assert abs(len(own_L) - 0.3 * size_S[silo]) < 5 * math.sqrt(0.21 * size_S[silo])
    assert set(owner_L.tolist()) == {0, 2}


def test_a_silo_of_more_records_than_sums_are_exact_for_is_refused_by_name(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "MOST_RECORDS", 20)
    with pytest.raises(DataError, match=r"^silo north has more than 20 records"):
        Stacked(scenario_of(tiny_file), CPU)


def broken(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda layers, clip, counts: 3 * real(layers, clip, counts)


def test_a_stack_is_measured_before_the_first_round_and_at_each_model(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedmodel.learning import stacked

    scenario = scenario_of(tiny_file)
    trainer = Stacked(scenario, CPU)
    model_P = vectors.flatten(build_model(scenario.model, scenario.data.shape, 0))
    silos, measured = scenario.federation.silos, stacked_trainer.check_received
    counting = mock.Mock(side_effect=measured)
    monkeypatch.setattr(stacked_trainer, "check_received", counting)
    for part in (silos[:1], silos[1:]):  # of one round, asked for apart
        assert trainer.round(1, part, model_P, FRESH).failed == {}
    assert counting.call_count == 1
    monkeypatch.setattr(stacked, "clip_factors", broken(stacked.clip_factors))
    model_P += np.float32(1e-3)  # in place: another model all the same
    trained = trainer.round(2, silos, model_P, FRESH)
    assert trained.updates == {}
    assert trained.failed == dict.fromkeys(scenario.federation.silos, PrivacyError.code)
    with pytest.raises(PrivacyError, match="moves the clipped sum"):
        Stacked(scenario, CPU)
