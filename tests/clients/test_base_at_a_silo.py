"""A deployed silo whose base is none, or cannot be used: one line in its own log, a code for the server, no charge."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from fedmodel import wire
from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds import bases, pretrained
from fedmodel.learning.jobs._pipelines import forget_pipelines
from fedmodel.ledger import read_ledger
from scenarios.simulation.simulate import placed
from tests.bases import scenario_on
from tests.clients.test_client_app import ask
from tests.fakes import FaultyGrid, charged
from tests.federations import issued

_PARAMETERS = 2 * 128 + 33


def told(base: Path, **change: object) -> None:
    """Change what a base says of itself."""
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **change}))


class Ward:
    """Silo north, deployed, whose kit is unlocked and has texts and a copy of the base of its own."""

    def __init__(self, folder: Path, spoil: Callable[[Path], object] | None = None) -> None:
        path = scenario_on(folder, data={"folder": None, "held_out": None})
        if spoil is not None:
            spoil(folder / "base")
        federation = issued(folder, scenario=path.read_text())
        self.scenario, self.kit = placed(read_scenario(str(path))), federation.kit("north")
        for party in ("server", "north"):
            federation.unlock(party)
        self.grid = FaultyGrid(self.scenario, federation.root)
        law = tomllib.loads((self.kit / "silo.toml").read_text()) | {"tables": {"notes": {"files": "texts"}}}
        (own,) = law["bases"].values()
        self.base = self.kit / own
        for name, to in (("base", self.base), ("texts", self.kit / "texts")):
            to.parent.mkdir(exist_ok=True)
            (folder / name).rename(to)  # so that the scenario's maker has none, with whom a silo has nothing to do
        (self.kit / "silo.toml").write_text(tomli_w.dumps({**law, "device": "cpu"}))
        self.grid._contexts[2].node_config["home"] = str(self.kit)

    def joins(self) -> str:
        """Return how the silo refuses to join, empty where it does."""
        return self._code(wire.join_request(), wire.JOIN)

    def trains(self) -> str:
        """Return how the silo refuses to train, empty where it does, in what stands for a process of its own."""
        forget_pipelines()
        pretrained._loaded.cache_clear()
        request = wire.TrainRequest(1, np.zeros(_PARAMETERS, np.float32))
        return self._code(wire.train_request(request), wire.TRAIN)

    def _code(self, content: object, kind: str) -> str:
        reply = ask(self.grid, content, kind)  # type: ignore[arg-type]
        return wire.refusal_code(reply.error) if reply.has_error() else ""

    def log(self) -> list[str]:
        """Return what stands in its log."""
        files = (self.kit / "logs").glob("*.log")
        return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]

    @property
    def ledger(self) -> Path:
        return self.kit / "ledgers" / "north.sqlite"


def _is_short_of_memory(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "available", lambda: 100_000)


SPOILT: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], object], str]] = {
    "a pickle": (
        lambda at, _: (at / "model.safetensors").rename(at / "pytorch_model.bin"),
        "the base has pytorch_model.bin, a pickle, which runs code when it is read",
    ),
    "code": (lambda at, _: (at / "modeling_mine.py").touch(), "the base has modeling_mine.py, code"),
    "code elsewhere": (
        lambda at, _: told(at, auto_map={"AutoModel": "mine.Model"}), "names code by auto_map, which is never run"
    ),
    "no tokenizer": (lambda at, _: (at / "tokenizer.json").unlink(), "the base has no tokenizer.json"),
    "another architecture": (lambda at, _: told(at, model_type="gpt2"), "is asked for; put the very same files there"),
    "a byte": (
        lambda at, _: (at / "tokenizer.json").write_bytes((at / "tokenizer.json").read_bytes() + b" "),
        "is asked for; put the very same files there",
    ),
    "nothing": (lambda at, _: shutil.rmtree(at), "the base cannot be read: No such file"),
    "little memory": (_is_short_of_memory, "needs 2 times that to be read; 0 MB of memory are available"),
}  # fmt: skip


def test_a_silo_with_its_own_copy_of_the_base_joins_and_trains(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    assert (ward.joins(), ward.trains()) == ("", ""), ward.log()
    assert [event.steps for event in charged(ward.ledger)] == [1]


@pytest.mark.parametrize("what", SPOILT)
def test_a_silo_whose_base_is_none_refuses_in_one_line_before_it_joins_and_before_it_is_charged(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, line = SPOILT[what]
    for has_joined in (False, True):
        folder = tmp_path / str(has_joined)
        folder.mkdir()
        ward = Ward(folder)
        assert not has_joined or ward.joins() == ""
        before = len(ward.log())
        with monkeypatch.context() as patch:
            spoil(ward.base, patch)
            assert (ward.trains() if has_joined else ward.joins()) == ConfigError.code
        assert charged(ward.ledger) == []
        assert has_joined or not read_ledger(ward.ledger).runs
        (told_of,) = ward.log()[before:]
        assert line in told_of
        assert re.search(r"(train|join)\S*: ConfigError: ", told_of)


@pytest.mark.parametrize(("change", "line"), [
    ({"model_type": "no-such"}, "is of architecture 'no-such', for which transformers has no model of task"),
    ({"hidden_size": 64}, "are missing or of another shape, such as"),
])  # fmt: skip
def test_a_base_that_no_architecture_is_of_is_refused_before_the_charge_though_all_parties_have_it(
    change: dict[str, object], line: str, tmp_path: Path
) -> None:
    ward = Ward(tmp_path, lambda at: told(at, **change))
    assert ward.joins() == ""  # where no model is built
    assert ward.trains() == ConfigError.code
    assert charged(ward.ledger) == []
    (told_of,) = ward.log()
    assert line in told_of
