"""A strategy of the user's own: run as one on board, taken up again with its state, refused in one line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from fedmodel.config import Scenario, read_scenario, scenario_from_json, scenario_to_toml
from fedmodel.errors import ConfigError, ProtocolError
from fedmodel.kinds import own_code
from fedmodel.provision import check_listed, scenario_hash
from scenarios.audit import planning
from scenarios.runs.used import used_kinds
from scenarios.simulation.prepared import prepare
from scenarios.simulation.simulate import check_scenario
from server.journal import Checkpoint, Journal
from server.server_app import run_federation
from server.strategies import strategy_of
from tests.conftest import TINY
from tests.server.strategies.test_strategies import CPU, RUN, Killed, numbered

MODULE = """
import numpy as np


class Momentum:
    # As FedAvgM, in its own words.
    BY_COORDINATE = True

    def __init__(self, momentum=0.9):
        self.momentum = momentum

    def apply(self, model, mean, state):
        before = np.frombuffer(state, "<f4").astype(np.float64) if state else 0.0
        velocity = (self.momentum * before + mean.astype(np.float64)).astype(np.float32)
        step = self.momentum * before + mean.astype(np.float64)
        return (model + step).astype(np.float32), velocity.astype("<f4").tobytes()


class Turns(Momentum):
    def choose(self, silos, number):
        return silos[number % 2 :]


class Middle:
    def combine(self, updates):
        return np.median(np.stack(list(updates.values())), axis=0)

    def apply(self, model, mean, state):
        return model + mean, state


class Keeps(Momentum):
    rounds = 0

    def apply(self, model, mean, state):
        self.rounds += 1
        return model + mean * self.rounds, state


class Draws(Momentum):
    def apply(self, model, mean, state):
        return model + mean * np.float32(np.random.default_rng().random()), state


class Bounded(Momentum):
    # What its step is bounded to hangs on all coordinates.
    def __init__(self, most):
        self.most = most

    def apply(self, model, mean, state):
        return model + mean * np.float32(min(1.0, self.most / np.linalg.norm(mean))), state


class Odd(Momentum):
    def apply(self, model, mean, state):
        return model + mean * (np.arange(len(mean)) % 2 == 0), state


class Later(Momentum):
    def apply(self, model, mean, state):
        return model + mean * np.float32(1.0 if not state else model.std()), b"second"


class OfOneLength(Momentum):
    def apply(self, model, mean, state):
        if len(model) not in (5, 20):
            raise ValueError("hidden-word")
        return model + mean, state


class Bare:
    pass


class Bad(Momentum):
    def __init__(self, what):
        self.what = what

    def choose(self, silos, number):
        few = {"none": [], "twice": silos[:1] * 2, "strange": ["east"], "few": silos[:1], "no list": 3}
        return few.get(self.what, silos)

    def apply(self, model, mean, state):
        if self.what == "raises":
            raise RuntimeError("hidden-word")
        if self.what == "leaves":
            raise SystemExit(0)
        return {
            "model alone": model,
            "no bytes": (model, "state"),
            "as much as may be": (model, bytes(1_000_000 + 64 * len(model))),
            "too much": (model, bytes(1_000_001 + 64 * len(model))),
            "more and more": (model, state + bytes(700_000)),
            "longer": (np.append(model, 0.0), state),
            "whole numbers": (np.zeros(len(model), np.int64), state),
            "a list": (list(model), state),
            "no number": (model + np.nan, state),
            "too large": (np.full(len(model), 1e300), state),
            "a column": (model[:, None], state),
        }[self.what]


def nothing():
    return None


def a_class():
    return Momentum


thing = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A scenario beside a module with strategies."""
    (tmp_path / "mine.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "s.toml").write_text(TINY, encoding="utf-8")
    yield tmp_path / "s.toml"
    own_code.close()


def named(file: Path, name: str, options: str = "", *more: str) -> Scenario:
    settings = [f"federation.strategy={name}", f"federation.strategy_options={{{options}}}", *more]
    return read_scenario(str(file), settings)


def opened(file: Path, name: str, options: str = "", *more: str) -> Scenario:
    scenario = named(file, name, options, *more)
    own_code.open_to_all(file.parent)
    return scenario


def run(file: Path, out: Path, *settings: str) -> dict[str, Any]:
    prepared = prepare(file, ["rounds=3", "privacy.noise=seeded-unsafe", *settings], "in-process", "cpu", out)
    with prepared.held() as run_dir:
        return prepared.run(run_dir, nullcontext())


def test_one_that_computes_as_one_on_board_comes_to_the_same_model(file: Path, tmp_path: Path) -> None:
    summary = run(file, tmp_path / "own", 'federation.strategy="mine:Momentum"')
    run(file, tmp_path / "board", "federation.strategy=fedavgm")
    own, board = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("own", "board"))
    header = int.from_bytes(own[:8], "little")  # which names the scenario's hash
    assert own[8 + header :] == board[8 + int.from_bytes(board[:8], "little") :]
    assert summary["used"]["strategy"] == "mine:Momentum"
    (row,) = summary["own_code"]
    assert (row["key"], row["use"], len(row["sha256"])) == ("federation.strategy", "mine:Momentum", 64)
    own_code.close()
    stored = read_scenario(str(tmp_path / "own" / "scenario.toml"))
    used = {one.what: one for one in used_kinds(stored)}["strategy"]
    assert (used.name, used.says) == ("mine:Momentum", "Code of the user's own, at the server alone.")
    assert "mine" not in sys.modules  # whoever reads a run imports nothing of it


def test_the_pages_example_runs(file: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "strategies.md").read_text(encoding="utf-8")
    (module,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (keys,) = (one for one in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "mine:" in one)
    (file.parent / "mine.py").write_text(module, encoding="utf-8")
    text = TINY.replace("[federation]\n", f"[federation]\n{keys}")
    assert "mine:Clipped" in text
    file.write_text(text, encoding="utf-8")
    assert run(file, tmp_path / "r")["rounds_completed"] == 3


def test_it_chooses_where_it_says_so_and_by_the_seed_where_not(file: Path, tmp_path: Path) -> None:
    run(file, tmp_path / "r", 'federation.strategy="mine:Turns"', "federation.min_silos=2")
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [line["cohort"] for line in lines] == [["south", "west"], ["north", "south", "west"], ["south", "west"]]
    plain, own = (
        opened(file, "fedavg", "", "federation.cohort=2"),
        named(file, "mine:Momentum", "", "federation.cohort=2"),
    )
    silos = plain.federation.silos
    assert [strategy_of(own).choose(silos, one) for one in range(1, 6)] == [
        strategy_of(plain).choose(silos, one) for one in range(1, 6)
    ]


def test_a_server_that_is_killed_goes_on_with_its_state(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = opened(file, "mine:Momentum", "momentum = 0.5", "rounds=3", "privacy.noise=seeded-unsafe")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    run_federation(numbered(scenario, tmp_path / "whole"), scenario, tmp_path / "whole", CPU, run=RUN)
    keep = Journal.keep

    def killed(self: Journal, told: Checkpoint, *dealt: object) -> None:
        keep(self, told, *dealt)  # type: ignore[arg-type]
        if told.round_number == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", killed)
        with pytest.raises(Killed):
            run_federation(numbered(scenario, tmp_path / "killed"), scenario, tmp_path / "killed", CPU, run=RUN)
    own_code.open_to_all(file.parent)  # as in another process: the module is read anew
    run_federation(numbered(scenario, tmp_path / "killed"), scenario, tmp_path / "killed", CPU, run=RUN)
    whole, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == resumed


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("mine:Momentun", "", "mine has no 'Momentun'; did you mean 'Momentum'?"),
        ("nowhere:Momentum", "", "there is no module 'nowhere'"),
        ("mine:Momentum", "momentun = 0.5", r"^federation\.strategy_options\.momentun is no .*; did you mean"),
        ("mine:Bad", "", r"needs arguments .*; add them as keys of \[federation\.strategy_options\], or give them"),
        ("mine:thing", "", "is a int; name a function or a class"),
        ("mine:nothing", "", r"returned a NoneType, where an object with a method apply\(model, mean, state\)"),
        ("mine:a_class", "", "returned the class Momentum itself"),
        ("mine:Bare", "", "returned a Bare, where an object with a method apply"),
        ("mine:Keeps", "", "makes something else of the same silos and means when asked again"),
        ("mine:Draws", "", "makes something else of the same silos and means when asked again"),
        ("mine:Bounded", "most = 0.01", "says BY_COORDINATE = True, and of some coordinates alone they come to"),
        ("mine:Bounded", "most = 1.0", "says BY_COORDINATE = True, and of some coordinates alone they come to"),
        ("mine:Odd", "", "says BY_COORDINATE = True, and of some coordinates alone they come to something else"),
        ("mine:Later", "", "says BY_COORDINATE = True, and of some coordinates alone they come to something else"),
        ("mine:OfOneLength", "", "BY_COORDINATE = True, and of some coordinates alone apply raised ValueError in line"),
        *(
            ("mine:Bad", f'what = "{what}"', why)
            for what, why in {
                "none": "choose returned 0 names, where it returns silos, each once",
                "twice": "choose returned 2 names",
                "few": r"choose returned 1 of 3 silos that can be asked, where a round begins with 2 or more",
                "strange": "choose returned 'east', which is none of the silos that can be asked",
                "no list": "choose raised TypeError in line",
                "raises": "apply raised RuntimeError in line .* of mine.py",
                "leaves": "apply raised SystemExit in line",
                "model alone": "apply returned a ndarray, where it returns a model and a state",
                "no bytes": "apply returned a str for the state, where it returns bytes",
                "too much": "apply returned 1,000,321 bytes of state, where 64 for each of 5 parameters and a million",
                "more and more": "apply returned 1,400,000 bytes of state, where 64",
                "longer": r"returned float64 of shape \(6,\), where a vector of 5 real numbers is needed",
                "whole numbers": "apply returned int64 of shape",
                "a list": "apply returned list, where a vector of 5 real numbers",
                "no number": "apply returned values that are not finite in float32; take smaller steps",
                "too large": "apply returned values that are not finite in float32",
                "a column": r"float32 of shape \(5, 1\)",
            }.items()
        ),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_written(name: str, options: str, why: str, file: Path) -> None:
    scenario = opened(file, name, options)
    with pytest.raises(ConfigError, match=why) as refused:
        check_scenario(scenario)
    assert "\n" not in str(refused.value)
    assert "hidden-word" not in str(refused.value)
    assert name.partition(":")[0] in str(refused.value)


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_every_step_on_board_that_goes_by_coordinates_passes_for_one_of_a_users_own(name: str, file: Path) -> None:
    (file.parent / "mine.py").write_text(
        f"from server.strategies import KINDS, options_of\n\n\ndef made(scenario):\n"
        f"    federation = scenario.federation.model_copy(update={{'strategy': {name!r}}})\n"
        f"    scenario = scenario.model_copy(update={{'federation': federation}})\n"
        f"    return KINDS[{name!r}].make(scenario, options_of(scenario))\n",
        encoding="utf-8",
    )
    scenario = opened(file, "mine:made")
    assert strategy_of(scenario).BY_COORDINATE  # type: ignore[attr-defined]
    check_scenario(scenario)


def test_a_state_may_be_as_large_as_some_averages_of_a_model_and_a_million_bytes_more(file: Path) -> None:
    check_scenario(opened(file, "mine:Bad", 'what = "as much as may be"'))


def test_what_goes_wrong_later_ends_the_run_by_its_name(file: Path, tmp_path: Path) -> None:
    scenario = opened(file, "mine:Bad", 'what = "no number"')
    with pytest.raises(ProtocolError, match="'mine:Bad': apply returned values that are not finite"):
        run_federation(numbered(scenario, tmp_path), scenario, tmp_path, CPU, run=RUN)
    assert not (tmp_path / "model.safetensors").exists()


def test_one_that_looks_at_single_updates_is_refused_where_masks_hide_them(file: Path) -> None:
    scenario = opened(file, "mine:Middle", "", "encryption.secure_aggregation=simulated", "encryption.bound=50.0")
    with pytest.raises(ConfigError, match="'mine:Middle' looks at each silo's own update"):
        check_scenario(scenario)
    check_scenario(named(file, "mine:Middle"))


def test_no_silo_needs_it_and_a_process_that_was_not_opened_does_not_run_it(file: Path) -> None:
    scenario = named(file, "mine:Momentum", "momentum = 0.5")
    assert scenario.own_code == {"federation.strategy": "mine:Momentum"}
    assert scenario.silos_code == {}
    check_listed(scenario, {})
    with pytest.raises(ConfigError, match="which nothing here was told to run"):
        strategy_of(scenario)
    assert scenario_hash(scenario) != scenario_hash(read_scenario(str(file)))
    (file.parent / "again.toml").write_text(scenario_to_toml(scenario), encoding="utf-8")
    assert read_scenario(str(file.parent / "again.toml")) == scenario
    assert scenario_from_json(scenario.model_dump_json(exclude_none=True)) == scenario


def test_an_audit_follows_one_that_says_that_it_moves_coordinate_by_coordinate(file: Path) -> None:
    full = ["rounds=4", "privacy.sample_rate=1.0", "privacy.expected_batch_size=20", "privacy.noise_multiplier=3.0"]
    plan = planning.planned(opened(file, "mine:Momentum", "", *full), 600, "probe", 0.05)[1]
    assert plan.power >= plan.least_power
    for name, why in (("mine:Middle", "something else than their mean"), ("mine:Silent", "by others, and an audit")):
        with (file.parent / "mine.py").open("a", encoding="utf-8") as module:
            module.write("\n\nclass Silent(Momentum):\n    BY_COORDINATE = 1\n")
        with pytest.raises(ConfigError, match=why):
            planning.planned(opened(file, name, "", *full), 600, "probe", 0.05)
