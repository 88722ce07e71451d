"""A simulation on a base that was trained before: adapters alone leave, and what is no base is refused before a run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import tomli_w
from typer.testing import CliRunner

from clients import policy
from fedmodel import wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError, FedmodelError, PolicyRefused
from fedmodel.kinds import bases
from fedmodel.provision import joint_law, law_of, scenario_hash
from scenarios.cli.main import app
from scenarios.report.sentences import base as told_of_base
from scenarios.simulation.simulate import placed
from tests.bases import scenario_on
from tests.clients.test_client_app import ask
from tests.fakes import FaultyGrid, charged

_RUNNER = CliRunner()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A scenario of three silos on a base beside it, with texts in JSON lines."""
    return scenario_on(tmp_path)


def told(base: Path, **change: object) -> None:
    """Change what a base says of itself."""
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **change}))


def on_a_base(path: Path) -> Scenario:
    return placed(read_scenario(str(path)))


def test_a_run_sends_and_saves_adapters_alone_and_its_report_says_what_the_base_is(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    at_lengths = ["--set", "model.lengths=[5, 6]"]  # of "bad 0", "good 0", and what is longer
    run = _RUNNER.invoke(app, ["simulate", str(written), *at_lengths, "--out", "run", "--json"])
    assert run.exit_code == 0, run.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    # Two layers, each with an adapter of 2 x 32 and 32 x 2, and a head of one output.
    assert summary["parameters"] == 2 * 128 + 33
    tensors = safetensors.torch.load((tmp_path / "run" / "model.safetensors").read_bytes())
    assert sum(one.numel() for one in tensors.values()) == summary["parameters"]
    assert any(float(one.abs().max()) > 0 for name, one in tensors.items() if "lora_B" in name)  # it was trained
    resolved = (tmp_path / "run" / "scenario.toml").read_text()
    assert "hf:" not in resolved
    assert str(tmp_path / "base") not in resolved
    law = tomllib.loads((tmp_path / "run" / "silos" / "north" / "silo.toml").read_text())
    assert list(law["bases"]) == [tomllib.loads(resolved)["model"]["sha256"]]
    bases.lie_at({}, tmp_path)  # whoever reads a report need not have the base
    assert _RUNNER.invoke(app, ["report", "build", "run"]).exit_code == 0
    verified = _RUNNER.invoke(app, ["report", "verify", "run"])
    assert "every figure of its report follows from the folder" in verified.output
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"(SHA-256 {tomllib.loads(resolved)['model']['sha256']})" in page
    assert "How long the texts of a step are, from how long the step takes" in page


def test_texts_are_read_by_the_bases_own_tokenizer_and_by_no_other(written: Path, tmp_path: Path) -> None:
    own = tmp_path / "base" / "tokenizer.json"
    shutil.copy(own, tmp_path / "texts" / "tokenizer.json")
    vocabulary = json.loads((tmp_path / "base" / "config.json").read_text())["vocab_size"]
    document = tomllib.loads(written.read_text())
    document["data"]["tokenizer"] = {"sha256": hashlib.sha256(own.read_bytes()).hexdigest(), "vocabulary": vocabulary}
    written.write_text(tomli_w.dumps(document))
    run = _RUNNER.invoke(app, ["simulate", str(written), "--out", str(tmp_path / "run"), "--no-report"])
    assert run.exit_code == 0, run.output
    document["data"]["tokenizer"]["sha256"] = "ab" * 32
    written.write_text(tomli_w.dumps(document))
    with pytest.raises(ConfigError, match=r"tokenizer has SHA-256 abab.*it would be given other tokens"):
        on_a_base(written)


def test_the_scenarios_hash_hangs_on_the_base_and_not_on_where_it_lies(written: Path, tmp_path: Path) -> None:
    one = on_a_base(written)
    (tmp_path / "base").rename(tmp_path / "moved")
    other = placed(read_scenario(str(written), [f"model.use=hf:{tmp_path / 'moved'}"]))
    assert scenario_hash(one) == scenario_hash(other)
    (tmp_path / "moved" / "tokenizer.json").write_text("{}")
    assert scenario_hash(placed(read_scenario(str(written), [f"model.use=hf:{tmp_path / 'moved'}"]))) != scenario_hash(
        one
    )
    with pytest.raises(ConfigError, match="built on a base that was not read"):
        scenario_hash(read_scenario(str(written)))


def test_a_law_names_the_base_and_a_silo_refuses_another(written: Path) -> None:
    scenario = on_a_base(written)
    law = law_of(scenario, "north", bytes(32))
    (sha256,) = law.bases
    assert law.bases == {sha256: f"bases/{sha256[:16]}"}
    assert joint_law([scenario], "north", bytes(32)).bases == law.bases
    policy.check_base(law, scenario)
    with pytest.raises(PolicyRefused, match=f'enters "{sha256}" = "FOLDER" there, or not'):
        policy.check_base(law.model_copy(update={"bases": {"0" * 64: "bases/other"}}), scenario)


def test_a_silo_whose_copy_differs_by_a_byte_does_not_join_and_reserves_nothing(written: Path, tmp_path: Path) -> None:
    scenario = on_a_base(written)
    grid = FaultyGrid(scenario, tmp_path / "run")
    (tmp_path / "base" / "tokenizer.json").write_bytes((tmp_path / "base" / "tokenizer.json").read_bytes() + b" ")
    reply = ask(grid, wire.join_request(), wire.JOIN)
    assert wire.refusal_code(reply.error) == ConfigError.code
    assert "put the very same files there" in (tmp_path / "run" / "logs" / "north.log").read_text()
    assert charged(tmp_path / "run" / "ledgers" / "north.sqlite") == []


def test_a_silo_whose_law_does_not_name_the_base_refuses_every_message(written: Path, tmp_path: Path) -> None:
    scenario = on_a_base(written)
    grid = FaultyGrid(scenario, tmp_path / "run")
    path = tmp_path / "run" / "silos" / "north" / "silo.toml"
    law = tomllib.loads(path.read_text())
    del law["bases"]
    path.write_text(tomli_w.dumps(law))
    assert wire.refusal_code(ask(grid, wire.join_request(), wire.JOIN).error) == PolicyRefused.code
    assert "none of those under [bases]" in (tmp_path / "run" / "logs" / "north.log").read_text()


def test_a_base_that_is_none_leaves_nothing_of_a_run(written: Path, tmp_path: Path) -> None:
    (tmp_path / "base" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    found = _RUNNER.invoke(app, ["simulate", str(written), "--out", str(tmp_path / "run")])
    assert isinstance(found.exception, ConfigError)
    assert "the base has pytorch_model.bin, a pickle" in str(found.exception)
    assert not (tmp_path / "run").exists()


def test_a_report_says_nothing_of_a_base_where_there_is_none(tiny: Scenario) -> None:
    class Gathered:
        scenario = tiny

    assert told_of_base(Gathered()) == ()  # type: ignore[arg-type]


@pytest.mark.parametrize(("settings", "spoil", "said"), [
    (["model.rank=0"], None, "model.rank"),
    (['model.targets=["nowhere"]'], None, "the base has no linear layer 'nowhere'; it has"),
    (["model.task=causal-lm"], None, 'model.task = "causal-lm" learns next-token, and data.source = "json-lines" is of'
        ' task "classification"; take model.task = "sequence-classification" or "feature-extraction"'),
    (["model.task=token-classification"], lambda at: (at / "config.json").unlink(), "learns sequence-labels, and data"),
    (["data.task=next-token", "data.labels="], None, 'take model.task = "causal-lm" or "masked-lm", or other data'),
    (['data={source = "digits", held_out = 0.2}'], None, 'data.source = "digits": model.use = "hf:..." takes texts'),
    (['data={source = "metabric", held_out = 0.2}'], None, 'is of task "survival"; no base learns that'),
    (['data={use = "mine:load", task = "sequence-labels"}'], None, 'data.source = "own" is of task "sequence-labels"'),
    ([], lambda at: (at / "tokenizer.json").unlink(), "the base has no tokenizer.json"),
    ([], lambda at: (at / "model.safetensors").rename(at / "pytorch_model.bin"), "pytorch_model.bin, a pickle"),
    ([], lambda at: (at / "mine.py").touch(), "mine.py, code"),
    (["data.length=64"], None, "the base has positions for 32; set a smaller length"),
    (["model.lengths=[4, 8]"], None, "model.lengths has 8, and rows of 8 tokens, as records have, are there anyway"),
    ([], lambda at: told(at, auto_map={"AutoModel": "mine.Model"}), "names code by auto_map, which is never run"),
    ([], lambda at: told(at, model_type="no-such"), "is of architecture 'no-such', for which transformers has no"),
    ([], lambda at: told(at, hidden_size=64), "are missing or of another shape, such as"),
])  # fmt: skip
def test_what_cannot_be_is_one_line_and_nothing_is_written(
    written: Path, tmp_path: Path, settings: list[str], spoil: Callable[[Path], object] | None, said: str
) -> None:
    if spoil is not None:
        spoil(tmp_path / "base")
    words = [word for one in settings for word in ("--set", one)]
    found = _RUNNER.invoke(app, ["simulate", str(written), *words, "--out", str(tmp_path / "run")])
    assert isinstance(found.exception, FedmodelError)
    assert said in str(found.exception)
    assert "\n" not in str(found.exception)
    assert not (tmp_path / "run").exists()


def test_too_little_memory_for_the_base_is_one_line_and_nothing_is_written(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "available", lambda: 100_000)
    found = _RUNNER.invoke(app, ["simulate", str(written), "--out", str(tmp_path / "run")])
    assert isinstance(found.exception, ConfigError)
    assert re.fullmatch(
        r".*/base: the base has \d+ MB, and needs 2 times that to be read; 0 MB of memory are available: .*",
        str(found.exception),
    )
    assert not (tmp_path / "run").exists()
