"""A run is handed in with what its code of the user's own was, so that nobody has to import that later."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code, pretrained
from fedmodel.provision import read_server_law
from fedmodel.system.packages import package_hash
from scenarios.deployment import runs
from scenarios.simulation.simulate import placed
from server import runs as handed_in
from server.strategies import _listed
from tests import packaged
from tests.bases import scenario_on
from tests.conftest import TINY
from tests.federations import MASKED, issued
from tests.server.strategies.test_listed import FILES, USE


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The kit of a server whose file lists the package of a strategy."""
    packaged.install(tmp_path / "site", "own-steps", "0.3", FILES)
    with packaged.on_the_path(tmp_path / "site"):
        federation = issued(tmp_path, 'strategy_packages = {own-steps = "0.3"}', TINY + MASKED)
        return federation.kit("server")


def test_a_run_is_handed_in_with_what_its_code_was(home: Path, tmp_path: Path) -> None:
    figure = "def share(answers, targets):\n    return 0.5\n"
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "ownfigure.py").write_text(figure)
    settings = [f"federation.strategy={USE}", 'metrics=["ownfigure:share"]']
    scenario = read_scenario(str(tmp_path / "tiny.toml"), settings)
    with packaged.on_the_path(tmp_path / "site"), packaged.on_the_path(tmp_path / "figures"):
        run, parameters = runs.submit(home, scenario)
        steps, figures = runs.named_of(run.folder)
        assert steps == {
            "key": "federation.strategy", "use": USE, "package": "own-steps", "version": "0.3",
            "sha256": package_hash("own-steps", "0.3"),
        }  # fmt: skip
        assert figures == {
            "key": "metrics[0]", "use": "ownfigure:share",
            "sha256": own_code.source_hash({"metrics[0]": "ownfigure:share"}),
        }  # fmt: skip
    own_code.close()
    _listed._imported.clear()
    noted = handed_in.checked_of(run.folder)
    assert noted is not None
    assert noted["parameters"] == parameters > 0


def test_of_a_run_without_code_of_the_users_own_nothing_is_noted(home: Path, tmp_path: Path) -> None:
    run, _ = runs.submit(home, read_scenario(str(tmp_path / "tiny.toml")))
    assert (handed_in.checked_of(run.folder), runs.named_of(run.folder)) == (None, [])


def test_a_run_on_a_base_is_handed_in_where_the_servers_own_copy_is_that_to_the_byte(tmp_path: Path) -> None:
    path = scenario_on(tmp_path, data={"folder": None, "held_out": None})
    home = issued(tmp_path, scenario=path.read_text()).kit("server")
    scenario = placed(read_scenario(str(path)))
    (own,) = read_server_law(home).bases.values()

    def refused(told: str) -> None:
        pretrained._loaded.cache_clear()  # as in another process
        with pytest.raises(ConfigError, match=told) as found:
            runs.submit(home, scenario)
        assert "\n" not in str(found.value)
        assert handed_in.folders(home) == []

    refused("the base cannot be read: No such file")
    (home / own).parent.mkdir(exist_ok=True)
    (tmp_path / "base").rename(home / own)
    (home / own / "pytorch_model.bin").touch()
    refused("the base has pytorch_model.bin, a pickle")
    (home / own / "pytorch_model.bin").unlink()
    config = (home / own / "config.json").read_bytes()
    (home / own / "config.json").write_bytes(config + b" ")
    refused("is asked for; put the very same files there")
    (home / own / "config.json").write_bytes(config)
    run, parameters = runs.submit(home, scenario)
    assert parameters == 2 * 128 + 33
    assert handed_in.folders(home) == [run.folder]
