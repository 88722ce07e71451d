"""Records are real, scaled by public ranges alone, held out before they are dealt, and dealt completely."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from sklearn import datasets

from fedmodel.config import Scenario, read_scenario
from fedmodel.data import Records, held_out_records, records, scale, silo_records
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.kinds.source import Dealt
from fedmodel.kinds.sources.breast_cancer import BreastCancerConfig
from fedmodel.kinds.sources.synthetic import SyntheticConfig
from fedmodel.seeds import derive_seed


def test_hospitals_hold_real_patients_each_once_and_none_of_the_test_set() -> None:
    scenario = read_scenario("hospitals")
    parts = [held_out_records(scenario), *(silo_records(scenario, silo) for silo in scenario.federation.silos)]
    assert sum(map(len, parts)) == 569
    bunch = datasets.load_breast_cancer()
    expected = scale(bunch.data, scenario.data)
    rows = np.concatenate([part.x_NF for part in parts])
    assert sorted(map(bytes, rows)) == sorted(map(bytes, expected))
    assert int(sum(part.y_N.sum() for part in parts)) == 212  # malignant, the positive class


def test_hospitals_are_uneven_and_not_identical() -> None:
    scenario = read_scenario("hospitals")
    parts = [silo_records(scenario, silo) for silo in scenario.federation.silos]
    sizes = [len(part) for part in parts]
    rates = [part.y_N.mean() for part in parts]
    assert max(sizes) > 1.3 * min(sizes)
    assert max(rates) - min(rates) > 0.05


def test_reference_ranges_name_scikit_learns_features() -> None:
    scenario = read_scenario("hospitals")
    assert scenario.data.shape.names == tuple(datasets.load_breast_cancer().feature_names)


def test_scaling_a_record_does_not_depend_on_the_others() -> None:
    """A mean or a minimum of the records would move every row when one is taken away."""
    config = read_scenario("hospitals").data
    raw = datasets.load_breast_cancer().data
    assert np.array_equal(scale(raw, config)[100:], scale(raw[100:], config))


def test_scaling_maps_the_range_to_one_and_bounds_the_rest() -> None:
    config = SyntheticConfig(
        source="synthetic", held_out=0.5, features=3, reference_range=(0.0, 4.0), feature_bound=2.0
    )
    scaled = scale(np.array([[0.0, 4.0, 2.0], [1e9, -1e9, 3.0]]), config)
    assert scaled.tolist() == [[-1.0, 1.0, 0.0], [2.0, -2.0, 0.5]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_no_number_is_refused(value: float) -> None:
    config = SyntheticConfig(source="synthetic", held_out=0.5, features=2, reference_range=(0.0, 1.0))
    with pytest.raises(DataError, match="NaN or infinite"):
        scale(np.array([[0.0, value]]), config)


def test_features_are_never_scaled_by_a_guess() -> None:
    with pytest.raises(ConfigError, match="public ranges that the scenario declares"):
        scale(np.zeros((1, 2)), SyntheticConfig(source="synthetic", held_out=0.5, features=2))


def test_an_unknown_feature_and_a_missing_one_are_named() -> None:
    ranges = dict(read_scenario("hospitals").data.reference_ranges)
    ranges["mean radios"] = ranges.pop("mean radius")
    config = BreastCancerConfig(source="breast-cancer", held_out=0.5, reference_ranges=ranges)
    with pytest.raises(ConfigError, match="no feature 'mean radios'; did you mean 'mean radius'"):
        scale(np.zeros((1, 30)), config)
    del ranges["mean radios"]
    config = BreastCancerConfig(source="breast-cancer", held_out=0.5, reference_ranges=ranges)
    with pytest.raises(ConfigError, match="'mean radius' has no range"):
        scale(np.zeros((1, 30)), config)


def test_partition_repeats_with_the_seed_and_changes_with_it(tiny: Scenario) -> None:
    again = Scenario.model_validate(tiny.model_dump())
    other = tiny.model_copy(update={"seed": 6})
    assert np.array_equal(silo_records(tiny, "north").x_NF, silo_records(again, "north").x_NF)
    assert not np.array_equal(held_out_records(tiny).x_NF, held_out_records(other).x_NF)


def test_records_do_not_show_in_a_repr(tiny: Scenario) -> None:
    records = silo_records(tiny, "north")
    assert repr(records) == "Records(...)"
    assert isinstance(records, Records)


def test_an_unknown_silo_is_refused(tiny: Scenario) -> None:
    with pytest.raises(ConfigError, match="'east' is none of north, south, west"):
        silo_records(tiny, "east")


class Notes(Dealt):
    """Words under a mask, beside an age."""

    source: Literal["notes"]
    broken: str = ""

    @property
    def shape(self) -> DataShape:
        inputs = {"tokens": ArrayShape((4,), 9), "mask": ArrayShape((4,), 2), "age": ArrayShape((1,))}
        return DataShape((), 2, inputs=inputs)

    @property
    def described(self) -> str:
        return "made-up notes"

    def load(self, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        rng = np.random.default_rng(seed)
        found = {
            "age": rng.uniform(-1, 1, (60, 1)).astype(np.float32),
            "tokens": rng.integers(0, 9, (60, 4)),
            "mask": np.ones((60, 4), np.int64),
        }
        match self.broken:
            case "lacking":
                del found["mask"]
            case "narrow":
                found["tokens"] = found["tokens"][:, :3]
            case "of another type":
                found["tokens"] = found["tokens"].astype(np.float32)
            case "not finite":
                found["age"][3] = np.nan
            case "more":
                found["more"] = found["age"]
        return found, rng.integers(0, 2, 60)


def notes(monkeypatch: pytest.MonkeyPatch, broken: str = "") -> tuple[Records, tuple[Records, ...]]:
    config = Notes(source="notes", held_out=0.2, broken=broken)
    monkeypatch.setattr(records, "data_from_json", lambda _: config)
    return records._deal.__wrapped__("", ("north", "south"), 5, False, ())


def test_a_source_of_several_arrays_is_dealt_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    held_out, silos = notes(monkeypatch)
    everything = Records.joined([held_out, *silos])
    loaded, labels = Notes(source="notes", held_out=0.2).load(derive_seed(5, "records"))
    order = np.argsort(everything.person_N)
    assert isinstance(everything.x, dict)
    assert list(everything.x) == ["tokens", "mask", "age"]
    for name, one in everything.x.items():
        assert np.array_equal(one[order], loaded[name])
    assert np.array_equal(everything.y_N[order], labels)
    assert [len(held_out), sum(map(len, silos))] == [12, 48]


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ("lacking", "no array 'mask' of the shape and type"),
        ("narrow", "no array 'tokens' of the shape and type"),
        ("of another type", "no array 'tokens' of the shape and type"),
        ("not finite", "a value of 'age' is NaN or infinite"),
        ("more", "gives more too, of which it says nothing"),
    ],
)
def test_a_source_that_gives_other_arrays_than_it_says_is_refused(
    broken: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=named):
        notes(monkeypatch, broken)
