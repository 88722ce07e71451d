"""Each loss of each task is torch's own of one record, whatever stands beside it, and goes through the preflight."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.canaries.probes import Probed, ProbedLoss, with_probes
from fedmodel.config import TrainingConfig
from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.kinds.models.mlp import MlpConfig
from fedmodel.kinds.shape import IGNORED, ArrayShape, DataShape
from fedmodel.kinds.survival import survival_shape
from fedmodel.learning.conformance import conforms, hostile
from fedmodel.learning.gradients import kind
from fedmodel.learning.inputs import ends, made_up
from fedmodel.learning.models import build_model, training_losses
from fedmodel.learning.preflight import check_sums, preflight
from fedmodel.learning.refusals import check_module
from fedmodel.learning.tasks import objective, task_of
from tests.fedmodel.learning.test_dp_sgd import clipped

NUMBER = DataShape((4,), 0, target=ArrayShape(()), task="regression", target_range=(45.0, 110.0))
NUMBERS = replace(NUMBER, target=ArrayShape((3,)))
LABELS = DataShape((4,), 3, target=ArrayShape((3,), 2), labels=("a", "b", "c"), task="multi-label")
TOKENS = DataShape(
    (), 7, inputs={"tokens": ArrayShape((6,), 7)}, target=ArrayShape((6,), 7, ignores=True), task="next-token"
)
TAGS = replace(TOKENS, task="sequence-labels")
CLASSES = DataShape((4,), 3)
TIMES = survival_shape((4,), (), (12.0, 24.0, 60.0), "months")
EVERY = [
    (shape, loss)
    for shape in (NUMBER, NUMBERS, LABELS, TOKENS, TAGS, TIMES, CLASSES, DataShape((4,), 2))
    for loss in task_of(shape).losses
]
NAMES = [f"{shape.task} {shape.outputs} {loss}" for shape, loss in EVERY]


class Attention(nn.Module):
    """Words that look at those before them, and say the next."""

    def __init__(self, words: int = 7, width: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.words = nn.Embedding(words, width)
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.out = nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        x_BTW = self.words(tokens)
        seen_TT = torch.ones(x_BTW.shape[1], x_BTW.shape[1], device=x_BTW.device).tril() == 1
        score_BTT = self.query(x_BTW) @ self.key(x_BTW).transpose(1, 2) / math.sqrt(x_BTW.shape[2])
        taken_BTT = torch.softmax(score_BTT.masked_fill(~seen_TT, -torch.inf), dim=2)
        said: Tensor = self.out(x_BTW + taken_BTT @ self.value(x_BTW))
        return said


def outputs(shape: DataShape, count: int, seed: int = 0) -> Tensor:
    size = (*shape.targets.size, shape.outputs) if shape.targets.ignores else (shape.outputs,)
    return 2 * torch.randn((count, *size), generator=torch.Generator().manual_seed(seed))


def targets(shape: DataShape, count: int, seed: int = 0) -> Tensor:
    return made_up(shape, count, torch.Generator().manual_seed(seed))[1]


@pytest.mark.parametrize(("shape", "loss"), EVERY, ids=NAMES)
def test_a_records_loss_is_its_own_whatever_stands_beside_it(shape: DataShape, loss: str) -> None:
    losses, output, target = objective(shape, loss).losses, outputs(shape, 9), targets(shape, 9)
    together = losses(output, target)
    assert together.shape == (9,)
    alone = torch.cat([losses(output[i : i + 1], target[i : i + 1]) for i in range(9)])
    assert torch.allclose(together, alone, atol=1e-6)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(losses(output[order], target[order]), together[order], atol=1e-6)
    beside = torch.where(torch.arange(9).view(-1, *[1] * (output.dim() - 1)) == 4, output, 100.0)
    assert torch.allclose(losses(beside, target)[4], together[4], atol=1e-6)
    output.requires_grad_()
    (slope,) = torch.autograd.grad(losses(output, target)[4], output)
    assert not slope[torch.arange(9) != 4].any()


def test_losses_of_numbers_are_torchs_in_halves_of_the_range() -> None:
    output, target = outputs(NUMBER, 50), targets(NUMBER, 50)
    theirs = {"mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.huber_loss}
    for name, reference in theirs.items():
        expected = reference(output[:, 0], target, reduction="none")
        for given in (output, output[:, 0]):  # a model may return a column, or a number for each record
            assert torch.allclose(objective(NUMBER, name).losses(given, target), expected)
        many, of = outputs(NUMBERS, 50), targets(NUMBERS, 50)
        assert torch.allclose(
            objective(NUMBERS, name).losses(many, of), reference(many, of, reduction="none").mean(dim=1)
        )


def test_the_loss_of_several_labels_is_torchs_added_up() -> None:
    output, target = outputs(LABELS, 50), targets(LABELS, 50)
    reference = functional.binary_cross_entropy_with_logits(output, target.float(), reduction="none").sum(dim=1)
    assert torch.allclose(objective(LABELS, "cross-entropy").losses(output, target), reference)


@pytest.mark.parametrize("shape", [TOKENS, TAGS], ids=["tokens", "tags"])
def test_the_loss_of_a_sequence_is_torchs_mean_over_its_own_positions_that_count(shape: DataShape) -> None:
    output, target = outputs(shape, 50), targets(shape, 50)
    target[0], target[1, 1:] = IGNORED, IGNORED
    found = objective(shape, "cross-entropy").losses(output, target)
    assert found[0] == 0
    for row in range(1, 50):
        if (target[row] != IGNORED).any():
            assert found[row] == pytest.approx(
                float(functional.cross_entropy(output[row], target[row], ignore_index=IGNORED)), rel=1e-5
            )
    output.requires_grad_()
    (slope,) = torch.autograd.grad(objective(shape, "cross-entropy").losses(output, target)[0], output)
    assert not slope.any()  # of a record in which nothing counts


def test_made_up_targets_ignore_some_positions_and_one_of_them_all() -> None:
    target = targets(TOKENS, 500)
    assert set(target.unique().tolist()) == {IGNORED, *range(7)}
    share = (target == IGNORED).double().mean()
    assert 0.4 < share < 0.6
    assert [one.unique().tolist() for one in ends(TOKENS, 3.0)] == [[0], [6], [IGNORED]]


@pytest.mark.parametrize(
    ("shape", "output", "words"),
    [
        (
            NUMBER,
            torch.zeros(5, 2),
            "regression needs 1 outputs of each of 5 records, and the model returns 5x2",
        ),
        (NUMBERS, torch.zeros(5, 1), "needs 3 outputs of each of 5 records, and the model returns 5x1"),
        (LABELS, torch.zeros(()), "the task multi-label needs 3 outputs of each of 5 records, and the model returns a"),
        (TOKENS, torch.zeros(5, 7), "needs outputs for each of 5x6 positions, and the model returns 5x7"),
        (TAGS, torch.zeros(5, 4, 7), "needs outputs for each of 5x6 positions, and the model returns 5x4x7"),
    ],
)
def test_outputs_of_another_shape_are_refused_and_not_spread_over_records(
    shape: DataShape, output: Tensor, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        next(iter(task_of(shape).losses.values()))(output, targets(shape, 5))


@pytest.mark.parametrize(
    ("shape", "loss"), [(NUMBER, "mse"), (NUMBER, "huber"), (NUMBERS, "mae"), (LABELS, "cross-entropy")]
)
def test_a_model_of_each_task_is_held_to_the_clip(shape: DataShape, loss: str) -> None:
    module = build_model(MlpConfig(kind="mlp", hidden=(4,)), shape, seed=1)
    assert module(torch.zeros(2, 4)).shape == (2, shape.outputs)
    gradients = clipped(module, losses=objective(shape, loss).losses, denominator=8)
    assert preflight(gradients, shape, 1.0) > 1


def test_an_attention_over_tokens_is_held_to_the_clip_with_positions_that_do_not_count() -> None:
    gradients = clipped(Attention(), losses=objective(TOKENS, "cross-entropy").losses, denominator=8)
    assert preflight(gradients, TOKENS, 1.0) == gradients.rows > 1
    for name in hostile(gradients.parameters, seed=3):
        assert conforms(gradients, TOKENS), name
        assert check_sums(gradients, TOKENS, 1.0, (1.0, math.nan), (1, 8, 19)) <= 1


def per_lot(output: Any, target: Tensor) -> Tensor:
    """As torch's own mean: divided by how many positions count in the lot, and so by other records' positions."""
    mean = functional.cross_entropy(output.flatten(0, 1), target.flatten(), ignore_index=IGNORED)
    return mean.expand(len(target))


def test_a_loss_that_is_divided_by_the_lots_positions_is_refused_and_else_on_one_record_at_a_time() -> None:
    """By its name, before the preflight, which leaves each record alone with it."""
    with pytest.raises(PrivacyError, match=r"training\.loss couples records"):
        check_module(lambda _seed: Attention(), per_lot, TOKENS, kind("per-sample"))
    assert preflight(clipped(Attention(), losses=per_lot, denominator=8), TOKENS, 1.0) == 1


def test_canaries_beside_sequences_write_their_own_coordinates_and_leave_records_alone() -> None:
    x, y = made_up(TOKENS, 5, torch.Generator().manual_seed(0))
    plain = clipped(Attention(), losses=objective(TOKENS, "cross-entropy").losses, denominator=8).flat(x, y)
    probed = Probed(Attention(), 3)
    gradients = clipped(
        probed, losses=ProbedLoss(objective(TOKENS, "cross-entropy").losses, 3, 1.0), denominator=8, physical=16
    )
    beside, of = with_probes(x, y, np.array([True, False, True]), 1)
    found = gradients.flat(beside, of)
    assert torch.allclose(found[:-4], plain, atol=1e-6)
    assert found[-4:].tolist() == pytest.approx([1, 0, 1, 0], abs=1e-5)
    assert preflight(gradients, TOKENS, 1.0) > 1


def test_class_weights_belong_to_one_label_of_a_record() -> None:
    weighed = TrainingConfig(
        loss="cross-entropy", optimizer="sgd", learning_rate=1.0, local_steps=1, class_weights=(1.0, 2.0, 3.0)
    )
    with pytest.raises(ConfigError, match="weigh a record by its one label, and the task is multi-label"):
        training_losses(weighed, LABELS)
    assert training_losses(weighed, CLASSES)(outputs(CLASSES, 4), targets(CLASSES, 4)).shape == (4,)


@pytest.mark.parametrize(("shape", "loss"), EVERY, ids=NAMES)
def test_no_answer_that_is_one_for_all_records_has_a_smaller_loss(shape: DataShape, loss: str) -> None:
    aim, target = objective(shape, loss), targets(shape, 40)
    if shape.targets.below is None:
        target = target.clamp(-1, 1)
    base = aim.task.base_loss(loss, target.numpy())
    assert base is not None
    best = outputs(shape, 1)[:, :1] if shape.targets.ignores else outputs(shape, 1)  # one answer for all positions
    best = best.clone().requires_grad_()
    optimizer = torch.optim.Adam([best], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        size = (40, *shape.targets.size, shape.outputs) if shape.targets.ignores else (40, shape.outputs)
        found = aim.losses(best.expand(size), target).mean()
        torch.autograd.backward(found)
        optimizer.step()
    assert float(found.detach()) >= base - 1e-5
    assert float(found.detach()) == pytest.approx(base, abs=0.02)
    assert aim.task.base_loss("another", target.numpy()) is None


def test_answers_of_numbers_are_in_the_labels_own_units_and_in_its_range() -> None:
    task = task_of(NUMBER)
    found = task.answers("mse", torch.tensor([[-1.0], [0.0], [1.0], [7.0], [-7.0]]))
    assert found.tolist() == [45.0, 77.5, 110.0, 110.0, 45.0]
    assert task.targets(np.array([-1.0, 1.0], dtype=np.float32)).tolist() == [45.0, 110.0]
    free = replace(NUMBER, target_range=None)
    assert task_of(free).answers("mse", torch.tensor([[7.0]])).tolist() == [7.0]
