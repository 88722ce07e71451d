"""Persons and clients: contributions are capped, persons are dealt whole, and the unit's epsilon is accounted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmodel import plans
from fedmodel.config import read_scenario
from fedmodel.data import Records, silo_records
from fedmodel.data.records import _deal, _deal_key
from fedmodel.errors import ConfigError
from fedmodel.ledger import read_ledger
from fedmodel.privacy import accounting
from fedmodel.privacy.events import realised_rate
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.noise import OsNoise
from scenarios.cli import main

OF_DIGITS = ["data.source=digits", "data.records=", "data.features="]
PERSONS = ["data.records_per_person=4", "privacy.unit=person", "privacy.max_records=2", "data.partition.min_records=5",
           "data.records=300"]  # fmt: skip


def records_of(persons: list[int]) -> Records:
    count = len(persons)
    return Records(np.arange(count, dtype=np.float32)[:, None], np.arange(count), np.array(persons, dtype=np.int64))


@given(persons=st.lists(st.integers(0, 6), max_size=40), k=st.integers(1, 4), gone=st.integers(0, 6))
def test_taking_a_person_away_takes_at_most_k_records_and_changes_no_other(
    persons: list[int], k: int, gone: int
) -> None:
    everyone = records_of(persons)
    kept = set(everyone.capped("person", k).y_N)
    without = everyone.take(np.flatnonzero(everyone.person_N != gone))
    kept_without = set(without.capped("person", k).y_N)
    assert kept_without <= kept
    assert {persons[row] for row in kept - kept_without} <= {gone}
    assert len(kept - kept_without) == min(k, persons.count(gone))
    assert all(count <= k for count in Counter(persons[row] for row in kept).values())


@pytest.mark.parametrize("k", [1, 3, 100])
def test_a_client_uses_at_most_k_of_its_records(k: int) -> None:
    assert len(records_of([1, 1, 2, 3, 3]).capped("client", k)) == min(5, k)
    assert len(records_of([1, 1, 2, 3, 3]).capped("record", 1)) == 5


def test_persons_are_dealt_whole(tiny_file: Path) -> None:
    scenario = read_scenario(str(tiny_file), PERSONS)
    held_out, parts = _deal(*_deal_key(scenario))
    owners = [set(part.person_N) for part in (held_out, *parts)]
    assert sum(len(part.person_N) for part in (held_out, *parts)) == 300
    assert all(not one & other for number, one in enumerate(owners) for other in owners[:number])
    counts = Counter(np.concatenate([part.person_N for part in parts]))
    assert set(counts.values()) == {1, 2, 3, 4}
    for silo, part in zip(scenario.federation.silos, parts, strict=True):
        capped = Counter(silo_records(scenario, silo).person_N)
        assert capped == {person: min(2, count) for person, count in Counter(part.person_N).items()}


def test_records_of_one_each_are_dealt_as_ever(tiny_file: Path) -> None:
    """The unit of a record does not hang on how persons are dealt: frozen before there were any."""
    parts = [silo_records(read_scenario(str(tiny_file)), silo) for silo in ("north", "south", "west")]
    assert [len(part) for part in parts] == [23, 26, 41]
    assert [int(part.y_N.sum()) for part in parts] == [15, 11, 19]


@pytest.mark.parametrize(("unit", "k"), [("person", 2), ("client", 30)])
def test_a_run_accounts_for_the_unit_that_it_claims(
    unit: str,
    k: int,
    tiny_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [*PERSONS, f"privacy.unit={unit}", f"privacy.max_records={k}", "privacy.sample_rate=0.1",
                "privacy.noise_multiplier=20.0"]  # fmt: skip
    arguments = [word for setting in settings for word in ("--set", setting)]
    monkeypatch.setattr(
        "sys.argv", ["fedmodel", "simulate", str(tiny_file), *arguments, "--out", "r", "--json", "--no-report"]
    )
    with pytest.raises(SystemExit) as ended:
        main.main()
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    row = json.loads(out)["privacy"][0]
    event = DpSgdEvent(20.0, 1.0, 0.1, 4, 10, max_records=k)
    assert (row["unit"], row["max_records"], row["steps"]) == (unit, k, 4)
    assert (
        row["epsilon"]
        == accounting.epsilon([event], 1e-3)
        > 2 * accounting.epsilon([DpSgdEvent(20.0, 1.0, 0.1, 4, 10)], 1e-3)
    )
    standing = read_ledger(tmp_path / "r" / "ledgers" / "north.sqlite")
    assert list(standing.scopes) == [f"synthetic/{unit}-{k}"]
    assert {event.max_records for event in standing.events(f"synthetic/{unit}-{k}")} == {k}


def test_a_target_is_calibrated_for_the_unit(tiny_file: Path) -> None:
    settings = [*PERSONS, "privacy.noise_multiplier=", "privacy.epsilon=2.0"]
    plan = read_scenario(str(tiny_file), settings).plan("north")
    noise = plans.noise_multiplier(plan)
    assert accounting.epsilon([DpSgdEvent(noise, 1.0, 0.5, 4, 10, max_records=2)], 1e-3) <= 2.0
    assert accounting.epsilon([DpSgdEvent(noise * 0.999, 1.0, 0.5, 4, 10, max_records=2)], 1e-3) > 2.0
    alone = accounting.calibrate(2.0, 1e-3, 0.5, 4)
    assert noise > 1.4 * alone


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["privacy.unit=person"], "max_records, the most records of one unit that are trained on, is given"),
        (["privacy.max_records=2"], "and only then; found unit = 'record' with 2"),
        (["privacy.unit=person", "privacy.max_records=0"], "privacy.max_records = 0 is not accepted"),
        (["privacy.unit=person", "privacy.max_records=2", *OF_DIGITS], "do not say who wrote them"),
        ([*OF_DIGITS, "data.records_per_person=2"], "data.records_per_person does not belong to source = 'digits'"),
    ],
)
def test_a_unit_that_cannot_be_is_refused(settings: list[str], reason: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read_scenario(str(tiny_file), settings)
    assert reason in str(refused.value)


@pytest.mark.parametrize("rate", [0.5, 0.1, 1 / 3, 1e-9, 1.0])
def test_the_rate_that_is_accounted_is_the_one_that_is_drawn(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler takes a record if its word is under a threshold: the largest word that it takes says the rate."""
    threshold = int(realised_rate(rate, "os") * 2**64) if rate < 1 else 2**64
    words = [max(threshold - 1, 0), min(threshold, 2**64 - 1)]
    monkeypatch.setattr("fedmodel.privacy.noise._drawn", lambda _, kind: np.array(words, dtype=kind))
    taken = list(OsNoise().lot(2, rate))
    assert taken == ([0, 1] if rate == 1.0 else [0])
    assert DpSgdEvent(1.0, 1.0, rate, 1, 1).realised_sample_rate == realised_rate(rate, "os") <= rate
    event = DpSgdEvent(1.0, 1.0, 0.3, 10, 1)
    more = DpSgdEvent(1.0, 1.0, 0.3, 10, 1, realised_sample_rate=0.6)
    assert accounting.epsilon([more], 1e-5) == accounting.epsilon([DpSgdEvent(1.0, 1.0, 0.6, 10, 1)], 1e-5)
    assert accounting.epsilon([more], 1e-5) > accounting.epsilon([event], 1e-5)
