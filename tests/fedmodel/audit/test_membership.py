"""Membership inference: figures by hand, models that leak and models that cannot, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from fedmodel.audit import membership
from fedmodel.audit.membership import Attack, measured, rmia_scores
from fedmodel.config import Scenario, read_scenario
from fedmodel.data import Records, held_out_records, silo_records
from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from fedmodel.kinds.models.cnn import CnnConfig
from fedmodel.kinds.models.mlp import MlpConfig
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import objective
from fedmodel.learning.tasks.classification import cross_entropy
from fedmodel.seeds import derive_seed
from tests.bases import CLASSES, LENGTH, config_of, make_base

SHAPE = DataShape((20,), 2)
WIDE = MlpConfig(kind="mlp", hidden=(64,))
AIM = objective(SHAPE, "cross-entropy")


def made(count: int, seed: int) -> Records:
    """Records whose labels say nothing about them: whatever a model knows of a label, it has learned by heart."""
    rng = np.random.default_rng(seed)
    x_NF = rng.normal(size=(count, 20)).astype(np.float32)
    return Records(x_NF, rng.integers(0, 2, count), np.arange(count))


def trained(records: Records, seed: int) -> nn.Module:
    return membership.train_reference(WIDE, AIM, records, seed)


def both(module: nn.Module, members: Records, others: Records, reference: nn.Module) -> tuple[Attack, Attack]:
    return (
        membership.loss_threshold(module, AIM, members, others, 1e-3),
        membership.rmia(module, AIM, members, others, reference, others, 1e-3),
    )


def test_a_model_that_learned_by_heart_is_found_out() -> None:
    members, others = made(60, 1), made(400, 2)
    loss, ratio = both(trained(members, 1), members, others, trained(made(60, 3), 2))
    assert (loss.name, ratio.name) == ("loss-threshold", "rmia")
    error = math.sqrt((60 + 400 + 1) / (12 * 60 * 400))  # of an attack that guesses
    for attack in (loss, ratio):
        assert attack.auc > 0.5 + 5 * error
        assert attack.epsilon_estimate > 0.5
    assert loss.auc > 0.8


def test_a_model_that_never_saw_the_members_tells_nothing() -> None:
    runs, m, o = 4, 150, 100
    aucs = []
    for seed in range(runs):
        members, others = made(m, 10 * seed), made(o, 10 * seed + 1)
        module, reference = trained(made(80, 10 * seed + 2), seed), trained(made(80, 10 * seed + 3), seed + 1)
        aucs.append([attack.auc for attack in both(module, members, others, reference)])
    error = math.sqrt((m + o + 1) / (12 * m * o) / runs)
    assert np.abs(np.mean(aucs, axis=0) - 0.5).max() < 5 * error


def test_the_population_may_be_the_others() -> None:
    # Exchangeable ratios, over and over: that the others are in the population too must not tell on them.
    rng = np.random.default_rng(1)
    runs, m, o = 2_000, 20, 20
    aucs = []
    for _ in range(runs):
        in_M, out_O = rng.random(m), rng.random(o)
        aucs.append(measured("rmia", rmia_scores(in_M, out_O), rmia_scores(out_O, out_O), 0.0).auc)
    assert abs(np.mean(aucs) - 0.5) < 5 * math.sqrt((m + o + 1) / (12 * m * o) / runs)


def test_rmia_is_the_published_formula() -> None:
    model_N, reference_N = np.array([0.9, 0.5, 0.0, 0.35]), np.array([0.6, 0.5, 0.3, 0.1])
    model_Z, reference_Z = np.array([0.5, 0.8, 0.0, 0.99, 0.2]), np.array([0.5, 0.9, 0.2, 0.1, 0.4])
    a = 0.3

    def prior(reference: float) -> float:
        with_x = a * reference + 1 - a
        return (with_x + reference) / 2

    expected = []
    for model, reference in zip(model_N, reference_N, strict=True):
        counted = 0.0
        for z_model, z_reference in zip(model_Z, reference_Z, strict=True):
            ratio, z_ratio = model / prior(reference), z_model / prior(z_reference)
            counted += 1.0 if ratio > z_ratio else 0.5 if ratio == z_ratio else 0.0
        expected.append(counted / len(model_Z))
    ratio_N, ratio_Z = (
        membership.likelihood_ratio(model, reference)
        for model, reference in ((model_N, reference_N), (model_Z, reference_Z))
    )
    assert rmia_scores(ratio_N, ratio_Z).tolist() == expected == [0.8, 0.5, 0.1, 0.6]
    assert ratio_N[0] == pytest.approx(0.9 / (0.65 * 0.6 + 0.35))


def test_figures_by_hand() -> None:
    # 100 others: 0 ... 99. Members: ten over all of them, ten on the highest other, the rest below everything.
    out_O = np.arange(100.0)
    in_M = np.concatenate([np.full(10, 200.0), np.full(10, 99.0), np.full(30, -1.0)])
    attack = measured("loss-threshold", in_M, out_O, 0.05)
    assert attack.auc == pytest.approx((10 * 100 + 10 * 99.5) / (50 * 100))
    # One false alarm of a hundred is 1%, and allowed.
    assert attack.tpr_at_1pct_fpr == 20 / 50
    # One false alarm counts as ten.
    assert attack.epsilon_estimate == pytest.approx(math.log((20 / 50 - 0.05) / 0.1))
    assert measured("rmia", in_M, np.repeat(out_O, 2), 0.05).tpr_at_1pct_fpr == 20 / 50
    assert measured("rmia", in_M, out_O[50:], 0.05).tpr_at_1pct_fpr == 10 / 50
    assert measured("rmia", in_M, np.append(out_O, 99.0), 0.05).tpr_at_1pct_fpr == 10 / 50


def test_of_scores_that_are_all_one_nothing_follows() -> None:
    attack = measured("rmia", np.zeros(30), np.zeros(25), 1e-3)
    assert attack == Attack("rmia", 0.5, 0.0, 0.0)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_the_estimate_of_randomised_response_is_its_epsilon(epsilon: float) -> None:
    rng = np.random.default_rng(2)
    rate, count = math.exp(epsilon) / (1 + math.exp(epsilon)), 100_000
    in_M, out_O = (rng.random(count) < rate).astype(float), (rng.random(count) >= rate).astype(float)
    error = math.sqrt((1 - rate) / rate / count + rate / (1 - rate) / count)  # of the log of the ratio of two rates
    assert measured("rmia", in_M, out_O, 0.0).epsilon_estimate == pytest.approx(epsilon, abs=5 * error)


@pytest.mark.parametrize("rising", [np.exp, np.cbrt, lambda values: 3 * values - 7])
def test_only_the_order_of_scores_counts(rising: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> None:
    rng = np.random.default_rng(3)
    in_M, out_O = rng.normal(0.5, size=200).round(1), rng.normal(size=150).round(1)
    assert measured("rmia", rising(in_M), rising(out_O), 1e-3) == measured("rmia", in_M, out_O, 1e-3)
    attack = measured("rmia", in_M, out_O, 1e-3)
    assert measured("rmia", -out_O, -in_M, 1e-3).auc == pytest.approx(attack.auc)
    assert 0.5 < attack.auc < 1


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_losses_are_those_of_each_record(loss: str, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = DataShape((20,), classes)
    aim = objective(shape, loss)
    module = build_model(MlpConfig(kind="mlp", hidden=(8,), dropout=0.5), shape, seed=1).train()
    records = made(7, 4)
    records = Records(records.x_NF, np.arange(7) % classes, records.person_N)
    monkeypatch.setattr(membership, "rows_at_once", lambda _: 3)
    found_N = membership.record_losses(module, aim, records)
    assert module.training  # and dropout, which has no source of masks here, was off
    module.eval()
    x_NF, y_N = torch.from_numpy(records.x_NF), torch.from_numpy(records.y_N)
    alone = [float(aim.losses(module(x_NF[i : i + 1]).double(), y_N[i : i + 1]).detach()) for i in range(7)]
    assert found_N == pytest.approx(alone, rel=1e-5)
    own_N = membership.true_probabilities(module, aim, records)
    assert ((own_N >= 0) & (own_N <= 1)).all()
    if loss == "cross-entropy":
        assert own_N == pytest.approx(np.exp(-found_N))


def test_a_loss_of_ones_own_is_attacked_by_whatever_training_takes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that looks at values and computes in the model's own type, as `torch.vmap` and float64 forbid."""

    def losses(output_BK: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
        weight = torch.ones(1, dtype=output_BK.dtype) * (label_B[0].item() >= 0)
        assert output_BK.dtype == torch.float32
        return weight * functional.binary_cross_entropy_with_logits(output_BK[:, 0], label_B.float(), reduction="none")

    own_code.hand_over("script:losses", losses)
    monkeypatch.setattr(membership, "rows_at_once", lambda _: 3)
    records, module = made(7, 4), build_model(MlpConfig(kind="mlp", hidden=(8,)), SHAPE, seed=1)
    found_N = membership.record_losses(module, objective(SHAPE, "script:losses"), records)
    own_code.close()
    assert found_N.dtype == np.float64
    assert found_N == pytest.approx(membership.record_losses(module, AIM, records), rel=1e-5)


def test_a_reference_model_is_made_again_alike() -> None:
    records = made(50, 5)
    torch.manual_seed(1)
    first = trained(records, 1)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    again, other = trained(records, 1), trained(records, 2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(first.parameters(), other.parameters(), strict=True))
    x_NF, y_N = torch.from_numpy(records.x_NF), torch.from_numpy(records.y_N)
    assert float(cross_entropy(first(x_NF), y_N).mean().detach()) < 0.1


@pytest.mark.parametrize("records", [30, 0])
def test_a_reference_model_hangs_on_no_number_of_threads(records: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return cross_entropy(output, label)

    before = torch.get_num_threads()
    watching = replace(AIM, losses=watched)
    torch.set_num_threads(2)
    try:
        with pytest.raises(ConfigError) if not records else nullcontext():
            membership.train_reference(WIDE, watching, made(30, 5).take(np.arange(records)), 1)
        assert set(seen) == ({1} if records else set())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_reference_model_is_of_2000_records_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        seen.append(len(label))
        return cross_entropy(output, label)

    membership.train_reference(MlpConfig(kind="mlp"), replace(AIM, losses=watched), made(2_500, 6), 1)
    assert set(seen) == {2_000}


def test_a_reference_model_of_texts_takes_the_next_few_at_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def watched(output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        seen.extend(label.tolist())
        return cross_entropy(output, label)

    monkeypatch.setattr(membership, "_STEPS", 3)
    monkeypatch.setattr(membership, "_MOST_REFERENCE_TOKENS", 3 * LENGTH * 4 + LENGTH)  # of four texts at a step
    texts = {name: np.ones((6, LENGTH), dtype=np.int64) for name in ("tokens", "mask")}
    records = Records(texts, np.array([0, 1, 2, 0, 1, 1]), np.arange(6))
    config = config_of(make_base(tmp_path / "base", "encoder"), "sequence-classification", targets=["query"])
    aim = replace(objective(CLASSES, "cross-entropy"), losses=watched)
    module = membership.train_reference(config, aim, records, 1)
    assert seen == [0, 1, 2, 0, 1, 1, 0, 1, 2, 0, 1, 1]
    untrained = dict(build_model(config, CLASSES, derive_seed(1, "reference")).named_parameters())
    for name, one in module.named_parameters():  # adapters move, and nothing of the base does
        assert torch.equal(one, untrained[name]) != ("lora_" in name or "classifier" in name), name


def test_architectures_with_dropout_and_convolutions_have_reference_models() -> None:
    digits = read_scenario("digits")
    records = held_out_records(digits).take(np.arange(40))
    config, aim = (
        CnnConfig(kind="cnn", channels=(4,), groups=2, dropout=0.3),
        objective(digits.data.shape, "cross-entropy"),
    )
    module = membership.train_reference(config, aim, records, 1)
    assert membership.true_probabilities(module, aim, records).mean() > 0.5


@pytest.fixture
def hospitals() -> Scenario:
    return read_scenario("hospitals")


def test_hospitals_are_attacked_with_records_that_are_nobodys_twice(
    hospitals: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    members, held_out = silo_records(hospitals, "aurora"), held_out_records(hospitals)
    persons = Records(held_out.x_NF, held_out.y_N, np.arange(len(held_out)) % 50)
    used: dict[str, Records] = {}
    make, attack = membership.train_reference, membership.rmia

    def train(*given: object) -> nn.Module:
        used["reference"] = given[2]  # type: ignore[assignment]
        return make(*given)  # type: ignore[arg-type]

    def attacked(*given: object) -> Attack:
        used["members"], used["others"], used["population"] = given[2], given[3], given[5]  # type: ignore[assignment]
        assert given[6] == 1e-3
        return attack(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(membership, "train_reference", train)
    monkeypatch.setattr(membership, "rmia", attacked)
    module = build_model(hospitals.model, hospitals.data.shape, seed=1)
    found = membership.attacks(module, hospitals, members, persons)
    assert [one.name for one in found] == ["loss-threshold", "rmia"]
    assert used["members"] is members
    assert used["population"] is used["others"]
    assert len(used["reference"]) + len(used["others"]) == len(held_out)
    assert min(len(used["reference"]), len(used["others"])) > len(held_out) / 3
    assert not set(used["reference"].person_N) & set(used["others"].person_N)
    assert found == membership.attacks(module, hospitals, members, persons)
    assert all(0 <= one.epsilon_estimate <= math.log(len(used["others"]) / 10) for one in found)


@pytest.mark.parametrize(
    ("members", "others", "delta", "words"),
    [
        (np.zeros(19), np.zeros(20), 0.0, "at least 20 members"),
        (np.zeros(20), np.zeros(19), 0.0, "at least 20 records that are not members"),
        (np.full(20, np.nan), np.zeros(20), 0.0, "not a number"),
        (np.zeros(20), np.append(np.zeros(19), np.nan), 0.0, "not a number"),
        (np.zeros(20), np.zeros(20), 1.0, "delta"),
    ],
)
def test_scores_that_say_nothing_are_refused(
    members: NDArray[np.float64], others: NDArray[np.float64], delta: float, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        measured("rmia", members, others, delta)
    assert "\n" not in str(refused.value)
    measured("rmia", np.zeros(20), np.zeros(20), 0.0)


def test_models_and_records_that_say_nothing_are_refused(hospitals: Scenario) -> None:
    module = build_model(WIDE, SHAPE, seed=1)
    nothing = made(30, 1).take(np.array([], dtype=np.intp))
    with pytest.raises(ConfigError, match="no records"):
        membership.record_losses(module, AIM, nothing)
    with pytest.raises(ConfigError, match="needs records"):
        membership.train_reference(WIDE, AIM, nothing, 1)
    nn.init.constant_(next(module.parameters()), math.inf)
    with pytest.raises(ConfigError, match="not finite") as refused:
        membership.loss_threshold(module, AIM, made(30, 1), made(30, 2), 0.0)
    assert "\n" not in str(refused.value)
    few = held_out_records(hospitals).take(np.arange(39))
    with pytest.raises(ConfigError, match="held_out"):
        membership.attacks(module, hospitals, silo_records(hospitals, "aurora"), few.take(np.arange(38)))
    linear = build_model(hospitals.model, hospitals.data.shape, seed=1)
    assert len(membership.attacks(linear, hospitals, silo_records(hospitals, "aurora"), few)) == 2


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_a_model_of_numbers_is_attacked_by_how_far_off_it_is(loss: str) -> None:
    """Targets say nothing about records, so that whatever a model knows of one, it has learned by heart."""
    shape = DataShape((20,), 0, target=ArrayShape(()), task="regression", target_range=(0.0, 1.0))
    aim = objective(shape, loss)

    def drawn(seed: int) -> Records:
        rng = np.random.default_rng(seed)
        x_NF, y_N = rng.normal(size=(60, 20)), rng.uniform(-1, 1, 60)
        return Records(x_NF.astype(np.float32), y_N.astype(np.float32), np.arange(60))

    members, others = drawn(1), drawn(2)
    module, reference = (membership.train_reference(WIDE, aim, records, 1) for records in (members, drawn(3)))
    for attack in (
        membership.loss_threshold(module, aim, members, others, 1e-3),
        membership.rmia(module, aim, members, others, reference, others, 1e-3),
    ):
        assert attack.auc > 0.75
    likely_N = membership.true_probabilities(module, aim, others)
    assert ((likely_N > 0) & (likely_N <= 1)).all()
    assert likely_N == pytest.approx(np.exp(-membership.record_losses(module, aim, others)), rel=1e-5)
