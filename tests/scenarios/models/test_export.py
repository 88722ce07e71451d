"""A model in other formats, each opened again as its users do, and a card that says no more than is so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedmodel.config import CsvForm, read_scenario
from fedmodel.data import held_out_records
from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.learning.description import DESCRIPTION
from fedmodel.privacy.rounding import small, up
from scenarios.cli.tables import show_run
from scenarios.models import formats
from scenarios.models.card import CARD
from scenarios.models.export import TOLERANCE, export
from scenarios.models.predict import scores_of
from scenarios.models.trained import read_model
from tests.conftest import TINY
from tests.runs import copied, simulated
from tests.scenarios.cli.test_main import Run
from tests.scenarios.models.tables import rows, write_table

PLAIN = CsvForm()
BAD = "tiny [x](http://a) <b>"


def written(folder: Path, kind: str, to: Path) -> Path:
    if kind == "onnx":
        pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    return export(folder, kind, to, None, None, PLAIN).folder


def held_out(folder: Path) -> np.ndarray:
    return held_out_records(read_scenario(str(folder / "scenario.toml"))).x_NF


def test_the_safetensors_are_the_bytes_that_silos_countersigned(tabled: Path, tmp_path: Path) -> None:
    made = written(tabled, "safetensors", tmp_path / "made")
    assert (made / "model.safetensors").read_bytes() == (tabled / "model.safetensors").read_bytes()
    assert (made / DESCRIPTION).read_bytes() == (tabled / DESCRIPTION).read_bytes()
    assert {path.name for path in made.iterdir()} == {"model.safetensors", DESCRIPTION, CARD}


def test_a_torch_program_is_run_by_torch_and_numpy_alone(tabled: Path, tmp_path: Path) -> None:
    made, x_NF = written(tabled, "torch", tmp_path / "made"), held_out(tabled)
    np.save(tmp_path / "x.npy", x_NF)
    program = (
        "import sys\nimport numpy, torch\n"
        "score = torch.export.load(sys.argv[1]).module()\n"
        "found = score(torch.from_numpy(numpy.load(sys.argv[2])))\n"
        "numpy.save(sys.argv[3], found.detach().numpy())\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    command = [sys.executable, "-c", program, made / "model.pt2", tmp_path / "x.npy", tmp_path / "p.npy"]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert not loaded & {"fedmodel", "scenarios", "server", "clients", "flwr", "opacus", "pyarrow", "pydantic"}
    assert np.allclose(np.load(tmp_path / "p.npy"), scores_of(read_model(tabled), x_NF), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "model",
    [
        'kind = "mlp"\nhidden = [5]\nactivation = "tanh"\ndropout = 0.5',
        'kind = "cnn"\nchannels = [4]\ngroups = 2\nweight_standardization = true',
    ],
)
def test_every_kind_of_layer_is_exported_for_any_number_of_records(model: str, tmp_path: Path) -> None:
    images = TINY.replace('source = "synthetic"\nrecords = 120\nfeatures = 4', 'source = "digits"')
    images = images.replace("[-2.0, 2.0]", "[0.0, 16.0]").replace('kind = "mlp"', model)
    folder = simulated(tmp_path, images, "rounds=1")
    x_NF = held_out(folder)[:70]
    right_NK = scores_of(read_model(folder), x_NF)
    assert np.allclose(right_NK.sum(axis=1), 1, atol=1e-5)
    for kind in ("torch", "onnx"):
        made, how = written(folder, kind, tmp_path / kind), formats.FORMATS[kind]
        assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o600}
        score = how.open(made / how.file)
        for count in (1, 2, 70):
            assert np.abs(score(x_NF[:count]) - right_NK[:count]).max() <= TOLERANCE


def test_nothing_is_written_where_the_file_gives_other_probabilities(
    tabled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = formats.FORMATS["torch"]

    def wrong(path: Path) -> formats.Scorer:
        score = how.open(path)
        return lambda x_NF: score(x_NF) + np.float32(2 * TOLERANCE)

    for other, reason in (
        (wrong, "it gives probabilities that differ by 2e-05 from the model's"),
        (lambda path: lambda x_NF: how.open(path)(x_NF)[:-1], "differ by inf"),
        (lambda path: lambda x_NF: how.open(path)(x_NF) * np.nan, "differ by inf"),
    ):
        broken = formats.Format(how.file, how.write, other)  # type: ignore[arg-type]
        monkeypatch.setitem(formats.FORMATS, "torch", broken)  # type: ignore[arg-type]
        with pytest.raises(FedmodelError, match=reason):
            export(tabled, "torch", tmp_path / "made", None, None, PLAIN)
        assert list(tmp_path.iterdir()) == []


def test_records_to_compare_on_are_named_where_the_runs_own_are_gone(run: Run, tabled: Path, tmp_path: Path) -> None:
    moved = copied(tabled, tmp_path / "moved")
    text = (moved / "scenario.toml").read_text()
    (moved / "scenario.toml").write_text(text.replace(str(tabled.parent), "/nowhere"))
    (moved / DESCRIPTION).unlink()
    before = (tabled / "model.safetensors").read_bytes()
    # The folder of a simulation is in its hash: of this one the description is that of before.
    (moved / DESCRIPTION).write_bytes((tabled / DESCRIPTION).read_bytes())
    assert (moved / "model.safetensors").read_bytes() == before
    assert run("export", "moved", "--format", "torch") == 2
    assert "held-out records are not at hand" in run.err
    assert "name some with --held-out FILE" in run.err
    write_table(tmp_path / "some.csv", rows(7, seed=3))
    assert run("export", "moved", "--format", "torch", "--held-out", "some.csv") == 0
    assert "moved/export/torch/model.pt2: opened again, and compared on 7 held-out records" in run.out
    assert run("export", "moved", "--format", "torch", "--held-out", "some.csv") == 2
    assert "is there already" in run.err
    assert run("export", "moved", "--format", "onxx") == 2
    assert "--format: unknown format 'onxx'; did you mean 'onnx'?" in run.err


def test_a_card_says_what_the_summary_says_rounded_outwards(tabled: Path, tmp_path: Path) -> None:
    text = (written(tabled, "safetensors", tmp_path / "made") / CARD).read_text()
    assert "each sent noised updates of the model, and no exact count of its records.\n" in text
    assert "is not published" not in text  # a scenario's lots may tell it
    _, front, body = text.split("---\n", 2)
    summary = json.loads((tabled / "summary.json").read_text())
    for row in summary["privacy"]:
        assert f"| {row['silo']} | {up(row['epsilon'])} | {small(row['delta'])} | " in body
        assert float(up(row["epsilon"])) >= row["epsilon"]
    document = yaml.safe_load(front)
    (result,) = document["model-index"][0]["results"]
    assert {one["type"]: one["value"] for one in result["metrics"]} == {
        name: round(value, 4) for name, value in summary["metrics"].items()
    }
    assert document["pipeline_tag"] == "tabular-classification"
    assert "Ranges are declared as public references" in body
    assert "differential-privacy" in document["tags"]
    assert "license" not in document
    model = read_model(tabled)
    for words in (model.sha256, model.description.scenario_hash, "for every record of that silo", "`stage` | category",
                  "one of `benign` and `malignant`", "are not protected"):  # fmt: skip
        assert words in body, words
    assert "protects nobody" not in text
    assert "moving average" not in text


@pytest.mark.parametrize("setting", ['privacy.baseline="no-noise"', "privacy.noise=seeded-unsafe"])
def test_the_card_of_a_run_that_protects_nobody_says_so_and_has_no_epsilon(setting: str, tmp_path: Path) -> None:
    settings = [setting, *(["privacy.epsilon=3.0", "privacy.noise_multiplier="] if "baseline" in setting else [])]
    folder = simulated(tmp_path, TINY, *settings)
    text = (written(folder, "safetensors", tmp_path / "made") / CARD).read_text()
    assert "**This run protects nobody: " in text
    assert "| Epsilon |" not in text
    assert "is (epsilon, delta)-differentially private" not in text
    assert "differential-privacy" not in yaml.safe_load(text.split("---\n")[1])["tags"]


def test_a_card_tells_of_no_use_and_of_an_average_and_a_scenarios_words_do_nothing_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TINY.replace("three silos, two rounds, a linear model", BAD)
    settings = ["rounds=1", "training.learning_rate=1e-9", 'model.init="zero"', "training.ema_decay=0.75"]
    folder = simulated(tmp_path, text, *settings)
    told = (written(folder, "safetensors", tmp_path / "made") / CARD).read_text()
    assert "**The model predicts '0' of every held-out record, and is of no use." in told
    assert "- It is the exponential moving average of the models after all whole rounds, with a decay of 0.75," in told
    show_run(json.loads((folder / "summary.json").read_text()), folder)
    assert "These figures, and the model, are of the moving average of all" in capsys.readouterr().out
    assert BAD not in told
    assert r"Tiny \[x\]\(http://a\) \<b\>" in told


def test_who_lacks_the_extra_is_told_its_name(tabled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedmodel\[export\]'"):
        export(tabled, "onnx", tmp_path / "made", None, None, PLAIN)
    assert list(tmp_path.iterdir()) == []
