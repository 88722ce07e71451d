"""Runs with seeded noise are, bit for bit, what they were when `tests/vectors/digests.json` was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.digests import NOT_EVERYWHERE, RECORDED, SCENARIOS, differences, made_on, steady


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_with_seeded_noise_is_what_it_was(name: str, tmp_path: Path) -> None:
    recorded = json.loads(RECORDED.read_text())["made_on"]
    if recorded != made_on():
        pytest.skip(
            f"the digests are of {recorded}; check out the commit to compare with, and run there: "
            "python -m tests.digests record"
        )
    assert differences(name, tmp_path / "run") == []


def test_every_shipped_scenario_is_recorded() -> None:
    recorded = json.loads(RECORDED.read_text())["scenarios"]
    shipped = {path.stem for path in (Path(__file__).parent.parent / "scenarios").glob("*.toml")}
    assert set(recorded) == set(SCENARIOS) == shipped - set(NOT_EVERYWHERE)
    for parts in recorded.values():
        assert {"model", "metrics", "summary", "report", "registry", "page"} < parts.keys()
        assert len([part for part in parts if part.startswith("ledger of")]) >= 2


def test_a_digest_leaves_out_times_and_keys_alone() -> None:
    def entry(sigma: float, time: str, key: str) -> object:
        return {"body": {"noise_multiplier": sigma, "key": key}, "time": f"2026-01-01T00:00:{time}+00:00"}

    assert steady(entry(1.5, "00.001", 64 * "a")) == steady(entry(1.5, "59.9", 64 * "b"))
    assert steady(entry(1.5, "00.001", 64 * "a")) != steady(entry(1.50000001, "00.001", 64 * "a"))
    assert steady("epsilon 1.25, 31 parameters, 4.1 s") == steady("epsilon 1.25, 31 parameters, 9.9 s")
    assert steady("epsilon 1.25, 31 parameters, 4.1 s") != steady("epsilon 1.26, 31 parameters, 4.1 s")
