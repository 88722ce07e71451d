"""The patients of the UCI heart-disease set are those of FLamby's protocol, and their hospitals' are dealt whole."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fedmodel.config import read_scenario
from fedmodel.data.records import dealt
from fedmodel.errors import ConfigError
from fedmodel.kinds.sources.uci_heart import UciHeartConfig

HEART = UciHeartConfig(source="uci-heart", held_out=0.34, reference_range=(0.0, 1.0))
FIRST = [63, 1, 145, 233, 1, 150, 0, 2.3, 0, 0, 0, 0, 1]  # as UCI's own file of Cleveland begins


def test_as_many_patients_are_left_of_each_hospital_as_in_flambys_protocol() -> None:
    _, y_N = HEART.load(7)
    hospital_N = HEART.groups("hospital", 7)
    assert hospital_N is not None
    assert Counter(hospital_N.tolist()) == {"cleveland": 304, "hungary": 260, "long-beach": 130, "switzerland": 46}
    ill = {name: int(y_N[hospital_N == name].sum()) for name in set(hospital_N.tolist())}
    assert ill == {"cleveland": 139, "hungary": 98, "switzerland": 45, "long-beach": 101}
    assert HEART.groups("chest pain", 7) is None


def test_the_first_patients_features_are_what_the_file_says() -> None:
    x_NF, y_N = HEART.load(7)
    assert x_NF.shape == (740, len(HEART.shape.names)) == (740, len(FIRST))
    assert x_NF[0].tolist() == FIRST
    assert y_N[0] == 0
    of = dict(zip(HEART.shape.names, x_NF.T, strict=True))
    assert set(of["atypical angina"] + of["non-anginal pain"] + of["no chest pain"]) == {0.0, 1.0}
    assert (of["cholesterol"] == 0).sum() == 79  # a gap that the file does not call one, as its docstring says


def test_each_hospital_is_a_silo_with_its_own_patients_alone() -> None:
    scenario = read_scenario("heart")
    held_out, silos = dealt(scenario)
    assert isinstance(scenario.data, UciHeartConfig)
    hospital_N = scenario.data.groups("hospital", 0)
    assert hospital_N is not None
    for name, records in zip(scenario.federation.silos, silos, strict=True):
        assert set(hospital_N[records.person_N].tolist()) == {name}
    everyone = np.concatenate([held_out.person_N, *(records.person_N for records in silos)])
    assert sorted(everyone.tolist()) == list(range(740))
    assert len(held_out) == 252


def test_no_claim_for_persons_is_made_of_rows_without_an_id() -> None:
    with pytest.raises(ConfigError, match="the rows of uci-heart do not say whose they are"):
        read_scenario("heart", ["privacy.unit=person", "privacy.max_records=1"])
