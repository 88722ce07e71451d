"""Published files on a person's own disk are read by their form, and any other is refused by what to get."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from fedmodel.config import read_scenario
from fedmodel.config.scenario import Scenario
from fedmodel.data.records import dealt
from fedmodel.errors import FedmodelError
from fedmodel.kinds.sources.uci_adult import UciAdultConfig
from fedmodel.kinds.sources.ulb_fraud import UlbFraudConfig
from tests.scenarios.cli.test_main import Run

EXAMPLES = Path(__file__).resolve().parents[4] / "docs" / "examples"
HEADER = '"Time","V1",' + ",".join(f'"V{place}"' for place in range(2, 29)) + ',"Amount","Class"'
FAR = (2, 9, 11, 13, 16)
SMALL = {
    "fraud": ["data.partition.min_records=200", "privacy.expected_batch_size=200"],
    "income": ["data.partition.min_records=20", "privacy.expected_batch_size=40"],
}
# As UCI's files have them: a space behind each comma, gaps, a first line that is none, full stops in the test part.
ADULT = """\
39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, Cuba, <=50K
52, Self-emp-inc, 287927, HS-grad, 9, Married-civ-spouse, Exec-managerial, Wife, White, Female, 15024, 0, 40, ?, >50K
54, ?, 180211, Some-college, 10, Married-civ-spouse, ?, Husband, Other, Male, 0, 0, 60, South, >50K

|1x3 Cross validator
25, Private, 226802, 11th, 7, Never-married, Machine-op-inspct, Own-child, Black, Male, 0, 0, 40, United-States, <=50K.
44, Private, 160323, Some-college, 10, Married-AF-spouse, Armed-Forces, Husband, Black, Male, 7688, 0, 40, Peru, >50K.

"""


def payments(path: Path, count: int = 3000) -> Path:
    """Made-up payments in the form of ULB's, of which .17% are fraud, with components far from the others'."""
    draw = random.Random(5)  # noqa: S311 - made-up records
    lines = [HEADER]
    for number in range(count):
        fraud = number % 600 == 7
        parts = [f"{draw.gauss(-6.0 if fraud and place in FAR else 0.0, 1.0):.12g}" for place in range(28)]
        lines.append(f'{number},{",".join(parts)},{draw.random() * 200:.2f},"{int(fraud)}"')
    path.write_text("\n".join(lines) + "\n")
    return path


def persons(path: Path, times: int = 100) -> Path:
    path.write_text(ADULT * times)
    return path


def example(name: str, *settings: str) -> Scenario:
    return read_scenario(str(EXAMPLES / f"{name}.toml"), [*SMALL[name], *settings])


def test_payments_are_what_the_file_says_and_no_time_is_read(tmp_path: Path) -> None:
    scenario = example("fraud", f"data.file={payments(tmp_path / 'creditcard.csv')}")
    assert isinstance(scenario.data, UlbFraudConfig)
    x_NF, y_N = scenario.data.load(0)
    first = (tmp_path / "creditcard.csv").read_text().splitlines()[1].split(",")
    assert x_NF.shape == (3000, 29)
    assert x_NF[0].tolist() == [float(one) for one in first[1:30]]
    assert np.flatnonzero(y_N).tolist() == [7, 607, 1207, 1807, 2407]
    held_out, silos = dealt(scenario)
    assert len(held_out) + sum(map(len, silos)) == 3000


def test_persons_are_what_the_lines_say_without_gaps_and_without_what_is_left_out(tmp_path: Path) -> None:
    scenario = example("income", f"data.file={persons(tmp_path / 'adult.csv', 1)}")
    assert isinstance(scenario.data, UciAdultConfig)
    x_NF, y_N = scenario.data.load(0)
    assert y_N.tolist() == [0, 1, 0, 1]  # who has a gap in the work is left out, and a gap in the country is not read
    told = [{name for name, one in zip(scenario.data.shape.names, row, strict=True) if one == 1} for row in x_NF]
    assert told == [
        {"work State-gov", "occupation Adm-clerical"},
        {"married", "work Self-emp-inc", "occupation Exec-managerial"},
        {"work Private", "occupation Machine-op-inspct"},
        {"married", "work Private", "occupation Armed-Forces"},
    ]
    assert x_NF[:, :5].tolist() == [
        [39, 13, 2174, 0, 40], [52, 9, 15024, 0, 40], [25, 7, 0, 0, 40], [44, 10, 7688, 0, 40],
    ]  # fmt: skip
    assert not {"sex", "race", "native-country"} & {name.lower() for name in scenario.data.shape.names}


@pytest.mark.parametrize("name", ["fraud", "income"])
def test_a_byte_order_mark_is_skipped(name: str, tmp_path: Path) -> None:
    """As Excel writes it."""
    path = {"fraud": payments, "income": persons}[name](tmp_path / "file.csv", 20)
    expected = example(name, f"data.file={path}").data.load(0)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    found = example(name, f"data.file={path}").data.load(0)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", ["fraud", "income"])
def test_a_scenario_declares_a_range_for_each_feature_and_deals_all_out(name: str, tmp_path: Path) -> None:
    make = {"fraud": payments, "income": persons}[name]
    scenario = example(name, f"data.file={make(tmp_path / 'file.csv')}")
    held_out, silos = dealt(scenario)
    assert all(len(part) for part in silos)
    assert np.abs(held_out.x_NF).max() <= 3


def test_a_file_that_is_changed_is_read_again(tmp_path: Path) -> None:
    path = persons(tmp_path / "adult.csv", 100)
    scenario = example("income", f"data.file={path}")
    before = len(dealt(scenario)[0])
    os.utime(persons(path, 200), ns=(1, 1))
    assert len(dealt(scenario)[0]) == 2 * before


FRAUD = "creditcard.csv of the machine-learning group of Universit"
INCOME = "adult.data or adult.test of UCI's Adult set"
ROW = "0," + "0.5," * 28 + "9.99,0\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("fraud", None, "cannot be read: No such file or directory"),
        ("fraud", "", "is empty"),
        ("fraud", "\ufeff", "is empty"),
        ("fraud", "PK\x03\x04", "is packed by zip; unpack it"),
        ("fraud", "\x1f\x8b\b", "is packed by gzip; unpack it"),
        ("fraud", HEADER.replace("V7", "v7") + "\n" + ROW, "its first line has other columns"),
        ("fraud", HEADER + "\n", "it has no line behind its header"),
        ("fraud", HEADER + "\n" + ROW + ROW.replace("9.99", "SESAME"), "line 3 has no number in column Amount"),
        ("fraud", HEADER + "\n" + ROW + ROW.replace("9.99", "9.99,1"), "line 3 has 32 fields, where the header has 31"),
        ("fraud", HEADER + "\n" + ROW.replace("9.99", ""), "line 2 has a gap in column Amount"),
        (
            "fraud",
            HEADER + "\n" + ROW + ROW + ROW.replace(",0\n", ",2\n"),
            "line 4 has a class that is neither 0 nor 1",
        ),
        ("fraud", HEADER + "\n" + ROW + ROW.replace("9.99", "nan"), "line 3 has a number in column Amount that is not"),
        ("fraud", HEADER + "\n" + ROW + ROW.replace(",0\n", ',"0'), "its last line is cut short"),
        (
            "fraud",
            HEADER + "\n" + ROW.replace(",0\n", ',"0\n') + 3000 * ROW,
            "line 2 has a quotation mark that is opened",
        ),
        ("fraud", HEADER + "\n" + 3 * ROW + ROW.replace(",0\n", ',"0\n') + 3 * ROW, "line 5 has a quotation mark"),
        ("fraud", HEADER + "\n" + ROW + ROW.replace("9.99", "9_9"), "line 3 has no number in column Amount"),
        ("income", None, "cannot be read: No such file or directory"),
        ("income", "", "is empty"),
        ("income", "\ufeff", "is empty"),
        ("income", "\n\n|1x3 Cross validator\n", "it has no line of fields"),
        ("income", "\x1f\x8b\b", "is packed by gzip; unpack it"),
        ("income", "PK\x03\x04", "is packed by zip; unpack it"),
        ("income", ADULT.splitlines()[2], "it has no line without a gap"),
        ("income", "age,workclass\n", "line 1 has not 15 fields"),
        ("income", ADULT.replace("Private", "SESAME"), "line 6 has a field that the set does not have"),
        ("income", ADULT.replace("13,", "13.5,"), "line 1 has a field that the set does not have"),
        ("income", ADULT.replace("<=50K", "low"), "line 1 has a field that the set does not have"),
        ("income", ADULT.replace("Cuba", "Curaçao"), "is not text in ASCII"),
    ],
)
def test_a_missing_or_another_file_is_refused_by_what_to_get(
    name: str, text: str | None, said: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "file.csv").write_text(text, encoding="latin-1" if text.startswith("\x1f") else "utf-8")
    with pytest.raises(FedmodelError) as refused:
        dealt(example(name, f"data.file={tmp_path / 'file.csv'}"))
    told = str(refused.value)
    assert said in told
    assert f"data.file is {FRAUD if name == 'fraud' else INCOME}" in told
    assert "\n" not in told
    assert "SESAME" not in told


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return Run(monkeypatch, capsys, tmp_path)


def test_no_folder_is_made_where_the_file_is_not_said_or_not_there(run: Run) -> None:
    path = str(EXAMPLES / "fraud.toml")
    for more, said in (((), "data.file is missing"), (("--set", "data.file=none.csv"), "none.csv: cannot be read")):
        assert run("simulate", path, *more, "--out", "run") == 2
        assert said in run.err
        assert "creditcard.csv of the machine-learning group" in run.err
        assert not (run.folder / "run").exists()


def test_fraud_is_found_among_a_fifth_of_a_percent_of_alerts(run: Run) -> None:
    """So few made-up payments a bank are too few for epsilon 1: this shows that the example runs, and learns."""
    payments(run.folder / "creditcard.csv")
    settings = [*SMALL["fraud"], "rounds=8", "encryption={}", 'privacy.baseline="no-noise-no-clip"']
    more = [part for one in settings for part in ("--set", one)]
    told = run.json(
        "simulate", str(EXAMPLES / "fraud.toml"), "--set", "data.file=creditcard.csv", *more, "--out", "run"
    )
    assert told["metrics"]["recall@0.01"] == 1.0
    assert set(told["metrics"]) == {"loss", "average-precision", "recall@0.002", "recall@0.01", "cost@100", "brier"}
