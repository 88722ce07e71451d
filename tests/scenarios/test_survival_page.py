"""What docs/fields/survival.md says of a registry's own tables is done, line by line."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from fedmodel.config import TableSource, read_scenario
from fedmodel.data import table_records
from fedmodel.data.tables import declared
from fedmodel.kinds.sources.table import TableConfig
from tests.scenarios.cli.test_main import Run

_PAGE = (Path(__file__).parents[2] / "docs" / "fields" / "survival.md").read_text(encoding="utf-8")
_SECTION = _PAGE.partition("## Your own registry's tables\n")[2].partition("\n## ")[0]
_BLOCKS = re.findall(r"```(\w*)\n(.*?)```", _SECTION, flags=re.DOTALL)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return Run(monkeypatch, capsys, tmp_path)


def block(kind: str) -> str:
    """The section's one block of a kind."""
    (found,) = [text for name, text in _BLOCKS if name == kind]
    return str(found)


def test_the_section_is_followed_line_by_line_on_its_own_file(run: Run) -> None:
    (run.folder / "ward.csv").write_text(block("csv"), encoding="utf-8")
    draft, simulate, check = (shlex.split(line)[1:] for line in block("").replace("\\\n", "").splitlines())
    assert run(*draft) == 0, run.err
    scenario = read_scenario("study/study.toml")
    said = tomllib.loads((run.folder / "study" / "study.toml").read_text())
    shown = tomllib.loads(block("toml"))
    assert {key: said["data"][key] for key in shown} == shown
    assert set(shown) >= {"label", "time", "ends", "time_unit"}
    assert said["training"]["loss"] == "hazards"
    figures = run.json(
        *simulate, "--set", "rounds=1", "--set", "encryption={}", "--engine", "vectorised", "--out", "run"
    )["metrics"]
    assert 0.5 < figures["concordance"] < 1  # of made-up patients, whose values say when
    assert run(*check) == 0, run.err
    assert "died: label; yes and no found" in run.out
    assert "months: time; numbers found" in run.out
    proposed = tomllib.loads(run.out[run.out.index("[tables.study]") :])["tables"]["study"]
    source = TableSource(csv=str(run.folder / "ward.csv"), **{key: tuple(words) for key, words in proposed.items()})
    assert table_records(declared(scenario.data), source).y_N.tolist() == [4, 1, 3, 8]


def test_what_the_section_says_of_each_row_is_so(tmp_path: Path) -> None:
    ends = tomllib.loads(block("toml"))["ends"]
    config = TableConfig.model_validate({
        "source": "table", "name": "study", **tomllib.loads(block("toml")),
        "columns": [{"name": "age", "type": "float", "range": [30.0, 90.0]}],
    })  # fmt: skip
    rows = [("8.4", 1), ("12", 1), ("120", 1), ("120", 0), ("36.8", 0), ("0", 1), ("0", 0)]
    lines = [f"50,{time},{died}" for time, died in rows]
    (tmp_path / "a.csv").write_text("\n".join(["age,months,died", *lines]))
    found = table_records(config, TableSource(csv=str(tmp_path / "a.csv"))).y_N
    for time in ("8.4", "12", "120", "36.8", "0"):
        assert re.search(rf"^\| [^|]*\b{re.escape(time)}\b", _SECTION, flags=re.MULTILINE), time
    alive = 2 * len(ends)
    assert found.tolist() == [1, 3, alive, alive, 4, 1, 0]
