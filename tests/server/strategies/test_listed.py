"""A deployed server imports a strategy of a user's own from the very files that its server.toml approved of."""

from __future__ import annotations

import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedmodel.config import Scenario, read_scenario
from fedmodel.config.own_packages import StrategyPackage
from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from fedmodel.system.packages import package_hash
from scenarios.deployment import rehearsal
from scenarios.deployment.networks import loopback
from server import server_app
from server.strategies import _listed, check_listed_strategy, strategy_of
from tests import packaged

STEPS = """
from ownsteps.parts import half


class Half:
    def apply(self, model, mean, state):
        return model + half(mean), state
"""
FILES = {
    "ownsteps/__init__.py": "",
    "ownsteps/steps.py": STEPS,
    "ownsteps/parts.py": "def half(mean):\n    return mean * 0.5\n",
}
USE = "ownsteps.steps:Half"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    packaged.install(tmp_path, "own-steps", "0.3", FILES)
    with packaged.on_the_path(tmp_path):
        own_code.open_to_all()
        yield tmp_path
    own_code.close()
    _listed._imported.clear()


@pytest.fixture
def scenario(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), [f"federation.strategy={USE}"])


def approved(version: str = "0.3", sha256: str = "") -> dict[str, StrategyPackage]:
    return {"own-steps": StrategyPackage(version=version, sha256=sha256 or package_hash("own-steps", version))}


def test_what_was_approved_is_imported(site: Path, scenario: Scenario) -> None:
    check_listed_strategy(scenario, approved())
    model_P, _ = strategy_of(scenario).apply(np.zeros(2, np.float32), np.ones(2, np.float32), b"")
    assert model_P.tolist() == [0.5, 0.5]
    check_listed_strategy(scenario, approved())


def test_one_on_board_needs_no_package(tiny_file: Path) -> None:
    check_listed_strategy(read_scenario(str(tiny_file), ["federation.strategy=fedadam"]), {})


@pytest.mark.parametrize("file", ["ownsteps/steps.py", "ownsteps/parts.py", "ownsteps/late.py"])
def test_a_byte_that_differs_refuses_a_run_before_anything_is_asked(
    file: str, site: Path, scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    law = SimpleNamespace(strategy_packages=approved())
    with (site / file).open("a") as changed:
        changed.write("\n")
    monkeypatch.setattr(server_app, "read_server_law", lambda _: law)
    run_dir, nobody = tmp_path / "run", Any
    run_dir.mkdir()
    with pytest.raises(ConfigError, match=f"{USE}': the files of package own-steps 0.3 on .*: install the") as refused:
        server_app.run_federation(nobody, scenario, run_dir, torch.device("cpu"), home=tmp_path, run=1)  # type: ignore[arg-type]  # whom nothing is asked
    assert "\n" not in str(refused.value)
    assert list(run_dir.iterdir()) == []
    assert "ownsteps" not in sys.modules


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (dict, r"is code of no package that server.toml lists under \[strategy_packages\] \(none is\)"),
        (lambda: approved("0.4", "0" * 64), "own-steps is listed in version 0.4, and 0.3 is installed here"),
        (lambda: approved(sha256="0" * 64), r"have hash [0-9a-f]{64}, and server.toml lists 0{64}"),
        (lambda: {"no-such": approved()["own-steps"]}, "no-such 0.3 is listed, and not installed here"),
    ],
)
def test_what_was_not_approved_is_one_line(listed: Any, words: str, site: Path, scenario: Scenario) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        check_listed_strategy(scenario, listed())
    assert "\n" not in str(refused.value)


def test_a_rehearsal_lists_the_package_that_is_installed_and_refuses_a_strategy_of_none(
    site: Path, scenario: Scenario, tiny_file: Path
) -> None:
    found = rehearsal._federation(scenario, loopback(), {})
    assert (found.strategy_packages, found.packages) == ({"own-steps": "0.3"}, {})
    beside = read_scenario(str(tiny_file), ["federation.strategy=mine:Half"])
    with pytest.raises(ConfigError, match="of no installed package, and a deployed server imports nothing else"):
        rehearsal._federation(beside, loopback(), {})


def test_a_module_of_its_name_from_elsewhere_is_refused(site: Path, scenario: Scenario) -> None:
    hiding = site / "hiding"
    packaged.install(hiding, "others", "1.0", {**FILES, "ownsteps/parts.py": "half = abs\n"})
    with packaged.on_the_path(hiding), pytest.raises(ConfigError, match="which is no file of package own-steps"):
        check_listed_strategy(scenario, approved())


def test_a_compiled_copy_beside_a_source_is_not_read(site: Path, scenario: Scenario) -> None:
    source = site / "ownsteps" / "parts.py"
    written, honest = source.stat(), source.read_text()
    source.write_text(honest.replace("0.5", "9.5"))
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    source.write_text(honest)
    assert source.stat().st_size == written.st_size
    check_listed_strategy(scenario, approved())
    model_P, _ = strategy_of(scenario).apply(np.zeros(1, np.float32), np.ones(1, np.float32), b"")
    assert model_P.tolist() == [0.5]


def test_a_package_that_was_changed_since_it_was_imported_asks_for_another_process(
    site: Path, scenario: Scenario
) -> None:
    check_listed_strategy(scenario, approved())
    (site / "ownsteps" / "parts.py").write_text("def half(mean):\n    return mean * 9.5\n")
    with pytest.raises(ConfigError, match=r"this process has imported package own-steps .* start the server again"):
        check_listed_strategy(scenario, approved())
