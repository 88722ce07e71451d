"""Figures are scikit-learn's where it has them, by their definition elsewhere, and left out where not defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torch import nn
from torch.nn import functional

from fedmodel.data import Records
from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import IGNORED, DataShape
from fedmodel.learning.tasks import Measured, objective, task_of
from fedmodel.learning.tasks._class_figures import calibration_error, cost_at
from server.metrics import evaluate
from tests.fedmodel.learning.tasks.test_losses import LABELS, NUMBER, NUMBERS, TAGS, TOKENS

CPU = torch.device("cpu")


def figures(shape: DataShape, output: np.ndarray, target: np.ndarray, *names: str, loss: str = "cross-entropy") -> dict:  # type: ignore[type-arg]
    """What is measured of a model that returns what it is given."""
    records = Records(output.astype(np.float32), target, np.arange(len(target)))
    return evaluate(nn.Identity(), objective(shape, loss), records, CPU, names)


@pytest.mark.parametrize("classes", [2, 4])
def test_figures_of_classes_are_those_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    shape, target = DataShape((1,), classes), rng.integers(0, classes, 300)
    logits = rng.normal(size=(300, 1 if classes == 2 else classes)) + (target[:, None] == np.arange(classes))[:, -1:]
    names = ("balanced-accuracy", "average-precision", "brier", "calibration-error", "auroc", "accuracy")
    found = figures(shape, logits, target, *names)
    assert list(found) == ["loss", *names]
    score = task_of(shape).answers("cross-entropy", torch.tensor(logits, dtype=torch.float32)).numpy()
    one_hot = np.eye(classes)[target]
    assert found["balanced-accuracy"] == metrics.balanced_accuracy_score(target, score.argmax(axis=1))
    if classes == 2:
        assert found["average-precision"] == metrics.average_precision_score(target, score[:, 1])
        assert found["brier"] == pytest.approx(metrics.brier_score_loss(target, score[:, 1]), rel=1e-6)
    else:
        assert found["average-precision"] == metrics.average_precision_score(one_hot, score)
        assert found["brier"] == pytest.approx(metrics.brier_score_loss(target, score, labels=range(classes)), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("steps", [2, 50])
def test_what_is_counted_and_ranked_here_is_scikit_learns(classes: int, steps: int) -> None:
    """With scores of which many are equal, as of a model that is rounded."""
    rng = np.random.default_rng(classes)
    shape, target = DataShape((1,), classes), rng.integers(0, classes, 300)
    width = 1 if classes == 2 else classes
    logits = np.round(steps * (rng.normal(size=(300, width)) + (target[:, None] == np.arange(classes))[:, -width:]))
    logits /= steps
    found = figures(shape, logits, target, "accuracy", "precision", "recall", "f1", "auroc")
    score = task_of(shape).answers("cross-entropy", torch.tensor(logits, dtype=torch.float32)).numpy()
    said, average = score.argmax(axis=1), "binary" if classes == 2 else "macro"
    assert found["accuracy"] == metrics.accuracy_score(target, said)
    for name, one in (("precision", metrics.precision_score), ("recall", metrics.recall_score)):
        assert found[name] == pytest.approx(one(target, said, average=average), rel=1e-12)
    assert found["f1"] == pytest.approx(metrics.f1_score(target, said, average=average), rel=1e-12)
    of, by = (target, score[:, 1]) if classes == 2 else (np.eye(classes)[target], score)
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(of, by, average="macro"), rel=1e-12)


def test_what_is_not_defined_of_classes_is_left_out() -> None:
    names = ("balanced-accuracy", "average-precision", "recall@0.5", "brier")
    found = figures(DataShape((1,), 2), np.array([[1.0], [-1.0]]), np.array([0, 0]), *names)
    assert set(found) == {"loss", "brier"}
    of_mse = figures(DataShape((1,), 3), np.eye(3), np.arange(3), "brier", "calibration-error", "accuracy", loss="mse")
    assert set(of_mse) == {"loss", "accuracy"}
    assert "recall@0.01" not in figures(DataShape((1,), 2), np.ones((9, 1)), np.arange(9) % 2, "recall@0.01")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=4, max_size=40), st.integers(1, 19))
def test_recall_at_a_share_of_alerts_is_the_mean_over_all_orders_of_equal_scores(
    drawn: list[tuple[int, bool]], twentieths: int
) -> None:
    score, target = np.array([one[0] for one in drawn], dtype=np.float64), np.array([one[1] for one in drawn], int)
    name = f"recall@{twentieths / 20:g}"
    found = figures(DataShape((1,), 2), score[:, None], target, name)
    alerts = twentieths * len(drawn) // 20
    if not target.any() or not alerts:
        assert name not in found
        return
    rng, caught = np.random.default_rng(0), []
    for _ in range(300):
        order = np.lexsort([rng.random(len(score)), -score])[:alerts]
        caught.append(target[order].sum() / target.sum())
    assert found[name] == pytest.approx(np.mean(caught), abs=5 * (np.std(caught) / math.sqrt(300) + 1e-9) + 1e-9)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), min_size=1, max_size=20))
def test_the_area_under_the_cost_curve_is_the_brier_score(drawn: list[tuple[float, bool]]) -> None:
    """Of costs t of a false alarm and 1 - t of a missed record, for t from 0 to 1 (Hernandez-Orallo et al. 2011)."""
    score, target = np.array([one[0] for one in drawn]), np.array([one[1] for one in drawn], int)
    found = Measured(np.stack([1 - score, score], axis=1), target, np.zeros(len(drawn)), 0.0, "cross-entropy")
    area, steps, positive = 0.0, 1000, target.mean()
    for step in range(steps):
        t = (step + 0.5) / steps
        ratio = (1 - t) / t
        area += 2 * cost_at(ratio, found) * ((1 - t) * positive + t * (1 - positive)) / steps
    assert area == pytest.approx(metrics.mean_squared_error(target, score), abs=4 / steps)


def test_a_cost_is_of_what_is_missed_and_of_false_alarms_at_the_threshold_of_their_ratio() -> None:
    # Over 1 / 6 are called positive: one of two positive records is missed, and one of three others is a false alarm.
    chance, target = np.array([0.16, 0.9, 0.1, 0.17, 0.05]), np.array([1, 1, 0, 0, 0])
    logits = np.log(chance / (1 - chance))[:, None]
    found = figures(DataShape((1,), 2), logits, target, "cost@5", "cost@1", "cost@0.2")
    assert found["cost@5"] == pytest.approx((5 * 1 + 1) / (5 * 2 + 3))
    assert found["cost@1"] == pytest.approx(1 / 5)
    assert found["cost@0.2"] == pytest.approx(0.2 / (0.2 * 2 + 3))
    every = figures(DataShape((1,), 2), np.ones((4, 1)), np.zeros(4, int), "cost@5")
    assert every["cost@5"] == 1.0  # all are false alarms


def test_the_calibration_error_is_the_gap_of_each_bin_weighed_by_its_records() -> None:
    # Two bins: 0.8 in three records of which two are right, 0.95 in one that is wrong.
    sure, right = np.array([0.8, 0.8, 0.8, 0.95]), np.array([True, True, False, False])
    assert calibration_error(sure, right) == pytest.approx(3 / 4 * abs(2 / 3 - 0.8) + 1 / 4 * 0.95)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0


def test_figures_of_numbers_are_scikit_learns_in_the_labels_units() -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(-1, 1, 200).astype(np.float32)
    output = np.clip(target[:, None] + rng.normal(scale=0.3, size=(200, 1)), -1, 1)
    found = figures(NUMBER, output, target, loss="mse")
    assert list(found) == ["loss", "rmse", "mae", "r2"]
    told, truth = 77.5 + 32.5 * output[:, 0].astype(np.float32), 77.5 + 32.5 * target
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, told), rel=1e-5)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, told), rel=1e-5)
    assert found["r2"] == pytest.approx(metrics.r2_score(truth, told), rel=1e-5)
    assert found["rmse"] == pytest.approx(32.5 * math.sqrt(found["loss"]), rel=1e-5)
    many = figures(NUMBERS, np.zeros((4, 3)), np.eye(4, 3, dtype=np.float32), loss="mae")
    assert many["mae"] == pytest.approx(32.5 * 3 / 12)


@pytest.mark.parametrize(
    ("shape", "target"), [(NUMBER, [0.5, 0.5]), (NUMBER, [0.5]), (NUMBERS, [[0, 1, 1], [0, 0, 1]])]
)
def test_r2_is_left_out_where_targets_do_not_differ(shape: DataShape, target: list[float]) -> None:
    of = np.array(target, dtype=np.float32)
    found = figures(shape, np.zeros((len(of), shape.outputs)), of, loss="mse")
    assert set(found) == {"loss", "rmse", "mae"}


def test_figures_of_several_labels_are_means_of_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    target = rng.integers(0, 2, (100, 3))
    logits = rng.normal(size=(100, 3)) + target
    names = ("label-accuracy", "exact-match", "precision", "recall", "f1", "auroc", "average-precision", "brier")
    found = figures(LABELS, logits, target, *names, "balanced-accuracy", "calibration-error")
    said, chance = logits.astype(np.float32) > 0, 1 / (1 + np.exp(-logits))
    assert found["label-accuracy"] == pytest.approx((said == target).mean())
    assert found["exact-match"] == pytest.approx((said == target).all(axis=1).mean())
    for name, score in (
        ("precision", metrics.precision_score),
        ("recall", metrics.recall_score),
        ("f1", metrics.f1_score),
    ):
        assert found[name] == pytest.approx(score(target, said, average="macro"))
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(target, chance, average="macro"), rel=1e-6)
    expected = metrics.average_precision_score(target, chance, average="macro")
    assert found["average-precision"] == pytest.approx(expected, rel=1e-6)
    assert found["brier"] == pytest.approx(np.square(target - chance).mean(), rel=1e-5)
    balanced = [metrics.balanced_accuracy_score(target[:, at], said[:, at]) for at in range(3)]
    assert found["balanced-accuracy"] == pytest.approx(np.mean(balanced))


def test_what_is_not_defined_of_several_labels_is_left_out() -> None:
    names = ("precision", "recall", "f1", "auroc", "average-precision", "balanced-accuracy", "exact-match")
    logits, target = np.array([[1.0, -1, 1], [1, -1, -1]]), np.array([[1, 1, 0], [1, 0, 1]])
    assert set(figures(LABELS, logits, target, *names)) == {"loss", "recall", "average-precision", "exact-match"}
    target[:, 1] = 0
    assert set(figures(LABELS, logits, target, *names)) == {"loss", "exact-match"}


class Given(nn.Module):
    """Returns the logits that are its input, under the name of tokens."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return functional.one_hot(tokens, 7).float() * 2


def test_perplexity_counts_positions_and_the_loss_records() -> None:
    tokens = np.array([[1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    target = np.array([[1, 2, 3, 4, 0, 0], [2, -100, -100, -100, -100, -100], [-100] * 6])
    found = evaluate(
        Given(), objective(TOKENS, "cross-entropy"), Records({"tokens": tokens}, target, np.arange(3)), CPU
    )
    hit, miss = -math.log(math.exp(2) / (math.exp(2) + 6)), -math.log(1 / (math.exp(2) + 6))
    assert found["loss"] == pytest.approx(((4 * hit + 2 * miss) / 6 + miss + 0) / 3, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp((4 * hit + 3 * miss) / 7), rel=1e-5)
    assert found["token-accuracy"] == pytest.approx(4 / 7)
    flat = torch.from_numpy(tokens), torch.from_numpy(target)
    theirs = functional.cross_entropy(Given()(flat[0]).flatten(0, 1), flat[1].flatten(), ignore_index=IGNORED)
    assert found["perplexity"] == pytest.approx(float(theirs.exp()), rel=1e-5)
    nothing = Records({"tokens": tokens[2:]}, target[2:], np.arange(1))
    assert evaluate(Given(), objective(TOKENS, "cross-entropy"), nothing, CPU) == {"loss": 0.0}


@pytest.mark.parametrize(
    ("shape", "name", "words"),
    [
        (DataShape((1,), 2), "aurok", r"metrics: unknown figure 'aurok'; did you mean 'auroc'\? \(the task is class"),
        (DataShape((1,), 2), "rmse", "metrics: unknown figure 'rmse'; known: accuracy, precision"),
        (DataShape((1,), 3), "recall@0.05", "'recall@0.05' is of two classes, and the data has 3"),
        (DataShape((1,), 2), "recall@5", "'recall@5' is no recall at a share of alerts; write it as recall@0.05"),
        (DataShape((1,), 2), "recall@0.0", "is no recall at a share of alerts"),
        (DataShape((1,), 2), "cost@0", "'cost@0' is no cost at a ratio of costs; write it as cost@5"),
        (DataShape((1,), 2), "cost@nan", "'cost@nan' is no cost at a ratio of costs"),
        (DataShape((1,), 3), "cost@5", "'cost@5' is of two classes, and the data has 3"),
        (DataShape((1,), 2), "brier@5", "unknown figure 'brier@5'; did you mean 'brier'"),
        (NUMBER, "accuracy", r"unknown figure 'accuracy'; known: rmse, mae, r2 \(the task is regression\)"),
        (LABELS, "accuracy", r"did you mean 'label-accuracy'\?"),
        (TOKENS, "perplexitty", r"did you mean 'perplexity'\?"),
    ],
)
def test_a_figure_that_the_task_does_not_know_is_refused(shape: DataShape, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        task_of(shape).figure(name)


def test_every_task_knows_its_own_figures() -> None:
    for shape in (DataShape((1,), 2), NUMBER, LABELS, TOKENS, TAGS):
        task = task_of(shape)
        assert set(task.default) <= set(task.known())
