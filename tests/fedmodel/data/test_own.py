"""A user's own function is called as the scenario says, its shape settled, and its records dealt or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmodel.config import Scenario, read_scenario, scenario_to_toml
from fedmodel.data import check_deployed, deployed_records, held_out_records, settled, silo_records
from fedmodel.data.records import Records
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds import own_code
from fedmodel.kinds.shape import IGNORED, ArrayShape, DataShape
from scenarios.simulation.simulate import check_scenario, placed

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(120, 4)), RNG.integers(0, 3, 120)
SILOS = ("north", "south", "west")
PUT = "script:data"


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    own_code.close()


def own(tiny: Scenario, function: Any, **said: Any) -> Scenario:
    """Return a scenario whose records are what a function returns."""
    own_code.hand_over(PUT, function)
    document = tiny.model_dump(mode="json", exclude_none=True)
    document["data"] = {"use": PUT, "partition": {"min_records": 20}, **said}
    document["data"] = {key: value for key, value in document["data"].items() if value is not None}
    return Scenario.model_validate(document)


def pair(low: int = 0, high: int = 120) -> tuple[Any, Any]:
    return X[low:high], Y[low:high]


def rows(*parts: Records) -> list[bytes]:
    return sorted(bytes(row) for part in parts for row in part.x_NF)


def test_one_data_set_is_held_out_of_and_dealt(tiny: Scenario) -> None:
    scenario = settled(own(tiny, pair, held_out=0.25))
    assert scenario.data.shape.features == (4,)
    assert scenario.data.shape.classes == 3
    parts = [held_out_records(scenario), *(silo_records(scenario, silo) for silo in SILOS)]
    assert len(parts[0]) == 30
    assert rows(*parts) == sorted(map(bytes, X.astype(np.float32)))


def test_a_test_part_is_the_servers_and_all_else_trains(tiny: Scenario) -> None:
    scenario = settled(own(tiny, lambda: {"train": pair(0, 100), "test": pair(100)}))
    assert np.array_equal(held_out_records(scenario).x_NF, X[100:].astype(np.float32))
    silos = [silo_records(scenario, silo) for silo in SILOS]
    assert rows(*silos) == sorted(map(bytes, X[:100].astype(np.float32)))


def test_a_list_has_a_part_for_each_silo_in_their_order(tiny: Scenario) -> None:
    cuts = [pair(0, 30), pair(30, 60), pair(60, 90)]
    scenario = settled(own(tiny, lambda: {"train": cuts, "test": pair(90)}))
    for number, silo in enumerate(SILOS):
        assert np.array_equal(silo_records(scenario, silo).x_NF, X[30 * number : 30 * number + 30].astype(np.float32))
    share = settled(own(tiny, lambda: cuts, held_out=0.2))
    sizes = [len(silo_records(share, silo)) for silo in SILOS]
    assert sizes == [24, 24, 24]
    assert len(held_out_records(share)) == 18
    everything = [held_out_records(share), *(silo_records(share, silo) for silo in SILOS)]
    assert rows(*everything) == sorted(map(bytes, X[:90].astype(np.float32)))


def test_persons_are_held_out_and_dealt_whole(tiny: Scenario) -> None:
    who = np.repeat(np.arange(40), 3)[RNG.permutation(120)]
    columns = {"x": X, "label": Y, "who": who}
    scenario = settled(own(tiny, lambda: columns, held_out=0.25, person="who", partition={"min_records": 2}))
    assert scenario.data.why_no_persons() is None
    parts = [held_out_records(scenario), *(silo_records(scenario, silo) for silo in SILOS)]
    persons = [set(part.person_N.tolist()) for part in parts]
    assert sum(map(len, persons)) == len(set.union(*persons)) == 40
    assert settled(own(tiny, pair, held_out=0.25)).data.why_no_persons() is not None


def claimed_for(scenario: Scenario, unit: str) -> Scenario:
    """The same scenario with a claim for another unit."""
    document = scenario.model_dump(mode="json", exclude_none=True)
    document["privacy"] |= {"unit": unit} | ({} if unit == "record" else {"max_records": 3})
    return Scenario.model_validate(document)


def test_nobody_trains_and_is_held_out_where_a_claim_is_for_persons(tiny: Scenario) -> None:
    def columns(low: int, high: int, first: int) -> dict[str, Any]:
        return {"x": X[low:high], "label": Y[low:high], "who": first + np.arange(high - low) // 3}

    def said(first: int) -> Scenario:
        given = {"train": columns(0, 90, 0), "test": columns(90, 120, first)}
        return settled(own(tiny, lambda: given, person="who", partition={"min_records": 2}))

    for scenario in (said(0), said(29)):  # the one is the very persons, the other one person of ten
        with pytest.raises(DataError, match=r"test: a person with records here has some that train too; .* held_out"):
            held_out_records(claimed_for(scenario, "person"))
        with pytest.raises(DataError, match=r"a person with records here"):
            silo_records(claimed_for(scenario, "person"), "north")
        assert len(held_out_records(claimed_for(scenario, "record"))) == 30
    assert len(held_out_records(claimed_for(said(30), "person"))) == 30


SPELT: tuple[Any, ...] = (
    np.array([7] * 3), np.array([7.0] * 3), ["7"] * 3, [" 7"] * 3, ["7\t"] * 3,
    np.array([7, "7 ", 7.0], dtype=object), np.array(["\uff17"] * 3),
)  # fmt: skip


@pytest.mark.parametrize("train", SPELT)
@pytest.mark.parametrize("test", SPELT)
def test_another_spelling_of_a_persons_id_hides_nobody(tiny: Scenario, train: Any, test: Any) -> None:
    given = {
        "train": {"x": X[:90], "label": Y[:90], "who": [*train, *range(1000, 1087)]},
        "test": {"x": X[90:93], "label": Y[90:93], "who": test},
    }
    scenario = settled(own(tiny, lambda: given, person="who", partition={"min_records": 2}))
    with pytest.raises(DataError, match=r"test: a person with records here has some that train too; "):
        held_out_records(claimed_for(scenario, "person"))
    given["test"]["who"] = ["70", "71", "v7"]
    scenario = settled(own(tiny, lambda: dict(given), person="who", partition={"min_records": 2}))
    assert len(held_out_records(claimed_for(scenario, "person"))) == 3


def test_ids_of_silos_that_each_have_a_data_set_are_their_own(tiny: Scenario) -> None:
    """Every hospital has a patient 1."""
    part = {"x": X[:30], "label": Y[:30], "who": np.arange(30) // 3}
    given = {"train": [part, part, part], "test": part}
    scenario = settled(own(tiny, lambda: given, person="who", partition=None))
    assert len(held_out_records(claimed_for(scenario, "person"))) == 30


def test_no_silo_is_in_exact_figures_where_a_claim_is_for_all_that_it_has(tiny: Scenario) -> None:
    parts = [pair(0, 30), pair(30, 60), pair(60, 90)]
    share = settled(own(tiny, lambda: parts, held_out=0.2, partition=None))
    for read in (held_out_records, lambda scenario: silo_records(scenario, "north")):
        with pytest.raises(
            DataError,
            match=r"held_out takes a share of each silo's own records; exact .* \"client\" hides .* test part",
        ):
            read(claimed_for(share, "client"))
    assert len(held_out_records(claimed_for(share, "record"))) == 18
    tested = settled(own(tiny, lambda: {"train": parts, "test": pair(90)}, partition=None))
    assert len(held_out_records(claimed_for(tested, "client"))) == 30
    dealt = settled(own(tiny, pair, held_out=0.25))
    assert len(held_out_records(claimed_for(dealt, "client"))) == 30


def test_records_are_dealt_by_a_column_that_is_no_feature(tiny: Scenario) -> None:
    ward = np.array(SILOS)[np.arange(120) % 3]
    columns = {"x": X, "label": Y, "ward": ward}
    by = {"kind": "column", "column": "ward"}
    scenario = settled(own(tiny, lambda: columns, held_out=0.25, partition=by))
    assert scenario.data.shape.inputs == {"x": ArrayShape((4,))}
    for silo in SILOS:
        part = silo_records(scenario, silo).x
        assert isinstance(part, dict)
        own_rows = set(map(bytes, X[ward == silo].astype(np.float32)))
        assert len(part["x"]) > 20
        assert set(map(bytes, part["x"])) <= own_rows
    with pytest.raises(DataError, match=r"data\.partition\.column = 'bed' is no column of x, label, ward"):
        settled(own(tiny, lambda: columns, held_out=0.25, partition={**by, "column": "bed"}))
    with pytest.raises(DataError, match=r"is a pair \(x, y\), and data\.partition\.column = 'ward' is of one with"):
        settled(own(tiny, pair, held_out=0.25, partition=by))


def test_arguments_stand_beside_use(tiny: Scenario) -> None:
    scenario = settled(own(tiny, lambda first, count=7: pair(first, first + count), held_out=0.25, first=10, count=90))
    assert sum(len(silo_records(scenario, silo)) for silo in SILOS) == 67
    with pytest.raises(ConfigError, match=r"data\.frist is no argument of data\.use = 'script:data'; did you mean"):
        settled(own(tiny, lambda first=0: pair(first), held_out=0.25, frist=1))
    with pytest.raises(ConfigError, match=r"needs arguments that the section does not give: .*'first'"):
        settled(own(tiny, lambda first: pair(first), held_out=0.25))


def test_what_is_not_said_is_settled_once_and_stands_in_the_scenarios_text(tiny: Scenario, tmp_path: Path) -> None:
    columns = {"tokens": RNG.integers(0, 9, (120, 5)), "age": X[:, 0], "label": Y % 2}
    columns["tokens"][3, 3] = 11
    scenario = settled(own(tiny, lambda: columns, held_out=0.25))
    assert scenario.data.shape.inputs == {"tokens": ArrayShape((5,), 12), "age": ArrayShape(())}
    assert settled(scenario) == scenario
    (tmp_path / "s.toml").write_text(scenario_to_toml(scenario))
    assert read_scenario(str(tmp_path / "s.toml")) == scenario
    one = settled(own(tiny, lambda: (columns["tokens"], Y), held_out=0.25))
    assert one.data.shape.arrays == ArrayShape((5,), 12)


def test_records_are_bounded_only_where_that_is_said(tiny: Scenario) -> None:
    far = X * 1000
    free = settled(own(tiny, lambda: (far, Y), held_out=0.25))
    bound = settled(own(tiny, lambda: (far, Y), held_out=0.25, feature_bound=2.0))
    assert np.abs(silo_records(free, "north").x_NF).max() > 1000
    assert np.abs(silo_records(bound, "north").x_NF).max() == 2.0


def test_a_function_is_called_once_and_again_where_it_is_another_one(tiny: Scenario) -> None:
    calls = []

    def counted() -> tuple[Any, Any]:
        calls.append(1)
        return pair()

    scenario = settled(own(tiny, counted, held_out=0.25))
    for silo in SILOS:
        silo_records(scenario, silo)
    held_out_records(scenario)
    assert len(calls) == 1
    own_code.hand_over(PUT, lambda: (X + 1, Y))
    assert not set(rows(silo_records(scenario, "north"))) & set(map(bytes, X.astype(np.float32)))


NUMBERS = 50 + 10 * X[:, 0]
SEVERAL = RNG.integers(0, 2, (120, 5))
TOKENS = RNG.integers(0, 9, (120, 6))
NEXT = np.where(TOKENS == 0, IGNORED, np.roll(TOKENS, -1, axis=1))


@pytest.mark.parametrize(
    ("said", "y", "shape"),
    [
        ({"task": "regression"}, NUMBERS, DataShape((4,), 0, target=ArrayShape(()), task="regression")),
        ({"task": "regression"}, SEVERAL, DataShape((4,), 0, target=ArrayShape((5,)), task="regression")),
        (
            {"task": "regression", "target_range": [40.0, 60.0]},
            NUMBERS,
            DataShape((4,), 0, target=ArrayShape(()), task="regression", target_range=(40.0, 60.0)),
        ),
        ({"task": "multi-label"}, SEVERAL, DataShape((4,), 5, target=ArrayShape((5,), 2), task="multi-label")),
        (
            {"task": "next-token"},
            NEXT,
            DataShape((4,), 9, target=ArrayShape((6,), 9, ignores=True), task="next-token"),
        ),
        (
            {"task": "sequence-labels", "classes": 12},
            NEXT,
            DataShape((4,), 12, target=ArrayShape((6,), 12, ignores=True), task="sequence-labels"),
        ),
    ],
)
def test_targets_are_what_the_task_has(tiny: Scenario, said: dict[str, Any], y: Any, shape: DataShape) -> None:
    scenario = settled(own(tiny, lambda: (X, y), held_out=0.25, partition={"kind": "iid", "min_records": 20}, **said))
    assert scenario.data.shape == shape
    assert settled(Scenario.model_validate_json(scenario.model_dump_json())) == scenario
    parts = [held_out_records(scenario), *(silo_records(scenario, silo) for silo in SILOS)]
    found = {bytes(x): t for part in parts for x, t in zip(part.x_NF, part.y_N, strict=True)}
    for x, target in zip(X.astype(np.float32), y, strict=True):
        wanted = np.clip((target - 50) / 10, -1, 1) if shape.target_range else target
        assert np.allclose(found[bytes(x)], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("said", "y", "why"),
    [
        ({"task": "multi-label"}, SEVERAL + 1, "record 0: its label is no row of 0 and 1, which"),
        (
            {"task": "multi-label", "classes": 4},
            SEVERAL,
            r"shape \[5\]; for task 'multi-label' it is of shape \[4\]",
        ),
        ({"task": "next-token", "classes": 5}, NEXT, "record 0: its label is no class from 0 to 4, nor -100, which"),
        ({"task": "regression"}, np.where(NUMBERS > 50, NUMBERS, np.nan), "a value of its label is NaN, infinite or"),
        ({"task": "next-token"}, TOKENS + 0.5, "record 0: its label is not a whole number"),
    ],
)
def test_targets_that_the_task_has_not_are_named(tiny: Scenario, said: dict[str, Any], y: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        settled(own(tiny, lambda: (X, y), held_out=0.25, partition={"kind": "iid"}, **said))


def raises() -> Any:
    raise RuntimeError("hidden-word")


@pytest.mark.parametrize(
    ("function", "said", "why"),
    [
        (raises, {"held_out": 0.2}, "raised RuntimeError; call it alone to see why"),
        (pair, {}, "returned no test part; the server evaluates on"),
        (lambda: {"train": pair(), "test": pair()}, {"held_out": 0.2}, "returned a test part, and data.held_out says"),
        (lambda: {"train": pair(), "valid": pair()}, {}, "returned valid besides train and test"),
        (lambda: [pair(), pair()], {"held_out": 0.2}, "returned a list of 2, and there are 3 silos"),
        (lambda: [pair(), pair(0, 0), pair()], {"held_out": 0.2}, "silo south: holds no record"),
        (lambda: {"train": pair(), "test": pair(0, 0)}, {}, "test: holds no record"),
        (lambda: [pair(), (X[:, :3], Y), pair()], {"held_out": 0.2}, r"silo south: x of a record has shape \[3\]"),
        (lambda: [pair(), (X.astype(int), Y), pair()], {"held_out": 0.2}, "silo south: x holds whole numbers, where"),
        (lambda: [pair(), ({"a": X}, Y), pair()], {"held_out": 0.2}, "silo south: gives arrays a, where one array is"),
        (lambda: {"train": pair(), "test": (X, Y - 1)}, {}, "test: record .*: its label is no class from 0 to 2"),
        (pair, {"held_out": 0.2, "classes": 2}, "record .*: its label is no class from 0 to 1"),
        (
            lambda: (X, np.where(np.arange(120) == 7, 98_765, Y)),
            {"held_out": 0.2, "partition": {"kind": "iid"}},
            "record 7: its label is larger than the number of labels that there are; number classes from 0",
        ),
        (pair, {"held_out": 0.2, "features": [5]}, r"has shape \[4\], where \[5\] is declared"),
        (pair, {"held_out": 0.2, "inputs": {"a": {"size": [4]}}}, "data.inputs names arrays, and .* gives one without"),
        (lambda: ({"a": X}, Y), {"held_out": 0.2, "features": [4]}, "data.features is of one array, and .* gives a;"),
        (lambda: ({"a": X}, Y), {"held_out": 0.2, "inputs": {"b": {"size": [4]}}}, "gives arrays a, where arrays a, b"),
        (lambda: (np.arange(120)[:, None] - 5, Y), {"held_out": 0.2}, "record 0: a value of x is no whole number from"),
        (lambda: (X, X), {"held_out": 0.2}, "record 0: its label is not a whole number"),
        (
            lambda: (X, np.zeros((120, 2))),
            {"held_out": 0.2},
            r"a label has shape \[2\]; for task 'classification' it",
        ),
        (lambda: (X[:40], Y[:40]), {"held_out": 0.2}, "32 records cannot give 3 silos 20 each"),
    ],
)
def test_what_no_run_could_train_on_is_one_line_before_anything_is_charged(
    tiny: Scenario, function: Any, said: dict[str, Any], why: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=why) as refused:
        check_scenario(placed(own(tiny, function, **said)))
    assert "hidden-word" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_no_deployed_silo_reads_what_a_function_returns(tiny: Scenario, tmp_path: Path) -> None:
    scenario = settled(own(tiny, pair, held_out=0.25))
    law: Any = type("Law", (), {"name": "north", "tables": {}})
    for refused in (
        lambda: check_deployed(scenario, law, tmp_path),
        lambda: deployed_records(scenario, law, tmp_path, None),
        lambda: check_scenario(scenario, deployed=True),
    ):
        with pytest.raises(ConfigError, match="no program sees what a function reads"):
            refused()
