"""A draft on texts and a base runs as it is, and the page on large models as it stands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from fedmodel.config import read_scenario
from fedmodel.kinds import bases
from fedmodel.kinds.models.hf import HfConfig
from tests.bases import OF_PEFT, make_base
from tests.scenarios.cli.test_main import Run

ROOT = Path(__file__).parents[3]
SAID = ("--data=texts", "--base=base", "--labels=home,ward", "--silos=a,b,c", "--records=40:90", "--epsilon=8")

LESS = ("--no-report", "--set", "rounds=1", "--set", "training.max_physical_batch=4", "--set", "data.length=16",
        "--set", "privacy.sample_rate=0.1", "--set", "model.lengths=[5, 8]")  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return Run(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize(("kind", "targets"), [("encoder", ("query", "value")), ("decoder", ("c_attn",))])
def test_adapters_are_put_where_the_base_attends(kind: str, targets: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    make_base(tmp_path / "base", kind)
    assert run("new", "--out", "triage", *SAID) == 0, run.err
    assert "triage/texts/a/made-up.jsonl: works as it is, on made-up records. Put your own in." in run.out
    scenario = read_scenario(str(tmp_path / "triage" / "study.toml"))
    assert isinstance(scenario.model, HfConfig)
    assert scenario.model.targets == targets
    assert scenario.model.folder is not None
    assert scenario.model.folder.samefile(tmp_path / "base")
    text = (tmp_path / "triage" / "study.toml").read_text()
    assert str(tmp_path) not in text
    assert 'folder = "triage/texts"     # of a simulation, from the folder where a command runs and not\n' in text
    assert scenario.data.shape.labels == ("home", "ward")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data=texts", "--silos=a,b,c"), "--base ... --labels ... --records ... --epsilon ..."),
        (("--data=digits", "--base=base", "--silos=a,b,c", "--epsilon=8"), "--base: not of --data digits"),
        ((*SAID[:2], "--labels=one", *SAID[3:]), "--labels: 'one': give two or more different names"),
        (("--data=texts", "--base=nowhere", *SAID[2:]), "nowhere: the base cannot be read: No such file"),
        (("--from=x.csv", "--base=base"), "leave --data, --task and --base out"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_one_line_and_nothing_is_written(
    words: tuple[str, ...], said: str, run: Run, tmp_path: Path
) -> None:
    assert run("new", "--out", "triage", *words) == 2
    assert said in run.err
    assert run.err.count("\n") == 1
    assert not (tmp_path / "triage").exists()


def test_a_base_of_no_known_layers_trains_its_biases_and_one_of_no_texts_is_refused(run: Run, tmp_path: Path) -> None:
    import safetensors.torch

    base = make_base(tmp_path / "base", "encoder")
    tensors = safetensors.torch.load((base / "model.safetensors").read_bytes())
    renamed = {name.replace(".query.", ".asks."): one for name, one in tensors.items()}
    (base / "model.safetensors").write_bytes(safetensors.torch.save(renamed))
    assert run("new", "--out", "triage", *SAID) == 0, run.err
    assert 'adapt = "bitfit"' in (tmp_path / "triage" / "study.toml").read_text()
    (base / "model.safetensors").write_bytes(b"\xff" * 16)
    assert run("new", "--out", "other", *SAID) == 2
    assert "has a file that is no safetensors" in run.err
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "vocab_size": None}))
    assert run("new", "--out", "other", *SAID) == 2
    assert "its config.json says no vocab_size" in run.err


@pytest.mark.slow
@pytest.mark.filterwarnings(OF_PEFT)
def test_the_page_on_large_models_runs_as_it_stands(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the rehearsal, which `tests/integration/test_base.py` is of."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "large-models.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}
    ran = []
    for language, block in re.findall(r"```(\w*)\n(.*?)```", page, flags=re.DOTALL):
        if language == "python":
            exec(compile(block, "docs/large-models.md", "exec", dont_inherit=True), names)  # noqa: S102 - our own page
            bases.lie_at({}, tmp_path)  # as in another process
        for line in block.splitlines() if not language else ():
            _, verb, *words = shlex.split(line)
            if verb in ("new", "simulate", "predict", "export"):
                less = LESS if verb == "simulate" else ()
                assert run(verb, *words, *less) == 0, run.err
                ran.append(verb)
    assert ran == ["new", "simulate", "predict", "export"]
    assert names["module"].base_model.peft_config["default"].r == 8
    scores = (tmp_path / "scores.csv").read_text().splitlines()
    assert len(scores) == 201
