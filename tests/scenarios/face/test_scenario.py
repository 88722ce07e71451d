"""A scenario as a script reads, edits and writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedmodel as fm
from fedmodel import config
from fedmodel.provision import scenario_hash


@pytest.mark.parametrize("name", sorted(config.builtin_scenarios()))
def test_what_is_written_and_read_back_has_the_same_hash(name: str, tmp_path: Path) -> None:
    scenario = fm.Scenario.read(name, ["seed=3"])
    again = fm.Scenario.read(scenario.write(tmp_path / "s.toml"))
    assert again == scenario
    assert again.hash == scenario.hash == scenario_hash(config.read_scenario(name, ["seed=3"])).hex()


def test_what_is_changed_is_another_scenario_and_the_first_stays(tiny_file: Path) -> None:
    scenario = fm.Scenario.read(tiny_file)
    text = scenario.toml()
    changed = scenario.with_(
        "training.learning_rate=0.25", rounds=7, privacy={"noise_multiplier": None, "epsilon": 2.0}
    )
    assert (changed.rounds, changed.training.learning_rate, changed.privacy.epsilon) == (7, 0.25, 2.0)
    assert changed.privacy.noise_multiplier is None
    assert changed.privacy.delta == scenario.privacy.delta
    assert scenario.toml() == text
    assert changed.hash != scenario.hash


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"privacy": {"epsilon": 2.0}}, "found both; nothing is guessed"),
        ({"privacy": {"delta": None}}, "privacy.delta is missing; a privacy claim needs"),
        ({"round": 3}, "round is not a known key; did you mean 'rounds'"),
        ({"rounds": "three"}, "rounds = 'three' is not accepted"),
    ],
)
def test_a_change_that_is_not_acceptable_is_one_line(tiny_file: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(fm.ConfigError, match=said) as caught:
        fm.Scenario.read(tiny_file).with_(**changes)
    assert "\n" not in str(caught.value)


def test_a_scenario_that_begins_from_a_file_keeps_its_place_and_is_written_with_it(
    tiny_file: Path, tmp_path: Path
) -> None:
    from safetensors.torch import save_file
    from torch import nn

    first = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    save_file(first.state_dict(), tmp_path / "mine.safetensors")
    init = {"file": str(tmp_path / "mine.safetensors"), "trained_on": "public"}
    scenario = fm.Scenario.read(tiny_file).with_(model={"init": init}).with_(rounds=1)
    assert scenario.start is not None
    assert scenario.start.file == init["file"]
    (tmp_path / "elsewhere").mkdir()
    again = fm.Scenario.read(scenario.write(tmp_path / "elsewhere" / "s.toml"))
    assert again.start is not None
    assert Path(again.start.file).read_bytes() == (tmp_path / "mine.safetensors").read_bytes()


def test_a_scenario_that_cannot_be_written_is_one_line(tiny_file: Path, tmp_path: Path) -> None:
    with pytest.raises(fm.ConfigError, match="the scenario cannot be written"):
        fm.Scenario.read(tiny_file).write(tmp_path / "not-there" / "s.toml")


def test_what_a_notebook_shows_of_it_says_the_claim_and_runs_nothing(tiny_file: Path) -> None:
    scenario = fm.Scenario.read(tiny_file, ["summary='<script>alert(1)</script>'", "privacy.noise=seeded-unsafe"])
    shown = scenario._repr_html_()
    assert "noise multiplier 2.0000 per record at delta 0.001" in shown
    assert "It protects nobody" in shown
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown


def test_it_prints_as_its_text_and_shows_in_a_line(tiny_file: Path) -> None:
    scenario = fm.Scenario.read(tiny_file, ["rounds=1"])
    assert str(scenario) == f"{scenario}" == scenario.toml()
    assert repr(scenario) == (
        "<Scenario tiny: 120 made-up records of 4 features, dealt out to silos; 3 silos, 1 round;"
        " noise multiplier 2.0000 per record at delta 0.001>"
    )
    asked = scenario.with_(privacy={"noise_multiplier": None, "epsilon": 2.0}, rounds=3)
    assert "3 rounds; epsilon 2.0000 per record" in repr(asked)
    assert "protects nobody" in repr(fm.Scenario.read(tiny_file, ["privacy.baseline=no-noise"]))
