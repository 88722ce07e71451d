"""The verb `explain`: of a run, at a silo by its own records, of which nothing leaves, and in the report."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save

from fedmodel.config import CsvForm, Scenario, read_scenario
from fedmodel.data import held_out_records
from fedmodel.errors import ClaimRefuted, ConfigError, FedmodelError, LedgerTampered
from fedmodel.learning.description import DESCRIPTION, describe, read_description
from fedmodel.provision import scenario_hash
from scenarios.models.explain import Looked, explain, held_out, of_file, write
from scenarios.models.trained import Trained, read_model
from scenarios.report import build
from scenarios.report.page.render import render
from scenarios.runs.explanation import EXPLANATION, Explanation
from tests.conftest import TINY
from tests.runs import copied
from tests.scenarios.cli.test_main import Run
from tests.scenarios.models.tables import HEADER, rows, write_table
from tests.scenarios.report.test_build import forge, page

PLAIN = CsvForm()


def told(folder: Path) -> Explanation:
    return Explanation.model_validate_json((folder / EXPLANATION).read_bytes())


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_a_run_is_explained_by_its_held_out_records_and_its_report_says_so(
    run: Run, tabled: Path, tmp_path: Path
) -> None:
    mine = copied(tabled, tmp_path / "mine")
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    build.build(mine, page)
    assert run("explain", "mine", "--by", "stage", "--by", "age") == 0
    assert "What answers rest on, over 60 records: exact, since the model is linear." in run.out
    assert "This uses none of the run's epsilon" in run.err
    assert "no epsilon covers those" in " ".join(run.err.split())
    assert all(len(line) <= 80 for line in run.out.splitlines())
    found = told(mine)
    assert found.records == "held-out"
    assert {one.column for one in found.groups} <= {"stage", "age"}
    stage = [one for one in found.groups if one.column == "stage"]
    assert sum(one.records for one in stage) == 60 or found.left_out
    assert found.figures["accuracy"] == json.loads((mine / "summary.json").read_text())["metrics"]["accuracy"]
    new = {path.name for path in mine.iterdir()} - {path.name for path in tabled.iterdir()}
    assert {name for name in new if name.startswith("explanation")} == {
        EXPLANATION, "explanation-effects-1.png", "explanation-dependence.png",
    }  # fmt: skip
    assert all(path.read_bytes() == data for path, data in before.items())
    assert build.verify(mine).report.training.explanation is None  # the report of before holds

    build.build(mine, render)
    checked = build.verify(mine, None, render)
    assert checked.rendered
    assert checked.report.training.explanation == found
    html = (mine / "report.html").read_text()
    assert all(name in html for name in ('id="plot-effects-1"', 'id="plot-dependence"', "How the model answers"))
    assert run("explain", "mine") == 2
    assert "explanation.json: is there already, and nothing is written over" in run.err


@pytest.fixture(scope="module")
def reported(tabled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was explained, with its report, whose page is a stub; nobody changes it."""
    mine = copied(tabled, tmp_path_factory.mktemp("reported") / "run")
    write(explain(read_model(mine), held_out(mine)), {}, mine, is_new=False)
    build.build(mine, page)
    assert build.verify(mine).report.training.explanation == told(mine)
    return mine


def test_a_report_refuses_an_explanation_that_was_changed_or_is_not_its_own(reported: Path, tmp_path: Path) -> None:
    mine = copied(reported, tmp_path / "mine")
    document: dict[str, Any] = json.loads((mine / EXPLANATION).read_text())
    tried: list[tuple[dict[str, Any], type[FedmodelError], str]] = [
        ({"model": "0" * 64}, LedgerTampered, "is of another model"),
        ({"scenario_hash": "0" * 64}, LedgerTampered, "is of a model of another scenario"),
        ({"records": "own"}, ConfigError, "is of a party's own records, and a report tells of none"),
        ({"nose": 1}, LedgerTampered, "is not as `fedmodel explain` writes it: nose"),
        ({"gap": -1.0}, LedgerTampered, "is not as `fedmodel explain` writes it: gap"),
    ]
    for change, kind, refused in tried:
        (mine / EXPLANATION).write_text(json.dumps({**document, **change}))
        with pytest.raises(LedgerTampered, match=r"^explanation\.json: is a changed file: its SHA-256 is"):
            build.verify(mine)
        with pytest.raises(kind, match=refused):
            build.build(mine, page)
    (mine / EXPLANATION).write_text(json.dumps(document))
    (mine / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"no model\.safetensors lies beside it and none is told of"):
        build.build(mine, page)


def test_a_figure_of_an_explanation_that_is_changed_in_the_report_is_found(reported: Path, tmp_path: Path) -> None:
    mine = copied(reported, tmp_path / "mine")
    report = json.loads((mine / "report.json").read_text())["report"]
    report["training"]["explanation"]["explained"][0]["effects"][0]["toward"] *= 2
    forge(mine, report)
    with pytest.raises(ClaimRefuted, match=r"explained\[0\]\.effects\[0\]\.toward: .* from explanation\.json"):
        build.verify(mine)


def given_model(tabled: Path, given: Path, *, bent: bool) -> Path:
    """Return a folder as a silo is handed it: of a run's model, or of one that is not linear."""
    given.mkdir()
    for name in ("model.safetensors", DESCRIPTION):
        shutil.copy(tabled / name, given / name)
    if bent:
        described = read_description(given / DESCRIPTION)
        layers = described.model.model_copy(update={"hidden": (5,)})
        described = described.model_copy(update={"model": layers})
        (given / DESCRIPTION).write_bytes(described.written())
        about = {"fedmodel": json.dumps({"scenario_hash": described.scenario_hash})}
        (given / "model.safetensors").write_bytes(save(described.built().state_dict(), metadata=about))
    return given


@pytest.mark.parametrize("bent", [False, True])
def test_at_a_silo_nothing_leaves_and_only_its_owner_reads_what_is_written(
    bent: bool, run: Run, tabled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket is so much as made: not to send, not to look a name up. Captum neither makes one."""
    given = given_model(tabled, tmp_path / "given", bent=bent)
    table = write_table(tmp_path / "own.csv", rows(80, seed=9))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a socket was made")

    for name in ("socket", "create_connection", "getaddrinfo", "socketpair"):
        monkeypatch.setattr(socket, name, refused)
    assert run("explain", "given", "--table", "own.csv", "--out", "mine/first") == 0, run.err
    said = " ".join(run.err.split())
    assert "Nothing left this machine: no connection was opened, and no budget was charged." in said
    assert "which no epsilon covers: keep it where the records may be" in said
    assert modes(tmp_path / "mine") == {"first": 0o700}
    assert set(modes(tmp_path / "mine" / "first").values()) == {0o600}
    assert all(path.read_bytes() == data for path, data in before.items())
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before.keys()
    assert {path.parent for path in new} == {tmp_path / "mine" / "first"}
    found = told(tmp_path / "mine" / "first")
    assert (found.records, found.count) == ("own", 80)
    assert found.method == ("integrated-gradients" if bent else "exact")
    looked = of_file(read_model(given), table, PLAIN, "own")
    assert found == explain(read_model(given), looked)
    assert "Looked(...)" in repr(looked)
    assert run("explain", "given", "--table", "own.csv", "--out", "mine/first") == 2
    assert "mine/first: is there already" in run.err


def test_rows_that_a_silo_would_refuse_are_left_out_and_counted(run: Run, tabled: Path, tmp_path: Path) -> None:
    made = rows(50, seed=9)
    made[1][0], made[3][3], made[5][4] = "SESAME", "SESAME", "SESAME"
    write_table(tmp_path / "own.csv", made)
    found = run.json("explain", str(tabled), "--table", "own.csv", "--out", "first")
    assert (found["count"], found["refused"]) == (47, 3)
    assert "SESAME" not in run.out + run.err
    write_table(tmp_path / "good.csv", [row for place, row in enumerate(made) if place not in (1, 3, 5)])
    good = run.json("explain", str(tabled), "--table", "good.csv", "--out", "second")
    assert [good[key] for key in ("explained", "groups", "dependence")] == [
        found[key] for key in ("explained", "groups", "dependence")
    ]
    write_table(tmp_path / "no-label.csv", [row[:4] for row in rows(50, seed=9)], HEADER[:4])
    assert run("explain", str(tabled), "--table", "no-label.csv", "--out", "third") == 0
    assert "No figures by group: no-label.csv: column 'outcome' is missing" in run.out
    assert run("explain", str(tabled), "--table", "no-label.csv", "--out", "fourth", "--by", "stage") == 2
    assert "--by: figures compare answers with labels, and there are none" in run.err


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (("--table", "own.csv"), "--table: what is written tells of your records; name a new folder for it with --out"),
        (("--table", "own.csv", "--held-out", "own.csv", "--out", "a"), "give one of the two"),
        (("--table", "none.csv", "--out", "a"), "none.csv: cannot be read: No such file or directory"),
        (("--table", "other.csv", "--out", "a"), "other.csv: column 'age' is missing"),
        (("--table", "empty.csv", "--out", "a"), "empty.csv: has no row that can be read"),
        (("--by", "nose", "--out", "a"), "--by: unknown column 'nose'"),
        (("--out", "own.csv"), "own.csv: is there already, and nothing is written over"),
        (("--base", ".", "--out", "a"), "--base: model.safetensors is of a model that was trained on no base"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    arguments: tuple[str, ...], refused: str, run: Run, tabled: Path, tmp_path: Path
) -> None:
    write_table(tmp_path / "own.csv", rows(30, seed=9))
    write_table(tmp_path / "other.csv", [["1"]], ["other"])
    write_table(tmp_path / "empty.csv", [])
    before = sorted(tmp_path.rglob("*"))
    assert run("explain", str(tabled), *arguments) == 2
    assert refused in run.err
    assert run.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_alone_has_no_held_out_records(run: Run, tabled: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", DESCRIPTION):
        shutil.copy(tabled / name, tmp_path / name)
    assert run("explain", "model.safetensors") == 2
    assert run.err == "error: model.safetensors: is no run's folder; name a new folder with --out\n"
    assert run("explain", "model.safetensors", "--out", "a") == 2
    assert "holds no scenario.toml, so there are no held-out records" in run.err
    deployed = copied(tabled, tmp_path / "deployed")
    text = (deployed / "scenario.toml").read_text()
    (deployed / "scenario.toml").write_text("\n".join(line for line in text.split("\n") if "folder" not in line))
    assert run("explain", "deployed") == 2
    assert "the run's held-out records are not at hand" in run.err
    shutil.copy(tabled.parent / "held-out.csv", tmp_path / "held-out.csv")
    assert run("explain", "deployed", "--held-out", "held-out.csv") == 0, run.err
    looked = held_out(tabled)
    model = read_model(tabled)
    assert told(deployed) == explain(model, looked)


def test_images_have_maps_and_features_without_names_have_numbers(tmp_path: Path) -> None:
    digits = read_scenario("digits", ["model.channels=[4]"])
    records = held_out_records(digits)
    few = Looked(records.x_NF[:12], records.y_N[:12], "held-out")
    (one,) = explain(first_model(digits), few).explained
    assert (one.scale, one.effects) == ("margin", ())
    assert np.asarray(one.towards).shape == np.asarray(one.aways).shape == (8, 8)
    assert np.asarray(one.towards).sum() > 0
    with pytest.raises(ConfigError, match="the pixels of an image are no columns"):
        explain(first_model(digits), few, ("stage",))
    (tmp_path / "tiny.toml").write_text(TINY)
    tiny = read_scenario(str(tmp_path / "tiny.toml"))
    found = explain(first_model(tiny), Looked(held_out_records(tiny).x_NF, None, "held-out"))
    assert {effect.name for effect in found.explained[0].effects} == {f"feature {place}" for place in range(1, 5)}


def first_model(scenario: Scenario) -> Trained:
    """Return a scenario's model as it begins."""
    description = describe(scenario, scenario_hash(scenario))
    return Trained(description, description.built().eval(), b"a model")


def test_explaining_imports_neither_flower_nor_opacus_nor_captum_where_a_model_is_linear(
    tabled: Path, tmp_path: Path
) -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from fedmodel.config import CsvForm\n"
        "from scenarios.models.explain import explain, of_file, write\n"
        "from scenarios.models.trained import Trained, read_model\n"
        "model = read_model(Path(sys.argv[1]))\n"
        "found = explain(model, of_file(model, Path(sys.argv[2]), CsvForm(), 'own'))\n"
        "from scenarios.report.page.explained import drawn\n"
        "pictures = {one.name: one.as_png() for one in drawn(found)}\n"
        "write(found, pictures, Path(sys.argv[3]), is_new=True)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    command = [sys.executable, "-c", program, tabled, tabled.parent / "held-out.csv", tmp_path / "made"]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert not loaded & {"flwr", "opacus", "captum", "server", "clients", "ray", "httpx", "requests"}
    assert (tmp_path / "made" / EXPLANATION).is_file()
