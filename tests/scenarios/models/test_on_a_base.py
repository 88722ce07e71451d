"""A model of adapters in use: on the base that it was trained on, by others' own libraries too, and on no other."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import fedmodel as fm
from fedmodel.config import CsvForm, read_scenario
from fedmodel.data import held_out_records
from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.kinds import adapters, bases, pretrained
from fedmodel.kinds.held import HeldLinear
from fedmodel.learning.description import DESCRIPTION
from scenarios.models import card, peft_form
from scenarios.models.card import CARD
from scenarios.models.export import export
from scenarios.models.predict import predict, scores_of
from scenarios.models.trained import Trained, read_model
from scenarios.simulation.prepared import prepare
from tests.bases import OF_PEFT, make_base, scenario_on
from tests.once import once
from tests.scenarios.cli.test_main import Run

PLAIN = CsvForm()


def _run(path: Path) -> None:
    prepared = prepare(str(path), (), "in-process", "cpu", path.parent / "run")
    with prepared.held() as run_dir:
        prepared.run(run_dir, nullcontext())


def _make(folder: Path) -> None:
    _run(scenario_on(folder))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a base, texts, and a run on both, that nobody changes."""
    return once(tmp_path_factory, "on-a-base", _make)


@pytest.fixture(autouse=True)
def _nowhere() -> None:
    """Know of no base, as a new process does."""
    bases.lie_at({}, Path())
    pretrained._loaded.cache_clear()


def given(made: Path, to: Path) -> Path:
    """Return a folder with a model and its description and nothing else, as it is handed to others."""
    to.mkdir()
    for name in ("model.safetensors", DESCRIPTION):
        shutil.copy(made / "run" / name, to / name)
    return to


def test_texts_are_scored_on_the_base_that_is_named(made: Path, tmp_path: Path, run: Run) -> None:
    lines = [{"text": f"good {number}", "note": number} for number in range(3)]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, [*lines, {"note": 3}])))
    with (tmp_path / "new.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["note", "text"], *([line["note"], line["text"]] for line in lines), [3, ""]])
    place = given(made, tmp_path / "given")
    told = ("--base", str(made / "base"), "--id", "note", "--json")
    assert run("predict", str(place), "new.jsonl", *told) == 2  # a row without a text
    found = json.loads(run.out)
    assert [row["id"] for row in found["scores"]] == ["0", "1", "2", "3"]
    assert [row["refused"] for row in found["scores"]][:3] == [None] * 3
    assert found["scores"][3]["refused"] == "column 'text': a value is missing"
    assert run("predict", str(place), "new.csv", *told) == 2
    assert json.loads(run.out) == found
    model = read_model(place)
    x = held_out_records(read_scenario(str(made / "run" / "scenario.toml"))).x
    with torch.no_grad():
        expected = torch.sigmoid(model.module(**{name: torch.tensor(one) for name, one in x.items()})[:, 0])
    assert torch.allclose(torch.tensor(scores_of(model, x))[:, 1], expected)


def test_a_base_that_is_missing_or_another_is_one_line(made: Path, tmp_path: Path, run: Run) -> None:
    place = given(made, tmp_path / "given")
    (tmp_path / "new.csv").write_text("text\ngood\n")
    assert run("predict", str(place), "new.csv") == 2
    assert "and nothing of that; name the folder of a copy: --base FOLDER\n" in run.err
    other = make_base(tmp_path / "other", "encoder")
    (other / "tokenizer.json").write_bytes((other / "tokenizer.json").read_bytes() + b" ")
    assert run("predict", str(place), "new.csv", "--base", "other") == 2
    assert "error: --base other: is the base of SHA-256 " in run.err
    assert run.err.count("\n") == 1
    assert run("predict", str(place), "new.csv", "--base", "nowhere") == 2
    assert "nowhere: the base cannot be read: No such file or directory\n" in run.err
    document = json.loads((place / DESCRIPTION).read_text())
    del document["model"]["sha256"]
    (place / DESCRIPTION).write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="does not say by sha256 on which base"):
        read_model(place, base=made / "base")


def test_a_model_on_no_base_is_given_none(tabled: Path, made: Path, run: Run) -> None:
    assert run("predict", str(tabled), "new.csv", "--base", str(made / "base")) == 2
    assert "--base: model.safetensors is of a model that was trained on no base; leave it out" in run.err


def test_a_model_on_a_base_is_used_without_flower_opacus_or_cryptography(made: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\ngood\nbad\n")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from scenarios.models.predict import csv_form, predict\n"
        "from scenarios.models.trained import read_model\n"
        "model = read_model(Path(sys.argv[1]), base=Path(sys.argv[2]))\n"
        "assert len(predict(model, Path(sys.argv[3]), csv_form(',', '.', 'utf-8')).predicted_N) == 2\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    command = [sys.executable, "-c", program, given(made, tmp_path / "given"), made / "base", tmp_path / "new.csv"]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert {"torch", "transformers", "peft"} <= loaded
    assert not loaded & {"flwr", "opacus", "ray", "grpc", "server", "clients", "cryptography", "pyrage", "sqlalchemy"}


def test_a_script_reads_a_runs_model_on_the_base_that_it_names(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="and nobody said where that lies on this machine"):
        _ = fm.Run.read(made / "run").model
    other = make_base(tmp_path / "other", "masked")
    with pytest.raises(ConfigError, match=r"base=.*other: is the base of SHA-256"):
        fm.Run.read(made / "run", base=other)
    module = fm.Run.read(made / "run", base=made / "base").model
    expected = read_model(made / "run").module
    assert all(torch.equal(one, other) for one, other in zip(module.parameters(), expected.parameters(), strict=True))


@pytest.mark.filterwarnings(OF_PEFT)
def test_adapters_are_exported_as_peft_reads_them(made: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    done = export(made / "run", "peft", tmp_path / "made", None, None, PLAIN, made / "base")
    assert done.records == 12
    names = {"adapter_config.json", "adapter_model.safetensors", DESCRIPTION, CARD}
    assert {path.name for path in done.folder.iterdir()} == names
    assert str(made) not in (done.folder / "adapter_config.json").read_text()
    card = (done.folder / CARD).read_text()
    assert "PeftModel.from_pretrained" in card
    assert 'pipeline_tag: "text-classification"\n' in card
    for of_a_table in ("tabular", "Ranges are declared"):
        assert of_a_table not in card
    base = AutoModelForSequenceClassification.from_pretrained(made / "base", num_labels=1)
    theirs = PeftModel.from_pretrained(base, str(done.folder)).eval()
    x = held_out_records(read_scenario(str(made / "run" / "scenario.toml"))).x
    arrays = {name: torch.tensor(one) for name, one in x.items()}
    with torch.no_grad():
        found = theirs(input_ids=arrays["tokens"], attention_mask=arrays["mask"]).logits
        expected = read_model(made / "run").module(**arrays)
        untrained = AutoModelForSequenceClassification.from_pretrained(made / "base", num_labels=1)
        other = untrained.eval()(input_ids=arrays["tokens"], attention_mask=arrays["mask"]).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(other, expected, atol=1e-3)


@pytest.mark.filterwarnings(OF_PEFT)
@pytest.mark.parametrize("held", ["bf16", "nf4"])
def test_a_base_in_fewer_bits_is_opened_so_by_whoever_uses_the_model_and_by_peft(
    made: Path, tmp_path: Path, held: str
) -> None:
    place = given(made, tmp_path / "given")
    bases.place(made / "base")
    x = held_out_records(read_scenario(str(made / "run" / "scenario.toml"))).x
    whole = peft_form.answers(read_model(place), x)
    described = json.loads((place / DESCRIPTION).read_text())
    described["model"]["base_precision"] = held
    (place / DESCRIPTION).write_text(json.dumps(described))
    model = read_model(place)
    assert any(isinstance(one, HeldLinear) for one in model.module.modules())
    (tmp_path / "made").mkdir()
    shutil.copy(place / DESCRIPTION, tmp_path / "made" / DESCRIPTION)
    peft_form.write(model, tmp_path / "made" / peft_form.ADAPTERS)
    found = peft_form.opened(tmp_path / "made" / peft_form.ADAPTERS)(x)
    fewer = peft_form.answers(model, x)
    assert np.allclose(found, fewer, rtol=0, atol=1e-6)
    assert np.allclose(found[:, 1], scores_of(model, x)[:, 1], rtol=0, atol=1e-6)
    # How far bits that are left out move an answer hangs on what was trained, whose noise is another each time.
    assert np.abs(found - fewer).max() < np.abs(found - whole).max() < 0.1
    scenario, summary = read_scenario(str(made / "run" / "scenario.toml")), (made / "run" / "summary.json").read_text()
    assert f"matrices were held in `{held}`" in "".join(card._made(scenario, json.loads(summary), model))


def test_an_export_that_peft_reads_as_another_model_is_not_written(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What adapters trained to hangs on noise, and may matter too little to tell; these are set by hand, and matter."""
    found, read = adapters.as_peft_saves, read_model

    def doubled(*given: Any) -> dict[str, bytes]:
        files = found(*given)
        config = json.loads(files["adapter_config.json"])
        return files | {"adapter_config.json": json.dumps({**config, "lora_alpha": 2 * config["lora_alpha"]}).encode()}

    def large(*given: Any) -> Trained:
        model, generator = read(*given), torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.module.state_dict().values():
                parameter.normal_(generator=generator)
        return model

    monkeypatch.setattr("scenarios.models.export.read_model", large)
    export(made / "run", "peft", tmp_path / "right", None, None, PLAIN, made / "base")
    monkeypatch.setattr(peft_form, "as_peft_saves", doubled)
    with pytest.raises(FedmodelError, match="opened again, it gives probabilities that differ by"):
        export(made / "run", "peft", tmp_path / "made", None, None, PLAIN, made / "base")
    assert not (tmp_path / "made").exists()


def test_biases_are_exported_by_the_names_that_transformers_has(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    said = {"adapt": "bitfit", "targets": None, "rank": None}
    _run(scenario_on(tmp_path, model=said))
    with pytest.raises(ConfigError, match="--format peft is of adapters of low rank, and this model has none"):
        export(tmp_path / "run", "peft", tmp_path / "made", None, None, PLAIN, tmp_path / "base")
    done = export(tmp_path / "run", "safetensors", tmp_path / "made", None, None, PLAIN, tmp_path / "base")
    tensors = safetensors.torch.load((done.folder / done.file).read_bytes())
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    named = {name.removeprefix("base."): one for name, one in tensors.items()}
    assert not theirs.load_state_dict(named, strict=False).unexpected_keys
    x = held_out_records(read_scenario(str(tmp_path / "run" / "scenario.toml"))).x
    arrays = {name: torch.tensor(one) for name, one in x.items()}
    with torch.no_grad():
        found = theirs.eval()(input_ids=arrays["tokens"], attention_mask=arrays["mask"]).logits
        expected = read_model(tmp_path / "run").module(**arrays)
    assert torch.allclose(found, expected, atol=1e-5)
    scores = predict(read_model(done.folder), tmp_path / "texts" / "all.jsonl", PLAIN)
    assert len(scores.predicted_N) == 48
