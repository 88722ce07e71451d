"""A drafted scenario: made of a header and of what its owner says, of no value; and it runs as it is."""

from __future__ import annotations

import csv
import re
import stat
from pathlib import Path

import pyarrow as pa
import pytest
import typer
from pyarrow import parquet

from fedmodel.config import Scenario, read_scenario, read_silo_file
from fedmodel.data import silo_records, table_records
from fedmodel.data.findings import inspect
from fedmodel.data.looking import look
from fedmodel.data.tables import declared
from fedmodel.errors import DataError
from scenarios.cli import new
from scenarios.simulation.simulate import check_scenario
from tests.scenarios.cli.test_main import Run

HEADER = ["patient id", "admitted", "age", "a=b", "diabetic", "triage", "note", "outcome"]
SAID = (
    "--label=outcome", "--labels=home,ward", "--person=patient id", "--max-records=2", "--range=age=18:90",
    "--range=a=b=45:110.5", "--categories=triage=green,yellow,red", "--leave-out=note",
    "--boolean=diabetic", "--leave-out=admitted",
    "--silos=aurora,borealis,cascade", "--records=40:90", "--epsilon=8",
)  # fmt: skip


def rows(count: int, shift: int = 0, gap: str = "") -> list[list[str]]:
    made = []
    for row in range(count):
        number = gap if row == 3 else f"{50 + shift + row},5"
        words = ["Ja" if row % 2 else "nein", ("green", "yellow", "red")[row % 3], "größer", ("home", "ward")[row % 2]]
        made.append([f"P-{row // 2}", f"{1 + row % 28}.03.2024", str(20 + shift + row % 60), number, *words])
    return made


def lay(path: Path, made: list[list[str]], header: list[str] | None = None) -> Path:
    lines = [";".join(line) for line in [header or HEADER, *made]]
    path.write_bytes("\r\n".join([*lines, ""]).encode("cp1252"))
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    lay(tmp_path / "ward.csv", rows(60))
    return Run(monkeypatch, capsys, tmp_path)


def drafted(run: Run, *more: str, table: str = "ward.csv", out: str = "study") -> Scenario:
    assert run("new", "--from", table, "--out", out, *SAID, *more) == 0, run.err
    return read_scenario(str(run.folder / out / "study.toml"))


def test_a_draft_runs_as_it_is_and_reads_its_owners_table(run: Run, tmp_path: Path) -> None:
    scenario = drafted(run)
    assert "fedmodel simulate study/study.toml" in run.out
    assert "fedmodel data check study/study.toml --table study=ward.csv --fix" in run.out
    assert "Not used: note, admitted." in run.out
    assert check_scenario(scenario) == 7
    assert (scenario.privacy.unit, scenario.privacy.max_records, scenario.privacy.epsilon) == ("person", 2, 8.0)
    assert (scenario.privacy.delta, scenario.privacy.expected_batch_size, scenario.privacy.sample_rate) == (
        1e-2,
        40,
        1.0,
    )
    config = declared(scenario.data)
    assert [(one.name, one.type, one.range, one.categories) for one in config.columns] == [
        ("age", "float", (18.0, 90.0), ()),
        ("a=b", "float", (45.0, 110.5), ()),
        ("diabetic", "boolean", None, ()),
        ("triage", "category", None, ("green", "yellow", "red")),
    ]
    law = tmp_path / "silo.toml"
    law.write_text(
        'name = "borealis"\nbudgets = {}\nencryption = {secure_aggregation = "off"}\n'
        + (tmp_path / "study" / "silo-table.toml").read_text()
    )
    source = read_silo_file(law).tables["study"]
    assert (source.separator, source.decimal, source.encoding, source.yes) == (";", ",", "cp1252", ("ja",))
    assert len(table_records(config, source)) == 60 - 1
    assert not inspect(config, source).refused
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "study").rglob("*")}
    assert modes == {0o600, 0o700}


def test_no_value_gets_into_the_scenario_nor_into_its_made_up_tables(run: Run, tmp_path: Path) -> None:
    """Other values, other gaps, other counts, whole numbers for fractions: the very same text."""
    drafted(run)
    other = [[*row[:2], str(int(row[2])), *row[3:]] for row in rows(7, shift=13)]
    for row in other:
        row[3], row[6] = row[3].split(",")[0], "SESAME"
    lay(tmp_path / "other.csv", other)
    drafted(run, table="other.csv", out="again")
    first, second = (
        re.sub(r"seed = [0-9]+|study|again", "", (tmp_path / out / "study.toml").read_text())
        for out in ("study", "again")
    )
    assert first == second
    text = "".join(path.read_text() for path in (tmp_path / "again").rglob("*.*") if path.name != "silo-table.toml")
    assert "SESAME" not in text
    assert "P-" not in text
    assert "note" not in text.replace("# ", "")


def test_what_a_column_is_follows_from_no_value(run: Run, tmp_path: Path) -> None:
    """One record among yes and no, numbers and dates that is none of them: the very same text, and nothing is lost."""
    texts = []
    for out in ("study", "again"):
        drafted(run, out=out)
        texts.append(re.sub(r"seed = [0-9]+|study|again", "", (tmp_path / out / "study.toml").read_text()))
        spoilt = rows(60)
        spoilt[5] = ["P-9", "never", "<18", "low", "unknown", "3", "", "home"]
        lay(tmp_path / "ward.csv", spoilt)
    assert texts[0] == texts[1]
    assert [one.name for one in declared(read_scenario(str(tmp_path / "again" / "study.toml")).data).columns] == [
        "age", "a=b", "diabetic", "triage",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spoilt", "wanted"),
    [
        ("", "(--boolean diabetic or --leave-out diabetic)"),
        ("unknown", "(--categories diabetic=A,B or --leave-out diabetic)"),
    ],
)
def test_without_a_terminal_a_column_of_which_nothing_is_said_is_refused_by_its_name(
    spoilt: str, wanted: str, run: Run, tmp_path: Path
) -> None:
    made = rows(60)
    made[5][4] = spoilt or made[5][4]
    lay(tmp_path / "ward.csv", made)
    said = [one for one in SAID if one not in ("--boolean=diabetic", "--leave-out=admitted")]
    assert run("new", "--from", "ward.csv", "--out", "study", *said) == 2
    assert f"nobody is at a terminal to be asked: --leave-out admitted {wanted}. " in run.err
    assert not (tmp_path / "study").exists()


def test_made_up_records_are_as_declared_and_of_both_classes(run: Run, tmp_path: Path) -> None:
    scenario = drafted(run)
    for silo in ("aurora", "cascade"):
        assert sorted(set(silo_records(scenario, silo).y_N.tolist())) == [0, 1]
    with (tmp_path / "study" / "made-up" / "held-out.csv").open(newline="") as file:
        made = list(csv.DictReader(file))
    assert len(made) == 40
    assert all(18 <= float(row["age"]) <= 90 and row["triage"] in ("green", "yellow", "red") for row in made)


def test_what_is_not_said_is_refused_all_at_once_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    assert run("new", "--from", "ward.csv", "--out", "study", "--label", "outcome") == 2
    for option in (
        "--labels ...", "--person ...", "--range age=LOW:HIGH", "--range a=b=LOW:HIGH", "--silos ...", "--records ...",
        "(--categories triage=A,B or --leave-out triage)", "(--boolean diabetic or --leave-out diabetic)",
        "--leave-out admitted", "--epsilon ...", "oldest patient",
    ):  # fmt: skip
        assert option in run.err
    assert "green" not in run.err + run.out
    assert not (tmp_path / "study").exists()


WRONG = [
    (("--range=age=90:18",), "--range age: '90:18': a range rises from low to high"),
    (("--range=age=x:18",), "a range is LOW:HIGH, two numbers"),
    (("--range=weight=1:2",), "--range weight=1:2: expected COLUMN=..., COLUMN being one of patient id"),
    (("--leave-out=weight",), "--leave-out weight: is no column of the table"),
    (("--boolean=weight",), "--boolean weight: is no column of the table"),
    (("--boolean=age",), "--range age and --boolean age: a column is one of them; say one"),
    (("--categories=triage=green",), "give two or more different names"),
    (("--label=result",), "--label: 'result' is none of patient id"),
    (("--silos=a,b",), "give three names or more"),
    (("--silos=a,b,held-out",), "what was said makes no scenario: .*held-out"),
    (("--records=0:9",), "numbers of records are whole, from 1"),
    (("--epsilon=0",), "epsilon is a number over 0"),
    (("--labels=1,1.0",), "what was said makes no scenario: .*are read as one"),
]


@pytest.mark.parametrize(("more", "rule"), WRONG)
def test_what_cannot_be_is_refused_in_one_line(more: tuple[str, ...], rule: str, run: Run, tmp_path: Path) -> None:
    assert run("new", "--from", "ward.csv", "--out", "study", *SAID, *more) == 2
    assert re.search(rule, run.err)
    assert run.err.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_a_name_that_no_scenario_can_have_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    lay(tmp_path / "ward.csv", rows(9), ["patient id", "admitted", "ag\x7fe", *HEADER[3:]])
    said = [one.replace("--range=age", "--range=ag\x7fe") for one in SAID]
    assert run("new", "--from", "ward.csv", "--out", "study", *said) == 2
    assert "what was said makes no scenario: Illegal character" in run.err
    assert run.err.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_a_draft_is_written_over_nothing(run: Run, tmp_path: Path) -> None:
    drafted(run)
    assert run("new", "--from", "ward.csv", "--out", "study", *SAID) == 2
    assert "--out study: is there already" in run.err
    assert run("new", "--from", "ward.csv", "--out", "My Study", *SAID) == 2
    assert "its name becomes the scenario's" in run.err
    assert run("new", "--from", "none.csv", "--out", "other", *SAID) == 2
    assert "none.csv: cannot be read: No such file" in run.err


def test_a_person_at_a_terminal_is_asked_for_what_no_option_said_and_again_where_it_is_not_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new, "_asks", lambda: True)
    answers = iter([
        "result", "outcome", "home, ward", "record", "", "", "18 to 90", "90:18", "18:90", "", "boolean",
        "green,yellow,red", "",
        "aurora,borealis,cascade", "40:90", "8",
    ])  # fmt: skip
    asked: list[str] = []

    def prompt(question: str, **_: object) -> str:
        asked.append(question)
        return next(answers)

    monkeypatch.setattr(typer, "prompt", prompt)
    assert run("new", "--from", "ward.csv", "--out", "study") == 0, run.err
    assert list(answers) == []
    assert "never" not in run.out
    assert "oldest patient's age" in run.err
    assert "'18 to 90': say a range LOW:HIGH, categories A,B, or: boolean" in run.err
    assert "'90:18': a range rises from low to high" in run.err
    assert "(this file has green, red, yellow)" in next(one for one in asked if "What is 'triage'" in one)
    assert "(this file has dates)" in next(one for one in asked if "What is 'admitted'" in one)
    scenario = read_scenario(str(tmp_path / "study" / "study.toml"))
    assert scenario.privacy.unit == "record"
    assert [one.name for one in declared(scenario.data).columns] == ["age", "diabetic", "triage"]
    assert check_scenario(scenario) == 6


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_file_is_looked_at_however_it_is_written(separator: str, encoding: str, tmp_path: Path) -> None:
    lines = [["name", "x", "on", "when", "gone"], ["ä", "1.5", "true", "2024-01-31", ""], ["b", "2", "false", "", ""]]
    (tmp_path / "a.csv").write_bytes("\n".join(separator.join(line) for line in lines).encode(encoding))
    looked = look(tmp_path / "a.csv")
    assert [column.kind for column in looked.columns] == ["text", "numbers", "true and false", "dates", "nothing"]
    assert looked.columns[0].values == ("b", "ä")
    assert "ä" not in repr(looked) + repr(looked.columns)


def test_parquet_is_looked_at_and_what_is_no_table_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [1.5, None], "on": [True, False]}), tmp_path / "a.parquet")
    assert [column.kind for column in look(tmp_path / "a.parquet").columns] == ["numbers", "true and false"]
    for text, rule in (("one\n1\n", "its header has one column"), ("a,a\n1,2\n", "twice"), ("", "is empty")):
        (tmp_path / "b.csv").write_text(text)
        with pytest.raises(DataError, match=rule):
            look(tmp_path / "b.csv")


def test_a_draft_of_a_number_has_its_range_and_made_up_records_of_it(run: Run, tmp_path: Path) -> None:
    said = ("--label=age", "--labels=18:90.5", "--person=record", "--boolean=diabetic", "--categories=triage=green,red",
            "--silos=aurora,borealis,cascade", "--records=40:90", "--epsilon=8",
            *(f"--leave-out={name}" for name in ("patient id", "admitted", "a=b", "note", "outcome")))  # fmt: skip
    assert run("new", "--from", "ward.csv", "--out", "study", *said) == 0, run.err
    scenario = read_scenario(str(tmp_path / "study" / "study.toml"))
    assert (scenario.training.loss, scenario.data.shape.task) == ("mse", "regression")
    assert scenario.data.shape.target_range == (18.0, 90.5)
    assert check_scenario(scenario) == 4
    made = silo_records(scenario, "aurora").y_N
    assert -1 <= made.min() < -0.5 < 0.5 < made.max() <= 1
    assert run("new", "--from", "ward.csv", "--out", "other", *said[:1], "--labels=90:18", *said[2:]) == 2
    assert "--labels: '90:18': a range rises from low to high" in run.err


TIMED = (
    "--label=diabetic", "--time=a=b", "--ends=12,36.5,60", "--time-unit=months", "--person=record", "--range=age=18:90",
    "--categories=triage=green,red", *(f"--leave-out={name}" for name in ("patient id", "admitted", "note", "outcome")),
    "--silos=aurora,borealis,cascade", "--records=40:90", "--epsilon=8",
)  # fmt: skip


def test_a_draft_of_a_time_until_an_event_has_its_ends_as_they_were_said_and_made_up_times(
    run: Run, tmp_path: Path
) -> None:
    texts = []
    for out in ("study", "again"):
        assert run("new", "--from", "ward.csv", "--out", out, *TIMED) == 0, run.err
        texts.append(re.sub(r"seed = [0-9]+|study|again", "", (tmp_path / out / "study.toml").read_text()))
        lay(tmp_path / "ward.csv", [[*row[:3], "7", "maybe", *row[5:]] for row in rows(9)])
    assert texts[0] == texts[1]
    scenario = read_scenario(str(tmp_path / "study" / "study.toml"))
    config = declared(scenario.data)
    assert (config.label, config.labels, config.time, config.ends, config.time_unit) == (
        "diabetic", (), "a=b", (12.0, 36.5, 60.0), "months"
    )  # fmt: skip
    assert (scenario.training.loss, scenario.data.shape.task) == ("hazards", "survival")
    assert check_scenario(scenario) == 3 * 4
    made = silo_records(scenario, "aurora").y_N.tolist()
    assert set(made) <= set(range(7))
    assert {target % 2 for target in made} == {0, 1}  # of 40 at any seed, all are of one kind once in a billion times


@pytest.mark.parametrize(
    ("said", "more", "rule"),
    [
        (TIMED[:2] + TIMED[3:], (), "nobody is at a terminal to be asked: --ends ..."),
        (TIMED[:1] + TIMED[2:], (), "nobody is at a terminal to be asked: --time ..."),
        (TIMED, ("--time=weight",), "--time: 'weight' is none of patient id"),
        (TIMED, ("--time=diabetic", "--leave-out=a=b"), "what was said makes no scenario: .*'diabetic' is named twice"),
        (TIMED, ("--ends=12,many",), "--ends: '12,many': ends are numbers, separated by commas"),
        (TIMED, ("--ends=60,12",), "what was said makes no scenario: .*ends are two at least and rise"),
        (TIMED, ("--ends=12",), "what was said makes no scenario: .*ends are two at least and rise"),
        (TIMED, ("--ends=0,nan",), "what was said makes no scenario: "),
        (TIMED, ("--time-unit= ",), "--time-unit: say a word in the plural"),
        (TIMED, ("--labels=1,2,3",), "what was said makes no scenario: .*labels are two"),
        (TIMED, ("--labels=1:2",), "give two or more different names"),
    ],
)
def test_a_time_that_cannot_be_is_refused_in_one_line(
    said: tuple[str, ...], more: tuple[str, ...], rule: str, run: Run, tmp_path: Path
) -> None:
    assert run("new", "--from", "ward.csv", "--out", "study", *said, *more) == 2
    assert re.search(rule, run.err), run.err
    assert run.err.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_codes_of_the_event_are_drafted_in_their_order(run: Run, tmp_path: Path) -> None:
    assert run("new", "--from", "ward.csv", "--out", "study", *TIMED, "--labels=1,2") == 0, run.err
    scenario = read_scenario(str(tmp_path / "study" / "study.toml"))
    assert declared(scenario.data).labels == ("1", "2")
    with (tmp_path / "study" / "made-up" / "held-out.csv").open(newline="") as file:
        assert {row["diabetic"] for row in csv.DictReader(file)} == {"1", "2"}


def test_at_a_terminal_what_one_option_of_a_time_leaves_open_is_asked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new, "_asks", lambda: True)
    answers = iter(["12; 36", "12, 36.5", "months"])
    monkeypatch.setattr(typer, "prompt", lambda question, **_: next(answers))
    said = [one for one in TIMED if not one.startswith(("--ends", "--time-unit"))]
    assert run("new", "--from", "ward.csv", "--out", "study", *said) == 0, run.err
    assert list(answers) == []
    assert "ends are numbers, separated by commas" in run.err
    assert declared(read_scenario(str(tmp_path / "study" / "study.toml")).data).ends == (12.0, 36.5)
