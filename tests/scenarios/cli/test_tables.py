"""What is printed of a run's cost, of silos whose plan is all that they reserved, and of one with several parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console

from fedmodel.config import read_scenario
from fedmodel.privacy.accounting import epsilon
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.rounding import up
from scenarios.cli import tables
from scenarios.runs import words
from scenarios.runs.summary import row_of

PLAN, STATISTIC = DpSgdEvent(8.0, 1.0, 0.5, 20, 10), DpSgdEvent(12.0, 2.0, 1.0, 1, 1)


def test_a_part_has_its_own_figures_and_the_epsilon_of_all_is_named_as_composed() -> None:
    plan = replace(read_scenario("quickstart").plan("left"), unit="record", max_records=1)
    alone, both = row_of(plan, 1e-3, [PLAN], [20]), row_of(plan, 1e-3, [PLAN, STATISTIC], [10, 1])
    assert "parts" not in alone
    assert both["parts"] == [
        {"mechanism": "dp-sgd", "noise_multiplier": 8.0, "max_grad_norm": 1.0, "sample_rate": 0.5, "noise_source": "os",
         "steps": 10, "steps_reserved": 20},
        {"mechanism": "dp-sgd", "noise_multiplier": 12.0, "max_grad_norm": 2.0, "sample_rate": 1.0,
         "noise_source": "os", "steps": 1, "steps_reserved": 1},
    ]  # fmt: skip
    console = Console(width=100)
    with console.capture() as printed:
        console.print(tables._spent([alone, {**both, "silo": "right"}]))
    lines = [line.strip("│ ").replace("│", " ").split() for line in printed.get().splitlines()]
    composed = up(epsilon([PLAN, STATISTIC], 1e-3))
    assert composed is not None
    assert lines[4:8] == [
        ["left", up(epsilon([PLAN], 1e-3)), "0.001", "8.0000", "0.5", "20", "20"],
        ["right", f"{composed},", "composed", "0.001", *4 * ["by", "part"]],
        ["part", "1", "8.0000", "0.5", "10", "20"],
        ["part", "2", "12.0000", "1", "1", "1"],
    ]


def printed(rows: list[dict[str, Any]], **how: bool) -> list[list[str]]:
    """Return the lines of the table, in words, those of its frame left out."""
    console = Console(width=120)
    with console.capture() as captured:
        console.print(tables._spent(rows, **how))
    found = [line.strip("│ ").replace("│", " ").split() for line in captured.get().splitlines()]
    return [words for words in found[4:] if words and words[0][0] != "└"]


def test_rows_of_many_silos_with_equal_figures_are_one_and_all_are_shown_where_asked() -> None:
    plan = replace(read_scenario("quickstart").plan("left"), unit="record", max_records=1)
    row, more = row_of(plan, 1e-3, [PLAN], [20]), row_of(plan, 1e-3, [PLAN.times(40)], [40])
    rows = [{**row, "silo": f"silo-{number:04d}"} for number in range(30)]
    rows[7], rows[9] = {**more, "silo": "silo-0007"}, {**row, "silo": "silo-0009", "steps": 19}
    lines = printed(rows)
    assert [" ".join(words).partition("  ")[0].split(up(row["epsilon"]) or "")[0].strip() for words in lines[1:]] == [
        "silo-0000 and 27 others",
        "silo-0009",
    ]
    assert lines[0][:2] == ["silo-0007", up(more["epsilon"])]  # the largest epsilon first, by name
    assert [words[0] for words in printed(rows, every=True)] == [one["silo"] for one in rows]
    assert len(printed(rows[:20])) == 20
    assert printed(rows[:20])[0][0] == "silo-0000"


def test_of_many_rows_that_differ_the_extremes_are_named_and_the_rest_is_counted() -> None:
    plan = replace(read_scenario("quickstart").plan("left"), unit="record", max_records=1)
    row = row_of(plan, 1e-3, [PLAN], [20])
    rows = [{**row, "silo": f"silo-{number:04d}", "epsilon": 1.0 + number} for number in range(50)]
    names = [words[0] for words in printed(rows)]
    assert names == [*(f"silo-{n:04d}" for n in range(49, 44, -1)), "40", *(f"silo-{n:04d}" for n in range(4, -1, -1))]
    rows[3] = {**rows[3], "epsilon": None}  # nothing bounds it, which is over every figure
    assert printed(rows)[0][0] == "silo-0003"


def test_a_person_is_told_what_a_job_besides_training_came_to() -> None:
    counted = {"silos": 4, "noise_std": 16.0, "counts": {"benign": 285.46, "malignant": -3.5}}
    assert tables._besides("label-counts", counted) == (
        "label-counts: benign 285.46, malignant -3.5, of 4 silos together, with noise of a standard deviation of 16.0."
    )
    told = tables._besides("head-count", {"silos": 2, "noise_std": 2.0, "records": 9.5})
    assert told.startswith("head-count: records 9.5, of 2 silos")
    assert "failed closed" in tables._besides("label-counts", {"silos": 0, "failed": True})


def test_no_figure_loses_its_name_or_value_at_eighty_columns() -> None:
    names = ("average-precision", "recall@0.1", "auroc", "cost@5", "brier", "calibration-error", "loss")
    metrics = {name: 0.1 + place / 100 for place, name in enumerate(names)}
    for width, lines in ((80, 2), (140, 1)):
        console = Console(width=width)
        with console.capture() as printed:
            console.print(tables._figures(metrics, width))
        rows = [line.strip()[1:-1].split("┃") for line in printed.get().splitlines() if line.startswith("┃")]
        assert len(rows) == lines
        assert ["".join(part.strip() for part in column) for column in zip(*rows, strict=True)] == list(names)
        assert all(words.metric(value) in printed.get() for value in metrics.values())
        assert "…" not in printed.get()
