"""Drafts without a table: each answer gives a scenario that runs as it is, and what is missing is named."""

from __future__ import annotations

import ast
import stat
from pathlib import Path

import pytest
import typer

from fedmodel.config import read_scenario
from fedmodel.kinds import own_code
from scenarios.cli import new
from tests.scenarios.cli.test_main import Run

SILOS = ("--silos=a,b,c", "--epsilon=8")
OWN = ("--data=own", "--records=40:90")
ANSWERS = {
    "breast-cancer": ("--data=breast-cancer",),
    "digits": ("--data=digits",),
    "classification": (*OWN, "--task=classification"),
    "regression": (*OWN, "--task=regression"),
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return Run(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_draft_of_each_answer_runs_as_it_is(answer: str, run: Run, tmp_path: Path) -> None:
    written = run.json("new", "--out", "study", *ANSWERS[answer], *SILOS)
    own = ["study/data.py", "study/model.py"] if "own" in ANSWERS[answer][0] else []
    assert written == {
        "scenario": "study/study.toml", "code": own, "next": ["fedmodel simulate study/study.toml"]
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "study").iterdir()} == {"study.toml", *(Path(one).name for one in own)}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "study").iterdir())
    scenario = read_scenario(str(tmp_path / "study" / "study.toml"))
    assert (scenario.privacy.epsilon, scenario.federation.silos) == (8.0, ("a", "b", "c"))
    assert scenario.encryption.secure_aggregation == "on"
    try:
        words = written["next"][0].split()[1:]
        summary = run.json(*words, "--set", "rounds=1", "--out", "run", "--no-report")
    finally:
        own_code.close()
    assert summary["rounds_completed"] == 1
    assert all(row["epsilon"] <= 8.0 and row["protects"] for row in summary["privacy"])
    assert ("rmse" in summary["metrics"]) == (answer == "regression")


def test_what_is_said_is_in_the_draft_and_follows_from_public_numbers(run: Run, tmp_path: Path) -> None:
    said = ("--data=own", "--task=regression", "--records=20000:40000", "--silos=a,b,c", "--epsilon=2.5")
    assert run("new", "--out", "study", *said) == 0, run.err
    assert "Next: fedmodel simulate study/study.toml" in run.out
    assert max(map(len, run.out.splitlines())) <= 80
    privacy = read_scenario(str(tmp_path / "study" / "study.toml")).privacy
    assert (privacy.epsilon, privacy.delta) == (2.5, 1e-5)
    assert (privacy.sample_rate, privacy.expected_batch_size) == (0.25, 5000)
    for file in ("data.py", "model.py"):
        assert ast.get_docstring(ast.parse((tmp_path / "study" / file).read_text()))


def test_a_person_at_a_terminal_is_asked_and_again_where_it_is_not_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new, "_asks", lambda: True)
    answers = iter(["mnist", "own", "regression", "a,b", "a,b,c", "40:90", "8"])
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: next(answers))
    assert run("new", "--out", "study") == 0, run.err
    assert list(answers) == []
    assert "'mnist' is none of breast-cancer, digits, table, texts, own" in run.err
    assert "give three names or more" in run.err
    assert read_scenario(str(tmp_path / "study" / "study.toml")).training.loss == "mse"


def test_a_person_who_has_a_table_is_asked_for_the_file_and_then_of_its_columns(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ward.csv").write_text("age,outcome\n50,home\n60,ward\n")
    monkeypatch.setattr(new, "_asks", lambda: True)
    answers = iter(["table", "ward.csv", "outcome", "home,ward", "record", "18:90", "40:90"])
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: next(answers))
    assert run("new", "--out", "study", *SILOS) == 0, run.err
    assert list(answers) == []
    assert (tmp_path / "study" / "silo-table.toml").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--data breast-cancer|digits|texts|own --silos ... --epsilon ...; or --from CSV, a table's"),
        (("--data=own",), "--task classification|regression --silos ... --records ... --epsilon ..."),
        (("--data=table",), "--data table: say --from FILE"),
        (("--data=mnist", *SILOS), "--data: 'mnist' is none of breast-cancer, digits, table, texts, own"),
        (("--data=digits", "--label=x", "--range=a=1:2", *SILOS), "--label, --range: not of --data digits"),
        (("--data=digits", "--records=4:9", *SILOS), "--records: not of --data digits"),
        (("--data=digits", "--from=x.csv", *SILOS), "--from names a table"),
        (("--data=digits", "--silos=a,b,held-out", "--epsilon=0"), "epsilon is a number over 0"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_one_line_and_nothing_is_written(
    words: tuple[str, ...], said: str, run: Run, tmp_path: Path
) -> None:
    assert run("new", "--out", "study", *words) == 2
    assert said in run.err
    assert run.err.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_a_draft_is_written_over_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    assert run("new", "--out", "study", *ANSWERS["digits"], *SILOS) == 2
    assert "--out study: is there already" in run.err
