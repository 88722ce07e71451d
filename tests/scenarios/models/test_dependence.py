"""Partial dependence of a known function, and figures of groups that are counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmodel.errors import ConfigError
from scenarios.models.explain import Looked, explain
from scenarios.models.factors import Factor
from scenarios.runs.explanation import Explanation
from tests.scenarios.models.explained import Of, linear, patients, trained


def bent(x_BF: Tensor) -> Tensor:
    """Log-odds of a known function: age and visits go together, and stage III is worse."""
    age_B, visits_B, worst_B = x_BF[:, 0], x_BF[:, 1], x_BF[:, 5]
    return (2 * age_B * visits_B + age_B + 1.5 * worst_B)[:, None]


def test_dependence_of_a_known_function_is_its_mean_over_the_records(tmp_path: Path) -> None:
    x_NF = patients(80)
    found = {one.name: one for one in explain(trained(tmp_path, Of(bent)), Looked(x_NF, None, "own")).dependence}
    own_NF = x_NF.astype(np.float64)

    def mean(odds_N: np.ndarray) -> float:
        return float((1 / (1 + np.exp(-odds_N))).mean())

    age = found["age"]
    assert age.at == pytest.approx(np.linspace(0, 100, 21).tolist())  # the public range, and no record's
    for at, answer in zip(age.at, age.answers["malignant"], strict=True):
        value = at / 50 - 1
        right = mean(2 * value * own_NF[:, 1] + value + 1.5 * own_NF[:, 5])
        assert answer == pytest.approx(right, abs=1e-6)
    stage = found["stage"]
    assert (stage.at, stage.choices) == ((), ("I", "II", "III"))
    rest_N = 2 * own_NF[:, 0] * own_NF[:, 1] + own_NF[:, 0]
    right = [mean(rest_N), mean(rest_N), mean(rest_N + 1.5)]
    assert stage.answers["malignant"] == pytest.approx(right, abs=1e-6)
    smoker = found["smoker"]
    assert smoker.choices == ("false", "true")
    assert smoker.answers["malignant"][0] == smoker.answers["malignant"][1]  # it counts for nothing


def test_of_many_records_some_are_looked_at_evenly(tmp_path: Path) -> None:
    x_NF = patients(1000)
    linear_one = explain(trained(tmp_path, linear([1.0] * 6)), Looked(x_NF, None, "own"))
    assert (linear_one.count, linear_one.looked_at, linear_one.curves_over) == (1000, 1000, 256)
    other = explain(trained(tmp_path, Of(bent)), Looked(x_NF, None, "own"))
    assert (other.count, other.looked_at, other.curves_over) == (1000, 256, 256)
    few = explain(trained(tmp_path, Of(bent)), Looked(x_NF[np.linspace(0, 999, 256).round().astype(int)], None, "own"))
    assert (other.explained, other.dependence) == (few.explained, few.dependence)


def grouped(tmp_path: Path, by: tuple[str, ...] = (), least: int = 20) -> tuple[Explanation, np.ndarray, np.ndarray]:
    """Explain a model that calls everybody over 50 ill, on patients of whom some of each group are."""
    x_NF = patients(200)
    ill_N = (np.arange(200) % 3 == 0).astype(np.int64)
    model = trained(tmp_path, linear([4.0, 0, 0, 0, 0, 0]))
    return explain(model, Looked(x_NF, ill_N, "own"), by, least), x_NF, ill_N


def test_figures_by_group_are_those_of_the_groups_own_records(tmp_path: Path) -> None:
    found, x_NF, ill_N = grouped(tmp_path, ("stage", "age"))
    said_N = x_NF[:, 0] > 0
    parts = {
        ("stage", "I"): x_NF[:, 3] == 1,
        ("stage", "II"): x_NF[:, 4] == 1,
        ("stage", "III"): x_NF[:, 5] == 1,
        ("age", "under 25"): x_NF[:, 0] < -0.5,
        ("age", "25 to under 50"): (x_NF[:, 0] >= -0.5) & (x_NF[:, 0] < 0),
        ("age", "50 to under 75"): (x_NF[:, 0] >= 0) & (x_NF[:, 0] < 0.5),
        ("age", "75 or more"): x_NF[:, 0] >= 0.5,
    }
    assert {(one.column, one.group) for one in found.groups} == parts.keys()
    for one in found.groups:
        own_N = parts[one.column, one.group]
        right_N = said_N[own_N] == (ill_N[own_N] == 1)
        assert one.records == own_N.sum()
        assert one.figures["accuracy"] == pytest.approx(right_N.mean())
        assert one.figures["recall"] == pytest.approx(said_N[own_N & (ill_N == 1)].mean())
        odds_N = 4 * x_NF[own_N, 0].astype(np.float64) * np.where(ill_N[own_N] == 1, 1, -1)
        assert one.figures["loss"] == pytest.approx(np.log1p(np.exp(-odds_N)).mean(), abs=1e-5)
    assert found.figures["accuracy"] == pytest.approx((said_N == (ill_N == 1)).mean())
    assert found.left_out == {}


def test_a_small_group_has_no_figures_and_is_counted(tmp_path: Path) -> None:
    found, x_NF, _ = grouped(tmp_path, ("stage",), least=70)
    sizes = {name: int((x_NF[:, place] == 1).sum()) for name, place in (("I", 3), ("II", 4), ("III", 5))}
    small = {name for name, size in sizes.items() if size < 70}
    assert 0 < len(small) < 3
    assert {one.group for one in found.groups} == sizes.keys() - small
    assert found.left_out == {"stage": len(small)}
    everyone, *_ = grouped(tmp_path, ("stage",), least=201)
    assert (everyone.groups, everyone.left_out) == ((), {"stage": 3})


def test_without_names_every_column_with_choices_has_figures(tmp_path: Path) -> None:
    found, *_ = grouped(tmp_path)
    assert {one.column for one in found.groups} == {"smoker", "stage"}
    with pytest.raises(ConfigError, match=r"--by: unknown column 'stag'; did you mean 'stage'\?"):
        grouped(tmp_path, ("stag",))
    with pytest.raises(ConfigError, match="--by: figures compare answers with labels, and there are none: nobody said"):
        explain(trained(tmp_path), Looked(patients(9), None, "own", "nobody said"), ("stage",))


def test_a_record_that_is_none_of_the_choices_is_in_no_group(tmp_path: Path) -> None:
    x_NF = patients(90)
    x_NF[:10, 3:] = 0  # unknown, as a scenario may declare
    found = explain(trained(tmp_path), Looked(x_NF, np.zeros(90, dtype=np.int64), "own"), ("stage",), 1)
    assert sum(one.records for one in found.groups) == 80
    assert torch.isfinite(torch.tensor([one.figures["loss"] for one in found.groups])).all()


def test_a_number_that_is_0_or_1_is_parted_by_these_two_and_has_no_empty_quarters(tmp_path: Path) -> None:
    """Of the quarters of its range the two in between would be said to have fewer than 20 records."""
    male = Factor("male", 1, "number", range=(0.0, 1.0))
    x_NF = np.array([[0.3, -1.0], [0.2, 1.0], [0.1, 1.0]], dtype=np.float32)
    names, part_N = male.parted(x_NF)
    assert (names, part_N.tolist()) == (("0", "1"), [0, 1, 1])
    between = np.array([[0.3, -1.0], [0.2, 1.0], [0.1, 0.98]], dtype=np.float32)
    names, part_N = male.parted(between)
    assert names == ("under 0.25", "0.25 to under 0.5", "0.5 to under 0.75", "0.75 or more")
    assert part_N.tolist() == [0, 3, 3]
    x_NF, ill_N = patients(200), np.arange(200) % 2
    x_NF[:, 0] = np.where(np.arange(200) % 3 == 0, 1.0, -1.0)
    found = explain(trained(tmp_path, linear([4.0, 0, 0, 0, 0, 0])), Looked(x_NF, ill_N, "own"), ("age",), 20)
    assert {(one.group, one.records) for one in found.groups} == {("0", 133), ("100", 67)}
    assert found.left_out == {}
