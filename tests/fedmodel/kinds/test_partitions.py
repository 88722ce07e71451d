"""Every kind of partition deals each record to exactly one silo, as it says, and repeats itself with the seed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmodel.config import data_from_json, read_scenario, scenario_to_toml
from fedmodel.data import Records, held_out_records, silo_records
from fedmodel.data.records import deal_out
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.partition import Partition, Units, labels_of
from fedmodel.kinds.partitions import PARTITIONS
from fedmodel.kinds.partitions.column import ByColumn
from fedmodel.kinds.partitions.dirichlet import Dirichlet
from fedmodel.kinds.partitions.iid import IID
from fedmodel.kinds.partitions.shards import Shards
from fedmodel.kinds.partitions.sizes import Sizes
from fedmodel.kinds.sources.synthetic import SyntheticConfig
from fedmodel.seeds import derive_seed

HOSPITALS = np.array(["north", "south", "west"])
EACH = [Dirichlet(0.3), IID(), Sizes([5, 1, 2]), Sizes(power=1.5), Shards(2), ByColumn("hospital"), ByColumn("ward")]


def names(silos: int) -> tuple[str, ...]:
    return tuple(f"c{number}" for number in range(silos))


def units(label_U: NDArray[Any] | None, count: int | None = None) -> Units:
    """Units with three hospitals and twenty wards."""
    number = len(label_U) if label_U is not None else count or 0
    columns = {"hospital": HOSPITALS[np.arange(number) % 3], "ward": np.arange(number) % 20}
    return Units(number, label_U, columns.__getitem__)


def counts(label_U: NDArray[Any], parts: list[NDArray[np.intp]]) -> NDArray[np.intp]:
    return np.array([np.bincount(label_U[part], minlength=int(label_U.max()) + 1) for part in parts])


@pytest.mark.parametrize("config", EACH, ids=lambda config: config.kind)
@given(seed=st.integers(0, 10_000), records=st.integers(60, 200))
def test_every_record_is_dealt_exactly_once_and_the_same_with_the_same_seed(
    config: Partition, seed: int, records: int
) -> None:
    label_U = np.random.default_rng(seed).integers(0, 3, records)
    one, again = (config.parts(units(label_U), names(3), np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(np.sort(np.concatenate(one)), np.arange(records))
    assert all(np.array_equal(first, second) for first, second in zip(one, again, strict=True))
    assert len(one) == 3


def test_another_seed_deals_otherwise() -> None:
    label_U = np.arange(200) % 5
    for config in EACH:
        one, other = (config.parts(units(label_U), names(3), np.random.default_rng(seed)) for seed in (1, 2))
        assert any(not np.array_equal(*pair) for pair in zip(one, other, strict=True)), config


@given(seed=st.integers(0, 10_000), silos=st.integers(1, 12))
def test_parts_that_are_alike_are_of_one_size_and_look_at_no_label(seed: int, silos: int) -> None:
    parts = IID().parts(units(None, 100), names(silos), np.random.default_rng(seed))
    assert {len(part) for part in parts} <= {100 // silos, -(-100 // silos)}
    labelled = IID().parts(units(np.arange(100) % 7), names(silos), np.random.default_rng(seed))
    assert all(np.array_equal(one, other) for one, other in zip(parts, labelled, strict=True))


@given(seed=st.integers(0, 10_000), shares=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_sizes_are_the_shares_and_each_part_has_the_mix_of_the_whole(seed: int, shares: list[int]) -> None:
    label_U = np.random.default_rng(seed).integers(0, 4, 600)
    parts = Sizes(shares).parts(units(label_U), names(len(shares)), np.random.default_rng(seed))
    share_S = np.array(shares) / sum(shares)
    assert np.abs([len(part) for part in parts] - 600 * share_S).max() <= 1
    # A stretch of the order begins and ends within 4 records of where each label's share of it does.
    mix_L = np.bincount(label_U, minlength=4)
    assert np.abs(counts(label_U, parts) - share_S[:, None] * mix_L).max() <= 2 * (1 + 4 * mix_L.max() / 600)


def test_sizes_by_a_power_go_as_the_silos_number() -> None:
    label_U = np.arange(1000) % 2
    rng = np.random.default_rng(1)
    assert [len(part) for part in Sizes(power=1.0).parts(units(label_U), names(4), rng)] == [100, 200, 300, 400]
    assert [len(part) for part in Sizes(power=0.0).parts(units(label_U), names(4), rng)] == [250] * 4


@given(seed=st.integers(0, 10_000), silos=st.integers(5, 20), classes=st.integers(1, 10))
def test_with_shards_each_silo_has_exactly_so_many_labels(seed: int, silos: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    label_U = rng.choice(10, 2000, p=np.arange(5, 15) / np.arange(5, 15).sum())
    if silos * classes < 10:
        with pytest.raises(DataError, match=f"{silos} silos of so many labels each cannot hold 10 labels"):
            Shards(classes).parts(units(label_U), names(silos), rng)
        return
    parts = Shards(classes).parts(units(label_U), names(silos), rng)
    assert set((counts(label_U, parts) > 0).sum(axis=1)) == {classes}


def test_shards_pair_labels_at_random_and_not_by_their_order() -> None:
    found = set()
    for seed in range(30):
        label_U = np.arange(1000) % 10
        for part in Shards(2).parts(units(label_U), names(10), np.random.default_rng(seed)):
            found.add(tuple(np.unique(label_U[part])))
    assert len(found) > 40  # of 45 pairs


def test_a_column_whose_values_are_the_silos_names_goes_by_them() -> None:
    dealt = ByColumn("hospital").parts(units(np.zeros(90)), ("west", "north", "south"), np.random.default_rng(3))
    whole = HOSPITALS[np.arange(90) % 3]
    assert [set(whole[part]) for part in dealt] == [{"west"}, {"north"}, {"south"}]


@given(seed=st.integers(0, 10_000), silos=st.integers(1, 20))
def test_what_says_the_same_in_a_column_goes_to_one_silo(seed: int, silos: int) -> None:
    dealt = ByColumn("ward").parts(units(np.zeros(200)), names(silos), np.random.default_rng(seed))
    wards = [set(np.arange(200)[part] % 20) for part in dealt]
    assert sum(map(len, wards)) == len(set.union(*wards)) == 20
    assert {len(ward) for ward in wards} <= {20 // silos, -(-20 // silos)}


@pytest.mark.parametrize(
    ("silos", "told"),
    [
        (("north", "south", "wesst"), r"'west' is no silo's name, and silo 'wesst' has no value of its name"),
        (("north", "south"), r"'west' is no silo's name, so that"),
        (("north", "south", "west", "east"), r"silo 'east' has no value of its name, so that"),
    ],
)
def test_values_of_which_some_are_silos_names_are_dealt_to_nobody(silos: tuple[str, ...], told: str) -> None:
    """A misspelt name would give one hospital the patients of another."""
    with pytest.raises(DataError, match=rf"column = 'hospital': the value 'north' is a silo's name, .*{told}"):
        ByColumn("hospital").deal(units(np.zeros(60)), silos, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            Dirichlet(min_records=10),
            "20 records cannot give 3 silos 10 each; lower data.partition.min_records, or name fewer silos in"
            " federation.silos",
        ),
        (
            Dirichlet(size_concentration=0.01, min_records=6),
            "no partition in 1000 draws gave every silo 6 records; raise data.partition.size_concentration or"
            " label_concentration, or lower data.partition.min_records, or name fewer silos in federation.silos",
        ),
        (Sizes([1, 1]), "data.partition.shares has 2 numbers, and there are 3 silos; give each one"),
        (Sizes([98, 1, 1]), "kind 'sizes' gives silo 'c1' 0 records, under min_records = 1; deal more evenly"),
        (Shards(4), "classes = 4: 3 silos of so many labels each cannot hold 2 labels"),
        (ByColumn("floor"), "column = 'floor' has 2 values, too few for 3 silos"),
    ],
)
def test_what_cannot_be_dealt_is_refused_in_one_line(config: Partition, said: str) -> None:
    label_U = np.arange(20) % 2
    with pytest.raises(DataError, match=re.escape(said)) as refused:
        config.parts(Units(20, label_U, lambda _: label_U), names(3), np.random.default_rng(0))
    assert "\n" not in str(refused.value)


def test_nobody_is_told_to_lower_the_least_number_of_records_below_one() -> None:
    few = Units(2, np.zeros(2, np.int64), lambda _: None, "persons")
    said = "2 persons cannot give 3 silos 1 each; name fewer silos in federation.silos"
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        Dirichlet().parts(few, names(3), np.random.default_rng(0))
    said = (
        "no partition in 1000 draws gave every silo 1 records; raise data.partition.size_concentration or"
        " label_concentration, or name fewer silos in federation.silos"
    )
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        Dirichlet(size_concentration=0.001).parts(
            Units(20, np.zeros(20, np.int64), lambda _: None), names(3), np.random.default_rng(0)
        )


def test_a_label_of_too_few_records_is_not_cut_into_empty_shards() -> None:
    label_U = np.array([0] * 30 + [1] * 2)
    with pytest.raises(DataError, match="too few records for 2 more shards"):
        Shards(2).parts(units(label_U), names(4), np.random.default_rng(0))


@pytest.mark.parametrize("broken", [lambda parts: parts[:-1], lambda parts: [parts[0], *parts[:-1]]])
def test_a_kind_that_loses_a_record_or_deals_one_twice_is_found_out(broken: Callable[[Any], Any]) -> None:
    class Lossy(IID):
        def deal(self, units: Units, silos: tuple[str, ...], rng: np.random.Generator) -> list[NDArray[np.intp]]:
            return list(broken(super().deal(units, silos, rng)))

    with pytest.raises(DataError, match="does not deal every record to exactly one of 3 silos"):
        Lossy().parts(units(np.zeros(30)), names(3), np.random.default_rng(0))


def test_numbers_are_dealt_by_the_tenth_that_they_lie_in() -> None:
    y_N = np.random.default_rng(1).lognormal(size=1000)
    found = labels_of(y_N)
    assert found is not None
    assert np.bincount(found).tolist() == [100] * 10
    assert all(y_N[found == low].max() < y_N[found == low + 1].min() for low in range(9))
    column = labels_of(y_N[:, None])
    assert column is not None
    assert np.array_equal(column, found)
    assert labels_of(np.full(50, 2.5)) is not None
    assert labels_of(np.zeros((50, 3))) is None


def test_targets_without_a_label_are_dealt_by_what_looks_at_none() -> None:
    for config in (Dirichlet(0.3), Shards()):
        with pytest.raises(DataError, match=r'targets are several numbers each; write partition = \{kind = "iid"\}'):
            config.parts(units(None, 60), names(3), np.random.default_rng(0))
    for other in (IID(), Sizes(power=1.0), ByColumn("ward")):
        other.parts(units(None, 60), names(3), np.random.default_rng(0))
    # Nobody said how alike silos are in their labels: by their sizes alone, each record once.
    sizes = Dirichlet().parts(units(None, 60), names(3), np.random.default_rng(0))
    assert sorted(np.concatenate(sizes).tolist()) == list(range(60))
    assert len({len(part) for part in sizes}) == 3


def persons(values: NDArray[Any] | None, y_N: NDArray[Any]) -> tuple[Records, tuple[Records, ...]]:
    """Deal two records of each of 60 persons."""
    person_N = np.repeat(np.arange(60), 2)
    everything = Records(np.arange(120, dtype=np.float32)[:, None], y_N, person_N)
    return deal_out(everything, 0.2, ByColumn("ward"), ("north", "south"), 5, lambda _: values)


@pytest.mark.parametrize("y_N", [np.arange(120) % 3, np.linspace(-1, 1, 120), np.zeros((120, 4), np.int64)])
def test_persons_are_dealt_whole_whatever_their_targets(y_N: NDArray[Any]) -> None:
    ward_N = np.repeat(np.arange(60) % 6, 2)
    held_out, silos = persons(ward_N, y_N)
    everything = Records.joined([held_out, *silos])
    assert np.array_equal(np.sort(everything.x_NF[:, 0]), np.arange(120))
    for part in (held_out, *silos):
        assert set(np.bincount(part.person_N)) <= {0, 2}
    wards = [set(part.person_N % 6) for part in silos]
    assert [len(ward) for ward in wards] == [3, 3]
    assert not wards[0] & wards[1]


def test_each_persons_records_stay_in_their_order() -> None:
    person_N = np.unique(np.random.default_rng(3).integers(40, size=200), return_inverse=True)[1]
    everything = Records(np.arange(200, dtype=np.float32)[:, None], person_N % 2, person_N)
    for part in deal_out(everything, None, IID(), ("north", "south"), 5, lambda _: None)[1]:
        persons = list(dict.fromkeys(part.person_N.tolist()))
        expected = [place for person in persons for place in np.flatnonzero(person_N == person)]
        assert part.x_NF[:, 0].astype(int).tolist() == expected


def test_a_column_that_is_not_there_or_splits_a_person_is_refused() -> None:
    y_N = np.arange(120) % 2
    with pytest.raises(DataError, match="column = 'ward': the source does not say it of each record"):
        persons(None, y_N)
    with pytest.raises(DataError, match="some person's records differ in it"):
        persons(np.arange(120) % 6, y_N)


def test_a_source_that_says_whose_records_are_is_dealt_by_persons() -> None:
    scenario = read_scenario(
        "quickstart", ['data.partition={kind="column", column="person"}', "data.records_per_person=4", "seed=3"]
    )
    dealt = [set(silo_records(scenario, silo).person_N) for silo in scenario.federation.silos]
    assert not set.intersection(*dealt)
    assert isinstance(scenario.data, SyntheticConfig)
    assert scenario.data.groups("ward", derive_seed(3, "records")) is None
    with pytest.raises(DataError, match="column = 'ward': the source does not say it"):
        held_out_records(read_scenario("quickstart", ['data.partition={kind="column", column="ward"}', "seed=3"]))


def test_numbers_of_persons_are_no_names_of_silos() -> None:
    units = Units(40, None, lambda _: np.arange(40), "persons")
    parts = ByColumn("person").parts(units, ("1", "2", "3"), np.random.default_rng(0))
    assert sorted(map(len, parts)) == [13, 13, 14]
    with pytest.raises(DataError, match=r"the value '1' is a silo's name, and the value '0' is no silo's name"):
        ByColumn("ward").parts(units, ("1", "2", "3"), np.random.default_rng(0))


@pytest.mark.parametrize("config", EACH, ids=lambda config: config.kind)
def test_a_kind_is_read_back_as_it_is_written(config: Partition) -> None:
    source = SyntheticConfig(source="synthetic", held_out=0.5, reference_range=(0.0, 1.0), partition=config)
    again = data_from_json(source.model_dump_json())
    assert again == source
    assert list(config.model_dump())[-1] == "min_records"
    assert ("kind" in config.model_dump()) == (config.kind != "dirichlet")


def test_a_scenario_names_a_kind_of_partition() -> None:
    scenario = read_scenario("digits", ['data.partition={kind="shards", classes=3}', "seed=1"])
    assert 'kind = "shards"\nclasses = 3\n' in scenario_to_toml(scenario)
    for setting, said in (
        ('{kind="shard"}', "unknown kind of partition 'shard'; did you mean 'shards'?"),
        ('{kind="iid", classes=3}', "data.partition.classes does not belong to kind = 'iid'; leave it out"),
        ('{kind="shards", clases=3}', "data.partition.clases is not a known key; did you mean 'classes'?"),
        ('{kind="shards", classes=0}', "data.partition.classes = 0 is not accepted"),
        ('{kind="sizes"}', 'data.partition: kind = "sizes" takes exactly one of shares'),
        ('{kind="column"}', "data.partition.column is missing; add it"),
        ("{label_concentration=0}", "data.partition.label_concentration = 0 is not accepted"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            read_scenario("digits", [f"data.partition={setting}"])


def test_a_script_says_a_kind_as_it_is() -> None:
    assert Dirichlet(0.3) == Dirichlet(label_concentration=0.3)
    assert Shards(3).classes == 3
    assert {type(one) for one in EACH} <= set(PARTITIONS.values())
    with pytest.raises(TypeError, match="IID takes nothing without a name"):
        IID(3)
    with pytest.raises(TypeError, match="multiple values"):
        Dirichlet(0.3, label_concentration=0.3)
