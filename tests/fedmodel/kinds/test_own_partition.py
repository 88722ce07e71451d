"""A partition by a function of the user's own, and by partitioners of flwr-datasets as they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from flwr_datasets import partitioner as flower
from numpy.typing import NDArray

from fedmodel.config import data_from_json, read_scenario, scenario_from_json
from fedmodel.data import held_out_records, silo_records
from fedmodel.data.access import check_deployed
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds import own_code
from fedmodel.kinds.partition import Units
from fedmodel.kinds.partitions.own import OwnPartition
from fedmodel.kinds.sources.synthetic import SyntheticConfig
from scenarios.simulation.prepared import prepare
from scenarios.simulation.simulate import check_scenario
from tests.conftest import TINY

LABELS = np.random.default_rng(4).integers(0, 5, 300)
SILOS = ("north", "south", "west")
FLOWER = "flwr_datasets.partitioner:"
_SEEDED = ("DirichletPartitioner", "PathologicalPartitioner")
_calls = count()


def in_thirds(labels: NDArray[np.int64], silos: int, seed: int, shuffled: bool = True) -> list[NDArray[np.intp]]:
    order = np.random.default_rng(seed).permutation(len(labels)) if shuffled else np.arange(len(labels))
    return np.array_split(order, silos)


def moody(labels: NDArray[np.int64], silos: int) -> list[NDArray[np.intp]]:
    return in_thirds(labels, silos, seed=next(_calls))


def failing(labels: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    raise ValueError(f"label {labels[0]} is secret")


RETURNS: dict[str, Callable[..., Any]] = {
    "words": lambda: ["a", "b", "c"],
    "nothing": lambda: None,
    "shares": lambda: [[0.5], [0.25], [0.25]],
    "lost": lambda labels, silos: [part[1:] for part in np.array_split(np.arange(len(labels)), silos)],
    "twice": lambda labels, silos: [np.arange(len(labels))] * silos,
    "two": lambda labels: np.array_split(np.arange(len(labels)), 2),
}


@pytest.fixture(autouse=True)
def opened() -> Iterator[None]:
    own_code.open_to_all()
    for thing in (in_thirds, moody, failing):
        own_code.hand_over(f"script:{thing.__name__}", thing)
    for name, thing in RETURNS.items():
        own_code.hand_over(f"script:{name}", thing)
    yield
    own_code.close()


def dealt(config: OwnPartition, seed: int = 1) -> list[NDArray[np.intp]]:
    units = Units(len(LABELS), LABELS, {"ward": np.arange(len(LABELS)) % 3}.__getitem__)
    return config.parts(units, SILOS, np.random.default_rng(seed))


def test_a_function_deals_with_the_sections_other_keys_and_the_seed() -> None:
    one, again, other = (dealt(OwnPartition("script:in_thirds"), seed) for seed in (1, 1, 2))
    assert all(map(np.array_equal, one, again))
    assert not all(map(np.array_equal, one, other))
    plain = dealt(OwnPartition("script:in_thirds", shuffled=False))
    assert [part.tolist() for part in plain] == [list(range(start, start + 100)) for start in (0, 100, 200)]


@pytest.mark.parametrize(
    ("name", "arguments", "alike"),
    [
        ("DirichletPartitioner", {"alpha": 0.3}, {"num_partitions": 3, "partition_by": "label", "alpha": 0.3}),
        ("IidPartitioner", {}, {"num_partitions": 3}),
        ("LinearPartitioner", {}, {"num_partitions": 3}),
        ("SizePartitioner", {"partition_sizes": [30, 70, 200]}, {"partition_sizes": [30, 70, 200]}),
        (
            "PathologicalPartitioner",
            {"num_classes_per_partition": 3, "class_assignment_mode": "deterministic"},
            {
                "num_partitions": 3,
                "partition_by": "label",
                "num_classes_per_partition": 3,
                "class_assignment_mode": "deterministic",
            },
        ),
        ("NaturalIdPartitioner", {"partition_by": "ward"}, {"partition_by": "ward"}),
    ],
)
def test_partitioners_of_flower_deal_as_they_do_by_themselves(
    name: str, arguments: dict[str, Any], alike: dict[str, Any]
) -> None:
    config = OwnPartition(f"{FLOWER}{name}", **arguments)
    seed = int(np.random.default_rng(1).integers(2**31))
    kind = getattr(flower, name)
    own = kind(**alike, **({"seed": seed} if name in _SEEDED else {}))
    own.dataset = datasets.Dataset.from_dict({"label": LABELS, "place": np.arange(300), "ward": np.arange(300) % 3})
    expected = [sorted(own.load_partition(silo)["place"][:]) for silo in range(3)]
    assert [part.tolist() for part in dealt(config)] == expected


@pytest.mark.parametrize(
    ("config", "kind", "said"),
    [
        (OwnPartition("script:moody"), DataError, "deals otherwise when it is asked again with the same seed"),
        (OwnPartition("script:failing"), DataError, "= 'script:failing' raised ValueError as it dealt the records"),
        (OwnPartition("script:words"), DataError, "does not return a list with the places of each silo's records"),
        (OwnPartition("script:nothing"), DataError, "raised TypeError as it dealt"),
        (OwnPartition("script:shares"), DataError, "does not return a list with the places"),
        (OwnPartition("script:lost"), DataError, "does not deal every record to exactly one of 3 silos"),
        (OwnPartition("script:twice"), DataError, "does not deal every record to exactly one of 3 silos"),
        (OwnPartition("script:two"), DataError, "does not deal every record to exactly one of 3 silos"),
        (OwnPartition("script:in_thirds", shufled=True), ConfigError, "did you mean 'shuffled'?"),
        (OwnPartition(f"{FLOWER}DirichletPartitioner"), ConfigError, "needs arguments that the section does not give"),
        (OwnPartition(f"{FLOWER}DirichletPartitioner", alpha=-1), ConfigError, "raised ValueError"),
        (OwnPartition(f"{FLOWER}DirichletPartitoner", alpha=1), ConfigError, "did you mean 'DirichletPartitioner'?"),
        (OwnPartition("nowhere:deal"), ConfigError, "there is no module 'nowhere'"),
    ],
)
def test_what_a_function_does_wrong_is_told_in_one_line_without_a_record(
    config: OwnPartition, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=re.escape(said)) as refused:
        dealt(config)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "data.partition" in str(refused.value)


def test_a_partitioner_without_what_it_needs_says_which_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedmodel\[partition\]'"):
        dealt(OwnPartition(f"{FLOWER}IidPartitioner"))


def test_a_scenario_names_it_and_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "deal.py").write_text(
        "import numpy as np\n\ndef by_label(labels, silos, seed, first=0):\n"
        "    return np.array_split(np.argsort(labels, kind='stable')[::-1], silos)\n"
    )
    file = tmp_path / "tiny.toml"
    file.write_text(f'{TINY}use = "deal:by_label"\nfirst = 1\n')
    prepared = prepare(file, (), "in-process", "cpu", tmp_path / "run")
    scenario = prepared.scenario
    assert scenario.own_code == {"data.partition.use": "deal:by_label"}
    assert scenario_from_json(scenario.model_dump_json()) == scenario
    assert [silo_records(scenario, silo).y_N.mean() for silo in SILOS] == [1.0, 0.5, 0.0]
    # Another function of the same name, in a notebook for one.
    (tmp_path / "deal.py").write_text("def by_label(labels, silos, first):\n    return [[], [], range(len(labels))]\n")
    with pytest.raises(DataError, match="kind 'own' gives silo 'north' 0 records"):
        prepare(file, (), "in-process", "cpu", tmp_path / "run")
    with pytest.raises(ConfigError, match=r"arguments are text, numbers"):
        read_scenario(str(file), ["data.partition.first=2026-01-01"])


def test_no_deployed_silo_deals_by_it() -> None:
    scenario = read_scenario("quickstart", ['data.partition={use="script:in_thirds"}', "seed=1"])
    own_code.close()
    with pytest.raises(ConfigError, match="a deployed silo runs no code for it"):
        check_scenario(scenario, deployed=True)
    law: Any = type("Law", (), {"name": scenario.federation.silos[0]})
    with pytest.raises(ConfigError, match="a deployed silo runs no code for it"):
        check_deployed(scenario, law, Path("nowhere"))
    with pytest.raises(ConfigError, match="nothing here was told to run"):
        held_out_records(scenario)
    assert SyntheticConfig(source="synthetic", held_out=0.5).why_not_deployed() is None


def test_it_is_written_as_it_is_read() -> None:
    config = OwnPartition(f"{FLOWER}DirichletPartitioner", alpha=0.3, min_records=5)
    source = SyntheticConfig(source="synthetic", held_out=0.5, partition=config)
    assert data_from_json(source.model_dump_json()) == source
