"""`fedmodel simulate --show-partition`: what each silo would get, as its run would deal it; nothing else is done."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedmodel.config import Scenario, read_scenario
from fedmodel.data import held_out_records, silo_records
from fedmodel.kinds.partitions import PARTITIONS
from scenarios.cli import main
from scenarios.cli.shares import lines
from scenarios.report.page.shares import _columns, shares_png
from scenarios.simulation import shares as counting
from scenarios.simulation.shares import Shares, shares
from tests.conftest import TINY

PNG = b"\x89PNG\r\n\x1a\n"
Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Show:
    """Call the verb in a folder of its own; return exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedmodel", "simulate", *arguments, "--show-partition"])
        with pytest.raises(SystemExit) as ended:
            main.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def made_up(silos: int, labels: int) -> Shares:
    count_SL = np.random.default_rng(0).integers(0, 90, (silos, labels))
    return Shares(
        tuple(f"silo-{number}" for number in range(silos)),
        tuple(f"_$label {number}$" for number in range(labels)),
        count_SL,
        count_SL[0],
        7,
    )


def test_what_is_shown_is_what_the_run_would_deal_and_nothing_is_written(show: Show, tmp_path: Path) -> None:
    code, printed, errors = show("hospitals", "--set", "seed=3", "--json")
    assert (code, errors) == (0, "")
    scenario = read_scenario("hospitals", ["seed=3"])
    found = json.loads(printed)
    for silo in scenario.federation.silos:
        y_N = silo_records(scenario, silo).y_N
        assert found["silos"][silo] == {
            "records": len(y_N),
            "labels": {"benign": int((y_N == 0).sum()), "malignant": int((y_N == 1).sum())},
        }
    assert found["held_out"]["records"] == len(held_out_records(scenario))
    assert (found["seed"], found["picture"]) == (3, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", ['{kind="iid"}', '{kind="shards", classes=1}', '{kind="sizes", power=1.0}', "{}"])
def test_each_kind_is_shown_in_eighty_columns(show: Show, setting: str, tmp_path: Path) -> None:
    code, printed, errors = show("digits", "--set", "seed=3", "--set", f"data.partition={setting}", "--out", "p.png")
    assert (code, errors) == (0, "")
    assert max(map(len, printed.splitlines())) <= 80
    assert "1,437 records over 10 silos" in printed
    assert "Nothing was run and nothing is charged" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]
    assert (tmp_path / "p.png").read_bytes().startswith(PNG)
    if "shards" in setting:
        bars = [line.split()[-1] for line in printed.splitlines() if line.startswith("c")]
        assert [set(bar) for bar in bars] == [{bar[0]} for bar in bars]
        assert {bar[0] for bar in bars} == set("0123456789")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("hospitals", "--out", "runs/first"),
            "with --show-partition it is a picture's file; name it, as partition.png",
        ),
        (("hospitals", "--out", "nowhere/p.png"), "--out nowhere/p.png: cannot be written: No such file or directory"),
        (("hospitals", "--set", "data.partition.min_records=400"), "426 records cannot give 4 silos 400 each"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(show: Show, arguments: tuple[str, ...], said: str) -> None:
    code, printed, errors = show(*arguments)
    assert (code, printed) == (2, "")
    assert said in errors
    assert errors.count("\n") == 1


def test_a_bar_is_as_long_as_a_silo_has_records_and_each_sign_is_a_label() -> None:
    found = Shares(("north", "south"), ("no", "yes"), np.array([[60, 20], [0, 40]]), np.array([5, 5]), 7)
    told = [line.plain for line in lines(found)]
    assert told[0] == "120 records over 2 silos, from 40 to 80 each; seed 7"
    width = 80 - len("north 80 ")
    assert told[2] == "north 80 " + "0" * round(width * 0.75) + "1" * (width - round(width * 0.75))
    assert told[3] == "south 40 " + "1" * round(width / 2)
    assert told[4].strip() == "0 no  1 yes"


@pytest.mark.parametrize(("silos", "labels"), [(1, 1), (3, 2), (41, 15), (130, 50)])
def test_many_silos_and_labels_are_drawn_whatever_they_are_called(silos: int, labels: int) -> None:
    found = made_up(silos, labels)
    assert shares_png(found, "$x_").startswith(PNG)
    told = [line.plain for line in lines(found)]
    assert max(map(len, told)) <= 80 or labels == 1
    assert any("and 30 more silos, from" in line for line in told) == (silos == 130)
    assert any(line == "+ any other of 50 labels" for line in told) == (labels == 50)


def test_numbers_are_told_apart_by_tenths_and_other_targets_not_at_all(
    tiny: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stub:
        def __init__(self, y_N: np.ndarray) -> None:
            self.y_N = y_N

    def counted(y_N: np.ndarray) -> Shares:
        monkeypatch.setattr(counting, "silo_records", lambda _, silo: Stub(y_N))
        monkeypatch.setattr(counting, "held_out_records", lambda _: Stub(y_N[:7]))
        return shares(tiny)

    found = counted(np.linspace(0.0, 1.0, 100))
    assert len(found.labels) == 10
    assert re.fullmatch(r"0 to 0\.\d+", found.labels[0])
    assert found.count_SL.sum(axis=1).tolist() == [100, 100, 100]
    assert np.ptp(found.count_SL.sum(axis=0)) <= 10
    assert found.held_out_L.tolist() == [7, *[0] * 9]
    several = counted(np.zeros((30, 4), np.int64))
    assert (several.labels, several.count_SL.tolist()) == (("records",), [[30]] * 3)


def test_every_kind_has_a_line_in_the_page_on_scenarios() -> None:
    page = (Path(__file__).parents[3] / "docs" / "scenarios.md").read_text(encoding="utf-8")
    part = page[page.index("## `[data.partition]`") : page.index("## `[federation]`")]
    assert all(f'`"{name}"`' in part or name == "own" for name in PARTITIONS)


def test_records_and_a_partition_of_a_users_own_are_shown(show: Show, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\ndef records():\n"
        "    return np.eye(3, dtype=np.float32)[np.arange(60) % 3], np.arange(60) % 3\n\n\n"
        "def deal(labels, silos):\n    return np.array_split(np.argsort(labels, kind='stable'), silos)\n"
    )
    data = 'data = { use = "mine:records", name = "mine", held_out = 0.25, partition = { use = "mine:deal" } }\n'
    head, sections = TINY.split("[federation]")
    (tmp_path / "own.toml").write_text(f"{head}{data}[federation]{sections.split('[data]')[0]}")
    code, printed, errors = show("own.toml", "--json")
    assert (code, errors) == (0, "")
    found = json.loads(printed)["silos"]
    assert [found[silo]["labels"] for silo in ("north", "south", "west")] == [
        {"0": 15, "1": 0, "2": 0},
        {"0": 0, "1": 15, "2": 0},
        {"0": 0, "1": 0, "2": 15},
    ]


def test_of_survival_each_sign_says_in_which_interval_the_event_was_seen(show: Show, tmp_path: Path) -> None:
    """A record's target is 2 j + e: number 3 is an event in the second interval, and was shown as the label 3."""
    code, printed, _ = show("survival", "--set", "data.ends=[24, 36.5]", "--out", "p.png")
    assert code == 0
    assert (tmp_path / "p.png").read_bytes().startswith(PNG)
    for sign in (
        "0 0-24 months: last seen",
        "1 0-24 months: event",
        "2 24-36.5 months: last seen",
        "3 24-36.5 months: event",
        "4 36.5 months without it",
    ):
        assert sign in printed
    assert max(map(len, printed.splitlines())) <= 80
    scenario = read_scenario("survival", ["data.ends=[24, 36.5]"])
    labels = json.loads(show("survival", "--set", "data.ends=[24, 36.5]", "--json")[1])["silos"]["alder"]["labels"]
    y_N = silo_records(scenario, "alder").y_N
    assert labels["24-36.5 months: event"] == int((y_N == 3).sum())
    assert labels["36.5 months without it"] == int((y_N == 4).sum()) == sum(y_N == y_N.max())


def test_long_names_of_labels_stand_side_by_side_as_far_as_there_is_room() -> None:
    assert _columns([str(number) for number in range(10)]) == 5
    assert _columns(["0-24 months: last seen"] * 17) == 3
    assert _columns(["x" * 40] * 3) == 2
    assert _columns(["a", "b"]) == 2
