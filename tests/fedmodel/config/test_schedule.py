"""A schedule's shares are over 0 and at most 1, the same for every silo of a round, and cost nothing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.silo import Silo
from fedmodel import plans
from fedmodel.config import Scenario, read_scenario, scenario_from_json, scenario_to_toml
from fedmodel.config.schedule import ScheduleConfig
from fedmodel.errors import ConfigError
from fedmodel.learning.magnitude import step_of
from fedmodel.learning.models import build_model
from fedmodel.learning.vectors import flatten
from fedmodel.provision import scenario_hash
from fedmodel.provision.influence import levels_of_noise
from fedmodel.secagg.quantize import Quantizer
from fedmodel.wire import TrainRequest
from server.usefulness import usefulness
from tests.fakes import trained
from tests.server.test_usefulness import CHARGES, CPU, linear, records

COSINE = ["rounds=4", "training.schedule.decay=cosine", "training.schedule.last=0.25"]
SHARES = [1.0, 0.25 + 0.75 * 0.75, 0.25 + 0.75 * 0.25, 0.25]  # of half a wave, at thirds of it


def scenario_of(tiny_file: Path, *settings: str) -> Scenario:
    return read_scenario(str(tiny_file), settings)


@given(
    st.sampled_from(["constant", "cosine", "linear"]),
    st.integers(0, 9),
    st.floats(1e-6, 1.0),
    st.integers(1, 12),
)
def test_shares_rise_to_one_and_fall_to_the_last(decay: str, warmed: int, last: float, more: int) -> None:
    told = {"last": last} if decay != "constant" else {"warm_up_rounds": warmed + 1}
    schedule = ScheduleConfig.model_validate({"decay": decay, "warm_up_rounds": warmed, **told})
    warmed, rounds = schedule.warm_up_rounds, schedule.warm_up_rounds + more
    shares = [schedule.share(number, rounds) for number in range(1, rounds + 1)]
    assert shares[: warmed + 1] == sorted(set(shares[: warmed + 1]))
    assert shares[warmed] == 1.0
    assert shares[warmed:] == sorted(shares[warmed:], reverse=True)
    assert shares[-1] == pytest.approx(1.0 if decay == "constant" or more == 1 else last, rel=1e-9)
    assert all(0 < share <= 1 for share in shares)


@pytest.mark.parametrize(("number", "share"), [*enumerate(SHARES, start=1)])
def test_a_silos_step_is_the_rounds_share_of_what_it_would_be(
    number: int, share: float, tiny_file: Path, tmp_path: Path
) -> None:
    """Of the same lot and the same noise, at the same charge."""
    plain, scheduled = (
        scenario_of(tiny_file, "privacy.noise=seeded-unsafe", "training.local_steps=1", *settings)
        for settings in (["rounds=4"], COSINE)
    )
    assert plans.planned_event(plain.plan("north")) == plans.planned_event(scheduled.plan("north"))
    event = plans.planned_event(plain.plan("north")).times(1)
    request = TrainRequest(number, flatten(build_model(plain.model, plain.data.shape, 1)))
    whole_P, part_P = (
        trained(Silo("north", scenario, "1", "cpu", tmp_path, tmp_path), event, request)
        for scenario in (plain, scheduled)
    )
    assert np.abs(whole_P).max() > 0.1
    assert part_P == pytest.approx(share * whole_P, rel=1e-3, abs=1e-6)


def test_the_smallest_step_is_the_one_that_must_not_be_rounded_away(tiny_file: Path) -> None:
    plain = scenario_of(tiny_file, "rounds=4")
    event = plans.planned_event(plain.plan("north"))
    quantizer = Quantizer(bound=1.0, ring_bits=32, cohort=3)
    whole, levels = step_of(plain, event), levels_of_noise(plain, "north", 2.0, quantizer)
    for settings, least in ((COSINE, 0.25), (["rounds=9", "training.schedule.warm_up_rounds=7"], 1 / 8)):
        scheduled = scenario_of(tiny_file, *settings)
        assert step_of(scheduled, event) == pytest.approx(least * whole)
        assert levels_of_noise(scheduled, "north", 2.0, quantizer) == pytest.approx(least * levels)


def test_what_is_looked_at_first_is_of_all_rounds_rates(tiny_file: Path) -> None:
    plain, scheduled = (
        usefulness(linear(1.0, 0.0), scenario_of(tiny_file, *settings), records([0, 1, 0, 1]), CHARGES, CPU)
        for settings in (["rounds=4"], COSINE)
    )
    assert scheduled["reach"] == pytest.approx(plain["reach"] * np.mean(SHARES))
    assert scheduled["noise_walk"] == pytest.approx(plain["noise_walk"] * math.sqrt(np.mean(np.square(SHARES))))


@pytest.mark.parametrize("settings", [COSINE, ["training.schedule.warm_up_rounds=1"]], ids=["falls", "warms up"])
def test_a_scenario_without_one_keeps_its_text_and_one_with_it_is_read_back(
    settings: list[str], tiny_file: Path
) -> None:
    assert "schedule" not in scenario_of(tiny_file).model_dump_json()
    scheduled = scenario_of(tiny_file, *settings)
    (tiny_file.parent / "again.toml").write_text(scenario_to_toml(scheduled), encoding="utf-8")
    for again in (
        scenario_from_json(scheduled.model_dump_json()),
        read_scenario(str(tiny_file.parent / "again.toml")),
    ):
        assert scenario_hash(again) == scenario_hash(scheduled)
        assert again.training.schedule == scheduled.training.schedule is not None


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (["training.schedule.decay=constant"], "says neither a decay nor warm_up_rounds"),
        (["training.schedule.warm_up_rounds=1", "training.schedule.last=0.5"], "last belongs to decay"),
        (["training.schedule.decay=cosine", "training.schedule.last=0.0"], "last = 0.0 is not accepted"),
        (["training.schedule.decay=step"], "decay = 'step' is not known; known: constant, cosine"),
        (["training.schedule.warm_up_rounds=2"], "warm_up_rounds = 2 leaves none of 2 rounds"),
        (["training.schedule.warm_up=2"], "did you mean 'warm_up_rounds'"),
        (
            [*COSINE, "training.proximal=0.1", "training.local_steps=", "training.local_epochs=1"],
            "say local_steps in place of local_epochs",
        ),
    ],
)
def test_a_schedule_that_could_not_work_is_refused(settings: list[str], found: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=found):
        scenario_of(tiny_file, *settings)


def test_a_pull_goes_with_a_schedule_where_all_silos_take_as_many_steps(tiny_file: Path) -> None:
    assert scenario_of(tiny_file, *COSINE, "training.proximal=0.1").training.schedule is not None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"decay": "cosine"}, "fell on half a cosine's wave, to 0.1 of its height in the last round"),
        ({"warm_up_rounds": 1}, "rose over 1 round"),
        (
            {"decay": "linear", "warm_up_rounds": 3, "last": 0.5},
            "rose over 3 rounds, and then fell on a line, to 0.5 of its height in the last round",
        ),
    ],
)
def test_a_report_says_how_the_rate_went(settings: dict[str, object], said: str) -> None:
    assert ScheduleConfig.model_validate(settings).described == said
