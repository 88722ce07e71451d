"""Options of a strategy are what its file declares, and what is looked for under another name is told where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmodel.config import read_scenario, scenario_from_json, scenario_to_toml
from fedmodel.errors import ConfigError
from fedmodel.provision import scenario_hash
from scenarios.runs.used import used_kinds
from scenarios.simulation.simulate import check_scenario
from server.strategies import KINDS, options_of, strategy_of

ROOT = Path(__file__).parents[3]
FIVE = ['federation.silos=["a","b","c","d","e"]', "federation.min_silos=5"]
ON = ["encryption.secure_aggregation=on", "encryption.bound=50.0", "encryption.colluding=0"]
SIMULATED = ["encryption.secure_aggregation=simulated", "encryption.bound=50.0"]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (["fedadamm"], "unknown strategy 'fedadamm'; did you mean 'fedadam'?"),
        (["fedprox"], "FedProx is what silos do, under any strategy: .* set training.proximal to its mu"),
        (["fedtrimmedavg"], "it is 'trimmed-mean' here"),
        (["fedadam", "etta = 0.1"], r"federation.strategy_options.etta is not a known key; did you mean 'eta'\?"),
        (["fedadam", "eta_l = 0.1"], "federation.strategy_options.eta_l: that is training.learning_rate here"),
        (
            ["fedadam", "eta = 0"],
            r"federation.strategy_options.eta = 0 is not accepted: input should be greater",
        ),
        (["fedadam", "beta_2 = 1.0"], "strategy_options.beta_2 = 1.0 is not accepted: input should be less than 1"),
        (["fedadam", "tau = 'x'"], "strategy_options.tau = 'x' is not accepted: input should be a valid number"),
        (["fedadam", "tau = true"], "strategy_options.tau = True is not accepted"),
        (["fedadagrad", "beta_1 = 0.9"], "strategy_options.beta_1 is not a known key; did you mean"),
        (["fedavg", "eta = 0.1"], "strategy 'fedavg' takes no options; leave federation.strategy_options out"),
        (["median", "beta = 0.1"], "strategy 'median' takes no options"),
        (["trimmed-mean", "beta = 0.5"], "strategy_options.beta = 0.5 is not accepted: input should be less than 0.5"),
        (["krum", "num_malicious_nodes = 1.5"], "num_malicious_nodes = 1.5 is not accepted"),
    ],
)
def test_an_option_or_a_name_that_is_none_is_refused_in_one_line(
    settings: list[str], found: str, tiny_file: Path
) -> None:
    name, said = settings[0], "".join(settings[1:])
    scenario = read_scenario(str(tiny_file), [f"federation.strategy={name}", f"federation.strategy_options={{{said}}}"])
    with pytest.raises(ConfigError, match=found) as refused:
        check_scenario(scenario)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("eta = [0.1]", "strategy_options: eta is a list; an option is a number, true, false or a text"),
        ("eta = nan", "strategy_options.eta"),
        ("Eta = 0.1", "strategy_options"),
        ('eta = "a\\u202eb"', "strategy_options.eta"),
    ],
)
def test_an_option_is_a_plain_value_by_a_plain_name(said: str, found: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=found):
        read_scenario(str(tiny_file), [f"federation.strategy_options={{{said}}}"])


def test_options_are_in_the_text_and_the_hash_where_they_are_said_and_nowhere_else(
    tiny_file: Path, tmp_path: Path
) -> None:
    plain = read_scenario(str(tiny_file), ["federation.strategy=fedadam"])
    assert "strategy_options" not in plain.model_dump_json()
    said = read_scenario(
        str(tiny_file), ["federation.strategy=fedadam", "federation.strategy_options={eta = 1, tau = 0.5}"]
    )
    assert scenario_hash(said) != scenario_hash(plain)
    (tmp_path / "again.toml").write_text(scenario_to_toml(said), encoding="utf-8")
    assert read_scenario(str(tmp_path / "again.toml")) == said
    assert scenario_from_json(said.model_dump_json(exclude_none=True)) == said


def test_what_a_run_used_names_the_options_those_by_default_too(tiny_file: Path) -> None:
    said = read_scenario(str(tiny_file), ["federation.strategy=fedadam", "federation.strategy_options={eta = 0.5}"])
    (used,) = [one for one in used_kinds(said) if one.what == "strategy"]
    assert used.name == "fedadam"
    assert used.says.startswith("FedAdam: the model moves by")
    assert used.settings == "eta = 0.5, tau = 0.001, beta_1 = 0.9, beta_2 = 0.99"
    (used,) = [one for one in used_kinds(read_scenario(str(tiny_file))) if one.what == "strategy"]
    assert used.settings == ""


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "krum"])
@pytest.mark.parametrize(("mode", "why"), [(ON, "leaves the server their sum alone"), (SIMULATED, "what masks would")])
def test_what_looks_at_single_updates_is_refused_where_they_are_hidden(
    name: str, mode: list[str], why: str, tiny_file: Path
) -> None:
    settings = [*FIVE, f"federation.strategy={name}"]
    strategy_of(read_scenario(str(tiny_file), settings))
    with pytest.raises(ConfigError, match=f"'{name}' looks at each silo's own update, and .*{why}"):
        check_scenario(read_scenario(str(tiny_file), [*settings, *mode]))


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_a_strategy_of_means_needs_no_single_update(name: str, tiny_file: Path) -> None:
    strategy_of(read_scenario(str(tiny_file), [*FIVE, *ON, f"federation.strategy={name}"]))


@pytest.mark.parametrize(
    ("name", "said", "least"),
    [
        ("median", "", 3),
        ("trimmed-mean", "", 5),
        ("trimmed-mean", "beta = 0.4", 3),
        ("krum", "", 3),
        ("krum", "num_malicious_nodes = 1", 5),
    ],
)
def test_a_round_too_small_for_a_strategy_may_not_count(name: str, said: str, least: int, tiny_file: Path) -> None:
    settings = [*FIVE, f"federation.strategy={name}", f"federation.strategy_options={{{said}}}"]
    strategy_of(read_scenario(str(tiny_file), [*settings, f"federation.min_silos={least}"]))
    with pytest.raises(ConfigError, match=f"set min_silos to {least} or more"):
        strategy_of(read_scenario(str(tiny_file), [*settings, f"federation.min_silos={least - 1}"]))


def test_weights_that_would_not_be_counted_are_refused(tiny_file: Path) -> None:
    settings = [*FIVE, "federation.strategy=median"]
    strategy_of(read_scenario(str(tiny_file), [*settings, "federation.weights={a=2.0,b=2.0,c=2.0,d=2.0,e=2.0}"]))
    with pytest.raises(ConfigError, match=r"federation\.weights are unequal; leave them out"):
        strategy_of(read_scenario(str(tiny_file), [*settings, "federation.weights={a=2.0}"]))


def test_every_option_stands_in_the_docs_with_its_default(tiny_file: Path) -> None:
    page = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    for name in KINDS:
        scenario = read_scenario(str(tiny_file), [*FIVE, f"federation.strategy={name}"])
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        for option, value in options_of(scenario).model_dump().items():
            assert f"`{option} = {value}`" in row
