"""METABRIC's patients are those of the published file, and their times are cut at the declared ends."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from fedmodel.kinds.sources.metabric import ENDS, MetabricConfig, times

PATIENTS = MetabricConfig(source="metabric", held_out=0.25, reference_range=(0.0, 1.0))
SAID = {"source": "metabric", "held_out": 0.25, "reference_range": (0.0, 1.0)}


def test_as_many_patients_and_deaths_as_were_published() -> None:
    x_NF, _ = PATIENTS.load(7)
    months_N, seen_N = times()
    assert x_NF.shape == (1904, len(PATIENTS.shape.names))
    assert int(seen_N.sum()) == 1103  # Katzman et al. 2018: 57.9% of 1,904 died
    assert months_N.max() == np.float32(355.2)


@pytest.mark.parametrize("ends", [ENDS, (12.5, 60.0)])
def test_a_target_says_the_interval_and_whether_death_was_seen_in_it(ends: tuple[float, ...]) -> None:
    patients = MetabricConfig.model_validate({**SAID, "ends": ends})
    _, target_N = patients.load(7)
    for months, seen, target in zip(*times(), target_N.tolist(), strict=True):
        interval = sum(months >= end for end in ends)
        assert target == 2 * interval + (seen if interval < len(ends) else 0)
    assert target_N.max() == 2 * len(ends)
    assert (patients.shape.ends, patients.shape.classes, patients.shape.targets.below) == (
        ends, len(ends), 2 * len(ends) + 1,
    )  # fmt: skip


def test_ends_that_nobody_said_are_the_first_ones_and_are_not_written() -> None:
    """Scenarios from before they could be said have the hash that silos admitted."""
    assert PATIENTS.ends == ENDS
    assert "ends" not in PATIENTS.model_dump()
    assert MetabricConfig.model_validate({**SAID, "ends": [24.0, 60.0]}).model_dump()["ends"] == (24.0, 60.0)


def test_what_is_left_out_is_no_feature_and_moves_no_other() -> None:
    fewer = MetabricConfig.model_validate({**SAID, "leave_out": ["EGFR", "hormone treatment"]})
    (x_NF, y_N), (all_NF, all_N) = fewer.load(7), PATIENTS.load(7)
    kept = [place for place, name in enumerate(PATIENTS.shape.names) if name not in ("EGFR", "hormone treatment")]
    assert fewer.shape.names == tuple(PATIENTS.shape.names[place] for place in kept)
    assert fewer.shape.features == (7,)
    assert np.array_equal(x_NF, all_NF[:, kept])
    assert np.array_equal(y_N, all_N)


@pytest.mark.parametrize("leave_out", [["EGRF"], list(PATIENTS.shape.names)])
def test_what_is_no_feature_and_all_of_them_cannot_be_left_out(leave_out: list[str]) -> None:
    with pytest.raises(ValidationError, match=r"unknown feature 'EGRF'; did you mean 'EGFR'|a feature at least"):
        MetabricConfig.model_validate({**SAID, "leave_out": leave_out})


@pytest.mark.parametrize("ends", [[60.0], [60.0, 60.0], [60.0, 24.0], [0.0, 24.0], []])
def test_ends_that_do_not_rise_are_refused(ends: list[float]) -> None:
    with pytest.raises(ValidationError, match="ends"):
        MetabricConfig.model_validate({**SAID, "ends": ends})
